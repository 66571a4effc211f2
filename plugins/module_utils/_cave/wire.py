# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP/1.1 on a connection (RFC 9112): a request goes out, its answer comes in, all of it within bounds.

In the place of ``http.client``, which reads headers with the package ``email``: a host takes longer to import that
than to ask for a token.
"""

from __future__ import annotations

import re
import socket
from typing import Callable, Mapping, NamedTuple

LONGEST_LINE = 65536
MOST_LINES = 100
"""Headers of an answer, and those after its last chunk."""
_NO_BODY = (204, 304)
_MOST_DIGITS = 15
"""Of a length: more bytes than anybody sends."""


class NotHttpError(Exception):
    """What came is not an answer of HTTP/1; the text says what is wrong with it, without quoting it."""


class CutError(Exception):
    """The connection ended before the answer was complete."""


class TooLargeError(Exception):
    """The body goes on after the largest size that anybody asked for."""


class Response(NamedTuple):
    """What came: the status, the headers (names in lower case), the body, and whether more can be asked here."""

    status: int
    headers: dict[str, str]
    body: bytes
    keeps: bool


class Wire:
    """A connection to a server or a proxy, for one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.began = False
        """Whether any of the answer to the last request came."""
        self._received = bytearray()
        self._remaining: Callable[[], float] = float

    def close(self) -> None:
        """Hang up."""
        self.connection.close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        most: int,
        remaining: Callable[[], float],
    ) -> Response:
        """Send a request, and return what is answered.

        Args:
            method: such as GET. After CONNECT, no body is read.
            target: what follows it: a path, or an address for a proxy.
            headers: with ``Host`` among them.
            body: None: none.
            most: bytes of a body that are read.
            remaining: returns the seconds that are left. It raises ``socket.timeout`` when there are none.

        Raises:
            NotHttpError: what comes is something else.
            CutError: the connection ends too early.
            TooLargeError: the body has more than ``most`` bytes.
            OSError: the connection fails, or there is no time left.
        """
        self.began, self._remaining = False, remaining
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if body is not None or method not in ("GET", "HEAD", "CONNECT"):
            lines.append(f"Content-Length: {len(body or b'')}")
        self.connection.settimeout(remaining())
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        status, minor, found = self._head()
        while status < 200:  # an interim answer, such as 100 Continue
            status, minor, found = self._head()
        options, length = (
            found.get("connection", "").lower(),
            found.get("content-length", "").rpartition(",")[2].strip(),
        )
        keeps = "close" not in options and (minor > 0 or "keep-alive" in options)
        if method in ("HEAD", "CONNECT") or status in _NO_BODY:
            content = b""
        elif "chunked" in found.get("transfer-encoding", "").lower():
            content = self._chunks(most)
        elif length.isdecimal():
            content = self._take(int(length) if len(length) <= _MOST_DIGITS else most + 1, most)
        else:
            content, keeps = self._all(most), False
        # What comes unasked would be taken for the answer to the next request.
        return Response(status, found, content, keeps and not self._received)

    def _head(self) -> tuple[int, int, dict[str, str]]:
        """Return the status, the minor version and the headers."""
        match = re.match(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])( |$)", self._line())
        if match is None:
            raise NotHttpError("it has no status")
        return int(match[2]), int(match[1]), self._headers()

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _number in range(MOST_LINES + 1):
            line = self._line().decode("latin-1")
            if not line:
                return headers
            name, colon, value = line.partition(":")
            if colon and not name[:1].isspace():  # an indented line goes on with the one before, which nobody needs
                name, value = name.strip().lower(), value.strip()
                # What comes several times is one list, as it means the same.
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        raise NotHttpError(f"it has more than {MOST_LINES} headers")

    def _chunks(self, most: int) -> bytes:
        content = bytearray()
        while True:
            digits = self._line().partition(b";")[0].strip()
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                raise NotHttpError("it has a chunk without a size")
            size = int(digits, 16) if len(digits) <= _MOST_DIGITS else most + 1
            if not size:
                self._headers()
                return bytes(content)
            content += self._take(size, most - len(content))
            self._line()

    def _take(self, size: int, most: int) -> bytes:
        """Return so many bytes."""
        if size > most:
            raise TooLargeError
        while len(self._received) < size:
            if not self._receive():
                raise CutError
        content = bytes(self._received[:size])
        del self._received[:size]
        return content

    def _all(self, most: int) -> bytes:
        """Return what comes until the connection ends."""
        while len(self._received) <= most and self._receive():
            pass
        return self._take(len(self._received), most)

    def _line(self) -> bytes:
        """Return the next line without its end. The end of the connection ends one, too."""
        while b"\n" not in self._received and len(self._received) <= LONGEST_LINE and self._receive():
            pass
        if not self._received:
            raise CutError
        end = self._received.find(b"\n") + 1 or len(self._received)
        if end > LONGEST_LINE:
            raise NotHttpError(f"it has a line of more than {LONGEST_LINE} bytes")
        line = bytes(self._received[:end])
        del self._received[:end]
        return line.rstrip(b"\r\n")

    def _receive(self) -> int:
        """Wait for more, and return how many bytes came; none at the end of the connection."""
        self.connection.settimeout(self._remaining())
        piece = self.connection.recv(65536)
        self.began = self.began or bool(piece)
        self._received += piece
        return len(piece)
