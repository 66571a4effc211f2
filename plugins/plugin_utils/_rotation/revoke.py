# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Revoke the tokens that were taken off hosts, unless somebody else needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import Listing, Selection
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import token_page
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import find
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.holders import blockers, kin, taken_off
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.hosts import trouble_of
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import Host, inventory_of
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Blocker,
    Entry,
    Known,
    Listed,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import with_reasons

FORCE = "-e caveclient_decommission_force=true."
"""What has a token revoked although somebody may need it."""


class Revoked(NamedTuple):
    """The fingerprints of what was revoked, what to say of it, and what could not be done."""

    tokens: list[str]
    notes: list[str]
    unfinished: list[str]


def revoke_taken_off(state: State, removed: Mapping[str, Mapping[str, Any] | None], force: bool) -> Revoked:
    """Revoke each token that was taken off the hosts of the run, once, and prove that it is dead.

    Args:
        state: what the hosts' variables and the servers say, and what was found on the hosts afterwards.
        removed: what saved_token did on the hosts.
        force: revoke it although somebody may still need it.
    """
    run, users = set(state.request.hosts), state.request.users
    result = Revoked([], [], [])
    known = state.known(inventory_of(state.hosts.values()))
    if state.settings.check:
        known = known._replace(seen=_predicted(state, removed))
    named = taken_off(known)
    # The tokens of the variables last: with them, the others are revoked.
    found, unknown = _found(known, removed, {rotation.source for rotation in named})
    rotations = [*found, *named]
    gone = {user for rotation in named for user in rotation.users}
    wanted = users or {user for host in run for user in state.hosts[host].users}
    missing = sorted(wanted - gone)
    if missing:
        result.unfinished.append(
            "Not revoked, since the vault does not have the token, or does not open, for "
            f"{', '.join(missing)}. Whoever has the account can revoke it on {_pages(state, run)}."
        )
    unread = [
        Blocker(host, message)
        for host in state.request.hosts
        for user, message in state.hosts[host].problems
        if user is None or user in wanted - set(missing)
    ]
    if unread:
        result.unfinished.append(
            "Further tokens may be left on the server, since what caveclient_tokens names cannot be read on "
            f"{with_reasons(unread)}. Correct that, and run again."
        )
    unlisted = {user for rotation in named if known.accounts[rotation.source].tokens is None for user in rotation.users}
    for token, entries in unknown.items():
        whose = {entry.user for entry in entries}
        about = f"{token} ({', '.join(sorted(whose))})"
        pages = ", ".join(sorted({token_page(entry.server) for entry in entries}))
        way_out = f"Whoever has the account can revoke it on {pages}."
        if whose & unlisted:
            result.unfinished.append(
                f"{about} is not revoked: it may be of the same person as the token in the vault, and with that one, "
                f"the server lists nothing. {way_out}"
            )
        elif not whose <= set(missing):
            result.notes.append(
                f"{about} is in nobody's list of tokens here: it was revoked before, or is of somebody who has no "
                f"token in caveclient_tokens. {way_out}"
            )
    needed: dict[str, list[str]] = {}  # by a token of the variables, those that it has still to revoke
    for rotation in rotations:
        token, names = rotation.old[0].token, ", ".join(rotation.users)
        with_it = ""
        if rotation in found:
            needed.setdefault(rotation.source, []).append(token)
            with_it = (
                f"revoke it on {token_page(state.servers[rotation.source])}, or by connectomics.cave.server_token "
                f"(state: absent, fingerprint: {token}) with the token {rotation.source}, which is kept for that."
            )
        about = f"{token} ({names})"
        left = [] if state.settings.check else _not_taken_off(rotation, removed)
        others = with_reasons([*left, *rotation.blockers])
        account = state.accounts[rotation.source]
        if not account.accepted and (account.access or {}).get("verdict") == "invalid_token":
            result.notes.append(f"{about} is not accepted by the server any more.")
        elif not account.accepted:
            result.unfinished.append(f"{about} is not revoked: {account.message}")
        elif others and not force:
            way_out = f"in a run that revokes it, or {with_it}" if with_it else "or say " + FORCE
            result.unfinished.append(
                f"{about} is not revoked, as it may still be needed: {others}. Take it off there as well, {way_out}"
            )
        elif needed.get(token):
            result.unfinished.append(
                f"{about} is not revoked: with it, {', '.join(needed[token])} has to be revoked first."
            )
        else:
            once_only = f" As no further run finds it, {with_it}" if with_it else ""
            try:
                listing, dead = state.api(rotation.source).revoke(
                    Selection(fingerprint=token), force=True, check=state.settings.check
                )
            except CaveError as error:
                result.unfinished.append(f"{about} is not revoked: {error.message}{once_only}")
                continue
            if with_it:
                needed[rotation.source].remove(token)
            result.tokens.extend(item.fingerprint for item in dead)
            if dead and others:
                done = "would be" if state.settings.check else "was"
                result.notes.append(f"{about} {done} revoked although it may still be needed: {others}.")
            if with_it:
                continue
            rest = _left(listing, {rotation.old[0].token for rotation in rotations})
            if rest:
                result.notes.append(f"{account.name or names} still has other tokens on the server: {rest}.")
    return result


