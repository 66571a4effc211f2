# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP/1.1 as it is on a connection: what an answer may look like, and what is none."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.wire import (
    CutError,
    NotHttpError,
    Response,
    TooLargeError,
    Wire,
)

MOST = 1000


@contextlib.contextmanager
def wire_to(*pieces: bytes) -> Iterator[tuple[Wire, list[bytes]]]:
    """A connection on which pieces come, each after a request; and the requests."""
    here, there = socket.socketpair()
    requests: list[bytes] = []

    def talk() -> None:
        with there, contextlib.suppress(OSError):
            for piece in pieces:
                requests.append(there.recv(65536))
                there.sendall(piece)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    wire = Wire(here)
    try:
        yield wire, requests
    finally:
        wire.close()
        thread.join(10)


def ask(wire: Wire, method: str = "GET", body: bytes | None = None) -> Response:
    return wire.ask(method, "/x", {"Host": "h"}, body, most=MOST, remaining=lambda: 10.0)


def answer_to(raw: bytes, method: str = "GET") -> Response:
    with wire_to(raw) as (wire, _requests):
        return ask(wire, method)


class Pieces(socket.socket):
    """A socket on which an answer comes in pieces of certain sizes."""

    def __init__(self, raw: bytes, sizes: Iterable[int]) -> None:
        super().__init__(socket.AF_UNIX)
        self.raw, self.sizes = raw, iter(sizes)

    def sendall(self, _data: bytes, _flags: int = 0) -> None:  # type: ignore[override]  # the answer is there already
        pass

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        size = next(self.sizes, 65536)
        piece, self.raw = self.raw[:size], self.raw[size:]
        return piece


def chunked(body: bytes, sizes: Iterable[int]) -> bytes:
    parts = []
    for size in sizes:
        if body:
            parts.append(b"%x;a=b\r\n%s\r\n" % (len(body[:size]), body[:size]))
            body = body[size:]
    parts += [b"%X\r\n%s\r\n" % (len(body), body)] if body else []
    return b"".join([*parts, b"0\r\nTrailer: x\r\n\r\n"])


@given(st.binary(max_size=200), st.booleans(), *[st.lists(st.integers(1, 60), max_size=30)] * 2)
def test_in_whatever_pieces_an_answer_comes_it_is_the_same(
    body: bytes, is_chunked: bool, chunks: list[int], sizes: list[int]
) -> None:
    kind = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    sent = chunked(body, chunks) if is_chunked else body
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n%s\r\nX-Name:  some  text \r\n\r\n%s" % (kind, sent)
    wire = Wire(Pieces(raw, sizes))
    with contextlib.closing(wire):
        found = ask(wire)
    assert (found.status, found.body, found.headers["x-name"], found.keeps) == (200, body, "some  text", True)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
def test_whatever_comes_is_an_answer_or_told_to_be_none(raw: bytes, before: bytes) -> None:
    wire = Wire(Pieces(before + raw, []))
    with contextlib.closing(wire), contextlib.suppress(NotHttpError, CutError, TooLargeError):
        assert 200 <= ask(wire).status <= 999


@pytest.mark.parametrize(
    ("head", "body", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"ab", True),
        (b"HTTP/1.1 200\r\ncontent-length:2\r\n", b"ab", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n", b"ab", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n", b"ab", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n", b"ab", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n", b"ab", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", b"a", False),  # and b, which nobody asked for
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n", b"ab", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", b"ab", False),
        (b"HTTP/1.1 200 OK\r\n", b"ab", False),
        (b"HTTP/1.1 204 No Content\r\n", b"", False),
        (b"HTTP/1.1 200 OK\r\n folded: no\r\nno colon\r\nContent-Length: 2\r\n", b"ab", True),
    ],
)
def test_where_a_body_ends_and_whether_more_can_be_asked_follow_from_the_headers(
    head: bytes, body: bytes, keeps: bool
) -> None:
    found = answer_to(head + (b"\n" if b"\r" not in head else b"\r\n") + b"ab")
    assert (found.body, found.keeps) == (body, keeps)


def test_an_answer_to_head_has_no_body() -> None:
    found = answer_to(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "HEAD")
    assert (found.body, found.keeps, found.headers) == (b"", True, {"content-length": "5000"})


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", CutError),
        (b"HTTP/1.1 200 OK\r\n", CutError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", CutError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", CutError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", NotHttpError),
        (b"HTTP/2 200\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 20 OK\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 2000 OK\r\n\r\n", NotHttpError),
        (b"SSH-2.0", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MOST + 1), TooLargeError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % (b"9" * 5000), TooLargeError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n" % (b"f" * 5000), TooLargeError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 1001, [9] * 200), TooLargeError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (MOST + 1), TooLargeError),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_told_apart(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        answer_to(raw)


def test_one_request_follows_the_other_with_its_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    with wire_to(answer + b"1", answer + b"2", answer + b"3") as (wire, requests):
        assert [ask(wire).body, ask(wire, "POST", b"{}").body, ask(wire, "DELETE").body] == [b"1", b"2", b"3"]
    assert requests == [
        b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    ]
