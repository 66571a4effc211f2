#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Save CAVE tokens where every reader finds them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_token
short_description: Save CAVE tokens where every reader finds them
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Writes a user's CAVE token into the secrets files of a host, as C(client.auth.save_token) of caveclient does, but
    makes caveclient, cloud-volume and cloud-files all send the same token, whatever other secrets files exist.
  - The token is proven first. One that the server does not accept never replaces an existing one.
  - All entries of a user are planned together. Their order makes no difference, and several servers and keys do not
    interfere with each other. Entries that contradict each other fail.
  - A token is replaced or removed by its value, under every key and in every file of its server, in
    C(cave-secret.json), in C(chunkedgraph-secret.json) and in copies. A file of another server is left alone, and
    listed in the result if it holds the token.
  - The files are written by a process that has become the user, atomically, and are never readable by others.
  - No result, diff or log ever holds a token, only its fingerprint, the first 8 hex digits of its SHA-256.
extends_documentation_fragment:
  - connectomics.cave.cave.server
  - connectomics.cave.cave.datastacks
  - connectomics.cave.cave.profiles
  - connectomics.cave.cave.http
  - connectomics.cave.cave.rate
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
  tokens:
    description:
      - The tokens of the host's users, all in one task.
      - One user's failure does not stop the others. The task then fails, naming each one.
      - For a single token, O(user) and O(token) serve as well.
    type: list
    elements: dict
    suboptions:
      user:
        description: Name of the user's account. The default is O(user), or else the user that runs the task.
        type: str
      token:
        description:
          - The token, as the server's token page shows it. White space around it is dropped.
          - A value that cannot be a token is refused with the reason, as is a number, which means missing quotes.
        type: raw
      server:
        description: The address of the auth server. The default is O(server).
        type: str
      datastacks:
        description: As O(datastacks), which is the default for entries of the same server.
        type: list
        elements: raw
      key:
        description: The name of the token in the file. The default is O(key).
        type: str
      keys:
        description:
          - The names of the token in the file, if there are several, as in V([token, brain_and_nerve_cord]).
          - Such an entry stands for one entry per name, with a result for each. Do not combine with O(tokens[].key).
        type: list
        elements: str
      state:
        description: The default is O(state).
        type: str
        choices: [present, absent]
      validate:
        description: Whether to ask the server about this token. The default is O(validate).
        type: bool
      person:
        description: The account that this token must belong to. The default is O(person).
        type: str
  user:
    description: Name of the user's account. The default is the user that runs the task.
    type: str
  token:
    description: The token, where O(tokens) is not given.
    type: raw
  key:
    description:
      - The name of the token in the files. cloud-volume and cloud-files know V(token) alone, and caveclient takes it as
        C(auth_token_key).
    type: str
    default: token
  state:
    description:
      - V(present) saves the token.
      - V(absent) removes the token under this key from every file of the set, under any key, and removes a file only if
        nothing else is left in it. Where no token can be, nothing is changed.
    type: str
    choices: [present, absent]
    default: present
  person:
    description:
      - The mail address of the account that the token must belong to, as the server knows it. The token of another
        account is refused.
      - Needs O(validate=true), since only the server knows a token's account.
      - Without it, a warning says when the token belongs to another account than the one that it replaces, and when
        one token is saved for two users.
    type: str
  validate:
    description:
      - Ask the server about the token first, even if nothing has to be written, so one task sets and proves.
      - Set it to V(false) if the server cannot be reached, as when building an image.
    type: bool
    default: true
  stale:
    description:
      - What to do with other secrets files in the same directory that hold the replaced (or removed) token. Files named
        after another server are never changed.
      - V(update) updates them too, V(report) lists them in the result, V(ignore) does neither.
      - With O(state=absent) and V(update), other files there that hold the token, such as backups, are removed. A
        malformed secrets file that holds it is removed only with O(on_malformed=replace).
    type: str
    choices: [update, report, ignore]
    default: update
  secrets_dir:
    description:
      - A directory instead of C(~/.cloudvolume/secrets). A leading C(~/) is the user's home.
      - Must belong to the user or to root.
    type: str
  cloud_volume_dir:
    description:
      - The users' C(CLOUD_VOLUME_DIR). cloud-volume and cloud-files look in its folder C(secrets). That gets the same
        files.
      - By default, the value that the users' startup files, the task's environment or C(/etc/environment) set is used.
        A leading C(~/) is the user's home. Give an empty string to use none.
    type: str
  mode:
    description: The mode of the secrets files, in octal. One that lets others read them is refused.
    type: raw
    default: "0600"
  group:
    description:
      - The group of the secrets files, for a lab that shares one account on purpose. Use it with a O(mode) of V(0640).
      - The users must be members. With a mode for a group, the directory of the files is the group's too, mode 0750.
    type: str
  on_malformed:
    description:
      - What to do with a secrets file that must change and is not a JSON object.
      - V(fail) leaves it unchanged.
      - V(replace) keeps it beside the new file, with a name ending in C(.malformed-1) and mode 0600.
    type: str
    choices: [fail, replace]
    default: fail
seealso:
  - module: connectomics.cave.saved_token_info
  - module: connectomics.cave.verify_access
