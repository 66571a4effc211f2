#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The documentation of an action plugin: all of the work is done on the controller, in plugins/action/token_rotation.py.

"""The steps of a rotation that are done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: token_rotation
short_description: Do the controller's steps of a rotation
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Proves the tokens of a fleet, makes and stores new ones on request, and revokes old ones once nobody can need them
    any more.
  - The playbook C(connectomics.cave.rotate) runs these steps, with tasks on the hosts between them. A step gets the
    previous step's knowledge as O(state), and the names of the tasks' registered variables as O(results).
  - It keeps no record of its own. Each run finds out from the auth server, the vault and the hosts how far an earlier
    one got. A new token's description says which one it replaces.
  - Tokens are compared by value, however their server is spelt. Before one is revoked, every place that may hold it is
    inspected, on all hosts that Ansible knows, whatever the limit.
  - No token is in a result. A later task of the same run gets it sealed, with a key that is only in this run's memory.
options:
  step:
    description:
      - V(prove) reads C(caveclient_tokens) and the settings of every host that Ansible knows, and asks the auth servers
        about the tokens. No host is contacted.
      - V(rehearse) returns what hosts are to predict before a token is made.
      - V(begin) decides for each token what to do, makes the new one if needed, stores it, and reads it back.
      - V(canary) returns what a batch of hosts gets, of the tokens that no canary host has yet.
      - V(roll_out) returns what every host gets.
      - V(wait) checks when the old tokens were last used, waits for O(grace), and returns the hosts to inspect again.
      - V(finish) revokes each old token that no host can need any more, proves that the auth server refuses it, and
        returns the outcome.
      - V(choose) and V(revoke) are the steps of C(connectomics.cave.decommission). V(choose) returns the hosts to
        inspect once tokens have been removed from those of the run. V(revoke) revokes these tokens, each once, unless
        somebody may still need them.
      - V(prove), V(begin) and V(choose) do not fail on an impossible request. They return RV(refused), and nothing was
        done.
    type: str
    required: true
    choices: [prove, rehearse, begin, canary, roll_out, wait, finish, choose, revoke]
  state:
    description: What the step before returned as RV(state). Not for O(step=prove) and O(step=choose).
    type: str
  results:
    description:
      - The names of the variables that tasks registered on the hosts.
      - C(inspected), C(again) and C(elsewhere) are of M(connectomics.cave.saved_token_info), before the roll-out, after
        it, and on hosts outside the run.
      - C(rehearsed), for O(step=begin), is what M(connectomics.cave.saved_token) predicted on hosts after
        O(step=rehearse).
      - C(removed), for O(step=revoke), is of M(connectomics.cave.saved_token).
      - C(canary) and C(saved) are of M(connectomics.cave.saved_token), C(verified) of
        M(connectomics.cave.verify_access).
    type: dict
    default: {}
  stored:
    description: Fingerprints of new tokens that the user's own tasks have stored.
    type: list
    elements: str
    default: []
  strategy:
    description:
      - V(cutover) rolls out the vault's token. It makes none, and revokes only those in O(old).
      - V(overlap) makes a new token with the vault's, rolls it out, and revokes the old one.
    type: str
    choices: [cutover, overlap]
    default: cutover
  name:
    description:
      - A name for the rotation, part of the new token's description. Another rotation with the same name makes no
        second token.
      - Without a name, a token that a rotation made less than 30 days ago is not rotated again.
    type: str
    default: ""
  users:
    description:
      - The users whose tokens are rotated; all if empty. Users who share a selected token are rotated together.
    type: list
    elements: str
    default: []
  canary:
    description: The hosts that go first. By default, for each token, hosts without problems.
    type: list
    elements: str
    default: []
  give_up:
    description: Hosts that keep what they have. They hold up no new token, and keep no old one alive.
    type: list
    elements: str
    default: []
  anyway:
    description: Make a token even if unreachable hosts, or hosts outside the run, may be locked out.
    type: bool
    default: false
  everywhere:
    description: With O(step=choose), allow naming no user.
    type: bool
    default: false
  with_revocation:
    description: With O(step=choose), whether the tokens will be revoked.
    type: bool
    default: false
  force:
    description: With O(step=revoke), revoke a token even if somebody may still need it.
    type: bool
    default: false
  old:
    description: Fingerprints of replaced tokens to revoke, once no host can need them any more.
    type: list
    elements: str
    default: []
  vault_file:
    description:
      - Files with variables, in which the new token replaces the old one.
      - By default, all files in C(group_vars) and C(host_vars) beside the inventory are searched.
      - What P(connectomics.cave.stored_token#lookup) reads is replaced in its store, whatever files are named.
    type: list
    elements: path
    default: []
  vault_id:
    description: As O(connectomics.cave.vault_variable#module:vault_id).
    type: str
  store_tasks:
    description:
      - A file with the user's own tasks that store a new token, beside the inventory, the playbook, or in the current
        folder. The playbook runs the tasks.
    type: path
  other_person:
    description: Accept a token of a different person.
    type: bool
    default: false
  revoke:
    description:
      - When to revoke the old token. V(when_unused), only if nobody has used it since the last host got the new one.
        V(even_if_used), if every host has the new one. V(never), not at all.
    type: str
    choices: [when_unused, even_if_used, never]
    default: when_unused
  grace:
    description:
      - How long to watch for uses of the old token before revoking it, in seconds.
      - The server sees a use up to 300 seconds late, as services remember tokens for that long.
    type: float
    default: 310
  ca_path:
    description: A file on the controller with the certificate authorities to trust.
    type: path
  timeout:
    description: How long the server's answers may take for one token, in seconds, retries included.
    type: int
    default: 30
  retries:
    description: How often to retry a request if the server is overloaded or cannot be reached.
    type: int
    default: 2
attributes:
  action:
    description: Part of it runs on the controller.
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
  - module: connectomics.cave.saved_token
  - module: connectomics.cave.saved_token_info
  - module: connectomics.cave.server_token
  - module: connectomics.cave.vault_variable
"""

