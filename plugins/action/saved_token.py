# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send tokens to a host's saved_token module without a file in between."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import saved_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import (
    TokenAction,
    entries_complaint,
    misplaced,
    tokens_to_prove,
)


class ActionModule(TokenAction):
    """See plugins/modules/saved_token.py for the options."""

    module = saved_token

    def complaint(self, args: dict[str, Any]) -> str:
        """Return what is wrong with the form of ``tokens``; the values are the module's to check."""
        if args.get("tokens") is None:
            return misplaced(args, "The task")
        return entries_complaint("tokens", args["tokens"])

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each token that is proven."""
        return tokens_to_prove(args)
