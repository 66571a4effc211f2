# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of single members in the text of a JSON object; every other byte stays as it is."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_MAX_DIGITS = 4300  # sys.int_info.default_max_str_digits of Python 3.11 and later


def _number(text: str) -> str:
    # Numbers stay text, since nobody computes with them; one that the readers' own JSON decoder refuses is refused.
    if len(text) > _MAX_DIGITS:
        raise ValueError("number too long")
    return text


_DECODER = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=str)


class NotAnObject(ValueError):  # noqa: N818 (says what was found, as the codes of _secrets do)
    """Sound JSON, but not an object."""


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
        json.JSONDecodeError: it is not JSON.
        NotAnObject: it is something else than an object.
    """
    found: list[Member] = []
    position = _after_space(text, 0)
    if text[position : position + 1] != "{":
        _value, end = _decode(text, position)  # so that broken JSON is told from JSON that is not an object
        if _after_space(text, end) == len(text):
            raise NotAnObject
        raise json.JSONDecodeError("Extra data", text, end)
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
    """Return ``text`` with ``key`` set to the string ``value``, however often it stands there.

    A new key goes to the end, in the style of the others.
    """
    found = members(text)
    new_value = json.dumps(value)
    mine = [member for member in found if member.key == key]
    if mine:
        return _replaced(text, [(member.value_start, member.value_end) for member in mine], new_value)
    new_member = f"{json.dumps(key)}: {new_value}"
    start = text.index("{") + 1
    if not found:
        return text[:start] + new_member + text[text.index("}") :]
    lead = text[start : found[0].key_start]
    end = found[-1].value_end
    return f"{text[:end]},{lead or ' '}{new_member}{text[end:]}"


def remove_member(text: str, key: str) -> str:
    """Return ``text`` without ``key``, however often it stands there."""
    found = members(text)
    kept = [index for index, member in enumerate(found) if member.key != key]
    if len(kept) == len(found):
        return text
    if not kept:
        return text[: found[0].key_start] + text[found[-1].value_end :]
    last = kept[-1]
    cuts = [(found[index].key_start, found[index + 1].key_start) for index in range(last) if found[index].key == key]
    return _replaced(text, [*cuts, (found[last].value_end, found[-1].value_end)], "")


def _replaced(text: str, spans: list[tuple[int, int]], by: str) -> str:
    """Return ``text`` with something else in the place of each span; the spans are in order."""
    pieces, position = [], 0
    for start, end in spans:
        pieces += [text[position:start], by if end > start else ""]
        position = end
    return "".join([*pieces, text[position:]])


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
    except json.JSONDecodeError:
        raise
    except StopIteration:
        reason = "Expecting a value"
    except RecursionError:
        reason = "Nested too deeply"
    except ValueError:
        reason = "Number too long"
    raise json.JSONDecodeError(reason, text, position)
