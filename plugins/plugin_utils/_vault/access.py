# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read, lock and replace a file of variables on the controller.

It is replaced atomically, so a reader or a crash finds the old or the new content, whole; writers wait for each other,
so none loses what another one added.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils import _atomic
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

MAX_BYTES = 16 << 20
"""The largest file that is read. Vault files of variables have some kilobytes."""
LOCK_TIMEOUT = 60.0
"""Seconds to wait for another writer."""


def real_path(path: str) -> Path:
    """Return where a path leads to."""
    try:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: str | Path, error: OSError) -> CaveError:
    reason = os.strerror(error.errno) if error.errno else "it cannot be used"
    return CaveError(f"{path}: {reason}. Look at the file and at its directory, then run again.")


@contextlib.contextmanager
def explained(real: Path) -> Iterator[None]:
    """Say of every error which file it is about."""
    try:
        yield
    except CaveError as error:
        raise CaveError(f"{real}: {error.message}", **error.details) from None
    except OSError as error:
        raise _unusable(real, error) from None


@contextlib.contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CaveError("there is no such directory. Make it, or name another file.") from None
    try:
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def locked(directory: int, name: str) -> Iterator[None]:
    """Keep other writers of this collection out. The lock is on the directory itself, so nothing is left behind.

    Where a file system has no locks on directories (NFS), a file ``.NAME.lock`` takes its place.
    """
    with contextlib.ExitStack() as stack:
        target = directory
        if not _try_lock(target):
            target = os.open(
                f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
            )
            stack.callback(os.close, target)
        else:
            stack.callback(fcntl.flock, directory, fcntl.LOCK_UN)
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _got_lock(target):
            if time.monotonic() > deadline:
                raise CaveError(f"another run has been writing here for {LOCK_TIMEOUT:.0f} seconds. Try again later.")
            time.sleep(0.05)
        yield


def _try_lock(directory: int) -> bool:
    """Whether directories can be locked here at all."""
    try:
        _got_lock(directory)
    except OSError:
        return False
    return True


def _got_lock(target: int) -> bool:
    try:
        fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(directory: int, name: str) -> tuple[bytes, os.stat_result] | None:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise CaveError("it is not a regular file.")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        raise CaveError(f"it has more than {MAX_BYTES >> 20} MiB. Is this the right file?")
    return data, info


def replace(directory: int, name: str, data: bytes, old: os.stat_result | None, mode: int) -> None:
    """Put ``data`` in the place of a file: whole or not at all, and never readable by others, not for an instant.

    The caller holds the lock, so temporary files beside it are of runs that were killed, and go.

    Args:
        directory: descriptor of the directory.
        name: of the file.
        data: its new content.
        old: what ``read`` said of it; its owner and group stay. None: there was none.
        mode: permissions of the new file.

    Raises:
        CaveError: somebody who doesn't lock has changed it since.
        OSError: it cannot be written.
    """
    for entry in filter(_atomic.temporary_pattern(name).fullmatch, os.listdir(directory)):
        with contextlib.suppress(OSError):
            os.unlink(entry, dir_fd=directory)
    _atomic.replace_file(
        directory,
        name,
        data,
        mode=mode,
        when_made=partial(_keep_owner, old=old),
        before_rename=partial(_require_untouched, directory, name, old),
    )


def require_replaceable(directory: int, old: os.stat_result | None, mode: int) -> None:
    """Raise CaveError when a file cannot be replaced by one that its users can use just as well.

    It is checked before anything is done, so that a prediction holds.
    """
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        raise CaveError("its directory does not let you write. Run as the user to whom it belongs.")
    if old is None:
        return
    if old.st_nlink > 1:
        raise CaveError(f"it has {old.st_nlink} hard links, and only one would get the new content. Remove the others.")
    if os.geteuid() == 0:
        return
    if old.st_uid != os.geteuid() and not mode & 0o060:
        raise CaveError(
            "it belongs to another user, who could not read it any more. Run as that user, or say mode 0660 if a group "
            "shares it on purpose."
        )
    if old.st_gid not in (os.getegid(), *os.getgroups()) and mode & 0o060:
        raise CaveError("it belongs to a group that you are not in, so the group cannot be kept.")


def _keep_owner(handle: int, old: os.stat_result | None) -> None:
    """Give a new file the owner and group of the old one, as far as that is allowed and means anything."""
    if old is None:
        return
    mine = os.fstat(handle)
    if mine.st_uid != old.st_uid:
        with contextlib.suppress(PermissionError):
            os.fchown(handle, old.st_uid, -1)
    if mine.st_gid != old.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(handle, -1, old.st_gid)


def _require_untouched(directory: int, name: str, old: os.stat_result | None) -> None:
    """Raise CaveError when somebody who doesn't lock (an editor, ansible-vault) has changed the file meanwhile."""
    try:
        now = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOENT and old is None:
            return
        raise
    if old is None or (now.st_ino, now.st_mtime_ns, now.st_size) != (old.st_ino, old.st_mtime_ns, old.st_size):
        raise CaveError("somebody else changed it in the meantime. Nothing was written: run again.")
