# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person does about a failure that Ansible itself reports of a host."""

from __future__ import annotations

import re

# What Ansible says of a host that it could not work on, and what a person does about it; the first that fits.
_HOST_REMEDIES = (
    (
        r"host key verification failed|host key is not known|REMOTE HOST IDENTIFICATION",
        "Check the host's key and accept it (ssh-keyscan, or log in once by hand), then run again for this host.",
    ),
    (
        r"permission denied \(|authentication failed|incorrect password|no authentication methods",
        "Let this controller's SSH key (or password) into the host, then run again for this host.",
    ),
    (
        r"sudo: a password is required|missing sudo password|incorrect sudo password|not in the sudoers",
        "Let the remote user become root (sudo), or give the password with --ask-become-pass.",
    ),
    (
        r"could not resolve hostname|name or service not known",
        "Correct the host's name or ansible_host in the inventory, then run again for this host.",
    ),
    (
        r"no space left|disk quota exceeded",
        "Make room on the host's file system, then run again for this host.",
    ),
    (
        r"interpreter|python[0-9.]*: (command )?not found|/python[0-9.]*: no such file",
        "Install Python 3.8 or later on the host, or set ansible_python_interpreter to the one it has.",
    ),
    (
        r"read-only file system",
        "Mount the file system writable again, then run again for this host.",
    ),
)
REMEDY_UNREACHABLE = "Switch it on, and check that this controller reaches it by SSH; then run again for this host."
REMEDY_ERROR = "Read the message of the failed task, mend what it names, and run again for this host."
REMEDY_NOT_RUN = "Run again for this host."


def host_remedy(message: str) -> str:
    """Return what to do about a failure that Ansible reports of a host, or an empty string."""
    for pattern, remedy in _HOST_REMEDIES:
        if re.search(pattern, message, re.IGNORECASE):
            return remedy
    return ""
