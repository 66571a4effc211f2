# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The local servers of datastacks, as the records of the datastacks name them."""

from __future__ import annotations

import contextlib
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question, ask_record
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    Datastack,
    is_unconfirmed,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.side_by_side import side_by_side
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LocalServers = Mapping[str, Mapping[str, str]]
"""Auth server -> datastack -> local server."""
_MOST_TOKENS = 3
"""With which a record is asked for, one after the other: a token may be dead, or its person without permission."""


def learn_local_servers(tokens: Mapping[tuple[str, str], Sequence[str]], **limits: Any) -> dict[str, dict[str, str]]:
    """Ask the info services for the local servers of datastacks, one request each where the first token serves.

    Args:
        tokens: (auth server, datastack) -> tokens that may see the datastack.
        limits: as for ``ask_record``.

    Returns:
        Auth server -> datastack -> local server. What no record tells is left out: nothing is raised for that.
    """

    def work(pair: tuple[str, str]) -> str:
        for token in list(dict.fromkeys(tokens[pair]))[:_MOST_TOKENS]:
            verdict = ask_record(*pair, token, **limits)
            with contextlib.suppress(CaveError):  # no record, or one that names no server
                return server_address(verdict.local_server)
            if verdict.verdict in ("unreachable", "tls_error"):
                break
        return ""

    learned: dict[str, dict[str, str]] = {}
    for (server, datastack), local_server in side_by_side(tokens, work).items():
        if local_server:
            learned.setdefault(server, {})[datastack] = local_server
    return learned


def told_by(answers: Iterable[tuple[Question, Access]]) -> dict[str, dict[str, str]]:
    """Return the local servers in records that ``prove`` has read, by auth server and datastack."""
    learned: dict[str, dict[str, str]] = {}
    for question, access in answers:
        for verdict in access.datastacks:
            with contextlib.suppress(CaveError):  # no record, or one that names no server
                learned.setdefault(question.server, {})[verdict.datastack] = server_address(verdict.local_server)
    return learned


def unsure(asked: Iterable[tuple[str, Sequence[Datastack], str]]) -> dict[tuple[str, str], list[str]]:
    """Return the datastacks whose local servers only their records can tell, as ``learn_local_servers`` takes them.

    Args:
        asked: auth servers, with datastacks and a token that the server accepts.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for server, datastacks, token in asked:
        for stack in datastacks:
            if is_unconfirmed(server, stack):
                found.setdefault((server, stack.name), []).append(token)
    return found


def with_local_servers(server: str, datastacks: Sequence[Datastack], learned: LocalServers) -> list[Datastack]:
    """Return datastacks with what was learned about local servers of which nothing is known for sure."""
    known = learned.get(server, {})
    return [
        stack._replace(local_server=known.get(stack.name, stack.local_server))
        if is_unconfirmed(server, stack)
        else stack
        for stack in datastacks
    ]
