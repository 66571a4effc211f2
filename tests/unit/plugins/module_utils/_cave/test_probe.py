# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from raw_server import RawServer, http_answer

from ansible_collections.connectomics.cave.plugins.module_utils._cave import probe as _probe
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

TOKEN = "0123456789abcdef0123456789abcdef"
ALICE = {
    "id": 3,
    "name": "Alice",
    "email": "alice@lab.example",
    "missing_tos": [],
    "permissions_v2": {"minnie65_public": ["view"]},
    "permissions_v2_ignore_tos": {"minnie65_public": ["view"]},
}
RECORD = {"aligned_volume": {"id": 1}, "local_server": "https://minnie.microns-daf.com"}
USER_CACHE = "/auth/api/v1/user/cache"
MINNIE = "/info/api/v2/datastack/full/minnie65_public"
OTHER = "/info/api/v2/datastack/full/other"
OTHERS_DATASET = "/auth/api/v1/service/datastack/table/other/dataset"
UNKNOWN = {"error": "invalid_table_id", "message": "Invalid table_id for service"}


pytestmark = pytest.mark.usefixtures("no_proxies")


class Cave(RawServer):
    """Answers each path with what it was given, and remembers which were asked."""

    def __init__(self, answers: Mapping[str, tuple[int, object]], pause: float = 0) -> None:
        super().__init__(self._answer)
        self.answers = answers
        self.pause = pause
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    @property
    def asked(self) -> list[str]:
        return [request.split()[1].decode() for request in self.requests]

    @property
    def tokens(self) -> list[str]:
        return [re.search(rb"Bearer (\S+)", request)[1].decode() for request in self.requests]  # type: ignore[index]  # it has one

    def _answer(self, connection: socket.socket) -> None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            path = self.asked[-1]
        self.stopped.wait(self.pause)
        with self._lock:
            self.at_once -= 1
        status, content = self.answers[path]
        connection.sendall(http_answer(json.dumps(content).encode(), status=f"{status} X"))


def access_of(cave: Cave, *datastacks: str, **options: Any) -> Access:
    question = Question(cave.url, TOKEN, datastacks)
    return prove([question], **options)[question]


def test_a_good_token_takes_one_request() -> None:
    with Cave({USER_CACHE: (200, ALICE)}) as cave:
        verdict = access_of(cave, "minnie65_public").overall
    assert cave.asked == [USER_CACHE]
    assert verdict.ok
    assert verdict.fingerprint == fingerprint(TOKEN)
    assert verdict.person is not None
    assert verdict.person.email == "alice@lab.example"
    assert "alice@lab.example, for minnie65_public" in verdict.message


def test_a_dead_token_takes_one_request() -> None:
    with Cave({USER_CACHE: (401, {"error": "invalid_token"})}) as cave:
        verdict = access_of(cave, "minnie65_public", "other").overall
    assert cave.asked == [USER_CACHE]
    assert (verdict.verdict, verdict.fingerprint) == ("invalid_token", fingerprint(TOKEN))


def test_terms_that_are_owed_take_one_request() -> None:
    owing = {
        **ALICE,
        "permissions_v2": {},
        "missing_tos": [{"dataset_id": 1, "dataset_name": "minnie65_public", "tos_id": 2, "tos_name": "Terms"}],
    }
    with Cave({USER_CACHE: (200, owing)}) as cave:
        verdict = access_of(cave, "minnie65_public").overall
    assert cave.asked == [USER_CACHE]
    assert (verdict.verdict, verdict.url) == ("missing_tos", f"{cave.url}/sticky_auth/api/v1/tos/2/accept")
    assert verdict.person is not None


def test_a_datastack_that_the_permissions_do_not_name_is_asked_for() -> None:
    refusal = {"error": "missing_permission", "data": {"auth_dataset": "another_dataset"}}
    with Cave({USER_CACHE: (200, ALICE), OTHER: (403, refusal)}) as cave:
        verdict = access_of(cave, "minnie65_public", "other").overall
    assert cave.asked == [USER_CACHE, OTHER]
    assert (verdict.verdict, verdict.datastack) == ("missing_permission", "other")
    assert "another_dataset" in verdict.message


def test_a_dataset_of_another_name_gives_access_to_the_datastack() -> None:
    with Cave({USER_CACHE: (200, ALICE), OTHER: (200, RECORD)}) as cave:
        assert access_of(cave, "other").overall.ok


def test_a_check_asks_both_services_and_returns_the_local_server() -> None:
    with Cave({USER_CACHE: (200, ALICE), MINNIE: (200, RECORD)}) as cave:
        access = access_of(cave, "minnie65_public", records=True)
    assert cave.asked == [USER_CACHE, MINNIE]
    assert access.overall.ok
    assert [verdict.local_server for verdict in access.datastacks] == ["https://minnie.microns-daf.com"]


