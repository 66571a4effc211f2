# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks by whoever is in the place of a CAVE server, on the modules that ask one."""

from __future__ import annotations

import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from homes import DEFAULT_FILE, OLD_TOKEN, fill, picture
from module_runner import module_input
from raw_server import Conversation, RawServer, http_answer, say
from torture.attacks import Report, Short, attack
from torture.write_path import scratch, thinned

from cave_server import CaveServer

TIMEOUT = 2
"""Seconds that the modules are given."""
SLACK = 8
"""Seconds that a busy machine may take besides."""
LIMIT = 20
"""Seconds after which a module is ended."""
MOST_MEMORY = 64 * 1024
"""Kilobytes."""
STACK = "minnie65_public"
TREE = Path(__file__).resolve().parents[3] / ".tree"

# Runs a module as its own program, and says how long its work took, how much memory at most, and to whom it connected.
_WATCHED = """
import importlib, json, re, resource, sys, time
name, told = sys.argv[1:3]
module = importlib.import_module("ansible_collections.connectomics.cave.plugins.modules." + name)
sys.argv = [name + ".py"]
places = []
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        places.append(list(arguments[1][:2]))
sys.addaudithook(watch)
started = time.monotonic()
try:
    module.main()
finally:
    seconds = time.monotonic() - started
    peak = int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
    peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    with open(told, "w") as file:
        json.dump({"seconds": seconds, "peak": peak, "places": places}, file)
"""


@dataclass(frozen=True)
class Target:
    """Where a module is sent to: an address, the bundle that may be needed to trust it, and a token that it knows."""

    url: str
    ca: str | None = None
    token: str = OLD_TOKEN
    received: Callable[[], int] = lambda: 0
    """How many requests it got, where it should have got none."""


@dataclass(frozen=True)
class Case:
    """A server, and the verdict on it that is right.

    Attributes:
        name: for notes.
        verdict: of the modules that ask for a person.
        listing: of those that ask for a list of tokens, where that differs.
        target: the server, for as long as the block lasts; it gets an address of somebody else.
        is_mute: whether it must not see a single request.
    """

    name: str
    verdict: str
    target: Callable[[str], AbstractContextManager[Target]]
    listing: str = ""
    is_mute: bool = False


@dataclass
class Seen:
    """How a module ended."""

    result: dict[str, Any]
    output: str
    seconds: float = 0.0
    peak: int = 0
    places: list[tuple[str, int]] = field(default_factory=list)


# Those who ask --------------------------------------------------------------------------------------------------------


def _common(target: Target) -> dict[str, Any]:
    return {"server": target.url, "ca_path": target.ca, "timeout": TIMEOUT, "retries": 0}


def _verify(target: Target) -> dict[str, Any]:
    return {**_common(target), "token": target.token, "datastacks": [STACK]}


def _verify_user(target: Target) -> dict[str, Any]:
    return {**_common(target), "datastacks": [STACK], "cloud_volume_dir": ""}


def _save(target: Target) -> dict[str, Any]:
    return {**_common(target), "token": target.token, "datastacks": [STACK], "cloud_volume_dir": ""}


def _list(target: Target) -> dict[str, Any]:
    return {**_common(target), "token": target.token}


def _make(target: Target) -> dict[str, Any]:
    return {**_list(target), "description": "lab"}


@dataclass(frozen=True)
class Asker:
    """A module as it is called, and how its result names the verdict."""

    module: str
    arguments: Callable[[Target], dict[str, Any]]
    verdict: Callable[[dict[str, Any]], str]
    lists: bool = False


def _users_verdict(result: dict[str, Any]) -> str:
    return str(result.get("verdict"))


def _access_of_user(result: dict[str, Any]) -> str:
    users = result.get("users") or [{}]
    return str(users[0].get("access", {}).get("verdict"))


def _access(result: dict[str, Any]) -> str:
    return str(result["access"].get("verdict")) if "access" in result else "failed" if result.get("failed") else "ok"


ASKERS = {
    "verify_access": Asker("verify_access", _verify, _users_verdict),
    "verify_access of a user": Asker("verify_access", _verify_user, _users_verdict),
    "saved_token": Asker("saved_token", _save, _access_of_user),
    "server_token": Asker("server_token", _make, _access, lists=True),
    "server_token_info": Asker("server_token_info", _list, _access, lists=True),
}


