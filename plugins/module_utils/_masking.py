# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hiding what is secret among a module's arguments, wherever it turns up again."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
PART_HIDDEN = "********"


def secrets_among(params: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands in the options that an argument spec marks with ``no_log``."""
    for name, option in spec.items():
        value = params.get(name)
        if option.get("no_log"):
            yield from strings_in(value)
        elif option.get("options") and value is not None:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Mapping):
                    yield from secrets_among(item, option["options"])


def strings_in(value: Any) -> Iterator[str]:
    """Yield the strings in a value, and its numbers as strings, however deep."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from strings_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings_in(inner)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "":
        yield str(value)


def masked(value: Any, secrets: set[str]) -> Any:
    """Return a value in which no string is or holds one of ``secrets``."""
    return _masked(value, sorted(secrets, key=len, reverse=True)) if secrets else value


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _masked(inner, secrets) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(inner, secrets) for inner in value]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    text = str(value)
    if text in secrets:
        return HIDDEN
    for secret in secrets:
        text = text.replace(secret, PART_HIDDEN)
    return value if text == str(value) else text
