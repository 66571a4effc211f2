# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why something cannot be done in a user's home; to be called in a process that is that user."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import os.path
import pwd
import re
import shlex
import stat
import struct
from typing import Iterator

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.lock import NO_LOCKS
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system

REMEDIES = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Raise the user's quota, or free some space",
    errno.EROFS: "Mount the file system read-write",
    errno.EIO: "Check the disk or the file server",
    errno.ELOOP: "Remove the symbolic link there",
    errno.EISDIR: "Move the directory away that is there",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
    errno.ESTALE: "Mount the file server's directory anew",
    errno.ENOTCONN: "Mount it anew: the program that served it (FUSE, such as sshfs) has ended",
    **dict.fromkeys((errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH), "Check the file server and the network"),
    getattr(errno, "ENOKEY", -1): "Unlock the encrypted home (its user logs in, or fscrypt unlock)",
    **dict.fromkeys(NO_LOCKS, "Mount it with file locks (NFS: with lockd; Lustre: -o flock)"),
    errno.EMFILE: "Raise the limit on open files",
    errno.ENFILE: "Raise the system's limit on open files",
}
_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS of Linux on 64 bits
_IMMUTABLE = 0x00000010 | 0x00000020  # and append-only
_IMMUTABLE_ON_MACOS = stat.UF_IMMUTABLE | stat.UF_APPEND | stat.SF_IMMUTABLE | stat.SF_APPEND
_MOUNTED = r"\\([0-7]{3})"
"""How the kernel writes white space in the path of a mount."""
_KERNELS = r"/(proc|sys)(/|$)"
SYSTEM = r"(/private)?/(s?bin|boot|dev|etc|lib\w*|proc|run|sys|usr|var/(?!(home|lib)/)\w+)(/|$)"
"""Folders of the system: many of its own accounts have one for a home, as daemon has /usr/sbin."""
SECRET_VOLUME_LINK = "..data"  # noqa: S105 (the name of a link)
"""The link by which Kubernetes swaps the content of a volume that it fills from a Secret."""