def ask(asker: Asker, target: Target, home: Path) -> Seen:
    """Run a module against a server, as a program of its own."""
    told = home.parent / "told.json"
    told.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _WATCHED, asker.module, str(told)],
            input=module_input({name: value for name, value in asker.arguments(target).items() if value is not None}),
            env={"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHONPATH": str(TREE)},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return Seen({"failed": True, "msg": f"no end within {LIMIT} s"}, "", seconds=LIMIT)
    output = done.stdout + done.stderr
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = {}
    figures = json.loads(told.read_text())
    places = [(str(host), int(port)) for host, port in figures["places"]]
    return Seen(result, output, figures["seconds"], figures["peak"], places)


# The servers ----------------------------------------------------------------------------------------------------------


def _faulty(kind: str, **parameters: Any) -> Callable[[str], AbstractContextManager[Target]]:
    @contextmanager
    def target(elsewhere: str) -> Iterator[Target]:
        with CaveServer() as cave:
            person = cave.add_person("alice", [STACK])
            if kind == "redirect":
                parameters["location"] = f"{elsewhere}/auth/api/v1/user/cache"
            cave.set_fault("/", kind, **parameters)
            yield Target(cave.url, token=person.token)

    return target


def _over_tls(**options: Any) -> Callable[[str], AbstractContextManager[Target]]:
    @contextmanager
    def target(elsewhere: str) -> Iterator[Target]:
        with CaveServer(tls=True, **options) as cave:
            person = cave.add_person("alice", [STACK])
            yield Target(cave.url, cave.ca, person.token, lambda: len(cave.requests()))

    return target


def _raw(
    conversation: Callable[[str], Conversation], **options: Any
) -> Callable[[str], AbstractContextManager[Target]]:
    @contextmanager
    def target(elsewhere: str) -> Iterator[Target]:
        with RawServer(conversation(elsewhere), **options) as server:
            yield Target(server.url)

    return target


def _saying(*parts: bytes) -> Callable[[str], AbstractContextManager[Target]]:
    return _raw(lambda _elsewhere: say(*parts))


@contextmanager
def _tls_expected(elsewhere: str) -> Iterator[Target]:
    """Give a server without TLS where TLS is expected."""
    with RawServer(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_request=False) as server:
        yield Target(server.url.replace("http:", "https:"), received=lambda: len(server.requests))


@contextmanager
def _dripping_handshake(elsewhere: str) -> Iterator[Target]:
    with RawServer(_dripping(b"\x16\x03\x03\x40\x00", b"\x02"), read_request=False) as server:
        yield Target(server.url.replace("http:", "https:"), received=lambda: len(server.requests))


@contextmanager
def _nobody_there(elsewhere: str) -> Iterator[Target]:
    with socket.socket() as held:  # bound, so that nobody else gets the port meanwhile, and never listening
        held.bind(("127.0.0.1", 0))
        yield Target(f"http://127.0.0.1:{held.getsockname()[1]}")


@contextmanager
def _redirecting_over_tls(elsewhere: str) -> Iterator[Target]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with (
        authority.cert_pem.tempfile() as bundle,
        RawServer(_sending_away(elsewhere), context=context) as server,
    ):
        yield Target(server.url, bundle)


def _sending_away(elsewhere: str) -> Conversation:
    page = f'<meta http-equiv="refresh" content="0;url={elsewhere}/"><script>location="{elsewhere}/"</script>'
    headers = (f"Location: {elsewhere}/", f"Refresh: 0; url={elsewhere}/", f'Alt-Svc: h2="{elsewhere[7:]}"; ma=99')
    return say(http_answer(page.encode(), *headers, status="307 Temporary Redirect", content_type="text/html"))


