# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's home: where the readers of that user look for secrets files."""

from __future__ import annotations

import contextlib
import os
import os.path
import pwd
import re
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import Access
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import advice

_STARTUP_FILES = (
    ".pam_environment",
    ".profile",
    ".bash_profile",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
)
_SYSTEM_FILES = ("/etc/environment", "/etc/profile.d/cloudvolume.sh", "/etc/profile.d/caveclient.sh")
_STARTUP_MAX_BYTES = 262144
_ASSIGNMENT = re.compile(
    r"""\s*(?:export\s+)?CLOUD_VOLUME_DIR=
        (?: "([^"`\\]*)" | '([^']*)' | ([^\s"'`\\\#;&|<>()]*) ) (?=$|[\s;&])""",
    re.VERBOSE,
)


class Home(NamedTuple):
    """The user whose files they are, and how the files shall be."""

    name: str
    uid: int
    path: str
    secrets_dir: str = ""
    cloud_volume_dir: str | None = None
    """None: found out from the user's and the host's environment."""
    mode: int = 0o600
    group: int | None = None
    on_malformed: str = "fail"

    @classmethod
    def of(cls, user: pwd.struct_passwd, secrets_dir: str | None, cloud_volume_dir: str | None, **how: Any) -> Home:
        """Return the home of an account, with the places that a module's options name.

        Raises:
            CaveError: one of them is neither absolute nor below the home (``~/``).
        """
        usual = _in_home(secrets_dir or "", user.pw_dir, "secrets_dir")
        elsewhere = None if cloud_volume_dir is None else _in_home(cloud_volume_dir, user.pw_dir, "cloud_volume_dir")
        return cls(user.pw_name, user.pw_uid, user.pw_dir, usual, elsewhere, **how)

    @property
    def directory_access(self) -> Access:
        """Secrets directories are entered by whoever may read the files."""
        return Access(0o750, self.group) if self.mode & 0o040 else Access()

    @contextlib.contextmanager
    def advice(self) -> Iterator[None]:
        """Add to errors about what is denied what helps this user."""
        try:
            yield
        except CaveError as error:
            denied = error.details.pop("denied", "")
            if not denied:
                raise
            directory, set_in = self.cloud_volume_dir, ""
            if directory is None:
                directory, set_in = cloud_volume_dir_from(self.path, os.environ)
            remedy = advice(denied, self.path, self.uid, directory.rstrip("/"), set_in)
            raise CaveError(f"{error.message} {remedy}", **error.details) from error

    def places(self) -> _readers.Places:
        """Return where this user's readers look; to be called in a process that is the user."""
        elsewhere = self.cloud_volume_dir
        if elsewhere is None:
            elsewhere = cloud_volume_dir(self.path, os.environ)
        where = _readers.places(self.path, elsewhere, os.environ.get("CLOUD_FILES_DIR", ""), self.secrets_dir)
        if elsewhere and os.path.realpath(where.cloud_volume[0]) == os.path.realpath(where.caveclient):
            # One directory under two names would be read and written twice.
            where = where._replace(
                cloud_volume=(where.caveclient, *where.cloud_volume[1:]),
                cloud_files=(where.caveclient, *where.cloud_files[1:]),
            )
        return where


def _in_home(path: str, home: str, option: str) -> str:
    if path.startswith("~/"):
        path = home + path[1:]
    if path and (not path.startswith("/") or not path.isprintable()):
        raise CaveError(f"{option}: {path!r} is not an absolute path, nor one that begins with ~/.")
    return path.rstrip("/") or path


def cloud_volume_dir(home: str, environment: Mapping[str, str]) -> str:
    """Return the user's ``CLOUD_VOLUME_DIR`` as far as it can be known without running anything of theirs.

    Literal assignments in the user's startup files win over the task's environment, and that over ``/etc``.
    """
    return cloud_volume_dir_from(home, environment)[0]


def cloud_volume_dir_from(home: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the user's ``CLOUD_VOLUME_DIR``, and the file that sets it; empty where it is not set, or by no file."""
    own = [(_assigned(path, home), path) for path in (os.path.join(home, name) for name in _STARTUP_FILES)]
    system = [(_assigned(path, home), path) for path in _SYSTEM_FILES]
    found = [*own, (environment.get("CLOUD_VOLUME_DIR", ""), ""), *system]
    return next(((value, path) for value, path in found if value.startswith("/")), ("", ""))


def _assigned(path: str, home: str) -> str:
    """Return the last literal value that a shell startup file gives CLOUD_VOLUME_DIR."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hold us up
    except OSError:
        return ""
    try:
        content = os.read(descriptor, _STARTUP_MAX_BYTES)
    except OSError:
        content = b""
    finally:
        os.close(descriptor)
    if b"CLOUD_VOLUME_DIR" not in content:
        return ""
    value = ""
    for line in content.decode("utf-8", "replace").splitlines():
        match = _ASSIGNMENT.match(line)
        if match:
            value = next(filter(None, match.groups()), "")
            value = re.sub(r"^~(?=/|$)|\$HOME\b|\$\{HOME\}", lambda _match: home, value)
    return value if value.isprintable() and "$" not in value else ""
