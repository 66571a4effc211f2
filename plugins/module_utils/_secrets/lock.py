# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock that keeps two runs from writing to one directory of secrets files at the same time."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

# Classic POSIX locks end as soon as the process closes any descriptor of the file. Those of an open file description
# last until this one is closed; the kernel carries both to a file server, where they keep out other hosts.
_OFD_SETLK = 37 if sys.platform.startswith("linux") else None
_WHOLE_FILE = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


def try_lock(descriptor: int) -> bool:
    """Lock a file that is open for writing, until the descriptor is closed; return False where somebody else has.

    Where the kernel has no locks of open file descriptions (macOS, gVisor), ``flock`` serves.

    Raises:
        OSError: the file cannot be locked; one of ``NO_LOCKS`` where its file system has no locks.
    """
    try:
        if _OFD_SETLK is not None:
            try:
                fcntl.fcntl(descriptor, _OFD_SETLK, _WHOLE_FILE)
                return True
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
