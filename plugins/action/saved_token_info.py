# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send the expected tokens to a host's saved_token_info module without a file in between."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import saved_token_info
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import (
    TokenAction,
    entries_complaint,
    is_true,
    length,
)


class ActionModule(TokenAction):
    """See plugins/modules/saved_token_info.py for the options."""

    module = saved_token_info

    def complaint(self, args: dict[str, Any]) -> str:
        """Return what is wrong with the form of ``expected``; the values are the module's to check."""
        expected = self.arguments(args).get("expected")
        return "" if expected is None else entries_complaint("expected", expected)

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with ``expected`` as a list, also where it is a mapping of users to tokens."""
        expected: Any = args.get("expected")
        if not hasattr(expected, "items"):
            return args
        return {**args, "expected": [{"user": user, "token": token} for user, token in expected.items()]}

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each user that is named, when their tokens are proven."""
        return length(args.get("users") or args.get("expected")) if is_true(args.get("validate")) else 0
