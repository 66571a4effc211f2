# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words of startup files by themselves: what they are without quotation marks and escapes."""

from __future__ import annotations

import re

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    FISH,
    JSON,
    NUSHELL,
    PYTHON,
    XONSH,
    R,
)

_PIECE = re.compile(
    r"""\$'(?P<ansi>(?:[^'\\]|\\.)*)'|'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<escape>\\.[^'"\\]*)
      |(?:(?!\$')[^'"\\])+""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:[xX](?P<hex>[0-9A-Fa-f]{1,2})|u(?P<code>[0-9A-Fa-f]{1,4})|(?P<octal>[0-7]{1,3})|(?P<other>.))"
)
_HOME = re.compile(r"^~(?=/|$)|[$@]\{?HOME\b\}?|\$env[.:]HOME\b")
_USER = re.compile(r"[$@]\{?(?:USER|LOGNAME)\b\}?|\$env[.:]USER\b")
_WITH_CODES = (JSON, PYTHON, XONSH, R, NUSHELL)
"""Languages in which ``"\\x2f"`` is a slash."""


def plain_value(word: str, language: str, home: str, user: str = "") -> str | None:
    """Return what a word (``WORD``) is without quotation marks and escapes; None where only running it tells.

    The home and the user's name are put in wherever they are named, also where some shells would not.
    """
    value = "".join(_unquoted(match, language) for match in _PIECE.finditer(word))
    value = _HOME.sub(lambda _match: home, value)
    value = _USER.sub(lambda _match: user, value) if user else value
    return None if set(value) & set("$`*?") else value


def _unquoted(piece: re.Match[str], language: str) -> str:
    if piece["single"] is not None:
        return piece["single"]
    if piece["ansi"] is not None:
        return _decoded(piece["ansi"], has_codes=True)
    if piece["double"] is not None:
        return _decoded(piece["double"], has_codes=language in _WITH_CODES)
    return _decoded(piece.group(), has_codes=language == FISH) if piece["escape"] else piece.group()


def _decoded(text: str, *, has_codes: bool) -> str:
    def character(escape: re.Match[str]) -> str:
        if not has_codes or escape["other"]:
            return escape.group()[1:]
        return chr(int(escape["octal"], 8) if escape["octal"] else int(escape["hex"] or escape["code"], 16))

    return _ESCAPE.sub(character, text)
