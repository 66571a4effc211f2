# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the faults look on the wire."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from . import pages
from .faults import Fault

LONGEST = 180.0
"""Seconds after which a fault without an end ends, so that a forgotten client doesn't keep it for ever."""
BLOCK = 65_536
MEGABYTE = 1 << 20


class AlreadySent(web.Response):
    """Nothing is left to send: the fault wrote to the connection itself, or ended it."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send no headers."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no body."""


async def answer(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Answer a request with one of the faults that come instead of the service."""
    return await INSTEAD[fault.kind](request, fault)


async def spoil(request: web.Request, fault: Fault, response: web.StreamResponse) -> web.StreamResponse:
    """Spoil the true answer to a request that was carried out."""
    if not isinstance(response, web.Response):
        raise TypeError("only whole answers can be spoilt")
    return await SPOILING[fault.kind](request, fault, response)


async def status(_request: web.Request, fault: Fault) -> web.StreamResponse:
    """Answer as a front end does on its own."""
    code = fault.parameters["status"]
    headers = {}
    if fault.parameters["retry_after"] is not None:
        headers["Retry-After"] = str(fault.parameters["retry_after"])
    title = f"{code} {pages.NGINX_REASONS.get(code) or web.Response(status=code).reason}"
    body = fault.parameters["body"]
    return web.Response(
        status=code,
        text=pages.gateway(title) if body is None else body,
        content_type=fault.parameters["type"],
        headers=headers,
    )


async def html(_request: web.Request, fault: Fault) -> web.StreamResponse:
    """Answer with a login page."""
    return web.Response(status=fault.parameters["status"], text=pages.login([]), content_type="text/html")


async def redirect(_request: web.Request, fault: Fault) -> web.StreamResponse:
    """Send the client elsewhere."""
    return web.Response(status=fault.parameters["status"], headers={"Location": fault.parameters["location"]})


async def cut(request: web.Request, _fault: Fault) -> web.StreamResponse:
    """Reset the connection."""
    if request.transport:
        request.transport.abort()
    return AlreadySent()


async def hang(request: web.Request, _fault: Fault) -> web.StreamResponse:
    """Say nothing until the client goes away."""
    end = _now() + LONGEST
    while request.transport and not request.transport.is_closing() and _now() < end:
        await asyncio.sleep(0.05)
    return await cut(request, _fault)


async def endless(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Send JSON that goes on and on."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"name": "'
        for _block in range(fault.parameters["megabytes"] * MEGABYTE // BLOCK):
            yield b"x" * BLOCK
        yield b'"}'

    return await _stream(request, {"Content-Type": "application/json"}, pieces())


async def endless_headers(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Send header lines that go on and on."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        lines = b"".join(b"X-Line-%d: %s\r\n" % (number, b"x" * 1000) for number in range(64))
        for _block in range(fault.parameters["megabytes"] * MEGABYTE // BLOCK):
            yield lines

    return await _write(request, pieces())


async def gzip_bomb(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Send little that unpacks to much: one compressed block, over and over, in one valid stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    head = packer.compress(b'{"name": "') + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b"x" * MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        for _block in range(fault.parameters["megabytes"]):
            yield block

    return await _stream(request, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, pieces())


async def header_injection(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Send what does harm where it is printed, logged, or believed."""
    text = "\x1b[2J\x1b]0;owned\x07\r\nok: [localhost] => {{ 7*7 }} <script>alert(1)</script> \u202e"
    body = json.dumps(
        {"error": "invalid_token" + text, "message": text, "name": text, "email": text, "data": {"tos_form_url": text}}
    ).encode()
    head = [
        f"HTTP/1.1 {fault.parameters['status']} \x1b[31mFine\x1b[0m",
        'WWW-Authenticate: Bearer realm="\x1b[2J", error="ok"',
        "Retry-After: 99999999999999999999999999",
        "Location: http://elsewhere.example.org/\x1b[1m",
        "Set-Cookie: middle_auth_token=forged; Path=/",
        "X-Forged: a\nX-Bare-Newline: b",
        " folded: into the line above",
        "X-\x00Null: c",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]

    async def pieces() -> AsyncIterator[bytes]:
        yield "\r\n".join(head).encode() + b"\r\n\r\n" + body

    return await _write(request, pieces())


async def not_http(request: web.Request, _fault: Fault) -> web.StreamResponse:
    """Send something that is not HTTP."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"SSH-2.0-OpenSSH_9.2\r\n\x00\xff\xfe\r\n\r\n"

    return await _write(request, pieces())


async def cut_after(request: web.Request, fault: Fault, _response: web.Response) -> web.StreamResponse:
    """Lose the answer."""
    return await cut(request, fault)


async def cut_body(request: web.Request, _fault: Fault, response: web.Response) -> web.StreamResponse:
    """Announce the whole body and send half of it."""
    body = _body(response)

    async def pieces() -> AsyncIterator[bytes]:
        yield _head(response, len(body)) + body[: len(body) // 2]

    return await _write(request, pieces())


async def cut_json(_request: web.Request, _fault: Fault, response: web.Response) -> web.StreamResponse:
    """Send half the body as if it were all."""
    response.body = _body(response)[: len(_body(response)) // 2]
    return response


async def content_type(_request: web.Request, fault: Fault, response: web.Response) -> web.StreamResponse:
    """Send the body under another content type."""
    response.headers["Content-Type"] = fault.parameters["type"]
    return response


async def drip(request: web.Request, fault: Fault, response: web.Response) -> web.StreamResponse:
    """Send byte by byte, of the body or of all."""
    body = _body(response)
    head = _head(response, len(body))
    quick, slow = (b"", head + body) if fault.parameters["headers"] else (head, body)

    async def pieces() -> AsyncIterator[bytes]:
        yield quick
        for byte in slow:
            await asyncio.sleep(fault.parameters["interval"])
            yield bytes([byte])

    return await _write(request, pieces())


async def pipelined(request: web.Request, _fault: Fault, response: web.Response) -> web.StreamResponse:
    """Send a second answer, of another person, behind the true one."""
    body = _body(response)
    second = b'{"id": 666, "name": "mallory", "permissions": {}}'

    async def pieces() -> AsyncIterator[bytes]:
        yield _head(response, len(body), close=False) + body
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(second)
        yield second

    return await _write(request, pieces())


INSTEAD: dict[str, Callable[[web.Request, Fault], Awaitable[web.StreamResponse]]] = {
    function.__name__: function
    for function in (
        status,
        html,
        redirect,
        cut,
        hang,
        endless,
        endless_headers,
        gzip_bomb,
        header_injection,
        not_http,
    )
}
SPOILING: dict[str, Callable[[web.Request, Fault, web.Response], Awaitable[web.StreamResponse]]] = {
    function.__name__: function for function in (cut_after, cut_body, cut_json, content_type, drip, pipelined)
}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _body(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def _head(response: web.Response, length: int, *, close: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {length}"] + (["Connection: close"] if close else [])
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def _stream(request: web.Request, headers: dict[str, str], pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send pieces as a chunked body, until they end, the client goes, or it has taken too long."""
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    end = _now() + LONGEST
    try:
        await response.prepare(request)
        async for piece in pieces:
            await response.write(piece)
            # Writing waits only for a full buffer; the loop must hear that the client has left.
            await asyncio.sleep(0)
            if _now() > end:
                break
    except ConnectionError:
        return AlreadySent()
    return response


async def _write(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Write pieces to the connection as they are, then close it."""
    transport = request.transport
    end = _now() + LONGEST
    async for piece in pieces:
        if transport is None or transport.is_closing() or _now() > end:
            break
        transport.write(piece)
        await asyncio.sleep(0)
        while transport.get_write_buffer_size() > 4 * BLOCK and not transport.is_closing() and _now() < end:
            await asyncio.sleep(0.001)
    if transport:
        transport.close()
    return AlreadySent()
