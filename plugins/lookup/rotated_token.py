# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens that an earlier task of the same run has sealed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rotated_token
short_description: Open the tokens that an earlier task of this run sealed
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the tokens that M(connectomics.cave.token_rotation) has sealed in this run. No other run can open them.
  - Use it directly in a module option that does not show it, such as O(connectomics.cave.saved_token#module:tokens). A
    variable, a loop or C(debug) could show it.
options:
  _terms:
    description:
      - Sealed tokens, such as RV(connectomics.cave.token_rotation#module:unstored[].sealed).
      - For a mapping with C(sealed), as RV(connectomics.cave.token_rotation#module:hosts) has them, the mapping comes
        back with C(token) in its place.
    type: list
    elements: raw
    required: true
seealso:
  - module: connectomics.cave.token_rotation
"""

EXAMPLES = r"""
# A file that caveclient_rotate_store_tasks names. The playbook sets caveclient_rotated for each new token.
- name: Keep it in pass
  ansible.builtin.command:
    argv: [pass, insert, --multiline, --force, "cave/{{ caveclient_rotated.users | first }}"]
    stdin: "{{ lookup('connectomics.cave.rotated_token', caveclient_rotated.sealed) }}"
  no_log: true # the result shows the standard input
"""

RETURN = r"""
_raw:
  description: The tokens, or the mappings with them.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import NotSealedError, opened


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the tokens that were sealed in ``terms``."""
        self.set_options(var_options=variables, direct=kwargs)
        items = [item for term in terms for item in (term if isinstance(term, (list, tuple)) else [term])]
        try:
            return [opened(item) for item in items]
        except (NotSealedError, KeyError, TypeError, AttributeError):  # the last ones of what has no sealed token
            message = "This is not a token that was sealed in this run. Use it in the run that made it."
            raise AnsibleLookupError(message) from None
