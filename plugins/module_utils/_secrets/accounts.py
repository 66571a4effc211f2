# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accounts of a host that may have secrets files, also those that its name service does not list.

A directory service (SSSD, Active Directory) knows an account when it is asked for it, but lists none: such accounts are
found as the owners of what is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import os.path
import pwd
import sys
from functools import partial
from typing import Any, Callable, Iterable, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils import _systems, _users
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    NAMES_IN_HOME,
    VARIABLE,
    texts_of_host,
)
from ansible_collections.connectomics.cave.plugins.module_utils._text import readable

_SYSTEM = _systems.system_of(sys.platform, "")
FIRST_USER_ID = _SYSTEM.first_user_id
_ROOTS = (_SYSTEM.homes,)
_NO_ROOTS = ("/", "/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp")  # noqa: S108 (left out, not used)
_PATIENCE = 5.0
"""Seconds for the homes of one folder, and then for each by itself."""
_NO_ACCOUNT = "none"
_MOST_HOMES = 20_000
_LEADING_ELSEWHERE = (VARIABLE, "CLOUD_FILES_DIR")
"""Variables with which secrets files may lie anywhere."""


def accounts_on_host(
    roots: Iterable[str] = (), *, usual_places: bool = True
) -> dict[str, pwd.struct_passwd | CaveError]:
    """Return the accounts that may have secrets files, by name: all for root, else one's own.

    Args:
        roots: further folders that hold homes.
        usual_places: secrets files lie in ``.cloudvolume`` in the homes, as far as the caller knows.

    Returns:
        Who has files but no account is named by the user id. A folder that does not answer has an error in the place of
        an account, under its own name.
    """
    if os.geteuid() != 0:
        me = _users.current_user()
        return {me.pw_name: me}
    found: dict[str, pwd.struct_passwd | CaveError] = {}
    for account in pwd.getpwall():
        _add(found, _users.user_at_home(account))
    listed = [account for account in found.values() if not isinstance(account, CaveError)]
    known = {os.path.normpath(account.pw_dir) for account in listed}
    people = [os.path.dirname(os.path.normpath(one.pw_dir)) for one in listed if one.pw_uid >= FIRST_USER_ID]
    owners, silent = _owners(
        [root for root in dict.fromkeys([*_ROOTS, *people, *roots]) if root not in _NO_ROOTS], known
    )
    for uid, gid, home in owners:
        try:
            account = pwd.getpwuid(uid)
        except KeyError:
            account = _nameless(uid, gid, home)
        _add(found, account)
    found.update({path: error for path, error in silent.items() if path not in known})
    idle = _idle_services(found) if usual_places else ()
    return {name: account for name, account in found.items() if name not in idle}


def _add(found: dict[str, pwd.struct_passwd | CaveError], account: pwd.struct_passwd) -> None:
    """Add an account. Of two with one name, as on the host and in a directory, the second is called by its user id."""
    first = found.setdefault(readable(account.pw_name), account)
    if not isinstance(first, CaveError) and first.pw_uid != account.pw_uid:
        found.setdefault(str(account.pw_uid), _nameless(account.pw_uid, account.pw_gid, account.pw_dir))