EXAMPLES = r"""
- name: Prove the tokens before any host is contacted
  connectomics.cave.token_rotation:
    step: prove
  run_once: true
  register: proven
"""

RETURN = r"""
refused:
  description: Why the request cannot be carried out, and what to do.
  returned: when it is refused, with O(step=prove), O(step=begin) and O(step=choose)
  type: str
state:
  description: What the next step needs to know, sealed.
  returned: unless it is refused, with O(step=prove), O(step=begin), O(step=roll_out), O(step=wait) and O(step=choose)
  type: str
hosts:
  description:
    - For each host what it is inspected for (O(step=prove)), or what it gets (O(step=canary) and O(step=roll_out)).
      Leave other hosts alone.
    - With O(step=rehearse) it is what a host is to predict. These are the hosts that would get a new token first; where
      making it may kill the old one at once, all of them.
    - Entries of C(tokens) have their token sealed; P(connectomics.cave.rotated_token#lookup) opens them.
  returned: with O(step=prove), O(step=rehearse), O(step=canary) and O(step=roll_out)
  type: dict
store_tasks:
  description: The path of the file that O(store_tasks) names; empty without one.
  returned: with O(step=prove)
  type: str
rotations:
  description: What is done about each token.
  returned: with O(step=begin)
  type: list
  elements: dict
  contains: &rotation
    action:
      description: One of C(make), C(continue), C(roll_out), C(refuse) and C(leave).
      type: str
    users:
      description: Who has the token.
      type: list
      elements: str
    hosts:
      description: On which hosts.
      type: list
      elements: str
    server:
      description: The auth server's address.
      type: str
    given:
      description: Fingerprint of the token in the variables.
      type: str
    new:
      description: Fingerprint of the token that the hosts get; null in check mode when it would be made.
      type: str
    old:
      description: Fingerprints of the tokens to revoke in the end.
      type: list
      elements: str
    message:
      description: What was done so far, and why.
      type: str
    sealed:
      description:
        - The new token, for P(connectomics.cave.rotated_token#lookup), when the user's own tasks have to store it.
      type: str
unstored:
  description: Those of RV(rotations) whose new token the user's own tasks have to store.
  returned: with O(step=begin)
  type: list
  elements: dict
  contains: *rotation
proven:
  description: Whether every token is on a canary host.
  returned: with O(step=canary)
  type: bool
ansible_facts:
  description:
    - C(cave_rotation), for the next plays. It has C(refused) when the request is refused, C(rehearsed) (those that
      may have to predict something) after O(step=prove), C(hosts) (those of the run) and C(canaries) after
      O(step=begin), C(hosts), C(again) (those to inspect again) and C(outside) (hosts outside the run to inspect,
      with the options for M(connectomics.cave.saved_token_info)) after O(step=wait) and O(step=choose), and
      C(notes), C(unfinished) and C(found) after O(step=finish) and O(step=revoke), as
      M(connectomics.cave.fleet_report) takes them.
  returned: with all steps but O(step=rehearse), O(step=canary) and O(step=roll_out)
  type: dict
"""
