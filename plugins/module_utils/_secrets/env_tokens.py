# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens that stand in startup files as environment variables, where no program of this collection replaces them."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Iterator, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import looks_like_a_token
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    texts_of_host,
    texts_of_user,
)

CHUNKEDGRAPH_SECRET = "CHUNKEDGRAPH_SECRET"  # noqa: S105 (the name of a variable)
"""natverse's, which saves its value into the secrets files."""
NAMES = re.compile(r"(CAVE|CAVECLIENT|CHUNKEDGRAPH|FLYWIRE|MICRONS|BANC|FANC)(_[A-Z0-9]+)*_(TOKEN|SECRET|KEY)")
"""People's own programs know the others."""
_SHORTEST = 16
_LONGEST_LINE = 4096
"""Characters. Nobody types more, and to search in a line takes quadratic time."""
_ASSIGNMENT = re.compile(
    rf"""^(?P<before>[^#\n]*?)\b(?P<name>{NAMES.pattern})\b(?P<item>["']\]?)?[ \t]*(?:=|[ \t]|,|:(?![-=+?]))[ \t]*"""
    r"""(?:(?:DEFAULT|OVERRIDE)=)?(?:\$(?='))?(?P<quote>["']?)(?P<token>[A-Za-z0-9+/=_.-]+)(?P=quote)(?P<after>[^\n]*)$""",
    re.MULTILINE,
)
_ALONE = re.compile(r"\s*((export|setenv|set\s+(-\S+\s+)+|Sys\.setenv\()\s*)?")


class EnvToken(NamedTuple):
    """A token that a startup file puts into the environment."""

    path: str
    line: int
    name: str
    token: str
    is_alone: bool
    """Whether nothing else is in the line."""
    is_item: bool = False
    """Whether it is an item of JSON or of Python's ``os.environ``, whose place is not to be left empty."""

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"<{self.name} in {self.path}:{self.line}>"


def env_tokens(path: str, text: str) -> Iterator[EnvToken]:
    """Yield the tokens that a startup file's lines give to one of ``NAMES``; comments count for nothing."""
    text = "\n".join(line if len(line) <= _LONGEST_LINE else "" for line in text.split("\n"))
    for match in _ASSIGNMENT.finditer(text) if NAMES.search(text) else ():
        try:
            token = clean_token(match["token"])
        except CaveError:
            continue  # a placeholder, or the name of another variable
        if len(token) >= _SHORTEST and (not match["name"].endswith("_AUTH_TOKEN_KEY") or looks_like_a_token(token)):
            is_alone = bool(_ALONE.fullmatch(match["before"])) and match["after"].strip() in ("", ")", ";")
            line = text.count("\n", 0, match.start("name")) + 1
            yield EnvToken(path, line, match["name"], token, is_alone, bool(match["item"]))


def tokens_in_environment(home: str) -> list[EnvToken]:
    """Return the tokens that startup files of a user and of the host put into the environment.

    To be called in a process of the user.
    """
    by_place: dict[tuple[int, int], tuple[str, str]] = {}
    for one in (*texts_of_user(home), *texts_of_host(home)):
        with contextlib.suppress(OSError):
            status = os.stat(one.path)
            by_place.setdefault((status.st_dev, status.st_ino), (one.path, one.text))  # Debian's R links to /etc
    return [found for path, text in by_place.values() for found in env_tokens(path, text)]
