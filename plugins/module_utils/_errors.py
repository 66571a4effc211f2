# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception family of this collection."""

from __future__ import annotations

import os
from typing import Any


class CaveError(Exception):
    """Something a person has to know about: what was found, where, what was expected, what to do.

    A module's ``main`` turns it into ``fail_json(msg=error.message, **error.details)``; it never holds a token.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def require_limits(timeout: float, retries: int) -> None:
    """Raise CaveError for a time in which no answer can come, as a server gives none, or which no clock can count."""
    if not 1 <= timeout <= 86400:
        raise CaveError(f"timeout must be at least 1 second and at most a day (86400), and is {timeout}.")
    if retries < 0:
        raise CaveError(f"retries must be 0 or more, and is {retries}.")


def unexpected(error: BaseException) -> str:
    """Return a message for an error that the code does not expect: where it happened, and its kind.

    Never its own message, for that may quote a value from a file or from an answer, and such a value may be a token.
    """
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f"{os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}" if where else "?"
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
    return f"Unexpected error at {place}: {reason}. Please report it."
