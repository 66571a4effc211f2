# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why something cannot be done in a user's home, and what helps; to be called in a process that is that user.

No advice gives away a directory that others use: only what lies below the user's own home may be given to the user.
"""

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

_REMEDIES = {
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
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)
_FSTAB = "/etc/fstab"
_MOUNTED = r"\\([0-7]{3})"
"""How the kernel writes white space in the path of a mount."""
_LEAST_DEPTH = 2
"""/home/alice has it; /home and /srv are never one user's."""
_KERNELS = r"/(proc|sys)(/|$)"
_SYSTEM = r"(/private)?/(s?bin|boot|dev|etc|lib\w*|proc|run|sys|usr|var/(?!(home|lib)/)\w+)(/|$)"
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
    remedy = _REMEDIES.get(error.errno or 0) or "Correct that"
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
    is_kept = os.stat(above).st_mode & stat.S_ISVTX and _owner_of(path) != os.geteuid()
    return os.access(above, os.W_OK | os.X_OK) and not is_kept and not re.match(_SYSTEM, path)


def require_home(user: str, uid: int, home: str) -> None:
    """Check that a user has a home on this host in which something is, or can be, saved.

    Raises:
        CaveError: there is none; ``details`` has ``no_home``.
    """
    problem = _home_problem(user, uid, home)
    if problem:
        raise CaveError(f"{problem}, then run this again.", no_home=user)


def _home_problem(user: str, uid: int, home: str) -> str:
    if not home.startswith("/") or os.path.normpath(home).strip("/") == "":
        return f"{user} has no home of their own ({home or 'none'}). Create one ({_make_home(user)})"
    unmounted = _unmounted(home)
    try:
        status = os.stat(home)
    except OSError as error:
        if error.errno not in _NOT_THERE:  # such as a file server's that does not answer any more
            remedy = _REMEDIES.get(error.errno or 0) or "Correct that"
            return f"The home directory of {user}, {home}, cannot be used: {reason(error)}. {remedy}"
        status = None
    if status is None or not stat.S_ISDIR(status.st_mode):
        remedy = f"Mount it (mount {shlex.quote(unmounted)})" if unmounted else "Create or mount it"
        return f"The home directory of {user}, {home}, does not exist on this host. {remedy}"
    if (
        status.st_uid == uid
        or os.access(home, os.W_OK | os.X_OK)
        or os.path.lexists(os.path.join(home, ".cloudvolume"))
    ):
        return ""
    if unmounted:
        command = f"mount {shlex.quote(unmounted)}"
        return f"The home directory of {user}, {home}, is not mounted, though /etc/fstab has it. Mount it ({command})"
    state = f"{home}, belongs to {owner_name(status.st_uid)} with mode {stat.S_IMODE(status.st_mode):04o}"
    if _may_be_given(home, home, uid):
        return f"The home directory of {user}, {state}. Give it to {user} (chown {shlex.quote(user)})"
    return f"{user} has no home of their own: {state}. Create one ({_make_home(user)})"


def _make_home(user: str) -> str:
    return this_system().make_home(shlex.quote(user))


def advice(culprit: str, home: str, uid: int, cloud_volume_dir: str, set_in: str) -> str:
    """Return what lets a user change what is denied, without harm to anybody else.

    Args:
        culprit: the path that denies it, the ``denied`` of an error's details.
        home: of the user.
        uid: of the user.
        cloud_volume_dir: the user's CLOUD_VOLUME_DIR, empty where it is not set.
        set_in: the file that sets it, empty where that is not known.
    """
    if _may_be_given(culprit, home, uid):
        return "Give it to that user (chown, chmod u+rwx), then run this again."
    owner = _owner_of(culprit)
    if owner == uid and not re.match(_SYSTEM, culprit):
        if not _lets_its_user_in(culprit):
            return "Let its user in (chmod u+rwx), then run this again."
        return (
            "Its mode lets its user in, so something else does not: on NFS with Kerberos, its user needs a ticket "
            "(kinit); else look at SELinux or AppArmor. Then run this again."
        )
    if cloud_volume_dir and (_is_below(cloud_volume_dir, culprit) or _is_below(culprit, cloud_volume_dir)):
        relation = "which belongs" if culprit == cloud_volume_dir else f"and {culprit} belongs"
        place = set_in or "the file that sets it (such as ~/.profile)"
        keeper = "the kernel" if is_of_the_kernel(culprit) else owner_name(owner)
        return (
            f"CLOUD_VOLUME_DIR is {cloud_volume_dir}, {relation} to {keeper}: "
            f"change it in {place}, then run this again."
        )
    return "Remove the link that leads there, or choose another place: others may use this one as it is."


def _lets_its_user_in(path: str) -> bool:
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        return not ~mode & (0o700 if stat.S_ISDIR(mode) else 0o600)
    return False


def _may_be_given(path: str, home: str, uid: int) -> bool:
    """Return whether a path may be given to a user: it is in a home that nobody else uses, and nobody else's.

    chown follows links, and //home is /home: what counts is where the path leads.
    """
    names = {real_path(home), f"/{home.strip('/')}"}
    path = real_path(path)
    owner = _owner_of(path)
    shared = any(name.count("/") < _LEAST_DEPTH or re.match(_SYSTEM, name) for name in names)
    if shared or not _is_below(path, real_path(home)):
        return False
    others = [account.pw_dir for account in pwd.getpwall() if account.pw_uid != uid]
    if owner == uid or any(_is_below(other, name) for other in others for name in names):
        return False
    return owner == 0 or not _has_account(owner)


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
    return CaveError(f"Cannot {what}: {culprit} is mounted read-only. {_REMEDIES[errno.EROFS]}, then run this again.")


def _nearest(path: str) -> str:
    """Return the path, or the nearest directory above it that exists."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _is_below(path: str, folder: str) -> bool:
    path, folder = (f"/{os.path.normpath(one).lstrip('/')}" for one in (path, folder))
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _owner_of(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_uid
    return 0


def _has_account(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False


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


def _unmounted(path: str) -> str:
    """Return the mount point of /etc/fstab at or above a path that is not mounted; empty where there is none."""
    with contextlib.suppress(OSError):
        with open(_FSTAB, encoding="utf-8", errors="surrogateescape") as table:
            lines = [line.split() for line in table]
        points = [fields[1] for fields in lines if len(fields) > 2 and not fields[0].startswith("#")]
        for point in sorted(points, key=len, reverse=True):
            if point not in ("/", "none") and _is_below(path, point):
                return "" if os.path.ismount(point) else point
    return ""
