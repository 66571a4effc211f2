# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host's verify_access module ask when it is the host's turn."""

from __future__ import annotations

from functools import partial
from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import verify_access
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import claim
from ansible_collections.connectomics.cave.plugins.plugin_utils._services_once import merged, questions_left

SERVICES_ASKED = 5
"""Requests to the services of a datastack."""


class ActionModule(TokenAction):
    """See plugins/modules/verify_access.py for the options."""

    module = verify_access
    entries = "users"

    def run_on_host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module; let one host ask the services with a token for all that have it."""
        users = args.get("users")
        hosts = (task_vars or {}).get("ansible_play_hosts") or ()
        if args.get("services") not in ("full", ["full"]) or len(hosts) < 2 or not isinstance(users, (list, tuple)):
            return super().run_on_host(args, task_vars)
        result = super().run_on_host({**args, "services": ["reach"]}, task_vars)
        try:
            left = questions_left(result, users, partial(claim, str(self._task._uuid)))
            if not left:
                return result
            asked = {**args, "services": ["person"], "users": left, "method": "api"}
            return merged(result, self.run_module(asked, task_vars))
        except (AttributeError, KeyError, TypeError, ValueError):
            message = result.get("msg") or "What came from the host is not this module's answer."
            return {**result, "failed": True, "msg": message}

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each user, one for each of the user's datastacks, and those to its services."""
        users: Any = [""] if args.get("users") is None else args["users"]
        everybodys = args.get("datastacks") or ()
        own = [user.get("datastacks") if hasattr(user, "get") else None for user in users if not isinstance(users, str)]
        each = 1 if args.get("services") in (None, "none", ["none"]) else 1 + SERVICES_ASKED
        return sum(1 + each * len(everybodys if mine is None else mine) for mine in own or [None])
