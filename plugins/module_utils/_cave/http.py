# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounded HTTP: one request, one answer, within a total deadline.

The server may be down, slow, hostile or a login page, and none of that may hold
up a run or move a token to another host:

* a redirect is an answer, it is never followed;
* the deadline is for everything together: name lookup, connection, TLS, every byte;
* no more of a body than asked for is read, and nothing is decompressed;
* failures are one exception, HttpError, whose ``kind`` says what went wrong.

Proxies and certificate bundles are taken from the environment, as other HTTP programs do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from typing import Any, Callable, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import tls_context
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

USER_AGENT = "connectomics.cave (Ansible collection)"
MAX_BYTES = 1 << 20
CONNECT_TIMEOUT = 10.0
MOST_PARTS = 50_000
"""Commas and opening brackets of a JSON body. Python makes an object of each, which takes a hundred times the room."""
LONGEST_NUMBER = 400
"""Digits. Longer JSON numbers take quadratic time to convert and mean nothing here."""


class HttpError(CaveError):
    """There was no usable answer.

    ``kind`` is one of: ``dns`` (the name is unknown), ``refused`` (nobody listens), ``unreachable`` (no route and
    the like), ``timeout``, ``tls`` (certificate or protocol), ``ca`` (the bundle of CA certificates cannot be used),
    ``cut`` (the connection broke off), ``too_large``, ``bad_answer`` (not HTTP), ``proxy``, ``bad_url``,
    ``bad_request`` (the request itself cannot be sent). ``url`` is the address asked, ``reason`` a short text without
    the address.
    """

    def __init__(self, kind: str, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.kind = kind
        self.url = url
        self.reason = reason


class Answer(NamedTuple):
    """What a server answered: status, headers (names in lower case), the whole body, and the address asked."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case, without parameters; empty when the server named none."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    @property
    def claims_json(self) -> bool:
        """Whether the server says that the body is JSON, and sent it unpacked, as asked."""
        kind = self.content_type
        plain = self.headers.get("content-encoding", "identity").strip().lower() in ("", "identity")
        return plain and (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")))

    def json(self) -> Any:
        """The body as JSON. Raises ValueError, whatever is wrong with it."""
        if sum(map(self.body.count, (b",", b"[", b"{"))) > MOST_PARTS:
            raise ValueError("JSON of more parts than any answer has")
        try:
            return json.loads(self.body.decode("utf-8"), parse_int=_bounded_int, parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None


def _bounded_int(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("a number too long to mean anything")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# ---------------------------------------------------------------------------------------------------------------------
# One request


class _Message(NamedTuple):
    """What is sent, and where to."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


class _Exchange:
    """Requests on their way, in a thread of their own, so that the caller can walk away from it at the deadline.

    They go to one server, one after the other over one connection for as long as it lasts. Each has an equal share of
    the time that is left, so that one without an answer doesn't take that of the others.
    """

    def __init__(self, messages: list[_Message], deadline: float, max_bytes: int, ca_path: str | None) -> None:
        self.messages = messages
        self.deadline = deadline
        self._own_deadline = deadline
        self.max_bytes = max_bytes
        self.ca_path = ca_path
        self.stage = "connect"
        self.outcomes: list[Answer | BaseException] = []
        self.shares: list[float] = []
        self._connection: _PlainConnection | _TlsConnection | None = None
        self._socket: socket.socket | None = None

    def run(self) -> None:
        """The thread's body. Keeps whatever is raised: a traceback printed by a thread could show a header."""
        for number, message in enumerate(self.messages):
            outcome: Answer | BaseException
            now = time.monotonic()
            self.shares.append((self.deadline - now) / (len(self.messages) - number))
            self._own_deadline = now + self.shares[-1]
            try:
                is_reused = self._connection is not None
                try:
                    outcome = self._exchange(message)
                except (http.client.RemoteDisconnected, ConnectionError):
                    if not is_reused:
                        raise
                    # The server may end a connection between two requests whenever it likes.
                    outcome = self._exchange(message)
            except BaseException as error:  # noqa: BLE001 (raised again, by the thread that waits for it)
                outcome = error
            self.outcomes.append(outcome)
        self._hang_up()

    def abandon(self) -> None:
        """Cut the connection, so that an endless answer stops arriving. Called from outside of the thread."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _remaining(self) -> float:
        remaining = self._own_deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        return remaining

    def _exchange(self, message: _Message) -> Answer:
        method, url, headers, body = message
        parts = urllib.parse.urlsplit(url)
        proxy = _proxy_of(url)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        if proxy and parts.scheme == "http":
            headers, target = {**headers, **_proxy_headers(proxy)}, url
        if self._connection is not None and _has_more(self._connection.sock):
            self._hang_up()  # what comes unasked would be taken for the next answer
        if self._connection is None:
            self.stage = "connect"
            self._connection = self._new_connection(parts, proxy)
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(self._remaining())
        connection, keep = self._connection, False
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as response:
                found: dict[str, str] = {}
                for name, value in response.headers.items():  # what comes several times is one list
                    key = name.lower()
                    found[key] = f"{found[key]}, {value}" if key in found else value
                answer = Answer(response.status, found, self._body(response), url)
                keep = not response.will_close and message is not self.messages[-1]
                return answer
        finally:
            if not keep:
                self._hang_up()

    def _new_connection(
        self, parts: urllib.parse.SplitResult, proxy: urllib.parse.SplitResult | None
    ) -> _PlainConnection | _TlsConnection:
        host, port = (proxy or parts).hostname or "", (proxy or parts).port
        if parts.scheme != "https":
            return _PlainConnection(host, self, port=port, timeout=self._remaining())
        connection = _TlsConnection(host, self, port=port, timeout=self._remaining(), context=self._trust())
        if proxy:
            connection.set_tunnel(parts.hostname or "", parts.port, headers=_proxy_headers(proxy))
        return connection

    def _trust(self) -> ssl.SSLContext:
        try:
            return tls_context(self.ca_path)
        except (OSError, ValueError) as error:  # a ValueError for a path that no file can have
            raise BundleError(error) from error

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            self._remaining()
            part = response.read1(min(65536, self.max_bytes + 1 - size))
            if not part:
                break
            parts.append(part)
            size += len(part)
            if size > self.max_bytes:
                raise TooLargeError()
        if response.length:
            # read1 doesn't report a body that is shorter than announced.
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)

    def connected(self, connection: http.client.HTTPConnection, connect: Callable[[], None]) -> None:
        """Connect within the (shorter) connect timeout, then allow the rest of the time for the answer."""
        connection.timeout = min(CONNECT_TIMEOUT, self._remaining())
        connect()
        self._socket = connection.sock
        connection.sock.settimeout(self._remaining())
        self.stage = "answer"


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, host: str, exchange: _Exchange, **options: Any) -> None:
        super().__init__(host, **options)
        self._exchange = exchange

    def connect(self) -> None:
        self._exchange.connected(self, super().connect)


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, exchange: _Exchange, **options: Any) -> None:
        super().__init__(host, **options)
        self._exchange = exchange

    def connect(self) -> None:
        self._exchange.connected(self, super().connect)


def _has_more(sock: socket.socket | None) -> bool:
    """Return whether something came on a connection after the last answer, its end for one."""
    if sock is None:
        return False
    return (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0) or bool(select.select([sock], [], [], 0)[0])


def _proxy_of(url: str) -> urllib.parse.SplitResult | None:
    """Return the proxy for an address, None for none. Raises ProxyError."""
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Here and below: few hosts have a proxy, and to compile what deals with it takes a part of a request's time.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import proxy_of

    return proxy_of(url)


def _proxy_headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import proxy_headers

    return proxy_headers(proxy)


class BundleError(Exception):
    """The CA certificates to trust can't be read."""


class TooLargeError(Exception):
    """The body goes on after the largest size that anybody asked for."""


def request(
    method: str,
    url: str,
    token: str | None = None,
    *,
    timeout: float,
    ca_path: str | None = None,
    json_body: Any = None,
    max_bytes: int = MAX_BYTES,
) -> Answer:
    """Send one request and return the answer, whatever its status.

    ``token`` goes out as ``Authorization: Bearer``, to the host of ``url`` alone. ``timeout`` is in seconds and covers
    everything; it holds also when a name lookup or a TLS handshake hangs, because the work is done by a thread that
    is left behind then (a daemon thread: it doesn't keep the process from ending).

    Raises HttpError. Neither its text nor an abandoned thread ever shows the token.
    """
    body = None if json_body is None else json.dumps(json_body).encode("utf-8")
    (outcome,) = _send([_message(method, url, token, body, is_last=True)], timeout, max_bytes, ca_path)
    if isinstance(outcome, HttpError):
        raise outcome
    return outcome


def request_each(
    asked: Sequence[tuple[str, str | None]], *, timeout: float, ca_path: str | None = None
) -> list[Answer | HttpError]:
    """Get several addresses of one server over one connection, and return what came of each, in order.

    Args:
        asked: the addresses, each with the token to send there, or None.
        timeout: seconds for all of them. What was not answered by then has the HttpError ``timeout``.
        ca_path: bundle of CA certificates to trust.

    Raises:
        HttpError: an address or a token cannot be sent.
    """
    last = len(asked) - 1
    messages = [_message("GET", url, token, None, is_last=number == last) for number, (url, token) in enumerate(asked)]
    return _send(messages, timeout, MAX_BYTES, ca_path) if messages else []


def _message(method: str, url: str, token: str | None, body: bytes | None, *, is_last: bool) -> _Message:
    _check_url(url)
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close" if is_last else "keep-alive",
        "User-Agent": USER_AGENT,
        # Makes the request a programmatic one even without a token: 401 instead of a login page.
        "X-Requested-With": "XMLHttpRequest",
    }
    if body is not None:
        headers["Content-Type"] = "application/json"
    if token is not None:
        if not token.isascii() or not token.isprintable():
            raise HttpError("bad_request", url, "the token has characters that cannot be sent in an HTTP header")
        headers["Authorization"] = f"Bearer {token}"
    return _Message(method, url, headers, body)


