# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Pythons of a host: finding one, and asking it what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from typing import Any, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system

OLDEST_PYTHON = (3, 9)
"""The oldest Python of a current caveclient."""
NEWEST_FOR_OLDER_PYTHON = (7, 3, 1)
"""The newest caveclient that installs on an older Python: an index gives it there without a word."""
PROBE_TIMEOUT = 60.0
"""Seconds in which a program has to say what it is."""


class Python(NamedTuple):
    """A Python of this host."""

    executable: str
    version: str
    """As in 3.11.2."""
    base: str
    """The program behind it, with links resolved."""
    has_venv: bool
    lacks_distutils: bool
    """A Python before 3.10 from whose distribution distutils was split off, as Debian did: uv refuses it."""
    is_venv: bool
    externally_managed: bool
    has_pip: bool
    pips: tuple[str, ...]
    """Folders and wheels below which a pip is found that an environment without one can run."""
    site_packages: str
    prefix: str
    """The environment's folder."""

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of the version."""
        return numbers(self.version)[:2]


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (8, 2, 1) for 8.2.1rc1."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


_PROBE = r"""
import glob, json, os, sys, sysconfig
from importlib.util import find_spec
def folder(name):
    spec = find_spec(name)
    return os.path.dirname(spec.origin) if spec and spec.origin else ""
ensurepip, pip, wheels = folder("ensurepip"), folder("pip"), sysconfig.get_config_var("WHEEL_PKG_DIR")
places = [ensurepip and os.path.join(ensurepip, "_bundled"), wheels]
places += ["/usr/share/python-wheels"] if sys.base_prefix == "/usr" else []  # of Debian, for its own Python
found = [wheel for place in places if place
         for wheel in sorted(glob.glob(os.path.join(place, "pip-*.whl")), reverse=True)]
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "base": os.path.realpath(sys.executable),
    "has_venv": bool(find_spec("venv")),
    "lacks_distutils": sys.version_info < (3, 10) and not find_spec("distutils.command"),
    "is_venv": sys.prefix != sys.base_prefix,
    "externally_managed": os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")),
    "has_pip": bool(pip),
    "pips": ([pip] if pip else []) + found,
    "site_packages": sysconfig.get_path("purelib"),
    "prefix": sys.prefix,
}))
"""


def probe(executable: str) -> Python | None:
    """Ask a Python what it is; None when it does not run."""
    outcome = _processes.run([executable, "-I", "-c", _PROBE], _processes.clean_environment(os.environ), PROBE_TIMEOUT)
    try:
        answer = json.loads(outcome.output)
        return Python(executable=executable, pips=tuple(answer.pop("pips")), **answer)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def installs_on(python: tuple[int, ...], exact_version: str) -> bool:
    """Return whether the caveclient that was asked for installs on a Python (its first two numbers).

    An old release on an old Python counts only when it was asked for by its exact version.
    """
    return python >= OLDEST_PYTHON or bool(exact_version and numbers(exact_version)[:3] <= NEWEST_FOR_OLDER_PYTHON)


def choose_python(wanted: str, exact_version: str) -> Python:
    """Return the Python to make an environment with.

    Args:
        wanted: a path, a version such as 3.11, or empty: the one that runs this, or else the newest of the host.
        exact_version: the caveclient that was asked for, where an exact one was.

    Raises:
        CaveError: there is no such Python here, or it is too old.
    """
    if "/" in wanted:
        changeable = _changeable(wanted)
        if changeable:
            raise CaveError(
                f"python: {changeable}, so root does not run {wanted}. Name a Python that root alone can write."
            )
        python = probe(wanted)
        if not python:
            raise CaveError(f"python: {wanted} is not a Python that runs on this host.")
        changeable = _changeable(python.base)  # of a script that starts another
        if changeable:
            raise CaveError(f"python: {changeable}, so root does not run {python.base}, which {wanted} starts.")
    elif wanted:
        names = [f"python{'.'.join(wanted.split('.')[:2])}", "python3", sys.executable]
        python = _first_python(names, lambda python: (python.version + ".").startswith(wanted + "."))
        if not python:
            command = this_system().install_python(wanted)
            raise CaveError(
                f"This host has no Python {wanted} on its PATH. Install it ({command}), or give the path of one with "
                "the option 'python'."
            )
    else:
        own = sys.version_info[:2]
        names = [sys.executable] if installs_on(own, exact_version) else []
        names += [*_newest_first(), "python3"]
        python = _first_python(names, lambda python: installs_on(python.release, exact_version))
        if not python and installs_on(own, exact_version) and _changeable(sys.executable):
            command = this_system().install_python()
            raise CaveError(
                f"{_changeable(sys.executable)}, so root does not run {sys.executable}, and on this host's PATH is no "
                f"other Python for caveclient that root alone can write. Install one ({command})."
            )
        if not python:
            raise _too_old(
                f"this host's Python is {own[0]}.{own[1]}, and it has no newer one on its PATH", exact_version
            )
    if not installs_on(python.release, exact_version):
        raise _too_old(f"{python.executable} is Python {python.version}", exact_version)
    return python


def _newest_first() -> list[str]:
    return [f"python3.{minor}" for minor in range(40, OLDEST_PYTHON[1] - 1, -1)]


def _first_python(names: Iterable[str], suits: Any) -> Python | None:
    folders = _processes.clean_environment(os.environ)["PATH"].split(os.pathsep)
    # Each folder by itself: the first that has one may hold a shim that does not run, or another account's.
    places = [[None] if os.path.isabs(name) else folders for name in names]
    for executable in dict.fromkeys(
        shutil.which(name, path=folder) for name, there in zip(names, places) for folder in there
    ):
        python = probe(executable) if executable and not _changeable(executable) else None
        if python and suits(python) and not _changeable(python.base):
            return python
    return None


def _changeable(python: str) -> str:
    """Return what lets somebody else change a Python that root is about to run; empty for any other account."""
    return _trust.python_changeable(python, (0,)) if os.geteuid() == 0 else ""


def _too_old(found: str, exact_version: str) -> CaveError:
    if exact_version:
        reason = f"caveclient {exact_version} needs Python 3.9 or later"
    else:
        reason = "caveclient needs Python 3.9 or later (an older one would get caveclient 7.3.1 without a word)"
    return CaveError(
        f"{reason}; {found}. Install a newer Python ({this_system().install_python()}) and name it with the option "
        "'python', or ask for an exact version that is 7.3.1 or older."
    )
