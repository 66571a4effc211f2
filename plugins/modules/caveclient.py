#!/usr/bin/python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install caveclient on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: caveclient
short_description: Install caveclient on a host
version_added: 0.1.0
author:
  - connectomics.cave contributors (@connectomics)
description:
  - Creates an environment with caveclient that everybody on the host can use, or installs caveclient into an existing
    one.
  - A managed environment (O(path)) is built beside the live one. C(current) switches to the new one in a single step,
    once caveclient has been imported from it. So an upgrade that fails or is interrupted leaves the old one working,
    and running programs keep the build that they started with.
  - The host needs only Python. If it has neither uv nor pip, the controller's uv is copied there for the installation,
    or else a pip from the controller; nothing of it stays on the host.
  - With nothing to do, it reads a few small files and starts no process.
  - Both uv and pip follow the host's pip configuration, and trust the certificates that the host trusts.
extends_documentation_fragment:
  - connectomics.cave.cave.transport
  - connectomics.cave.cave.attributes
  - connectomics.cave.cave.action_group
attributes:
  check_mode:
    support: full
    details:
      - The installer is asked which versions it would install, so an impossible request fails as the run would.
      - A pip older than 22.2 cannot say. Then only the requested version is predicted.
  diff_mode:
    support: full
    description: Shows the versions of caveclient, of Python and of all packages, before and after.
  platform:
    platforms: posix
  async:
    description: Runs in the background with C(async).
    support: none
    details: Tools and wheels may have to be copied in the middle of the task. Use O(timeout) to limit it.
