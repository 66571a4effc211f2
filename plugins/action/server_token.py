# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run server_token on a host."""

from __future__ import annotations

from ansible_collections.connectomics.cave.plugins.modules import server_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction


class ActionModule(TokenAction):
    """See plugins/modules/server_token.py for the options."""

    module = server_token
