# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module as one program for a host's Python, and when that way is taken."""

from __future__ import annotations

import importlib
import json
import os
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

from ansible_collections.connectomics.cave.plugins.plugin_utils import _fast_transport
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import HostAction, unshown
from ansible_collections.connectomics.cave.plugins.plugin_utils._fast_transport import (
    checked_arguments,
    known_program,
    program,
    sources_of,
)
from cave_server import CaveServer

TOKEN = "0123456789abcdef0123456789abcdef"
MODULES = ("saved_token", "saved_token_info", "verify_access", "server_token", "server_token_info", "caveclient")
PLACE = "<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"
PYTHONS = find_interpreters()
OLD = [path for path in candidates() if {"3.6", "3.7"} & {path.parts[-3][:3], path.name[6:]}]
PROGRAMS = {name: program(name) for name in MODULES}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{_fast_transport.PACKAGE}.modules.{name}")


def filled(name: str, arguments: dict[str, Any], **told: Any) -> str:
    """Return a module's program with its arguments, as Ansible puts them in."""
    checked = checked_arguments(module(name).ARGUMENTS, arguments)
    assert checked is not None
    told = {f"_ansible_{key}": value for key, value in {"no_log": True, "check_mode": False, **told}.items()}
    return PROGRAMS[name].replace(PLACE, json.dumps({**checked, **told}))


def run(text: str, home: Path, python: str = sys.executable, folder: Path | None = None) -> tuple[int, str]:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python], input=text, env=environment, cwd=folder or home, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_fast_way_is_small() -> None:
    files = ("plugin_utils/_fast_transport.py", "module_utils/_basic.py")
    assert sum(len((_fast_transport.PLUGINS / file).read_text().splitlines()) for file in files) <= 250


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


SAVE = {"token": TOKEN, "validate": False}


def test_nothing_is_imported_or_read_from_the_folder_that_the_program_runs_in(tmp_path: Path) -> None:
    names = ("binascii", "json", "re", "pwd", "grp", "ansible", "ansible_collections", "hashlib", "syslog", "inspect")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('trapped')")
    status, output = run(filled("saved_token", SAVE, no_log=False), tmp_path, folder=tmp_path)
    assert status == 0, output

    # verify_access hands the source of one of its files to another Python: that must be what was sent.
    shutil.rmtree(tmp_path)
    trap = tmp_path / "ansible_collections/connectomics/cave/plugins/module_utils/_cave/client_script.py"
    trap.parent.mkdir(parents=True)
    trap.write_text("trapped = 1\n")
    text = PROGRAMS["verify_access"].rsplit("\n__import__(", 1)[0]
    ask = f"from {_fast_transport.PACKAGE}.module_utils._cave.client import _SCRIPT as s\nprint('trapped' in s, len(s))"
    status, output = run(f"{text}\n{ask}\n", tmp_path, folder=tmp_path)
    sent = (_fast_transport.PLUGINS / "module_utils/_cave/client_script.py").read_text()
    assert output.split() == ["False", str(len(sent))]


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
    checked = checked_arguments(module("caveclient").ARGUMENTS, {"path": "~/$PLACE/x", "state": "absent"})
    assert checked is not None
    assert checked["path"] == "~/$PLACE/x"

    _status, output = run(filled("caveclient", {"path": "~/x", "state": "absent"}), tmp_path)
    assert json.loads(output)["invocation"]["module_args"]["path"] == str(tmp_path / "x")


@pytest.mark.parametrize(
    "arguments",
    [{"tokne": TOKEN}, {"state": "presnt"}, {"timeout": "soon"}, {"tokens": [{"tokne": TOKEN}]}, {"tokens": [TOKEN]}],
)
def test_wrong_arguments_are_ansibles_to_refuse(arguments: dict[str, Any]) -> None:
    assert checked_arguments(module("saved_token").ARGUMENTS, arguments) is None


def test_checked_arguments_have_their_types_and_defaults() -> None:
    wanted = module("saved_token").ARGUMENTS
    args = {"token": TOKEN, "validate": "no", "retries": "3", "datastacks": "a,b"}
    checked = checked_arguments(wanted, unshown(args, wanted["argument_spec"]))
    assert checked is not None
    assert (checked["validate"], checked["retries"], checked["datastacks"]) == (False, 3, ["a", "b"])
    assert (checked["server"], checked["stale"]) == ("https://global.daf-apis.com", "update")


