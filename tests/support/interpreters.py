# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Python interpreters of this machine, by version.

pyenv's shims on PATH only answer for the version that is active, and tools that strip the environment cannot use them
at all, so every interpreter is resolved to the real one: `python tests/support/interpreters.py` lists them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
PROBE = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2], sys._base_executable, sep='\\n')"


def find_interpreters() -> dict[str, Path]:
    """Return the interpreter for each of VERSIONS that is here and can make virtual environments."""
    found: dict[str, Path] = {}
    for candidate in candidates():
        probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            version, executable = probe.stdout.splitlines()
            found.setdefault(version, Path(executable))
    return {version: found[version] for version in VERSIONS if version in found}


def candidates() -> Iterator[Path]:
    """Yield what may be an interpreter: pyenv's versions, newest first, then python3.N on PATH."""
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        yield from sorted(Path(root).glob("versions/3.*/bin/python3"), reverse=True)
    yield from (Path(path) for version in VERSIONS if (path := shutil.which(f"python{version}")))


def open_python() -> str:
    """Return the Python of the tests, or, where other accounts cannot start that, the system's."""
    own = os.path.realpath(sys.executable)
    return sys.executable if is_open(own) else shutil.which("python3", path="/usr/bin:/usr/local/bin") or own


def is_open(path: str) -> bool:
    """Return whether every account can reach a path."""
    return all(above.stat().st_mode & 0o001 for above in [Path(path), *Path(path).parents])


def open_copy(python: Path, folder: Path) -> Path:
    """Return a Python that every account can start: the given one, or a copy of it, with what an installation needs."""
    python = python.resolve()
    if is_open(str(python)):
        return python
    library = python.parents[1] / "lib"
    leave_out = shutil.ignore_patterns("test", "tests", "__pycache__", "site-packages", "idlelib", "*.a", "pkgconfig")
    shutil.copytree(library, folder / "lib", ignore=leave_out, symlinks=True)
    next((folder / "lib").glob("python3.*")).joinpath("site-packages").mkdir()
    (folder / "bin").mkdir()
    copy = folder / "bin" / python.name
    # Where pyenv's programs look for their library, in a table of strings that end in a NUL.
    place = os.fsencode(str(library))
    copy.write_bytes(python.read_bytes().replace(place + b"\0", b"$ORIGIN/../lib".ljust(len(place) + 1, b"\0")))
    copy.chmod(0o755)
    return copy


if __name__ == "__main__":
    for version, path in find_interpreters().items():
        print(version, path)