options:
  path:
    description:
      - Where a managed environment lives, an absolute path. Its users run C(PATH/current/bin/python).
      - New directories are readable by everybody, whatever the umask.
    type: path
    default: /opt/caveclient
  interpreter:
    description:
      - The Python of an existing environment, such as conda's, to install into instead. Absolute path.
      - Only caveclient, what it needs and O(packages) are changed, and only where the installed versions do not fit.
      - A Python that belongs to the operating system is refused.
    type: path
  state:
    description:
      - V(present) installs caveclient as the other options describe.
      - V(absent) removes the managed environment with all its builds, or only caveclient from O(interpreter); and the
        Jupyter kernel that starts it.
      - V(rolled_back) returns to the build before the last upgrade, if caveclient is still in it. A second run
        changes nothing.
    type: str
    choices: [present, absent, rolled_back]
    default: present
  version:
    description:
      - An exact version (V(8.2.1)), or a specifier (V(>=8,<9)). Quote it.
      - If empty, any installed version will do. If there is none, the newest is installed.
    type: str
    default: ""
  extras:
    description: Extras of caveclient. V(cv) adds cloud-volume.
    type: list
    elements: str
    default: []
  packages:
    description:
      - Further requirements, such as V(matplotlib>=3.8).
      - Entries removed from O(extras), O(packages) or O(constraints) stay until the next build.
    type: list
    elements: str
    default: []
  profiles:
    description:
      - Projects whose packages are installed with O(packages), V(banc), V(fanc) or V(flywire). Their datastacks are
        added to O(doctor_defaults).
    type: list
    elements: str
    default: []
  constraints:
    description: Version limits for packages that are installed as dependencies, such as V(numpy<2).
    type: list
    elements: str
    default: []
  installer:
    description: V(auto) uses uv if the host has it, else pip if it has that, else what the controller can supply.
    type: str
    choices: [auto, uv, pip]
    default: auto
  index_url:
    description:
      - The only package index to install from. By default, the one configured on the host for pip (or uv).
      - It may contain a user name and password; no output shows it.
    type: str
  find_links:
    description:
      - Folders with wheels, or URLs of pages that link to wheels.
      - A folder is on the controller, absolute or below C(files) of a role or playbook, and its wheels that fit the
        host are copied there for the installation. With O(remote_src=true) it is on the host.
    type: list
    elements: str
    default: []
  remote_src:
    description: Whether folders in O(find_links) are on the host.
    type: bool
    default: false
  offline:
    description: Use no network. Everything needed must be in O(find_links), or in uv's cache on the host.
    type: bool
    default: false
  build_once:
    description:
      - Whether hosts of one kind take the finished build of the first of them on which it was proven. Of one kind are
        hosts with the same system, processor, C library and Python (version and path), the same O(path) and request.
      - The build is packed there, brought by way of the controller, compared by its digest, unpacked, and proven on
        each host. A host that cannot take it installs by itself, and the result warns about that.
      - The others run what the first host made. Whoever controls that one, controls all. Ignored with O(interpreter).
    type: bool
    default: false
  python:
    description:
      - The Python to make a managed environment with, an absolute path, or a version such as V(3.12) (quote it).
      - For a version, the first on the host's PATH that runs and that nobody but root can change.
      - By default the one that runs this module; if caveclient no longer supports it, the newest on the host.
    type: str
    default: ""
  keep:
    description: How many builds to keep besides the live one, for rollback.
    type: int
    default: 1
  jupyter_kernel:
    description:
      - Offer the environment in everybody's Jupyter under this name. Adds ipykernel to O(packages).
      - Empty removes it. If not set, an existing kernel is left alone.
    type: str
  jupyter_dir:
    description: The Jupyter data directory for the kernel C(cave). Set it if not running as root.
    type: path
    default: /usr/local/share/jupyter
  ca_path:
    description:
      - A bundle of certificate authorities that the Jupyter kernel trusts, an absolute path. It replaces all others, so
        it must include the public ones if notebooks use other servers than CAVE.
      - By default, the kernel trusts what the system trusts.
    type: path
  doctor:
    description:
      - Where to put the program C(cave-doctor), such as V(/usr/local/bin/cave-doctor). It tells people on this host why
        CAVE does not work for them, and what they can do.
      - With O(state=absent) it is removed. If not set, an existing one is left alone.
    type: path
  doctor_defaults:
    description: What C(cave-doctor) checks by default.
    type: dict
    suboptions:
      server:
        description: The address of the auth server.
        type: str
      datastacks:
        description: Names of datastacks, or mappings with C(name) and C(local_server).
        type: list
        elements: raw
  compile:
    description:
      - Compile all Python files of the environment, not only those that importing caveclient needs.
      - Installing takes some ten seconds longer, but users, who cannot write there, load O(packages) faster.
    type: bool
    default: false
  timeout:
    description: How long the whole installation may take, in seconds, including waits for another run on the host.
    type: int
    default: 1800
  _controller:
    description: Set by the action plugin. Values from a task are ignored.
    type: dict
seealso:
  - name: caveclient
    description: What is installed.
    link: https://caveconnectome.github.io/CAVEclient/
"""

EXAMPLES = r"""
- name: Install caveclient for everybody on the host, in /opt/caveclient
  become: true
  connectomics.cave.caveclient:
    jupyter_kernel: CAVE

- name: Install a given version, with cloud-volume and the lab's other packages
  become: true
  connectomics.cave.caveclient:
    version: "8.2.1"
    extras: [cv]
    packages: [matplotlib, "scikit-learn>=1.5"]
    constraints: [numpy<2.3]
    python: "3.12"

- name: Go back to the previous version
  become: true
  connectomics.cave.caveclient:
    state: rolled_back

- name: Install on hosts that reach no package index, from a folder of wheels on the controller
  become: true
  connectomics.cave.caveclient:
    version: "8.2.1"
    find_links: [/srv/wheels]
    offline: true

- name: Install into an existing conda environment, as its owner
  become: true
  become_user: alice
  connectomics.cave.caveclient:
    interpreter: /home/alice/miniforge3/envs/em/bin/python

- name: Keep to the lab's constraints file
  become: true
  connectomics.cave.caveclient:
    constraints: "{{ lookup('ansible.builtin.file', 'constraints.txt').splitlines() }}"

- name: Remove everything
  become: true
  connectomics.cave.caveclient:
    state: absent
"""

RETURN = r"""
version:
  description: The version of caveclient afterwards; empty without one.
  returned: success
  type: str
  sample: 8.2.1
