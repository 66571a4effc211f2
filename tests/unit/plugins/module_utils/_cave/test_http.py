# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import gc
import gzip
import json
import os
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
import trustme
from raw_server import Conversation, RawServer, http_answer, say

from ansible_collections.connectomics.cave.plugins.module_utils._cave import http as _http
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import (
    Answer,
    HttpError,
    request,
    request_each,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import failure_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import VARIABLES

TOKEN = "0123456789abcdef0123456789abcdef"
TIMEOUT = 1.0
NOBODY = "http://127.0.0.1:9"  # a port that no other test is given, as one that was free a moment ago may be
OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.fixture
def _collected() -> Iterator[None]:
    """Until Python 3.11.3, http.client leaves the socket of a refused tunnel to the garbage collector."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def tls_server(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def failure_of(url: str, timeout: float = 20, **options: object) -> HttpError:
    """Ask, expect to fail within the deadline, and return the failure, having looked for the token in it."""
    started = time.monotonic()
    with pytest.raises(HttpError) as caught:
        request("GET", url, TOKEN, timeout=timeout, **options)  # type: ignore[arg-type]  # passed on
    assert time.monotonic() - started < timeout + 20
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(caught.value.__dict__)
    return caught.value


# The request ---------------------------------------------------------------------------------------------------------


def test_the_request_names_itself_and_carries_the_token_once() -> None:
    with RawServer(say(http_answer(b"{}"))) as server:
        answer = request("GET", server.url + "/auth/api/v1/user/cache", TOKEN, timeout=5)
    assert answer.status == 200
    head = server.requests[0].decode().lower()
    assert head.startswith("get /auth/api/v1/user/cache http/1.1\r\n")
    assert head.count(TOKEN) == 1
    assert f"\r\nauthorization: bearer {TOKEN}\r\n" in head
    assert "\r\naccept: application/json\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head
    assert "user-agent: connectomics.cave" in head


def test_without_a_token_no_authorization_is_sent() -> None:
    with RawServer(say(http_answer(b"{}"))) as server:
        request("GET", server.url, timeout=5)
    assert b"uthorization" not in server.requests[0]


def test_a_json_body_is_sent_as_json() -> None:
    with RawServer(say(http_answer(b'"x"'))) as server:
        answer = request("POST", server.url + "/user/token", TOKEN, timeout=5, json_body={"description": "lab \u00e9"})
    assert answer.json() == "x"
    head, _blank, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /user/token ")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {"description": "lab \u00e9"}


@pytest.mark.parametrize("token", ["a\nb", "a\r\nHost: evil", "caf\u00e9", "a\x00b", "\x1b[31m"])
def test_a_token_that_would_break_the_header_is_never_sent(token: str) -> None:
    with RawServer(say(http_answer(b"{}"))) as server, pytest.raises(HttpError) as caught:
        request("GET", server.url, token, timeout=5)
    assert caught.value.kind == "bad_request"
    assert token not in str(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "global.daf-apis.com",
        "ftp://global.daf-apis.com",
        "file:///etc/passwd",
        "https://",
        "https://[::1",
        "https://host:99999",
        "https://host:0",
        "https://user:secret@host",
        "https://host/ path",
        "https://host/\r\nHost: evil",
        "https://h\u00f6st",
        "https://" + "a" * 70 + ".example",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    assert failure_of(url).kind == "bad_url"


# The answer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_the_token_goes_nowhere_else(status: int) -> None:
    with RawServer(say(http_answer(b"{}"))) as elsewhere:
        location = f"Location: {elsewhere.url}/steal"
        with RawServer(say(http_answer(b"", location, status=f"{status} Moved"))) as server:
            answer = request("GET", server.url, TOKEN, timeout=5)
    assert answer.status == status
    assert answer.headers["location"] == f"{elsewhere.url}/steal"
    assert elsewhere.connections == 0


def test_a_chunked_body_is_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\n2\r\n,3\r\n1\r\n]\r\n0\r\n\r\n"
    with RawServer(say(chunked)) as server:
        assert request("GET", server.url, timeout=5).json() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content_type", "encoding", "claims"),
    [
        ("application/json", "", True),
        ("Application/JSON; charset=utf-8", "identity", True),
        ("application/problem+json", "", True),
        ("text/html; charset=utf-8", "", False),
        ("text/json-ish", "", False),
        ("", "", False),
        ("application/json", "gzip", False),
    ],
)
def test_only_plain_json_counts_as_json(content_type: str, encoding: str, claims: bool) -> None:
    headers = {"content-type": content_type, "content-encoding": encoding}
    assert Answer(200, headers, b"{}", "").claims_json is claims


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": 1', b"\xff\xfe", b"<html>", b"NaN", b"[" * 40_000, b"1" * 500_000, b'{"a": Infinity}',
     b"[" + b"{}," * 60_000 + b"{}]"],
    ids=["empty", "brace", "cut", "not-utf-8", "html", "nan", "deep", "long-number", "infinity", "many-parts"],
)  # fmt: skip
def test_what_is_not_json_is_a_value_error_at_once(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011 (the promise is this type alone)
        Answer(200, {}, body, "").json()
    assert time.process_time() - started < 0.5


# Hostile servers -----------------------------------------------------------------------------------------------------


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10737418240\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


def drip(head: bytes, drop: bytes) -> Conversation:
    def conversation(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            time.sleep(0.1)

    return conversation


@pytest.mark.parametrize(
    ("conversation", "kind"),
    [
        (endless, "too_large"),
        (drip(b"", b"H"), "timeout"),
        (drip(OK_HEAD, b"X"), "timeout"),
        (drip(OK_HEAD + b"\r\n", b" "), "timeout"),
        (drip(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
        (lambda connection: connection.recv(1), "timeout"),
        (say(), "cut"),
        (say(OK_HEAD + b"Content-Length: 100\r\n\r\n{"), "cut"),
        (say(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"), "cut"),
        (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "bad_answer"),
        (say(b"\x15\x03\x01\x00\x02\x02\x50"), "bad_answer"),
        (say(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), "bad_answer"),
        (say(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "bad_answer"),
    ],
    ids=[
        "10-GB", "drip-status", "drip-header", "drip-body", "100-forever", "silence", "closed", "cut-length",
        "cut-chunk", "ssh", "tls-alert", "1000-headers", "long-header",
    ],
)  # fmt: skip
def test_a_hostile_answer_ends_within_the_deadline(conversation: Conversation, kind: str) -> None:
    with RawServer(conversation) as server:
        # What ends by itself has time for that, however busy the machine is.
        assert failure_of(server.url, timeout=TIMEOUT if kind == "timeout" else 20).kind == kind


def test_the_connection_is_cut_at_the_deadline() -> None:
    gone = threading.Event()

    def drip_until_cut(connection: socket.socket) -> None:
        try:
            drip(OK_HEAD, b"X")(connection)
        except OSError:
            gone.set()

    with RawServer(drip_until_cut) as server:
        failure_of(server.url, timeout=TIMEOUT)
        assert gone.wait(20)


def test_what_a_header_says_in_several_lines_is_joined() -> None:
    answer = http_answer(b"{}", "WWW-Authenticate: Bearer realm=x", "www-authenticate: Negotiate", status="401 X")
    with RawServer(say(answer)) as server:
        assert request("GET", server.url, timeout=5).headers["www-authenticate"] == "Bearer realm=x, Negotiate"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK_HEAD + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2\n\n{}",
    ],
    ids=["http-1.0", "no-reason", "continue", "bare-line-feeds"],
)
def test_an_old_or_odd_form_of_http_is_read_as_other_programs_do(answer: bytes) -> None:
    with RawServer(say(answer)) as server:
        found = request("GET", server.url, TOKEN, timeout=5)
    assert (found.status, found.claims_json, found.body) == (200, True, b"{}")


def test_an_answer_after_the_answer_is_not_read() -> None:
    second = http_answer(b'{"admin": true}')
    with RawServer(say(http_answer(b"{}") + second + b"\x00garbage\xff" * 100)) as server:
        assert request("GET", server.url, timeout=5).json() == {}


def test_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    with RawServer(say(http_answer(bomb, "Content-Encoding: gzip"))) as server:
        answer = request("GET", server.url, timeout=5)
    assert answer.body == bomb
    assert not answer.claims_json


def test_a_handshake_that_drips_ends_within_the_deadline() -> None:
    with RawServer(drip(b"\x16\x03\x03\x40\x00", b"\x02"), read_request=False) as server:
        assert failure_of(server.url.replace("http:", "https:"), timeout=TIMEOUT).kind == "timeout"


# Names, connections, proxies -----------------------------------------------------------------------------------------


def test_a_name_lookup_that_hangs_ends_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_arguments: object, **_options: object) -> None:
        released.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert failure_of("http://cave.example", timeout=TIMEOUT).kind == "timeout"
    released.set()


def test_an_unknown_name_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # how long the machine's own takes to say so is not known
    assert failure_of("https://no-such-host.invalid").kind == "dns"


def test_a_closed_port_is_told_apart() -> None:
    assert failure_of(NOBODY).kind == "refused"


def test_connecting_has_a_shorter_timeout_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # A full queue: further connections hang, as they do behind a firewall that drops packets.
        fillers = [socket.socket() for _time in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        started = time.monotonic()
        with pytest.raises(HttpError) as caught:
            request("GET", f"http://127.0.0.1:{address[1]}", timeout=10)
        assert time.monotonic() - started < 9
        for filler in fillers:
            filler.close()
    assert caught.value.kind == "timeout"
    assert "0.3 s" in caught.value.reason


def test_a_proxy_of_the_environment_is_used_and_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(say(http_answer(b'{"via": "proxy"}'))) as proxy:
        monkeypatch.setenv("http_proxy", f"http://someone:secret@127.0.0.1:{proxy.port}")
        assert request("GET", "http://cave.example/x", timeout=5).json() == {"via": "proxy"}
    failure = failure_of("http://cave.example/x")
    assert failure.kind == "refused"
    assert f"127.0.0.1:{proxy.port}" in failure.reason
    assert "secret" not in str(failure)


@pytest.mark.usefixtures("_collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_that_refuses_a_tunnel_never_sees_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(say(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        failure = failure_of("https://cave.example/x")
    assert failure.kind == "proxy"
    assert "does not let the connection through (status 403)" in failure.reason
    assert proxy.requests[0].startswith(b"CONNECT cave.example:443 ")
    assert TOKEN.encode() not in proxy.requests[0]


@pytest.mark.usefixtures("_collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_is_told_who_asks_and_the_server_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = b"Proxy-Authorization: Basic " + base64.b64encode(b"some one:p@ss")
    with RawServer(say(http_answer(b"{}"))) as proxy:
        monkeypatch.setenv("http_proxy", f"http://some%20one:p%40ss@127.0.0.1:{proxy.port}")
        assert request("GET", "http://cave.example:8080/x?y=1", TOKEN, timeout=5).status == 200
    assert proxy.requests[0].startswith(b"GET http://cave.example:8080/x?y=1 HTTP/1.1\r\nHost: cave.example:8080\r\n")
    assert expected in proxy.requests[0]
    with RawServer(say(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", f"http://some%20one:p%40ss@127.0.0.1:{proxy.port}")
        failure = failure_of("https://cave.example/x")
    assert (failure.kind, failure.reason) == (
        "proxy",
        f"the proxy 127.0.0.1:{proxy.port} wants a user name and password",
    )
    assert expected in proxy.requests[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_be_used_is_named_with_the_reason(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5h://someone:secret@127.0.0.1:1080")
    failure = failure_of(f"{scheme}://cave.example/x")
    assert failure.kind == "proxy"
    assert "socks5h://127.0.0.1:1080 speaks SOCKS" in failure.reason
    assert "secret" not in failure.reason


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://proxy.invalid:3128", "the name of the proxy cannot be resolved"),
        ("http://127.0.0.1:9", "connection refused (through the proxy 127.0.0.1:9)"),
        ("http://wpad.example/proxy.pac", "the proxy http://wpad.example is a file for automatic configuration"),
    ],
)
def test_where_the_proxy_is_to_blame_nobody_is_sent_to_look_for_the_server(
    proxy: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ".invalid" in proxy:
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=unknown))
    monkeypatch.setenv("https_proxy", proxy)
    failure = failure_of("https://cave.example/x")
    assert reason in failure.reason
    remedy = failure_verdict(failure, "https://cave.example").remedy
    assert "Check https_proxy" in remedy
    assert "getent" not in remedy


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with RawServer(say(http_answer(b"{}"))) as server:
        assert request("GET", server.url, timeout=5).status == 200


# Several requests to one server ---------------------------------------------------------------------------------------


def keep_alive(status: int = 200) -> bytes:
    return http_answer(b"{}", status=f"{status} X").replace(b"Connection: close\r\n", b"")


class Patient(RawServer):
    """Answers several requests on a connection; what a path has for an answer is a function of its last part."""

    def __init__(self, answers: dict[str, bytes | float], **options: object) -> None:
        super().__init__(self._talk_on, read_request=False, **options)  # type: ignore[arg-type]  # passed on
        self.answers = answers
        self.asked: list[tuple[int, str]] = []

    def _talk_on(self, connection: socket.socket) -> None:
        number = self.connections
        while True:
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536) or b"\r\n\r\n"
            if not received.strip():
                return
            path = received.split()[1].decode()
            self.asked.append((number, path))
            answer = self.answers[path]
            if isinstance(answer, float):
                self.stopped.wait(answer)
                return
            connection.sendall(answer)
            if b"Connection: close" in answer:
                return


def statuses(urls: list[str], **options: object) -> list[int | str]:
    found = request_each([(url, TOKEN) for url in urls], **{"timeout": 10, **options})  # type: ignore[arg-type]  # passed on
    return [item.status if isinstance(item, Answer) else item.kind for item in found]


def test_several_requests_to_a_server_take_one_connection(authority: trustme.CA, bundle: str) -> None:
    answers: dict[str, bytes | float] = {f"/{number}": keep_alive(number) for number in (200, 401, 503, 404)}
    with Patient(answers, context=tls_server(authority)) as server:
        assert statuses([server.url + path for path in answers], ca_path=bundle) == [200, 401, 503, 404]
    assert server.asked == [(1, path) for path in answers]


def test_a_server_that_ends_the_connection_is_asked_on_another_one() -> None:
    with Patient({"/a": http_answer(b"{}"), "/b": keep_alive(), "/c": keep_alive()}) as server:
        assert statuses([server.url + path for path in ("/a", "/b", "/c")]) == [200, 200, 200]
    assert server.asked == [(1, "/a"), (2, "/b"), (2, "/c")]


def test_each_question_has_a_connection_of_its_own() -> None:
    """What is left on one, such as an answer about somebody else, would be taken for the next answer."""
    with Patient({"/a": keep_alive()}) as server:
        assert [request("GET", f"{server.url}/a", TOKEN, timeout=5).status for _time in range(2)] == [200, 200]
    assert [number for number, _path in server.asked] == [1, 2]


def test_what_comes_unasked_is_not_taken_for_the_answer_to_the_next_request() -> None:
    with Patient({"/a": keep_alive() + keep_alive(401), "/b": keep_alive()}) as server:
        assert statuses([server.url + path for path in ("/a", "/b")]) == [200, 200]


def test_a_connection_on_which_something_came_unasked_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not _http._has_more(ours)
        theirs.sendall(b"HTTP/1.1 401 Unauthorized")
        assert _http._has_more(ours)


def test_one_without_an_answer_does_not_take_the_time_of_the_others() -> None:
    started = time.monotonic()
    with Patient({"/a": keep_alive(), "/b": 30.0, "/c": keep_alive(), "/d": b"SSH-2.0\r\n\r\n"}) as server:
        assert statuses([server.url + path for path in ("/a", "/b", "/c", "/d")]) == [200, "timeout", 200, "bad_answer"]
    assert time.monotonic() - started < 20


def test_nobody_at_the_address_is_the_outcome_of_each() -> None:
    assert statuses([f"{NOBODY}/{name}" for name in "ab"]) == ["refused", "refused"]


def test_all_of_several_requests_end_at_the_deadline() -> None:
    started = time.monotonic()
    with RawServer(drip(OK_HEAD, b"X")) as server:
        assert statuses([f"{server.url}/{name}" for name in "abc"], timeout=1) == ["timeout"] * 3
    assert time.monotonic() - started < 20


# TLS -----------------------------------------------------------------------------------------------------------------


def test_a_certificate_of_the_given_authority_is_trusted(authority: trustme.CA, bundle: str) -> None:
    with RawServer(say(http_answer(b"{}")), context=tls_server(authority)) as server:
        assert request("GET", server.url, TOKEN, timeout=5, ca_path=bundle).status == 200


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_bundle_of_the_environment_is_trusted(
    variable: str, authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, bundle)
    with RawServer(say(http_answer(b"{}")), context=tls_server(authority)) as server:
        assert request("GET", server.url, TOKEN, timeout=5).status == 200


def test_a_bundle_that_was_replaced_is_read_again(authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with RawServer(say(http_answer(b"{}")), context=tls_server(authority)) as server:
        assert failure_of(server.url, ca_path=str(path)).kind == "tls"
        path.unlink()
        authority.cert_pem.write_to_path(str(path))
        os.utime(path, (1, 1))
        assert request("GET", server.url, TOKEN, timeout=5, ca_path=str(path)).status == 200


@pytest.fixture(params=["unknown authority", "other name", "expired", "old protocol"])
def untrusted(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[tuple[ssl.SSLContext, str]]:
    if request.param == "unknown authority":
        yield tls_server(trustme.CA()), "certificate"
    elif request.param == "other name":
        yield tls_server(authority, "other.example"), "not valid for"
    elif request.param == "expired":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(
            "127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 2, 1, tzinfo=UTC)
        ).configure_cert(context)
        yield context, "expired"
    else:
        context = tls_server(authority)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        yield context, "protocol"


def test_a_server_that_cannot_be_trusted_never_sees_the_token(
    untrusted: tuple[ssl.SSLContext, str], bundle: str
) -> None:
    context, hint = untrusted
    with RawServer(say(http_answer(b"{}")), context=context) as server:
        failure = failure_of(server.url, ca_path=bundle)
    assert failure.kind == "tls"
    assert hint in failure.reason.lower()
    assert server.requests == []


def test_a_connection_that_ends_within_the_handshake_is_told_apart() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(65536)

    with RawServer(hang_up, read_request=False) as server:
        failure = failure_of(server.url.replace("http:", "https:"))
    assert "the connection broke off" in failure.reason


def test_a_server_that_wants_a_certificate_of_the_host_is_a_tls_failure_of_its_own(
    authority: trustme.CA, bundle: str
) -> None:
    context = tls_server(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 the handshake is over before the server looks
    with RawServer(say(http_answer(b"{}")), context=context) as server:
        failure = failure_of(server.url, ca_path=bundle)
    assert failure.kind == "tls"
    assert re.search("CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE", failure.reason)


def test_tls_to_a_port_without_tls_says_so() -> None:
    with RawServer(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_request=False) as server:
        failure = failure_of(server.url.replace("http:", "https:"))
    assert failure.kind in ("tls", "cut")


@pytest.mark.parametrize("content", [None, b"", b"not a certificate\n"], ids=["missing", "empty", "garbage"])
def test_a_bundle_that_cannot_be_used_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with RawServer(say()) as server:
        failure = failure_of(server.url.replace("http:", "https:"), ca_path=str(path))
    assert failure.kind == "ca"
    assert f"{path} (ca_path)" in failure.reason


@pytest.mark.parametrize("path", ["/srv/a\0b", "/srv/\ud800"])
def test_a_bundle_that_no_file_can_be_is_named_as_that(path: str) -> None:
    failure = failure_of("https://127.0.0.1:9", ca_path=path)
    assert failure.kind == "ca"


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("is_there", [False, True])
def test_what_names_the_only_authorities_that_are_trusted_is_said(
    variable: str, is_there: bool, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("a-long-name" * 20) / "ca.pem"
    path.parent.mkdir()
    if is_there:
        trustme.CA().cert_pem.write_to_path(str(path))
    monkeypatch.setenv(variable, str(path))
    with RawServer(say(http_answer(b"{}")), context=tls_server(authority)) as server:
        failure = failure_of(server.url)
    assert f"{path} ({variable})" in failure.reason
    assert f"unset {variable} in the environment of the task" in failure_verdict(failure, server.url).remedy
