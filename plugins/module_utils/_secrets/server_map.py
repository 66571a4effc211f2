# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a user's server map, which decides on which server caveclient looks for a datastack."""

from __future__ import annotations

import os.path
import re
from typing import Iterable

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import KNOWN_LOCAL_SERVERS, server_address
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import TokenQuery, UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.remedies import PROVISION, Problem, beside
from ansible_collections.connectomics.cave.plugins.module_utils._text import quoted


def server_map_problems(files: UserFiles, queries: list[TokenQuery]) -> Iterable[Problem]:
    """Return the problem of a map that leads to wrong servers."""
    path = os.path.join(files.where.caveclient, _files.SERVER_MAP)
    entry = files.listing.get(path)
    if entry is None or entry.text is None:
        return
    named = {stack.name: one.server for one in queries for stack in one.datastacks}
    written = {stack.name for one in queries if one.is_managed and not one.is_absent for stack in one.datastacks}
    known = {stack: server for server, stacks in KNOWN_LOCAL_SERVERS.items() for stack in stacks}
    wrong = {}
    for stack, address in _files.values(entry.text).items():
        right = named.get(stack) or known.get(stack)
        # A datastack that is not known may be on a server of the lab's own, which is not asked about.
        if address != right and not (right is None and _is_address(address)):
            there = f" (it is on {right})" if right else ""
            wrong[stack] = f"{stack} on {_shown_address(address)}{there}"
    if wrong:
        message = f"{path} makes caveclient look for {', '.join(wrong.values())}."
        word = quoted(path)
        remedy = PROVISION if set(wrong) <= written else beside(files, path, f"rm {word}")
        yield Problem("poisoned_server_map", path, message, remedy)


def _shown_address(address: object) -> str:
    """Return an address from a server map, which may hold anything, a token for example."""
    return (
        clean_text(address)
        if isinstance(address, str) and re.match(r"https?://", address)
        else "what is not an address"
    )


def _is_address(value: object) -> bool:
    try:
        return server_address(value) == value
    except CaveError:
        return False
