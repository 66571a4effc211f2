# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a token, without the tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import is_omitted
from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import wrong_entry

DOCUMENTATION = r"""
name: token_holders
short_description: Say who holds a token, without the tokens
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Takes a list like C(caveclient_tokens), and returns it without the tokens and without the entries with
    C(state=absent), as the option O(connectomics.cave.verify_access#module:users) takes it.
options:
  _input:
    description: Mappings with C(user), C(token) and, optionally, C(server), C(datastacks), C(key) or C(keys), C(state).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Verify the access of everybody who has a token
  connectomics.cave.verify_access:
    users: "{{ caveclient_tokens | connectomics.cave.token_holders }}"
"""

RETURN = r"""
_value:
  description: Mappings with C(user) and, where given, C(server), C(datastacks), C(key) and C(keys); each once.
  type: list
  elements: dict
"""

_KEPT = ("user", "server", "datastacks", "key", "keys")


def token_holders(tokens: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return who holds a token: the entries of ``caveclient_tokens`` that are to be present, without their tokens.

    Raises:
        AnsibleFilterError: it is not a list of mappings, or one names no user. The message shows none of it.
    """
    holders: list[dict[str, Any]] = []
    if is_omitted(tokens):
        return holders
    is_list = isinstance(tokens, Iterable) and not isinstance(tokens, (str, Mapping))
    if not is_list:
        raise AnsibleFilterError("caveclient_tokens must be a list of entries with user and token.")
    for number, item in enumerate(tokens, 1):
        if complaint := wrong_entry(item, number):
            raise AnsibleFilterError(complaint)
        holder = {key: item[key] for key in _KEPT if item.get(key) is not None}
        if item.get("state") != "absent" and holder not in holders:
            holders.append(holder)
    return holders


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"token_holders": token_holders}
