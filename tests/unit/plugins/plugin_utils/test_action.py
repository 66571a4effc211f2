# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an action plugin hands on to Ansible shows no token: its task's arguments, and errors that nobody thought of."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import release
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.template import Templar

from ansible_collections.connectomics.cave.plugins.action.saved_token import ActionModule as SaveAction
from ansible_collections.connectomics.cave.plugins.modules import saved_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction, TokenAction, unshown
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.remedies import host_remedy
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import NotSealedError, seal

TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="
PLUGINS = Path(saved_token.__file__).parent.parent
SPEC = saved_token.ARGUMENTS["argument_spec"]


def test_printed_arguments_show_no_token_and_are_what_they_were() -> None:
    args = {"tokens": [{"user": "alice", "token": TOKEN}], "tokn": "shorter1", "group": "lab", "timeout": 3}
    shown = repr(unshown(args, SPEC))
    assert TOKEN not in shown
    assert "shorter1" not in shown
    assert "'lab'" in shown
    assert json.dumps(unshown(args, SPEC)) == json.dumps(args)


class Action(CaveAction):
    """An action plugin that fails, or not."""

    spec = SPEC

    def __init__(self, error: Exception | None = None, **args: Any) -> None:
        self._task: Any = SimpleNamespace(args={"token": TOKEN, **args})
        self.error = error
        self.seen: list[dict[str, Any]] = []

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Fail, or not."""
        self.seen.append(self._task.args)
        if self.error:
            raise self.error
        return {"changed": True}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_no_host_is_blamed_for_the_controllers_own_disk(number: int) -> None:
    result = Action(OSError(number, os.strerror(number), "file")).run()
    assert result["msg"] == f"This controller, not the host, cannot write a file: {os.strerror(number)}."
    assert "ANSIBLE_HOME" in host_remedy(result["msg"])


@pytest.mark.parametrize("error", [RuntimeError(TOKEN), KeyError(TOKEN), OSError(5, TOKEN), UnicodeError(TOKEN)])
def test_an_error_that_nobody_thought_of_is_told_by_its_place(error: Exception) -> None:
    result = Action(error).run()
    assert result["failed"]
    assert result["msg"].startswith("Unexpected error at test_action.py:")
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


def test_an_error_of_ansibles_own_shows_no_token() -> None:
    result = Action(AnsibleActionFail(f"could not convert {TOKEN}")).run()
    assert result["failed"]
    assert result["msg"].startswith("could not convert ****")


def test_a_token_in_the_wrong_place_is_refused_before_anything_is_run() -> None:
    action = Action(rate=TOKEN)
    result = action.run()
    assert result["failed"]
    assert result["msg"] == "rate looks like a token. Is the token in the wrong place?"
    assert action.seen == []
    assert action._task.args == {"token": "********", "rate": "********"}


def test_a_hosts_name_may_look_like_a_token() -> None:
    name = "0123456789abcdef0123456789abcdef"
    assert Action(group=name).run(task_vars={"groups": {"all": [name]}}) == {"changed": True}


def test_variables_of_a_task_add_options_to_what_it_is_given() -> None:
    action = Action(group="lab")
    action._templar = Templar(loader=None, variables={})
    task_vars = {
        "caveclient_timeout": 5,
        "caveclient_rate": None,  # as if it was not set
        "caveclient_mode": "0640",  # not asked for
        "caveclient_group": "others",  # given already
        "__caveclient_options": {"server": "https://cave.example.org", "verify": "client"},  # one that it does not have
        "__caveclient_variables": ["timeout", "rate", "retries", "group"],
    }
    action.run(task_vars=task_vars)
    assert action.seen == [{"token": TOKEN, "group": "lab", "server": "https://cave.example.org", "timeout": 5}]


def test_what_a_rotation_has_sealed_is_opened_for_the_module_alone() -> None:
    action = SaveAction.__new__(SaveAction)
    action._templar = Templar(loader=None, variables={})
    task_vars: dict[str, Any] = {
        "__caveclient_options": {"tokens": [{"user": "alice", "sealed": seal(TOKEN)}], "rate": 2}
    }
    assert action.with_settings({}, task_vars) == {"tokens": [{"user": "alice", "token": TOKEN}], "rate": 2}
    task_vars["__caveclient_options"]["tokens"][0]["sealed"] = "of another run"
    with pytest.raises(NotSealedError):
        action.with_settings({}, task_vars)


def test_a_token_that_a_variable_brings_to_the_wrong_place_is_refused() -> None:
    action = Action()
    action._templar = Templar(loader=None, variables={})
    result = action.run(task_vars={"caveclient_group": TOKEN, "__caveclient_variables": ["group"]})
    assert result["msg"] == "group looks like a token. Is the token in the wrong place?"
    assert action._task.args == {"token": "********", "group": "********"}


@pytest.mark.parametrize("plugin", sorted(path.stem for path in (PLUGINS / "action").glob("*.py")))
def test_every_action_plugin_is_guarded_and_knows_its_arguments(plugin: str) -> None:
    action = importlib.import_module(f"ansible_collections.connectomics.cave.plugins.action.{plugin}").ActionModule
    assert issubclass(action, CaveAction)
    assert hasattr(action.run, "__wrapped__")
    assert action.spec


def test_a_module_alone_refuses_an_ansible_core_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "__version__", "2.16.14")
    action = Action()
    with pytest.raises(
        AnsibleError, match=r"needs ansible-core 2\.17 or later; this is 2\.16\.14\. Install a newer one"
    ):
        action.run()
    assert action.seen == []
    assert action._task.args == {"token": "********"}


def test_an_action_that_inherits_its_run_is_guarded_once() -> None:
    class Inheriting(TokenAction):
        pass

    assert Inheriting.run is TokenAction.run
