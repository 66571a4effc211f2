# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to a host for a module whose arguments hold a token: never through a file."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import without_shown_tokens


class TokenAction(ActionBase):
    """Runs the module of its own name with its arguments on standard input.

    Without pipelining Ansible writes a module's arguments into a temporary file, on the controller and on the host. A
    token must not lie there, so pipelining is on for these modules wherever the connection knows it.
    """

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return module_style == "new" and bool(self._connection.has_pipelining) and not wrap_async

    def complaint(self, args: dict[str, Any]) -> str:
        """Return what is wrong with the task's arguments, without any value of theirs; empty when nothing is.

        Ansible's own check names the unknown options, and one that was put in the wrong place may be a token.
        """
        return ""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the arguments, then run the module."""
        result = super().run(tmp, task_vars)
        del tmp
        if self._task.async_val:
            return {
                **result,
                "failed": True,
                "msg": f"{self._task.action} does not run with async, which would write its token into a temporary "
                "file. Take async out of the task: it is a matter of seconds.",
            }
        complaint = self.complaint(self._task.args)
        if complaint:
            return {**result, "failed": True, "msg": complaint}
        return {
            **result,
            **self._execute_module(module_args=without_shown_tokens(self._task.args), task_vars=task_vars),
        }
