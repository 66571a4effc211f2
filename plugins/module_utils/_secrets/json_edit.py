# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of single members in the text of a JSON object; every other byte stays as it is."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Collection, Iterable, Mapping, NamedTuple

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
    mine = [member for member in found if member.key == key]
    if not mine:
        return _with_members(text, found, [f"{json.dumps(key)}: {json.dumps(value)}"])
    if all(member.value == value and text[member.value_start] == '"' for member in mine):  # a number is text here, too
        return text
    return _replaced(text, [(member.value_start, member.value_end, json.dumps(value)) for member in mine])


def add_members(text: str, other: str, keys: Collection[str]) -> str:
    """Return ``text`` with the members of the object ``other`` that have one of ``keys``, as they stand there."""
    added = [other[member.key_start : member.value_end] for member in members(other) if member.key in keys]
    return _with_members(text, members(text), added) if added else text


def replace_values(text: str, new_values: Mapping[str, str | None], besides: Collection[str] = ()) -> str:
    """Return ``text`` with strings replaced wherever they are the value of a member.

    Args:
        text: a JSON object.
        new_values: old value -> new value; None: the member goes.
        besides: keys that stay as they are.
    """
    hit = [
        member
        for member in members(text)
        if isinstance(member.value, str) and member.value in new_values and member.key not in besides
    ]
    spans = [(member.value_start, member.value_end, new_values[member.value]) for member in hit]
    replaced = _replaced(text, [(start, end, json.dumps(new)) for start, end, new in spans if new is not None])
    gone = [member.value for member in hit if new_values[member.value] is None]
    return _without(replaced, lambda member: member.value in gone and member.key not in besides) if gone else replaced


def remove_member(text: str, key: str) -> str:
    """Return ``text`` without ``key``, however often it stands there."""
    return _without(text, lambda member: member.key == key)


def _without(text: str, is_doomed: Callable[[Member], bool]) -> str:
    found = members(text)
    doomed = [is_doomed(member) for member in found]
    if not any(doomed):
        return text
    if all(doomed):
        return text[: found[0].key_start] + text[found[-1].value_end :]
    last = max(index for index, goes in enumerate(doomed) if not goes)
    cuts = [(found[index].key_start, found[index + 1].key_start, "") for index in range(last) if doomed[index]]
    return _replaced(text, [*cuts, (found[last].value_end, found[-1].value_end, "")])


def _with_members(text: str, found: list[Member], new: list[str]) -> str:
    """Return ``text`` with the texts of further members at the end; ``found`` are those that it has."""
    start = text.index("{") + 1
    if not found:
        return text[:start] + ", ".join(new) + text[text.index("}") :]
    lead = text[start : found[0].key_start]
    end = found[-1].value_end
    return text[:end] + "".join(f",{lead or ' '}{member}" for member in new) + text[end:]


def _replaced(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """Return ``text`` with something else in the place of each span (start, end, new text); the spans are in order."""
    pieces, position = [], 0
    for start, end, new in spans:
        pieces += [text[position:start], new]
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
