# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attack on the tests themselves: known defects, each of which some test has to notice."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from torture import mutations
from torture.attacks import Report, attack
from torture.write_path import thinned


@attack(
    "defects",
    "A promise that is broken by a change is noticed by a test",
    f"{len(mutations.DEFECTS)} known defects, one after the other, in the write path, the masking and the verdicts",
    fewest=len(mutations.DEFECTS),
)
def seeded_defects(report: Report, scale: float) -> None:
    """Put each defect into a copy of the collection, and run the tests that ought to notice."""
    with tempfile.TemporaryDirectory(prefix="defects-") as folder:
        for found in mutations.run(thinned(list(mutations.DEFECTS), scale), Path(folder), sys.executable):
            report.tries += 1
            report.check(bool(found["caught_by"]), f"{found['defect']}: {found['about']}. {found['note']}")
            report.caught[found["defect"]] = found["caught_by"]
