# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens that exist once in the world, and the search for them in whatever form they may have been given."""

from __future__ import annotations

import base64
import html
import os
import re
import secrets
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

PIECE = 12
"""Characters that are looked for: nearly half of a token is found wherever it was cut."""


class Hit(NamedTuple):
    """A token that was found."""

    token: str
    """The name of the token."""
    form: str


def canary() -> str:
    """Return a token such as no server has made yet, with characters in it that quoting changes."""
    while True:
        token = base64.b64encode(secrets.token_bytes(32)).decode()
        if all(character in token[6:-6] for character in "+/") and token[0].isalnum():
            return token


def _base64(token: bytes) -> Iterator[str]:
    """The token in base64, at each of the three places at which it may begin in what was encoded."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + token + b"\0" * (-(before + len(token)) % 3)).decode()
        whole = encoded[4 if before else 0 : len(encoded) - 4]
        yield whole
        yield whole.translate(str.maketrans("+/", "-_"))


def forms(token: str) -> Iterator[tuple[str, str]]:
    """Return the forms of a token that are looked for, with their names."""
    raw = token.encode()
    yield "clear", token
    for encoded in _base64(raw):
        yield "base64", encoded
    quoted = urllib.parse.quote(token, safe="")
    yield "URL-quoted", quoted
    yield "URL-quoted", re.sub("%..", lambda found: found.group().lower(), quoted)
    yield "JSON-escaped", token.replace("/", "\\/")
    yield "hexadecimal", raw.hex()


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text) - PIECE + 1, PIECE):
        yield text[start : start + PIECE]


_ESCAPE_SEQUENCES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_WRITTEN_BREAKS = re.compile(rb"(?:\\+[nrt]|\\+u000[aAdD9])+")
_ESCAPED = re.compile(rb"\\+(?:u00|x)([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})|\\+(?=[/\"'])|&[#a-zA-Z0-9]{2,8};")


def _squeezed(content: bytes) -> bytes:
    """Without colours, white space and zero bytes, and without line breaks that are written out."""
    content = _WRITTEN_BREAKS.sub(b"", _ESCAPE_SEQUENCES.sub(b"", content))
    return content.translate(None, b" \t\r\n\v\f\0")


def _unescaped(squeezed: bytes) -> bytes:
    """With every escaped character as itself: as JSON and Python, URLs, and HTML escape them."""

    def plain(found: re.Match[bytes]) -> bytes:
        if found.group().startswith(b"&"):
            return html.unescape(found.group().decode()).encode()
        code = found.group(1) or found.group(2)
        return bytes([int(code, 16)]) if code else b""

    return _ESCAPED.sub(plain, squeezed)


class Canaries:
    """Tokens by name, and what finds them."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.tokens = dict(tokens)
        self._names: dict[bytes, Hit] = {}
        for name, token in self.tokens.items():
            for form, text in forms(token):
                for piece in _pieces(text):
                    self._names.setdefault(piece.encode(), Hit(name, form))

    def find(self, content: bytes) -> set[Hit]:
        """Return which tokens are in a content, and in which form, also where it is split over lines."""
        if not content:
            return set()
        squeezed = _squeezed(content)
        hits = self._in(content)
        hits |= {Hit(hit.token, f"{hit.form}, split") for hit in self._in(squeezed) - hits}
        unescaped = _unescaped(squeezed)
        if unescaped != squeezed:
            known = {hit.token for hit in hits}
            hits |= {Hit(hit.token, f"{hit.form}, escaped") for hit in self._in(unescaped) if hit.token not in known}
        return hits

    def _in(self, content: bytes) -> set[Hit]:
        if len(content) < 4096:
            return {hit for piece, hit in self._names.items() if piece in content}
        # grep looks for any number of texts at the price of one. Both go in by files that are nowhere on a disk.
        patterns, haystack = os.memfd_create("patterns"), os.memfd_create("content")
        try:
            os.write(patterns, b"\n".join(self._names))
            _write_all(haystack, content)
            words = ["grep", "--text", "--only-matching", "--fixed-strings"]
            names = [f"--file=/proc/self/fd/{patterns}", f"/proc/self/fd/{haystack}"]
            done = subprocess.run(
                [*words, *names], pass_fds=(patterns, haystack), env={"LC_ALL": "C"}, capture_output=True, check=False
            )
            if done.returncode > 1:
                raise OSError(done.stderr.decode())
        finally:
            os.close(patterns)
            os.close(haystack)
        return {self._names[piece] for piece in set(done.stdout.split(b"\n")) if piece}


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
