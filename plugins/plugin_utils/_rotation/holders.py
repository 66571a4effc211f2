# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may still hold a token: everybody has to have let go of it before it is revoked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Blocker,
    Entry,
    Known,
    Listed,
    Rotation,
    Seen,
)


def may_hold(entries: Iterable[Entry], known: Known) -> list[str]:
    """Return the hosts of entries, and those whose variables cannot be read where they could name the same users.

    Those that were given up are not among them.
    """
    inventory = known.inventory
    entries = list(entries)
    users = {entry.user for entry in entries}
    found = {entry.host for entry in entries}
    found |= {host for host, whose in inventory.unknown.items() if whose is None or whose & users}
    return [host for host in inventory.hosts if host in found and host not in known.request.give_up]


def outdated(known: Known) -> bool:
    """Return whether a variable gave a dead token that it has no more: another run has stored a newer one."""
    inventory = known.inventory
    return any(
        not (entry.absent or known.accounts[entry.token].accepted or entry in inventory.elsewhere)
        and not (inventory.vault.get(entry.token) or inventory.fixed.get(entry.token))
        for entry in inventory.entries
    )


def blockers(rotation: Rotation, known: Known) -> tuple[Blocker, ...]:
    """Return who may still hold one of the old tokens; empty when they can be revoked.

    What was seen has to be from after the roll-out, and the places in the vault as well.
    """
    inventory, request = known.inventory, known.request
    old = {item.token for item in rotation.old}
    if not old:
        return ()
    suspects = may_hold((*rotation.entries, *rotation.kin), known)
    found: list[Blocker] = []
    for host in inventory.hosts:
        what = known.seen.get(host, "not looked at")
        if host in request.give_up:
            continue
        if isinstance(what, Seen):
            found += [Blocker(host, text) for text in _blockers_on(rotation, host, what, old)]
        elif host in suspects:
            found.append(Blocker(host, what))
    found += [
        Blocker(entry.host, f"its variables name {entry.token} for {entry.user}")
        for entry in rotation.kin
        if entry.token in old and not entry.absent and entry.host not in request.give_up
    ]
    found += [
        Blocker(entry.host, f"its variables name {entry.token} for {entry.user}, and take it from where none is stored")
        for entry in rotation.entries
        if entry in inventory.elsewhere and entry.token in old and entry.host not in request.give_up
    ]
    found += [Blocker("", place) for token in sorted(old) for place in inventory.fixed.get(token, ())]
    if not request.own_store:
        found += [
            Blocker("", f"{place} has {token}") for token in sorted(old) for place in inventory.vault.get(token, ())
        ]
    return tuple(dict.fromkeys([*found, *(Blocker(entry.host, text) for entry, text in rotation.withheld.items())]))


def kin(rotation: Rotation, known: Known) -> tuple[Entry, ...]:
    """Return the entries with other tokens of the same person, or with dead ones for a user of the same name.

    Before such a token came into the variables, one that is to be revoked may have been there; a host that was off
    since, or an account that cannot be looked at, may still have that. Whose a dead token was, the server does not say;
    but the description of the one that replaced it does.
    """
    tokens = {*rotation.tokens, *(item.token for item in rotation.old)}
    listed = [item for token in tokens for item in known.accounts.get(token, Account(False)).tokens or ()]
    replaced = {replaces(item.description) for item in listed}
    others = [entry for entry in known.inventory.entries if entry not in rotation.entries]
    lists = {entry: known.accounts[entry.token].tokens for entry in others}
    found = {entry for entry in others if any(item.token in tokens for item in lists[entry] or ())}
    users = {*rotation.users, *(entry.user for entry in found)}
    found |= {entry for entry in others if lists[entry] is None and (entry.user in users or entry.token in replaced)}
    return tuple(entry for entry in others if entry in found)


def taken_off(known: Known) -> tuple[Rotation, ...]:
    """Return each token of a request's users that goes off its hosts, with who may hold it once it has gone there."""
    inventory, users = known.inventory, known.request.users
    gone = [
        entry for entry in inventory.entries if entry.host in known.request.hosts and (not users or entry.user in users)
    ]
    found = []
    for token in dict.fromkeys(entry.token for entry in gone):
        mine = [entry for entry in gone if entry.token == token]
        entries = tuple(entry._replace(absent=True) for entry in mine)
        rotation = Rotation((token,), entries, "revoke", source=token, old=(Listed(token, 0),))
        rotation = replace(rotation, kin=tuple(entry for entry in kin(rotation, known) if entry not in mine))
        found.append(replace(rotation, blockers=blockers(rotation, known)))
    return tuple(found)


def _blockers_on(rotation: Rotation, host: str, found: Seen, old: set[str]) -> list[str]:
    holding = [str(item) for item in found.places if item.token in old]
    if holding:
        return holding
    without = [
        f"{entry.user}: {found.failed[entry.user]}"
        for entry in (*rotation.entries, *rotation.kin)
        if entry.host == host and entry.user in found.failed
    ]
    return without + [
        f"{entry.user} does not have {rotation.new or 'the new token'}"
        for entry in rotation.entries
        if entry.host == host
        and entry.user not in found.failed
        and not entry.absent
        and not _has(found, entry, rotation.new)
    ]


def _has(found: Seen, entry: Entry, token: str) -> bool:
    return any((place.user, place.key, place.token) == (entry.user, entry.key, token) for place in found.places)
