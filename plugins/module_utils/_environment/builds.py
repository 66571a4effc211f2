# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The builds of a managed environment: ``PATH/builds/NAME``, and ``PATH/current`` that points at the live one.

A virtual environment cannot be moved, so each is built where it will stay, and one that another host takes has the same
path there. It counts once its record is written, and
is live once ``current`` is swapped: whatever interrupts a run, ``current`` leads to a build that is whole. The time of
the record is when the build was last live.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._atomic import sync_directory
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment import lock as _lock
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Parcel
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_WORK = ".work"
_LINK = re.compile(r"\.current-[0-9a-f]{8}")
_WAY_BACK = "caveclient-rolled-back"
_PIN = "_caveclient_build.pth"


class Build(NamedTuple):
    """A finished build."""

    path: Path
    record: Mapping[str, Any]

    @property
    def last_live(self) -> int:
        """When it last became or ceased to be live, in nanoseconds since 1970; 0: never yet."""
        return (self.path / _installed.RECORD).stat().st_mtime_ns

    @property
    def is_way_back(self) -> bool:
        """Whether it was rolled back to when it last became live."""
        return (self.path / _WAY_BACK).exists()

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return _installed.site_packages_of(self.path, self.record["python"])

    def trouble(self) -> str:
        """Return why it is not to be used any more, in words; empty: it is as it was made."""
        base = self.record["base"]
        changeable = _trust.python_changeable(str(self.python), (0,)) if os.geteuid() == 0 else ""
        if changeable:
            return f"{self.path} is not root's alone: {changeable}"
        # An upgrade of the system may have removed it.
        if os.path.realpath(self.python) != base or not os.access(base, os.X_OK):
            return f"the Python of {self.path} is gone ({base})"
        return ""

    def has_caveclient(self) -> bool:
        """Return whether the caveclient that it was made with is in it still."""
        return "caveclient" in _installed.installed_packages(self.site_packages)

    def pack(self, file: str) -> str:
        """Pack it for other hosts into a new file, and return the file's digest; see ``archive.pack``."""
        # Only here: a run that changes nothing is not to wait for the import.
        from ansible_collections.connectomics.cave.plugins.module_utils._environment import archive as _archive

        return _archive.pack(self.path, self.record, (_WAY_BACK,), file)


