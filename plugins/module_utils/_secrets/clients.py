# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of caveclient that a user's programs may import."""

from __future__ import annotations

import glob
import os.path

_CONDA_FOLDERS = ("*conda3", "*forge", "*forge3", "opt/*conda3", "Library/r-miniconda*", ".local/share/r-miniconda*")
_SITE_PACKAGES = (
    ".local/lib/python3.*/site-packages",
    "Library/Python/3.*/lib/python/site-packages",
    *(f"{conda}/lib/python3.*/site-packages" for conda in _CONDA_FOLDERS),
    *(f"{conda}/envs/*/lib/python3.*/site-packages" for conda in _CONDA_FOLDERS),
    ".conda/envs/*/lib/python3.*/site-packages",
    ".pyenv/versions/*/lib/python3.*/site-packages",
    ".virtualenvs/*/lib/python3.*/site-packages",
    ".venv/lib/python3.*/site-packages",
)
"""Where people's own Pythons keep caveclient, below their homes."""


def installed_clients(home: str, managed: str) -> dict[str, str]:
    """Return the versions of caveclient in the managed environment and in the user's own Pythons."""
    patterns = [(os.path.join(managed, "current", "lib"), "python3.*/site-packages")]
    for pattern in _SITE_PACKAGES:
        fixed, wild, rest = pattern.partition("*")
        folder, _slash, name = fixed.rpartition("/")
        patterns.append((os.path.join(home, folder), name + wild + rest))
    found: dict[str, str] = {}
    seen = set()
    for folder, pattern in patterns:
        if not os.path.isdir(folder):  # most are not there, and to search takes far longer than to see that
            continue
        # conda links lib/python3.1 to lib/python3.11: one installation, named after the folder itself.
        clients = os.path.join(glob.escape(folder), pattern, "caveclient-*.dist-info")
        for path in sorted(glob.glob(clients), key=len, reverse=True):
            place = os.path.realpath(path)
            if place not in seen:
                seen.add(place)
                found[os.path.dirname(path)] = os.path.basename(path)[len("caveclient-") : -len(".dist-info")]
    return found
