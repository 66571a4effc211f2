# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that the system gives as bytes (of files, accounts), as text that can be shown, and back."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def names_are_utf8() -> bool:
    """Return whether this process takes names of files and accounts for UTF-8, as it does but for old locales."""
    return sys.getfilesystemencoding().lower().replace("-", "") == "utf8"


def system_name(name: str) -> str:
    """Return a name as this process has to spell it so that the system sees its UTF-8 form, whatever the locale."""
    return name if names_are_utf8() else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def readable(value: Any) -> Any:
    """Return a value in which every string is valid UTF-8 and harmless to a terminal, keys of mappings included.

    Names in another encoding than the locale's become what they are in UTF-8; bytes that are no UTF-8 and control
    characters are written as escapes, such as ``\\xff``. Line feeds and tabs stay.
    """
    if isinstance(value, str):
        return _readable_text(value)
    if isinstance(value, dict):
        return {readable(key): readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return value


def quoted(path: str) -> str:
    """Return a path as one word of a shell: where it holds what nobody can type, in the form ``$'...\\xff...'``."""
    raw = os.fsencode(path)
    try:
        if raw.decode("utf-8").isprintable():
            return shlex.quote(path)
    except UnicodeDecodeError:
        pass
    plain = {ord("'"): "\\'", ord("\\"): "\\\\"}
    return (
        "$'"
        + "".join(plain.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in raw)
        + "'"
    )


def _readable_text(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    if not names_are_utf8():
        text = _BEYOND_ASCII.sub(_in_utf8, text)
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def _in_utf8(run: re.Match[str]) -> str:
    try:
        return os.fsencode(run.group()).decode("utf-8")
    except UnicodeError:
        return run.group()


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
