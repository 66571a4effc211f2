# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation does on the controller: ask the servers, make a token, store it, read it back, wait, revoke.

What is done is decided in ``decide``. Between the steps lie the tasks on the hosts; what one step knows, the next one
gets as a ``State``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import NotMadeError, TokenApi
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import Listing, Selection, iso
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Person
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import hosts as _hosts
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.holders import blockers
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import Held, VaultFiles
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import description, replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.making import lost, with_new_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Blocker,
    Entry,
    Inventory,
    Listed,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import hosts_named, with_reasons

FIRST_THAT_LETS_TWO_LIVE = (2, 30, 3)
"""The version of the auth server on which this was measured."""
TELL_EVERY = 30.0
"""Seconds after which a wait says that it goes on."""
RESOLUTION = 1.0
"""Seconds between two looks at uses at least: servers say to the second when a token was used."""
AT_ONCE = 8
"""People whose tokens are listed at the same time."""


# Before any host is contacted -----------------------------------------------------------------------------------------


def ask_servers(state: State, need_lists: bool) -> None:
    """Ask the servers about every token of the variables: whose it is, and which others that person has.

    Where a token may be made or revoked, nothing is done without that list (``need_lists``). What is in the vault can
    go out without it.
    """
    for item in state.held():
        state.values.setdefault(item.entry.token, item.token)
    of_token = {item.entry: Question(item.entry.server, item.token) for item in state.held()}
    in_full = {
        item.entry: Question(item.entry.server, item.token, item.datastacks)
        for item in state.held()
        if state.request.strategy == "overlap" and not item.entry.absent
    }
    settings = state.settings
    answers = prove(
        [*of_token.values(), *in_full.values()],
        timeout=settings.timeout,
        retries=settings.retries,
        ca_path=settings.ca_path,
    )
    refusals: dict[str, Any] = {}
    for entry, question in of_token.items():
        verdict = answers[question].overall
        if verdict.person is not None:
            state.servers.setdefault(entry.token, entry.server)
        else:
            refusals.setdefault(entry.token, verdict)
    persons = {(entry.token, entry.server): answers[question].overall for entry, question in of_token.items()}
    for item in state.held():
        state.refused.update(_of_another_person(item, persons[item.entry.token, item.entry.server].person))
    for entry, question in in_full.items():
        verdict = answers[question].overall
        # An address may be one that this machine cannot reach, and the hosts can.
        elsewhere = verdict.verdict == "invalid_token" and entry.token in state.servers
        if (verdict.person is not None and not verdict.ok) or elsewhere:
            state.refused[entry] = f"{verdict.message} {verdict.remedy}".strip()
    accepted = [token for token in state.values if token in state.servers]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(accepted, pool.map(lambda token: _account(state, token, need_lists), accepted), strict=True))
    for token, verdict in refusals.items():
        if token not in found:
            message = f"{verdict.message} {verdict.remedy}".strip()
            found[token] = Account(False, message, access=verdict.as_dict())
    for token, account in found.items():
        person = persons[token, state.servers[token]].person if token in state.servers else None
        if person is not None:
            found[token] = account._replace(person=person.id, name=person.name or person.email)
    state.accounts = found


def _of_another_person(item: Held, person: Person | None) -> dict[Entry, str]:
    """Return an entry, and what is wrong, when it says that its token is of somebody else than the server does."""
    wanted = str(item.own.get("person") or "").strip()
    account = (person.email or person.name) if person is not None else wanted
    if account.lower() == wanted.lower() or not wanted:
        return {}
    whose = account or "an account without a name"
    return {item.entry: f"The token is of {whose}, not of {wanted}. Give the token of {wanted}, or correct person."}


def _account(state: State, token: str, need_list: bool) -> Account:
    try:
        listing = state.api(token).listing()
        chain = {replaces(item.description) for item in listing.tokens}
        for item in listing.tokens:
            if item.fingerprint in chain or replaces(item.description):
                state.values.setdefault(item.fingerprint, item.value)
        return account_of(listing, token, _two_live(state, token))
    except CaveError as error:
        access = error.details.get("access")
        if error.details.get("unsupported") or not (need_list or (access or {}).get("verdict") == "invalid_token"):
            return Account(True, error.message)
        return Account(False, error.message, access=access)