@contextlib.contextmanager
def reporting(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a CaveError that says what failed, where, and why."""
    try:
        yield
    except OSError as error:
        raise failure(error, path, doing) from error


def failure(error: OSError, path: str, doing: str) -> CaveError:
    """Return the error that says what failed, where, why, and what to do."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return not_permitted(path, doing)
    if error.errno == errno.EROFS:
        return _read_only(path, doing)
    remedy = REMEDIES.get(error.errno or 0) or "Correct that"
    return CaveError(f"Cannot {doing} {path}: {reason(error)}. {remedy}, then run this again.")


def reason(error: OSError) -> str:
    """Return why something failed, in the system's words."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def not_permitted(path: str, doing: str) -> CaveError:
    """Return the error that says which of the path's components denies access, and to whom."""
    culprit = _nearest(path)
    what = doing if path in doing or doing.endswith(" it") else f"{doing} {path}"
    if is_read_only(culprit):
        return _read_only(path, what)
    if is_immutable(culprit):
        return immutable(culprit, what)
    if is_of_the_kernel(culprit):
        return CaveError(f"Cannot {what}: {culprit} is the kernel's, and keeps no files.", denied=culprit)
    try:
        status = os.lstat(culprit)
        state = f"belongs to {owner_name(status.st_uid)} with mode {stat.S_IMODE(status.st_mode):04o}"
    except OSError as error:
        state = f"cannot be examined ({reason(error)})"
    message = f"No permission to {what}: {culprit} {state}, and the token's user has user id {os.geteuid()}."
    return CaveError(message, denied=culprit)


def immutable(path: str, doing: str) -> CaveError:
    """Return the error that says that not even root may replace what is there."""
    command = this_system().allow_changes(shlex.quote(path))
    return CaveError(f"Cannot {doing}: {path} is marked immutable. Allow changes ({command}), then run this again.")


def obstructed(path: str) -> CaveError:
    """Return the error that says which of the path's components is in the way of a directory."""
    culprit = path
    while os.path.dirname(culprit) != culprit and not os.path.isdir(os.path.dirname(culprit)):
        culprit = os.path.dirname(culprit)
    if not os.path.lexists(culprit):
        return CaveError(f"{culprit} does not exist. Create it, or correct the path.")
    kind = "a symbolic link that leads to no directory" if os.path.islink(culprit) else "not a directory"
    what = f"{culprit} is {kind}, where a directory was expected."
    if _may_be_moved(culprit):
        return CaveError(f"{what} Move it away, then run this again.")
    return CaveError(what, denied=culprit)


def _may_be_moved(path: str) -> bool:
    """Return whether this user may move something away without harm to others, or to the system."""
    above = os.path.dirname(path)
    is_kept = os.stat(above).st_mode & stat.S_ISVTX and owner_of(path) != os.geteuid()
    return os.access(above, os.W_OK | os.X_OK) and not is_kept and not re.match(SYSTEM, path)


def require_home(user: str, uid: int, home: str) -> None:
    """Check that a user has a home on this host in which something is, or can be, saved.

    Raises:
        CaveError: there is none; ``details`` has ``no_home``.
    """
    with contextlib.suppress(OSError):
        status = os.stat(home)
        is_own = status.st_uid == uid or os.access(home, os.W_OK | os.X_OK)
        is_one = home.startswith("/") and os.path.normpath(home).strip("/") and stat.S_ISDIR(status.st_mode)
        if is_one and (is_own or os.path.lexists(os.path.join(home, ".cloudvolume"))):
            return
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.advice import home_problem

    raise CaveError(f"{home_problem(user, uid, home)}, then run this again.", no_home=user)


def real_path(path: str) -> str:
    """Return where a path leads, as far as it can be followed: some links, as /proc/1/root, are not for everybody."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.normpath(path)


def is_read_only(path: str) -> bool:
    """Return whether a path is on a file system that is mounted read-only."""
    with contextlib.suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def is_of_the_kernel(path: str) -> bool:
    """Return whether a path is in a file system in which the kernel shows itself, whatever its modes allow."""
    return bool(re.match(_KERNELS, real_path(path)))


def is_mounted(path: str) -> bool:
    """Return whether something is mounted right at a path, which then cannot be replaced; of Linux alone."""
    place = os.path.join(real_path(os.path.dirname(path)), os.path.basename(path))
    with contextlib.suppress(OSError), open(
        "/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape"
    ) as table:
        return any(re.sub(_MOUNTED, lambda code: chr(int(code[1], 8)), line.split(" ")[4]) == place for line in table)
    return False


def is_secret_volume(directory: str) -> bool:
    """Return whether a directory is a volume that Kubernetes fills from a Secret."""
    return os.path.islink(os.path.join(directory, SECRET_VOLUME_LINK))


def owner_name(uid: int) -> str:
    """Return how to call the owner of a file in a message."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user id {uid}"


def _read_only(path: str, doing: str) -> CaveError:
    culprit = _nearest(path)
    what = doing if path in doing or doing.endswith(" it") else f"{doing} {path}"
    if any(is_secret_volume(place) for place in (culprit, os.path.dirname(culprit))):
        return CaveError(
            f"Cannot {what}: {culprit} is mounted read-only, a volume that Kubernetes fills from a Secret. "
            "Change the Secret, or take the mount away, then run this again."
        )
    return CaveError(f"Cannot {what}: {culprit} is mounted read-only. {REMEDIES[errno.EROFS]}, then run this again.")


def _nearest(path: str) -> str:
    """Return the path, or the nearest directory above it that exists."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def owner_of(path: str) -> int:
    """Return the user id that something belongs to; root's where that cannot be told."""
    with contextlib.suppress(OSError):
        return os.lstat(path).st_uid
    return 0


def is_immutable(path: str) -> bool:
    """Return whether a file or directory is marked so that not even root may replace or remove what is there."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if getattr(status, "st_flags", 0) & _IMMUTABLE_ON_MACOS:
            return True
        mode = status.st_mode  # to open a device is to do something to it
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            answer = fcntl.ioctl(descriptor, _GET_FLAGS, b"\0" * 8)
            return bool(struct.unpack("L", answer[: struct.calcsize("L")])[0] & _IMMUTABLE)
        finally:
            os.close(descriptor)
    return False
