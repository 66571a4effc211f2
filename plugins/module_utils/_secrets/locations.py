# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's home: where the readers of that user look for secrets files."""

from __future__ import annotations

import contextlib
import os
import os.path
import pwd
from typing import Any, Iterator, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import Access
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.environment import (
    CLOUD_FILES_DIR,
    CloudVolumeDir,
    Environment,
    environment_of,
)


class Home(NamedTuple):
    """The user whose files they are, and how the files should be."""

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
            from ansible_collections.connectomics.cave.plugins.module_utils._secrets.advice import advice

            found = self.environment().cloud_volume_dir
            remedy = advice(denied, self.path, self.uid, found.value.rstrip("/") or found.value[:1], found.path)
            raise CaveError(f"{error.message} {remedy}", **error.details) from error

    def environment(self) -> Environment:
        """Return what the user's programs are told by variables; to be called in a process that is the user."""
        found = environment_of(self.path, self.name, os.environ)
        if self.cloud_volume_dir is None:
            return found
        # Then no startup file counts for the directories.
        return found._replace(
            cloud_volume_dir=CloudVolumeDir(self.cloud_volume_dir),
            cloud_files_dir=os.environ.get(CLOUD_FILES_DIR, ""),
        )

    def places(self, environment: Environment) -> _readers.Places:
        """Return where this user's readers look; to be called in a process that is the user."""
        elsewhere = environment.cloud_volume_dir.value
        where = _readers.places(self.path, elsewhere, environment.cloud_files_dir, self.secrets_dir)
        if elsewhere and _is_same(where.cloud_volume[0], where.caveclient):
            # One directory under two names would be read and written twice.
            where = where._replace(
                cloud_volume=(where.caveclient, *where.cloud_volume[1:]),
                cloud_files=(where.caveclient, *where.cloud_files[1:]),
            )
        return where


def _is_same(one: str, other: str) -> bool:
    """Return whether two paths lead to one place; what cannot be followed, such as /proc/1/root, leads to none."""
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except OSError:
        return False


def _in_home(path: str, home: str, option: str) -> str:
    if path.startswith("~/"):
        path = home + path[1:]
    if path and (not path.startswith("/") or not path.isprintable()):
        raise CaveError(f"{option}: {path!r} is not an absolute path, nor one that begins with ~/.")
    return path.rstrip("/") or path
