# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several tries: asking again where that may help, within one deadline."""

from __future__ import annotations

import itertools
import time
from typing import Any, Callable

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import MAX_BYTES, Answer, HttpError, request

RETRY_STATUSES = frozenset((408, 429, 502, 503, 504))
REFUSED_BEFORE_WORK = frozenset((429, 503))
"""Statuses after which the server has certainly not acted, so that even a POST may be sent again."""
NOT_CONNECTED = frozenset(("dns", "refused", "unreachable"))
BACKOFF_FIRST = 0.5  # seconds
BACKOFF_MOST = 8.0  # seconds


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
        if attempt >= retries or not _worth_another_try(outcome, changes):
            break
        pause = _pause(outcome, attempt)
        if time.monotonic() + pause >= deadline:
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
    import random  # takes a third of a request's time: where it is needed only

    system = random.SystemRandom()  # not seeded alike on cloned hosts, whose pauses would then be the same
    asked = retry_after(outcome.headers.get("retry-after", "")) if isinstance(outcome, Answer) else None
    if asked is not None:
        # A little more than asked for, and never the same for two hosts.
        return asked + system.uniform(0.0, 0.25 * BACKOFF_FIRST)
    return system.uniform(0.5, 1.0) * min(BACKOFF_MOST, BACKOFF_FIRST * 2.0**attempt)


def retry_after(value: str, now: float | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None (RFC 9110, 10.2.3: seconds or a date)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    import email.utils  # where a server gives a date only, as few do

    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
