#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make and revoke a person's tokens on the auth server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_token
short_description: Make and revoke a person's tokens on the auth server
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Makes a token with a description, once. If one has this description already, none is made.
  - Revokes tokens by id, description or fingerprint, and proves that the auth server then refuses them. Other services
    may accept a revoked token for up to five minutes more.
  - The value of a token is never returned, so no output, log or registered variable holds it. The lookup
    P(connectomics.cave.server_token#lookup) gets it where needed, mainly for M(connectomics.cave.vault_variable).
  - The person is the one whose O(token) it is. No program can make a person's first token, which needs a browser login.
extends_documentation_fragment:
  - connectomics.cave.cave.server
  - connectomics.cave.cave.http
  - connectomics.cave.cave.transport
  - connectomics.cave.cave.attributes
  - connectomics.cave.cave.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
options:
  token:
    description: A token of the person, to authenticate with.
    type: raw
    required: true
  state:
    description: Whether the token exists or is revoked.
    type: str
    choices: [present, absent]
    default: present
  description:
    description:
      - The description of the token, of at most 120 characters. It is required for O(state=present).
      - It is compared exactly, including case and spaces.
    type: str
  id:
    description: The id of the token to revoke.
    type: int
  fingerprint:
    description: The fingerprint of the token to revoke, the first 8 hex digits of its SHA-256.
    type: str
  all:
    description: Revoke all selected tokens if there are several. Without it, that fails.
    type: bool
    default: false
  force:
    description: Also revoke the token that authenticates here.
    type: bool
    default: false
notes:
  - Some servers let a person have only one token at a time, so that a new one kills the old one.
    RV(old_token_alive) tells.
  - Two runs at the same time make one token. The one of the lower id stays.
seealso:
  - module: connectomics.cave.server_token_info
  - module: connectomics.cave.vault_variable
  - plugin: connectomics.cave.server_token
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Make a new token, once
  delegate_to: localhost
  run_once: true
  connectomics.cave.server_token:
    token: "{{ vault_cave_token_alice }}"
    description: lab workstations, spring 2026
  register: made

- name: Keep it in the vault
  delegate_to: localhost
  run_once: true
  connectomics.cave.vault_variable:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    name: vault_cave_token_alice
    value: "{{ lookup('connectomics.cave.server_token', made.description, token=vault_cave_token_alice) }}"

- name: Revoke a token that was found in a public notebook
  delegate_to: localhost
  run_once: true
  connectomics.cave.server_token:
    token: "{{ vault_cave_token_alice }}"
    fingerprint: 81b0e7aa
    state: absent
"""

RETURN = r"""
id:
  description: The id of the token; null in check mode when it would be made.
  returned: with O(state=present)
  type: int
  sample: 5
description:
  description: Its description.
  returned: with O(state=present)
  type: str
  sample: lab workstations, spring 2026
fingerprint:
  description: Its fingerprint; null in check mode when it would be made.
  returned: with O(state=present)
  type: str
  sample: 3fa9c2d1
created:
  description: When it was made, in UTC.
  returned: with O(state=present)
  type: str
  sample: "2026-11-22T12:55:55Z"
old_token_alive:
  description: Whether the server still accepts O(token) after it made another one; null when nothing was made.
  returned: with O(state=present)
  type: bool
revoked:
  description: The tokens that were revoked, as M(connectomics.cave.server_token_info) lists them.
  returned: with O(state=absent)
  type: list
  elements: dict
access:
  description: What the server said, as M(connectomics.cave.verify_access) returns it.
  returned: when the server did not do what it was asked for
  type: dict
  sample:
    verdict: invalid_token
unsupported:
  description: That the server is too old, and only a person in a browser can do this.
  returned: when it is so
  type: bool
"""

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._backends.server_token import run
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, run_module

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "token": {"type": "raw", "required": True, "no_log": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "description": {"type": "str"},
        "id": {"type": "int"},
        "fingerprint": {"type": "str"},
        "all": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "server": {"type": "str", "default": DEFAULT_SERVER},
        "ca_path": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 2},
        **TRANSPORT,
    },
    "required_if": [
        ("state", "present", ("description",)),
        ("state", "absent", ("id", "description", "fingerprint"), True),
    ],
    "mutually_exclusive": [("id", "description", "fingerprint")],
}
"""What is checked of the arguments, as ``AnsibleModule`` takes it."""


def main() -> None:
    """Run the module."""
    run_module(ARGUMENTS, lambda module: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
