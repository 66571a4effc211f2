# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation has to do next: one pure function of what is known. Nothing is asked or written here.

A token is its value, named by its fingerprint; which text of a server's address stands beside it does not matter. What
may hold a token is known from the variables and the inspection of the *whole* inventory; a limit only narrows where
is written. So no token is revoked as long as a host that was not looked at could hold it.

A rotation keeps no file about itself. Whatever moment it was killed at, the next run sees how far it came:

* The description of the new token says which one it replaces: "NAME (replaces 3fa9c2d1)". It comes into being with the
  token. ", kept" in it means that the old one was to stay.
* A listed token that replaces the one in the vault was made and not stored. It is stored now.
* If the token in the vault replaces one that is still listed, the rotation is rolled out, and the old one revoked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import clean_fingerprint, iso
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import holders as _holders
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import (
    description,
    is_kept,
    replaces,
    rotation_name,
    successor,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Blocker,
    Inventory,
    Known,
    Listed,
    Request,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.strangers import without_strangers
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import (
    hosts_named,
    names,
    with_reasons,
)

NEW_FOR = 30 * 86400.0
"""Seconds for which a token that a rotation made counts as new: without another name, the same command makes none."""
CANARIES = 3
"""Hosts that are tried for a token, one after the other, before its roll-out stops."""


def decide(known: Known) -> tuple[Rotation, ...]:
    """Return what is to be done about every token. Raises CaveError: nothing can be done about any."""
    inventory, request = known.inventory, known.request
    refuse_impossible(inventory, request)
    rotations = []
    for tokens in _chains(known):
        entries = tuple(entry for entry in inventory.entries if entry.token in tokens)
        rotation = Rotation(tokens, entries, "leave", source=tokens[-1], new=tokens[-1])
        # Nobody is rotated who was not asked for, by name or by a host of the run.
        wanted = [entry for entry in entries if not entry.absent]
        in_run = any(entry.host in request.hosts for entry in wanted)
        if in_run and (not request.users or any(entry.user in request.users for entry in wanted)):
            rotation = _decided(rotation, known)
            rotation = replace(rotation, kin=_holders.kin(rotation, known))
            rotation = replace(rotation, blockers=_holders.blockers(rotation, known))
        rotations.append(rotation)
    rotations = without_strangers(rotations, known)
    return tuple(with_canaries(item, known) for item in rotations)


def to_rehearse(rotations: Sequence[Rotation], known: Known) -> tuple[str, ...]:
    """Return the hosts that predict whether they could save a new token, before one is made for these rotations.

    They are those that would get it first; where making it may kill the old one, all that hold that.
    """
    request = known.request
    if request.strategy != "overlap" or request.anyway:
        return ()
    found: set[str] = set()
    for rotation in rotations:
        meant = with_canaries(replace(rotation, action="make", withheld={}), known)
        found.update(meant.canaries if known.accounts[meant.source].two_live else meant.hosts)
    return tuple(host for host in request.hosts if host in found)


def refuse_impossible(inventory: Inventory, request: Request) -> None:
    """Raise CaveError when what was asked for cannot be done for any token."""
    known = {entry.user for entry in inventory.entries}
    known |= {user for users in inventory.unknown.values() for user in users or ()}
    users = sorted(request.users - known)
    if users and not any(who is None for who in inventory.unknown.values()):
        raise CaveError(
            f"caveclient_rotate_users names {names(users)}, who has no entry in caveclient_tokens on any host. "
            f"Known: {names(sorted(known)) or 'nobody'}. Correct the name."
        )
    for option, wanted, where, what in (
        ("caveclient_rotate_canary", request.canary, request.hosts, "host of this run"),
        ("caveclient_rotate_give_up", sorted(request.give_up), inventory.hosts, "host of the inventory"),
    ):
        wrong = [name for name in wanted if name not in where]
        if wrong:
            advice = did_you_mean(wrong[0], where) or " Correct it."
            raise CaveError(f"{option} names {names(wrong)}, which is no {what}.{advice}")
    description(request.name, "0" * 8, kept=request.revoke == "never")
    if request.old:
        _refuse_old(inventory, request)


def old_token(text: str) -> str:
    """Return the fingerprint of a token to revoke. Raises CaveError, which does not show what is none."""
    try:
        return clean_fingerprint(text)
    except CaveError:
        raise CaveError(
            "caveclient_rotate_old has something that is no fingerprint of a token. Name the old token by the 8 hex "
            "digits by which reports name it, such as 3fa9c2d1."
        ) from None


def _refuse_old(inventory: Inventory, request: Request) -> None:
    """Raise CaveError when the replaced tokens that were named cannot be revoked, whatever is found."""
    if request.strategy == "overlap":
        raise CaveError(
            "caveclient_rotate_old revokes tokens that were replaced before, and caveclient_rotate_strategy=overlap "
            "makes new ones. Ask for one after the other."
        )
    if request.revoke == "never":
        raise CaveError("caveclient_rotate_old names tokens to revoke, and caveclient_rotate_revoke=never forbids it.")
    named = [entry for entry in inventory.entries if entry.token in request.old and not entry.absent]
    if named:
        users = dict.fromkeys(entry.user for entry in named)
        who = names(f"{user} on {hosts_named(e.host for e in named if e.user == user)}" for user in users)
        raise CaveError(
            f"caveclient_rotate_old names {named[0].token}, which caveclient_tokens gives to {who}. Put the token that "
            "replaces it into the vault first."
        )


def _chains(known: Known) -> tuple[tuple[str, ...], ...]:
    """Return the tokens of the variables, those that replace each other together, newest last."""
    inventory, accounts, request = known.inventory, known.accounts, known.request
    named = list(dict.fromkeys(entry.token for entry in inventory.entries if not entry.absent))
    if request.strategy == "cutover":
        return tuple((token,) for token in named)
    users = {token: {entry.user for entry in inventory.entries if entry.token == token} for token in named}
    older: dict[str, str] = {}
    for token in named:
        own = _own(token, accounts)
        replaced = replaces(own.description) if own is not None else None
        # A description is a person's to write: it counts among tokens of that person alone, and may lead in a circle.
        passed = {token}
        while replaced is not None and replaced not in passed:
            passed.add(replaced)
            listed = find(replaced, accounts[token])
            dead = not any(find(replaced, account) for account in accounts.values())
            if replaced in named and (listed or (dead and users[replaced] & users[token])):
                if token not in _line(replaced, older):
                    older[token] = replaced
                break
            replaced = replaces(listed.description) if listed else None
    newest = [token for token in named if token not in older.values()]
    return tuple(tuple(reversed(_line(token, older))) for token in newest)


def _line(token: str, older: Mapping[str, str]) -> list[str]:
    """Return a token and those that it replaces, one after the other."""
    line = [token]
    while line[-1] in older:
        line.append(older[line[-1]])
    return line


def _decided(rotation: Rotation, known: Known) -> Rotation:
    """Return a rotation with what is to be done about it."""
    inventory, accounts, request = known.inventory, known.accounts, known.request
    account = accounts[rotation.source]
    if not account.accepted:
        return replace(rotation, action="refuse", reason=account.message)
    if request.strategy == "cutover":
        old = tuple(item for item in account.tokens or () if item.token in request.old and item.token != rotation.new)
        return replace(rotation, action="roll_out", reason="It is in the vault.", old=old)
    own = _own(rotation.source, accounts)
    if account.tokens is None or own is None:
        why = "does not list it" if account.tokens is not None else "cannot list tokens"
        return replace(
            rotation,
            action="refuse",
            reason=f"The server accepts the token {rotation.source}, but {why}, so it could not be revoked. Make one "
            "on the token page, put it into the vault, and rotate without caveclient_rotate_strategy.",
        )
    rotation = _stage(rotation, own, account, known)
    # The oldest first: a token's description alone leads to the one that it replaced.
    rotation = replace(rotation, old=tuple(sorted(rotation.old, key=lambda item: item.id)))
    if rotation.action in ("make", "continue"):
        refusal = _store_refusal(rotation, inventory, request)
        if rotation.action == "make":
            refusal = refusal or _lockout(rotation, account, known) or _nobody_gets_it(rotation, known)
            refusal = refusal or _without_canary(rotation, known)
            refusal = refusal or next(
                (f"No token was made: {entry.host} could not use it. {inventory.refused[entry]}"
                 for entry in rotation.entries if entry in inventory.refused and entry.host not in request.give_up), ""
            )  # fmt: skip
        if refusal:
            return replace(rotation, action="refuse", reason=refusal, old=())
    if request.revoke == "never":
        rotation = replace(rotation, old=())
    return rotation


def _stage(rotation: Rotation, own: Listed, account: Account, known: Known) -> Rotation:
    """Return a rotation as an earlier run has left it, or as one that begins."""
    tokens, request = account.tokens or (), known.request
    earlier = [item for item in tokens if item.token in rotation.tokens and item.token != own.token]
    made = successor(tokens, own.token)
    between: list[Listed] = []
    while made is not None and (later := successor(tokens, made.token)) is not None and later not in (own, *between):
        between.append(made)
        made = later
    if made is not None:
        reason = "An earlier run made it and did not store it."
        other = rotation_name(made.description)
        left = f"The rotation {other!r} was finished first. Run again for {request.name!r}."
        left = left if request.name and request.name != other else ""
        before = tuple(item for item in _to_revoke_before(own, tokens) if item not in (made, *between))
        old = tuple(dict.fromkeys((*earlier, *before, own, *between)))
        return replace(rotation, action="continue", reason=reason, new=made.token, old=old, left=left)
    by, kept = rotation_name(own.description), is_kept(own.description)
    before = _to_revoke_before(own, tokens)
    same = by is not None and (not request.name or request.name == by)
    if before and same:
        old = tuple(dict.fromkeys((*earlier, *before)))
        return replace(rotation, action="continue", reason="An earlier run began it.", old=old)
    if same and (earlier or request.name or account.now - (own.created or 0.0) < NEW_FOR):
        reason = f"The rotation {by!r} made it {span(account.now - (own.created or 0.0))} ago."
        return replace(rotation, action="continue" if earlier else "roll_out", reason=reason, old=tuple(earlier))
    if same and not kept and _is_behind(rotation, replaces(own.description) or "", known):
        return replace(rotation, action="roll_out", reason="An earlier run made it, and some hosts don't have it yet.")
    return replace(rotation, action="make", new="", old=tuple(dict.fromkeys((*earlier, *before, own))))


def _to_revoke_before(own: Listed, tokens: Sequence[Listed]) -> tuple[Listed, ...]:
    """Return the tokens that earlier rotations replaced and did not revoke, whatever their names, the oldest first.

    One that was to be kept is not among them, nor is what that one had replaced.
    """
    found: list[Listed] = []
    last = own
    while not is_kept(last.description):
        before = next((item for item in tokens if item.token == replaces(last.description)), None)
        if before is None or before in (own, *found):
            break
        found.append(before)
        last = before
    return tuple(reversed(found))


def _is_behind(rotation: Rotation, old: str, known: Known) -> bool:
    """Whether hosts still have, or may have, the token that was replaced before."""
    for host in _holders.may_hold(rotation.entries, known):
        found = known.seen.get(host)
        if not isinstance(found, Seen) or any(place.token == old for place in found.places):
            return True
    return False


def _store_refusal(rotation: Rotation, inventory: Inventory, request: Request) -> str:
    """Return why a new token could not be kept, or an empty string."""
    if request.own_store:
        return ""
    given = [token for token in rotation.tokens if token != rotation.new]
    for token in given:
        if inventory.fixed.get(token):
            return " ".join(inventory.fixed[token])
    # What hosts have by now can be finished, and the old token stays for these.
    kept = [entry for entry in rotation.entries if entry in inventory.elsewhere and entry.host not in request.give_up]
    if kept and rotation.action == "make" and inventory.vault.get(kept[0].token):
        places = names(inventory.vault[kept[0].token])
        return (
            f"No token was made: {hosts_named(entry.host for entry in kept)} would keep {kept[0].token}, as "
            f"caveclient_tokens takes it from somewhere else there (a lookup, or another variable) than {places}. Let "
            "it use one variable everywhere."
        )
    if given and not any(inventory.vault.get(token) for token in (*given, *([rotation.new] if rotation.new else []))):
        return (
            f"There is no place to keep a new token: no variable beside the inventory holds the token {given[-1]}, and "
            "none reads it from a store (lookup connectomics.cave.stored_token). If another rotation is running, wait "
            "for its end and run the same command again. Otherwise name the file of the variable with "
            "caveclient_rotate_vault_file, or the tasks that store it with caveclient_rotate_store_tasks; or put a new "
            "token into the vault and rotate without caveclient_rotate_strategy."
        )
    return ""


def _lockout(rotation: Rotation, account: Account, known: Known) -> str:
    """Return who might be locked out by making a token, as a sentence; or an empty string."""
    seen, request = known.seen, known.request
    if request.anyway:
        return ""
    holders = _holders.may_hold(rotation.entries, known)
    outside = [host for host in holders if host not in request.hosts]
    if outside:
        are = "is" if len(outside) == 1 else "are"
        return (
            f"No token was made: {hosts_named(outside)} may hold {rotation.source} too and {are} not in this run. Run "
            "without --limit and caveclient_hosts, or give the hosts up (caveclient_rotate_give_up)."
        )
    if account.two_live:
        return ""
    if _holders.outdated(known) and not request.own_store:
        return "No token was made: the variables have changed since this run began. Run again."
    # Before the variables named a dead token, this one may have been there: a host that is off may have it since.
    suspects = replace(rotation, entries=(*rotation.entries, *_holders.kin(rotation, known)))
    holders = _holders.may_hold(suspects.entries, known)
    gone = [Blocker(host, found) for host in holders for found in [_unready(suspects, host, seen)] if found]
    gone += [
        Blocker(host, f"{place.user}: {place.path} holds it, and the variables do not name it")
        for host, found in seen.items()
        if isinstance(found, Seen) and host not in request.give_up
        for place in found.places
        if place.token in rotation.tokens
        and not any((entry.host, entry.user) == (host, place.user) for entry in rotation.entries)
    ]
    if not gone:
        return ""
    return (
        f"No token was made: on this server it may kill the old one at once, and these could not get the new one: "
        f"{with_reasons(gone)}. Run again when they can, or say -e caveclient_rotate_anyway=true."
    )


def _nobody_gets_it(rotation: Rotation, known: Known) -> str:
    """Return why no host could get a new token now, as a sentence; or an empty string."""
    request = known.request
    why = [
        Blocker(entry.host, _unready(replace(rotation, entries=(entry,)), entry.host, known.seen))
        for entry in rotation.entries
        if entry.host in request.hosts and not entry.absent
    ]
    # A roll-out stops at those that get it first. What is wrong with one that the user named, _without_canary says.
    named = set(request.canary) & set(rotation.hosts)
    rehearsed = {host for host, found in known.seen.items() if isinstance(found, Seen) and found.rehearsed}
    tried = [blocker for blocker in why if blocker.host in rehearsed and not named] or why
    wanted = [blocker for blocker in why if blocker.host not in request.give_up]
    if request.anyway or not wanted or not all(blocker.reason for blocker in tried):
        return ""
    nobody = all(blocker.reason for blocker in wanted)
    gone = wanted if nobody else [blocker for blocker in tried if blocker in wanted]
    who = "no host" if nobody else "it goes first to one of these hosts, and none of them"
    return f"No token was made: {who} could get it now: {with_reasons(gone)}. Run again when one can."


def _without_canary(rotation: Rotation, known: Known) -> str:
    """Return why a roll-out could not begin where the user wants it to, as a sentence; or an empty string."""
    off = {host: _unready(rotation, host, known.seen) for host in known.request.canary if host in rotation.hosts}
    gone = [Blocker(host, reason) for host, reason in off.items() if reason]
    return (
        f"No token was made: the canary host cannot get it first: {with_reasons(gone)}. Name another one."
        if gone
        else ""
    )


def _unready(rotation: Rotation, host: str, seen: Mapping[str, Seen | str]) -> str:
    found = seen.get(host, "not looked at")
    if isinstance(found, str):
        return found
    return next(
        (f"{entry.user}: {found.failed[entry.user]}" for entry in rotation.entries if entry.user in found.failed
         and entry.host == host), "")  # fmt: skip


def with_canaries(rotation: Rotation, known: Known) -> Rotation:
    """Choose the hosts that get a token first: of the run, looked at, those first on which nothing is wrong.

    Those that were given up come last.
    """
    seen, request = known.seen, known.request
    if rotation.idle:
        return rotation
    fit = {
        entry.host: found.trouble
        for entry in rotation.entries
        for found in [seen.get(entry.host)]
        if isinstance(found, Seen)
        and entry.host in request.hosts
        and not entry.absent
        and entry not in rotation.withheld
        and entry.user not in found.failed
    }
    named = tuple(host for host in request.canary if host in rotation.hosts)
    best = tuple(
        sorted(fit, key=lambda host: (host in request.give_up, fit[host], request.hosts.index(host)))[:CANARIES]
    )
    return replace(rotation, canaries=named or best)


# Small things ---------------------------------------------------------------------------------------------------------


def _own(token: str, accounts: Mapping[str, Account]) -> Listed | None:
    return find(token, accounts[token]) if token in accounts else None


def find(token: str, account: Account) -> Listed | None:
    return next((item for item in account.tokens or () if item.token == token), None)


def used_since(old: Listed | None, mark: float | None, moment: float) -> str:
    """Return a sentence when a token was used after ``moment``, at which ``mark`` was its last use; else nothing."""
    if old is None or old.last_used is None or old.last_used <= (mark or 0.0):
        return ""
    return (
        f"Somebody outside of the inventory still uses it: last at {iso(old.last_used)}, "
        f"{max(0, round(old.last_used - moment))} s after the last host had the new one."
    )


def span(seconds: float) -> str:
    """Return a time as a person says it."""
    minutes = max(0, int(seconds // 60))
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
