# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Homes with secrets files in them, pictures of homes to compare, and real users of this machine."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = "https://global.daf-apis.com"
HOST = "global.daf-apis.com"
LOCAL_HOST = "minnie.microns-daf.com"
SERVER_FILE = f"{HOST}-cave-secret.json"
LOCAL_FILE = f"{LOCAL_HOST}-cave-secret.json"
DEFAULT_FILE = "cave-secret.json"
LEGACY_FILE = "chunkedgraph-secret.json"
SERVER_MAP = "cave_datastack_to_server_map.json"

OLD_TOKEN = "0123456789abcdef0123456789abcdef"
NEW_TOKEN = "fedcba9876543210fedcba9876543210"
OTHER_TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="

_TRIES = 600

Picture = dict[str, tuple[str, int, int, int, bytes]]
"""Path below a folder -> kind, mode, owner, group, content (of a link: where it leads)."""


def secrets_of(home: Path) -> Path:
    """Return the usual directory of secrets files."""
    return home / ".cloudvolume" / "secrets"


def fill(home: Path, files: Mapping[str, object]) -> Path:
    """Put files into a home's secrets directory, made 0700 with files of 0600; return the directory.

    Text and bytes are written as they are, anything else as JSON.
    """
    directory = secrets_of(home)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.parent.chmod(0o700)
    for name, content in files.items():
        path = directory / name
        raw = content if isinstance(content, bytes) else content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
        path.chmod(0o600)
    return directory


def open_way(folder: Path) -> Path:
    """Let every account enter a temporary folder of the tests, and return it: users start what is installed there."""
    for above in (folder, *folder.parents):
        if above == Path(tempfile.gettempdir()) or above.stat().st_uid != os.geteuid():
            break
        above.chmod(0o755)
    return folder


def picture(folder: Path, besides: tuple[str, ...] = (".connectomics-cave.lock",)) -> Picture:
    """Return all that is in a folder, byte for byte, but for the names in ``besides``.

    What whoever runs the tests may not read has no content; what is in a directory that they may not enter is left out.
    """
    found: Picture = {}
    for path in sorted(folder.rglob("*")):
        if path.name in besides or not os.access(path.parent, os.X_OK):
            continue
        status = path.lstat()
        kind = stat.filemode(status.st_mode)[0]
        content = b""
        if kind == "l":
            content = os.fsencode(path.readlink())
        elif kind == "-" and status.st_size < 2**20 and os.access(path, os.R_OK):
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            content,
        )
    return found


def token_in(path: Path, key: str = "token") -> object:
    """Return what a JSON reader finds in a secrets file."""
    return json.loads(path.read_text()).get(key)


def let_in(path: Path, uid: int, kind: str = "access") -> None:
    """Do what `setfacl -m u:UID:rwx` does, with -d for the default."""
    nobody, everything = 0xFFFFFFFF, 7
    entries = [(1, everything, nobody), (2, everything, uid), (4, 0, nobody), (16, everything, nobody), (32, 0, nobody)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", packed)
    except OSError as error:
        import pytest  # not needed by the programs that use this file

        pytest.skip(f"the file system of {path} has no access control lists: {error.strerror}")


@dataclass(frozen=True)
class User:
    """A real user of this machine, whose group isn't named after the user."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def secrets(self) -> Path:
        """The usual directory of secrets files."""
        return secrets_of(self.home)

    def owns(self, folder: Path) -> None:
        """Give all that is in the home to the user."""
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def fill(self, files: Mapping[str, object]) -> Path:
        """Put files into the user's secrets directory."""
        directory = fill(self.home, files)
        self.owns(self.home)
        return directory

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, in the user's home."""
        return subprocess.run(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def _change_accounts(*command: str) -> None:
    """Run useradd and the like, again while another test has the files locked, or a process of the user is ending."""
    for _try in range(_TRIES):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if "lock" not in done.stderr and "currently used" not in done.stderr:
            break
        time.sleep(0.05)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr}"


def copy_of_etc(folder: Path) -> Path:
    """Copy /etc into a folder, to be mounted over /etc by a process of its own; return the copy.

    A mount over a single file would not last: it ends when another test, whose useradd knows nothing of it, puts a new
    file in the place of the machine's own.
    """
    unfinished = shutil.ignore_patterns("*.lock", "*+", "passwd.*", "group.*", "shadow.*", "gshadow.*", "sub?id.*")

    def ignored(path: str, names: list[str]) -> set[str]:
        return unfinished(path, names) if path == "/etc" else set()

    return shutil.copytree("/etc", folder / "etc", symlinks=True, ignore=ignored)


@contextmanager
def real_group() -> Iterator[str]:
    """Make a group on this machine, for as long as the block lasts."""
    name = f"lab_{uuid.uuid4().hex[:8]}"
    _change_accounts("groupadd", name)
    try:
        yield name
    finally:
        _change_accounts("groupdel", name)


@contextmanager
def real_user(group: str, folder: Path, name: str = "alice") -> Iterator[User]:
    """Make a user on this machine, with a home below ``folder``, for as long as the block lasts."""
    login = f"{name}_{uuid.uuid4().hex[:8]}"
    home = folder / login
    options = ["--no-log-init", "--no-user-group", "--gid", group, "--no-create-home", "--home-dir", str(home)]
    _change_accounts("useradd", *options, "--shell", "/bin/bash", login)
    try:
        entry = pwd.getpwnam(login)
        home.mkdir(mode=0o755)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield User(login, entry.pw_uid, grp.getgrnam(group).gr_gid, home)
    finally:
        _change_accounts("userdel", login)
        shutil.rmtree(home)
