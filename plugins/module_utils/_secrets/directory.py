# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and writing a directory of secrets files, to be called in a process that is the files' user.

That the kernel enforces the user's own permissions is what makes planted links harmless; here it is seen to that no
file is ever readable by others, torn, or written through a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from typing import Callable, Container, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _atomic
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.lock import try_lock
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import (
    SECRET_VOLUME_LINK,
    failure,
    is_of_the_kernel,
    not_permitted,
    obstructed,
    real_path,
    reason,
    reporting,
)

LOCK_FILE = ".connectomics-cave.lock"
LOCK_PATIENCE = 20.0
"""Seconds to wait for another run that writes to the same directory."""
TEMPORARY = re.compile(r"\.connectomics-cave-[0-9a-f]{16}\.tmp")
"""What a run that was killed may leave behind."""
MOST_FILES = 10_000
"""Secrets files in one directory; to read more takes longer than other users can wait."""
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: opening a FIFO must not wait for its other end
# A file that is not for its user to open, or that was swapped for a link (ELOOP) or a socket (ENXIO; macOS: the last).
_CLOSED = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP)
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""There is nothing under a path. Other errors leave open what there is, such as those of a file server that is gone."""


class Access(NamedTuple):
    """Who may enter a directory of secrets files."""

    mode: int = 0o700
    group: int | None = None
    """A group id; None: whichever it has."""


class Directory:
    """A secrets directory of the user that this process is, held open.

    Everything happens relative to its descriptor, so that a directory swapped meanwhile changes nothing.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.asked: Mapping[str, str] = {}
        """Names in lower case -> as programs ask for them: some file systems keep other letters, and don't mind."""
        self._descriptor = descriptor
        self._lock_descriptor: int | None = None

    def close(self) -> None:
        """Let go of the directory, and of its lock."""
        for descriptor in (self._descriptor, self._lock_descriptor):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def flaw(self, access: Access) -> str:
        """Say who could enter that should not, or the other way round; empty when nothing is wrong.

        A directory that is not the user's own is as whoever it belongs to wants it.
        """
        status = os.fstat(self._descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            return ""
        if mode & 0o077 & ~access.mode:
            return f"mode {mode:04o} let others in"
        if access.group is not None and (status.st_gid != access.group or mode & 0o070 != access.mode & 0o070):
            return f"mode {mode:04o} or group id {status.st_gid} kept the group out"
        if access.mode & 0o070 and _atomic.has_access_list(self._descriptor):
            return "an access control list let others in"
        return ""

    def names(self) -> list[str]:
        """Return the names in the directory, sorted, and spelt as programs ask for them where that is the same file."""
        with reporting(self.path, "list"):
            listed = os.listdir(self._descriptor)
        return sorted({self._as_asked(name, listed) for name in listed})

    def _as_asked(self, name: str, listed: list[str]) -> str:
        other = self.asked.get(name.lower(), name)
        if other != name and other not in listed:
            with contextlib.suppress(OSError):
                os.stat(other, dir_fd=self._descriptor, follow_symlinks=False)
                return other
        return name

    def read(self, name: str) -> _files.Entry | None:
        """Return what stands under ``name``, None when nothing does. A link is not followed."""
        with reporting(os.path.join(self.path, name), "read"):
            return read_entry(name, self._descriptor, follow=False)

    def holds(self, name: str, needles: list[bytes]) -> bool | None:
        """Return whether the beginning of a regular file holds one of ``needles``, whatever the file's form.

        None: the file is closed to the user, so that nobody can tell.
        """
        with reporting(os.path.join(self.path, name), "read"):
            try:
                content = _read(name, self._descriptor, _OPEN)
            except FileNotFoundError:
                return False
            except _files.Malformed as error:
                status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                return None if error.code == "unreadable" and stat.S_ISREG(status.st_mode) else False
            return any(needle in content for needle in needles)

    def is_writable(self) -> bool:
        """Return whether the user may change the directory, without trying."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._descriptor)

    def require_lockable(self) -> None:
        """Look, without changing anything, whether ``lock`` would find something in the place of its file.

        Raises:
            CaveError: it would.
        """
        path = os.path.join(self.path, LOCK_FILE)
        with reporting(path, "lock"):
            try:
                mode = os.stat(LOCK_FILE, dir_fd=self._descriptor, follow_symlinks=False).st_mode
            except FileNotFoundError:
                is_lockable = self.is_writable()
            else:
                if not stat.S_ISREG(mode):
                    raise CaveError(f"{path} is in the way: it is not a regular file. Remove it.")
                is_lockable = os.access(LOCK_FILE, os.R_OK | os.W_OK, dir_fd=self._descriptor)
            if not is_lockable:
                raise not_permitted(path, "lock")

    def repair(self, access: Access) -> None:
        """Set the directory's group and mode."""
        with reporting(self.path, "change the mode of"):
            if access.group is not None:
                os.fchown(self._descriptor, -1, access.group)
            if access.mode & 0o070:
                _atomic.drop_access_list(self._descriptor)
            mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
            os.fchmod(self._descriptor, (mode & ~0o077) | (access.mode & 0o077))

    def lock(self) -> None:
        """Take the directory's lock, which lasts until the directory is closed.

        Raises:
            CaveError: another run holds it for longer than ``LOCK_PATIENCE``, or the file system has no locks.
        """
        path = os.path.join(self.path, LOCK_FILE)
        with reporting(path, "lock"):
            descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=self._descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise CaveError(f"{path} is in the way: it is not a regular file. Remove it.")
            self._lock_descriptor = descriptor  # closing it gives up the lock
            deadline = time.monotonic() + LOCK_PATIENCE
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise CaveError(
                        f"Another process has been writing to {self.path} for {LOCK_PATIENCE:g} s. "
                        "Look for a hanging run, then try again."
                    )
                time.sleep(0.02)

    def write(
        self, name: str, text: str, mode: int, group: int | None, before: Callable[[], object] | None = None
    ) -> None:
        """Put ``text`` under ``name`` (see ``_atomic``); ``group`` is a group id, None for whichever it gets."""
        with reporting(os.path.join(self.path, name), "write"):
            _atomic.replace_file(
                self._descriptor,
                name,
                text.encode(),
                mode=mode,
                group=group,
                temporary=f".connectomics-cave-{os.urandom(8).hex()}.tmp",
                when_made=self._require_closed,
                before_rename=before,
            )

    def _require_closed(self, descriptor: int) -> None:
        """Refuse a file system that gives a file another mode than it was asked for, before anything is in the file.

        What the file has inherited of an access control list goes: it would count as soon as a group may read.
        """
        with contextlib.suppress(OSError):
            _atomic.drop_access_list(descriptor)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise CaveError(
                f"The file system of {self.path} keeps no modes: a file for its user alone (0600) has {mode:04o} "
                "there, so others could read the token. Move the home to one that does (on WSL: /home, not /mnt/c)."
            )

    def is_removable(self, name: str) -> bool:
        """Return whether what stands under ``name`` is no directory."""
        try:
            return not stat.S_ISDIR(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def remove(self, name: str) -> None:
        """Remove a file."""
        with reporting(os.path.join(self.path, name), "remove"):
            os.unlink(name, dir_fd=self._descriptor)
            _atomic.sync_directory(self._descriptor)

    def set_aside(self, name: str) -> str:
        """Rename what stands under ``name``, out of every reader's way and unreadable to others.

        Returns:
            The new name.
        """
        with reporting(os.path.join(self.path, name), "set aside"):
            with contextlib.suppress(OSError):  # a link, or a file that is not ours: its mode is not ours to set
                descriptor = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._descriptor)
                try:
                    os.fchmod(descriptor, 0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600)
                finally:
                    os.close(descriptor)
            taken = set(self.names())
            number = 1
            while f"{name}{_files.QUARANTINE}{number}" in taken:
                number += 1
            new_name = f"{name}{_files.QUARANTINE}{number}"
            os.rename(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            _atomic.sync_directory(self._descriptor)
            return new_name


def read_entry(name: str, directory: int | None = None, follow: bool = True) -> _files.Entry | None:
    """Return what stands under a name: its status, and its content or what is wrong with it.

    Args:
        name: a path, relative to the descriptor ``directory`` if that is given.
        directory: an open directory.
        follow: whether a link counts as what it leads to, as it does for the readers.

    Raises:
        OSError: it cannot be told what stands there.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOENT or (follow and error.errno in (*_NOTHING, *_CLOSED)):
            return None  # for a reader, too, nothing is there
        raise
    text, problem, detail = None, None, ""
    try:
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=directory)
            is_volume = target.startswith(f"{SECRET_VOLUME_LINK}/")
            hint = ", in a volume that Kubernetes fills from a Secret: change the Secret" if is_volume else ""
            raise _files.Malformed("symlink", f"to {target!r}{hint}")
        _require_regular(status.st_mode)  # before it is opened: to open a FIFO or a device is to do something to it
        text = _files.parse(_read(name, directory, _OPEN & ~os.O_NOFOLLOW if follow else _OPEN))
    except _files.Malformed as error:
        problem, detail = error.code, str(error)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    return _files.Entry(mode, status.st_uid, status.st_gid, stat.S_ISREG(status.st_mode), text, problem, detail)


def listing(where: _readers.Places, known: Container[str] = (), is_certain: bool = True) -> dict[str, _files.Entry]:
    """Return what the readers find in the places where they look; links count as what they lead to.

    Args:
        where: the places.
        known: directories among them to leave out.
        is_certain: whether a place that does not answer is an error; otherwise it counts as empty.

    Raises:
        CaveError: a directory holds more secrets files than anybody has servers, or it cannot be told what it holds.
    """
    found: dict[str, _files.Entry] = {}
    for directory in dict.fromkeys((where.caveclient, *where.cloud_volume, *where.cloud_files)):
        try:
            names = os.listdir(directory) if directory not in known else []
        except OSError as error:
            if is_certain and error.errno not in (*_NOTHING, *_CLOSED):
                raise failure(error, directory, "read what is in") from error
            continue  # for a reader, too, nothing is there
        read = [name for name in names if _files.is_secrets_file(name) or name == _files.SERVER_MAP]
        if len(read) > MOST_FILES:
            raise CaveError(
                f"{directory} holds {len(read)} secrets files; expected at most {MOST_FILES}. "
                "Move those away that belong to no server, then run this again."
            )
        for name in read:
            path, entry = os.path.join(directory, name), None
            with reporting(path, "read") if is_certain else contextlib.suppress(OSError):
                entry = read_entry(path)
            if entry is not None:
                found[path] = entry
                # Where the file system does not mind letter case, programs find it by the usual name as well.
                usual = os.path.join(directory, name.lower())
                if usual != path and name.lower() not in read and os.path.exists(usual):
                    found[usual] = entry
    return found


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _files.Malformed("directory")
    if not stat.S_ISREG(mode):
        raise _files.Malformed("not_a_file")


def _read(name: str, directory: int | None, flags: int) -> bytes:
    """Return the content of a regular file, or of one that is too large one byte more than is allowed."""
    try:
        descriptor = os.open(name, os.O_RDONLY | flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        raise _files.Malformed("unreadable", reason(error)) from None
    try:
        _require_regular(os.fstat(descriptor).st_mode)  # again: it may have been swapped
        content = b""
        while len(content) <= _files.MAX_BYTES:
            piece = os.read(descriptor, _files.MAX_BYTES + 1 - len(content))
            if not piece:
                break
            content += piece
        return content
    finally:
        os.close(descriptor)


def open_directory(
    path: str, owners: tuple[int, ...], create: Access | None = None, is_needed: bool = True
) -> tuple[Directory | None, list[str]]:
    """Open a secrets directory, and say which directories were made (or would be) on the way to it.

    Args:
        path: absolute.
        owners: the user ids that the directory may belong to.
        create: how to make what is missing; None: not at all.
        is_needed: whether it has to be possible to make what is missing.

    Returns:
        The directory, None when it does not exist and is not to be made; the missing directories, outermost first.

    Raises:
        CaveError: the path is not a directory, belongs to somebody else, or cannot be entered or made.
    """
    missing: list[str] = []
    above = path
    with reporting(path, "reach"):
        while not _stands(above):
            missing.insert(0, above)
            above = os.path.dirname(above)
    if missing and not is_needed:
        return None, missing
    if missing and not os.path.isdir(above):
        raise obstructed(above)
    if missing and (not os.access(above, os.W_OK | os.X_OK) or is_of_the_kernel(above)):
        raise not_permitted(above, f"make {missing[0]}")
    if create is None and missing:
        return None, missing
    for directory in missing:
        _make(directory, create or Access())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        raise not_permitted(path, "enter it") from None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP) and not is_needed:
            return None, missing
        if error.errno in (errno.ENOTDIR, errno.ENOENT):
            raise obstructed(path) from None
        raise failure(error, path, "open") from None
    owner = os.fstat(descriptor).st_uid
    if owner not in owners:
        os.close(descriptor)
        link = " (through a symbolic link)" if real_path(path) != path else ""
        raise CaveError(
            f"{path} leads{link} to a directory that belongs to user id {owner}, not to user id {os.geteuid()}.",
            denied=real_path(path),
        )
    return Directory(path, descriptor), missing


def is_open_to_others(path: str) -> bool:
    """Return whether a path is a directory of the user's own, and no link, in which others may swap what is there."""
    status = os.lstat(path)
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_own and bool(status.st_mode & 0o022) and not status.st_mode & stat.S_ISVTX


def close_to_others(path: str) -> None:
    """Take from others the right to change a directory of the user's own."""
    with reporting(path, "change the mode of"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~0o022)
        finally:
            os.close(descriptor)


def _stands(path: str) -> bool:
    """Return whether anything stands under a path. (os.path.lexists denies what cannot be looked at.)"""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return False
    return True


def _make(path: str, access: Access) -> None:
    with reporting(path, "make"), contextlib.suppress(FileExistsError):  # another run may be faster
        os.mkdir(path, 0o700)
        if access.group is not None:
            made = Directory(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            try:
                made.repair(access)
            finally:
                made.close()