def _nameless(uid: int, gid: int, home: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((str(uid), _NO_ACCOUNT, uid, gid, "", home, ""))


def is_without_account(name: str, account: pwd.struct_passwd | CaveError) -> bool:
    """Return whether files were found of somebody who has no account any more."""
    return not isinstance(account, CaveError) and account.pw_passwd == _NO_ACCOUNT and name == str(account.pw_uid)


def without_account(uid: str) -> str:
    """Return in words that somebody whose files were found has no account, or none that the name leads to."""
    try:
        name = pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return f"The user id {uid} has no account on this host."
    return f"The user id {uid} has no account of its own on this host: {name} is another one of that name."


def _idle_services(accounts: Mapping[str, pwd.struct_passwd | CaveError]) -> set[str]:
    """Return the system's accounts that have nothing to do with CAVE, without a process for each of them.

    A usual host has twenty, whose homes are folders of the system, such as ``/usr/sbin``, or are not there.
    """
    services = {
        name: account
        for name, account in accounts.items()
        if not isinstance(account, CaveError) and 0 < account.pw_uid < FIRST_USER_ID
    }

    def idle(_root: str) -> list[str]:
        texts = [*os.environ, *(one.text for one in texts_of_host("/"))]
        if any(name in text for text in texts for name in _LEADING_ELSEWHERE):
            return []
        return [name for name, account in services.items() if _is_idle(account)]

    found, _silent = _each(["/"] if services else [], idle)
    return set(found)


def _is_idle(account: pwd.struct_passwd) -> bool:
    """Return whether an account has no home of its own, and nothing in the one that it has leads to secrets files."""
    try:
        if os.stat(account.pw_dir).st_uid == account.pw_uid:
            return False
        # All programs keep their secrets files below hidden names: .cloudvolume, .neuroglancer, .cloudfiles.
        return not any(name.startswith(".") or name in NAMES_IN_HOME for name in os.listdir(account.pw_dir))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False


def _owners(roots: list[str], known: set[str]) -> tuple[list[tuple[int, int, str]], dict[str, CaveError]]:
    """Return who owns homes below ``roots``, and the folders that do not answer; homes in ``known`` are left out."""
    homes, silent = _each(roots, _names)
    candidates = [home for home in homes if home not in known][:_MOST_HOMES]
    by_root = [[home for home in candidates if os.path.dirname(home) == root] for root in roots]
    groups = {homes[0]: homes for homes in by_root if homes}
    found, hanging = _each(groups, lambda first: _owners_of(groups[first]))
    # One that hangs holds up those beside it: each by itself, then.
    alone = [home for first in hanging for home in groups[first]]
    more, still_hanging = _each(alone, lambda home: _owners_of([home]))
    return [*found, *more], {**silent, **still_hanging}


def _each(paths: Iterable[str], function: Callable[[str], list[Any]]) -> tuple[list[Any], dict[str, CaveError]]:
    """Return what a function finds at each path, all in one list, and the paths that do not answer."""
    root = pwd.getpwuid(0)
    # At this process's own home it would run in this process, and what hangs would hang that.
    root = pwd.struct_passwd((*root[:5], os.devnull, root[6]))
    jobs = {path: _users.Job(root, partial(function, path)) for path in paths}
    found: list[Any] = []
    silent = {}
    for path, result in zip(jobs, _users.run_each_as(list(jobs.values()), _PATIENCE)):
        if not isinstance(result, CaveError):
            found += result
        else:
            silent[path] = CaveError(
                f"{path} did not answer within {_PATIENCE:g} s, so it is not known whether secrets files are there. "
                "Is a network file system hanging? Run this again when it answers."
            )
    return found, silent


def _names(root: str) -> list[str]:
    """Return the paths in a folder; nothing in them is touched."""
    with contextlib.suppress(OSError):
        return [os.path.join(root, name) for name in sorted(os.listdir(root))]
    return []


def _owners_of(homes: list[str]) -> list[tuple[int, int, str]]:
    """Return who owns homes; a folder of the system's that holds homes is entered, such as ``/home/DOMAIN``."""
    found = []
    for home in homes:
        owner = _owner(home)
        if owner is not None and owner[0] == 0:
            found += [inner for path in _names(home)[:_MOST_HOMES] for inner in [_owner(path)] if inner is not None]
        elif owner is not None:
            found.append(owner)
    return [owner for owner in found if owner[0] != 0]


def _owner(home: str) -> tuple[int, int, str] | None:
    """Return the owner of what may be a home: of its ``.cloudvolume``, else of itself."""
    with contextlib.suppress(OSError):
        own = os.stat(home)
        if os.path.isdir(home):
            with contextlib.suppress(OSError):
                inner = os.lstat(os.path.join(home, ".cloudvolume"))
                if inner.st_uid:
                    return inner.st_uid, inner.st_gid, home
            return own.st_uid, own.st_gid, home
    return None
