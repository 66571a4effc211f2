# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cave-doctor as a person runs it: one file, no Ansible, against the stand-in server."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pexpect
import pytest
from doctor_desk import DATASTACK, Desk
from homes import NEW_TOKEN, OLD_TOKEN, secrets_of
from interpreters import find_interpreters
from lab import Lab

from ansible_collections.connectomics.cave.plugins.module_utils._doctor import words
from ansible_collections.connectomics.cave.plugins.plugin_utils._doctor_file import MODULE_UTILS, build
from cave_server import CaveServer

YOURS, ADMINISTRATORS, CAVES = (words.EXIT_STATUS[whose] for whose in words.EXIT_STATUS)


@pytest.fixture
def desk(tmp_path: Path, cave: CaveServer) -> Desk:
    return Desk(tmp_path, cave.url)


def test_all_is_well_where_the_token_works(desk: Desk, cave: CaveServer) -> None:
    alice = cave.add_person("alice", permissions=[DATASTACK])
    desk.save(alice.token)

    done = desk.ask()

    assert (done.returncode, done.stderr) == (0, "")
    assert "alice" in done.stdout
    assert done.stdout.rstrip().endswith("All is well.")
    assert max(map(len, done.stdout.splitlines())) <= 80


MODES = {
    "plain": (),
    "json": ("--json",),
    "for the administrator": ("--ask-admin",),
    "offline": ("--offline",),
    "fix": ("--fix",),
    "token": ("token",),
    "help": ("--help",),
    "another server": ("--server", "http://127.0.0.1:1"),
    "another datastack": ("no_such_stack",),
    "wrong use": ("--no-such-option",),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", ["works", "dead", "server fails", "echoed"])
def test_a_token_is_in_nothing_that_is_printed_kept_or_sent_but_in_its_header(
    state: str, mode: str, desk: Desk, cave: CaveServer
) -> None:
    alice = cave.add_person("alice", permissions=[DATASTACK])
    tokens = [alice.token or "", OLD_TOKEN, NEW_TOKEN]
    desk.save(OLD_TOKEN if state == "dead" else tokens[0])
    (desk.secrets / "cave-secret.json").write_text(json.dumps({"token": OLD_TOKEN}))
    if state == "server fails":
        cave.set_fault("/", "status", status=500)
    if state == "echoed":
        cave.set_fault("/auth", "status", status=403, body=json.dumps({"error": tokens[0], "message": tokens[0]}))
    cave.clear_requests()

    done = desk.ask(
        *MODES[mode], answers=f"{NEW_TOKEN}\n" if mode == "token" else "y\n" * 5, CHUNKEDGRAPH_SECRET=NEW_TOKEN
    )

    said = done.stdout + done.stderr
    assert not [token for token in tokens if token in said]
    assert "Traceback" not in said
    assert {request["sent_in"] for request in cave.requests() if request["fingerprint"]} <= {"header"}
    assert not [request for request in cave.requests() if any(token in request["path"] for token in tokens)]
    elsewhere = [path for path in desk.home.parent.rglob("*") if path.is_file() and path.parent != desk.secrets]
    assert not [path for path in elsewhere if any(token.encode() in path.read_bytes() for token in tokens)]


def test_offline_no_server_is_asked(desk: Desk, cave: CaveServer) -> None:
    desk.save(OLD_TOKEN)
    cave.clear_requests()

    assert desk.ask("--offline").returncode == 0
    assert cave.requests() == []


def test_offline_a_home_without_a_token_is_not_well(desk: Desk) -> None:
    done = desk.ask("--offline")

    assert done.returncode == YOURS
    assert "run: cave-doctor token" in " ".join(done.stdout.split())
    assert "well" not in done.stdout


def test_what_cannot_be_fixed_by_itself_is_not_advised_to_be(desk: Desk, cave: CaveServer) -> None:
    desk.save(f"{cave.add_person('alice', permissions=[DATASTACK]).token}\r\n")

    done = desk.ask()

    assert done.returncode == YOURS
    assert "--fix" not in done.stdout
    assert "run: cave-doctor token" in " ".join(done.stdout.split())


@pytest.mark.parametrize("word", ["--offline", "--json", "--fix", DATASTACK])
def test_a_word_that_does_not_go_with_token_is_wrong_use(word: str, desk: Desk) -> None:
    done = desk.ask("token", word, answers=f"{NEW_TOKEN}\n")

    assert done.returncode == 2
    assert "goes with no other word" in done.stderr


def test_json_holds_what_a_report_holds_of_a_user(desk: Desk, cave: CaveServer) -> None:
    desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)

    told = json.loads(desk.ask("--json").stdout)

    (user,) = told["users"]
    assert (told["exit_status"], user["access"]["verdict"], user["access"]["token_kind"]) == (0, "ok", "key")
    assert {"readers", "files", "problems", "fingerprint"} <= set(user)


