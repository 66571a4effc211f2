# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes text and data that a host sent safe to print, to write and to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text
from ansible_collections.connectomics.cave.plugins.module_utils._masking import is_hex_token, mask_token_like

NAME_LENGTH, TEXT_LENGTH, PATH_LENGTH, URL_LENGTH = 255, 1000, 500, 500  # characters that are kept
SENTENCE_LENGTH = 1_000_000
_MOST = 2000  # users of a host, problems of a user: what a host claims beyond that is dropped

FINGERPRINT = re.compile(r"[0-9a-f]{8}")
VERDICT = re.compile(r"[a-z][a-z0-9_]{0,39}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


class Cleaner:
    """Turns what a host sent into text that is safe to print, to write and to show, and that holds no token."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        """Mask ``tokens``, besides everything that looks like one."""
        # Tokens of the usual shapes are found by their shape, however many there are: a list of odd ones stays short.
        self._tokens = [token for token in set(tokens) if len(token) >= 8 and not is_hex_token(token)]

    def name(self, value: object) -> str:
        """Return the name of a host, user or datastack. It may look like a token, so only known tokens are masked."""
        return clean_text(scalar(value), self._tokens, NAME_LENGTH)

    def text(self, value: object, limit: int = TEXT_LENGTH) -> str:
        """Return one line of text without control characters and without tokens, of at most ``limit`` characters."""
        text = mask_token_like(clean_text(scalar(value), self._tokens, max(limit, 8 * TEXT_LENGTH)))
        return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."

    def sentence(self, value: object) -> str:
        """Return a sentence about a run as a whole: what is said of many hosts and files is not cut."""
        return self.text(value, SENTENCE_LENGTH)

    def address(self, value: object) -> str | None:
        """Return a web address that a person may be sent to, or None: http and https only, without a password."""
        if not isinstance(value, str) or not value or len(value) > URL_LENGTH:
            return None
        address = self.text(value, URL_LENGTH)
        if address != value or not address.isascii() or re.search(r"[\s\"'<>\\^`{|}]", address):
            return None
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        except ValueError:
            return None
        return address if usable else None


def scalar(value: object) -> str:
    """Return text or a number as a plain string (not one of Ansible's own kinds), and anything else as an empty one."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return ""


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a list, and nothing for anything else."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [item for item in value[:_MOST] if isinstance(item, Mapping)]


def mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def matching(pattern: re.Pattern[str], value: object) -> str | None:
    text = scalar(value)
    return text if pattern.fullmatch(text) else None
