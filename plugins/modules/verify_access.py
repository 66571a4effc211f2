#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify that users' CAVE access works from a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_access
short_description: Verify that users' CAVE access works from a host
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Checks, from the host and with the token that the host would send for a user, whether a CAVE server gives access.
  - Fails if access does not work for one of the users. The finding is one of a fixed list of verdicts, with a message
    and with what a person can do about it.
  - Changes nothing. The result never holds a token, only its fingerprint, the first 8 hex digits of its SHA-256.
  - With O(method=client) the real caveclient runs. Its versions 5.27 to 6.3 write secrets files on every use, here too.
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
  action:
    description: Part of it runs on the controller.
    support: full
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
      - The users. The default is the user that runs the task. An empty list means nobody.
      - Each is the name of an account, or a mapping with C(user) and, where they differ from the task's options,
        C(server), C(datastacks), and C(key) or C(keys).
      - The filter P(connectomics.cave.token_holders#filter) makes them from a list of tokens.
      - Only root can read other users' files, so use C(become).
    type: list
    elements: raw
  token:
    description:
      - A token to check instead of what the host would send, for example on the controller before rolling it out.
      - No file is read then.
    type: raw
  method:
    description:
      - V(api) asks the auth server about the token, and the info service about every datastack. It needs no caveclient.
      - V(client) runs C(CAVEclient(datastack)) as the user, as caveclient's documentation says, without a server
        address, so the user's server map counts as well. It needs at least one of O(datastacks), and never opens a
        browser.
    type: str
    choices: [api, client]
    default: api
  key:
    description: The name of the token in the secrets files.
    type: str
    default: token
  path:
    description: The folder of the managed caveclient environments, for O(method=client).
    type: path
    default: /opt/caveclient
  interpreter:
    description: A Python that has caveclient, instead of the managed environment, for O(method=client).
    type: path
  secrets_dir:
    description:
      - A directory instead of C(~/.cloudvolume/secrets). A leading C(~/) is the user's home.
      - Not with O(method=client), since caveclient looks only in the usual place.
    type: str
  cloud_volume_dir:
    description:
      - The users' C(CLOUD_VOLUME_DIR). cloud-volume and cloud-files look in its folder C(secrets). A leading C(~/) is
        the user's home.
      - By default, the value that the users' startup files, the task's environment or C(/etc/environment) set is used.
        Give an empty string to use none.
    type: str
  services:
    description:
      - Whether the services of the datastacks answer as well, on their local servers.
      - V(none) asks none of them.
      - V(reach) asks all of them without a token, over one connection per server, to find what this host reaches and
        what is down.
      - V(person) asks them with the token whether they serve this person. No request has a side effect.
      - V(full) does both. Where the task runs on several hosts, one host asks with the token for all that have it.
      - A list of the names C(materialize), C(chunkedgraph), C(l2cache), C(skeleton) and C(annotation) means V(full) for
        these.
      - A service's answer alone never makes a token dead. The auth server decides.
    type: list
    elements: str
    default: [none]
seealso:
  - module: connectomics.cave.saved_token
  - module: connectomics.cave.saved_token_info
"""

EXAMPLES = r"""
- name: Verify that two users can work with MICrONS from this host
  become: true
  connectomics.cave.verify_access:
    users: [alice, bob]
    datastacks: [minnie65_public]

- name: Verify it with caveclient itself
  become: true
  connectomics.cave.verify_access:
    users: [alice]
    datastacks: [minnie65_public]
    method: client

- name: Verify that the services of the datastack serve them, too
  become: true
  connectomics.cave.verify_access:
    users: [alice, bob]
    datastacks: [minnie65_public]
    services: full

- name: Prove a new token before it goes out
  delegate_to: localhost
  run_once: true
  connectomics.cave.verify_access:
    token: "{{ vault_cave_token_alice }}"
    datastacks: [minnie65_public]
"""

RETURN = r"""
verdict:
  description: The worst of the users' verdicts. C(ok) when everybody's access works.
  returned: when anything was checked
  type: str
  sample: missing_tos
users:
  description: What was found for every user, in the order of O(users).
  returned: when anything was checked
  type: list
  elements: dict
  contains:
    user:
      description: Name of the account; null with O(token).
      type: str
      sample: alice
    verdict:
      description:
        - C(ok), or what is in the way.
        - C(no_token), the host has none for this server, or something on the way drops it.
        - C(malformed_file), the secrets file cannot be used.
        - C(invalid_token), the server does not accept the token.
        - C(missing_tos), terms of service are not accepted yet; RV(users[].url) is the form.
        - C(missing_permission), the person may not see the dataset.
        - C(unknown_datastack), the server does not know it.
        - C(not_a_cave_server), the answer is a redirect, a web page, or no HTTP at all.
        - C(unreachable), there is no answer, or no connection.
        - C(tls_error), the server's certificate or its TLS cannot be trusted.
        - C(service_blocked), this host does not reach the services of the datastack.
        - C(service_down), a service of the datastack does not work; RV(users[].service) is its name.
        - C(incompatible_client), a service is too old for the installed caveclient.
        - C(rate_limited), too many requests to the server.
        - C(server_error), the server has an internal problem.
        - C(client_error), everything else on this side, such as a missing account or caveclient environment.
      type: str
      sample: missing_tos
    message:
      description: What was found, and where.
      type: str
    remedy:
      description: What a person can do about it.
      returned: when there is something to do
      type: str
    server:
      description: The server that was asked. With O(method=client) the one that caveclient chose.
      type: str
      sample: https://global.daf-apis.com
    datastack:
      description: The datastack that the verdict is about.
      returned: when it is about one
      type: str
      sample: minnie65_public
    url:
      description: A page where the person can do something about it.
      returned: when there is one
      type: str
      sample: https://global.daf-apis.com/sticky_auth/api/v1/tos/2/accept
    person:
      description: Whose token it is, as the auth server says.
      returned: with O(method=api), when the server accepts the token
      type: dict
      contains:
        id:
          description: Number of the person.
          type: int
        name:
          description: Name of the person.
          type: str
        email:
          description: E-mail address of the person.
          type: str
        service_account:
          description: Whether it is a service account.
          returned: when it is one
          type: bool
        parent:
          description: Number of the account that a service account belongs to, whose terms of service are its own.
          returned: for a service account
          type: int
    fingerprint:
      description: Fingerprint of the token that caveclient sends; null without one.
      returned: when a token was looked for
      type: str
      sample: 3fa9c2d1
    path:
      description: The secrets file that caveclient reads; null without one.
      returned: without O(token)
      type: str
      sample: /home/alice/.cloudvolume/secrets/global.daf-apis.com-cave-secret.json
    readers:
      description: The fingerprint of the token that each reader sends, by reader and server.
      returned: without O(token)
      type: dict
      sample: {"caveclient global.daf-apis.com": 3fa9c2d1}
    datastacks:
      description:
        - A verdict for each of O(datastacks), with the same fields, and with C(local_server) as the server names it.
        - Empty if they were not checked.
      type: list
      elements: dict
    services:
      description:
        - A verdict on each service of each of the datastacks, with C(service), its name, or C(all) if all have the same
          problem; C(server), the local server; C(status), of its answer; C(version), if it tells.
      returned: with O(services), when the token gives access
      type: list
      elements: dict
    token_kind:
      description:
        - V(key), V(expiring) for a browser's login token, which expires within a week, or V(unknown).
      returned: with O(services=full), once among the hosts
      type: str
      sample: key
    service:
      description: The service that the verdict is about.
      returned: when it is about one
      type: str
      sample: materialize
    client_version:
      description: The version of caveclient that ran.
      returned: with O(method=client)
      type: str
      sample: 8.2.1
"""

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._backends.verify_access import run
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, run_module

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "users": {"type": "list", "elements": "raw"},
        "token": {"type": "raw", "no_log": True},
        "method": {"type": "str", "choices": ["api", "client"], "default": "api"},
        "server": {"type": "str", "default": DEFAULT_SERVER},
        "datastacks": {"type": "list", "elements": "raw", "default": []},
        "profiles": {"type": "list", "elements": "str", "default": []},
        "key": {"type": "str", "default": "token", "no_log": False},
        "path": {"type": "path", "default": "/opt/caveclient"},
        "interpreter": {"type": "path"},
        "secrets_dir": {"type": "str", "no_log": False},
        "cloud_volume_dir": {"type": "str"},
        "ca_path": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 2},
        "rate": {"type": "float", "default": 0},
        **TRANSPORT,
        "services": {"type": "list", "elements": "str", "default": ["none"]},
    },
    "mutually_exclusive": [("token", "users")],
}
"""What is checked of the arguments, as ``AnsibleModule`` takes it."""


def main() -> None:
    """Run the module."""
    run_module(ARGUMENTS, lambda module: run(module.params))


if __name__ == "__main__":
    main()