def account_of(listing: Listing, token: str, two_live: bool) -> Account:
    """Return what a list of tokens says of the one with the fingerprint ``token``."""
    listed = tuple(
        Listed(item.fingerprint, item.id, item.description, item.created, item.last_used) for item in listing.tokens
    )
    expires = token not in {item.token for item in listed}
    return Account(True, tokens=listed, now=listing.now, two_live=two_live or len(listed) > 1, expires=expires)


def _two_live(state: State, token: str) -> bool:
    return state.request.strategy == "overlap" and lets_two_live(state.api(token))


def lets_two_live(api: TokenApi) -> bool:
    """Return whether a server is known, by its version, to let an old token live when a new one is made."""
    try:
        version = api.auth_version()
    except CaveError:
        return False
    return version is not None and version >= FIRST_THAT_LETS_TWO_LIVE


# Make and store -------------------------------------------------------------------------------------------------------


def inventory_with(state: State, base: Inventory, vault: VaultFiles | None) -> Inventory:
    """Return the inventory together with where the vault keeps its tokens now."""
    if vault is None:
        return base
    places, fixed = {}, {}
    for token, value in state.values.items():
        places[token] = tuple(f"{'.'.join(name)} in {path}" for path, name in vault.writable(value))
        fixed[token] = tuple(vault.fixed(value))
    return base._replace(vault=places, fixed=fixed, elsewhere=state.elsewhere)


def begin(state: State, inventory: Inventory, vault: VaultFiles) -> bool:
    """Decide, and do what comes before the roll-out: make the new tokens, store them, read them back.

    What goes wrong with one token is told in its story, and keeps no other one from being rotated.

    Returns:
        Whether anything was made or stored.

    Raises:
        CaveError: nothing was done, since each token was refused that was asked for.
    """
    inventory = inventory_with(state, inventory, vault if state.request.strategy == "overlap" else None)
    state.rotations = list(_decide.decide(state.known(inventory)))
    _refuse_all(state)
    state.declined = {
        item.tokens for item in state.rotations if item.action == "refuse" and item.new in ("", item.source)
    }
    done = False
    for index, rotation in enumerate(state.rotations):
        if rotation.action == "refuse":
            state.tell(rotation, rotation.reason, failed=True)
        if rotation.action not in ("make", "continue"):
            continue
        try:
            state.rotations[index] = with_new_token(state, rotation, vault)
            done = True
        except CaveError as error:
            done = done or bool(error.details.get("stored"))
            if isinstance(error, NotMadeError):
                state.declined.add(rotation.tokens)  # what the hosts have is as good as before
            state.rotations[index] = replace(rotation, action="refuse", reason=error.message, old=())
            state.tell(rotation, error.message, failed=True)
    return done


def _refuse_all(state: State) -> None:
    """Raise CaveError when no token can be rotated though all of them work, and no host is to blame for that."""
    wanted = [rotation for rotation in state.rotations if rotation.action != "leave"]
    if any(rotation.action != "refuse" or not state.accounts[rotation.source].accepted for rotation in wanted):
        return
    if any(state.hosts[host].problems for host in state.request.hosts):
        return
    if not any(isinstance(state.seen.get(host), Seen) for rotation in wanted for host in rotation.hosts):
        return
    reasons: dict[str, list[str]] = {}
    for rotation in wanted:
        reasons.setdefault(rotation.reason, []).append(f"{', '.join(rotation.users)} ({rotation.source})")
    raise CaveError(" ".join(f"{', '.join(who)}: {reason}" for reason, who in reasons.items()))