class Builds:
    """All builds below one path."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.folder = self.path / "builds"
        self.current = self.path / "current"
        self.lock_file = self.path / ".lock"

    def check_place(self) -> None:
        """Make sure that the path is free for builds, or holds them already.

        Raises:
            CaveError: something else is there, or somebody else than root could change what root makes there.
        """
        for path in (self.path, self.folder):
            _trust.check("path", str(path), "Choose a path below folders that root alone can write, such as /opt.")
        _proof.check_directory("path", self.folder)
        if (self.path / "pyvenv.cfg").exists():
            raise CaveError(
                f"path: {self.path} is a virtual environment itself. To install into it, set interpreter: "
                f"{self.path}/bin/python instead of path; for a managed environment, choose another path."
            )
        if self.current.exists() and not self.current.is_symlink():
            raise CaveError(f"{self.current} is not a link, so it was not made by this module. Move it away first.")

    # --- Reading ---

    def complete(self) -> list[Build]:
        """Return the finished builds: the live one, then the others, the one that was live last first."""
        found = []
        for path in self._entries(self.folder):
            record = _installed.read_record(path) if _NAME.fullmatch(path.name) else {}
            if record:
                found.append(Build(path, record))
        live = self._live_target()
        return sorted(found, key=lambda build: (str(build.path) != live, -build.last_live, build.path.name))

    def _live_target(self) -> str:
        """Return the path of the build that ``current`` points at; empty where it points elsewhere."""
        with contextlib.suppress(OSError):
            target = self.path / os.readlink(self.current)
            if target.parent == self.folder:
                return str(target)
        return ""

    def before_live(self) -> Build | None:
        """Return the build that was live before the live one is; None where none was, or it is gone."""
        live = self.live()
        earlier = (build for build in self.complete() if build != live and build.last_live)
        return next((build for build in earlier if not build.trouble() and build.has_caveclient()), None)

    def live(self) -> Build | None:
        """Return the build that is live; None when there is none, or it is not a whole one of ours."""
        target = self._live_target()
        record = _installed.read_record(Path(target)) if target and _NAME.fullmatch(os.path.basename(target)) else {}
        return Build(Path(target), record) if record else None

    def leftovers(self) -> list[Path]:
        """Return what interrupted runs left: directories without a record, and what was never swapped in."""
        pointed_at = self._live_target() or os.path.realpath(self.current)
        return [
            *(path for path in self._entries(self.folder) if _is_unfinished(path) and str(path) != pointed_at),
            *(path for path in self._entries(self.path) if _LINK.fullmatch(path.name)),
        ]

    def surplus(self, live: Build | None, keep: int) -> list[Path]:
        """Return the builds that are more than ``keep`` besides the live one, and that no process uses."""
        others = [build.path for build in self.complete() if not live or build.path != live.path]
        return [path for path in others[keep:] if not _processes.in_use(path)]

    def is_ours(self) -> bool:
        """Return whether anything of ours is there."""
        return (
            self.current.is_symlink()
            or self.lock_file.exists()
            or any(_NAME.match(path.name) for path in self._entries(self.folder))
        )

    @staticmethod
    def _entries(folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError:
            return []

    # --- The lock ---

    def locked(self, timeout: float) -> contextlib.AbstractContextManager[int]:
        """Keep every other run away from these builds meanwhile; see ``lock.locked``."""
        return _lock.locked(self.lock_file, timeout, self._make_path)

    def _make_path(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.check_place()  # somebody may have been faster, or a default access control list lets somebody in

    def is_busy(self) -> bool:
        """Return whether another run is working here, without waiting or writing anything."""
        return _lock.is_held(self.lock_file)

    # --- Writing, under the lock ---

    def new_place(self) -> tuple[Path, Path]:
        """Return where the next build goes, and a work folder beside it; both are leftovers until it is finished."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(4).hex()}"
        place, work = self.folder / name, self.folder / (name + _WORK)
        self.folder.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        return place, work

    def unpack(self, parcel: Parcel, base: str) -> Build:
        """Unpack a build of another host, which is a leftover until it is finished.

        Args:
            parcel: what was brought.
            base: the program of its Python, with links resolved.

        Raises:
            CaveError: it is not what was packed, or no build for this place.
        """
        from ansible_collections.connectomics.cave.plugins.module_utils._environment import archive as _archive

        with _archive.opened(parcel, base) as (header, blocks):
            record = _installed.checked_record(header.record)
            if not _NAME.fullmatch(str(header.name)) or not record or record["base"] != base:
                raise CaveError("it is no build for this host")
            place = self.folder / header.name
            self.folder.mkdir(parents=True, exist_ok=True)
            if place.exists():
                raise CaveError(f"{place} is there already")
            try:
                _archive.unpack(header, blocks, place)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
        return Build(place, record)

    def prepare(self, place: Path, python: str) -> None:
        """Make a filled build one that everybody can use, before it is proven.

        Args:
            place: of the build.
            python: the version of its Python.

        Raises:
            CaveError: it holds a file of somebody else.
        """
        _keep_programs_in_their_build(self.current, place, _installed.site_packages_of(place, python))
        with contextlib.suppress(FileNotFoundError):
            (place / ".lock").unlink()  # of uv; whoever can read it can lock it
        open_to_all(place)

    def finish(self, place: Path, record: Mapping[str, Any]) -> Build:
        """Declare a build finished: it is on the disk, and its record comes last."""
        _sync(place)
        _installed.write_record(place, record)
        os.utime(place / _installed.RECORD, ns=(0, 0))
        self._sync_folder(self.folder)
        return Build(place, record)

    def switch(self, build: Build, back: bool = False) -> None:
        """Make a build the live one, in one step.

        Args:
            build: the build.
            back: whether this is the way back to it, rather than a request for it.
        """
        for path in self._entries(self.path):
            if _LINK.fullmatch(path.name):  # of a run that was killed: nobody else is writing
                path.unlink()
        live = self.live()
        newest = max([0, *(other.last_live for other in self.complete())])
        if live:  # so that it comes before all others, also when its own switch was interrupted
            newest = _set_time(live, newest)
        # Known before it is done: a run that is killed in between must not go further back.
        if back:
            (build.path / _WAY_BACK).touch()
        elif build.is_way_back:
            (build.path / _WAY_BACK).unlink()
        temporary = self.path / (".current-" + os.urandom(4).hex())
        temporary.symlink_to(build.path.relative_to(self.path))
        temporary.replace(self.current)
        self._sync_folder(self.path)
        _set_time(build, newest)

    @staticmethod
    def _sync_folder(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_directory(descriptor)
        finally:
            os.close(descriptor)

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
        for path in [*self.leftovers(), *(build.path for build in self.complete())]:
            self.remove(path)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _set_time(build: Build, newest: int) -> int:
    """Note that a build is live now, after all that was noted before; returns the time."""
    moment = max(time.time_ns(), newest + 1)
    os.utime(build.path / _installed.RECORD, ns=(moment, moment))
    return moment


def _is_unfinished(path: Path) -> bool:
    name = path.name[: -len(_WORK)] if path.name.endswith(_WORK) else path.name
    return bool(_NAME.fullmatch(name)) and (path.name != name or not _installed.read_record(path))


def _keep_programs_in_their_build(current: Path, place: Path, site_packages: Path) -> None:
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


def open_to_all(folder: Path, closed: int = 0o022) -> None:
    """Let everybody read what is in a folder, and nobody but the owner write (bits of ``closed``).

    An installer links files from its cache, and those have the mode that the umask of an earlier day gave them.

    Raises:
        CaveError: a file in it belongs to somebody else.
    """
    for directory, _folders, files in os.walk(folder):
        _open_entry(directory, 0o755, closed)
        for name in files:
            _open_entry(os.path.join(directory, name), 0o444, closed)


def _open_entry(path: str, wanted: int, closed: int) -> None:
    info = os.lstat(path)
    mode = info.st_mode
    if info.st_uid != os.geteuid():
        raise CaveError(
            f"{path} was installed from a file of another account (user id {info.st_uid}), which could change it. "
            "Remove UV_CACHE_DIR and the like from the task's environment, or empty that cache."
        )
    if stat.S_ISLNK(mode):
        return
    opened = (stat.S_IMODE(mode) | wanted | (0o111 if mode & 0o100 else 0)) & ~closed
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
