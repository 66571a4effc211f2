# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The value of a token that the auth server lists."""

from __future__ import annotations

DOCUMENTATION = r"""
name: server_token
short_description: Get the value of a token from the auth server
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the value of the token with a given description, of the person who owns O(token). It asks the server from
    the controller, each time the template is used.
  - Use it directly in a module option that does not show it, such as O(connectomics.cave.vault_variable#module:value).
    A variable, a loop or C(debug) could show it.
options:
  _terms:
    description: Descriptions of tokens. Of several with the same description, the one with the lowest id is used.
    type: list
    elements: str
    required: true
  token:
    description: A token of the person, to authenticate with.
    type: str
    required: true
  server:
    description: The address of the auth server.
    type: str
    default: https://global.daf-apis.com
  ca_path:
    description: A file on the controller with the certificate authorities to trust.
    type: path
  timeout:
    description: How long the server's answers may take, in seconds, retries included.
    type: int
    default: 30
  retries:
    description: How often to retry a request if the server is overloaded or cannot be reached.
    type: int
    default: 2
seealso:
  - module: connectomics.cave.server_token
  - module: connectomics.cave.vault_variable
"""

EXAMPLES = r"""
- name: Keep a token in the vault
  delegate_to: localhost
  run_once: true
  connectomics.cave.vault_variable:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    name: vault_cave_token_alice
    value: "{{ lookup('connectomics.cave.server_token', 'lab, spring 2026', token=vault_cave_token_alice) }}"
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

from ansible_collections.connectomics.cave.plugins.module_utils._backends.server_token import values_of
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unexpected


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the tokens with the descriptions ``terms``."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return values_of([str(term) for term in terms], self.get_options())
        except CaveError as error:
            message = error.message
        except Exception as error:  # noqa: BLE001 (Ansible would print its message, and that may quote a token)
            message = unexpected(error)
        raise AnsibleLookupError(message)
