# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What helps a user whose home denies something, without harm to others; to be called in a process that is that user.

Only what lies below the user's own home may be given to the user: no advice gives away a directory that others use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import os.path
import pwd
import re
import shlex
import stat

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import (
    REMEDIES,
    SYSTEM,
    is_of_the_kernel,
    owner_name,
    owner_of,
    real_path,
    reason,
)
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)
_FSTAB = "/etc/fstab"
_LEAST_DEPTH = 2
"""/home/alice has it; /home and /srv are never one user's."""


def home_problem(user: str, uid: int, home: str) -> str:
    """Return why a user has no home on this host, and what helps."""
    if not home.startswith("/") or os.path.normpath(home).strip("/") == "":
        return f"{user} has no home of their own ({home or 'none'}). Create one ({_make_home(user)})"
    unmounted = _unmounted(home)
    try:
        status = os.stat(home)
    except OSError as error:
        if error.errno not in _NOT_THERE:  # such as a file server's that does not answer any more
            remedy = REMEDIES.get(error.errno or 0) or "Correct that"
            return f"The home directory of {user}, {home}, cannot be used: {reason(error)}. {remedy}"
        status = None
    if status is None or not stat.S_ISDIR(status.st_mode):
        remedy = f"Mount it (mount {shlex.quote(unmounted)})" if unmounted else "Create or mount it"
        return f"The home directory of {user}, {home}, does not exist on this host. {remedy}"
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
    owner = owner_of(culprit)
    if owner == uid and not re.match(SYSTEM, culprit):
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
    owner = owner_of(path)
    shared = any(name.count("/") < _LEAST_DEPTH or re.match(SYSTEM, name) for name in names)
    if shared or not _is_below(path, real_path(home)):
        return False
    others = [account.pw_dir for account in pwd.getpwall() if account.pw_uid != uid]
    if owner == uid or any(_is_below(other, name) for other in others for name in names):
        return False
    return owner == 0 or not _has_account(owner)


def _is_below(path: str, folder: str) -> bool:
    path, folder = (f"/{os.path.normpath(one).lstrip('/')}" for one in (path, folder))
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _has_account(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
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
