# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of single members in the text of a JSON object; every other byte stays as it is."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers stay text: a huge one is somebody's, and is neither computed nor refused.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


class Member(NamedTuple):
    """A member of the object, and where it stands in the text (offsets in characters)."""

    key: str
    value: Any
    key_start: int
    value_start: int
    value_end: int


def members(text: str) -> list[Member]:
    """Return the members of the JSON object that ``text`` is, in order, repeated keys included.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    found = []
    position = _after_space(text, 0)
    if text[position : position + 1] != "{":
        _DECODER.decode(text)  # so that broken JSON is told from JSON that is not an object
        raise ValueError("not an object")
    position = _after_space(text, position + 1)
    while text[position : position + 1] != "}":
        if found:
            position = _after_space(text, _expect(text, position, ","))
        key_start = position
        if text[position : position + 1] != '"':
            raise json.JSONDecodeError("Expecting a key in double quotes", text, position)
        key, position = _decode(text, position)
        value_start = _after_space(text, _expect(text, _after_space(text, position), ":"))
        value, value_end = _decode(text, value_start)
        found.append(Member(key, value, key_start, value_start, value_end))
        position = _after_space(text, value_end)
    if _after_space(text, position + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, position + 1)
    return found


def set_member(text: str, key: str, value: str) -> str:
    """Return ``text`` with ``key`` set to the string ``value``; a new key goes to the end, in the style of the others."""
    found = members(text)
    new_value = json.dumps(value)
    mine = [member for member in found if member.key == key]
    for member in reversed(mine):
        text = text[: member.value_start] + new_value + text[member.value_end :]
    if mine:
        return text
    member_text = f"{json.dumps(key)}: {new_value}"
    if not found:
        brace = text.index("{") + 1
        return text[:brace] + member_text + text[brace:].lstrip(" \t\r\n")
    lead = text[text.index("{") + 1 : found[0].key_start]
    end = found[-1].value_end
    return text[:end] + "," + (lead or " ") + member_text + text[end:]


def remove_member(text: str, key: str) -> str:
    """Return ``text`` without ``key``, however often it stands there."""
    found = members(text)
    for index in reversed(range(len(found))):
        if found[index].key != key:
            continue
        if index + 1 < len(found):
            start, end = found[index].key_start, found[index + 1].key_start
        else:
            start, end = found[index - 1].value_end if index else found[index].key_start, found[index].value_end
        text = text[:start] + text[end:]
        found = members(text)
    return text


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"Expecting {character!r}", text, position)
    return position + 1


def _decode(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except StopIteration as error:
        raise json.JSONDecodeError("Expecting a value", text, position) from error
    except RecursionError as error:
        raise json.JSONDecodeError("Nested too deeply", text, position) from error
