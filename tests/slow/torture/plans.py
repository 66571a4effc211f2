# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks on what is planned for secrets files."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, seed, settings
from plan_promises import PROMISES, Case, cases
from torture.attacks import Report, Short, attack


@attack(
    "plans",
    "Every reader sends the token of its server after one run, and a second run changes nothing",
    "requests for several servers and keys, on random files in two directories",
    fewest=20_000,
    short=Short(0.05, 1000),
)
def any_files_and_requests(report: Report, scale: float) -> None:
    """Plan for files and requests of every kind, and look at every promise."""

    # The short form is the same in every run; the full one is another each time, and a failure names it.
    number = 0 if scale < 1 else int.from_bytes(os.urandom(4), "big")

    @seed(number)
    @settings(
        max_examples=max(50, round(20_000 * scale)),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def attack(case: Case) -> None:
        report.tries += 1
        for promise in PROMISES:
            try:
                promise(case)
            except AssertionError:
                asked = f"{case.asked} on {case.files}, stale={case.stale}"
                report.check(False, f"seed {number}: {promise.__name__}: {asked}")

    attack()
