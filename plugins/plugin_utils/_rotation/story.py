# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell how a rotation ended: the story of each token, and what is left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import expiring_message
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.colleagues import one_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import hosts as _hosts
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import find
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import hosts_named, names


def notes(state: State, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[str], list[str]]:
    """Return what to say of every token that no host's results in ``found`` tell; and what is left to do."""
    told: list[str] = []
    unfinished: list[str] = []
    for rotation in state.rotations:
        if rotation.action == "leave" or _hosts.is_told(rotation, found):
            continue
        account = state.accounts[rotation.source]
        who = f" ({account.name})" if account.name and account.name not in rotation.users else ""
        server = state.servers.get(rotation.source, rotation.entries[0].server)
        story = " ".join(state.stories.get(rotation.tokens, [rotation.reason or "Nothing was done."]))
        about = f"{', '.join(rotation.users)}{who}, token {rotation.new or rotation.source} on {server}: {story}"
        (unfinished if rotation.tokens in state.failed else told).append(about)
        if account.expires and rotation.action != "refuse":
            told.insert(
                0, f"{', '.join(rotation.users)}{who}: {expiring_message(server, state.values[rotation.source])}"
            )
    told[:0] = _shared(state)
    for token in sorted(state.request.old):
        _note_old(state, token, told, unfinished)
    given_up = sorted(state.request.give_up)
    if given_up:
        told.append(f"Given up, so that nothing waited for what they have: {hosts_named(given_up)}.")
    read = [rotation for rotation in state.rotations if not rotation.idle]
    unread = [host for host in state.request.hosts if host in state.hosts and state.hosts[host].problems]
    agree = read and not unread and all(not names for names in state.replaced.values())
    if state.request.strategy == "cutover" and agree and not state.failed and not state.request.old:
        told.append(
            "The hosts have the tokens of the vault. To make new ones: "
            "ansible-playbook connectomics.cave.rotate -e caveclient_rotate_strategy=overlap"
        )
    return told, unfinished


def _shared(state: State) -> list[str]:
    """Return what to say of tokens that several users have, unless each of their entries says whose it is."""
    person = {item.entry: item.own.get("person") for item in state.held()}
    return [
        one_token(
            [(entry.user, entry.host) for entry in rotation.entries],
            rotation.source,
            state.accounts[rotation.source].name,
        )
        for rotation in state.rotations
        if rotation.action != "leave" and len(rotation.users) > 1 and not all(map(person.get, rotation.entries))
    ]


def _note_old(state: State, token: str, told: list[str], unfinished: list[str]) -> None:
    """Say of a token that was named to be revoked why no rotation did anything about it."""
    if any(token in {old.token for old in rotation.old} for rotation in state.rotations if not rotation.idle):
        return
    whose = next((item for item in state.rotations if find(token, state.accounts[item.source])), None)
    if whose is None:
        unlisted = {user for item in state.rotations for user in item.users if not state.accounts[item.source].tokens}
        if unlisted:
            unfinished.append(
                f"{token} is not revoked: it is in no list of tokens here, and may be of {names(sorted(unlisted))}, "
                "whose list the server does not give for the token in the vault."
            )
            return
        told.append(
            f"{token} is in nobody's list of tokens here: it was revoked before, is mistyped, or is of somebody "
            "who has no token in caveclient_tokens."
        )
        return
    person = state.accounts[whose.source].name or ", ".join(whose.users)
    advice = " Run without --limit, caveclient_hosts and caveclient_rotate_users." if whose.action == "leave" else ""
    unfinished.append(f"{token} is not revoked: it is {person}'s, whose token was not rolled out by this run.{advice}")


def nothing_to_rotate(state: State) -> str:
    """Return why no token of this run is one to rotate, and what to do."""
    users = state.request.users
    whom = f" for {', '.join(sorted(users))}" if users else ""
    troubles: dict[str, list[str]] = {}
    for host in state.request.hosts:
        for user, message in state.hosts[host].problems:
            if user is None or not users or user in users:
                troubles.setdefault(message, []).append(host)
    if not troubles:
        return f"No host of this run has a token{whom} in caveclient_tokens, so there is nothing to rotate."
    said = " ".join(f"{hosts_named(hosts)}: {message}" for message, hosts in troubles.items())
    return f"No host of this run has a token{whom} that can be read. {said}"
