#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say which CAVE tokens a host sends, and what is wrong with them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_token_info
short_description: Say which CAVE tokens a host sends, and what is wrong with them
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Looks at the secrets files of a host's users, and says for each user which file caveclient, cloud-volume and
    cloud-files take, which token each would send, and whether they agree.
  - Lists everything that is wrong with the files, each with the command that mends it.
  - It changes nothing, and never fails because it found a problem. A token never appears in the result, its fingerprint
    does, the first 8 hex digits of its SHA-256.
extends_documentation_fragment:
  - connectomics.cave.cave.server
  - connectomics.cave.cave.datastacks
  - connectomics.cave.cave.http
  - connectomics.cave.cave.attributes
  - connectomics.cave.cave.action_group
attributes:
  check_mode:
    description: It changes nothing, and does the same in check mode.
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  platform:
    platforms: posix
options:
  users:
    description:
      - Names of the users' accounts.
      - Without it, root looks at all users who have a directory of secrets files, and anybody else at their own.
    type: list
    elements: str
  expected:
    description: The token that each user should have on O(server), by the name of the user's account.
    type: dict
  key:
    description: The name of the token in the secrets files.
    type: str
    default: token
  validate:
    description: Whether to ask the server about each token as well.
    type: bool
    default: false
  path:
    description: The folder of the managed caveclient environments, to see which version is there.
    type: path
    default: /opt/caveclient
  secrets_dir:
    description: A directory in the place of C(~/.cloudvolume/secrets). A leading C(~/) is the user's home.
    type: str
  cloud_volume_dir:
    description:
      - The users' C(CLOUD_VOLUME_DIR), in whose folder C(secrets) cloud-volume and cloud-files look. A leading C(~/) is
        the user's home.
      - Without this option, what the users' startup files, the environment of the task or C(/etc/environment) assign to
        the variable is taken. Give an empty string to use none.
    type: str
seealso:
  - module: connectomics.cave.saved_token
  - module: connectomics.cave.verify_access
"""

EXAMPLES = r"""
- name: See what this host sends for all of its users
  become: true
  connectomics.cave.saved_token_info:
    datastacks: [minnie65_public]
  register: saved

- name: See whether alice's token is the one in the vault, and whether the server knows it
  become: true
  connectomics.cave.saved_token_info:
    users: [alice]
    expected:
      alice: "{{ vault_cave_token_alice }}"
    validate: true
"""

RETURN = r"""
users:
  description: What was found, one entry a user.
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
    fingerprint:
      description: Fingerprint of the token that caveclient sends; null without one.
      type: str
      sample: 3fa9c2d1
    agree:
      description: Whether all readers send the same token.
      type: bool
    readers:
      description: What each reader takes and sends.
      type: list
      elements: dict
      contains:
        reader:
          description: V(caveclient), V(cloud-volume) or V(cloud-files).
          type: str
        host:
          description: Host and port of the server that it talks to.
          type: str
        path:
          description: The file that it takes; null without one.
          type: str
        fingerprint:
          description: Fingerprint of the token that it sends; null without one.
          type: str
        problem:
          description: Why it fails on the file; null when it does not.
          type: str
    files:
      description: The secrets files, and caveclient's server map.
      type: list
      elements: dict
      contains:
        path:
          description: Absolute path.
          type: str
        mode:
          description: Permission bits, in octal.
          type: str
        owner:
          description: Name of the file's owner.
          type: str
        problem:
          description: Why no program can use it; null when they can.
          type: str
        keys:
          description: The names in the file, with the fingerprint of each one's value.
          type: dict
    expected:
      description: The C(fingerprint) of the token that was expected, and whether it C(matches).
      returned: when O(expected) has the user
      type: dict
    access:
      description: What the server says about the token, as M(connectomics.cave.verify_access) returns it.
      returned: with O(validate=true), when there is a token
      type: dict
    problems:
      description: What is wrong.
      type: list
      elements: dict
      contains:
        code:
          description:
            - One of V(shadowed), V(stale), V(malformed), V(bom), V(empty), V(unreadable), V(loose_mode),
              V(wrong_owner), V(legacy_name), V(poisoned_server_map), V(symlink), V(cloud_volume_dir_split),
              V(known_bad_caveclient), V(unexpected_token).
          type: str
        path:
          description: The file or directory.
          type: str
        message:
          description: What was found.
          type: str
        remedy:
          description: The command that mends it.
          type: str
    failed:
      description: Whether this user's files could not be looked at.
      returned: when it is so
      type: bool
    msg:
      description: Why they could not be looked at.
      returned: when it is so
      type: str
problems:
  description: How many problems were found, with all users.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._saved_token_info import run
from ansible_collections.connectomics.cave.plugins.module_utils._servers import DEFAULT_SERVER


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str"},
            "expected": {"type": "dict", "no_log": True},
            "server": {"type": "str", "default": DEFAULT_SERVER},
            "datastacks": {"type": "list", "elements": "raw", "default": []},
            "key": {"type": "str", "default": "token", "no_log": False},
            "validate": {"type": "bool", "default": False},
            "path": {"type": "path", "default": "/opt/caveclient"},
            "secrets_dir": {"type": "str", "no_log": False},
            "cloud_volume_dir": {"type": "str"},
            "ca_path": {"type": "path"},
            "timeout": {"type": "int", "default": 30},
            "retries": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params)
    except CaveError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
