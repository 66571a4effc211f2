# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller's side brings, and how often it runs the module; the host is played by answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.connectomics.cave.plugins.action.caveclient import ActionModule, _as_list
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils import _host_tools

HOST = {"system": "Linux", "machine": "x86_64", "libc": "glibc", "python": "3.11.2"}


class Played(ActionModule):
    """The action plugin with a host that gives prepared answers."""

    def __init__(self, arguments: dict[str, Any], *answers: dict[str, Any]) -> None:
        self._task: Any = SimpleNamespace(args=arguments, check_mode=False, async_val=0, diff=False)
        self._connection: Any = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/x", join_path="/".join))
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.transferred: list[str] = []

    def run_module(self, args: Any, task_vars: Any) -> Any:
        del task_vars
        self.asked.append(args)
        return self.answers.pop(0)

    def _transfer(self, file: Path, executable: bool = False) -> str:
        self.transferred.append(f"{file.name}{' (executable)' if executable else ''}")
        return f"/tmp/x/{file.name}"

    def go(self) -> dict[str, Any]:
        return self.run(task_vars={"inventory_hostname": "ws1"})


def plan(*tools: str, wheels: bool = False) -> dict[str, Any]:
    needs = {"tools": list(tools), "wheels": wheels, "host": HOST}
    return {"changed": True, "plan": {"doing": "install caveclient", "needs": needs}}


def lacks(*tools: str) -> dict[str, Any]:
    return {"failed": True, "msg": "does not run", "needs": {"tools": list(tools), "wheels": False, "host": HOST}}


DONE = {"changed": True, "version": "8.2.1"}
BROUGHT = {"changed": True, "doctor": "/x/cave-doctor"}