def note_stored(state: State, stored: Iterable[str], read_back: Callable[[Rotation], Mapping[str, set[str]]]) -> None:
    """Note which tokens the user's own tasks have stored; the others are given to no host.

    ``read_back`` returns which tokens the variables of each host give now. That it is still the old one holds nobody up
    whose old one is dead.
    """
    stored = set(stored)
    dead = {*state.dead, *(token for token, account in state.accounts.items() if not account.accepted)}
    for index, rotation in enumerate(state.rotations):
        if rotation.tokens not in state.unstored:
            continue
        why = "the tasks of caveclient_rotate_store_tasks failed."
        if rotation.new in stored:
            given = {host: found - {rotation.new, *dead} for host, found in read_back(rotation).items()}
            wrong = {host: found for host, found in given.items() if found}
            if not wrong:
                state.tell(rotation, "The lab's own tasks have stored it.")
                continue
            why = (
                "the tasks of caveclient_rotate_store_tasks ended well, but what caveclient_tokens gives now "
                f"{f'on {hosts_named(wrong)} ' if wrong.keys() < given.keys() else ''}is "
                f"{', '.join(sorted(set().union(*wrong.values())))}. "
                "Correct the tasks, or the lookup that reads the store; if Ansible reads it only "
                "when a run begins, run again."
            )
        text = description(state.request.name, rotation.source, state.request.revoke == "never")
        message = lost(state.servers[rotation.source], text, why).message
        state.rotations[index] = replace(rotation, action="refuse", reason=message, old=())
        state.tell(rotation, message, failed=True)
    state.unstored.clear()


# Wait and revoke ------------------------------------------------------------------------------------------------------


