# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which token replaces which: the description of a new one says it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    LONGEST_DESCRIPTION,
    clean_description,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Listed

DEFAULT_NAME = "connectomics.cave rotation"

_DESCRIPTION = re.compile(r"(?P<name>.+) \(replaces (?P<fingerprint>[0-9a-f]{8})(?P<kept>, kept)?\)")


def description(name: str, old: str, kept: bool = False) -> str:
    """Return the description of the token that replaces the one with the fingerprint ``old``.

    Raises:
        CaveError: the name of the rotation cannot be a part of it.
    """
    text = f"{name or DEFAULT_NAME} (replaces {old}{', kept' if kept else ''})"
    longest = LONGEST_DESCRIPTION - len(text) + len(name)
    if len(text) > LONGEST_DESCRIPTION:
        raise CaveError(f"The name of the rotation has {len(name)} characters; it may have {longest}. Shorten it.")
    return clean_description(text)


def rotation_name(text: str) -> str | None:
    """Return the name of the rotation that made the token with this description; None when none did."""
    found = _DESCRIPTION.fullmatch(text)
    return found["name"] if found else None


def replaces(text: str) -> str | None:
    """Return the fingerprint of the token that the one with this description replaces."""
    found = _DESCRIPTION.fullmatch(text)
    return found["fingerprint"] if found else None


def is_kept(text: str) -> bool:
    """Return whether the old token was to stay when the one with this description was made."""
    found = _DESCRIPTION.fullmatch(text)
    return bool(found and found["kept"])


def successor(tokens: Iterable[Listed], old: str) -> Listed | None:
    """Return the token that replaces ``old``. Of several the oldest, which every run agrees on."""
    found = [item for item in tokens if replaces(item.description) == old and item.token != old]
    return min(found, key=lambda item: item.id, default=None)
