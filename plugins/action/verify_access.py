# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host's verify_access module ask when it is the host's turn."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import verify_access
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction


class ActionModule(TokenAction):
    """See plugins/modules/verify_access.py for the options."""

    module = verify_access

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each user, and one for each of the user's datastacks."""
        users: Any = args.get("users") or [""]
        everybodys = args.get("datastacks") or ()
        own = [user.get("datastacks") if hasattr(user, "get") else None for user in users if not isinstance(users, str)]
        return sum(1 + len(everybodys if mine is None else mine) for mine in own or [None])
