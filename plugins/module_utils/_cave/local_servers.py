# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The local servers of datastacks, as the records of the datastacks name them."""

from __future__ import annotations

import contextlib
from typing import Any, Mapping, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    Datastack,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LocalServers = Mapping[str, Mapping[str, str]]
"""Auth server -> datastack -> local server."""


def learn_local_servers(tokens: Mapping[tuple[str, str], str], **limits: Any) -> dict[str, dict[str, str]]:
    """Ask the info services for the local servers of datastacks.

    Args:
        tokens: (auth server, datastack) -> a token that may see the datastack.
        limits: as for ``prove``.

    Returns:
        Auth server -> datastack -> local server. What no record tells is left out: nothing is raised for that.
    """
    names: dict[tuple[str, str], tuple[str, ...]] = {}
    for (server, datastack), token in tokens.items():
        names[(server, token)] = (*names.get((server, token), ()), datastack)
    questions = [Question(server, token, datastacks) for (server, token), datastacks in names.items()]
    learned: dict[str, dict[str, str]] = {}
    for question, access in prove(questions, records=True, **limits).items() if questions else ():
        for verdict in access.datastacks:
            with contextlib.suppress(CaveError):  # no record, or one that names no server
                learned.setdefault(question.server, {})[verdict.datastack] = server_address(verdict.local_server)
    return learned


def with_local_servers(server: str, datastacks: Sequence[Datastack], learned: LocalServers) -> list[Datastack]:
    """Return datastacks with what was learned about their local servers."""
    known = learned.get(server, {})
    return [stack._replace(local_server=known.get(stack.name, stack.local_server)) for stack in datastacks]
