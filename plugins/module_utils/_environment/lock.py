# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of an environment: a file that no other account can open, so none can hold it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Callable, Iterator

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_FAILURES_AT_MOST = 100
"""To make the folder, while another run removes it; more often, and nothing can be made there."""


@contextlib.contextmanager
def locked(
    file: Path, timeout: float, make_folder: Callable[[], object] | None = None, remove: bool = False
) -> Iterator[int]:
    """Keep every other run away from what a lock file stands for; gives the descriptor that holds the lock.

    An installer that outlives a killed run has the descriptor too: it is never cleaned away under its feet.

    Args:
        file: the lock file; it is made, with mode 0600.
        timeout: seconds to wait for another run.
        make_folder: makes its folder, which a run that removes all may take away in between.
        remove: whether the file goes when the lock is given back.

    Raises:
        CaveError: another run does not end in time.
    """
    deadline = time.monotonic() + timeout
    failures = 0
    while True:
        try:
            descriptor = _open(file, make_folder)
        except (FileNotFoundError, FileExistsError):  # another run has just removed the folder
            failures += 1
            if failures > _FAILURES_AT_MOST:
                raise
            continue
        if descriptor is not None:
            if _try(descriptor) and _is_file(descriptor, file):
                break
            os.close(descriptor)
        if time.monotonic() >= deadline:
            raise CaveError(
                f"Another run has been working in {file.parent} for more than {timeout:.0f} seconds. Wait for it, or "
                "look for a hanging uv or pip on this host."
            )
        time.sleep(0.1)
    try:
        yield descriptor
    finally:
        if remove:
            with contextlib.suppress(OSError):
                file.unlink()
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Return whether another run holds the lock, without waiting or writing anything."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _is_private(descriptor) and not _try(descriptor)
    finally:
        os.close(descriptor)


def _open(file: Path, make_folder: Callable[[], object] | None) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    if make_folder:
        make_folder()
    descriptor = os.open(file, flags, 0o600)
    if _is_private(descriptor):
        return descriptor
    os.close(descriptor)  # other accounts may have opened it, and hold it
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    return None


def _is_private(descriptor: int) -> bool:
    info = os.fstat(descriptor)
    return stat.S_IMODE(info.st_mode) == 0o600 and info.st_uid == os.geteuid()


def _is_file(descriptor: int, file: Path) -> bool:
    """Whether a descriptor is of the file that others would lock: the run before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except OSError:
        return False


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
