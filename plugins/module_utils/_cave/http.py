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

import binascii
import contextlib
import email.utils
import http.client
import itertools
import json
import os
import random
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from typing import Any, Callable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

USER_AGENT = "connectomics.cave (Ansible collection)"
MAX_BYTES = 1 << 20
CONNECT_TIMEOUT = 10.0
RETRY_STATUSES = frozenset((429, 502, 503, 504))
REFUSED_BEFORE_WORK = frozenset((429, 503))
"""Statuses after which the server has certainly not acted, so that even a POST may be sent again."""
NOT_CONNECTED = frozenset(("dns", "refused", "unreachable"))
BACKOFF_FIRST = 0.5  # seconds
BACKOFF_MOST = 8.0  # seconds
MOST_PARTS = 50_000
"""Commas and opening brackets of a JSON body. Python makes an object of each, which takes a hundred times the room."""
LONGEST_NUMBER = 400
"""Digits. Longer JSON numbers take quadratic time to convert and mean nothing here."""

_random = random.SystemRandom()  # not seeded alike on cloned hosts, whose pauses would then be the same

# Where distributions keep the system's bundle: an OpenSSL that was built elsewhere (a
# relocatable Python) looks in the directories of the machine it was built on.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


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
# Trust

_contexts: dict[tuple[str, int, int], ssl.SSLContext] = {}
_contexts_lock = threading.Lock()


def trust_bundle(ca_path: str | None) -> str | None:
    """The bundle of CA certificates to trust: the one named, else what the environment names, else None (system)."""
    if ca_path:
        return os.path.expanduser(ca_path)
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or None


def tls_context(ca_path: str | None = None) -> ssl.SSLContext:
    """A context that checks certificates and host names and speaks TLS 1.2 or newer.

    Contexts are shared between threads: reading a store of some 150 certificates takes longer than a request.
    Raises OSError (ssl.SSLError is one) when the bundle cannot be used.
    """
    bundle = trust_bundle(ca_path)
    info = os.stat(bundle) if bundle else None
    key = (bundle or "", info.st_mtime_ns if info else 0, info.st_size if info else 0)
    with _contexts_lock:
        if key not in _contexts:
            _contexts[key] = _new_context(bundle)
        return _contexts[key]


def _new_context(bundle: str | None) -> ssl.SSLContext:
    if bundle and os.path.isdir(bundle):
        context = ssl.create_default_context(capath=bundle)
    elif bundle:
        context = ssl.create_default_context(cafile=bundle)
    else:
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        if not paths.cafile and not paths.capath:
            for candidate in SYSTEM_BUNDLES:
                if os.path.isfile(candidate):
                    context.load_verify_locations(cafile=candidate)
                    break
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


# ---------------------------------------------------------------------------------------------------------------------
# One request


class _Message(NamedTuple):
    """What is sent, and where to."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


class _Exchange:
    """One request on its way, in a thread of its own, so that the caller can walk away from it at the deadline."""

    def __init__(self, message: _Message, deadline: float, max_bytes: int, ca_path: str | None) -> None:
        self.message = message
        self.deadline = deadline
        self.max_bytes = max_bytes
        self.ca_path = ca_path
        self.stage = "connect"
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self._socket: socket.socket | None = None

    def run(self) -> None:
        """The thread's body. Keeps whatever is raised: a traceback printed by a thread could show a header."""
        try:
            self.answer = self._exchange()
        except BaseException as error:  # noqa: BLE001 (raised again, by the thread that waits for it)
            self.error = error

    def abandon(self) -> None:
        """Cut the connection, so that an endless answer stops arriving. Called from outside of the thread."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)

    def _remaining(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        return remaining

    def _exchange(self) -> Answer:
        method, url, headers, body = self.message
        parts = urllib.parse.urlsplit(url)
        proxy = _proxy_of(url)
        host, port = (proxy or parts).hostname or "", (proxy or parts).port
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection: _PlainConnection | _TlsConnection
        if parts.scheme == "https":
            connection = _TlsConnection(host, self, port=port, timeout=self._remaining(), context=self._trust())
            if proxy:
                connection.set_tunnel(parts.hostname or "", parts.port, headers=_proxy_headers(proxy))
        else:
            connection = _PlainConnection(host, self, port=port, timeout=self._remaining())
            if proxy:
                headers, target = {**headers, **_proxy_headers(proxy)}, url
        with contextlib.closing(connection):
            connection.request(method, target, body, headers)
            with connection.getresponse() as response:
                found = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, found, self._body(response), url)

    def _trust(self) -> ssl.SSLContext:
        try:
            return tls_context(self.ca_path)
        except OSError as error:
            raise _BundleError(error) from error

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
                raise _TooLargeError()
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


class _TooLargeError(Exception):
    """The body goes on after the largest size that anybody asked for."""


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


class _BundleError(Exception):
    """The CA certificates to trust can't be read."""