def wait(
    state: State,
    saved: Mapping[str, Mapping[str, Any] | None],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Note when each old token was last used, and give those who still use it the time to be seen.

    Nobody waits for a token that cannot be revoked anyway, as ``saved`` lacks some of its holders.
    """
    due = [
        rotation
        for rotation in state.rotations
        if not rotation.idle and rotation.old and not _hosts.not_done(state, rotation, saved, in_run=True)
    ]
    if state.settings.check:
        return
    for rotation in due:
        try:
            listing = state.api(rotation.new).listing()
        except CaveError as error:
            state.tell(rotation, f"The old token is not revoked: {error.message}", failed=True)
            continue
        for old in rotation.old:
            used = next((item.last_used for item in listing.tokens if item.fingerprint == old.token), None)
            state.marks[old.token] = used, listing.now
    if not state.marks:
        return
    left = max(state.settings.grace, RESOLUTION)
    what = f"for uses of the old tokens ({', '.join(state.marks)}) by computers that are in no inventory"
    say(
        f"The new tokens are rolled out. Waiting {left:g} s {what}. Ctrl-C stops here: nothing is revoked then, and "
        "the same command goes on later."
    )
    while left > 0:
        sleep(min(left, TELL_EVERY))
        left -= TELL_EVERY
        if left > 0:
            say(f"Waiting {left:g} s more {what}.")


def finish(
    state: State, inventory: Inventory, vault: VaultFiles, saved: Mapping[str, Mapping[str, Any] | None]
) -> bool:
    """Revoke the old tokens that nobody needs any more, or say why not. Return whether any was revoked."""
    fresh = None
    revoked = False
    for rotation in state.rotations:
        if rotation.idle:
            continue
        behind = _hosts.not_done(state, rotation, saved)
        if rotation.left:
            state.tell(rotation, rotation.left, failed=True)
        if behind:
            state.tell(rotation, f"Not everywhere yet: {with_reasons(behind)}.", failed=True)
        if rotation.old:
            try:
                fresh = fresh or inventory_with(state, inventory, vault)
            except CaveError as error:  # a file of the vault does not open any more
                state.tell(rotation, f"The old tokens are not revoked: {error.message}", failed=True)
                continue
            if state.settings.check:
                _predict_revocation(state, rotation, fresh, saved)
                continue
            who = blockers(rotation, state.known(fresh))
            for blocker in who:
                state.blocked.setdefault(blocker.host, []).append(blocker.reason)
            alive = ""
            for old in rotation.old:
                if alive and alive == replaces(old.description) and state.request.strategy == "overlap":
                    text = f"The old token {old.token} is not revoked: a later run needs it to find {alive}."
                    state.tell(rotation, text, failed=True)
                    alive = old.token
                    continue
                done = _revoke(state, rotation, old, [*who, *behind])
                revoked = revoked or bool(done)
                alive = old.token if done is False and not who and not behind else ""
        else:
            _tell_of_replaced(state, rotation)
    return revoked


def _predict_revocation(
    state: State, rotation: Rotation, inventory: Inventory, saved: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Predict from what is on the hosts whether the old tokens would be revoked, and tell the user."""
    stores = state.request.strategy == "overlap"  # by then, the vault has the new one
    known = state.known(inventory._replace(vault={}) if stores else inventory)
    who = blockers(rotation, known._replace(seen=_hosts.predicted(state, rotation, saved)))
    for blocker in who:
        state.blocked.setdefault(blocker.host, []).append(blocker.reason)
    if who:
        old = ", ".join(item.token for item in rotation.old)
        text = f"The old token {old} would not be revoked, as it may still be needed: {with_reasons(who)}."
        state.tell(rotation, text, failed=True)
    else:
        state.tell(rotation, "The old one would be revoked when every host has the new one.")


def _revoke(state: State, rotation: Rotation, old: Listed, needed: Sequence[Blocker]) -> bool | None:
    """Revoke one old token and tell so, or why not. Return whether it was revoked; None when it was dead already."""
    if needed:
        why = f"as it may still be needed: {with_reasons(needed)}."
        state.tell(rotation, f"The old token {old.token} is not revoked, {why}", failed=True)
        return False
    begun = state.marks.get(old.token)
    if begun is None:
        if rotation.tokens not in state.failed:
            text = f"The old token {old.token} is not revoked: nobody looked whether it is still used. Run it again."
            state.tell(rotation, text, failed=True)
        return False
    try:
        api = state.api(rotation.new)
        listing = api.listing()
        now = _decide.find(old.token, account_of(listing, rotation.new, True))
        used = _decide.used_since(now, *begun)
        if used and state.request.revoke != "even_if_used":
            advice = "Run it again when that has the new token, or with -e caveclient_rotate_revoke=even_if_used."
            state.tell(rotation, f"The old token {old.token} is not revoked. {used} {advice}", failed=True)
            return False
        if now is not None:
            api.revoke(Selection(id=now.id))
    except CaveError as error:
        state.tell(rotation, f"The old token {old.token} is not revoked: {error.message}", failed=True)
        return False
    state.tell(
        rotation,
        f"The old token {old.token} is revoked, and {api.server} refuses it since {iso(listing.now)}. Other services "
        "may accept it from their caches for up to five minutes more.",
    )
    return True if now is not None else None


def _tell_of_replaced(state: State, rotation: Rotation) -> None:
    """Tell of each token that was replaced on hosts whether the server still accepts it."""
    replaced = sorted(state.replaced.get(rotation.new, set()) - {rotation.new})
    account = state.accounts[rotation.source]
    if account.tokens is None and state.request.old:
        text = f"Nothing is revoked, as that person's tokens are not known: {account.message}"
        state.tell(rotation, text, failed=True)
    for token in replaced:
        listed = _decide.find(token, account)
        if token in state.dead or (account.tokens is None and state.request.old):
            continue
        if account.tokens is None:
            state.tell(rotation, f"It replaces {token}. Whether that is still accepted is not known: {account.message}")
            continue
        if listed is None:
            state.tell(rotation, f"It replaces {token}, which is not among that person's tokens any more.")
            continue
        used = f"last used at {iso(listed.last_used)}" if listed.last_used else "never used"
        state.tell(
            rotation,
            f"It replaces {token}, which the server still accepts ({used}). Revoke that when nobody needs it: "
            f"ansible-playbook connectomics.cave.rotate -e caveclient_rotate_old={token}",
        )
    if state.request.strategy == "cutover" and not replaced and rotation.tokens not in state.failed:
        state.tell(rotation, "The hosts have it.")
