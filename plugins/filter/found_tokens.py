# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All tokens that were found on a host, as entries that take them off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_of
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files

DOCUMENTATION = r"""
name: found_tokens
short_description: List all tokens found on a host, as entries that remove them
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Takes RV(connectomics.cave.saved_token_info#module:users), and returns an entry for every key of every secrets file
    in it, whatever the server, as O(connectomics.cave.saved_token#module:tokens) takes it.
options:
  _input:
    description: What M(connectomics.cave.saved_token_info) returned.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Look what is there
  connectomics.cave.saved_token_info:
  register: found

- name: Take every token off the host
  connectomics.cave.saved_token:
    tokens: "{{ found.users | connectomics.cave.found_tokens }}"
    state: absent
"""

RETURN = r"""
_value:
  description: Mappings with C(user), C(server), C(key) and C(state), each once, without tokens.
  type: list
  elements: dict
"""


def found_tokens(users: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return an entry with ``state: absent`` for every key in every secrets file.

    Raises:
        AnsibleFilterError: it is not a list of mappings.
    """
    try:
        if isinstance(users, (str, Mapping)):
            raise TypeError
        return _found_tokens(users)
    except (AttributeError, KeyError, TypeError):
        raise AnsibleFilterError("found_tokens takes the list users that saved_token_info returned.") from None


def _found_tokens(users: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    for item in users:
        if not item.get("server"):
            continue
        for file in sorted(item.get("files", []), key=_own_files_first):
            name = PurePosixPath(file["path"]).name
            host = name[: -len(_files.server_file(""))] if _files.is_server_file(name) else ""
            server = f"https://{host}" if host and host != host_of(item["server"]) else item["server"]
            for key in file.get("fingerprints", {}):
                entry = {"user": item["user"], "server": server, "key": key, "state": "absent"}
                if entry not in entries:
                    entries.append(entry)
    return entries


def _own_files_first(file: Mapping[str, Any]) -> bool:
    """Sort the servers' own files first: with them the file for all servers loses what says whose token it is."""
    return not _files.is_server_file(PurePosixPath(file["path"]).name)


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"found_tokens": found_tokens}
