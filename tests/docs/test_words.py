# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read aloud: what users read has none of the words by which a text gives away that no native engineer wrote it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_run import ROOT

AVOIDED = re.compile(
    r"\b(mend(s|ed|ing)?|shall|unforeseen|carr(y|ies|ied) on|tell whether|(is|are) meant|as (it|they) likes?"
    r"|whatever it is|wants a pause|(are|got|get|is not|are not) well|comes? too often|a time in which)\b",
    re.IGNORECASE,
)
PLACES = ("docs/docsite/rst", "playbooks", "plugins", "roles", "changelogs/fragments")
TEXTS = [
    *(ROOT / name for name in ("README.md", "SUPPORT.md", "SECURITY.md")),
    *(path for place in PLACES for path in sorted((ROOT / place).rglob("*.*"))),
]


def found_in(path: Path) -> list[str]:
    """Return where a file has such a word, with what is around it."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    return [
        f"{path.relative_to(ROOT)}: {text[max(0, match.start() - 30) : match.end() + 30]}"
        for match in AVOIDED.finditer(text)
    ]


def test_what_users_read_is_plain_english() -> None:
    read = [path for path in TEXTS if path.suffix in (".py", ".yml", ".rst", ".md", ".j2")]
    assert [place for path in read for place in found_in(path)] == []


@pytest.mark.parametrize("text", ["Mend it by hand.", "did not get well", "It carries on.", "Whatever it is"])
def test_the_words_of_the_list_are_found(text: str) -> None:
    assert AVOIDED.search(text)
