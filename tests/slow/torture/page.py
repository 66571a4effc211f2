# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of attacks in the guide on security."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torture.attacks import Attack, Report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "docsite" / "rst" / "security.rst"
BEGIN, END = ".. The table is written by: python -m torture --page\n", ".. End of the table.\n"
NOT_YET = "not yet"
_RESULT = re.compile(r"(?P<tries>[\d,]+) tries, (?P<failures>[\d,]+) failures, (?P<when>\d{4}-\d\d-\d\d)")


def rows(attacks: Mapping[str, Attack], reports: Mapping[str, Report]) -> list[tuple[str, str, str, str]]:
    """Return what the table says: promise, attack, the fewest tries that count, and the last run at full size.

    Of an attack without such a run in ``reports``, what the table has so far stays.
    """
    found = []
    so_far = {row[1].split("``")[1]: row[3] for row in read()}
    for name, attack in attacks.items():
        report = reports.get(name)
        told = so_far.get(name, NOT_YET)
        if report and report.scale >= 1 and report.tries and report.when:
            told = f"{report.tries:,} tries, {report.failures:,} failures, {report.when}"
        about = attack.about[0].upper() + attack.about[1:]
        found.append((f"{attack.promise}.", f"``{name}``: {about}.", f"{attack.fewest:,}", told))
    return found


def write(attacks: Mapping[str, Attack], reports: Mapping[str, Report]) -> None:
    """Write the table into the guide."""
    text = PAGE.read_text(encoding="utf-8")
    before, _begin, rest = text.partition(BEGIN)
    _table, _end, after = rest.partition(END)
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 34 40 10 16", ""]
    for row in [("promise", "attack", "tries, at least", "last run"), *rows(attacks, reports)]:
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")


def read() -> list[tuple[str, ...]]:
    """Return the rows of the table in the guide, without its header."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = [line[7:] for line in table.splitlines() if re.match(r"   [* ] - ", line)]
    return [tuple(cells[start : start + 4]) for start in range(4, len(cells), 4)]


def result_of(cell: str) -> tuple[int, int] | None:
    """Return tries and failures of a row's last cell; None when the attack was not run at full size yet."""
    if cell == NOT_YET:
        return None
    match = _RESULT.fullmatch(cell)
    if not match:
        raise ValueError(f"not a result: {cell}")
    return int(match["tries"].replace(",", "")), int(match["failures"].replace(",", ""))