previous_version:
  description: The version of caveclient before; empty without one.
  returned: success
  type: str
  sample: 8.2.0
python:
  description: The Python to run caveclient with; empty when there is none.
  returned: success
  type: str
  sample: /opt/caveclient/current/bin/python
environment:
  description: The environment's directory; empty when there is none.
  returned: success
  type: str
  sample: /opt/caveclient/current
python_version:
  description: The version of that Python.
  returned: success
  type: str
  sample: 3.11.2
build:
  description: The name of the live build. In check mode, empty for a build not made yet.
  returned: success
  type: str
  sample: 20260314T101502Z-5be0cd19
packages:
  description: All packages in the environment, with their versions.
  returned: success
  type: dict
  sample: {"caveclient": 8.2.1, "numpy": 2.3.5}
doctor:
  description: Where cave-doctor is; empty when it is not there.
  returned: success
  type: str
  sample: /usr/local/bin/cave-doctor
kernel:
  description: The file that describes the Jupyter kernel; empty without one.
  returned: success
  type: str
  sample: /usr/local/share/jupyter/kernels/cave/kernel.json
reasons:
  description: Why something was changed.
  returned: success
  type: list
  elements: str
  sample: ["caveclient 8.2.0 is installed, 8.2.1 is asked for"]
taken_from:
  description: The host whose build this host has taken.
  returned: when it has taken one
  type: str
  sample: ws001
installer:
  description: What installed it, there or on the host that it was taken from; empty when nothing was installed.
  returned: success
  type: str
  sample: uv 0.9.5
installer_output:
  description: What the installer said, without user names and passwords in URLs.
  returned: when an installer ran
  type: str
needs:
  description: What the host lacks for the installation.
  returned: when the task fails because of that
  type: dict
  contains:
    tools:
      description: Programs, one of which is needed.
      type: list
      elements: str
    wheels:
      description: Whether the controller's wheels are needed.
      type: bool
    host:
      description: What kind of machine it is.
      type: dict
"""

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._backends.caveclient import run
from ansible_collections.connectomics.cave.plugins.module_utils._module import TRANSPORT, Module, run_module

STRINGS = {"type": "list", "elements": "str", "default": []}
ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "path": {"type": "path", "default": "/opt/caveclient"},
        "interpreter": {"type": "path"},
        "state": {"type": "str", "choices": ["present", "absent", "rolled_back"], "default": "present"},
        "version": {"type": "str", "default": ""},
        "extras": STRINGS,
        "packages": STRINGS,
        "profiles": STRINGS,
        "constraints": STRINGS,
        "installer": {"type": "str", "choices": ["auto", "uv", "pip"], "default": "auto"},
        "index_url": {"type": "str", "no_log": True},
        "find_links": STRINGS,
        "remote_src": {"type": "bool", "default": False},
        "offline": {"type": "bool", "default": False},
        "build_once": {"type": "bool", "default": False},
        "python": {"type": "str", "default": ""},
        "keep": {"type": "int", "default": 1},
        "jupyter_kernel": {"type": "str"},
        "jupyter_dir": {"type": "path", "default": "/usr/local/share/jupyter"},
        "ca_path": {"type": "path"},
        "doctor": {"type": "path"},
        "doctor_defaults": {
            "type": "dict",
            "options": {"server": {"type": "str"}, "datastacks": {"type": "list", "elements": "raw"}},
        },
        "compile": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": 1800},
        "_controller": {"type": "dict"},
        **TRANSPORT,
    },
    "mutually_exclusive": [("path", "interpreter")],
}
"""What is checked of the arguments, as ``AnsibleModule`` takes it."""


def _run(module: Module) -> dict[str, Any]:
    # To ask for the folder makes it, on a host that has none with a warning: a plan needs none.
    is_plan = bool((module.params["_controller"] or {}).get("plan"))
    return run(module.params, module.check_mode, "" if is_plan else module.tmpdir or "")


def main() -> None:
    """Run the module."""
    run_module(ARGUMENTS, _run)


if __name__ == "__main__":
    main()
