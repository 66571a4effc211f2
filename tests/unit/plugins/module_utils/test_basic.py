# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in for Ansible's own AnsibleModule on a host tells as much, and hides as much."""

from __future__ import annotations

import json
import syslog
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils import _basic
from ansible_collections.connectomics.cave.plugins.module_utils._masking import HIDDEN
from ansible_collections.connectomics.cave.plugins.module_utils._module import Module

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="
SPEC: dict[str, Any] = {
    "user": {"type": "str"},
    "token": {"type": "raw", "no_log": True},
    "tokens": {
        "type": "list",
        "elements": "dict",
        "options": {"user": {"type": "str"}, "token": {"type": "raw", "no_log": True}},
    },
    "place": {"type": "path"},
}
PARAMS = {"user": "alice", "token": TOKEN, "tokens": [{"user": "bob", "token": OTHER}], "place": None}


class Ended(Exception):  # noqa: N818 (it is none)
    """A process has ended, with this status."""


@pytest.fixture(autouse=True)
def ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module end with an exception."""

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(_basic.os, "_exit", end)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the system's log is told."""
    lines: list[str] = []
    monkeypatch.setattr(syslog, "openlog", lambda name, _options, facility: lines.append(f"{name} {facility}"))
    monkeypatch.setattr(syslog, "syslog", lambda _priority, line: lines.append(line))
    return lines


def module(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Module:
    monkeypatch.setattr(_basic, "name", "connectomics.cave.x")
    monkeypatch.setattr(_basic, "arguments", json.dumps({**PARAMS, "_ansible_no_log": False, **arguments}))
    return _basic.AnsibleModule(SPEC, supports_check_mode=True, mutually_exclusive=[("user", "tokens")])


@pytest.mark.parametrize(("method", "status"), [("exit_json", 0), ("fail_json", 1)])
def test_a_result_has_no_token_wherever_one_got_into_it(
    method: str, status: int, monkeypatch: pytest.MonkeyPatch, logged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = {
        "msg": f"got {TOKEN}, {OTHER}.",
        "users": [{"token": OTHER, "changed": True, "n": 7, "none": None}],
        "diff": ({"after": f"x{TOKEN}x"},),
    }
    with pytest.raises(Ended, match=str(status)):
        getattr(module(monkeypatch), method)(**result)

    output = capsys.readouterr().out
    said = json.loads(output)
    assert TOKEN not in output
    assert OTHER not in output
    assert said["msg"] == "got ********, ********."
    assert said["users"] == [{"token": HIDDEN, "changed": True, "n": 7, "none": None}]
    assert said["invocation"]["module_args"] == {
        **PARAMS,
        "token": HIDDEN,
        "tokens": [{"user": "bob", "token": HIDDEN}],
    }
    assert said.get("failed", False) is bool(status)


def test_what_a_module_adds_to_what_is_hidden_is_hidden(
    monkeypatch: pytest.MonkeyPatch, logged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    running = module(monkeypatch)
    running.no_log_values.add("found-on-disk")
    with pytest.raises(Ended):
        running.fail_json(msg="the file has found-on-disk in it")
    assert "found-on-disk" not in capsys.readouterr().out


def test_the_systems_log_is_told_what_ansible_tells_it(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    module(monkeypatch, _ansible_syslog_facility="LOG_AUTH", _ansible_target_log_info="run 7")
    assert logged == [
        f"ansible-connectomics.cave.x {syslog.LOG_AUTH}",
        f"run 7 Invoked with user=alice token={HIDDEN} tokens=[{{'user': 'bob', 'token': '{HIDDEN}'}}] place=None",
    ]


def test_the_systems_log_is_left_alone_where_that_is_configured(
    monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    module(monkeypatch, _ansible_no_log=True)
    assert logged == []


def test_what_ansible_says_beside_the_arguments_is_no_argument(
    monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    running = module(monkeypatch, _ansible_check_mode=True, _ansible_tmpdir="/tmp/x")
    assert running.params == PARAMS
    assert (running.check_mode, running.tmpdir) == (True, "/tmp/x")


def test_a_path_is_expanded_on_the_host(monkeypatch: pytest.MonkeyPatch, logged: list[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "here")
    assert module(monkeypatch, place="~/$PLACE/x").params["place"] == f"{tmp_path}/here/x"
