# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module as one program for a host's Python does, says and hides what the module itself does under Ansible."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from hypothesis import given
from hypothesis import strategies as st
from interpreters import candidates, find_interpreters
from module_runner import run_module

from ansible_collections.connectomics.cave.plugins.plugin_utils import _fast_transport
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import without_shown_tokens
from ansible_collections.connectomics.cave.plugins.plugin_utils._fast_transport import (
    HostAction,
    check_arguments,
    program,
)

TOKEN = "0123456789abcdef0123456789abcdef"
MODULES = ("saved_token", "saved_token_info", "verify_access", "server_token", "server_token_info", "caveclient")
PLACE = "<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"
BYTECODE = "MAGIC_NUMBER == "
ME = pwd.getpwuid(os.geteuid()).pw_name
PYTHONS = find_interpreters()
OLD = [path for path in candidates() if {"3.6", "3.7"} & {path.parts[-3][:3], path.name[6:]}]
PROGRAMS = {name: program(name) for name in MODULES}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{_fast_transport.PACKAGE}.modules.{name}")


def filled(name: str, arguments: dict[str, Any], **told: Any) -> str:
    """Return a module's program with its arguments, as Ansible puts them in."""
    checked, complaint = check_arguments(module(name), arguments)
    assert not complaint
    told = {f"_ansible_{key}": value for key, value in {"no_log": True, "check_mode": False, **told}.items()}
    return PROGRAMS[name].replace(PLACE, json.dumps({**checked, **told}))


def run(text: str, home: Path, python: str = sys.executable, folder: Path | None = None) -> tuple[int, str]:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python], input=text, env=environment, cwd=folder or home, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def without_places(result: dict[str, Any]) -> dict[str, Any]:
    """Return a module's result without what Ansible adds of each version for itself."""
    shown = result.get("invocation", {}).get("module_args", {})
    return {**result, "invocation": {name: value for name, value in shown.items() if not name.startswith("_ansible")}}


CASES: list[tuple[str, dict[str, Any]]] = [
    ("saved_token", {"token": TOKEN, "validate": False}),
    ("saved_token", {"token": TOKEN, "validate": False, "mode": "0644"}),
    ("saved_token", {"token": f"{TOKEN} and more", "validate": False}),
    ("saved_token", {"token": 12345678, "validate": False}),
    ("saved_token", {"tokens": [{"token": TOKEN, "server": "ftp://x", "validate": False}]}),
    ("saved_token", {"tokens": [{"user": "nobody-of-this-name", "token": TOKEN}], "validate": False}),
    ("saved_token_info", {"users": [ME]}),
    ("saved_token_info", {"users": [ME], "expected": [{"user": ME, "token": TOKEN}]}),
    ("verify_access", {"token": TOKEN, "server": "http://127.0.0.1:9", "retries": 0}),
    ("verify_access", {"method": "client"}),
    ("server_token_info", {"token": TOKEN, "server": "http://127.0.0.1:9", "retries": 0}),
    ("server_token", {"token": TOKEN, "description": "d", "server": "http://127.0.0.1:9", "retries": 0}),
    ("caveclient", {"path": "~/caveclient", "state": "absent"}),
    ("caveclient", {"path": "~/caveclient", "version": "no version", "index_url": f"https://lab:{TOKEN}@127.0.0.1:9/"}),
]


