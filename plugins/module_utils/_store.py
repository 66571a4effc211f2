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
import fcntl
import os
import re
import stat
import time
from typing import Iterator

from ansible_collections.connectomics.cave.plugins.module_utils import _readers, _secrets
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LOCK_FILE = ".connectomics-cave.lock"
LOCK_PATIENCE = 20.0
"""Seconds to wait for another run that writes to the same directory."""
_TEMPORARY = re.compile(r"\.connectomics-cave-[0-9a-f]{16}\.tmp")
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: opening a FIFO must not wait for its other end
_REMEDIES = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Raise the user's quota, or free some space",
    errno.EROFS: "Mount the file system read-write",
    errno.EIO: "Check the disk or the file server",
    errno.ENOLCK: "Make file locks work there (lockd, for NFS)",
    errno.EMFILE: "Raise the limit on open files",
    errno.ENFILE: "Raise the system's limit on open files",
}


class Directory:
    """A secrets directory of the user that this process is, held open.

    Everything happens relative to its descriptor, so that a directory swapped meanwhile changes nothing.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of the directory, and of its lock."""
        os.close(self._descriptor)

    def mode(self) -> int:
        """Return the directory's permission bits."""
        return stat.S_IMODE(os.fstat(self._descriptor).st_mode)

    def parent_is_open_to_others(self) -> bool:
        """Tell whether the directory above is the user's own, and others may swap what is in it."""
        above = os.stat("..", dir_fd=self._descriptor)
        return above.st_uid == os.geteuid() and bool(above.st_mode & 0o022) and not above.st_mode & stat.S_ISVTX

    def names(self) -> list[str]:
        """Return the names in the directory, sorted."""
        with reporting(self.path, "list"):
            return sorted(os.listdir(self._descriptor))

    def read(self, name: str) -> _secrets.Entry | None:
        """Return what stands under ``name``, None when nothing does. A link is not followed."""
        return read_entry(name, self._descriptor, follow=False)

    def holds(self, name: str, needles: list[bytes]) -> bool:
        """Tell whether a regular file of a secrets file's size holds one of ``needles``, whatever its form."""
        with contextlib.suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "rb") as file:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    content = file.read(_secrets.MAX_BYTES + 1)
                    return any(needle in content for needle in needles)
        return False

    def is_writable(self) -> bool:
        """Tell whether the user may change the directory, without trying."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._descriptor)

    def repair(self, mode: int) -> None:
        """Set the directory's mode."""
        with reporting(self.path, "change the mode of"):
            os.fchmod(self._descriptor, mode)

    def repair_parent(self) -> None:
        """Take from others the right to change the directory above."""
        with reporting(os.path.dirname(self.path), "change the mode of"):
            descriptor = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor)
            try:
                os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~0o022)
            finally:
                os.close(descriptor)

    def lock(self) -> None:
        """Take the directory's lock, which lasts until this process ends or lets go of it.

        A POSIX lock on a file: of the kinds of lock, the one that network file systems carry to the other hosts.

        Raises:
            CaveError: another run holds it for longer than ``LOCK_PATIENCE``.
        """
        path = os.path.join(self.path, LOCK_FILE)
        with reporting(path, "lock"):
            descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=self._descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise CaveError(f"{path} is in the way: it is not a regular file. Remove it.")
            self._lock_descriptor = descriptor  # kept open: closing it gives up the lock
            deadline = time.monotonic() + LOCK_PATIENCE
            while True:
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EACCES):
                        raise
                if time.monotonic() > deadline:
                    raise CaveError(
                        "Another process has been writing to %s for %d s. Look for a hanging run, then try again."
                        % (self.path, LOCK_PATIENCE)
                    )
                time.sleep(0.02)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of runs that were killed. Only under the lock."""
        for name in self.names():
            if _TEMPORARY.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._descriptor)

    def write(self, name: str, text: str, mode: int, group: int | None) -> None:
        """Put ``text`` under ``name``, atomically: a crash leaves the old content or the new, whole.

        The file is 0600 from birth until it is complete; ``mode`` and ``group`` (a group id) come last.
        """
        temporary = f".connectomics-cave-{os.urandom(8).hex()}.tmp"
        with reporting(os.path.join(self.path, name), "write"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
            descriptor = os.open(temporary, flags, 0o600, dir_fd=self._descriptor)
            try:
                try:
                    remaining = text.encode()
                    while remaining:
                        remaining = remaining[os.write(descriptor, remaining) :]
                    if group is not None:
                        os.fchown(descriptor, -1, group)
                    if mode != 0o600:
                        os.fchmod(descriptor, mode)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self._descriptor)
                raise
            self._sync()

    def remove(self, name: str) -> None:
        """Remove a file."""
        with reporting(os.path.join(self.path, name), "remove"):
            os.unlink(name, dir_fd=self._descriptor)
            self._sync()

    def set_aside(self, name: str) -> str:
        """Rename what stands under ``name``, out of every reader's way and unreadable to others; return the new name."""
        with reporting(os.path.join(self.path, name), "set aside"):
            with contextlib.suppress(OSError):  # a link, or a file that is not ours: its mode is not ours to set
                descriptor = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._descriptor)
                try:
                    os.fchmod(descriptor, 0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600)
                finally:
                    os.close(descriptor)
            taken = set(self.names())
            number = 1
            while "%s%s%d" % (name, _secrets.QUARANTINE, number) in taken:
                number += 1
            new_name = "%s%s%d" % (name, _secrets.QUARANTINE, number)
            os.rename(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            self._sync()
            return new_name

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # file systems without an order of directory changes to keep
                raise


def read_entry(name: str, directory: int | None = None, follow: bool = True) -> _secrets.Entry | None:
    """Return what stands under a name: its status, and its content or what is wrong with it.

    Args:
        name: a path, relative to the descriptor ``directory`` if that is given.
        directory: an open directory.
        follow: whether a link counts as what it leads to, as it does for the readers.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return _secrets.Entry(0, -1, -1, False, None, "unreadable", _reason(error))
    try:
        text, problem, detail = _content(name, directory, follow), None, ""
    except _secrets.Malformed as error:
        text, problem, detail = None, error.code, str(error)
    except FileNotFoundError:
        return None
    except OSError as error:
        text, problem, detail = None, "unreadable", "{} ({})".format(_secrets.PROBLEMS["unreadable"], _reason(error))
    mode = stat.S_IMODE(status.st_mode)
    return _secrets.Entry(mode, status.st_uid, status.st_gid, stat.S_ISREG(status.st_mode), text, problem, detail)


def listing(where: _readers.Places) -> dict[str, _secrets.Entry]:
    """Return what the readers find in the places where they look; links count as what they lead to."""
    found = {}
    for directory in dict.fromkeys((where.caveclient, *where.cloud_volume, *where.cloud_files)):
        try:
            names = os.listdir(directory)
        except OSError:
            continue  # for a reader, too, nothing is there
        for name in names:
            path = os.path.join(directory, name)
            entry = read_entry(path) if _secrets.is_secrets_file(name) or name == _secrets.SERVER_MAP else None
            if entry is not None:
                found[path] = entry
    return found


def _content(name: str, directory: int | None, follow: bool) -> str:
    flags = os.O_RDONLY | (_OPEN & ~os.O_NOFOLLOW if follow else _OPEN)
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # EMLINK: the BSDs' word for it
            raise _secrets.Malformed("symlink", f"to {os.readlink(name, dir_fd=directory)}") from None
        if error.errno == errno.ENXIO:  # a socket
            raise _secrets.Malformed("not_a_file") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise _secrets.Malformed("directory")
        if not stat.S_ISREG(kind):
            raise _secrets.Malformed("not_a_file")
        raw = file.read(_secrets.MAX_BYTES + 1)
    if len(raw) > _secrets.MAX_BYTES:
        raise _secrets.Malformed("too_large")
    return _secrets.parse(raw)


def open_directory(path: str, create: bool, owners: tuple[int, ...]) -> tuple[Directory | None, list[str]]:
    """Open a secrets directory, and say which directories were made (or would be) on the way to it.

    Args:
        path: absolute.
        create: whether to make what is missing, 0700.
        owners: the user ids that the directory may belong to.

    Returns:
        The directory, None when it does not exist and ``create`` is false; the missing directories, outermost first.

    Raises:
        CaveError: the path is not a directory, belongs to somebody else, or cannot be entered or made.
    """
    missing: list[str] = []
    above = path
    while not os.path.lexists(above) and above != os.path.dirname(above):
        missing.insert(0, above)
        above = os.path.dirname(above)
    if missing and not os.path.isdir(above):
        raise CaveError(_obstacle(above))
    if missing and not os.access(above, os.W_OK | os.X_OK):
        raise CaveError(_not_permitted(above, f"make {missing[0]}"))
    if create:
        for directory in missing:
            with contextlib.suppress(FileExistsError), reporting(directory, "make"):
                os.mkdir(directory, 0o700)
    elif missing:
        return None, missing
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        raise CaveError(_not_permitted(path, "enter it")) from None
    except OSError as error:
        raise CaveError(
            _obstacle(path) if error.errno in (errno.ENOTDIR, errno.ENOENT) else _failed(error, path, "open")
        )
    owner = os.fstat(descriptor).st_uid
    if owner not in owners:
        os.close(descriptor)
        link = " (through a symbolic link)" if os.path.realpath(path) != path else ""
        raise CaveError(
            "%s leads%s to a directory that belongs to user id %d, not to user id %d. "
            "Remove the link, or give the directory to its user (chown)." % (path, link, owner, os.geteuid())
        )
    return Directory(path, descriptor), missing


@contextlib.contextmanager
def reporting(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a CaveError that says what failed, where, why, and what to do."""
    try:
        yield
    except OSError as error:
        raise CaveError(_failed(error, path, doing)) from error


def _failed(error: OSError, path: str, doing: str) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return _not_permitted(path, doing)
    remedy = _REMEDIES.get(error.errno or 0)
    return "Cannot {} {}: {}.{}".format(
        doing, path, _reason(error), f" {remedy}, then run this again." if remedy else ""
    )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _not_permitted(path: str, doing: str) -> str:
    """Say which of the path's components denies access, to whom, and how to mend it."""
    culprit = path
    while not os.path.lexists(culprit) and culprit != os.path.dirname(culprit):
        culprit = os.path.dirname(culprit)
    try:
        status = os.lstat(culprit)
        state = "belongs to user id %d with mode %04o" % (status.st_uid, stat.S_IMODE(status.st_mode))
    except OSError as error:
        state = f"cannot be looked at ({_reason(error)})"
    return (
        "No permission to %s: %s %s, and the token's user has user id %d. Give it to that user (chown, chmod u+rwx)."
        % (
            doing if path in doing or doing.endswith(" it") else f"{doing} {path}",
            culprit,
            state,
            os.geteuid(),
        )
    )


def _obstacle(path: str) -> str:
    """Say which of the path's components is in the way of a directory."""
    culprit = path
    while os.path.dirname(culprit) != culprit and not os.path.isdir(os.path.dirname(culprit)):
        culprit = os.path.dirname(culprit)
    if not os.path.lexists(culprit):
        return f"{culprit} does not exist. Create it, or correct the path."
    kind = "a symbolic link that leads to no directory" if os.path.islink(culprit) else "not a directory"
    return f"{culprit} is {kind}, where a directory was expected. Move it away, then run this again."
