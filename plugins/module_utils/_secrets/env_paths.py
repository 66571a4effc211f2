# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths that startup files put into the environment, under whichever condition: read and never run."""

from __future__ import annotations

import os
import re
from typing import Iterator, NamedTuple

CLOUD_FILES_DIR = "CLOUD_FILES_DIR"
"""Where cloud-files looks for secrets files last."""
NETRC = "NETRC"
"""The file that requests takes in the place of ``~/.netrc``."""
_LONGEST = 4000
"""Bytes: with what comes below it, no more than systems take."""
_ASSIGNMENT = (
    r"""(?m)^[^#\n]*?"""
    rf"""(?<![\w${{])(?P<name>{CLOUD_FILES_DIR}|{NETRC})(?!\w)["']?\]?[ \t]*(?:=|[ \t]|,|:(?![-=+?]))[ \t]*"""
    r"""(?:(?:DEFAULT|OVERRIDE)=)?["']?(?P<path>(?:[^\s"'`;&|(){}<>$@*?\\,]|[$@]\{?(?:HOME|USER|LOGNAME)\b\}?)+)"""
)


class EnvPath(NamedTuple):
    """A path that a startup file gives to a variable."""

    name: str
    path: str
    """Absolute."""
    startup_file: str


def env_paths(startup_file: str, text: str, home: str, user: str) -> Iterator[EnvPath]:
    """Yield the paths that a startup file's lines give to ``CLOUD_FILES_DIR`` and ``NETRC``; comments don't count."""
    for match in re.finditer(_ASSIGNMENT, text) if CLOUD_FILES_DIR in text or NETRC in text else ():
        path = re.sub(r"^~(?=/)|[$@]\{?HOME\}?", lambda _match: home, match["path"])
        path = re.sub(r"[$@]\{?(USER|LOGNAME)\}?", lambda _match: user, path)
        if path.startswith("/") and path.isprintable() and len(os.fsencode(path)) < _LONGEST:
            yield EnvPath(match["name"], path.rstrip("/") or "/", startup_file)
