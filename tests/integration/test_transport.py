# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module goes to a host by Ansible's own way or by the fast one, with one result, and no token lies in a file."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_run import ROOT, Run, environment, run_tasks
from homes import NEW_TOKEN, OLD_TOKEN, User, copy_of_etc, picture, real_group, real_user
from module_runner import python_for_all, run_module

from cave_server import CaveServer

NAMESPACE = "connectomics.cave"
FAST_FILES = ("plugin_utils/_fast_transport.py", "module_utils/_basic.py")
PASSWORD = "correct horse"
CLOSED = "http://127.0.0.1:9"
ME = getpass.getuser()
CASES: list[tuple[str, dict[str, Any]]] = [
    ("saved_token", {"token": NEW_TOKEN, "validate": False, "secrets_dir": "PLACE/secrets"}),
    ("saved_token", {"token": NEW_TOKEN, "validate": False, "secrets_dir": "PLACE/secrets"}),
    ("saved_token", {"token": NEW_TOKEN, "server": CLOSED, "retries": 0, "secrets_dir": "PLACE/secrets"}),
    ("saved_token", {"token": NEW_TOKEN, "validate": False, "mode": "0644"}),
    ("saved_token", {"token": f"{NEW_TOKEN} and more", "validate": False}),
    ("saved_token", {"token": 12345678, "validate": False}),
    ("saved_token", {"token": NEW_TOKEN, "state": "presnt"}),
    ("saved_token", {"token": NEW_TOKEN, "timeout": "soon"}),
    ("saved_token", {"tokne": NEW_TOKEN}),
    ("saved_token", {"tokens": [{"token": NEW_TOKEN, "server": "ftp://x", "validate": False}]}),
    ("saved_token", {"tokens": [{"user": "nobody-of-this-name", "token": NEW_TOKEN}], "validate": False}),
    ("saved_token_info", {"users": [ME], "secrets_dir": "PLACE/secrets"}),
    (
        "saved_token_info",
        {"users": [ME], "expected": {ME: NEW_TOKEN}, "secrets_dir": "PLACE/secrets"},
    ),
    ("verify_access", {"token": NEW_TOKEN, "server": CLOSED, "retries": 0}),
    ("verify_access", {"token": "GOOD", "server": "CAVE", "datastacks": ["minnie65_public"]}),
    ("verify_access", {"method": "client", "path": "PLACE/none"}),
    ("server_token_info", {"token": NEW_TOKEN, "server": "CAVE"}),
    ("server_token", {"token": "GOOD", "description": "a new one", "server": "CAVE", "state": "absent"}),
    ("server_token", {"token": NEW_TOKEN}),
    ("caveclient", {"path": "PLACE/caveclient", "state": "absent"}),
    (
        "caveclient",
        {"path": "PLACE/caveclient", "version": "no version", "index_url": f"https://l:{OLD_TOKEN}@127.0.0.1:9/"},
    ),
]


def test_all_modules_that_go_to_hosts_are_compared() -> None:
    sent = [path.stem for path in (ROOT / "plugins/modules").glob("*.py") if "run_module(" in path.read_text()]
    assert {name for name, _arguments in CASES} == set(sent)


def results_of(folder: Path, fast: bool, cave: CaveServer, token: str) -> tuple[list[dict[str, Any]], str]:
    """Return the results of all cases by one of the ways, and what Ansible printed."""
    place = folder / ("fast" if fast else "stock")
    place.mkdir()
    text = json.dumps(CASES).replace("PLACE", str(place)).replace('"CAVE"', f'"{cave.url}"').replace("GOOD", token)
    tasks = [{f"{NAMESPACE}.{name}": arguments, "ignore_errors": True} for name, arguments in json.loads(text)]
    done = run_tasks(place, tasks, "-vvv", variables={"caveclient_fast": fast})
    assert done.ok, done.output
    return json.loads(json.dumps(done.results).replace(str(place), "PLACE")), done.output


def test_both_ways_have_the_same_results_for_all_modules(tmp_path: Path, cave: CaveServer) -> None:
    token = cave.add_person("alice", permissions=["minnie65_public"]).token
    fast, fast_output = results_of(tmp_path, True, cave, token)
    stock, stock_output = results_of(tmp_path, False, cave, token)

    assert len(fast) == len(CASES)
    for case, one, other in zip(CASES, fast, stock, strict=True):
        assert one == other, case
    assert len([result for result in fast if result.get("failed")]) > len(fast) / 2
    besides = (".ansible", "playbook.yml", "results.json", ".connectomics-cave.lock")
    places = [
        {name: what for name, what in picture(tmp_path / way, besides).items() if not name.startswith(".ansible")}
        for way in ("fast", "stock")
    ]
    assert [(name, *what[:2], what[4]) for name, what in places[0].items()] == [
        (name, *what[:2], what[4]) for name, what in places[1].items()
    ]
    programs = re.findall(r"Using module file \S*/connectomics_cave_(\w+)_[0-9a-f]{16}\.py", fast_output)
    assert set(programs) == {name for name, _arguments in CASES}
    assert "connectomics_cave_" not in stock_output
    for output in (fast_output, stock_output):
        assert not [secret for secret in (NEW_TOKEN, OLD_TOKEN, token) if secret in output]


