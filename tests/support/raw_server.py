# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that says byte for byte what a test wants: for all that no HTTP framework would ever send."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self

Conversation = Callable[[socket.socket], None]


def say(*parts: bytes) -> Conversation:
    """Return a conversation that answers any request with these bytes."""

    def conversation(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return conversation


def http_answer(body: bytes, *headers: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """Return a complete HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def _read_request(connection: socket.socket) -> bytes:
    received = b""
    while True:
        head, blank, body = received.partition(b"\r\n\r\n")
        announced = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
        if blank and len(body) >= (int(announced[1]) if announced else 0):
            return received
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError("the client went away")
        received += chunk


class RawServer:
    """Listens on a port of 127.0.0.1 while the ``with`` block runs.

    Args:
        conversation: what to do with each connection, after the request's headers have been read.
        context: to speak TLS.
        read_request: whether to wait for the request first; without it the conversation has the bare connection.
    """

    def __init__(
        self, conversation: Conversation, *, context: ssl.SSLContext | None = None, read_request: bool = True
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._conversation = conversation
        self._context = context
        self._read_request = read_request
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._listener.settimeout(0.05)
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._open:
            connection.close()
        self._listener.close()

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _address = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(30)
            self._open.append(connection)
            self.connections += 1
            self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        # The client may be gone, or never have trusted us: that is what the tests are about.
        with contextlib.suppress(OSError, ValueError):
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            if self._read_request:
                self.requests.append(_read_request(connection))
            self._conversation(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.close()
