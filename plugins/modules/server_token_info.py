#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""List a person's tokens on the auth server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_token_info
short_description: List a person's tokens on the auth server
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Lists the tokens of the person whose O(token) it is, newest first, by fingerprint. No value is returned.
extends_documentation_fragment:
  - connectomics.cave.cave.server
  - connectomics.cave.cave.http
  - connectomics.cave.cave.transport
  - connectomics.cave.cave.attributes
  - connectomics.cave.cave.action_group
attributes:
  check_mode:
    description: It changes nothing, in check mode or not.
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  platform:
    platforms: posix
options:
  token:
    description: A token of the person, to authenticate with.
    type: raw
    required: true
seealso:
  - module: connectomics.cave.server_token
"""

EXAMPLES = r"""
- name: See which tokens Alice has
  delegate_to: localhost
  run_once: true
  connectomics.cave.server_token_info:
    token: "{{ vault_cave_token_alice }}"
  register: alice

- name: List those that nobody has used for a year
  ansible.builtin.debug:
    msg: "{{ alice.tokens | selectattr('unused_for', 'number') | selectattr('unused_for', 'gt', 31536000) }}"
"""

RETURN = r"""
tokens:
  description: The tokens, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The token's id.
      type: int
      sample: 5
    description:
      description: Its name from when it was made; it may be empty.
      type: str
      sample: carol laptop
    created:
      description: When it was made, in UTC.
      type: str
      sample: "2026-11-22T12:55:55Z"
    updated:
      description: When it last got another value, in UTC.
      type: str
      sample: "2026-11-22T12:55:55Z"
    last_used:
      description:
        - When the auth server last saw it, in UTC; null when it never did.
        - A service that answers from its cache does not update this, for up to five minutes.
      type: str
      sample: "2026-11-23T07:30:01Z"
    age:
      description: Seconds since it was made, by the server's clock.
      type: int
      sample: 66846
    unused_for:
      description: Seconds since RV(tokens[].last_used); null when it was never used.
      type: int
      sample: 12
    fingerprint:
      description: The first 8 hex digits of the token's SHA-256.
      type: str
      sample: 3fa9c2d1
    current:
      description: Whether it is the one that authenticated here.
      type: bool
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

from ansible_collections.connectomics.cave.plugins.module_utils._backends.server_token import run_info
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, run_module

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "token": {"type": "raw", "required": True, "no_log": True},
        "server": {"type": "str", "default": DEFAULT_SERVER},
        "ca_path": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 2},
        **TRANSPORT,
    },
}
"""What is checked of the arguments, as ``AnsibleModule`` takes it."""


def main() -> None:
    """Run the module."""
    run_module(ARGUMENTS, lambda module: run_info(module.params))


if __name__ == "__main__":
    main()