def test_without_the_fast_way_all_works(tmp_path: Path) -> None:
    """It is one file, with what exists for it alone, and one line in the base class."""
    copy = tmp_path / "ansible_collections/connectomics/cave"
    for name in ("plugins", "meta"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", copy)
    for file in FAST_FILES:
        (copy / "plugins" / file).unlink()
    base = copy / "plugins/plugin_utils/_action.py"
    lines = base.read_text().splitlines(keepends=True)
    left = [line for line in lines if "import fast_module" not in line]
    assert len(left) == len(lines) - 1
    base.write_text("".join(left))
    saved = {"token": NEW_TOKEN, "validate": False, "secrets_dir": str(tmp_path / "secrets")}
    folder = tmp_path / "run"
    folder.mkdir()

    done = run_tasks(folder, [{f"{NAMESPACE}.saved_token": saved}], "-vvv", ANSIBLE_COLLECTIONS_PATH=str(tmp_path))

    assert done.ok, done.output
    assert done.results[0]["changed"]
    assert f"Using module file {copy}/plugins/modules/saved_token.py" in done.output


# Where there is no pipelining -----------------------------------------------------------------------------------------

SAVE = {f"{NAMESPACE}.saved_token": {"token": NEW_TOKEN, "validate": False, "secrets_dir": "{{ place }}"}}
AUDIT = {f"{NAMESPACE}.saved_token_info": {"users": ["root"], "secrets_dir": "{{ place }}"}}
OFF: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {"ansible_pipelining": False}, "pipelining is off (var: ansible_pipelining). Set ansible_pipelining: true."),
    ({"ANSIBLE_PIPELINING": "0"}, {}, "pipelining is off (env: ANSIBLE_PIPELINING). Set ansible_pipelining: true."),
    ({"ANSIBLE_KEEP_REMOTE_FILES": "1"}, {}, "ANSIBLE_KEEP_REMOTE_FILES is set, and would keep it there. Unset it."),
]


def files_with(token: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and token in path.read_text(errors="replace")]


@pytest.mark.parametrize(("settings", "variables", "says"), OFF)
def test_a_token_that_would_lie_in_a_file_is_not_sent_and_the_setting_is_named(
    settings: dict[str, str], variables: dict[str, Any], says: str, tmp_path: Path
) -> None:
    place = {"place": str(tmp_path / "secrets"), **variables}
    done = run_tasks(tmp_path, [AUDIT, {**SAVE, "ignore_errors": True}], variables=place, **settings)
    assert done.ok, done.output
    assert not done.results[0].get("failed")  # what holds no token goes as anything else does
    assert done.results[1]["failed"]
    assert says in done.results[1]["msg"]
    assert done.results[1]["msg"].endswith("Or accept it: caveclient_allow_remote_files: true")
    assert files_with(NEW_TOKEN, tmp_path) == [str(tmp_path / "playbook.yml")]


@pytest.mark.parametrize("as_option", [False, True])
def test_who_allows_files_is_told_once_that_tokens_lie_in_them(as_option: bool, tmp_path: Path) -> None:
    variables = {"place": str(tmp_path / "secrets"), "ansible_pipelining": False}
    save: dict[str, Any] = json.loads(json.dumps(SAVE))
    if as_option:
        save[f"{NAMESPACE}.saved_token"]["allow_remote_files"] = True
    else:
        variables["caveclient_allow_remote_files"] = True
    done = run_tasks(tmp_path, [save, save], variables=variables)
    assert done.ok, done.output
    assert [result["changed"] for result in done.results] == [True, False]
    assert done.output.count("Tokens lie in temporary files") == 1
    assert files_with(NEW_TOKEN, tmp_path / ".ansible") == []


def test_files_that_are_to_be_kept_are_kept_where_that_is_allowed(tmp_path: Path) -> None:
    variables = {"place": str(tmp_path / "secrets"), "caveclient_allow_remote_files": True}
    kept = tmp_path / "kept"
    told = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_REMOTE_TEMP": str(kept)}
    done = run_tasks(tmp_path, [SAVE, AUDIT], variables=variables, **told)
    assert done.ok, done.output
    assert {"AnsiballZ_saved_token.py", "AnsiballZ_saved_token_info.py"} <= {path.name for path in kept.rglob("*")}
    assert len(files_with(NEW_TOKEN, kept)) == 1


