# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback that keeps all it can get hold of, as those do that feed log servers, profilers and databases."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: notification
short_description: Keep everything
description: A line of JSON for each result in the file that RECORD_FILE names.
"""


class CallbackModule(CallbackBase):
    """Writes a line for each result."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def _keep(self, status: str, result: Any) -> None:
        fields = getattr(result, "_task_fields", None) or {}
        line = {
            "time": time.time(),
            "status": status,
            "host": result._host.get_name(),
            "task": result._task.get_name().rpartition(" : ")[2],
            "result": result._result,
            "fields": fields,
            "args": repr(result._task.args),
        }
        with Path(os.environ["RECORD_FILE"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=repr) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task went well."""
        self._keep("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed."""
        self._keep("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host was not reached."""
        self._keep("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task was left out."""
        self._keep("skipped", result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """An item went well."""
        self._keep("item ok", result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """An item failed."""
        self._keep("item failed", result)
