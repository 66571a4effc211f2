#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Set a variable in an ansible-vault file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vault_variable
short_description: Set a variable in an ansible-vault file
version_added: 0.1.0
description:
  - Sets one string variable in a file encrypted as a whole with ansible-vault, or in a plain file as a C(!vault)
    string. The rest of the file is kept, with its comments and order.
  - Encrypts with the vault secrets that the run was started with. Existing encrypted content keeps its vault id.
  - Runs on the controller, whatever the task's host, and contacts no host. Use C(run_once), or a play on C(localhost).
  - Nothing is ever on disk unencrypted. The file is replaced atomically, and writers wait for each other.
extends_documentation_fragment:
  - connectomics.cave.cave.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
options:
  path:
    description:
      - The file, on the controller. A relative path starts where C(ansible-playbook) was started.
      - A symlink is followed and its target replaced, so linked C(group_vars) stay linked.
      - The directory must exist; a missing file is created.
    type: path
    required: true
  name:
    description: The name of the variable.
    type: str
    required: true
  key:
    description: The key to set when the variable O(name) is a mapping, for example of users to tokens.
    type: str
  value:
    description:
      - The plain value. Required for O(state=present).
      - A string. Quote what YAML would read as a number.
    type: raw
  state:
    description:
      - V(present) sets the variable, V(absent) removes it.
      - An unchanged value is not encrypted again, so the file does not change.
    type: str
    choices: [present, absent]
    default: present
  vault_id:
    description:
      - The vault id whose secret encrypts a new file, or a new variable in a plain file.
      - By default the one that C(vault_encrypt_identity) names, else that of the file's other variables, else the only
        one that the run was started with.
    type: str
  format:
    description: How a new file is encrypted, as a whole (V(file)), or variable by variable (V(inline)).
    type: str
    choices: [inline, file]
    default: inline
  mode:
    description:
      - The permissions of the file after a change. An existing file's owner and group are kept.
      - By default V(0600), or the file's own, if a group shares it and others cannot read it.
      - V(0640) and V(0660) are for a group that shares the file on purpose; modes that let others read are refused.
    type: raw
notes:
  - A file in which the change could affect more than the variable (anchors, aliases, merge keys, a variable set twice)
    is refused with the reason, and left unchanged.
  - Ansible reads C(group_vars) once a run, so a variable set here keeps its old value until the run ends.
seealso:
  - module: connectomics.cave.server_token
author:
  - connectomics.cave contributors (@connectomics)
"""

EXAMPLES = r"""
- name: Keep Alice's new token
  connectomics.cave.vault_variable:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    name: vault_cave_token_alice
    value: "{{ new_token }}"
  delegate_to: localhost
  run_once: true

- name: Keep it in a mapping of users to tokens, encrypted for the vault id 'lab' when the file is new
  connectomics.cave.vault_variable:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    name: vault_cave_tokens
    key: alice
    value: "{{ new_token }}"
    vault_id: lab
    format: file
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file that holds the variable, symlinks resolved.
  returned: success
  type: str
  sample: /home/admin/lab/group_vars/all/vault.yml
name:
  description: The variable, with the key in brackets if there is one.
  returned: success
  type: str
  sample: vault_cave_tokens[alice]
created:
  description: Whether the file is new.
  returned: success
  type: bool
format:
  description: How the file is encrypted, V(file) or V(inline).
  returned: success
  type: str
  sample: inline
vault_id:
  description: The vault id whose secret encrypts the variable.
  returned: success
  type: str
  sample: default
fingerprint:
  description: The first 8 hex digits of the SHA-256 of the value; null after a removal.
  returned: success
  type: str
  sample: 3fa9c2d1
previous_fingerprint:
  description: The same for the previous value; null without one.
  returned: success
  type: str
  sample: 81b0e7aa
was_plain:
  description: Whether the file had the value in plain text before.
  returned: success
  type: bool
"""