def _found(
    known: Known, removed: Mapping[str, Mapping[str, Any] | None], sources: set[str]
) -> tuple[list[Rotation], dict[str, list[Entry]]]:
    """Return the tokens that were taken off and that no variable names; and who had those that no list here has."""
    entries: dict[str, list[Entry]] = {}
    for host, result in removed.items():
        for item in (result or {}).get("users") or ():
            for token in item.get("previous_fingerprints") or () if item.get("changed") else ():
                if token not in sources:
                    mine = (str(item["user"]), str(item["server"]), str(item.get("key") or "token"))
                    entries.setdefault(token, []).append(Entry(host, -1, *mine, token, absent=True))
    found, unknown = [], {}
    for token, holders in entries.items():
        source = next((source for source in sources if find(token, known.accounts[source])), "")
        source = source or next((name for name, account in known.accounts.items() if find(token, account)), "")
        if source:
            rotation = Rotation((token,), tuple(holders), "revoke", source=source, old=(Listed(token, 0),))
            rotation = replace(rotation, kin=kin(rotation, known))
            found.append(replace(rotation, blockers=blockers(rotation, known)))
        else:
            unknown[token] = holders
    return found, unknown


def _not_taken_off(rotation: Rotation, removed: Mapping[str, Mapping[str, Any] | None]) -> list[Blocker]:
    """Return the accounts that could not be rid of a token."""
    found = []
    for entry in rotation.entries:
        result = removed.get(entry.host)
        if result and not result.get("users") and not (result.get("failed") or result.get("unreachable")):
            continue  # of all that was found on the host, nothing was to go
        trouble = trouble_of(entry, result)
        found += [Blocker(entry.host, f"{entry.user}: {trouble}")] if trouble else []
    return found


def _predicted(state: State, removed: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Seen | str]:
    """Return what is on the hosts once the tokens are off those of the run: a prediction."""
    seen, users = dict(state.seen), state.request.users
    for host in state.request.hosts:
        what = seen.get(host)
        going = {(item.entry.user, item.entry.token) for item in state.hosts[host].held}
        for item in (removed.get(host) or {}).get("users") or ():
            going.update((item.get("user"), token) for token in item.get("previous_fingerprints") or ())
        if isinstance(what, Seen):
            places = [
                place for place in what.places
                if (place.user, place.token) not in going or (users and place.user not in users)
            ]  # fmt: skip
            seen[host] = what._replace(places=tuple(places))
    return seen


def _left(listing: Listing, gone: set[str]) -> str:
    return ", ".join(
        f"{item.fingerprint} ({item.description})" if item.description else item.fingerprint
        for item in listing.tokens
        if item.fingerprint not in gone
    )


def _pages(state: State, run: Iterable[str]) -> str:
    hosts: list[Host] = [state.hosts[host] for host in run]
    return ", ".join(dict.fromkeys(token_page(host.server) for host in hosts))
