# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every set of requests and every set of files that they find; the slow tests try far more of both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from plan_promises import DIRECTORIES, GLOBAL, PROMISES, ZETTA, Case, cases

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import Datastack
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_whatever_files_and_requests_there_are_every_promise_holds(case: Case) -> None:
    for promise in PROMISES:
        promise(case)


HOME, ELSEWHERE = DIRECTORIES
FOUND = {
    # What proves that a token of the default file is another server's is replaced in the same run.
    "the proof of an owner goes": Case.of(
        {
            f"{HOME}/prod.flywire-daf.com-cave-secret.json": '{"banc": "token-1"}',
            f"{ELSEWHERE}/cave-secret.json": '{"zetta": "token-1"}',
            f"{ELSEWHERE}/prod.flywire-daf.com-cave-secret.json": '{"zetta": "token-1"}',
        },
        [
            Request(GLOBAL, [Datastack("flywire_fafb_public", "https://prod.flywire-daf.com")], "banc", "token-3"),
            Request(ZETTA, [], "zetta", "token-4"),
            Request(ZETTA, [], "banc", "token-1"),
        ],
        "report",
    ),
    "a copy of what is removed from the legacy file": Case.of(
        {
            f"{HOME}/cave.lab.example-cave-secret.json": '{"banc": "token-2"}',
            f"{HOME}/chunkedgraph-secret.json": '{"banc": "token-1", "token": "token-1"}',
            f"{HOME}/cave-secret.json": '{"banc": "token-2"}',
        },
        [Request(GLOBAL, [], "banc", None)],
        "update",
    ),
    "a further key with what is removed from the legacy file": Case.of(
        {
            f"{HOME}/cave-secret.json": '{"mine": "token-3", "token": "token-2"}',
            f"{HOME}/chunkedgraph-secret.json": '{"token": "token-3"}',
        },
        [Request(ZETTA, [], "token", None), Request(GLOBAL, [], "token", "token-2")],
        "update",
    ),
}


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_cases_that_a_long_search_has_found_stay_right(case: Case, promise: Callable[[Case], None]) -> None:
    promise(case)
