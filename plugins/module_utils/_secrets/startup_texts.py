# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The startup files of a user and of the host: which there are, in which language, and what stands in them.

To be called in a process of the user: what that may not read sets nothing for it.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import os
import os.path
import re
from typing import Iterator, Mapping, NamedTuple

VARIABLE = "CLOUD_VOLUME_DIR"
SHELL, FISH, CSH, PLAIN = "sh", "fish", "csh", "plain"
"""The languages of startup files; plain: lines of ``NAME=value``."""
R, FISH_VARIABLES, PAM, JSON, PYTHON, UNIT = "R", "fish_variables", "pam", "json", "python", "unit"
NUSHELL, XONSH, POWERSHELL, ELVISH = "nushell", "xonsh", "powershell", "elvish"
"""Languages of which a literal assignment alone is understood."""

_CONDAS = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", "conda", ".conda")
_KERNELS = "share/jupyter/kernels/*/kernel.json"
_STARTUP_FILES = {
    # What some programs alone take their variables from comes first: the files of the shells outrank it.
    **{f"{conda}{env}/etc/conda/activate.d/*.sh": SHELL for conda in _CONDAS for env in ("", "/envs/*")},
    **{f"{conda}{env}/conda-meta/state": JSON for conda in _CONDAS for env in ("", "/envs/*")},
    f".local/{_KERNELS}": JSON,
    "Library/Jupyter/kernels/*/kernel.json": JSON,
    ".config/Code/User/settings.json": JSON,
    ".config/VSCodium/User/settings.json": JSON,
    ".vscode-server/data/Machine/settings.json": JSON,
    ".vscode-server/data/User/settings.json": JSON,
    "Library/Application Support/Code/User/settings.json": JSON,
    ".ipython/profile_default/startup/*.py": PYTHON,
    ".ipython/profile_default/ipython_config.py": PYTHON,
    ".jupyter/*_config.py": PYTHON,
    ".env": PLAIN,
    ".envrc": SHELL,
    ".config/systemd/user.conf": UNIT,
    ".config/systemd/user/*.service": UNIT,
    ".config/systemd/user/*.service.d/*.conf": UNIT,
    ".pam_environment": PLAIN,
    ".ssh/environment": PLAIN,
    ".config/environment.d/*.conf": PLAIN,
    ".profile": SHELL,
    ".bash_profile": SHELL,
    ".bash_login": SHELL,
    ".bashrc": SHELL,
    ".bash_aliases": SHELL,
    ".bashrc.d/*": SHELL,
    ".profile.d/*": SHELL,
    ".kshrc": SHELL,
    ".oh-my-zsh/custom/*.zsh": SHELL,
    ".zshenv": SHELL,
    ".zprofile": SHELL,
    ".zshrc": SHELL,
    ".zlogin": SHELL,
    ".config/zsh/.z*": SHELL,
    ".zsh/.z*": SHELL,
    ".xprofile": SHELL,
    ".xsessionrc": SHELL,
    ".config/plasma-workspace/env/*.sh": SHELL,
    ".login": CSH,
    ".cshrc": CSH,
    ".tcshrc": CSH,
    ".config/fish/conf.d/*.fish": FISH,
    ".config/fish/config.fish": FISH,
    ".config/fish/fish_variables": FISH_VARIABLES,
    ".config/nushell/*.nu": NUSHELL,
    ".config/nushell/autoload/*.nu": NUSHELL,
    "Library/Application Support/nushell/*.nu": NUSHELL,
    ".xonshrc": XONSH,
    ".config/xonsh/rc.xsh": XONSH,
    ".config/xonsh/rc.d/*.xsh": XONSH,
    ".config/powershell/*profile.ps1": POWERSHELL,
    ".config/elvish/rc.elv": ELVISH,
    ".Renviron": PLAIN,
    ".Rprofile": R,
}
"""Files of a home that may set variables, and their languages."""
NAMES_IN_HOME = frozenset(name.partition("/")[0] for name in _STARTUP_FILES)
"""What of a home leads to one of them."""
_R_HOMES = ("/usr/lib/R", "/usr/lib64/R", "/usr/local/lib/R", "/Library/Frameworks/R.framework/Resources")
_SYSTEM_FILES = {
    f"/usr/{_KERNELS}": JSON,
    f"/usr/local/{_KERNELS}": JSON,
    "/etc/ipython/ipython_config.py": PYTHON,
    "/etc/jupyter/*_config.py": PYTHON,
    "/etc/systemd/system.conf": UNIT,
    "/etc/systemd/system.conf.d/*.conf": UNIT,
    "/etc/systemd/user.conf": UNIT,
    "/etc/systemd/user.conf.d/*.conf": UNIT,
    "/etc/environment": PLAIN,
    "/etc/security/pam_env.conf": PAM,
    "/usr/lib/environment.d/*.conf": PLAIN,
    "/etc/environment.d/*.conf": PLAIN,
    "/etc/profile": SHELL,
    "/etc/bashrc": SHELL,
    "/etc/bash.bashrc": SHELL,
    "/etc/zshenv": SHELL,
    "/etc/zprofile": SHELL,
    "/etc/zshrc": SHELL,
    "/etc/zsh/zshenv": SHELL,
    "/etc/zsh/zprofile": SHELL,
    "/etc/zsh/zshrc": SHELL,
    "/etc/csh.cshrc": CSH,
    "/etc/csh.login": CSH,
    "/etc/fish/conf.d/*.fish": FISH,
    "/etc/fish/config.fish": FISH,
    "/etc/xonsh/xonshrc": XONSH,
    "/etc/xonsh/rc.d/*.xsh": XONSH,
    "/opt/microsoft/powershell/*/*profile.ps1": POWERSHELL,
    "/etc/profile.d/*.sh": SHELL,
    "/etc/profile.d/*.csh": CSH,
    "/etc/R/Renviron.site": PLAIN,
    "/etc/R/Rprofile.site": R,
    **{f"{home}/etc/Renviron.site": PLAIN for home in _R_HOMES},
    **{f"{home}/etc/Rprofile.site": R for home in _R_HOMES},
}
"""The same for everybody's: of Debian, of Enterprise Linux, of macOS, and of R where it is installed."""
_MAX_BYTES = 1 << 20
_MOST_SOURCED = 20
WORD = r"""(?:\$'(?:[^'\\\n]|\\.)*'|'[^'\n]*'|"[^"\n]*"|\\[^\n]|[^\s"'`;&|(){}<>,\\]|\{[A-Z]+\})+"""
"""A pattern: one word with its quotation marks; substitutions of commands are none."""
_SOURCE = rf"(?m)^(?P<before>[^#\n]*?[;&|({{ \t]|)(?:\.|source)[ \t]+(?P<path>{WORD})"
_ENVIRONMENT_FILE = r"(?m)^[ \t]*EnvironmentFile=-?(?P<path>[^\n]+)"
_SOURCING = (SHELL, FISH, CSH, NUSHELL, XONSH, POWERSHELL, UNIT)


