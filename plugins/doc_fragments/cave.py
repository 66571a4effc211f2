# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that mean the same in every module."""

    SERVER = r"""
options:
  server:
    description:
      - The address of the auth server, as caveclient's C(server_address).
      - Spell it as its users do, since caveclient names a secrets file after it.
    type: str
    default: https://global.daf-apis.com
"""

    DATASTACKS = r"""
options:
  datastacks:
    description:
      - The datastacks of O(server) that the host's users work with.
      - Each is a name (V(minnie65_public)), or a mapping with C(name) and C(local_server), the address of the server
        that holds the datastack's segmentation.
      - When tokens are proven, the local server is looked up once a run in the datastack's record, by the controller or
        else by the first host that can. The collection knows those of the public datastacks, in case none can.
    type: list
    elements: raw
    default: []
"""

    PROFILES = r"""
options:
  profiles:
    description:
      - Projects whose programs look for the token under further names, or for further datastacks. Each is V(banc),
        V(fanc) or V(flywire).
      - A profile adds its datastacks to O(datastacks). Users' entries of O(server) that name neither C(key) nor
        C(keys) get the names under which the project's programs look for the token.
    type: list
    elements: str
    default: []
"""

    HTTP = r"""
options:
  ca_path:
    description:
      - A file on the host with the certificate authorities to trust, for a server whose certificate the host's own
        store does not cover.
    type: path
  timeout:
    description: How long the server's answers may take for one user, in seconds, retries included.
    type: int
    default: 30
  retries:
    description:
      - How often to retry a request if the server is overloaded (429, 502, 503, 504) or cannot be reached.
      - The server's C(Retry-After) is honoured within O(timeout).
    type: int
    default: 2
"""

    RATE = r"""
options:
  rate:
    description:
      - At most this many requests a second go out from all hosts of the run together (V(0.5) is one in two seconds).
        With V(0), there is no limit.
      - The controller makes a host wait for its turn, and the task's C(timeout) includes that wait. It must be longer
        than C(forks) times the requests of one host, divided by the rate.
    type: float
    default: 0
"""

    TRANSPORT = r"""
options:
  fast:
    description:
      - Whether the module may go to the host as one program without Ansible's own code, which halves the time. This
        needs pipelining.
      - The default is the variable C(caveclient_fast), or V(true).
    type: bool
  allow_remote_files:
    description:
      - Whether a token may lie in a temporary file on the host, and on the controller, where Ansible has no
        pipelining. Ansible removes it after the task.
      - With V(false), such a task fails and names the setting in the way.
      - The default is the variable C(caveclient_allow_remote_files), or V(false).
    type: bool
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  check_mode:
    description: Predicts what a run would do, and changes nothing.
  diff_mode:
    description: Says what changed (or would change) in detail, by fingerprint.
  platform:
    description: The systems on which it runs.
    platforms: posix
    support: full
"""

    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/connectomics.cave.cave) in C(module_defaults) to set defaults for all of these modules.
    support: full
    membership:
      - connectomics.cave.cave
"""
