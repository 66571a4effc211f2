# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to a host for a module whose arguments hold a token: never through a file."""

from __future__ import annotations

import re
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import without_shown_tokens

_WORDS = ("user", "server", "key", "state")
_KEYS = ("user", "token", "server", "datastacks", "key", "state")
_LIKE_A_TOKEN = re.compile(r"[0-9A-Fa-f]{32}|[A-Za-z0-9+/=_-]{40,}")


class TokenAction(ActionBase):
    """Runs the module of its own name with its arguments on standard input.

    Without pipelining Ansible writes a module's arguments into a temporary file, on the controller and on the host. A
    token must not lie there, so pipelining is on for these modules wherever the connection knows it.
    """

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return module_style == "new" and bool(self._connection.has_pipelining) and not wrap_async

    def complaint(self, args: dict[str, Any]) -> str:  # noqa: ARG002 (for those who override it)
        """Return what is wrong with the task's arguments, without any value of theirs; empty when nothing is.

        Ansible's own check names the unknown options, and one that was put in the wrong place may be a token.
        """
        return ""

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the task's arguments as the module wants them; to be called when nothing is wrong with them."""
        return args

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
            **self._execute_module(
                module_args=without_shown_tokens(self.arguments(self._task.args)), task_vars=task_vars
            ),
        }


def entries_complaint(option: str, entries: Any) -> str:
    """Return what is wrong with the form of a list of tokens; the values in it are the module's to check."""
    expected = f"Expected a list of mappings with the keys {', '.join(_KEYS)}."
    if not isinstance(entries, (list, tuple)):
        return f"{option} is not a list. {expected}"
    for number, item in enumerate(entries, 1):
        where = f"Entry {number} of {option}"
        if not hasattr(item, "keys"):
            return f"{where} is not a mapping. {expected}"
        if not set(item.keys()) <= set(_KEYS):
            return f"{where} has a key that is none of those known. {expected}"
        complaint = misplaced(item, where)
        if complaint:
            return complaint
    return ""


def misplaced(item: Any, where: str) -> str:
    """Return what is in the wrong place in a mapping with ``user`` and the like; ``where`` names it in the message."""
    for word in _WORDS:
        value = item.get(word)
        if value is not None and not isinstance(value, str):
            return f"{where} has a {word} that is not a string."
        if value and _LIKE_A_TOKEN.fullmatch(value.strip()):
            return f"{where} has a {word} that looks like a token. Is the token in the wrong place?"
    return ""
