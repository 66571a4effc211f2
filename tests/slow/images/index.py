# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How this machine reaches its package index, as files for a host that is to reach it too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = ("index-url", "extra-index-url", "proxy", "trusted-host")


def pip_conf() -> str:
    """Return the text of /etc/pip.conf for a host."""
    settings = [f"{key} = {value}" for key, value in _pip_settings()]
    return "\n".join(["[global]", f"cert = {BUNDLE}", *settings, ""])


def uv_toml() -> str:
    """Return the text of /etc/uv/uv.toml for a host."""
    settings = [f'index-url = "{value}"' for key, value in _pip_settings() if key == "index-url"]
    return "\n".join(["system-certs = true", *settings, ""])


def _pip_settings() -> Iterator[tuple[str, str]]:
    """Yield those settings of this machine's pip that also mean something on another machine."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, _sign, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in str(ast.literal_eval(value)).split() if not word.startswith(("/", "file:"))]
        if key in SETTINGS and words:
            yield key, " ".join(words)
