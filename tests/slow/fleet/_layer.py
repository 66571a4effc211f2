# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a host of the fleet out of a root file system: one layer of files, shared by all hosts that are alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ADMIN = "lab"
ADMIN_ID = 1000
ADMIN_GROUP = "operators"  # PAM on trixie widens the umask of a user whose group has the user's name
FIRST_USER_ID = 2001
GROUP_ID = 3000
SSHD = """\
AuthorizedKeysFile /etc/ssh/authorized_keys
HostKey /etc/ssh/ssh_host_ed25519_key
LogLevel VERBOSE
MaxSessions 100
MaxStartups 100
PasswordAuthentication no
PermitRootLogin no
UseDNS no
"""


@dataclass(frozen=True)
class Accounts:
    """The users of a host: `lab` with sudo and without a password, and the scientists.

    Attributes:
        users: the scientists' names.
        group: their primary group, which is named after none of them.
        umask: of every session, and so of the modes of their homes.
    """

    users: Sequence[str]
    group: str
    umask: str


def write_layer(layer: Path, lower: Path, addresses: Mapping[str, str], accounts: Accounts, keys: Path) -> None:
    """Write the files that hosts have besides a root file system.

    Args:
        layer: the folder to write them to.
        lower: the root file system that they are laid over.
        addresses: of all hosts, by name.
        accounts: the users.
        keys: the folder with the fleet's keys: host_key, id_ed25519.pub.
    """
    for folder in ("etc/ssh/sshd_config.d", "etc/sudoers.d", "home", "run/sshd"):
        (layer / folder).mkdir(parents=True)
    names = [f"{address} {name}\n" for name, address in addresses.items()]
    _write(layer / "etc/hosts", "".join(["127.0.0.1 localhost\n", *names]))
    _write(layer / "etc/ssh/sshd_config.d/fleet.conf", SSHD)
    _write(layer / "etc/ssh/authorized_keys", (keys / "id_ed25519.pub").read_text())
    _write(layer / "etc/ssh/ssh_host_ed25519_key", (keys / "host_key").read_text(), 0o600)
    _write(layer / f"etc/sudoers.d/{ADMIN}", f"{ADMIN} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)

    people = {ADMIN: (ADMIN_ID, ADMIN_ID)}
    people |= {user: (FIRST_USER_ID + place, GROUP_ID) for place, user in enumerate(accounts.users)}
    mode = 0o777 & ~int(accounts.umask, 8)
    passwd, shadow = [], []
    for user, (uid, gid) in people.items():
        passwd.append(f"{user}:x:{uid}:{gid}::/home/{user}:/bin/bash\n")
        shadow.append(f"{user}:*:20000:0:99999:7:::\n")
        home = layer / "home" / user
        home.mkdir()
        home.chmod(mode)
        os.chown(home, uid, gid)
    groups = [f"{ADMIN_GROUP}:x:{ADMIN_ID}:\n", f"{accounts.group}:x:{GROUP_ID}:\n"]
    for file, lines, file_mode in (("passwd", passwd, 0o644), ("shadow", shadow, 0o600), ("group", groups, 0o644)):
        _write(layer / "etc" / file, (lower / "etc" / file).read_text() + "".join(lines), file_mode)
    # Where PAM sets the umask (trixie), it is to set this one.
    login = re.sub(r"(?m)^UMASK\s.*\n", "", (lower / "etc/login.defs").read_text())
    _write(layer / "etc/login.defs", f"{login}UMASK {accounts.umask}\n")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)