class StartupText(NamedTuple):
    """What stands in a startup file."""

    path: str
    language: str
    is_certain: bool
    """Whether it is certain to be read: one that another file sources under a condition is not."""
    text: str


def texts_of_host(home: str) -> Iterator[StartupText]:
    """Yield everybody's startup files in the order in which they count; ``home`` is that of the user who asks."""
    return _texts("/", _SYSTEM_FILES, home)


def texts_of_user(home: str) -> Iterator[StartupText]:
    """Yield a user's own startup files, and what these source, in the order in which they count: the last one wins."""
    return _texts(home, _STARTUP_FILES, home)


def _texts(folder: str, names: Mapping[str, str], home: str) -> Iterator[StartupText]:
    """Yield the startup files in which anything stands."""
    paths = {path: language for name, language in names.items() for path in _paths(folder, name)}
    files = [(path, language, True) for path, language in paths.items()]
    while files:
        path, language, is_certain = files.pop(0)
        text = _text_of(path, language)
        if text:
            yield StartupText(path, language, is_certain, text)
        sourced = _sourced_in(text, language, home) if language in _SOURCING else []
        others = [(other, sure) for other, sure in sourced if other not in paths][:_MOST_SOURCED]
        theirs = PLAIN if language == UNIT else language
        paths.update((other, theirs) for other, _sure in others)
        files[:0] = [(other, theirs, is_certain and sure) for other, sure in others]


def _paths(folder: str, name: str) -> list[str]:
    name = name.lstrip("/")
    if "*" not in name:
        return [os.path.join(folder, name)]
    above = os.path.join(folder, name.partition("*")[0].rpartition("/")[0])
    if not os.path.isdir(above):  # most are not there, and to look for them all takes time
        return []
    return sorted(glob.glob(os.path.join(glob.escape(folder), name)))


def _text_of(path: str, language: str) -> str:
    """Return the text of a startup file; empty where it cannot be read, or is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hold us up
    except OSError:
        return ""
    content = b""
    with contextlib.suppress(OSError):
        try:
            part = os.read(descriptor, _MAX_BYTES)
            while part and len(content) < _MAX_BYTES:
                content += part
                part = os.read(descriptor, _MAX_BYTES)
        finally:
            os.close(descriptor)
    if language == POWERSHELL and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8", "surrogateescape")


def _sourced_in(text: str, language: str, home: str) -> list[tuple[str, bool]]:
    """Return the files that a startup file reads, and whether that is certain: nothing is in front of it."""
    if language == UNIT:
        named = [match["path"].strip(" \t\r\"'").replace("%h", home) for match in re.finditer(_ENVIRONMENT_FILE, text)]
        return [(path, True) for path in named if path.startswith("/") and "%" not in path and "\0" not in path]
    found = []
    for match in re.finditer(_SOURCE, text) if "source" in text or ". " in text else ():
        path = match["path"]
        if not re.fullmatch(r"[\w./-]+", path) and any(mark in path for mark in ("~", "HOME", "/", "x2f")):
            # Few files source others in such words.
            from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_words import plain_value

            path = plain_value(path, language, home) or ""
        if path.startswith("/") and "\0" not in path:
            found.append((path, not match["before"]))
    return found
