# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values that startup files give to further variables, under whichever condition: read and never run."""

from __future__ import annotations

import os
import re
from typing import Iterator, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import JSON, WORD
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_words import plain_value

PATHS = ("CLOUD_FILES_DIR", "NETRC")
"""Variables that name places."""
TOKEN_KEYS = {
    "BANC_AUTH_TOKEN_KEY": ("banc", "brain_and_nerve_cord"),
    "FANC_AUTH_TOKEN_KEY": ("fanc", "fanc_production_mar2021"),
}
"""Variable that names the key under which a package looks for the token in the secrets files -> the package, and its
datastack, which is the key without the variable (auth.py of banc 0.6.1 and fanc-fly 3.2.3)."""
CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name the CA certificates to trust, in the place of the system's."""
_LONGEST = 4000
"""Bytes: with what comes below it, no more than systems take."""
_NAME = "|".join((*PATHS, *TOKEN_KEYS, *CA_BUNDLES))
_ASSIGNMENT = re.compile(
    # Whole between quotation marks, as in a unit's "NAME=value", or as it stands.
    rf"""(?P<mark>["'])(?P<inside>{_NAME})=(?P<whole>[^"'\n]*)(?P=mark)
       | (?<!\w)(?P<name>{_NAME})(?!\w)["']?\]?[ \t]*(?P<sign>=(?!=)|[ \t]|,|:(?![-=+?]))[ \t]*
         (?P<pam>(?:DEFAULT|OVERRIDE)=)?(?P<value>{WORD})""",
    re.VERBOSE,
)
_SETTING = r"(?:\bsetenv|\bset-env|\bset(?:[ \t]+-\S+)*)[ \t]+$"
"""Commands that take a name and, behind white space, a value."""
_LONGEST_COMMAND = 200
"""Characters: all of a line before each match would take quadratic time."""
_READING = ("$", "${", 'get("', "get('")
"""What stands before the name of a variable whose value is asked for."""
_CONDITION = re.compile(r"^[ \t]|&&|\|\||\[[ \t\[]|\b(if|then|test|and|or)\b")
"""What stands before an assignment that may not be made. In JSON, nothing is conditional."""


class EnvValue(NamedTuple):
    """A value that a startup file gives to a variable."""

    name: str
    value: str | None
    """None: only running the file tells."""
    startup_file: str
    line: int
    is_certain: bool = True
    """Whether it is given in any case, as far as its line tells."""

    @property
    def path(self) -> str:
        """The value where it is an absolute path; empty otherwise."""
        path = self.value or ""
        is_path = path.startswith("/") and path.isprintable() and len(os.fsencode(path)) < _LONGEST
        return (path.rstrip("/") or "/") if is_path else ""


def env_values(startup_file: str, language: str, text: str, home: str, user: str) -> Iterator[EnvValue]:
    """Yield what a startup file's lines give to ``CLOUD_FILES_DIR``, ``NETRC`` and the like; comments don't count."""
    for number, line in enumerate(text.split("\n"), 1):
        comment = line.find("#")
        for match in _ASSIGNMENT.finditer(line):
            before = line[max(0, match.start() - _LONGEST_COMMAND) : match.start()]
            is_xonsh = before.strip() == "$" and match["sign"] == "="
            is_bare = (match["sign"] or "=").isspace() and not match["pam"] and not re.search(_SETTING, before)
            if 0 <= comment < match.start() or is_bare or (before.endswith(_READING) and not is_xonsh):
                continue
            word = match["value"] if match["name"] else f'"{match["whole"]}"'
            value = plain_value(word, language, home, user)
            is_certain = language == JSON or not _CONDITION.search(line[: match.start()][:_LONGEST_COMMAND])
            yield EnvValue(match["name"] or match["inside"], value, startup_file, number, is_certain)
