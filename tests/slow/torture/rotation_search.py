# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attacks on rotations: random labs, in memory with seeds that nobody has tried yet, and on the real playbook.

ROTATION_SEED is the first seed on the playbook, 1 by default.
"""

from __future__ import annotations

import os
import secrets

import rotation_playbook
from rotation_labs import search_apart
from torture.attacks import Report, Short, attack

FULL = 500_000
AT_ONCE = 20_000
"""Steps of one process, which has a seed of its own."""


@attack(
    "rotation-model",
    "No rotation locks anybody out, loses a token or does anything twice",
    "random labs, limits, kills and accidents, with what is decided in a simulated fleet; a try is a step",
    fewest=FULL,
    short=Short(0.1, FULL // 10),
)
def random_labs(report: Report, scale: float) -> None:
    """Search with fresh seeds; a part of the full size takes always the same ones."""
    while report.tries < FULL * scale:
        number = report.counts["seeds"] = report.counts.get("seeds", 0) + 1
        seed = secrets.randbelow(2**32) if scale >= 1 else number
        words = ["rotation_labs", str(AT_ONCE), str(seed), *(["departures"] if number % 4 == 0 else [])]
        found = search_apart(*words)
        # "N steps" is the last line: before it, Hypothesis may warn that it takes long to find a small example.
        report.tries += int(found.stdout.split()[-2]) if found.stdout else AT_ONCE
        report.check(found.returncode == 0, f"python -m {' '.join(words)}: {found.stderr[-300:]}")


@attack(
    "rotation-playbook",
    "No rotation locks anybody out, loses a token or does anything twice",
    "random small labs, limits, kills and accidents, with the real playbook, files and server; a try is a run of it",
    fewest=200,
    short=Short(0.04, 8),
)
def random_runs(report: Report, scale: float) -> None:
    """Tell stories of a few runs each, until there were as many as wanted, or one shows a fault."""
    try:
        for runs in rotation_playbook.search(round(200 * scale), int(os.environ.get("ROTATION_SEED", "1"))):
            report.tries += runs
    except rotation_playbook.WrongError as error:
        report.check(False, str(error))