def test_a_token_of_a_browser_login_is_noticed(desk: Desk, cave: CaveServer) -> None:
    cave.add_person("alice", permissions=[DATASTACK])
    desk.save(cave.log_in("alice"))

    assert "ends by itself" in " ".join(desk.ask().stdout.split())


def test_a_token_is_asked_for_hidden_proven_and_saved_everywhere(desk: Desk, cave: CaveServer) -> None:
    alice = cave.add_person("alice", permissions=[DATASTACK])
    desk.save(OLD_TOKEN)

    terminal = desk.at_terminal("token")
    terminal.expect("Token .not shown.: ")
    terminal.sendline(alice.token)
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0
    assert alice.token not in str(terminal.before)
    assert desk.ask().returncode == 0
    assert OLD_TOKEN not in "".join(path.read_text() for path in secrets_of(desk.home).glob("*.json"))


def test_a_refused_token_leaves_the_files_untouched(desk: Desk, cave: CaveServer) -> None:
    path = desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)
    before = path.read_bytes()

    terminal = desk.at_terminal("token")
    terminal.expect("Token .not shown.: ")
    terminal.sendline(NEW_TOKEN)
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert (terminal.exitstatus, path.read_bytes()) == (YOURS, before)
    assert NEW_TOKEN not in str(terminal.before)


@pytest.mark.parametrize(
    "arguments", [(NEW_TOKEN,), ("token", NEW_TOKEN), ("--server", f"https://cave.example.org?token={NEW_TOKEN}")]
)
def test_a_token_on_the_command_line_is_sent_to_nobody_and_not_shown(
    arguments: tuple[str, ...], desk: Desk, cave: CaveServer
) -> None:
    done = desk.ask(*arguments)

    assert done.returncode == 2
    assert "run cave-doctor token" in done.stderr
    assert NEW_TOKEN not in done.stdout + done.stderr
    assert cave.requests() == []


def test_no_terminal_makes_it_end_with_a_traceback(desk: Desk, cave: CaveServer) -> None:
    """Not one of an old locale, not one that is gone, and not one that has nobody at it."""
    desk.save(cave.add_person("日本", permissions=[DATASTACK]).token)
    command = " ".join(desk._command("/usr/bin/python3"))

    ascii_only = desk.ask(PYTHONIOENCODING="ascii")
    gone, full, closed = (
        subprocess.run(
            ["bash", "-c", f"{command} {where}; exit ${{PIPESTATUS[0]}}"],
            env=desk.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        for where in ("| true", "> /dev/full", ">&-")
    )
    nobody = subprocess.run(
        ["setsid", "--wait", *desk._command("/usr/bin/python3", "token")],
        env=desk.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "\\u65e5" in ascii_only.stdout
    assert (ascii_only.returncode, gone.returncode, full.returncode, nobody.returncode) == (0, 130, 130, 130)
    assert closed.returncode == 0
    for done in (ascii_only, gone, full, closed, nobody):
        assert "Traceback" not in done.stderr


def test_fix_asks_before_each_change_and_clears_what_it_names(desk: Desk, cave: CaveServer) -> None:
    alice = cave.add_person("alice", permissions=[DATASTACK])
    path = desk.save(alice.token)
    path.chmod(0o644)
    (path.parent / "cave-secret.json").write_text(json.dumps({"token": OLD_TOKEN}))

    assert "loose_mode" in desk.ask().stdout
    declined = desk.ask("--fix")  # nobody says yes
    assert path.stat().st_mode & 0o777 == 0o644

    terminal = desk.at_terminal("--fix")
    while terminal.expect([r"\[y/N\] ", pexpect.EOF]) == 0:
        terminal.sendline("y")
    terminal.close()

    assert declined.returncode == YOURS
    assert terminal.exitstatus == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert desk.ask().stdout.rstrip().endswith("All is well.")


def test_an_administrator_gets_a_block_with_files_and_remedies(desk: Desk, cave: CaveServer) -> None:
    desk.save(cave.add_person("alice", permissions=[DATASTACK]).token).chmod(0o644)

    said = desk.ask("--ask-admin").stdout

    assert "cave-secret.json" in said
    assert "remedy: loose_mode: chmod 600" in said


def test_colours_are_for_terminals_that_want_them(desk: Desk) -> None:
    desk.save(OLD_TOKEN)

    terminal = desk.at_terminal("--offline")
    terminal.expect(pexpect.EOF)
    assert "\x1b[32m" in str(terminal.before)
    desk.environment["NO_COLOR"] = "1"
    plain = desk.at_terminal("--offline")
    plain.expect(pexpect.EOF)
    assert "\x1b" not in str(plain.before)
    assert "\x1b" not in desk.ask("--offline").stdout


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--server", "global.daf-apis.com"), "has no https:// in front"),
        (("--server", "https://global.daf-apis.com:99999"), "is not of the form"),
        (("--offline", "two words"), "is not the name of a datastack"),
    ],
)
def test_an_impossible_address_or_name_is_wrong_use(typed: tuple[str, ...], said: str, desk: Desk) -> None:
    done = desk.ask(*typed)

    assert said in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_it_runs_on_every_python_that_hosts_have(version: str, desk: Desk) -> None:
    python = find_interpreters().get(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    desk.save(OLD_TOKEN)
    desk.as_person = False  # who may not enter the folder of these Pythons

    done = desk.ask("--offline", python=str(python))

    assert (done.returncode, done.stderr) == (0, "")


def test_it_answers_offline_in_a_quarter_of_a_second(desk: Desk, cave: CaveServer) -> None:
    desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)

    def seconds() -> float:  # of processor time, which other work on the machine does not lengthen
        before = os.times()
        desk.ask("--offline")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _again in range(5)) <= 0.25


