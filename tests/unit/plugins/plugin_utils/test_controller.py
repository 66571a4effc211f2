# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an action plugin hands on to Ansible shows no token: its task's arguments, and errors that nobody thought of."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    protected,
    shown_arguments,
    without_shown_tokens,
)

TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="
ARGUMENTS: list[dict[str, Any]] = [
    {"token": TOKEN},
    {"token": [TOKEN]},
    {"tokn": TOKEN},
    {"tokn": "shorter1"},
    {"value": TOKEN},
    {"index_url": f"https://lab:{TOKEN}@pypi.example.org/simple"},
    {"tokens": [{"user": "alice", "token": TOKEN}]},
    {"tokens": {"alice": TOKEN}},
    {"expected": {"alice": TOKEN}},
    {"user": TOKEN},
    {"users": [f"alice {TOKEN}"]},
    {"token": 12345678901234567890},
]


@pytest.mark.parametrize("args", ARGUMENTS)
def test_what_callbacks_get_of_a_tasks_arguments_has_no_token(args: dict[str, Any]) -> None:
    shown = json.dumps(shown_arguments(args))
    assert not [word for word in (TOKEN, "shorter1", "12345678901234567890") if word in shown]
    assert list(shown_arguments(args)) == list(args)


def test_what_callbacks_get_still_tells_what_a_task_was_about() -> None:
    args = {"user": "alice", "server": "https://cave.example.org", "validate": True, "retries": 2, "datastacks": ["a"]}
    assert shown_arguments(args) == args


@pytest.mark.parametrize("args", ARGUMENTS[:-1])
def test_printed_arguments_show_no_token_and_are_what_they_were(args: dict[str, Any]) -> None:
    unshown = without_shown_tokens(args)
    assert TOKEN not in repr(unshown)
    assert "shorter1" not in repr(unshown)
    assert json.dumps(unshown) == json.dumps(args)


class Action:
    """As much of an action plugin as ``protected`` looks at."""

    def __init__(self, error: Exception | None = None) -> None:
        self._task = SimpleNamespace(args={"token": TOKEN})
        self.error = error
        self.seen: list[dict[str, Any]] = []

    @protected
    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Fail, or not."""
        self.seen.append(self._task.args)
        if self.error:
            raise self.error
        return {"changed": True}


@pytest.mark.parametrize("error", [RuntimeError(TOKEN), KeyError(TOKEN), OSError(5, TOKEN), UnicodeError(TOKEN)])
def test_an_error_that_nobody_thought_of_is_told_by_its_place(error: Exception) -> None:
    result = Action(error).run()
    assert result["failed"]
    assert result["msg"].startswith("Unforeseen error at test_controller.py:")
    assert TOKEN not in result["msg"]


def test_an_error_of_ansibles_own_stays_one() -> None:
    with pytest.raises(AnsibleActionFail, match="as it says"):
        Action(AnsibleActionFail("as it says")).run()


@pytest.mark.parametrize("error", [None, RuntimeError("x"), AnsibleActionFail("x")])
def test_the_arguments_are_hidden_however_it_ends_and_are_there_when_it_is_tried_again(error: Exception | None) -> None:
    action = Action(error)
    for _attempt in range(2):
        with contextlib.suppress(AnsibleActionFail):
            action.run()
        assert action._task.args == {"token": "********"}
    assert action.seen == [{"token": TOKEN}] * 2


def test_every_action_with_a_token_is_protected() -> None:
    class Inheriting(TokenAction):
        pass

    assert Inheriting.run is not TokenAction.run
    assert Inheriting.run.__wrapped__ is TokenAction.run  # type: ignore[attr-defined]  # functools.wraps sets it
