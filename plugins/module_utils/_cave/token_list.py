# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens of a person as the auth server lists them, and what may be shown of them: pure functions."""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

LONGEST_DESCRIPTION = 120
"""Characters. A longer one gives 500 and leaves a token behind that no list shows (middle_auth 2.30.3)."""
MOST_LISTED = 1000
"""Tokens. Nobody has as many; what is done with each of them takes time for each of the others."""
_FAR_FUTURE = 32503680000.0
"""Seconds since the epoch: the year 3000. Dates beyond it are no dates of tokens, and some cannot be shown."""
_FINGERPRINT = re.compile(r"[0-9a-f]{8}")


class ServerToken(NamedTuple):
    """A token as its server lists it. Moments are seconds since the epoch; ``value`` is the token itself."""

    id: int
    description: str
    created: float | None
    updated: float | None
    last_used: float | None
    value: str

    def __repr__(self) -> str:
        """Return it without the value, since tracebacks and logs show this."""
        return f"<token {self.id} {self.fingerprint}>"

    @property
    def fingerprint(self) -> str:
        """The name of the token wherever it is shown."""
        return fingerprint(self.value)


class Listing(NamedTuple):
    """All tokens of a person, newest first, and the moment of the server's clock at which they were so."""

    tokens: tuple[ServerToken, ...]
    now: float


class Selection(NamedTuple):
    """Which tokens to act on, by one of these."""

    id: int | None = None
    description: str | None = None
    fingerprint: str | None = None

    def matches(self, token: ServerToken) -> bool:
        """Return whether a token is one of them."""
        if self.id is not None:
            return token.id == self.id
        if self.description is not None:
            return token.description == self.description
        return token.fingerprint == self.fingerprint

    def __str__(self) -> str:
        """Return it as messages name it."""
        name, value = next((name, value) for name, value in self._asdict().items() if value is not None)
        return f"{name} {value!r}"


def clean_description(description: str, token: str = "") -> str:
    """Return a description that the server takes.

    Raises:
        CaveError: it is empty, too long, or has characters that make it hard to find again; or it holds ``token``.
    """
    if not description.strip():
        raise CaveError("The description is empty. Give the token a name to find it by, such as 'lab, spring 2026'.")
    if token and token in description:
        raise CaveError("The description holds the token itself. It is shown to everybody: give a name in its place.")
    if len(description) > LONGEST_DESCRIPTION:
        raise CaveError(
            f"The description has {len(description)} characters; servers take {LONGEST_DESCRIPTION} at most, and "
            "make a token that no list shows when it is longer. Shorten it."
        )
    if description != description.strip() or not description.isprintable():
        raise CaveError("The description begins or ends with white space, or has control characters. Drop these.")
    return description


def clean_fingerprint(value: str) -> str:
    """Return a fingerprint, or raise CaveError."""
    text = value.strip().lower()
    if not _FINGERPRINT.fullmatch(text):
        raise CaveError("The fingerprint is not 8 hex digits, as the first ones of the token's SHA-256 are.")
    return text


def iso(moment: float | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the second."""
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(token: ServerToken, listing: Listing, current: str) -> dict[str, Any]:
    """Return what may be shown of a token; ``current`` is the value of the one that authenticates."""
    values = [item.value for item in listing.tokens]

    def age(moment: float | None) -> int | None:
        return None if moment is None else max(0, int(listing.now - moment))

    return {
        "id": token.id,
        "description": clean_text(token.description, values, LONGEST_DESCRIPTION),
        "created": iso(token.created),
        "updated": iso(token.updated),
        "last_used": iso(token.last_used),
        "age": age(token.created),
        "unused_for": age(token.last_used),
        "fingerprint": token.fingerprint,
        "current": token.value == current,
    }


def listing_of(content: list[Any], answer: Answer) -> Listing:
    """Return the tokens that an answer lists; ``content`` is its body.

    Raises:
        ValueError: it is no such list. The text says what is wrong, to follow the server's name.
    """
    if len(content) > MOST_LISTED:
        raise ValueError(f"lists {len(content)} tokens, and nobody has more than {MOST_LISTED}")
    return Listing(tuple(_token(item) for item in content), _now(answer))


def _now(answer: Answer) -> float:
    """The server's clock, so that ages are right on a machine whose own is wrong."""
    moment = _moment(answer.headers.get("date"))
    return time.time() if moment is None else moment


def _moment(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if 0 <= moment < _FAR_FUTURE else None


def _token(item: object) -> ServerToken:
    record = item if isinstance(item, dict) else {}
    number, value, description = record.get("id"), record.get("token"), record.get("description")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(value, str) or not value:
        raise ValueError("lists tokens in a form that this collection does not know: no id and token in an entry")
    created, updated, last_used = (_moment(record.get(name)) for name in ("created", "updated", "last_used"))
    return ServerToken(number, description if isinstance(description, str) else "", created, updated, last_used, value)
