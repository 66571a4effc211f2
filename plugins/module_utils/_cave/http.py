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
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import tls_context
from ansible_collections.connectomics.cave.plugins.module_utils._cave.wire import CutError, Wire
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

USER_AGENT = "connectomics.cave (Ansible collection)"
MAX_BYTES = 1 << 20
CONNECT_TIMEOUT = 10.0
MOST_PARTS = 50_000
"""Commas and opening brackets of a JSON body. Python makes an object of each, which takes a hundred times the room."""
LONGEST_NUMBER = 400
"""Digits. Longer JSON numbers take quadratic time to convert and mean nothing here."""
_URL = re.compile(r"(https?)://((?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{0,5}))?)((?:[/?][!-\"$-~]*)?)")
_PORTS = {"http": 80, "https": 443}


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


class _Address(NamedTuple):
    """The parts of a URL."""

    scheme: str
    authority: str
    """Host and port as they stand."""
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> _Address:
        """Return the parts of a URL. Raises HttpError."""
        match = _URL.fullmatch(url)
        if match is None:
            is_shown = url.isascii() and url.isprintable() and not {*url} & {" ", "@"}
            reason = "this is not an address like https://global.daf-apis.com"
            raise HttpError("bad_url", url if is_shown else "(address not shown)", reason)
        scheme, authority, literal, name, port, target = match.groups()
        if port and int(port) not in range(1, 65536):
            raise HttpError("bad_url", url, f"{port} is not a port")
        target = target if target.startswith("/") else f"/{target}"
        return cls(scheme, authority.rstrip(":"), literal or name, int(port or _PORTS[scheme]), target)


class _Message(NamedTuple):
    """What is sent, and where to."""

    method: str
    url: str
    address: _Address
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
        self._wire: Wire | None = None
        self._socket: socket.socket | None = None

    def run(self) -> None:
        """The thread's body. Keeps whatever is raised: a traceback printed by a thread could show a header."""
        for number, message in enumerate(self.messages):
            outcome: Answer | BaseException
            now = time.monotonic()
            self.shares.append((self.deadline - now) / (len(self.messages) - number))
            self._own_deadline = now + self.shares[-1]
            try:
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
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _remaining(self) -> float:
        remaining = self._own_deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        return remaining

    def _exchange(self, message: _Message) -> Answer:
        proxy = _proxy_of(message.url)
        wire = self._wire
        if wire is not None:
            try:
                return self._ask(wire, message, proxy)
            except (CutError, OSError) as error:
                # The server may end a connection between two requests whenever it likes.
                if wire.began or isinstance(error, socket.timeout):
                    raise
        self._wire = self._connected(message.address, proxy)
        return self._ask(self._wire, message, proxy)

    def _ask(self, wire: Wire, message: _Message, proxy: SplitResult | None) -> Answer:
        method, url, address, headers, body = message
        headers, target = {"Host": address.authority, **headers}, address.target
        if proxy and address.scheme == "http":
            headers, target = {**headers, **_proxy_headers(proxy)}, url
        self._socket, self.stage, keeps = wire.connection, "answer", False
        try:
            answered = wire.ask(method, target, headers, body, most=self.max_bytes, remaining=self._remaining)
            keeps = answered.keeps and message is not self.messages[-1]
            return Answer(answered.status, answered.headers, answered.body, url)
        finally:
            if not keeps:
                self._hang_up()

    def _connected(self, address: _Address, proxy: SplitResult | None) -> Wire:
        """Connect within the (shorter) connect timeout."""
        self.stage = "connect"
        timeout = min(CONNECT_TIMEOUT, self._remaining())
        context = self._trust() if address.scheme == "https" else None
        place = (proxy.hostname or "", proxy.port or 0) if proxy else (address.host, address.port)
        self._socket = connection = socket.create_connection(place, timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                if proxy:
                    self._open_tunnel(Wire(connection), address, proxy, timeout)
                connection.settimeout(timeout)
                self._socket = connection = context.wrap_socket(connection, server_hostname=address.host)
        except BaseException:
            connection.close()
            raise
        return Wire(connection)

    @staticmethod
    def _open_tunnel(wire: Wire, address: _Address, proxy: SplitResult, timeout: float) -> None:
        host = f"[{address.host}]" if ":" in address.host else address.host
        headers = {"Host": f"{host}:{address.port}", **_proxy_headers(proxy)}
        answered = wire.ask("CONNECT", headers["Host"], headers, None, most=0, remaining=lambda: timeout)
        if answered.status != 200:
            raise NoTunnelError(answered.status)

    def _trust(self) -> ssl.SSLContext:
        try:
            return tls_context(self.ca_path)
        except OSError as error:
            raise BundleError(error) from error


def _proxy_of(url: str) -> SplitResult | None:
    """Return the proxy for an address, None for none. Raises ProxyError."""
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Here and below: few hosts have a proxy, and what is needed of urllib then takes a tenth of a request's time.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import proxy_of

    return proxy_of(url)


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import proxy_headers

    return proxy_headers(proxy)


class BundleError(Exception):
    """The CA certificates to trust can't be read."""


class NoTunnelError(Exception):
    """The proxy does not let the connection through; its argument is the status."""


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
    address = _Address.of(url)
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
    return _Message(method, url, address, headers, body)


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