class _ProxyError(Exception):
    """The proxy that the environment names is of a kind that cannot be used."""


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
    _check_url(url)
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": USER_AGENT,
        # Makes the request a programmatic one even without a token: 401 instead of a login page.
        "X-Requested-With": "XMLHttpRequest",
    }
    body = None
    if json_body is not None:
        body = json.dumps(json_body).encode("utf-8")
        headers["Content-Type"] = "application/json"
    if token is not None:
        if not token.isascii() or not token.isprintable():
            raise HttpError("bad_request", url, "the token has characters that cannot be sent in an HTTP header")
        headers["Authorization"] = f"Bearer {token}"

    message = _Message(method, url, headers, body)
    exchange = _Exchange(message, time.monotonic() + timeout, max_bytes, ca_path)
    thread = threading.Thread(target=exchange.run, name="cave-http", daemon=True)
    thread.start()
    thread.join(max(0.0, exchange.deadline - time.monotonic()))
    if exchange.answer is not None:
        return exchange.answer
    if exchange.error is None:
        exchange.abandon()
        raise HttpError("timeout", url, _timeout_text(exchange.stage, timeout))
    raise _failure(exchange.error, url, exchange.stage, timeout, max_bytes, ca_path) from None


def _check_url(url: str) -> None:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise HttpError("bad_url", "(address not shown)", "it has spaces or characters that no address has")
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise HttpError("bad_url", url, "this is not an address like https://global.daf-apis.com")


# ---------------------------------------------------------------------------------------------------------------------
# What went wrong


def _timeout_text(stage: str, timeout: float) -> str:
    what = "no connection" if stage == "connect" else "no complete answer"
    return f"{what} within {round(timeout, 1):g} s"


def _failure(
    error: BaseException, url: str, stage: str, timeout: float, max_bytes: int, ca_path: str | None
) -> HttpError:
    """Sort an exception of urllib, http.client, ssl or the socket into a kind with a reason."""
    kind, reason = _kind_and_reason(error, url, stage, timeout, max_bytes, ca_path)
    return HttpError(kind, url, reason)


def _kind_and_reason(
    error: BaseException, url: str, stage: str, timeout: float, max_bytes: int, ca_path: str | None
) -> tuple[str, str]:
    proxy = proxy_for(url)
    through = f" (through the proxy {proxy})" if proxy else ""
    if isinstance(error, _BundleError):
        return "ca", f"the CA certificates in {trust_bundle(ca_path)} cannot be used: {_os_text(error.args[0])}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls", f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "tls", f"no TLS connection: {error.reason or 'the server broke off the handshake'}"
    if isinstance(error, socket.timeout):
        if stage == "connect":
            timeout = min(timeout, CONNECT_TIMEOUT)
        return "timeout", _timeout_text(stage, timeout) + through
    if isinstance(error, socket.gaierror):
        return "dns", f"the name cannot be resolved: {error.strerror}{through}"
    if isinstance(error, UnicodeError):
        return "bad_url", "the host name is not a valid one"
    if isinstance(error, ConnectionRefusedError):
        return "refused", f"connection refused{through}"
    if isinstance(error, http.client.InvalidURL):
        return "bad_url", "this is not a valid address"
    if isinstance(error, _TooLargeError):
        return "too_large", f"the answer is larger than {max_bytes} bytes"
    if isinstance(error, (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)):
        return "cut", f"the connection broke off before the answer was complete{through}"
    if isinstance(error, http.client.HTTPException):
        return "bad_answer", f"the answer is not HTTP ({type(error).__name__}){through}"
    if isinstance(error, _ProxyError):
        return "proxy", f"the address cannot be asked{through}"
    if isinstance(error, OSError):
        if proxy and "tunnel" in str(error).lower():
            return "proxy", f"the proxy {proxy} does not let the connection through"
        return "unreachable", f"{_os_text(error)}{through}"
    return "bad_request", f"the request cannot be sent ({type(error).__name__})"