@pytest.mark.parametrize("name", MODULES)
def test_a_program_holds_all_that_the_module_imports_and_nothing_of_ansibles(name: str) -> None:
    held = dict(sources_of(f"{_fast_transport.PACKAGE}.modules.{name}"))
    assert {full for full in held if not full.startswith(_fast_transport.PACKAGE)} == {_fast_transport.BASIC}
    assert f"{_fast_transport.PACKAGE}.module_utils._errors" in held
    imported = [
        line.split()[1]
        for source in held.values()
        for line in source.splitlines()
        if line.strip()[:12] == "from ansible"
    ]
    assert {full for full in imported if not full.startswith(_fast_transport.PACKAGE)} <= {_fast_transport.BASIC}


def test_a_program_is_made_once_for_its_user_alone_and_found_by_a_name_that_no_other_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return "# a program"

    monkeypatch.setattr(_fast_transport, "program", make)

    names = {known_program("saved_token") for _attempt in range(3)}

    assert made == ["saved_token"]
    name = names.pop()
    found = _fast_transport.module_loader.find_plugin_with_context(name, "")
    assert Path(found.plugin_resolved_path).read_text() == "# a program"
    assert Path(found.plugin_resolved_path).parent.stat().st_mode & 0o077 == 0
    assert len(name.rpartition("_")[2]) == 16


def test_ansible_never_finds_a_program_that_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a file of whatever suffix for a module, and another worker may be looking at any time."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    monkeypatch.setattr(_fast_transport, "program", lambda _name: "# a program")
    written: list[Path] = []
    write = Path.write_bytes

    def watched(path: Path, content: bytes) -> int:
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", watched)

    known_program("saved_token")

    folder = tmp_path / _fast_transport.COLLECTION / "saved_token"
    assert [path.parent == folder for path in written] == [False]
    assert [path.suffix for path in folder.iterdir()] == [".py"]


# What is read at every start ------------------------------------------------------------------------------------------

SLOW_TO_IMPORT = {
    *("dataclasses", "datetime", "email", "http", "inspect", "ipaddress", "logging", "pathlib", "random", "subprocess"),
    *("tempfile", "urllib"),
}
"""Of the standard library."""
FOR_HTTP = {"ssl", "socket", "threading", "_cave.http", "_cave.answers", "_cave.probe"}
BY_HTTP_CLIENT = {"datetime", "email", "http", "ipaddress", "random", "urllib"}
"""Slow to import, and not to be had without ``http.client``."""
RARELY_NEEDED = {
    *("_cave.failures", "_cave.proxies", "_cave.refusals", "_cave.services", "_cave.token_api", "_cave.client"),
    *("_secrets.startup_files", "_secrets.startup_commands", "_secrets.advice", "_similar"),
}
OF_OTHER_MODULES = {"_secrets.inspect", "_secrets.problems", "_secrets.remedies", "_secrets.env_tokens", "_trust"}


def read_by(name: str, arguments: dict[str, Any], home: Path) -> set[str]:
    """Return what a module's program imports: full names, those of this collection below ``module_utils``."""
    text = filled(name, arguments)
    program, main = text[: text.rindex("\n__import__(")], text[text.rindex("\n__import__(") :]
    tell = "lambda status: (print('\\n' + ' '.join({*sys.modules} - before), file=sys.stderr), end(status))"
    text = f"import sys\nbefore = {{*sys.modules}}\n{program}\nimport os\nend = os._exit\nos._exit = {tell}\n{main}"
    status, output = run(text, home)
    assert status == 0, output
    return {full.partition("module_utils.")[2] or full for full in output.splitlines()[-1].split()}


def lines_of(names: set[str]) -> int:
    files = [_fast_transport.PLUGINS / "module_utils" / f"{name.replace('.', '/')}.py" for name in names]
    return sum(len(file.read_text().splitlines()) for file in files if file.is_file())


