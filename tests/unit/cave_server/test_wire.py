# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The faults as a client meets them."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
import zlib
from urllib.parse import urlsplit

import pytest
import requests

from cave_server import CaveServer, Person

PATH = "/auth/api/v1/user/cache"
STACK = "/info/api/v2/datastack/full/minnie65_public"


@pytest.fixture
def alice(cave: CaveServer) -> Person:
    """Somebody who may see minnie65_public."""
    return cave.add_person("alice", ["minnie65_public"])


def ask(
    cave: CaveServer, person: Person, path: str = PATH, method: str = "GET", **options: object
) -> requests.Response:
    """Send a request."""
    return requests.request(
        method,
        cave.url + path,
        headers={"Authorization": f"Bearer {person.token}"},
        timeout=10,
        allow_redirects=False,
        **options,  # type: ignore[arg-type]  # passed on
    )


def raw(cave: CaveServer, person: Person, limit: int = 1 << 20, path: str = PATH) -> bytes:
    """Return the bytes that come over the wire, up to a limit."""
    parts = urlsplit(cave.url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {person.token}", "Connection: close"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while len(received) < limit and (piece := connection.recv(65536)):
            received += piece
    return received


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_status_answers_instead_of_the_service(cave: CaveServer, alice: Person, code: int) -> None:
    cave.set_fault(PATH, "status", status=code)
    answer = ask(cave, alice)
    assert answer.status_code == code
    assert "Retry-After" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")
    assert cave.tokens("alice")[0]["last_used"] is None


def test_status_may_say_when_to_try_again_and_may_happen_once(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "status", status=429, retry_after=7, times=1)
    answer = ask(cave, alice)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert ask(cave, alice).status_code == 200


def test_status_may_have_a_body_of_its_own(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "status", status=500, body='{"message": "no"}')
    assert ask(cave, alice).json() == {"message": "no"}


def test_html_is_a_page_with_status_200(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "html")
    answer = ask(cave, alice)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<!doctype html>")


def test_redirect_leads_to_another_host_that_tells_what_it_was_sent(cave: CaveServer, alice: Person) -> None:
    with CaveServer() as other:
        cave.set_fault(PATH, "redirect", location=f"{other.url}/info/version", status=307)
        answer = ask(cave, alice)
        assert (answer.status_code, answer.headers["Location"]) == (307, f"{other.url}/info/version")
        requests.get(answer.headers["Location"], headers={"Authorization": "Bearer leaked"}, timeout=10)
        assert [(entry["path"], entry["sent_in"]) for entry in other.requests()] == [("/info/version", "header")]


def test_latency_delays_the_true_answer(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "latency", seconds=0.4)
    start = time.monotonic()
    assert ask(cave, alice).status_code == 200
    assert time.monotonic() - start >= 0.4


def test_general_latency_delays_everything(cave: CaveServer) -> None:
    cave.reset(latency=0.3)
    start = time.monotonic()
    assert requests.get(f"{cave.url}/info/version", timeout=10).status_code == 200
    assert time.monotonic() - start >= 0.3


def test_cut_resets_the_connection_before_anything_is_done(cave: CaveServer, alice: Person) -> None:
    cave.set_fault("/auth/api/v1/create_token", "cut")
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(cave, alice, "/auth/api/v1/create_token")
    assert len(cave.tokens("alice")) == 1
    assert [entry["status"] for entry in cave.requests()] == [None]


def test_cut_after_loses_the_answer_to_a_request_that_was_carried_out(cave: CaveServer, alice: Person) -> None:
    cave.set_fault("/auth/api/v1/create_token", "cut_after")
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(cave, alice, "/auth/api/v1/create_token")
    assert len(cave.tokens("alice")) == 2


def test_cut_body_ends_the_connection_in_the_middle(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "cut_body")
    with pytest.raises((requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        ask(cave, alice)


def test_cut_json_is_a_whole_answer_with_half_a_json(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "cut_json")
    answer = ask(cave, alice)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text.startswith('{"admin":false')
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_content_type_is_all_that_is_wrong(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "content_type", type="application/octet-stream")
    answer = ask(cave, alice)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.json()["name"] == "alice"


def test_endless_goes_on_and_the_server_lives_on_when_the_client_leaves(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "endless")
    assert len(raw(cave, alice, 8 << 20)) >= 8 << 20
    assert ask(cave, alice, STACK).status_code == 200


def test_endless_headers_never_come_to_a_body(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "endless_headers")
    received = raw(cave, alice, 4 << 20)
    assert len(received) >= 4 << 20
    assert b"\r\n\r\n" not in received
    assert ask(cave, alice, STACK).status_code == 200


def test_endless_ends_where_it_is_told_to(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "endless", megabytes=1)
    assert len(ask(cave, alice).json()["name"]) == 1 << 20


def test_gzip_bomb_is_small_and_unpacks_to_much(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "gzip_bomb", megabytes=64)
    answer = ask(cave, alice, stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    packed = answer.raw.read(decode_content=False)
    assert len(packed) < 200_000
    unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed)
    assert len(unpacked) == 64 * (1 << 20) + 10
    with pytest.raises(EOFError):
        gzip.decompress(packed)


def test_drip_sends_the_true_body_slowly(cave: CaveServer, alice: Person) -> None:
    cave.set_fault("/info/version", "drip", interval=0.05)
    start = time.monotonic()
    assert ask(cave, alice, "/info/version").json() == "4.3.3"
    assert time.monotonic() - start >= 8 * 0.05


def test_drip_may_begin_with_the_headers(cave: CaveServer, alice: Person) -> None:
    cave.set_fault("/info/version", "drip", interval=0.001, headers=True)
    assert ask(cave, alice, "/info/version").json() == "4.3.3"
    cave.clear_faults()
    cave.set_fault("/info/version", "drip", interval=0.3, headers=True)
    parts = urlsplit(cave.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=1)
    connection.request("GET", "/info/version")
    start = time.monotonic()
    assert connection.sock
    assert connection.sock.recv(100) == b"H"
    assert time.monotonic() - start >= 0.3
    connection.close()


def test_hang_never_answers(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "hang")
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(cave.url + PATH, headers={"Authorization": f"Bearer {alice.token}"}, timeout=0.5)


def test_header_injection_sends_escapes_and_forged_lines_as_they_are(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "header_injection")
    received = raw(cave, alice)
    head, _end, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 \x1b[31m")
    assert b"\nX-Bare-Newline: b" in head
    assert b"X-\x00Null" in head
    assert "\x1b[2J" in json.loads(body)["message"]


def test_not_http_is_not_http(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "not_http")
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(cave, alice)


def test_pipelined_has_an_answer_too_many(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(PATH, "pipelined")
    assert ask(cave, alice).json()["name"] == "alice"
    assert raw(cave, alice).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("kind", ["cut", "cut_body", "drip", "hang", "not_http"])
def test_faults_work_over_tls_too(cave_tls: CaveServer, kind: str) -> None:
    person = cave_tls.add_person("alice")
    cave_tls.set_fault(PATH, kind)
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(
            cave_tls.url + PATH,
            headers={"Authorization": f"Bearer {person.token}"},
            timeout=0.6,
            verify=cave_tls.ca,
        )
    cave_tls.clear_faults()
    again = requests.get(f"{cave_tls.url}/info/version", timeout=10, verify=cave_tls.ca)
    assert again.status_code == 200


def test_endless_works_over_tls_too(cave_tls: CaveServer) -> None:
    cave_tls.set_fault("/info", "endless")
    with requests.get(f"{cave_tls.url}/info/version", timeout=5, verify=cave_tls.ca, stream=True) as answer:
        received = 0
        for piece in answer.iter_content(65536):
            received += len(piece)
            if received > 4 << 20:
                break
    assert received > 4 << 20


def test_faults_may_be_meant_for_one_token(cave: CaveServer, alice: Person) -> None:
    bob = cave.add_person("bob")
    ask(cave, alice)
    cave.set_fault("/", "status", status=503, fingerprint=cave.requests()[0]["fingerprint"])
    assert ask(cave, alice).status_code == 503
    assert ask(cave, bob).status_code == 200


def test_the_log_of_requests_tells_method_path_status_and_fingerprint_but_no_token(
    cave: CaveServer, alice: Person
) -> None:
    ask(cave, alice, f"/auth/api/v1/user/token/{alice.token}/ttl")
    ask(cave, alice, f"{STACK}?middle_auth_token={alice.token}", "GET")
    requests.get(cave.url + STACK, cookies={"middle_auth_token": alice.token}, timeout=10)
    requests.post(cave.url + PATH, headers={"Authorization": "Token x"}, timeout=10)
    log = cave.requests()
    assert alice.token not in json.dumps(log)
    assert [(entry["method"], entry["path"], entry["status"], entry["sent_in"]) for entry in log] == [
        ("GET", "/auth/api/v1/user/token/TOKEN/ttl", 200, "header"),
        ("GET", STACK, 200, "header"),
        ("GET", STACK, 200, "cookie"),
        ("POST", PATH, 405, None),
    ]
    assert len({entry["fingerprint"] for entry in log[:3]}) == 1
    assert cave.requests("/info", internal=True) == log[1:3]
    assert len(cave.requests(internal=True)) == 5
    cave.clear_requests()
    assert cave.requests() == []
