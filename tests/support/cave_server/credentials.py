# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a request says who sends it: middle_auth_client's rules, without HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TOKEN_NAME = "middle_auth_token"
"""Of the cookie and of the query parameter."""


class BadAuthHeaderError(Exception):
    """The Authorization header doesn't begin with `Bearer `."""


@dataclass(frozen=True)
class Credentials:
    """What a request says.

    Attributes:
        token: may be empty.
        sent_in: `header`, `query`, `cookie` or None.
        programmatic: refusals are told by status, rather than by a redirect to the login page.
    """

    token: str
    sent_in: str | None
    programmatic: bool


def read(headers: Mapping[str, str], cookies: Mapping[str, str], query: Mapping[str, str]) -> Credentials:
    """Read the credentials of a request; the header beats the query, which beats the cookie.

    Args:
        headers: without regard to letter case.

    Raises:
        BadAuthHeaderError: see there.
    """
    header = headers.get("Authorization", "")
    programmatic = bool(header or headers.get("X-Requested-With") or headers.get("Origin"))
    if header:
        if not header.startswith("Bearer "):
            raise BadAuthHeaderError
        # Two spaces make an empty token, and what follows a third word is ignored.
        return Credentials(header.split(" ")[1], "header", programmatic)
    if query.get(TOKEN_NAME):
        return Credentials(query[TOKEN_NAME], "query", programmatic)
    if cookies.get(TOKEN_NAME):
        return Credentials(cookies[TOKEN_NAME], "cookie", programmatic)
    return Credentials("", None, programmatic)