def test_a_start_reads_no_more_than_what_it_does_needs(cave: CaveServer, tmp_path: Path) -> None:
    """Most of what a task costs a host is to import this."""
    cave.serve("minnie65_public")
    alice = cave.add_person("alice", ["minnie65_public"])
    given: dict[str, Any] = {"token": alice.token, "server": cave.url, "datastacks": ["minnie65_public"]}

    for _state in ("changed", "unchanged"):
        proven = read_by("saved_token", given, tmp_path)
        assert proven & (SLOW_TO_IMPORT | RARELY_NEEDED | OF_OTHER_MODULES) - BY_HTTP_CLIENT == set()
        assert proven >= FOR_HTTP
        assert lines_of(proven) < 6100

    unproven = read_by("saved_token", {**given, "validate": False}, tmp_path)
    assert unproven & (SLOW_TO_IMPORT | RARELY_NEEDED | OF_OTHER_MODULES | FOR_HTTP) == set()
    assert lines_of(unproven) < 4500

    verified = read_by("verify_access", {**given, "services": ["none"]}, tmp_path)
    not_asked_for = {*SLOW_TO_IMPORT, *RARELY_NEEDED, "_secrets.problems", "_secrets.writer", "_secrets.plan"}
    assert verified & not_asked_for - BY_HTTP_CLIENT == set()
    assert lines_of(verified) < 5800

    inspected = read_by("saved_token_info", {}, tmp_path)
    assert inspected & (SLOW_TO_IMPORT | RARELY_NEEDED | FOR_HTTP | {"_secrets.writer"}) == set()
    assert lines_of(inspected) < 5700


class Asked(HostAction):
    """An action on a connection that pipelines."""

    module = module("saved_token")

    def __init__(self, pipelines: bool = True, async_val: int = 0, **args: Any) -> None:
        self._task: Any = SimpleNamespace(args=args, async_val=async_val)
        self._templar: Any = SimpleNamespace(template=lambda value: value)
        self._connection: Any = SimpleNamespace(is_pipelining_enabled=lambda _async: pipelines)

    def run(self, tmp: Any = None, task_vars: Any = None) -> Any:
        raise NotImplementedError

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return bool(self._connection.is_pipelining_enabled(wrap_async))


class Mitogens(Asked):
    """One whose connection is Mitogen's."""

    def __init__(self) -> None:
        super().__init__()
        self._connection = type("Connection", (), {"__module__": "ansible_mitogen.connection"})()
        self._connection.is_pipelining_enabled = lambda _async: True


def test_the_fast_way_is_taken_where_ansible_pipelines() -> None:
    assert _fast_transport.may_be_taken(Asked(), {})
    assert _fast_transport.may_be_taken(Asked(fast=True), {"caveclient_fast": False})


@pytest.mark.parametrize(
    ("action", "variables"),
    [
        (Asked(pipelines=False), {}),
        (Asked(async_val=60), {}),
        (Asked(), {"caveclient_fast": False}),
        (Asked(), {"caveclient_fast": "no"}),
        (Asked(fast=False), {}),
        (Mitogens(), {}),
        (Asked(), {"_ansible_ansiballz_debugpy_config": {}}),
        (Asked(), {"ansible_python_module_rlimit_nofile": 1024}),
    ],
)
def test_ansibles_own_way_is_taken_everywhere_else(action: Asked, variables: dict[str, Any]) -> None:
    assert not _fast_transport.may_be_taken(action, variables)
    assert action.fast_module({"token": TOKEN}, variables) is None


@pytest.mark.parametrize("variable", ["_ANSIBLE_ANSIBALLZ_COVERAGE_CONFIG", "_ANSIBLE_COVERAGE_CONFIG"])
def test_where_ansible_measures_coverage_its_own_way_is_taken(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "x")
    assert not _fast_transport.may_be_taken(Asked(), {})


@pytest.mark.parametrize(
    ("version", "taken"), [("2.17.14", True), ("2.21.0", True), ("2.22.0rc1", False), ("3.0", False)]
)
def test_an_ansible_core_that_was_not_tested_takes_its_own_way(
    version: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fast_transport, "__version__", version)
    assert _fast_transport.may_be_taken(Asked(), {}) is taken


@pytest.mark.skipif(not shutil.which("strace"), reason="strace shows what is sent to the system's log")
def test_the_systems_log_is_told_who_ran_what_without_a_token(tmp_path: Path) -> None:
    text = filled("saved_token", {"token": TOKEN, "validate": False}, no_log=False)
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-s", "4096", "-e", "trace=network", "-o", str(trace), sys.executable]
    subprocess.run(words, input=text, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert "/dev/log" in trace.read_text()
    assert TOKEN not in trace.read_text()
