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
  - Inspects the secrets files of a host's users, and says for each user which file caveclient, cloud-volume and
    cloud-files read, which token each would send, and whether they agree.
  - Lists every problem with the files, each with the command that fixes it.
  - It changes nothing, and never fails because it found a problem. The result never holds a token, only its
    fingerprint, the first 8 hex digits of its SHA-256.
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
    description: It changes nothing, in check mode or not.
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
      - By default, root inspects all users with secrets files, and those of O(expected); anybody else inspects their
        own.
      - An empty list means nobody.
      - If a directory service lists no accounts, they are found as owners of homes. Homes are looked for in C(/home)
        (C(/Users) on macOS), beside the homes of listed accounts, and in O(homes); also one level deeper, as in
        C(/home/DOMAIN/user).
      - Files of a deleted account are listed under its user id.
    type: list
    elements: str
  homes:
    description: Further folders of homes, to find users in if O(users) is not set.
    type: list
    elements: path
  expected:
    description:
      - The tokens that should be there, as O(connectomics.cave.saved_token#module:tokens) takes them.
      - An entry without a token only says on which server the user works.
      - A mapping of users to their tokens on O(server) is accepted, too.
    type: list
    elements: dict
    suboptions:
      user:
        description: Name of the user's account.
        type: str
        required: true
      token:
        description: The token, where it is known.
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
          - Such an entry stands for one entry per name, with a result for each. Do not combine with O(expected[].key).
        type: list
        elements: str
      state:
        description: With V(absent), no token should be there.
        type: str
        choices: [present, absent]
        default: present
      person:
        description: Ignored here; M(connectomics.cave.saved_token) compares it.
        type: str
      validate:
        description: Ignored here; use O(validate).
        type: bool
  key:
    description: The name of the token in the secrets files.
    type: str
    default: token
  validate:
    description: Whether to ask the server about each token as well.
    type: bool
    default: false
  addresses:
    description:
      - Whether to return the hosts and ports that the datastacks' records name, and to try each from the host, through
        its proxy. It asks the server about each token as O(validate) does.
    type: bool
    default: false
  path:
    description: The folder of the managed caveclient environments, to see which version is there.
    type: path
    default: /opt/caveclient
  secrets_dir:
    description: A directory instead of C(~/.cloudvolume/secrets). A leading C(~/) is the user's home.
    type: str
  cloud_volume_dir:
    description:
      - The users' C(CLOUD_VOLUME_DIR). cloud-volume and cloud-files look in its folder C(secrets). A leading C(~/) is
        the user's home.
      - By default, the value that the users' startup files, the task's environment or C(/etc/environment) set is used.
        Give an empty string to use none.
    type: str
  mode:
    description: The mode that the secrets files should have, in octal, as O(connectomics.cave.saved_token#module:mode).
    type: raw
    default: "0600"
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
      - user: alice
        token: "{{ vault_cave_token_alice }}"
    validate: true
"""

RETURN = r"""
users:
  description: What was found, one entry for each user and server.
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
    has_account:
      description:
        - Whether the user has an account with a home on this host. Without one, nothing can be saved here, and
          RV(users[].msg) says what is missing. Files of an account that is gone are listed all the same.
      type: bool
    fingerprint:
      description: Fingerprint of the token that caveclient sends; null without one.
      type: str
      sample: 3fa9c2d1
    agree:
      description: Whether all readers send the same token.
      type: bool
    readers:
      description: What each reader reads and sends.
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
          description: The file that it reads; null without one.
          type: str
        fingerprint:
          description: Fingerprint of the token that it sends; null without one.
          type: str
        problem:
          description: Why it fails on the file; null if it does not.
          type: str
    files:
      description:
        - Every file that holds a token, and caveclient's server map, in all places where programs of the user look.
          These are C(~/.cloudvolume/secrets), O(secrets_dir), and the folders C(secrets) in C(CLOUD_VOLUME_DIR),
          C(~/.neuroglancer), C(CLOUD_FILES_DIR) or C(~/.cloudfiles), and C(/).
        - The files of all servers are listed, whatever the entry's server, and with them other JSON files in these
          folders that hold a token, such as copies.
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
        fingerprints:
          description: The fingerprint of each value in the file, by its name there; null if it is no token.
          type: dict
    unread:
      description: Files and folders among these places that could not be read; a token may be in them.
      type: list
      elements: str
    expected:
      description: The C(fingerprint) of the token that was expected (null where none was), and whether it C(matches).
      returned: when O(expected) has the user's token, or says that it is absent
      type: dict
    access:
      description: What the server says about the token, as M(connectomics.cave.verify_access) returns it.
      returned: with O(validate=true), when there is a token, or one was expected
      type: dict
    local_servers:
      description: The local servers that the records of the datastacks name, by datastack.
      returned: when records were read for the server, as only they can tell
      type: dict
      sample: {"brain_and_nerve_cord_public": "https://cave.fanc-fly.com"}
    problems:
      description: The problems, most harmful first. Those of no single server are in the user's first entry.
      type: list
      elements: dict
      contains:
        code:
          description:
            - One of V(unexpected_token), V(malformed), V(bom), V(empty), V(unreadable), V(stale), V(shadowed),
              V(cloud_volume_dir_split), V(cloud_volume_dir_unclear), V(netrc_overrides_token), V(env_token),
              V(ca_bundle), V(env_token_key), V(shadowed_key), V(legacy_name), V(poisoned_server_map), V(symlink),
              V(wrong_owner), V(loose_mode), V(known_bad_caveclient).
          type: str
        path:
          description: The file or directory.
          type: str
        message:
          description: What was found.
          type: str
        remedy:
          description:
            - The command that fixes it. Run it on the host, or on the controller if it begins with C(ansible-playbook).
          type: str
    failed:
      description:
        - Whether this user's files could not be read. A token may be in them, unless RV(users[].has_account=false).
      returned: when they could not, or when O(expected) has a token of somebody who has an account without a home
      type: bool
    msg:
      description: Why they could not be read.
      returned: when they could not
      type: str
problems:
  description: How many problems were found, for all users.
  returned: always
  type: int
addresses:
  description: The addresses a firewall has to allow, and whether this host reaches them.
  returned: with O(addresses=true)
  type: list
  elements: dict
  contains:
    address:
      description: Host and port.
      type: str
      sample: minnie.microns-daf.com:443
    purposes:
      description: What it is for.
      type: list
      elements: str
      sample: [services, segmentation]
    reached:
      description: Whether anything answers there.
      type: bool
    reason:
      description: Why it is not reached; empty if it is.
      type: str
"""

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._backends.saved_token_info import run
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, run_module

EXPECTED = {
    "user": {"type": "str", "required": True},
    "token": {"type": "raw", "no_log": True},
    "server": {"type": "str"},
    "datastacks": {"type": "list", "elements": "raw"},
    "key": {"type": "str", "no_log": False},
    "keys": {"type": "list", "elements": "str", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "person": {"type": "str"},
    "validate": {"type": "bool"},
}
ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "users": {"type": "list", "elements": "str"},
        "homes": {"type": "list", "elements": "path"},
        "expected": {"type": "list", "elements": "dict", "options": EXPECTED, "no_log": False},
        "server": {"type": "str", "default": DEFAULT_SERVER},
        "datastacks": {"type": "list", "elements": "raw", "default": []},
        "profiles": {"type": "list", "elements": "str", "default": []},
        "key": {"type": "str", "default": "token", "no_log": False},
        "validate": {"type": "bool", "default": False},
        "addresses": {"type": "bool", "default": False},
        "path": {"type": "path", "default": "/opt/caveclient"},
        "secrets_dir": {"type": "str", "no_log": False},
        "cloud_volume_dir": {"type": "str"},
        "mode": {"type": "raw", "default": "0600"},
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
    run_module(ARGUMENTS, lambda module: run(module.params))


if __name__ == "__main__":
    main()
