# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One build for all hosts of a kind: who makes it, how the others wait for it, and where it lies meanwhile.

Ansible works on hosts in processes of their own. They meet in a folder that is the run's own and that Ansible removes
with it: whoever holds the lock of a kind builds for it, and a process that ends, in whatever way, gives the lock back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible import constants

from ansible_collections.connectomics.cave.plugins.module_utils._environment.doctor import digest_of_file
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._private_files import write_private

_FOLDER = "connectomics.cave.builds"
_DAY = 86400
_ASKED = "path version extras packages constraints installer index_url find_links remote_src offline python compile"
"""The options that a build depends on, besides whether there is a kernel."""
_ATTEMPTS = 2
"""How many hosts of a kind may fail, one after the other, before the rest installs at the same time."""
_PAUSE = 0.2
"""Seconds between two looks at what the host does that builds."""


class Built(NamedTuple):
    """The build of a kind, as the controller has it."""

    host: str
    """Where it was built."""
    name: str
    digest: str
    file: str


class SharedBuild:
    """The build that hosts of a kind have in common in this run, as one that needs an installation sees it."""

    def __init__(self, host: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        asked = {name: arguments.get(name) for name in _ASKED.split()}
        kind = json.dumps([host, asked, bool(arguments.get("jupyter_kernel"))], sort_keys=True, default=str)
        folder = _folder()
        self._stem = folder / hashlib.sha256(kind.encode()).hexdigest()[:16]
        self._failures, self._hosts = Marks(self._path("failed")), Marks(self._path("hosts"))
        self._hosts.add()

    def _path(self, what: str) -> Path:
        return self._stem.with_suffix(f".{what}")

    def built(self) -> Built | None:
        """Return the build; None while there is none."""
        with contextlib.suppress(OSError):
            host, name, wanted = json.loads(self._path("json").read_bytes())
            return Built(host, name, wanted, str(self._path("archive")))
        return None

    @contextlib.contextmanager
    def turn(self, patience: float) -> Iterator[bool]:
        """Wait while another host builds, and give whether this host is to build for the others.

        When it is not, the build is there, or this host is to install by itself. ``patience`` is in seconds.
        """
        deadline = time.monotonic() + patience
        descriptor = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            builds = False
            while not self.built() and self._failures.count() < _ATTEMPTS and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Whoever had the lock before may have given it back with the build.
                    builds = not self.built()
                    break
                time.sleep(_PAUSE)
            yield builds
        finally:
            os.close(descriptor)

    def failed(self) -> None:
        """Note that a host could not build for the others."""
        self._failures.add()

    def is_wanted(self, to_come: int) -> bool:
        """Return whether another host may take the build; ``to_come`` hosts of all kinds have not been looked at."""
        return to_come > 0 or self._hosts.count() > self._failures.count() + 1

    def keep(self, fetch: Callable[[str], object], host: str, name: str, wanted: str) -> None:
        """Fetch an archive, and let the other hosts have it when it is the one that the host has packed.

        Raises:
            CaveError: its digest is another.
        """
        path = self._path("new")
        try:
            fetch(str(path))
            if digest_of_file(str(path)) != wanted:
                raise CaveError("it was damaged on the way (its digest is another)")
            _forget_killed_runs()
            path.chmod(0o600)
            path.replace(self._path("archive"))
        finally:
            path.unlink(missing_ok=True)
        write_private(self._path("json"), json.dumps([host, name, wanted]).encode())


class Marks:
    """A count that the processes of a run share: each mark is a byte in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self) -> None:
        """Add one."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)

    def count(self) -> int:
        """Return how many there are."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0


def hosts_seen(task: Any) -> Marks:
    """Return the count of the hosts that have begun with a task."""
    return Marks(_folder() / f"{task._uuid}.seen")


def _forget_killed_runs() -> None:
    """Remove archives that Ansible could not remove: a run that was killed leaves its folder."""
    for path in Path(str(constants.DEFAULT_LOCAL_TMP)).parent.glob(f"*/{_FOLDER}/*.archive"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _DAY:
                path.unlink()


def _folder() -> Path:
    folder = Path(str(constants.DEFAULT_LOCAL_TMP), _FOLDER)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
