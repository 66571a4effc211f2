# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which known name a misspelt one was probably meant to be."""

from __future__ import annotations

import contextlib
import pwd
from typing import Iterable, Sequence

_LOOK_ALIKE = str.maketrans("li|o_. ", "1110---")
"""Characters, in lower case, that are mistaken for each other."""
_NAMED = 5
_LONGEST = 200
"""Characters; what is longer is no name."""


def similar(name: str, known: Iterable[str], apart: float = 0.4) -> list[str]:
    """Return the known names that a misspelt one is nearest to, in their order; empty when none is near, or it is one.

    Names that only look different, by case or by l, 1 and I, O and 0, - and _, are nearer than all others.

    Args:
        name: the misspelt one.
        known: the right ones.
        apart: the share of characters that may be wrong.
    """
    names = list(dict.fromkeys(known))
    if len(name) > _LONGEST or name in names:
        return []
    folded = _folded(name)
    distances = {}
    for right in names:
        most = int(apart * max(len(name), len(right)))
        if abs(len(name) - len(right)) <= most:
            distance = _distance(folded, _folded(right))
            if distance <= most:
                distances[right] = distance
    nearest = min(distances.values(), default=0)
    return [right for right, distance in distances.items() if distance == nearest]


def did_you_mean(name: str, known: Iterable[str], apart: float = 0.4) -> str:
    """Return a question, after a space, that names what is nearest to a misspelt name; empty when nothing is near."""
    return choice_of(similar(name, known, apart))


def choice_of(names: Sequence[str]) -> str:
    """Return a question, after a space, whether one of these was meant; empty for none."""
    if not names:
        return ""
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"one of {len(names) - _NAMED + 1} more like these"]
    return f" Did you mean {', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}?"


def account_meant(name: str) -> str:
    """Return the account of which somebody typed the user id, or the name with white space; empty for none."""
    typed = name.strip()
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        is_id = typed.isascii() and typed.isdigit()
        return (pwd.getpwuid(int(typed)) if is_id else pwd.getpwnam(typed)).pw_name
    return ""


def _folded(name: str) -> str:
    return name.lower().translate(_LOOK_ALIKE)


def _distance(one: str, other: str) -> int:
    """Return how many characters are wrong, missing, too many, or change places with the next one."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, there in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != there))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == there:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