def test_a_check_believes_the_auth_server_before_the_cache_of_the_info_service() -> None:
    with Cave({USER_CACHE: (401, {"error": "invalid_token"}), MINNIE: (200, RECORD)}) as cave:
        assert access_of(cave, "minnie65_public", records=True).overall.verdict == "invalid_token"


def test_a_check_tells_the_worst_of_several_datastacks_and_all_of_them() -> None:
    answers = {
        USER_CACHE: (200, ALICE),
        MINNIE: (200, RECORD),
        OTHER: (400, UNKNOWN),
        OTHERS_DATASET: (404, "No dataset for given service and table names"),
    }
    with Cave(answers) as cave:
        access = access_of(cave, "minnie65_public", "other", records=True)
    assert access.overall.verdict == "unknown_datastack"
    assert [verdict.verdict for verdict in access.datastacks] == ["ok", "unknown_datastack"]


def test_a_datastack_that_the_auth_server_permits_is_not_unknown_whatever_the_info_service_says() -> None:
    with Cave({USER_CACHE: (200, ALICE), MINNIE: (400, UNKNOWN)}) as cave:
        verdict = access_of(cave, "minnie65_public", records=True).overall
    assert cave.asked == [USER_CACHE, MINNIE]
    assert verdict.verdict == "server_error"
    assert "own token may be dead" in verdict.remedy


@pytest.mark.parametrize(
    ("permissions", "verdict"), [({"fly": ["view"]}, "server_error"), ({"fly": []}, "missing_permission")]
)
def test_a_datastack_that_the_auth_server_maps_is_not_unknown(permissions: dict[str, list[str]], verdict: str) -> None:
    person = {**ALICE, "permissions_v2": permissions}
    with Cave({USER_CACHE: (200, person), OTHER: (400, UNKNOWN), OTHERS_DATASET: (200, "fly")}) as cave:
        found = access_of(cave, "other", records=True).overall
    assert found.verdict == verdict
    assert verdict == "server_error" or "dataset fly (datastack other)" in found.message


@pytest.mark.parametrize("answer", [(500, {}), (200, {"a": 1}), (401, {"error": "invalid_token"})])
def test_a_mapping_that_cannot_be_read_leaves_a_datastack_unknown(answer: tuple[int, object]) -> None:
    with Cave({USER_CACHE: (200, ALICE), OTHER: (400, UNKNOWN), OTHERS_DATASET: answer}) as cave:
        assert access_of(cave, "other").overall.verdict == "unknown_datastack"


def test_the_timeout_covers_all_questions_about_a_token_together() -> None:
    with Cave({USER_CACHE: (200, ALICE), MINNIE: (200, RECORD)}, pause=0.7) as cave:
        started = time.monotonic()
        verdict = access_of(cave, "minnie65_public", records=True, timeout=1, retries=3).overall
    assert verdict.verdict == "unreachable"
    assert time.monotonic() - started < 20


def test_each_distinct_token_is_asked_about_once() -> None:
    tokens = [f"{number:032x}" for number in range(40)]
    with Cave({USER_CACHE: (200, ALICE)}, pause=0.2) as cave:
        questions = [Question(cave.url, token) for token in tokens]
        answers = prove(questions * 3)
    assert sorted(cave.tokens) == tokens
    assert {question: access.overall.ok for question, access in answers.items()} == dict.fromkeys(questions, True)
    assert all(answers[question].overall.fingerprint == fingerprint(question.token) for question in questions)
    assert 1 < cave.most_at_once <= _probe.AT_ONCE


def test_nobody_waits_for_a_server_that_was_found_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe, "AT_ONCE", 2)
    with Cave({USER_CACHE: (200, ALICE)}, pause=60) as silent, Cave({USER_CACHE: (200, ALICE)}) as cave:
        questions = [Question(silent.url, f"{number:032x}") for number in range(20)]
        questions += [Question(cave.url, TOKEN)]
        answers = prove(questions, timeout=3, retries=0)
    assert [answers[question].overall.verdict for question in questions] == ["unreachable"] * 20 + ["ok"]
    assert answers[questions[7]].overall.fingerprint == fingerprint(questions[7].token)
    assert len(silent.requests) <= 2


def test_a_mistake_in_a_thread_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(_probe, "_examine", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        prove([Question("http://127.0.0.1:1", TOKEN)])


def test_threads_that_were_left_behind_do_not_keep_the_process() -> None:
    program = (
        "import sys\n"
        "from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove\n"
        "questions = [Question(sys.argv[1], '%032x' % number) for number in range(16)]\n"
        "print(*{access.overall.verdict for access in prove(questions, timeout=1, retries=0).values()})\n"
    )
    tree = next(path for path in sys.path if path.endswith(".tree"))
    with Cave({USER_CACHE: (200, ALICE)}, pause=60) as cave:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program, cave.url],
            env={"PYTHONPATH": tree},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        taken = time.monotonic() - started
    assert (done.returncode, done.stdout, done.stderr) == (0, "unreachable\n", "")
    assert taken < 60
