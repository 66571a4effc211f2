# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every set of requests and every set of files that they find; the slow tests try far more of both."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from plan_promises import PROMISES, Case, cases


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_whatever_files_and_requests_there_are_every_promise_holds(case: Case) -> None:
    for promise in PROMISES:
        promise(case)
