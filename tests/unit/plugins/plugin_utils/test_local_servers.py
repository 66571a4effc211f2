# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of a run learn from one another about local servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible import constants

from ansible_collections.connectomics.cave.plugins.module_utils._cave import local_servers
from ansible_collections.connectomics.cave.plugins.plugin_utils import _local_servers
from ansible_collections.connectomics.cave.plugins.plugin_utils._local_servers import learn, with_local_servers

SERVER, LOCAL = "https://cave.lab.example", "https://local.lab.example"
TOKEN = "0123456789abcdef0123456789abcdef"
ARGS = {"server": f"{SERVER}/", "datastacks": ["mouse"], "tokens": [{"user": "alice", "token": TOKEN}]}


class Controller:
    """One that can ask for some records, and hosts that see which arguments they get."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.received: list[dict[str, Any]] = []
        self.on_host: dict[str, str] = {}

    def ask(self, tokens: dict[tuple[str, str], list[str]], **_limits: Any) -> dict[str, dict[str, str]]:
        self.asked += tokens
        return self.records

    def run(self, args: dict[str, Any]) -> dict[str, Any]:
        self.received.append(args)
        return {"users": [{"user": "alice", "server": SERVER, "local_servers": self.on_host}]}


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Controller:
    """A controller in the middle of a run."""
    found = Controller()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    monkeypatch.setattr(local_servers, "learn_local_servers", found.ask)
    return found


def test_a_record_is_asked_for_once_and_every_host_gets_the_answer(controller: Controller) -> None:
    controller.records = {SERVER: {"mouse": LOCAL}}
    for _host in range(3):
        with_local_servers(dict(ARGS), "tokens", True, controller.run)
    assert controller.asked == [(SERVER, "mouse")]
    assert [args["datastacks"] for args in controller.received] == [[{"name": "mouse", "local_server": LOCAL}]] * 3


def test_what_the_first_host_learns_is_given_to_the_others(controller: Controller) -> None:
    controller.on_host = {"mouse": LOCAL}
    for _host in range(2):
        with_local_servers(dict(ARGS), "tokens", True, controller.run)
    assert controller.asked == [(SERVER, "mouse")], "the controller tries once"
    assert [args["datastacks"] for args in controller.received] == [
        ["mouse"],
        [{"name": "mouse", "local_server": LOCAL}],
    ]


def test_a_task_that_asks_nobody_uses_what_was_learned_before(controller: Controller) -> None:
    controller.records = {SERVER: {"mouse": LOCAL}}
    with_local_servers(dict(ARGS), "tokens", True, controller.run)
    users = ["alice", {"user": "bob", "server": SERVER, "datastacks": ["mouse"]}, {"user": "eve", "datastacks": [7]}]
    with_local_servers({"users": users}, "users", False, controller.run)
    assert controller.received[-1]["users"][1]["datastacks"] == [{"name": "mouse", "local_server": LOCAL}]
    assert controller.received[-1]["users"][2]["datastacks"] == [7], "for the module to refuse"
    assert controller.asked == [(SERVER, "mouse")]


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": [{"user": "alice", "token": TOKEN, "validate": False}]},
        {"tokens": [{"user": "alice", "token": "YOUR_TOKEN_HERE"}]},
        {"tokens": [{"user": "alice", "token": 7}]},
        {"tokens": "nonsense"},
        {"datastacks": [{"name": "mouse", "local_server": "https://mine.lab.example"}]},
        {"datastacks": ["no name of a datastack"]},
        {"datastacks": "mouse"},
        {"server": "cave.lab.example"},
    ],
)
def test_nobody_asks_without_a_token_that_may_be_shown_to_a_server(
    controller: Controller, changes: dict[str, Any]
) -> None:
    args = {**ARGS, **changes}
    with_local_servers(args, "tokens", True, controller.run)
    assert controller.asked == []
    assert controller.received == [args]


def test_a_failure_of_the_module_stays_one(controller: Controller) -> None:
    def fail(_args: dict[str, Any]) -> dict[str, Any]:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        with_local_servers(dict(ARGS), "tokens", True, fail)


def test_another_host_that_hangs_is_not_waited_for_for_long(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_local_servers, "PATIENCE", 0.05)
    with _local_servers._turn():
        with_local_servers(dict(ARGS), "tokens", True, controller.run)
    assert len(controller.received) == 1


def test_what_is_learned_before_any_host_is_contacted_is_given_to_the_hosts(controller: Controller) -> None:
    controller.records = {SERVER: {"mouse": LOCAL}}
    learn([ARGS, ARGS], "tokens", None)
    with_local_servers(dict(ARGS), "tokens", False, controller.run)
    assert controller.asked == [(SERVER, "mouse")]
    assert controller.received[0]["datastacks"] == [{"name": "mouse", "local_server": LOCAL}]