def test_the_address_of_an_index_without_a_password_is_no_secret(tmp_path: Path) -> None:
    task = {
        f"{NAMESPACE}.caveclient": {"path": str(tmp_path / "x"), "state": "absent", "index_url": "https://lab/simple"}
    }
    done = run_tasks(tmp_path, [task], variables={"ansible_pipelining": False})
    assert done.ok, done.output


def test_async_is_refused_with_a_token_and_runs_without_one(tmp_path: Path) -> None:
    variables = {"place": str(tmp_path / "secrets"), "caveclient_allow_remote_files": True}
    background = {"async": 60, "poll": 1, "ignore_errors": True}
    tasks = [{**SAVE, **background}, {**AUDIT, **background}]
    done = run_tasks(tmp_path, tasks, variables=variables, ANSIBLE_ASYNC_DIR=str(tmp_path / "jobs"))
    assert done.ok, done.output
    assert "async is set. connectomics.cave.saved_token takes seconds: take async out" in done.results[0]["msg"]
    assert done.results[1]["users"][0]["user"] == "root"


# A token in the wrong place -------------------------------------------------------------------------------------------

TOKENS = [{"user": "alice", "token": NEW_TOKEN, "datastacks": ["minnie65_public"]}]
MISPLACED: list[tuple[str, dict[str, Any], str]] = [
    ("verify_access", {"users": TOKENS}, "users[1] has the wrong form. A token has no place there."),
    ("saved_token_info", {"users": TOKENS}, "users[1] has the wrong form. Expected a list of strings."),
    ("saved_token", {"rate": NEW_TOKEN, "token": OLD_TOKEN}, "rate looks like a token."),
    ("saved_token", {"datastacks": [NEW_TOKEN], "token": OLD_TOKEN}, "datastacks[1] looks like a token."),
    ("server_token", {"description": f"of {NEW_TOKEN}", "token": OLD_TOKEN}, "description looks like a token."),
    ("server_token_info", {"timeout": NEW_TOKEN, "token": OLD_TOKEN}, "timeout looks like a token."),
    ("caveclient", {"packages": [NEW_TOKEN]}, "packages[1] looks like a token."),
    ("vault_variable", {"path": "v.yml", "name": NEW_TOKEN, "value": "x"}, "name looks like a token."),
    ("fleet_report", {"title": NEW_TOKEN}, "title looks like a token."),
    # What is wrong with the arguments as a whole is said without them.
    ("vault_variable", {"path": "v.yml", "name": "kept", "secret": NEW_TOKEN}, "state is present but all of"),
    ("fleet_report", {"titel": NEW_TOKEN}, "one of the following"),
    ("enroll", {"tokn": NEW_TOKEN}, "missing required arguments"),
    ("token_rotation", {"tokn": NEW_TOKEN}, "missing required arguments"),
]


def test_a_token_in_the_wrong_place_is_refused_by_every_action_and_not_shown(tmp_path: Path) -> None:
    tasks = [{f"{NAMESPACE}.{name}": arguments, "ignore_errors": True} for name, arguments, _says in MISPLACED]
    done = run_tasks(tmp_path, tasks, "-vvvvv", "--diff", ANSIBLE_DEBUG="1")
    assert done.ok, done.output
    for result, (name, _arguments, says) in zip(done.results, MISPLACED, strict=True):
        assert result["failed"], name
        assert says in result["msg"], name
    (tmp_path / "playbook.yml").unlink()
    assert NEW_TOKEN not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("name", "arguments", "says"), [case for case in MISPLACED if case[0] in dict(CASES)])
def test_a_module_without_its_action_refuses_a_token_in_the_wrong_place(
    name: str, arguments: dict[str, Any], says: str, tmp_path: Path
) -> None:
    done = run_module(name, arguments, tmp_path)
    assert not done.ok
    assert says in done.message
    assert NEW_TOKEN not in done.output


@pytest.mark.root
@pytest.mark.parametrize("fast", [True, False])
def test_a_user_who_may_not_read_what_was_sent_is_served(fast: bool, tmp_path: Path) -> None:
    """What few users need is imported late, when the process is the user's already."""
    folder = Path(tempfile.mkdtemp(prefix="homes-"))
    folder.chmod(0o755)
    with real_group() as group, real_user(group, folder) as user:
        (user.home / ".bashrc").write_text('. ~/more\nexport CLOUD_VOLUME_DIR="$HOME/data" NETRC=$HOME/mine\n')
        arguments = {"user": user.name, "token": NEW_TOKEN, "validate": False, "datastacks": ["minnie65_public"]}
        tasks: list[dict[str, Any]] = [
            {f"{NAMESPACE}.saved_token": arguments},
            {f"{NAMESPACE}.saved_token_info": {"users": [user.name]}},
        ]
        done = run_tasks(tmp_path, tasks, "-e", json.dumps({"caveclient_fast": fast}))
    shutil.rmtree(folder)
    assert done.ok, done.output


