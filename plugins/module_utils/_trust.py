# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can change a file or program: an account runs and believes only what nobody but root and itself can write.

The rule is that of sshd's StrictModes: the file, every folder above it and every link on the way belong to the account
or to root, and neither group nor others may write. A folder with the sticky bit (``/tmp``) may be on the way, since
nobody can move there what belongs to somebody else.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import grp
import os
import pwd
import stat
from typing import Collection, Iterator, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._atomic import has_access_list
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_LINKS_AT_MOST = 40
_OF_STAFF = "/usr/local/"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)


class Step(NamedTuple):
    """A folder, link or file on the way to a path."""

    path: str
    info: os.stat_result


class Way(NamedTuple):
    """All steps to a path, as far as they go."""

    steps: tuple[Step, ...]
    error: OSError | None = None
    """Why it ends before the path does: something is missing, or may not be entered."""


def way_to(path: str) -> Way:
    """Return every step to an absolute path. Links are followed one at a time, each from the folder that holds it."""
    steps: list[Step] = []
    folders = [os.open("/", _FOLDER)]
    names: list[str] = []
    pending = path.split("/")[::-1]
    links = 0
    try:
        steps.append(Step("/", os.fstat(folders[0])))
        while pending:
            name = pending.pop()
            if name == ".." and names:
                names.pop()
                os.close(folders.pop())
            if name in ("", ".", ".."):
                continue
            here = "/" + "/".join([*names, name])
            info = os.stat(name, dir_fd=folders[-1], follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                folders.append(os.open(name, _FOLDER, dir_fd=folders[-1]))
                names.append(name)
                steps.append(Step(here, os.fstat(folders[-1])))
                continue
            steps.append(Step(here, info))
            if stat.S_ISLNK(info.st_mode):
                links += 1
                if links > _LINKS_AT_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=folders[-1])
                if target.startswith("/"):
                    while len(folders) > 1:
                        os.close(folders.pop())
                    names = []
                pending.extend(target.split("/")[::-1])
            elif any(pending):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        return Way(tuple(steps), error)
    finally:
        for folder in folders:
            os.close(folder)
    return Way(tuple(steps))


def changeable(path: str, owners: Collection[int]) -> str:
    """Return what lets somebody change ``path``, or what it leads to, in words; empty: nobody but its owners can.

    What is missing can be made by nobody else either, when the answer is empty.

    Args:
        path: an absolute path.
        owners: user ids of those who may.
    """
    way = way_to(path)
    for number, step in enumerate(way.steps):
        found = _complaint(step, owners, is_last=number + 1 == len(way.steps) and way.error is None)
        if found:
            return found
    if isinstance(way.error, PermissionError) or (way.error and way.error.errno == errno.ELOOP):
        return f"{path} cannot be looked at ({way.error.strerror})"
    return ""


def _complaint(step: Step, owners: Collection[int], is_last: bool) -> str:
    mode, uid = step.info.st_mode, step.info.st_uid
    if uid not in owners:
        return f"{step.path} belongs to {_user_name(uid)}"
    if stat.S_ISLNK(mode) or not mode & 0o022:
        return ""
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and not is_last:
        return ""
    if has_access_list(step.path):  # the group's bits are those of everybody in it, then
        return f"{step.path} can be changed by whom its access control list names"
    if not mode & 0o002 and uid and _is_private_group(step.info.st_gid, uid):
        return ""
    if not mode & 0o002 and f"{step.path}/".startswith(_OF_STAFF) and _is_without_members(step.info.st_gid):
        return ""
    who = "everybody" if mode & 0o002 else f"the group {_group_name(step.info.st_gid)}"
    return f"{step.path} can be changed by {who} (mode {stat.S_IMODE(mode):04o})"


