#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The documentation of an action plugin: all of the work is done on the controller, in plugins/action/enroll.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: enroll
short_description: Ask a person for a CAVE token, prove it, and keep it in the vault
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Guides the person at the terminal. It shows which pages of the server to open, asks for the token without showing
    it, checks it with the server, says whose it is, and stores it in an ansible-vault file or in another store.
  - If terms of service must be accepted, it shows the form's address, waits, and asks again.
  - If the vault's token works, it says so and asks for nothing. It warns against making a token where that could lock
    out other computers, and makes one itself only when one of a browser's login was pasted, with the person's consent,
    and where no other one can die of it.
  - Nothing is stored until the person agrees. Ctrl-C leaves everything as it was.
  - Runs once, on the controller, whatever the play's hosts, and contacts no host.
extends_documentation_fragment:
  - connectomics.cave.cave.server
  - connectomics.cave.cave.datastacks
  - connectomics.cave.cave.profiles
  - connectomics.cave.cave.attributes
  - connectomics.cave.cave.action_group
attributes:
  check_mode:
    support: none
    details: A person's answers cannot be predicted, so it is skipped.
  diff_mode:
    support: none
    details: The result has the fingerprints.
  platform:
    platforms: posix
options:
  user:
    description: The name of the person's account on the hosts.
    type: str
    required: true
  path:
    description: The vault file, as O(connectomics.cave.vault_variable#module:path). Either this or O(secret) is needed.
    type: path
  secret:
    description:
      - The token's name in O(store), as P(connectomics.cave.stored_token#lookup) takes it.
      - The token is read back from there.
    type: str
  store:
    description: The store in place of a vault file, as O(connectomics.cave.stored_token#lookup:store).
    type: raw
  name:
    description: The variable that holds the token. The default is C(vault_cave_token_) and the name of the user.
    type: str
  key:
    description: The key of the token when the variable O(name) is a mapping, for example of users to tokens.
    type: str
  new_account:
    description:
      - Whether the person is new to the server, and must be guided through logging in and accepting terms.
      - If not set, the person is asked.
    type: bool
  open_pages:
    description: Whether to offer to open pages in a browser, if the run was started on a desktop.
    type: bool
    default: true
  vault_id:
    description: The vault id that encrypts something new, as O(connectomics.cave.vault_variable#module:vault_id).
    type: str
  format:
    description: How a new file is encrypted, as O(connectomics.cave.vault_variable#module:format).
    type: str
    choices: [inline, file]
    default: inline
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
  - module: connectomics.cave.vault_variable
  - module: connectomics.cave.server_token
"""

EXAMPLES = r"""
- name: Ask for Alice's token
  connectomics.cave.enroll:
    user: alice
    path: "{{ inventory_dir }}/group_vars/workstations/vault.yml"
    datastacks: [minnie65_public]
"""

RETURN = r"""
path:
  description: The vault file, or the store.
  returned: success
  type: str
name:
  description:
    - The variable that holds the token, with the key in brackets if there is one; or what names it in the store.
  returned: success
  type: str
  sample: vault_cave_token_alice
fingerprint:
  description: Fingerprint of the token now in the vault.
  returned: success
  type: str
  sample: 3fa9c2d1
previous_fingerprint:
  description: Fingerprint of the token that was there before; null without one.
  returned: success
  type: str
access:
  description: What the server says about the token, as M(connectomics.cave.verify_access) returns it.
  returned: success
  type: dict
"""