def _dripping(head: bytes, drop: bytes) -> Conversation:
    def conversation(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            time.sleep(1 if len(drop) == 1 else 0.1)

    return conversation


def _endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10737418240\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


def _bomb(opening: bytes, piece: bytes, closing: bytes, megabytes: float) -> Callable[[str], Any]:
    count = int((megabytes * (1 << 20) - len(opening) - len(closing)) / len(piece))
    return _saying(http_answer(opening + piece * count + closing.lstrip(b",")))


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_PERSON = (  # and a datastack's record in one
    b'{"id": 3, "name": "Alice", "email": "a@example.org", "permissions_v2": {"minnie65_public": ["view"]}, '
    b'"aligned_volume": {}}'
)
_TERMS = {"tos_form_url": "https://evil.example.org/accept", "tos_id": 2, "tos_name": "\x1b[2J{{ 7*7 }}"}
_OWED = json.dumps({"error": "missing_tos", "message": "\x1b]0;owned\x07", "data": _TERMS}).encode()
_LISTED = b'{"id":7,"token":"abcdefgh"},'

CASES = (
    # What the stand-in can do
    *(Case(f"status {code}", "server_error", _faulty("status", status=code)) for code in (500, 502, 503, 504)),
    Case("status 429, wait for a year", "rate_limited", _faulty("status", status=429, retry_after=31_536_000)),
    Case("a login page", "not_a_cave_server", _faulty("html")),
    *(
        Case(f"redirect {code} to another host", "not_a_cave_server", _faulty("redirect", status=code))
        for code in (301, 302, 303, 307, 308)
    ),
    Case("the connection is reset", "unreachable", _faulty("cut")),
    Case("no answer, ever", "unreachable", _faulty("hang")),
    Case("a body of 10 GB, chunked", "not_a_cave_server", _faulty("endless", megabytes=10_240)),
    Case("headers of 10 GB", "not_a_cave_server", _faulty("endless_headers", megabytes=10_240)),
    Case("a gzip bomb", "not_a_cave_server", _faulty("gzip_bomb", megabytes=1024)),
    Case("injected headers, status 401", "not_a_cave_server", _faulty("header_injection", status=401)),
    Case("injected headers, status 200", "not_a_cave_server", _faulty("header_injection", status=200)),
    Case("no HTTP", "not_a_cave_server", _faulty("not_http")),
    Case("the answer is lost", "unreachable", _faulty("cut_after")),
    Case("half a body", "unreachable", _faulty("cut_body")),
    Case("half a JSON", "server_error", _faulty("cut_json")),
    Case("another content type", "not_a_cave_server", _faulty("content_type", type="text/plain")),
    Case("a body, one byte a second", "unreachable", _faulty("drip", interval=1.0)),
    Case("headers, one byte a second", "unreachable", _faulty("drip", interval=1.0, headers=True)),
    Case("a second answer behind the first", "ok", _faulty("pipelined")),
    Case("an answer that takes its time", "ok", _faulty("latency", seconds=0.25)),
    # Certificates and versions
    Case("a certificate of another host", "tls_error", _over_tls(certificate="wrong_host"), is_mute=True),
    Case("an expired certificate", "tls_error", _over_tls(certificate="expired"), is_mute=True),
    Case("a certificate of nobody", "tls_error", _over_tls(certificate="untrusted"), is_mute=True),
    Case("TLS 1.0", "tls_error", _over_tls(tls_version="1.0"), is_mute=True),
    Case("TLS 1.1", "tls_error", _over_tls(tls_version="1.1"), is_mute=True),
    Case("no TLS", "tls_error", _tls_expected, is_mute=True),
    Case("a handshake, one byte a second", "unreachable", _dripping_handshake, is_mute=True),
    Case("a trusted certificate", "ok", _over_tls()),
    # What no HTTP framework would send
    Case("nobody there", "unreachable", _nobody_there),
    Case("away in every way, over TLS", "not_a_cave_server", _redirecting_over_tls),
    Case("away in every way", "not_a_cave_server", _raw(_sending_away)),
    Case("a body of 10 GB", "not_a_cave_server", _raw(lambda _elsewhere: _endless)),
    Case("a status line, one byte a second", "unreachable", _raw(lambda _elsewhere: _dripping(b"", b"H"))),
    Case(
        "100 Continue for ever",
        "unreachable",
        _raw(lambda _elsewhere: _dripping(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n")),
    ),
    Case("closed at once", "unreachable", _saying()),
    Case("1000 headers", "not_a_cave_server", _saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n")),
    Case("a header of 100 KB", "not_a_cave_server", _saying(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")),
    Case("a status of its own", "server_error", _saying(b"HTTP/1.1 999 OK\r\n\r\n")),
    Case(
        "garbage behind the answer",
        "ok",
        _saying(http_answer(_PERSON) + b"\x00\xffgarbage" * 1000),
        "not_a_cave_server",
    ),
    Case("a length below zero", "not_a_cave_server", _saying(_OK + b"Content-Length: -1\r\n\r\n[" + b"[" * (2 << 20))),
    Case("two lengths", "server_error", _saying(_OK + b"Content-Length: 5\r\nContent-Length: 99\r\n\r\n" + _PERSON)),
    Case("an endless chunk", "unreachable", _saying(_OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffff\r\n[")),
    Case("a chunk of no size", "unreachable", _saying(_OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n[")),
    Case("terms of service elsewhere", "missing_tos", _saying(http_answer(_OWED, status="403 Forbidden"))),
    # JSON that takes more to read than it seems
    Case("deep JSON", "server_error", _bomb(b"", b"[", b"", 0.9)),
    Case("a number without end", "server_error", _bomb(b'{"id": ', b"9", b"}", 0.9)),
    Case("a million small things", "server_error", _bomb(b"[", b"{},", b"{}]", 0.99)),
    Case("many small strings", "server_error", _bomb(b"[", b'"ab",', b"0]", 0.99)),
    Case("text of four bytes a letter", "not_a_cave_server", _bomb('["\U0001f600'.encode(), b"x", b'"]', 0.99)),
    Case("megabytes of small things", "not_a_cave_server", _bomb(b"[", b"{},", b"{}]", 3.99)),
    Case("megabytes of text", "not_a_cave_server", _bomb('["\U0001f600'.encode(), b"x", b'"]', 3.99)),
    Case("a hundred thousand tokens", "not_a_cave_server", _bomb(b"[", _LISTED, b"0]", 2.2)),
    Case("ten thousand tokens", "not_a_cave_server", _bomb(b"[", _LISTED, b"0]", 0.3)),
)


# The attack -----------------------------------------------------------------------------------------------------------


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _unprintable(result: dict[str, Any]) -> list[str]:
    """Return the texts of a result that would do something to a terminal, or look like a line of their own."""
    return [
        text
        for text in _strings({name: value for name, value in result.items() if name != "diff"})
        if any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in text)
    ]


def _judge(report: Report, where: str, case: Case, asker: Asker, target: Target, seen: Seen) -> None:
    expected = (case.listing if asker.lists else "") or case.verdict
    found = asker.verdict(seen.result)
    report.check(found == expected, f"{where}: {found}, expected {expected}: {seen.result.get('msg') or seen.output}")
    report.check(seen.seconds <= TIMEOUT + SLACK, f"{where}: took {seen.seconds:.2f} s")
    report.check(seen.peak <= MOST_MEMORY, f"{where}: took {seen.peak / 1024:.0f} MB")
    report.check(target.token not in seen.output, f"{where}: shows the token")
    report.check("Traceback" not in seen.output, f"{where}: {seen.output[-300:]}")
    strange = _unprintable(seen.result)
    report.check(not strange, f"{where}: would be printed as it is: {strange[:1]!r}")
    address = target.url.partition("//")[2].rpartition(":")
    others = [place for place in seen.places if place != (address[0], int(address[2]))]
    report.check(not others, f"{where}: connected to {others}")
    if case.is_mute:
        report.check(target.received() == 0, f"{where}: {target.received()} requests got there")


@attack(
    "hostile-server",
    "A hostile server costs no more than the time limit and 64 MB, gets the right verdict, and moves the token nowhere",
    f"{len(CASES)} servers that send redirects, bombs, drips, garbage, injected headers and bad certificates, "
    "each asked by verify_access, saved_token, server_token and server_token_info",
    fewest=5 * len(CASES),
    short=Short(0.04, 10),
)
def hostile_server(report: Report, scale: float) -> None:
    """Ask each hostile server in every way that there is."""
    slowest = largest = 0.0
    counts: Counter[str] = Counter()
    chosen = thinned(list(itertools.product(CASES, ASKERS)), scale)
    with scratch() as folder, RawServer(say(http_answer(_PERSON))) as elsewhere:
        for case, pairs in itertools.groupby(chosen, key=lambda pair: pair[0]):
            with case.target(elsewhere.url) as target:
                for name, asker in [(name, ASKERS[name]) for _case, name in pairs]:
                    home = folder / "home"
                    fill(home, {DEFAULT_FILE: {"token": target.token if name.endswith("user") else OLD_TOKEN}})
                    before = picture(home)
                    seen = ask(asker, target, home)
                    report.tries += 1
                    where = f"{case.name}, {name}"
                    counts[asker.verdict(seen.result)] += 1
                    _judge(report, where, case, asker, target, seen)
                    if case.verdict != "ok":
                        report.check(picture(home) == before, f"{where}: the secrets files changed")
                    slowest, largest = max(slowest, seen.seconds), max(largest, seen.peak / 1024)
        report.check(not elsewhere.requests, f"somebody else received {elsewhere.requests[:1]!r}")
        report.check(elsewhere.connections == 0, f"somebody else was connected to {elsewhere.connections} times")
    report.counts = {**counts, "slowest_ms": round(slowest * 1000), "largest_mb": round(largest)}
