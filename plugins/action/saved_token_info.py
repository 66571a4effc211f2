# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host's saved_token_info module run when it is the host's turn to ask the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import saved_token_info
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction, is_true, length
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import with_renewed_tokens


class ActionModule(TokenAction):
    """See plugins/modules/saved_token_info.py for the options."""

    module = saved_token_info
    entries = "expected"

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with ``expected`` as a list, also where it is a mapping of users to tokens."""
        expected: Any = args.get("expected")
        if not hasattr(expected, "items"):
            return with_renewed_tokens(args, "expected")
        return {**args, "expected": [{"user": user, "token": token} for user, token in expected.items()]}

    def asks(self, args: Mapping[str, Any]) -> bool:
        """Return whether tokens are proven."""
        return is_true(args.get("validate"))

    def run_on_host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module; for a rotation, add why no token can be sent to the host, where none can."""
        result = super().run_on_host(args, task_vars)
        variables = task_vars or {}
        reason = self.why_no_token(variables) if variables.get("__caveclient_before_saving") else ""
        return {**result, "unsendable": reason} if reason else result

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each user that is named, when their tokens are proven."""
        return length(args.get("users") or args.get("expected")) if is_true(args.get("validate")) else 0
