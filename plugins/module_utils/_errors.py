# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception family of this collection."""

from __future__ import annotations

from typing import Any


class CaveError(Exception):
    """Something a person has to know about: what was found, where, what was expected, what to do.

    A module's ``main`` turns it into ``fail_json(msg=error.message, **error.details)``; it never holds a token.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
