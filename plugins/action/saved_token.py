# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send tokens to a host's saved_token module without a file in between."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._token_action import TokenAction

_WORDS = ("user", "server", "key", "state")
_KEYS = ("user", "token", "server", "datastacks", "key", "state")
_LIKE_A_TOKEN = re.compile(r"[0-9A-Fa-f]{32}|[A-Za-z0-9+/=_-]{40,}")


class ActionModule(TokenAction):
    """See plugins/modules/saved_token.py for the options."""

    def complaint(self, args: dict[str, Any]) -> str:
        """Return what is wrong with the form of ``tokens``; the values are the module's to check."""
        tokens = args.get("tokens")
        if tokens is None:
            return _misplaced(args, "The task")
        expected = f"Expected a list of mappings with the keys {', '.join(_KEYS)}."
        if not isinstance(tokens, (list, tuple)):
            return f"tokens is not a list. {expected}"
        for number, item in enumerate(tokens, 1):
            where = f"Entry {number} of tokens"
            if not hasattr(item, "keys"):
                return f"{where} is not a mapping. {expected}"
            if not set(item.keys()) <= set(_KEYS):
                return f"{where} has a key that is none of those known. {expected}"
            complaint = _misplaced(item, where)
            if complaint:
                return complaint
        return ""


def _misplaced(item: Any, where: str) -> str:
    for word in _WORDS:
        value = item.get(word)
        if value is not None and not isinstance(value, str):
            return f"{where} has a {word} that is not a string."
        if value and _LIKE_A_TOKEN.fullmatch(value.strip()):
            return f"{where} has a {word} that looks like a token. Is the token in the wrong place?"
    return ""