def test_the_program_has_all_that_its_parts_import() -> None:
    package = "ansible_collections.connectomics.cave.plugins.module_utils"
    place = package.replace(".", "/")
    with zipfile.ZipFile(io.BytesIO(build({"version": "0.1.0"}))) as program:
        parts = {name: program.read(name) for name in program.namelist() if name.startswith(place)}
    imported = set()
    for node in (node for text in parts.values() for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            imported |= {f"{name.replace('.', '/')}.py" for name in names}
    there = {f"{place}/{path.relative_to(MODULE_UTILS).as_posix()}" for path in MODULE_UTILS.rglob("*.py")}
    assert (imported & there) - parts.keys() == {f"{place}/_backends/client_check.py"}  # it asks without caveclient


def test_the_same_program_is_built_byte_for_byte() -> None:
    lab = {"version": "0.1.0", "server": "https://x.example.org", "datastacks": ["a", "b"]}

    assert build(lab) == build(dict(reversed(lab.items())))
    assert len(build(lab)) < 200_000


def test_the_program_holds_nothing_of_ansible_and_no_installer(tmp_path: Path) -> None:
    program = tmp_path / "cave-doctor"
    program.write_bytes(build({"version": "0.1.0"}))
    listed = subprocess.run(
        ["/usr/bin/python3", "-m", "zipfile", "-l", str(program)], capture_output=True, text=True, check=True
    ).stdout

    assert "_doctor/cli.py" in listed
    assert not any(name in listed for name in ("_environment", "_module.py", "_basic.py"))
    assert os.access(program, os.R_OK)


def test_provisioning_brings_the_doctor_with_the_labs_datastacks_and_once(tmp_path: Path, cave: CaveServer) -> None:
    lab = Lab(tmp_path, cave, ["ws1"])
    lab.offer_caveclient()
    program = tmp_path / "ws1" / "bin" / "cave-doctor"

    predicted = lab.play("provision", "--check")
    assert (predicted.ok, program.exists()) == (True, False), predicted.output
    first = lab.play("provision")
    assert first.ok, first.output
    assert program.stat().st_mode & 0o777 == 0o755
    assert DATASTACK.encode() in zipfile.ZipFile(program).read("__main__.py")

    environment = tmp_path / "ws1" / "opt" / "caveclient" / "current"
    for command in ([environment / "bin" / "cave-doctor"], [environment / "bin" / "python", "-I", "-m", "cave_doctor"]):
        told = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
        assert told.stdout.startswith("cave-doctor "), told.stderr
    assert "changed=0" in lab.play("provision").output
    (environment / "bin" / "cave-doctor").unlink()
    assert "changed=1" in lab.play("provision").output
    assert (environment / "bin" / "cave-doctor").exists()
    removed = lab.play("decommission", "--limit", "ws1", caveclient_decommission_environment=True)
    assert not program.exists(), removed.output