def _os_text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__


def proxy_for(url: str) -> str | None:
    """The proxy (``host:port``, without credentials) that the environment names for an address, or None."""
    with contextlib.suppress(_ProxyError):
        proxy = _proxy_of(url)
        return proxy.netloc.rpartition("@")[2] if proxy else None
    return "of the environment, which is no HTTP proxy"


def _proxy_of(url: str) -> urllib.parse.SplitResult | None:
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # takes a tenth of a request's time: where it is needed only

    parts = urllib.parse.urlsplit(url)
    named = getproxies().get(parts.scheme)
    if not named or proxy_bypass(parts.netloc):
        return None
    try:
        proxy = urllib.parse.urlsplit(named if "//" in named else f"//{named}")
        if proxy.scheme in ("", "http", "https") and proxy.hostname and proxy.port != 0:
            return proxy
    except ValueError:
        pass
    raise _ProxyError


def _proxy_headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    credentials = urllib.parse.unquote(f"{proxy.username}:{proxy.password or ''}").encode()
    return {"Proxy-Authorization": f"Basic {binascii.b2a_base64(credentials, newline=False).decode()}"}


# ---------------------------------------------------------------------------------------------------------------------
# Several tries


def request_with_retries(
    method: str,
    url: str,
    token: str | None = None,
    *,
    timeout: float,
    retries: int = 2,
    ca_path: str | None = None,
    json_body: Any = None,
    max_bytes: int = MAX_BYTES,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Like ``request``, but asks again, up to ``retries`` times, when the server is busy or can't be reached.

    All tries and pauses together stay within ``timeout`` seconds. A pause is as long as the server's ``Retry-After``
    says, else it grows exponentially, with jitter, so that a fleet doesn't come back all at once. When no time is left
    for the next pause, the last answer (or failure) is the result.

    A method that changes something (POST, DELETE) is sent again only when the server has certainly not acted on it.
    """
    deadline = time.monotonic() + timeout
    changes = method.upper() not in ("GET", "HEAD")
    for attempt in itertools.count():
        remaining = max(0.0, deadline - time.monotonic())
        outcome: Answer | HttpError
        try:
            outcome = request(
                method, url, token, timeout=remaining, ca_path=ca_path, json_body=json_body, max_bytes=max_bytes
            )
        except HttpError as error:
            outcome = error
        pause = _pause(outcome, attempt)
        out_of_time = time.monotonic() + pause >= deadline
        if attempt >= retries or out_of_time or not _worth_another_try(outcome, changes):
            break
        sleep(pause)
    if isinstance(outcome, HttpError):
        raise outcome
    return outcome


def _worth_another_try(outcome: Answer | HttpError, changes: bool) -> bool:
    if isinstance(outcome, Answer):
        return outcome.status in (REFUSED_BEFORE_WORK if changes else RETRY_STATUSES)
    return outcome.kind in NOT_CONNECTED or (outcome.kind in ("cut", "timeout") and not changes)


def _pause(outcome: Answer | HttpError, attempt: int) -> float:
    asked = retry_after(outcome.headers.get("retry-after", "")) if isinstance(outcome, Answer) else None
    if asked is not None:
        # A little more than asked for, and never the same for two hosts.
        return asked + _random.uniform(0.0, 0.25 * BACKOFF_FIRST)
    return _random.uniform(0.5, 1.0) * min(BACKOFF_MOST, BACKOFF_FIRST * 2.0**attempt)


def retry_after(value: str, now: float | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None (RFC 9110, 10.2.3: seconds or a date)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))