@pytest.mark.parametrize("kind", ["bytecode", "source"])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_program_does_and_says_what_the_module_does_under_ansible(
    name: str, arguments: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    homes = [tmp_path / "program" / "home", tmp_path / "module" / "home"]
    for home in homes:
        home.mkdir(parents=True)
    text = filled(name, arguments, check_mode=False)
    assert BYTECODE in text
    status, output = run(text.replace(BYTECODE, "MAGIC_NUMBER != ") if kind == "source" else text, homes[0])
    by_module = run_module(name, arguments, homes[1])

    said = json.loads(output)
    expected = json.loads(json.dumps(by_module.result).replace(str(homes[1]), str(homes[0])))
    assert without_places(said) == without_places(expected)
    assert status == by_module.status
    assert TOKEN not in output
    files = [{str(p.relative_to(home)): p.is_file() and p.read_bytes() for p in home.rglob("*")} for home in homes]
    assert files[0] == files[1]


@pytest.mark.parametrize("version", [version for version in PYTHONS if version != "3.11"])
def test_a_program_runs_on_a_python_of_another_version(version: str, tmp_path: Path) -> None:
    status, output = run(filled("saved_token", {"token": TOKEN, "validate": False}), tmp_path, str(PYTHONS[version]))
    assert status == 0, output
    assert json.loads(output)["changed"] is True


@pytest.mark.parametrize("python", OLD or [None])
def test_a_python_that_is_too_old_is_named(python: Path | None, tmp_path: Path) -> None:
    text = filled("saved_token", {"token": TOKEN})
    if python is None:  # none is here: let this one be too old
        text = text.replace("< (3, 8)", "< (99, 0)")
    status, output = run(text, tmp_path, str(python or sys.executable))
    assert status == 1
    assert " is Python 3." in json.loads(output)["msg"]
    assert "Python 3.8 or later is needed" in json.loads(output)["msg"]


def test_nothing_is_imported_from_the_folder_that_the_program_runs_in(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("binascii", "json", "re", "pwd", "grp", "ansible", "ansible_collections", "hashlib", "syslog"):
        (trap / f"{name}.py").write_text("raise SystemExit('trapped')")
    text = filled("saved_token", {"token": TOKEN, "validate": False}, no_log=False)

    on_stdin = run(text, tmp_path, folder=trap)
    (trap / "module.py").write_text(text)
    done = subprocess.run([sys.executable, str(trap / "module.py")], capture_output=True, text=True, check=False)

    assert on_stdin[0] == 0, on_stdin[1]
    assert done.returncode == 0, done.stdout + done.stderr


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"""', "\\", '\\"""', "'''", "{0}", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_no_argument_can_end_the_string_that_it_stands_in(arguments: dict[str, Any]) -> None:
    line = next(line for line in _fast_transport.LAUNCHER.splitlines() if PLACE in line).replace(
        PLACE, json.dumps(arguments)
    )
    basic = SimpleNamespace()
    exec(line, {"basic": basic})  # noqa: S102 (the line of the program)
    assert json.loads(basic.arguments) == arguments


def test_a_path_is_the_hosts_and_not_the_controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/the/controller")
    checked, _complaint = check_arguments(module("caveclient"), {"path": "~/$PLACE/x", "state": "absent"})
    assert checked["path"] == "~/$PLACE/x"

    _status, output = run(filled("caveclient", {"path": "~/x", "state": "absent"}), tmp_path)
    assert json.loads(output)["invocation"]["module_args"]["path"] == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"tokne": TOKEN}, "Unsupported parameters for (connectomics.cave.saved_token) module: tokne."),
        ({"token": TOKEN, "state": TOKEN}, "value of state must be one of: present, absent, got: ********"),
        ({"token": TOKEN, "timeout": "soon"}, "timeout"),
        ({"tokens": [{"user": "alice", "tokne": TOKEN}]}, "Unsupported parameters for"),
        ({"tokens": [TOKEN]}, "dictionary requested, could not parse JSON or key=value"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_without_a_token(arguments: dict[str, Any], complaint: str) -> None:
    checked, message = check_arguments(module("saved_token"), arguments)
    assert complaint in message
    assert TOKEN not in message
    assert checked == {}


def test_checked_arguments_have_their_types_and_defaults() -> None:
    given_ = without_shown_tokens({"token": TOKEN, "validate": "no", "retries": "3", "datastacks": "a,b"})
    checked, complaint = check_arguments(module("saved_token"), given_)
    assert complaint == ""
    assert (checked["validate"], checked["retries"], checked["datastacks"]) == (False, 3, ["a", "b"])
    assert (checked["server"], checked["stale"]) == ("https://global.daf-apis.com", "update")


@pytest.mark.parametrize("name", MODULES)
def test_a_program_holds_all_that_the_module_imports_and_nothing_of_ansibles(name: str) -> None:
    held = {part.name for part in _fast_transport._parts(f"{_fast_transport.PACKAGE}.modules.{name}")}
    assert {full for full in held if not full.startswith(_fast_transport.PACKAGE)} == {"ansible.module_utils.basic"}
    assert f"{_fast_transport.PACKAGE}.module_utils._errors" in held


def test_the_file_with_a_program_is_made_once_and_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return "# a program"

    monkeypatch.setattr(_fast_transport, "program", make)

    files = {_fast_transport.program_file("saved_token") for _attempt in range(3)}

    assert made == ["saved_token"]
    assert [file.read_text() for file in files] == ["# a program"]
    assert (tmp_path / "connectomics.cave").stat().st_mode & 0o077 == 0


class Asked(HostAction):
    """An action whose host is Ansible's loader."""

    module = module("saved_token")

    def __init__(self) -> None:
        self._shared_loader_obj = SimpleNamespace(
            module_loader=SimpleNamespace(find_plugin_with_context=lambda *_: "Ansible's", other="as it was")
        )
        self.before = self._shared_loader_obj

    def run(self, tmp: Any = None, task_vars: Any = None) -> Any:
        raise NotImplementedError

    def _execute_module(self, **keywords: Any) -> Any:
        loader = self._shared_loader_obj.module_loader
        assert loader.other == "as it was"
        assert loader.find_plugin_with_context("ansible.builtin.ping", "") == "Ansible's"
        found = loader.find_plugin_with_context(keywords["module_name"], "", collection_list=[])
        return {"path": found.plugin_resolved_path, "args": keywords["module_args"]}


def test_ansible_is_given_the_program_in_place_of_the_module_and_its_loader_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    action = Asked()

    result = action.run_module({"token": TOKEN}, {})

    assert Path(result["path"]).read_text().splitlines()[:2] == PROGRAMS["saved_token"].splitlines()[:2]
    assert TOKEN not in repr(result["args"])
    assert result["args"]["token"] == TOKEN
    assert action._shared_loader_obj is action.before


def test_wrong_arguments_never_reach_the_host() -> None:
    result = Asked().run_module({"token": TOKEN, "chekc": True}, {})
    assert result["failed"]
    assert "chekc" in result["msg"]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace shows what is sent to the system's log")
def test_the_systems_log_is_told_who_ran_what_without_a_token(tmp_path: Path) -> None:
    text = filled("saved_token", {"token": TOKEN, "validate": False}, no_log=False, module_name="connectomics.cave.x")
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-s", "4096", "-e", "trace=network", "-o", str(trace), sys.executable]
    subprocess.run(words, input=text, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert "/dev/log" in trace.read_text()
    assert TOKEN not in trace.read_text()
