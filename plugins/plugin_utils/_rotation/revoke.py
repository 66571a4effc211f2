# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Revoke the tokens that were taken off hosts, unless somebody else needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import Listing, Selection
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import token_page
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.hosts import trouble_of
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import Host
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.steps import ask_servers


class Revoked(NamedTuple):
    """The fingerprints of what was revoked, what to say of it, and what could not be done."""

    tokens: list[str]
    notes: list[str]
    unfinished: list[str]


def revoke_taken_off(
    state: State, users: frozenset[str], removed: Mapping[str, Mapping[str, Any] | None], force: bool
) -> Revoked:
    """Revoke each token of the users (none: of everybody) on the hosts of the run, once, and prove that it is dead.

    Args:
        state: the hosts' variables, and the request with the hosts of the run.
        users: whose tokens.
        removed: what saved_token did on the hosts.
        force: revoke it although other hosts or accounts hold it.
    """
    run = set(state.request.hosts)
    mine = [
        item for item in state.held() if item.entry.host in run and (not users or item.entry.user in users)
    ]  # fmt: skip
    known = {item.entry.user for item in mine}
    result = Revoked([], [], [])
    wanted = users or {user for host in run for user in state.hosts[host].users}
    missing = sorted(wanted - known)
    if missing:
        result.unfinished.append(
            "Not revoked, since the vault does not have the token, or does not open, for "
            f"{', '.join(missing)}. Whoever has the account can revoke it on {_pages(state, run)}."
        )
    tokens = dict.fromkeys(item.entry.token for item in mine)
    chosen = [item for item in state.held() if item.entry.token in tokens]
    asked = State(
        {name: host._replace(held=tuple(item for item in chosen if item.entry.host == name))
         for name, host in state.hosts.items()}, state.request, state.settings,
    )  # fmt: skip
    ask_servers(asked)
    for token in tokens:
        names = ", ".join(dict.fromkeys(item.entry.user for item in mine if item.entry.token == token))
        about = f"{token} ({names})"
        others = _other_holders(state, token, {item.entry for item in mine}, removed)
        account = asked.accounts[token]
        if not account.accepted and (account.access or {}).get("verdict") == "invalid_token":
            result.notes.append(f"{about} is not accepted by the server any more.")
        elif not account.accepted:
            result.unfinished.append(f"{about} is not revoked: {account.message}")
        elif others and not force:
            result.unfinished.append(
                f"{about} is not revoked, since others hold it too: {'; '.join(others)}. Take it off there as well, or "
                "say -e caveclient_decommission_force=true."
            )
        else:
            try:
                listing, found = asked.api(token).revoke(
                    Selection(fingerprint=token), force=True, check=state.settings.check
                )
            except CaveError as error:
                result.unfinished.append(f"{about} is not revoked: {error.message}")
                continue
            result.tokens.extend(item.fingerprint for item in found)
            if found and others:
                result.notes.append(f"{about} was revoked although others hold it: {'; '.join(others)}.")
            left = _left(listing, set(tokens))
            if left:
                result.notes.append(f"{account.name or names} still has other tokens on the server: {left}.")
    return result


def _other_holders(
    state: State, token: str, mine: Iterable[Any], removed: Mapping[str, Mapping[str, Any] | None]
) -> list[str]:
    """Return who has a token by the variables and keeps it, for a person to read."""
    mine = set(mine)
    found = []
    for item in state.held():
        entry = item.entry
        if entry.token != token:
            continue
        trouble = trouble_of(entry, removed.get(entry.host)) if entry in mine else "not taken off"
        if trouble and not (entry in mine and state.settings.check):
            found.append(f"{entry.host} ({entry.user}: {trouble})")
    found += [
        f"{host.name} ({message})"
        for host in state.hosts.values()
        for user, message in host.problems
        if user is None and host.name not in state.request.hosts
    ]
    return list(dict.fromkeys(found))


def _left(listing: Listing, gone: set[str]) -> str:
    return ", ".join(
        f"{item.fingerprint} ({item.description})" if item.description else item.fingerprint
        for item in listing.tokens
        if item.fingerprint not in gone
    )


def _pages(state: State, run: Iterable[str]) -> str:
    hosts: list[Host] = [state.hosts[host] for host in run]
    return ", ".join(dict.fromkeys(token_page(host.server) for host in hosts))
