# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server under test, and how to ask it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from cave_server import CaveServer

SECONDS = 30
"""Longest time for an answer."""


def fingerprint(token: str) -> str:
    """Return what names a token."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]


class Token(str):
    """A token that a failing test doesn't show."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Name it by its fingerprint."""
        return f"<token {fingerprint(self)}>"


def without_tokens(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a list of keys with fingerprints for tokens."""
    return [key | {"token": fingerprint(key["token"])} for key in keys]


@dataclass(frozen=True)
class Server:
    """A server under test; `cave` is None when it isn't the stand-in."""

    url: str
    ca: str | None
    datastack: str
    tokens: dict[str, str] = field(repr=False)
    cave: CaveServer | None = field(repr=False)

    @property
    def authorize(self) -> str:
        """The login page: R of the protocol."""
        return f"{self.url}/sticky_auth/api/v1/authorize"

    @property
    def full(self) -> str:
        """The path of the datastack's record."""
        return f"/info/api/v2/datastack/full/{self.datastack}"

    @property
    def record(self) -> dict[str, Any]:
        """The datastack's record."""
        found: dict[str, Any] = self.get(self.full, self.token).json()
        return found

    def names(self) -> dict[str, str]:
        """Return the datastack's name in each namespace: what permissions of the services are given for."""
        return {
            "datastack": self.datastack,
            "pychunkedgraph": self.record["segmentation_source"].rpartition("/")[2],
            "aligned_volume": self.record["aligned_volume"]["name"],
        }

    @property
    def token(self) -> str:
        """Of somebody who may see the datastack."""
        return self._token("CAVE_TEST_TOKEN")

    @property
    def token_no_tos(self) -> str:
        """Of somebody who could see it, but owes its terms of service."""
        return self._token("CAVE_TEST_TOKEN_NO_TOS")

    @property
    def token_no_permission(self) -> str:
        """Of somebody who may not see it."""
        return self._token("CAVE_TEST_TOKEN_NO_PERMISSION")

    def _token(self, variable: str) -> str:
        if not self.tokens.get(variable):
            pytest.skip(f"{variable} is not set")
        return Token(self.tokens[variable])

    def stand_in(self, need: str) -> CaveServer:
        """Return the stand-in; a test that needs it, `need` says what for, is skipped on another server."""
        if self.cave is None:
            pytest.skip(f"needs {need}, which only the stand-in server offers")
        return self.cave

    def ask(
        self, method: str, path: str, token: str | None = None, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """Send a request, with a token in the header where one is given; redirects are not followed."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        options = {"allow_redirects": False, "verify": self.ca or True} | options
        try:
            return requests.request(method, self.url + path, headers=sent, timeout=SECONDS, **options)
        except requests.RequestException as error:
            # The trace would show the headers that were sent.
            pytest.fail(f"{method} {self.url}: {type(error).__name__}: {error}", pytrace=False)

    def get(self, path: str, token: str | None = None, **options: Any) -> requests.Response:
        """Ask for something."""
        return self.ask("GET", path, token, **options)