def _is_private_group(gid: int, uid: int) -> bool:
    """Whether it is the group that many systems give to each user alone, and make their folders writable for."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and user.pw_gid == gid and set(group.gr_mem) <= {user.pw_name}


def _is_without_members(gid: int) -> bool:
    """Whether a group is nobody's: Debian up to 11 and Ubuntu let the group staff write below /usr/local."""
    try:
        return not grp.getgrgid(gid).gr_mem and all(user.pw_gid != gid for user in pwd.getpwall())
    except KeyError:
        return False


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user id {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def changeable_by_others(path: str) -> str:
    """Like ``changeable``, asked by root about what root is about to run or to believe; empty for any other account."""
    return changeable(path, (0,)) if os.geteuid() == 0 else ""


def check(what: str, path: str, remedy: str, everything: bool = False) -> None:
    """Make sure that root may run and believe what is at a path.

    Args:
        what: the option that names it, for the message.
        path: an absolute path.
        remedy: what to do where root may not.
        everything: whether all that is below counts as well.

    Raises:
        CaveError: somebody else can change it.
    """
    found = all_changeable_by_others(path) if everything else changeable_by_others(path)
    if found:
        raise CaveError(f"{what}: {found}, so root does not use {path}. {remedy}")


def all_changeable_by_others(path: str) -> str:
    """Like ``changeable_by_others``, with all that is below a path, and below the folders that links there lead to."""
    found = changeable_by_others(path)
    pending, seen = [path], set()
    while pending and not found and os.geteuid() == 0:
        folder = os.path.realpath(pending.pop())
        if folder not in seen:
            seen.add(folder)
            found = _changeable_inside(folder, (0,))
            pending += _folders_in(folder)
    return found


def _folders_in(folder: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_dir()]
    return []


def python_changeable(python: str, owners: Collection[int]) -> str:
    """Like ``changeable``, for a Python with its environment: what it imports on every start counts as well."""
    for path in parts_of_python(python):
        # Programs beside a Python may well belong to others.
        has_modules = os.path.basename(os.path.dirname(path)) == "lib" or os.path.basename(path) == "site-packages"
        found = changeable(path, owners) or (has_modules and _changeable_inside(path, owners))
        added = () if found else _added_by(path)
        complaints = (changeable(folder, owners) or _changeable_inside(folder, owners) for folder in added)
        found = found or next(filter(None, complaints), "")
        if found:
            return found
    return ""


def _changeable_inside(path: str, owners: Collection[int]) -> str:
    """Return what lets somebody change an entry of a folder which only its owners can replace."""
    try:
        with os.scandir(path) as entries:
            steps = [Step(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return ""
    links = (step.path for step in steps if stat.S_ISLNK(step.info.st_mode))
    complaints = (_complaint(step, owners, is_last=True) for step in steps)
    return next(filter(None, complaints), "") or next(filter(None, (changeable(link, owners) for link in links)), "")


def parts_of_python(python: str) -> Iterator[str]:
    """Yield a Python, and the folders and files that it takes its code from on every start, as far as they are there.

    Nothing is read before the caller has looked at what came before it.
    """
    yield python
    real = os.path.realpath(python)
    for prefix in dict.fromkeys([os.path.dirname(os.path.dirname(python)), os.path.dirname(os.path.dirname(real))]):
        configuration = os.path.join(prefix, "pyvenv.cfg")
        if os.path.lexists(configuration):
            yield configuration
            home = _home_of(configuration)
            if home:
                yield home
                yield from _libraries(os.path.dirname(home))
        yield from _libraries(prefix)


def _libraries(prefix: str) -> Iterator[str]:
    library = os.path.join(prefix, "lib")
    try:
        names = sorted(name for name in os.listdir(library) if name.startswith("python3"))
    except OSError:
        return
    for name in names:
        yield os.path.join(library, name)
        packages = os.path.join(library, name, "site-packages")
        if os.path.lexists(packages):
            yield packages


def _added_by(packages: str) -> Iterator[str]:
    """Yield the folders that the ``.pth`` files among packages add to what a Python imports from, even with ``-I``."""
    if os.path.basename(packages) != "site-packages":
        return
    for file in sorted(glob.glob(os.path.join(glob.escape(packages), "*.pth"))):
        for line in _text_of(file).splitlines():
            folder = os.path.join(packages, line.strip())
            if line.strip() and not line.startswith(("#", "import ", "import\t")) and os.path.isdir(folder):
                yield folder


def _home_of(configuration: str) -> str:
    for line in _text_of(configuration).splitlines():
        key, _equals, value = line.partition("=")
        if key.strip() == "home" and value.strip().startswith("/"):
            return value.strip()
    return ""


def _text_of(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(65536)
    return ""


def account_for(what: str, path: str, remedy: str) -> pwd.struct_passwd | None:
    """Return the account that is to work with what is at a path, so that nobody else can have planted it.

    Args:
        what: the option that names it, for messages.
        path: an absolute path.
        remedy: what to do when there is no such account.

    Returns:
        None: this process itself. Asked by root, else the one user to whom all belongs on the way that is not root's.

    Raises:
        CaveError: several users, or a group, or everybody can change it.
    """
    if os.geteuid() != 0:
        return None
    way = way_to(path)
    owner = next((step.info.st_uid for step in way.steps if step.info.st_uid), 0)
    found = changeable(path, (0, owner))
    # Root may not look into a home on a network; its user is going to.
    if found and not (owner and isinstance(way.error, PermissionError)):
        raise CaveError(f"{what}: {found}, so {path} is not used. {remedy}")
    if not owner:
        return None
    try:
        return pwd.getpwuid(owner)
    except KeyError as error:
        raise CaveError(f"{what}: {path} belongs to the user id {owner}, which has no account. {remedy}") from error


def closed_to_others(path: str) -> str:
    """Return what keeps accounts other than root's from reading ``path``, in words; empty: nothing that modes tell.

    Args:
        path: an absolute path; what is missing of it counts as open.
    """
    for step in way_to(path).steps:
        mode = step.info.st_mode
        needed = 0o001 if stat.S_ISDIR(mode) else 0o004
        if not stat.S_ISLNK(mode) and not mode & needed:
            return f"{step.path} is closed to them (mode {stat.S_IMODE(mode):04o})"
    return ""


def no_programs_from(path: str) -> str:
    """Return the folder whose file system is mounted ``noexec``, where ``path`` is or would be; empty: it is not."""
    while True:
        try:
            flags = os.statvfs(path).f_flag
        except OSError:
            parent = os.path.dirname(path)
            if parent == path:
                return ""
            path = parent
            continue
        return path if flags & getattr(os, "ST_NOEXEC", 0) else ""
