# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The builds of a managed environment: ``PATH/builds/NAME``, and ``PATH/current`` that points at the live one.

A virtual environment cannot be moved, so each is built where it will stay. It counts once its record is written, and
is live once ``current`` is swapped: whatever interrupts a run, ``current`` leads to a build that is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_WORK = ".work"
_LINK = re.compile(r"\.current-[0-9a-f]{8}")
_PIN = "_caveclient_build.pth"


class Build(NamedTuple):
    """A finished build."""

    path: Path
    record: Mapping[str, Any]
    activated: int
    """When it was last made live by a request for it, in nanoseconds."""

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return _installed.site_packages_of(self.path, self.record["python"])

    @property
    def is_intact(self) -> bool:
        """Whether its Python still is the one that it was made with: an upgrade of the system may have removed it."""
        base = self.record["base"]
        return os.path.realpath(self.python) == base and os.access(base, os.X_OK)


class Builds:
    """All builds below one path."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.folder = self.path / "builds"
        self.current = self.path / "current"
        self._lock_file = self.path / ".lock"

    def check_place(self) -> None:
        """Make sure that the path is free for builds, or holds them already.

        Raises:
            CaveError: something else is there.
        """
        if not self.path.is_absolute():
            raise CaveError(f"path: {self.path} is not an absolute path.")
        if self.path.exists() and not self.path.is_dir():
            raise CaveError(f"path: {self.path} is a file; expected a directory, or nothing there.")
        if (self.path / "pyvenv.cfg").exists():
            raise CaveError(
                f"path: {self.path} is a virtual environment itself. To install into it, set interpreter: "
                f"{self.path}/bin/python instead of path; for a managed environment, choose another path."
            )
        if self.current.exists() and not self.current.is_symlink():
            raise CaveError(f"{self.current} is not a link, so it was not made by this module. Move it away first.")

    # --- Reading ---

    def complete(self) -> list[Build]:
        """Return the finished builds, the one that was asked for last first."""
        found = []
        for path in self._entries(self.folder):
            record = _installed.read_record(path) if _NAME.fullmatch(path.name) else {}
            if record:
                found.append(Build(path, record, (path / _installed.RECORD).stat().st_mtime_ns))
        return sorted(found, key=lambda build: (-build.activated, build.path.name))

    def live(self) -> Build | None:
        """Return the build that is live; None when there is none, or it is not a whole one of ours."""
        try:
            target = Path(os.readlink(self.current))
        except OSError:
            return None
        return next((build for build in self.complete() if self.path / target == build.path), None)

    def litter(self) -> list[Path]:
        """Return what interrupted runs left: directories without a record, links that were never swapped in."""
        live = self.live()
        pointed_at = live.path if live else Path(os.path.realpath(self.current))
        return [
            *(path for path in self._entries(self.folder) if _is_unfinished(path) and path != pointed_at),
            *(path for path in self._entries(self.path) if _LINK.fullmatch(path.name)),
        ]

    def is_ours(self) -> bool:
        """Tell whether anything at all of ours is there."""
        return (
            self.current.is_symlink()
            or self._lock_file.exists()
            or any(_NAME.match(path.name) for path in self._entries(self.folder))
        )

    @staticmethod
    def _entries(folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError:
            return []

    # --- The lock ---

    @contextlib.contextmanager
    def locked(self, patience: float) -> Iterator[int]:
        """Keep every other run away from these builds meanwhile; gives the descriptor that holds the lock.

        An installer that outlives a killed run has the descriptor too: it is never cleaned away under its feet.

        Raises:
            CaveError: another run does not end within ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            descriptor = self._open_lock()
            if descriptor is not None:
                if _try_lock(descriptor) and self._is_lock(descriptor):
                    break
                os.close(descriptor)
            if time.monotonic() >= deadline:
                raise CaveError(
                    f"Another run has been working on {self.path} for more than {patience:.0f} seconds. Wait for it, "
                    "or look for a hanging uv or pip on this host."
                )
            time.sleep(0.1)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int | None:
        # A run that removes all may take the directory away in between.
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            return None

    def _is_lock(self, descriptor: int) -> bool:
        """Tell whether a descriptor is of the file that others would lock: the run before may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock_file.stat())
        except OSError:
            return False

    def is_busy(self) -> bool:
        """Tell whether another run is working here, without waiting or writing anything."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    # --- Writing, under the lock ---

    def new_place(self) -> tuple[Path, Path]:
        """Return where the next build goes, and a work folder beside it; both are litter until it is finished."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(4).hex()}"
        place, work = self.folder / name, self.folder / (name + _WORK)
        self.folder.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        return place, work

    def finish(self, place: Path, record: Mapping[str, Any]) -> Build:
        """Declare a build finished: everybody may read it, it is on the disk, and its record comes last."""
        python = str(record["python"])
        _pin(self.current, place, _installed.site_packages_of(place, python))
        open_to_all(place)
        _sync(place)
        _installed.write_record(place, record)
        _sync_directory(place)
        _sync_directory(self.folder)
        return Build(place, record, (place / _installed.RECORD).stat().st_mtime_ns)

    def switch(self, build: Build, asked_for: bool) -> None:
        """Make a build the live one, in one step.

        Args:
            build: the build.
            asked_for: whether this is a request for it, rather than a way back to it; then it becomes the first of all.
        """
        for path in self._entries(self.path):
            if _LINK.fullmatch(path.name):  # of a run that was killed: nobody else is writing
                path.unlink()
        temporary = self.path / (".current-" + os.urandom(4).hex())
        temporary.symlink_to(build.path.relative_to(self.path))
        temporary.replace(self.current)
        _sync_directory(self.path)
        if asked_for:
            newest = max(other.activated for other in [*self.complete(), build])
            moment = max(time.time_ns(), newest + 1)
            os.utime(build.path / _installed.RECORD, ns=(moment, moment))

    def remove(self, path: Path) -> None:
        """Remove a build, or what is left of one. Without its record it counts as unfinished at once."""
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        (path / _installed.RECORD).unlink(missing_ok=True)
        shutil.rmtree(path)

    def remove_all(self) -> None:
        """Remove every build and the path, but nothing that is not ours."""
        self.current.unlink(missing_ok=True)
        for path in [*self.litter(), *(build.path for build in self.complete())]:
            self.remove(path)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self._lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _is_unfinished(path: Path) -> bool:
    name = path.name[: -len(_WORK)] if path.name.endswith(_WORK) else path.name
    return bool(_NAME.fullmatch(name)) and (path.name != name or not _installed.read_record(path))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pin(current: Path, place: Path, site_packages: Path) -> None:
    """Let every program started through ``current`` stay with the build that it started with.

    Otherwise a notebook that runs during an upgrade would import its next module from the other build.
    """
    # Python reads this file in whatever encoding its user has.
    old, new, below = (ascii(str(text)) for text in (current, place, f"{current}/"))
    lines = [
        f"sys.path[:] = [p.replace({old}, {new}, 1) if p.startswith({below}) else p for p in sys.path]",
        f"sys.executable = sys.executable.replace({below}, {new} + '/', 1)",
        f"sys.prefix = sys.prefix.replace({old}, {new}, 1)",
        f"sys.exec_prefix = sys.exec_prefix.replace({old}, {new}, 1)",
    ]
    (site_packages / _PIN).write_text("; ".join(["import sys", *lines]) + "\n", encoding="utf-8")


def open_to_all(folder: Path) -> None:
    """Let everybody read what is in a folder, and nobody but the owner write.

    An installer links files from its cache, and those have the mode that the umask of an earlier day gave them.
    """
    for directory, _folders, files in os.walk(folder):
        _open_entry(directory, 0o755)
        for name in files:
            _open_entry(os.path.join(directory, name), 0o444)


def _open_entry(path: str, wanted: int) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return
    opened = (stat.S_IMODE(mode) | wanted | (0o111 if mode & 0o100 else 0)) & ~0o022
    if opened != stat.S_IMODE(mode):
        os.chmod(path, opened)


def _sync(place: Path) -> None:
    """Bring a build's file system to the disk, so that no power cut leaves empty files behind a record."""
    try:
        import ctypes

        sync = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        os.sync()
        return
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