# Becoming root with a password ----------------------------------------------------------------------------------------


class Desk:
    """An ordinary user of this machine who becomes root with a password, and nobody else sees that."""

    def __init__(self, user: User, folder: Path) -> None:
        self.user = user
        self.folder = folder
        self.settings = copy_of_etc(folder)
        self.allow()
        shadow = self.settings / "shadow"
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
        ).stdout.strip()
        own = [
            f"{name}:{hashed}:{line.split(':', 2)[2]}"
            for line in shadow.read_text().splitlines()
            if (name := line.split(":")[0]) in ("root", user.name)
        ]
        shadow.write_text("\n".join(own) + "\n")
        shadow.chmod(0o600)

    def allow(self, *lines: str) -> None:
        """Let the user use sudo, with further lines in sudoers."""
        text = "\n".join(["root ALL=(ALL:ALL) ALL", f"{self.user.name} ALL=(ALL:ALL) ALL", *lines])
        sudoers = self.settings / "sudoers"
        sudoers.unlink(missing_ok=True)
        sudoers.write_text(f"{text}\n")
        sudoers.chmod(0o440)

    def play(self, tasks: list[dict[str, Any]], *arguments: str, **variables: Any) -> Run:
        """Run tasks by ``connection: local`` as the user: a run that hangs is ended."""
        python = python_for_all()
        playbook = self.user.home / "playbook.yml"
        told = {"ansible_python_interpreter": "/usr/bin/python3", "ansible_become_password": PASSWORD, **variables}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "become": True,
            "vars": told,
            "tasks": tasks,
        }
        playbook.write_text(json.dumps([play]))
        packages = os.pathsep.join(path for path in sys.path if "site-packages" in path)
        own = environment(self.user.home, PYTHONPATH=packages, ANSIBLE_TIMEOUT="60")  # su is slow on a busy machine
        script = (
            f"mount --bind {self.settings} /etc && "
            f'exec setpriv --reuid {self.user.uid} --regid {self.user.gid} --clear-groups timeout 170 "$@"'
        )
        words = ["unshare", "--mount", "sh", "-c", script, "sh", str(python), "-m", "ansible", "playbook", *arguments]
        done = subprocess.run(
            [*words, str(playbook)], cwd=self.user.home, env=own, capture_output=True, text=True, check=False
        )
        return Run(done.returncode, done.stdout + done.stderr, [])


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A desk, for as long as a test takes."""
    folder = Path(tempfile.mkdtemp(prefix="desk-"))
    folder.chmod(0o755)
    with real_group() as group, real_user(group, folder, "admin") as user:
        yield Desk(user, folder)
    shutil.rmtree(folder)


COMMAND = {"ansible.builtin.command": "id -un"}


@pytest.mark.root
@pytest.mark.parametrize("nopasswd", [False, True])
def test_sudo_with_a_password_works_as_for_any_module(nopasswd: bool, desk: Desk) -> None:
    if nopasswd:
        desk.allow(f"{desk.user.name} ALL=(ALL:ALL) NOPASSWD: ALL")
    done = desk.play([COMMAND, AUDIT, SAVE], place=str(desk.folder / "secrets"))
    assert done.ok, done.output
    assert list((desk.folder / "secrets").glob("*.json"))
    assert files_with(NEW_TOKEN, desk.user.home / ".ansible") == []


@pytest.mark.root
def test_su_works_as_for_any_module_and_takes_a_token_where_files_are_allowed(desk: Desk) -> None:
    place = str(desk.folder / "secrets")
    done = desk.play([COMMAND, AUDIT, SAVE], place=place, ansible_become_method="su")
    assert "ok=2" in done.output, done.output
    assert "become_method su has no pipelining. Use another one, such as sudo." in done.output
    assert not Path(place).exists()

    done = desk.play([COMMAND, SAVE], place=place, ansible_become_method="su", caveclient_allow_remote_files=True)
    assert done.ok, done.output
    assert files_with(NEW_TOKEN, desk.user.home / ".ansible") == []


@pytest.mark.root
def test_where_sudo_wants_a_terminal_that_is_named(desk: Desk) -> None:
    desk.allow("Defaults requiretty", f"{desk.user.name} ALL=(ALL:ALL) NOPASSWD: ALL")
    place = str(desk.folder / "secrets")
    done = desk.play([SAVE], place=place)
    assert not done.ok
    assert "sudo wants a terminal (requiretty). Remove requiretty" in done.output
    assert not Path(place).exists()
