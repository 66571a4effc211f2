# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host's saved_token module run when it is the host's turn to ask the server."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.modules import saved_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction, tokens_to_prove
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import with_renewed_tokens


class ActionModule(TokenAction):
    """See plugins/modules/saved_token.py for the options."""

    module = saved_token

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the tokens that a rotation has made in this run."""
        return with_renewed_tokens(args, "tokens")

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each token that is proven."""
        return tokens_to_prove(args)
