#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The documentation of an action plugin: all of the work is done on the controller, in plugins/action/token_rotation.py.

"""The steps of a rotation that are done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: token_rotation
short_description: The steps of a rotation that are done on the controller
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Proves the tokens of a fleet, makes new ones and stores them, and revokes the old ones once nobody needs them.
  - It is a part of the playbook C(connectomics.cave.rotate), which has the tasks on the hosts between these steps, and
    of playbooks that are written after it.
  - It keeps no record of its own. Each step finds out from the auth server, the vault and the hosts how far it has
    come, so a run that was killed is taken up by the next one. A new token's description says which one it replaces.
  - No token is in a result. A later task of the same run gets it sealed, with a key that is in this run's memory alone.
options:
  step:
    description:
      - V(prove) asks the auth server about each token in C(caveclient_tokens) of all O(hosts). No host is contacted.
      - V(begin) decides for each token what to do, makes the new one where that is it, stores it in the vault, and
        finds out whether the server still accepts the old one. It reads what the hosts had from C(__caveclient_looked).
      - V(judge) tells whether one of the attempts in O(canaries) went well.
      - V(wait) looks when the old tokens were last used, and waits for O(grace), once every host of the run is done.
      - V(end) revokes each old token that no host needs any more, and proves that the auth server refuses it.
    type: str
    required: true
    choices: [prove, begin, judge, wait, end]
  hosts:
    description: All hosts of the fleet, also those that a limit leaves out of the run.
    type: list
    elements: str
    required: true
  subjects:
    description: What the step before returned as RV(subjects). Not for O(step=prove).
    type: list
    elements: dict
    default: []
  marks:
    description: What O(step=wait) returned, for O(step=end).
    type: list
    elements: dict
    default: []
  canaries:
    description: The attempts to judge, for O(step=judge), as O(step=begin) returned them.
    type: list
    elements: list
    default: []
  strategy:
    description:
      - V(cutover) rolls out the token that is in the vault. The old one may be dead already.
      - V(overlap) makes a new token with the one that is in the vault, rolls it out, and revokes the old one.
      - V(auto) does the latter where no new token is in the vault, and the server can.
      - A token is new when a host has another one in its place, or when it was made less than a day ago.
    type: str
    choices: [auto, cutover, overlap]
    default: auto
  name:
    description:
      - A name for the rotation, as a part of the new token's description. A rotation that is run again with the same
        name makes no other token.
      - Without a name, a token that a rotation made less than a day ago is not rotated again.
    type: str
    default: ""
  users:
    description: The users whose tokens are rotated. All of them when it is empty.
    type: list
    elements: str
    default: []
  canary:
    description: The hosts that come first. By default one that seems to be well.
    type: list
    elements: str
    default: []
  vault_file:
    description:
      - Files with variables, in which the new token takes the place of the old one.
      - By default all files in C(group_vars) and C(host_vars) beside the inventory are searched for it.
    type: list
    elements: path
    default: []
  vault_id:
    description: As O(connectomics.cave.vault_variable#module:vault_id).
    type: str
  own_store:
    description: The user's own tasks store the new token.
    type: bool
    default: false
  other_person:
    description: Accept a token that is of another person than the one before.
    type: bool
    default: false
  revoke:
    description:
      - Whether to revoke the old token. V(when_unused), only if nobody has used it since the last host had the new one.
        V(even_if_used), if every host has the new one. V(never), not at all.
    type: str
    choices: [when_unused, even_if_used, never]
    default: when_unused
  grace:
    description:
      - How long to look for uses of the old token before it is revoked, in seconds.
      - The server sees a use up to 300 seconds late, as services remember tokens for that long.
    type: float
    default: 310
  ca_path:
    description: A file on the controller with the certificate authorities to trust.
    type: path
  timeout:
    description: The time that the server's answers may take for one token, in seconds, retries included.
    type: int
    default: 30
  retries:
    description: How often a request is tried again when the server is overloaded or cannot be reached.
    type: int
    default: 2
attributes:
  action:
    description: It has a part that runs on the controller.
    support: full
  bypass_host_loop:
    description: Runs once for the play, not once for each host. It does not work with the C(free) strategy.
    support: full
  check_mode:
    description: Predicts what a run would do. Nothing is made, stored or revoked.
    support: full
  diff_mode:
    description: The result says what was done.
    support: none
  platform:
    description: The systems on which it runs.
    support: full
    platforms: posix
seealso:
  - module: connectomics.cave.rotated_token
  - module: connectomics.cave.server_token
  - module: connectomics.cave.vault_variable
"""

EXAMPLES = r"""
- name: Prove the tokens before any host is contacted
  connectomics.cave.token_rotation:
    step: prove
    hosts: "{{ query('ansible.builtin.inventory_hostnames', 'all') }}"
  run_once: true
  register: proven
"""

RETURN = r"""
subjects:
  description: What is done about each token.
  returned: with O(step=prove) and O(step=begin)
  type: list
  elements: dict
  contains:
    server:
      description: The auth server's address.
      type: str
    users:
      description: Who has the token.
      type: list
      elements: str
    hosts:
      description: On which hosts.
      type: list
      elements: str
    action:
      description: C(made), C(continued), C(rolled_out), C(refused) or C(left_out).
      type: str
    message:
      description: What it is, and why.
      type: str
    given:
      description: Fingerprint of the token in the variables.
      type: str
    new:
      description: Fingerprint of the token that the hosts get; null in check mode when it would be made.
      type: str
    old:
      description: Fingerprint of the token to revoke in the end; empty when there is none.
      type: str
    old_alive:
      description: Whether the server accepts the old token after it made the new one.
      type: bool
    places:
      description: Where the new token is kept, with C(path) and C(name) of the variable.
      type: list
      elements: dict
    unstored:
      description: Whether the user's own tasks have to store it.
      type: bool
    sealed:
      description: The token that the hosts get, for P(connectomics.cave.rotated_token#lookup) in the same run.
      type: str
    person:
      description: Whose token it is, with C(id), C(name) and C(email).
      type: dict
canaries:
  description: The hosts to begin with, a list for each attempt.
  returned: with O(step=begin)
  type: list
  elements: list
first:
  description: All of RV(canaries), in order.
  returned: with O(step=begin)
  type: list
  elements: str
passed:
  description: Whether an attempt went well, or none is needed.
  returned: with O(step=judge)
  type: bool
ready:
  description: Whether there is something to revoke.
  returned: with O(step=wait)
  type: bool
marks:
  description: When each old token was last used, when the last host had the new one.
  returned: with O(step=wait)
  type: list
  elements: dict
finished:
  description: Whether nothing is left to do.
  returned: with O(step=end)
  type: bool
notes:
  description: A sentence or some about each token.
  returned: with O(step=end)
  type: list
  elements: str
unfinished:
  description: Those about tokens of which something is left to do.
  returned: with O(step=end)
  type: list
  elements: str
"""
