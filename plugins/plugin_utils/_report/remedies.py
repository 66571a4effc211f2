# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person does about a failure that Ansible itself reports of a host."""

from __future__ import annotations

import re

# What Ansible says of a host that it could not work on, and what a person does about it; the first that fits.
_HOST_REMEDIES = (
    (
        r"^this controller, not the host, cannot write",
        "Make room on this controller, or set ANSIBLE_HOME and TMPDIR to folders that can be written. Then run again.",
    ),
    (
        r"vault secrets|vault password|decryption failed|attempting to decrypt",
        "Give the vault's password: add --ask-vault-pass, or set vault_password_file in ansible.cfg. If one was given, "
        "it is not the one that this value was encrypted with.",
    ),
    (
        r"'\w*(vault|token)\w*' is undefined",
        "Define the variable, or correct its name. A token gets into the vault with: "
        "ansible-playbook connectomics.cave.enroll",
    ),
    (
        r"is undefined|undefined variable",
        "Define the variable, or correct its name.",
    ),
    (
        r"'caveclient_tokens'|caveclient_tokens must be|Entry \d+ of caveclient_tokens (is|names)",
        "Write caveclient_tokens as a list of entries with user and token: "
        '[{user: alice, token: "{{ vault_cave_token_alice }}"}]',
    ),
    (
        r"become plugin .* not found|invalid become method|become method .* (not|unknown)",
        "Set become_method to one that this controller has (sudo, su), or install the collection that it is in.",
    ),
    (
        r"sudo: (command )?not found|sudo'?: no such file|su: (command )?not found|/\S*(sudo|su|doas): not found",
        "Install sudo on the host, or log in as root: -u root -e caveclient_become=false",
    ),
    (
        r"incorrect (sudo|su|become|doas) password|sorry, try again|su: authentication failure|su: incorrect password",
        "Type the host's sudo (or su) password when -K asks for it; it may differ from the SSH password.",
    ),
    (
        r"REMOTE HOST IDENTIFICATION",
        "Find out whether the host was reinstalled, or is another one. If it is right, forget its old key, then log in "
        "once to accept the new one: ssh-keygen -R HOST",
    ),
    (
        r"host key verification failed|host key is not known",
        "Log in once by hand, compare the key's fingerprint and accept it, then run again for this host: ssh HOST true",
    ),
    (
        r"permission denied \(|authentication failed|no authentication methods|invalid/incorrect password",
        "Add -k to be asked for the SSH password (-u names the remote user), or let this controller's SSH key into the "
        "host: ssh-copy-id USER@HOST",
    ),
    (
        r"sudo: a password is required|missing sudo password|incorrect sudo password|not in the sudoers",
        "Add -K, and type the remote user's sudo password. A user without rights needs a line in sudoers (visudo).",
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
        r"future feature annotations|platform-python|is python 3\.[67]\.",
        "Install a newer Python beside it (SUSE 15: 'zypper -n install python311'), set ansible_python_interpreter to "
        "/usr/bin/python3.11 where it is set, then run again for this host. On Enterprise Linux 8, from here: "
        "ansible HOST -b -m raw -a 'dnf -y install python3.11'",
    ),
    (
        r"interpreter|minimum of python"
        r"|python[0-9.]*: (command )?not found|/python[0-9.]*: no such file",
        "Install Python 3.8 or later on the host, or set ansible_python_interpreter to the one it has.",
    ),
    (
        r"data could not be sent to remote host.*broken pipe",
        "Log in by hand to see why SSH ended, then run again for this host: ssh HOST true",
    ),
    (
        r"no start of json|module failure",
        "Set ansible_python_interpreter to a Python of the host, 3.8 or later, that starts for the remote user. "
        "With -vvv, Ansible shows all that came in the place of an answer.",
    ),
    (
        r"(keyword|field) 'timeout'|^timeout -?\d+ is invalid|^caveclient_task_timeout must be",
        "Set caveclient_task_timeout to a number of seconds (default: 120).",
    ),
    (
        r"(keyword|field) 'become'|^caveclient_become has no value",
        "Set caveclient_become to true or false (default: true).",
    ),
    (
        r"failed to create temporary directory",
        "Set ansible_remote_tmp to a folder that the remote user can write in, such as /tmp/.ansible. Where it is one "
        "already, its file system is full or read-only.",
    ),
    (
        r"read-only file system",
        "Mount the file system writable again, then run again for this host.",
    ),
)
REMEDY_UNREACHABLE = "Switch it on, and check that this controller reaches it by SSH; then run again for this host."
REMEDY_ERROR = "Fix what the message names, then run again for this host."
REMEDY_NOT_RUN = "Run again for this host."


def host_remedy(message: str) -> str:
    """Return what to do about a failure that Ansible reports of a host, or an empty string."""
    for pattern, remedy in _HOST_REMEDIES:
        if re.search(pattern, message, re.IGNORECASE):
            return remedy
    return ""
