# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to a host for a module whose arguments hold a token: checked, and when it is the host's turn."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import protected
from ansible_collections.connectomics.cave.plugins.plugin_utils._fast_transport import HostAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import say_how_far, wait_for_turn

_WORDS = ("user", "server", "key", "state")
_KEYS = ("user", "token", "server", "datastacks", "key", "state", "validate")
_LIKE_A_TOKEN = re.compile(r"[0-9A-Fa-f]{32}|[A-Za-z0-9+/=_-]{40,}")


class TokenAction(HostAction):
    """Runs a module when nothing is wrong with the form of its arguments."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.run = protected(cls.run)  # type: ignore[method-assign]  # that is the point

    def complaint(self, args: dict[str, Any]) -> str:  # noqa: ARG002 (for those who override it)
        """Return what is wrong with the task's arguments, without any value of theirs; empty when nothing is.

        Ansible's own check names the unknown options, and one that was put in the wrong place may be a token.
        """
        return ""

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the task's arguments as the module wants them; to be called when nothing is wrong with them."""
        return args

    def requests(self, args: dict[str, Any]) -> int:  # noqa: ARG002 (for those who override it)
        """Return how many requests the host is going to send to the server, as far as the arguments tell."""
        return 0

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
        return {**result, **self.run_on_host(self.arguments(self._task.args), task_vars)}

    def run_on_host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module when it is this host's turn to ask the server."""
        rate = args.get("rate") or 0
        try:
            wait_for_turn(self.requests(args), float(rate))
        except (TypeError, ValueError):
            wrong = f"rate: {rate!r} is not a number of requests a second, such as 5 or 0.5 (0: as many as there are)."
            return {"failed": True, "msg": wrong}
        try:
            return self.run_module(args, task_vars)
        finally:
            say_how_far(self._task, (task_vars or {}).get("ansible_play_hosts") or ())


def is_true(value: Any) -> bool:
    """Tell whether a task's argument means yes; one that cannot be told is the module's to refuse."""
    return value is True or str(value).strip().lower() in ("yes", "on", "1", "true", "t", "y")


def length(value: Any) -> int:
    """Return how many a list option holds; 1 when that is not given as a list."""
    return len(value) if isinstance(value, (list, tuple)) else 1


def tokens_to_prove(args: dict[str, Any]) -> int:
    """Return how many tokens saved_token asks the server about with these arguments."""
    entries: Any = args.get("tokens")
    default = args.get("validate", True)
    if not isinstance(entries, (list, tuple)):
        return int(is_true(default))
    return sum(is_true(default if entry.get("validate") is None else entry["validate"]) for entry in entries)


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
