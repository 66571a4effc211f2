# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replacing a file: readers see the old content or the new, whole, also after a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import Callable

_ACCESS_LIST = "system.posix_acl_access"
"""Made by setfacl, or inherited from the directory: the group's bits of the mode let its users in as well."""


def temporary_name(name: str) -> str:
    """Return a new name for a file that is to take the place of ``name``."""
    return f".{name}.{os.urandom(8).hex()}.tmp"


def temporary_pattern(name: str) -> re.Pattern[str]:
    """Return what the names of ``temporary_name`` for ``name`` look like."""
    return re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")


def replace_file(
    directory: int,
    name: str,
    content: bytes,
    *,
    mode: int = 0o600,
    group: int | None = None,
    temporary: str | None = None,
    when_made: Callable[[int], object] | None = None,
    before_rename: Callable[[], object] | None = None,
) -> None:
    """Put ``content`` under ``name``, through a temporary file beside it.

    The new file is 0600 until it is complete, whatever the umask; ``mode`` and ``group`` come last. A link of that name
    is replaced, not followed. When anything fails, the old file stays and the temporary file is removed.

    Args:
        directory: descriptor of the directory.
        name: of the file in it.
        content: all of it.
        mode: permission bits of the new file.
        group: group id of the new file; None: whichever it gets.
        temporary: name of the temporary file; None: one of ``temporary_name``.
        when_made: called with the descriptor of the temporary file while that is still empty. An exception cancels.
        before_rename: called when the new file is complete. An exception cancels.

    Raises:
        OSError: it could not be done.
    """
    temporary = temporary or temporary_name(name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            if when_made is not None:
                when_made(descriptor)
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
            if group is not None:
                os.fchown(descriptor, -1, group)
            if mode != 0o600:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if before_rename is not None:
            before_rename()
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    sync_directory(directory)


def has_access_list(place: int | str) -> bool:
    """Return whether a file or directory names further users in an access control list of POSIX."""
    with contextlib.suppress(OSError, AttributeError):  # a file system, or a system, without them
        return bool(os.getxattr(place, _ACCESS_LIST))
    return False


def drop_access_list(descriptor: int) -> None:
    """Let the mode alone decide who may read an open file or enter an open directory."""
    if has_access_list(descriptor):
        os.removexattr(descriptor, _ACCESS_LIST)


def sync_directory(directory: int) -> None:
    """Bring changes of a directory to the disk, where its file system can."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
