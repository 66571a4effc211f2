# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the startup files of a user and of the host put into the environment of the user's programs: read, never run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    SHELL,
    VARIABLE,
    StartupText,
    texts_of_host,
    texts_of_user,
)

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue

CLOUD_FILES_DIR = "CLOUD_FILES_DIR"
"""Where cloud-files looks for secrets files last."""
NETRC = "NETRC"
"""The file that requests takes in the place of ``~/.netrc``."""
_OTHERS = (CLOUD_FILES_DIR, NETRC, "_AUTH_TOKEN_KEY", "_CA_BUNDLE", "SSL_CERT_FILE")
_LONGEST_PATH = 4000
"""Bytes: with what comes below it, no more than systems take."""


class Doubt(NamedTuple):
    """A startup file of which it is not certain what it makes of CLOUD_VOLUME_DIR."""

    path: str
    line: int
    language: str
    other: str = ""
    """A file that sets it to something else; empty where this one cannot be resolved."""


class CloudVolumeDir(NamedTuple):
    """A user's CLOUD_VOLUME_DIR, as far as it can be known without running anything of the user's."""

    value: str
    """Empty: not set."""
    path: str = ""
    """The file that sets it, empty where no file does."""
    language: str = SHELL
    """Of that file."""
    doubts: tuple[Doubt, ...] = ()


class Environment(NamedTuple):
    """The places that a user's programs are told by variables, as far as that can be known."""

    cloud_volume_dir: CloudVolumeDir
    cloud_files_dir: str
    """Empty: not set."""
    netrc: dict[str, str]
    """Netrc file -> the startup file that names it with NETRC."""
    token_keys: tuple[EnvValue, ...] = ()
    """What startup files give to ``TOKEN_KEYS``."""
    ca_bundles: tuple[EnvValue, ...] = ()
    """What they give to ``CA_BUNDLES``."""

    def examined_bundles(self) -> tuple[tuple[EnvValue, str], ...]:
        """Return what is named by ``CA_BUNDLES``, with why it cannot be used; empty where it can."""
        if not self.ca_bundles:
            return ()
        from ansible_collections.connectomics.cave.plugins.module_utils._secrets.ca_bundles import bundles

        return tuple(bundles(self.ca_bundles))


def environment_of(home: str, user: str, inherited: Mapping[str, str]) -> Environment:
    """Return the environment of a user; to be called in a process that is the user.

    The user's startup files win over what this process has ``inherited``, and that over ``/etc``.
    """
    values: list[EnvValue] = []

    def settings(texts: Iterable[StartupText]) -> list[tuple[str | None, Doubt]]:
        found = []
        for one in texts:
            values.extend(_values(one, home, user))
            if VARIABLE in one.text:
                found += _settings(one, known)
        return found

    known = {"HOME": home, "USER": user, "LOGNAME": user, VARIABLE: ""}
    system = settings(texts_of_host(home))
    value = inherited.get(VARIABLE, "")
    if value.startswith("/"):
        system = [(value, Doubt("", 0, SHELL))]
    if system:
        known[VARIABLE] = system[-1][0] or ""
    own = settings(texts_of_user(home))
    files_dirs = [found.path for found in values if found.name == CLOUD_FILES_DIR and found.path]
    return Environment(
        _decided(own or system, known[VARIABLE]),
        files_dirs[-1] if files_dirs else inherited.get(CLOUD_FILES_DIR, ""),
        {found.path: found.startup_file for found in values if found.name == NETRC and found.path},
        tuple(found for found in values if found.name.endswith("_KEY")),
        tuple(found for found in values if found.name.endswith(("_BUNDLE", "_CERT_FILE"))),
    )


def _values(file: StartupText, home: str, user: str) -> Iterable[EnvValue]:
    """Return what a startup file gives to further variables."""
    if not any(name in file.text for name in _OTHERS):
        return ()
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import env_values

    return env_values(file.path, file.language, file.text, home, user)


def _decided(found: list[tuple[str | None, Doubt]], otherwise: str) -> CloudVolumeDir:
    """Return what several settings come to; ``otherwise`` is the value where none of them is certain."""
    if not found:
        return CloudVolumeDir("")
    certain = [(value, where) for value, where in found if value is not None]
    doubts = [where for value, where in found if value is None]
    value, last = certain[-1] if certain else (otherwise, Doubt("", 0, SHELL))
    doubts += [where._replace(other=last.path) for other, where in certain if other != value]
    return CloudVolumeDir(value, last.path, last.language, tuple(doubts))


def _settings(file: StartupText, known: Mapping[str, str]) -> list[tuple[str | None, Doubt]]:
    """Return what a startup file that concerns the variable sets it to, if anything; None where that is not certain."""
    # Few homes have such a file, and to compile this takes longer than to read all of them.
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_files import setting

    # /etc/environment is taken word for word.
    result = setting(file.text, file.language, {} if file.path == "/etc/environment" else known)
    if result is None:
        return []
    value = result.value if file.is_certain else None
    if value and not (value.startswith("/") and value.isprintable() and len(os.fsencode(value)) < _LONGEST_PATH):
        value = None
    return [(value, Doubt(file.path, result.line, file.language))]
