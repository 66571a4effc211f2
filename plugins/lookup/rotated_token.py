# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The token that an earlier task of the same run has sealed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rotated_token
short_description: Get the new token of a rotation, to store it
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the token that M(connectomics.cave.token_rotation) has made in this run. It cannot be had in another run.
  - It is for the tasks that store it in a vault of the lab's own. Use it right in the option of a module that does not
    show it. A variable, a loop or C(debug) could show it.
options:
  _terms:
    description: RV(connectomics.cave.token_rotation#module:subjects[].sealed).
    type: list
    elements: str
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
  description: The tokens.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import unseal


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the tokens that were sealed in ``terms``."""
        self.set_options(var_options=variables, direct=kwargs)
        found = [unseal(str(term)) for term in terms]
        if None in found:
            raise AnsibleLookupError("This is not a token that was sealed in this run. Use it in the run that made it.")
        return [token for token in found if token is not None]