"""

EXAMPLES = r"""
- name: Save one user's token, and prove it
  become: true
  connectomics.cave.saved_token:
    user: alice
    token: "{{ vault_cave_token_alice }}"
    datastacks: [minnie65_public]

- name: Save the tokens of all users of the host in one task
  become: true
  connectomics.cave.saved_token:
    datastacks: [minnie65_public, flywire_fafb_public]
    tokens:
      - user: alice
        token: "{{ vault_cave_token_alice }}"
      - user: bob
        token: "{{ vault_cave_token_bob }}"
      - user: bob
        server: https://proofreading.zetta.ai
        datastacks: [kronauer_ant]
        token: "{{ vault_zetta_token_bob }}"

- name: Remove a former member's token from the host
  become: true
  connectomics.cave.saved_token:
    user: mallory
    datastacks: [minnie65_public]
    state: absent
"""

RETURN = r"""
users:
  description: What was done, one entry for each of O(tokens) (and of its C(keys)), in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    user:
      description: Name of the account.
      type: str
      sample: alice
    server:
      description: The auth server's address.
      type: str
      sample: https://global.daf-apis.com
    key:
      description: The key under which the token is in the secrets files.
      type: str
      sample: token
    changed:
      description: Whether anything was changed for this entry.
      type: bool
    files:
      description: The files and directories that were inspected or changed.
      type: list
      elements: dict
      contains:
        path:
          description: Absolute path.
          type: str
        action:
          description:
            - One of C(created), C(updated), C(unchanged), C(repaired), C(removed), C(set_aside), C(stale).
            - C(stale) is a file that still holds a replaced or removed token.
          type: str
        reason:
          description: Which reader takes the file, under which further keys the token was, or what was wrong.
          type: str
    fingerprint:
      description: Fingerprint of the token that caveclient sends now; null without one.
      returned: when the entry did not fail
      type: str
      sample: 3fa9c2d1
    previous_fingerprint:
      description: Fingerprint of the token that caveclient sent before; null without one.
      returned: when the entry did not fail
      type: str
      sample: 81b0e7aa
    previous_fingerprints:
      description: Fingerprints of all tokens that this entry displaced, from any file and key.
      returned: when the entry did not fail
      type: list
      elements: str
      sample: [81b0e7aa]
    readers:
      description: The fingerprint of the token that each reader sends now, by reader and server.
      returned: when the entry did not fail
      type: dict
      sample: {"caveclient global.daf-apis.com": 3fa9c2d1}
    account:
      description: The account that the token belongs to, as the server knows it.
      returned: with O(validate=true), when the server accepts the token
      type: str
      sample: alice@example.org
    previous_account:
      description: The account of the token that was replaced; null if the server no longer accepts that one.
      returned: with O(validate=true), when a token was replaced and no O(person) is given
      type: str
      sample: alice@example.org
    warnings:
      description: What looks wrong about whose token it is. All of them are warnings of the task as well.
      returned: when there are any
      type: list
      elements: str
    access:
      description: What the server says about the token, as M(connectomics.cave.verify_access) returns it.
      returned: with O(validate=true) and O(state=present)
      type: dict
      sample:
        verdict: ok
        message: Access works.
    local_servers:
      description: The local servers that the records of the datastacks name, by datastack.
      returned: when records were read for the server, as only they can tell
      type: dict
      sample: {"brain_and_nerve_cord_public": "https://cave.fanc-fly.com"}
    failed:
      description: Whether this entry failed.
      returned: when it did
      type: bool
    msg:
      description: Why this entry failed, and what to do.
      returned: when it did
      type: str
"""

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._backends.saved_token import run
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, run_module

ENTRY = {
    "user": {"type": "str"},
    "token": {"type": "raw", "no_log": True},
    "server": {"type": "str"},
    "datastacks": {"type": "list", "elements": "raw"},
    "key": {"type": "str", "no_log": False},
    "keys": {"type": "list", "elements": "str", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "validate": {"type": "bool"},
    "person": {"type": "str"},
}
ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "tokens": {"type": "list", "elements": "dict", "options": ENTRY, "no_log": False},
        "user": {"type": "str"},
        "token": {"type": "raw", "no_log": True},
        "server": {"type": "str", "default": DEFAULT_SERVER},
        "datastacks": {"type": "list", "elements": "raw", "default": []},
        "profiles": {"type": "list", "elements": "str", "default": []},
        "key": {"type": "str", "default": "token", "no_log": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "person": {"type": "str"},
        "validate": {"type": "bool", "default": True},
        "stale": {"type": "str", "choices": ["update", "report", "ignore"], "default": "update"},
        "secrets_dir": {"type": "str", "no_log": False},
        "cloud_volume_dir": {"type": "str"},
        "mode": {"type": "raw", "default": "0600"},
        "group": {"type": "str"},
        "on_malformed": {"type": "str", "choices": ["fail", "replace"], "default": "fail"},
        "ca_path": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 2},
        "rate": {"type": "float", "default": 0},
        **TRANSPORT,
    },
}
"""What is checked of the arguments, as ``AnsibleModule`` takes it."""


def main() -> None:
    """Run the module."""
    run_module(ARGUMENTS, lambda module: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
