#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The documentation of an action plugin, which runs the module saved_token on the host.

"""Save the tokens of a rotation on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotated_token
short_description: Save the tokens of a rotation on a host
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Runs M(connectomics.cave.saved_token) on a host with the tokens that a rotation has for its users, in the place of
    those in the host's variables. All other options are handed on to it.
  - It is a part of the playbook C(connectomics.cave.rotate). The variables of a run keep the old tokens to its end,
    since Ansible reads a vault file once.
options:
  tokens:
    description: The host's C(caveclient_tokens), as O(connectomics.cave.saved_token#module:tokens).
    type: list
    elements: dict
    required: true
  subjects:
    description:
      - What M(connectomics.cave.token_rotation) returned for O(connectomics.cave.token_rotation#module:step=begin).
    type: list
    elements: dict
    required: true
  looked:
    description:
      - What M(connectomics.cave.saved_token_info) found before. A host that was unreachable is not asked again, and the
        server is not asked again about a token that it was seen to accept from this host.
    type: dict
    default: {}
  saved:
    description: What this module has returned for the host before, in the same run. It counts as proof like O(looked).
    type: dict
    default: {}
  stopped:
    description: Why nothing is to be done on this host. It fails then, with this message.
    type: str
    default: ""
  refused:
    description:
      - What becomes of a user whose token was refused. V(failed) makes the task fail for this user (and do its work
        for the others), V(left_out) says nothing of it.
    type: str
    choices: [failed, left_out]
    default: failed
attributes:
  action:
    description: It has a part that runs on the controller.
    support: full
  check_mode:
    description: Predicts what a run would do, and changes nothing.
    support: full
  diff_mode:
    description: Says what changed (or would change) in detail, by fingerprint.
    support: full
  platform:
    description: The systems on which it runs.
    support: full
    platforms: posix
seealso:
  - module: connectomics.cave.saved_token
  - module: connectomics.cave.token_rotation
"""

EXAMPLES = r"""
- name: Save the new tokens, and prove them
  connectomics.cave.rotated_token:
    tokens: "{{ caveclient_tokens }}"
    subjects: "{{ begun.subjects }}"
    datastacks: [minnie65_public]
"""

RETURN = r"""
users:
  description:
    - As RV(connectomics.cave.saved_token#module:users). Users whose token was refused are in it, too, as failed.
  returned: always
  type: list
  elements: dict
"""
