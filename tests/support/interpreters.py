# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Python interpreters of this machine, by version.

pyenv's shims on PATH only answer for the version that is active, and tools that strip the environment cannot use them
at all, so every interpreter is resolved to the real one: `python tests/support/interpreters.py` lists them.
"""

from __future__ import annotations

import shutil
import subprocess
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


if __name__ == "__main__":
    for version, path in find_interpreters().items():
        print(version, path)