def _send(messages: list[_Message], timeout: float, max_bytes: int, ca_path: str | None) -> list[Answer | HttpError]:
    exchange = _Exchange(messages, time.monotonic() + timeout, max_bytes, ca_path)
    thread = threading.Thread(target=exchange.run, name="cave-http", daemon=True)
    thread.start()
    thread.join(max(0.0, exchange.deadline - time.monotonic()))
    outcomes = list(exchange.outcomes)
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if len(answers) == len(messages):
        return [*answers]
    # Few requests fail, and to compile what is said of these takes a tenth of a request's time.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.failures import failure

    if len(outcomes) < len(messages):
        exchange.abandon()
    unanswered: list[BaseException] = [socket.timeout()] * (len(messages) - len(outcomes))
    shares = [*exchange.shares, *[timeout] * len(messages)]
    return [
        outcome
        if isinstance(outcome, Answer)
        else failure(outcome, message.url, exchange.stage, share, max_bytes, ca_path)
        for message, outcome, share in zip(messages, [*outcomes, *unanswered], shares)
    ]


def _check_url(url: str) -> None:
    if not url.isascii() or not url.isprintable() or {*url} & {" ", "@"}:
        raise HttpError("bad_url", "(address not shown)", "it has spaces or characters that no address has")
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise HttpError("bad_url", url, "this is not an address like https://global.daf-apis.com")
