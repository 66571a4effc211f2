# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import time
from email.utils import formatdate

import pytest
from raw_server import RawServer, http_answer, say

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.retries import request_with_retries, retry_after

TOKEN = "0123456789abcdef0123456789abcdef"


pytestmark = pytest.mark.usefixtures("no_proxies")


class Script:
    """Answers each request with the next of these; the last one stays."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def busy(status: int, *headers: str) -> bytes:
    return http_answer(b"{}", *headers, status=f"{status} Busy")


def no_pause(seconds: float) -> None:
    pytest.fail(f"a pause of {seconds} s that nobody asked for")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    pauses: list[float] = []
    with RawServer(Script(busy(status), busy(status), http_answer(b"[1]"))) as server:
        answer = request_with_retries("GET", server.url, TOKEN, timeout=10, retries=2, sleep=pauses.append)
    assert answer.json() == [1]
    assert len(server.requests) == 3
    assert 0.25 <= pauses[0] <= 0.5
    assert 0.5 <= pauses[1] <= 1.0


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_a_definite_answer_is_not_asked_for_again(status: int) -> None:
    with RawServer(Script(http_answer(b"{}", status=f"{status} X"))) as server:
        assert request_with_retries("GET", server.url, timeout=10, retries=5, sleep=no_pause).status == status
    assert len(server.requests) == 1


def test_the_pause_is_as_long_as_the_server_asks_for() -> None:
    pauses: list[float] = []
    with RawServer(Script(busy(429, "Retry-After: 7"), http_answer(b"{}"))) as server:
        assert request_with_retries("GET", server.url, timeout=60, sleep=pauses.append).status == 200
    assert 7 <= pauses[0] <= 7.2


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    started = time.monotonic()
    with RawServer(Script(busy(429, "Retry-After: 3600"))) as server:
        assert request_with_retries("GET", server.url, timeout=20).status == 429
    assert time.monotonic() - started < 10
    assert len(server.requests) == 1


def test_pauses_differ_between_hosts() -> None:
    pauses: list[float] = []
    with RawServer(Script(busy(503))) as server:
        for _time in range(8):
            request_with_retries("GET", server.url, timeout=10, retries=1, sleep=pauses.append)
    assert len(set(pauses)) == 8


def test_all_tries_together_stay_within_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(HttpError) as caught:
            request_with_retries("GET", url, timeout=1, retries=10)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - started < 10


def test_a_closed_port_is_tried_again() -> None:
    pauses: list[float] = []
    with pytest.raises(HttpError):
        request_with_retries("GET", "http://127.0.0.1:9", timeout=10, retries=3, sleep=pauses.append)
    assert len(pauses) == 3


@pytest.mark.parametrize(("answer", "tries"), [(busy(429), 2), (busy(503), 2), (busy(502), 1), (busy(504), 1)])
def test_a_change_is_sent_again_only_when_the_server_has_not_acted(answer: bytes, tries: int) -> None:
    with RawServer(Script(answer)) as server:
        request_with_retries("POST", server.url, timeout=10, retries=1, json_body={}, sleep=lambda _pause: None)
    assert len(server.requests) == tries


def test_a_change_whose_answer_is_lost_is_not_sent_again() -> None:
    with RawServer(say()) as server, pytest.raises(HttpError):
        request_with_retries("POST", server.url, timeout=10, retries=3, json_body={}, sleep=no_pause)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        (formatdate(1_000_090, usegmt=True), 90.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0661", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, now=1_000_000) == seconds


def test_a_date_beyond_all_years_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a zone it is one of the host's, where it may be in the year 10000 already."""
    monkeypatch.setenv("TZ", "XXX-14")
    time.tzset()
    try:
        assert retry_after("Fri, 31 Dec 9999 23:59:59 -0000") is None
    finally:
        monkeypatch.undo()
        time.tzset()
