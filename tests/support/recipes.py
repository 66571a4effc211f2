# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recipes of the guide on vaults: what docs/docsite/rst/vaults.rst says, for tests to do it as it stands there.

A comment in front of a code block says what it is: `.. recipe NAME: write PATH` or `.. recipe NAME: run`.
"""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

from ansible_run import ROOT

PAGE = ROOT / "docs" / "docsite" / "rst" / "vaults.rst"
_RECIPE = re.compile(
    r"^\.\. recipe (?P<name>[a-z-]+): (?P<what>run|write (?P<path>\S+))\n\n"
    r"\.\. code-block:: \S+\n\n(?P<body>(?:   .*\n|\n)+)",
    re.MULTILINE,
)


class Step(NamedTuple):
    """A file to write (``path``), or commands to run (without one)."""

    path: str
    text: str


def recipes() -> dict[str, list[Step]]:
    """Return the steps of every recipe, by its name. Raises ValueError when one cannot be read."""
    page = PAGE.read_text(encoding="utf-8")
    found: dict[str, list[Step]] = {}
    for match in _RECIPE.finditer(page):
        text = textwrap.dedent(match["body"]).strip() + "\n"
        found.setdefault(match["name"], []).append(Step(match["path"] or "", text))
    if sum(map(len, found.values())) != page.count(".. recipe "):
        raise ValueError("a recipe is not followed by a code block")
    return found
