# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens that a run can read, and whose the others are."""

from __future__ import annotations

DOCUMENTATION = r"""
name: readable_tokens
short_description: Get the tokens that this run can read, and whose the others are
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the entries of variables such as C(caveclient_tokens). If an entry's token cannot be read, because a
    variable is not defined or the vault's password is missing, the entry comes without it.
  - So a comparison with the vault does not fail without its password. A variable that can be read and is no list of
    entries fails.
  - Use it directly in a module option that does not show it, such as
    O(connectomics.cave.saved_token_info#module:expected). A variable, a loop or C(debug) could show it.
options:
  _terms:
    description: Names of variables. One that is not defined has no entries.
    type: list
    elements: str
    required: true
notes:
  - A file of variables that is encrypted as a whole stops Ansible before anything runs when its password is not given.
seealso:
  - module: connectomics.cave.saved_token_info
"""

EXAMPLES = r"""
- name: See what this host sends, and whether it is what the vault has, where that is open
  connectomics.cave.saved_token_info:
    expected: "{{ query('connectomics.cave.readable_tokens', 'caveclient_tokens') }}"
"""

RETURN = r"""
_raw:
  description: Mappings with C(user) and, where set and readable, C(token), C(server) and the like.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    is_encrypted,
    is_omitted,
    plain_string,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import wrong_entry

display = Display()
_UNREADABLE = object()


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Return the entries of the variables named.

        Raises:
            AnsibleLookupError: a variable, or an entry, can be read and is of another kind. The message shows none of
                it.
        """
        self.set_options(var_options=variables, direct=kwargs)
        entries = []
        for term in terms:
            if not isinstance(term, str):
                raise AnsibleLookupError("readable_tokens takes the names of variables, such as 'caveclient_tokens'.")
            value = (variables or {}).get(term)
            if isinstance(value, str):  # the list as a whole is a template
                value = self._read(value)
            if value is None or value is _UNREADABLE or is_omitted(value) or is_encrypted(value):
                continue
            if not isinstance(value, (list, tuple)):
                raise AnsibleLookupError(f"{term} must be a list of entries with user and token.")
            found = [self._entry(term, number, value) for number in range(1, len(value) + 1)]
            entries += [entry for entry in found if entry]
        return entries

    def _entry(self, term: str, number: int, entries: Any) -> dict[str, Any] | None:
        """Return what can be read of an entry; None where its user cannot."""
        try:
            entry = entries[number - 1]
        except AnsibleError:
            return None
        entry = self._read(entry) if isinstance(entry, str) else entry
        if entry is _UNREADABLE:
            return None
        is_mapping = isinstance(entry, Mapping)
        found = {str(name): self._read(entry, name) for name in entry} if is_mapping else {}
        if found.get("user") is _UNREADABLE:
            return None
        found = {name: value for name, value in found.items() if value is not _UNREADABLE}
        if complaint := wrong_entry(found if is_mapping else entry, number, term):
            raise AnsibleLookupError(complaint)
        try:
            if "token" in found:
                found["token"] = plain_string(found["token"], "The token")
        except (CaveError, AnsibleError):
            del found["token"]
        return found

    def _read(self, value: Any, *path: Any) -> Any:
        """Return a value with its templates filled in, or _UNREADABLE."""
        try:
            for name in path:
                value = value[name]
            return self._templar.template(value)
        except AnsibleError as error:
            # The message may quote the variable, so its kind has to do.
            display.vvv(f"A token's variable cannot be read: {type(error).__name__}")
            return _UNREADABLE