@pytest.fixture(autouse=True)
def controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A controller that has uv and a wheel of pip."""
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_arguments: {})
    monkeypatch.setattr(_host_tools, "find_tool", lambda tools, _host, _folder: (tools[0], tmp_path / tools[0]))


def test_an_unchanged_host_is_asked_once() -> None:
    played = Played({"version": "8.2.1"}, {"changed": False})

    assert played.go() == {"changed": False}
    assert played.asked == [{"version": "8.2.1", "_controller": {"plan": True}}]
    assert played.transferred == []


def test_a_plan_that_fails_is_the_answer() -> None:
    assert Played({}, {"failed": True, "msg": "no Python"}).go()["msg"] == "no Python"


def test_a_host_that_has_all_is_asked_twice_and_nothing_is_brought() -> None:
    played = Played({}, plan(), DONE)

    assert played.go() == DONE
    assert played.asked == [{"_controller": {"plan": True}}, {"_controller": {"from_controller": {}}}]
    assert played.transferred == []


def test_uv_is_brought_first_and_may_be_run() -> None:
    played = Played({}, plan("uv", "pip"), DONE)

    assert played.go() == DONE
    assert played.asked[1] == {"_controller": {"from_controller": {"uv": "/tmp/x/uv"}}}
    assert played.transferred == ["uv (executable)"]


def test_pip_is_brought_when_uv_turns_out_not_to_run() -> None:
    played = Played({}, plan("uv", "pip"), lacks("pip"), DONE)

    assert played.go() == DONE
    assert played.asked[2] == {"_controller": {"from_controller": {"uv": "/tmp/x/uv", "pip": "/tmp/x/pip"}}}


def test_what_the_host_has_but_cannot_run_is_brought() -> None:
    played = Played({}, plan(), lacks("uv", "pip"), DONE)

    assert played.go() == DONE
    assert played.transferred == ["uv (executable)"]


def test_it_ends_when_nothing_more_can_be_brought() -> None:
    played = Played({}, plan("uv"), lacks("pip"), lacks("uv", "pip"))

    assert played.go()["msg"] == "does not run"


def test_wheels_are_brought_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[Any] = []

    def pack(folders: Any, _host: Any, archive: Any) -> Any:
        packed.append(folders)
        return archive

    monkeypatch.setattr(_host_tools, "pack_wheels", pack)
    monkeypatch.setattr(Played, "_find_needle", lambda _self, _kind, place: place, raising=False)
    links = [str(tmp_path), "https://lab.example/wheels"]
    played = Played({"find_links": links}, plan("uv", "pip", wheels=True), lacks("pip"), DONE)

    assert played.go() == DONE
    assert played.transferred == ["uv (executable)", "wheels.tar", "pip"]
    assert packed == [[tmp_path]]
    assert played.asked[2]["_controller"]["from_controller"]["wheels"] == "/tmp/x/wheels.tar"


def test_a_controller_without_anything_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise CaveError("The host lacks uv and pip.")

    monkeypatch.setattr(_host_tools, "find_tool", refuse)
    with pytest.raises(AnsibleActionFail, match="The host lacks uv and pip"):
        Played({}, plan("uv", "pip")).go()


@pytest.mark.parametrize("name", ["version", "python"])
def test_a_number_is_refused_before_anything_runs(name: str) -> None:
    played = Played({name: 3.1})

    with pytest.raises(AnsibleActionFail, match="Put it in quotes"):
        played.go()
    assert played.asked == []


def test_what_the_plugin_says_to_the_module_cannot_be_said_by_a_user_and_is_not_shown() -> None:
    shown = {"invocation": {"module_args": {"path": "/opt", "_controller": {"plan": True}}}}
    played = Played({"_controller": {"from_controller": {"uv": "/tmp/evil"}}}, {"changed": False, **shown})

    assert played.go()["invocation"]["module_args"] == {"path": "/opt"}
    assert played.asked == [{"_controller": {"plan": True}}]


@pytest.mark.parametrize(("value", "items"), [(["/a", "/b"], ["/a", "/b"]), ("/a,/b", ["/a", "/b"]), ("/a", ["/a"])])
def test_a_list_is_read_as_the_module_reads_it(value: Any, items: list[str]) -> None:
    assert _as_list(value) == items


def test_the_doctor_is_brought_where_it_differs_and_its_failure_is_the_answer() -> None:
    played = Played({"doctor": "/x/cave-doctor"}, {**DONE, "doctor_needed": ["old"]}, BROUGHT)

    assert played.go() == {**DONE, "doctor": "/x/cave-doctor"}
    assert played.transferred == ["cave-doctor"]
    assert played.asked[1]["_controller"]["doctor_file"] == "/tmp/x/cave-doctor"

    refused = {"failed": True, "msg": "another program"}
    assert Played({"doctor": "/x"}, {**DONE, "doctor_needed": ["old"]}, refused).go() == refused


@pytest.mark.parametrize(("others", "changed"), [([], False), (["no build is live"], True)])
def test_a_doctor_that_another_run_brought_meanwhile_is_no_change(others: list[str], changed: bool) -> None:
    answer = {"changed": True, "reasons": [*others, "old"], "doctor_needed": ["old"]}
    played = Played({"doctor": "/x/cave-doctor"}, answer, {**BROUGHT, "changed": False})

    assert played.go() == {"changed": changed, "reasons": others, "doctor": "/x/cave-doctor"}


def test_an_unchanged_doctor_costs_no_second_run() -> None:
    played = Played({"doctor": "/x/cave-doctor"}, {"changed": False, "doctor_needed": []})

    assert played.go() == {"changed": False}
    assert set(played.asked[0]["_controller"]) == {"plan", "doctor_digest"}


class Moving(ActionModule):
    """The action plugin with a connection that notes how files are moved, and may refuse a new one."""

    def __init__(self, ssh_args: str | None, refuses: bool = False) -> None:
        self.ssh_args, self.refuses = ssh_args, refuses
        self.moved: list[str | None] = []
        shell = SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))
        self._connection: Any = SimpleNamespace(_shell=shell, set_option=self.set_option)

    def set_option(self, name: str, value: str) -> None:
        assert name == "ssh_args"
        self.ssh_args = value

    def get_connection_option(self, _name: str, _default: Any = None) -> Any:
        return self.ssh_args

    def _transfer_file(self, local_path: str, remote_path: str) -> str:
        assert local_path
        self.moved.append(self.ssh_args)
        if self.refuses and "ControlPath=none" in str(self.ssh_args):
            raise AnsibleError("Permission denied")
        return remote_path

    def _fixup_perms2(self, *_arguments: Any, **_more: Any) -> None:
        pass


DEFAULT = "-C -o ControlMaster=auto -o ControlPersist=60s"
PLAIN = "-o ControlPath=none -o ControlMaster=auto -o ControlPersist=60s"


@pytest.mark.parametrize(
    ("arguments", "refuses", "size", "moved"),
    [
        (DEFAULT, False, 9_000_000, [PLAIN]),
        (DEFAULT, True, 9_000_000, [PLAIN, DEFAULT]),  # such as one that asks for a second factor
        (DEFAULT, False, 1_000, [DEFAULT]),
        ("-o Ciphers=-Cx", False, 9_000_000, ["-o Ciphers=-Cx"]),
        (None, False, 9_000_000, [None]),  # no SSH
    ],
)
def test_a_large_file_is_not_compressed_on_its_way(
    arguments: str | None, refuses: bool, size: int, moved: list[str | None], tmp_path: Path
) -> None:
    file = tmp_path / "uv"
    with file.open("wb") as stream:
        stream.truncate(size)
    moving = Moving(arguments, refuses)

    assert moving._transfer(file) == "/tmp/x/uv"
    assert moving.moved == moved
    assert moving.ssh_args == arguments
