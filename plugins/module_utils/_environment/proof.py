# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an environment serves its users: it holds what was asked for, and starts for an account without rights."""

from __future__ import annotations

import os
import pwd
import shutil
from functools import partial
from pathlib import Path
from typing import Mapping, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils import _ends, _trust, _users
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import (
    installed_packages,
    provided_extras,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installer_errors import last_line
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Request, name_of
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask_credentials

_NOBODY = 65534
"""The user and group id of an account without any rights."""
_GRACE = 30.0
"""Seconds that the process of that account has besides, to say that the time was not enough."""

# A folder whose __init__.py cannot be read would pass for a package without code.
_IMPORT = """
import importlib
for name in {modules!r}:
    module = importlib.import_module(name)
    if not module.__file__:
        raise ImportError("the code of %s cannot be read" % name)
"""


def check_directory(what: str, path: Path) -> None:
    """Make sure that a path is a directory, or can become one.

    Raises:
        CaveError: it is, or leads through, something else.
    """
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        found = "a link that leads to no directory" if there.is_symlink() else "a file"
        raise CaveError(f"{what}: {there} is {found}; expected a directory, or nothing there.")


def check_place(what: str, path: str) -> None:
    """Make sure that programs can run from a path, before anything is installed there.

    Raises:
        CaveError: its file system is mounted noexec.
    """
    folder = _trust.no_programs_from(path)
    if folder:
        raise CaveError(
            f"{what}: {folder} is on a file system that is mounted noexec, so no environment works there. Choose "
            "another place, or mount it without noexec."
        )


def check_open(what: str, path: str) -> None:
    """Make sure that users can reach what root offers them, as far as modes tell. Others offer it to themselves.

    Raises:
        CaveError: a folder on the way is closed to them.
    """
    closed = _trust.closed_to_others(path) if os.geteuid() == 0 else ""
    if closed:
        raise CaveError(
            f"{what}: users cannot start what is installed there: {closed}. Choose another place, or open it "
            "(chmod o+x for a folder)."
        )


def check_contents(site_packages: Path, request: Request) -> str:
    """Make sure that caveclient and its extras are in an environment, and return its version.

    Raises:
        CaveError: something is not there.
    """
    version = installed_packages(site_packages).get("caveclient", "")
    if not version:
        raise CaveError(f"The installer reported success, but caveclient is not in {site_packages}.")
    known = provided_extras(site_packages)
    unknown = sorted(set(request.extras) - known)
    if unknown:
        raise unknown_extra(version, unknown[0], known)
    return version


def unknown_extra(version: str, extra: str, known: set[str]) -> CaveError:
    """Return the error of an extra that caveclient does not have; ``known`` is empty where nobody said which it has."""
    others = f"; it has: {', '.join(sorted(known))}" if known else ""
    return CaveError(f"caveclient {version} has no extra {extra!r}{others}.")


def check_imports(
    python: str,
    site_packages: Path,
    request: Request,
    environ: Mapping[str, str],
    timeout: float,
    held: Sequence[int] = (),
) -> str:
    """Make sure that the environment can be imported from, and return the version of its caveclient.

    This also leaves bytecode behind, which users may not write.

    Raises:
        CaveError: it lacks caveclient or an extra, or importing it fails or takes too long.
    """
    version = check_contents(site_packages, request)
    outcome = _processes.run(_import(python, request), environ, timeout, held=held)
    _judge(outcome, f"caveclient {version} is installed but cannot be imported", python, timeout, "")
    return version


def check_users_can_import(
    python: str, site_packages: Path, request: Request, environ: Mapping[str, str], timeout: float
) -> None:
    """Let an account without rights start the environment and import caveclient, where root has made it.

    Raises:
        CaveError: it cannot.
    """
    if os.geteuid() != 0:
        return
    home = _processes.private_folder("caveclient-home-")
    try:
        os.chown(home, _NOBODY, _NOBODY)
        theirs = {"HOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        kept = {name: value for name, value in environ.items() if name == "LD_LIBRARY_PATH"}
        work = partial(_processes.run, _import(python, request), {**kept, **theirs}, timeout)
        user = pwd.struct_passwd(("an account without rights", "x", _NOBODY, _NOBODY, "", home, "/bin/false"))
        outcome = _processes.Outcome(*_users.run_as(user, lambda: list(work()), timeout + _GRACE))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    closed = "" if outcome.returncode == 0 else _what_is_closed(python, site_packages)
    _judge(outcome, "caveclient is installed but users cannot start it", python, timeout, closed)


def _import(python: str, request: Request) -> list[str]:
    modules = ["caveclient"]
    if any(name_of(package) == "ipykernel" for package in request.packages):
        modules.append("ipykernel.kernelapp")
    return [python, "-I", "-c", _IMPORT.format(modules=modules)]


def _judge(outcome: _processes.Outcome, what: str, python: str, timeout: float, closed: str) -> None:
    if outcome.returncode == 0:
        return
    details = {"installer_output": mask_credentials(outcome.error)}
    if outcome.returncode is None:
        raise CaveError(f"Importing caveclient with {python} took more than {timeout:.0f} seconds.", **details)
    if closed:
        raise CaveError(f"{what}: {closed}. Choose another place, or open it (chmod o+x).", **details)
    if outcome.returncode < 0:
        raise CaveError(f"{what}: {python} {_ends.how(outcome.returncode)}. {_ends.AFTER_A_SIGNAL}", **details)
    telling = [line for line in outcome.error.splitlines() if "error" in line.lower()]
    reason = last_line("\n".join(telling) or outcome.error) or f"it {_ends.how(outcome.returncode)}"
    noexec = _trust.no_programs_from(python)
    remedy = (
        f"{noexec} is on a file system that is mounted noexec: choose another place."
        if noexec
        else "Choose another version, constraints or Python."
    )
    raise CaveError(f"{what}: {reason}. {remedy}", **details)


def _what_is_closed(python: str, site_packages: Path) -> str:
    """Return the first folder or file that users are kept from, also behind links to an installer's cache."""
    for path in _trust.parts_of_python(python):
        closed = _trust.closed_to_others(path)
        if closed:
            return closed
    for folder, folders, files in os.walk(site_packages):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            closed = _trust.closed_to_others(path) if os.path.islink(path) else ""
            if closed:
                return closed
    return ""
