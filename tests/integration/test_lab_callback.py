# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on the screen with the stdout callback of the collection, at the end and while a run works."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import LIMIT, ansible, command, environment
from package.conftest import PATH
from package.workstation import Workstations

from cave_server import CaveServer

ROWS, COLUMNS = 40, 110
SETTINGS = {"ANSIBLE_STDOUT_CALLBACK": "connectomics.cave.lab", "ANSIBLE_FORKS": "8"}
RED = "\x1b[0;31m"


class Fleet:
    """30 workstations; five of them have a problem each: a dead token, no token, no account, no Python, no network."""

    def __init__(self, folder: Path, cave: CaveServer, hosts: int = 30) -> None:
        self.folder = folder
        names = [f"ws{number:02}" for number in range(1, hosts + 1)]
        self.stations = Workstations(folder, cave, *names)
        self.inventory = self.stations.inventory(caveclient_tokens=self.stations.tokens())
        self.hosts: dict[str, dict[str, Any]] = self.inventory["all"]["children"]["workstations"]["hosts"]
        for name in names:
            self.save(name, self.stations.person.token)

    def break_some(self) -> None:
        self.save("ws03", "0123456789abcdef0123456789abcdef")
        (self._secrets("ws07") / "cave-secret.json").unlink()
        self.hosts["ws12"] = {"caveclient_tokens": [{"user": "no-such-user-here", "token": "f" * 32}]}
        self.hosts["ws20"] = {"ansible_python_interpreter": "/no/such/python"}
        self.hosts["ws25"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}

    def _secrets(self, name: str) -> Path:
        return self.folder / name / "home" / ".cloudvolume" / "secrets"

    def save(self, name: str, token: str) -> None:
        self._secrets(name).mkdir(parents=True, mode=0o700, exist_ok=True)
        path = self._secrets(name) / "cave-secret.json"
        path.write_text(f'{{"token": "{token}"}}')
        path.chmod(0o600)

    def write(self) -> None:
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(self.inventory))

    def run(self, playbook: str, *arguments: str, settings: dict[str, str] | None = None) -> tuple[int, str]:
        self.write()
        words = ("-i", "hosts.yml", f"connectomics.cave.{playbook}", *arguments)
        done = ansible(self.folder, "playbook", *words, **{**SETTINGS, "PATH": PATH, **(settings or {})})
        return done.status, done.output


def on_a_terminal(folder: Path, *arguments: str, interrupt_at: str = "") -> tuple[int, str]:
    """Run ansible-playbook on a terminal of 110 by 40, and return its exit status and all that it printed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    settings = {name: value for name, value in environment(folder, **SETTINGS).items() if name != "ANSIBLE_NOCOLOR"}
    process = subprocess.Popen(
        command("playbook", *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**settings, "TERM": "xterm", "PATH": PATH},
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
        if interrupt_at and interrupt_at.encode() in printed:
            interrupt_at = ""
            process.send_signal(signal.SIGINT)
    os.close(ours)
    return process.wait(timeout=30), printed.decode().replace("\r\n", "\n")


def rows(text: str) -> int:
    """Return how many rows of the terminal a text takes."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return sum(max(1, -(-len(line) // COLUMNS)) for line in plain.splitlines())


@pytest.fixture
def fleet(tmp_path: Path, cave: CaveServer) -> Fleet:
    return Fleet(tmp_path, cave)


@pytest.fixture
def small(tmp_path: Path, cave: CaveServer) -> Fleet:
    return Fleet(tmp_path, cave, 3)


def test_the_report_of_30_hosts_with_5_problems_fits_one_screen_to_the_prompt(fleet: Fleet) -> None:
    fleet.break_some()
    fleet.write()
    status, output = on_a_terminal(
        fleet.folder, "-i", "hosts.yml", "connectomics.cave.verify", "-e", "caveclient_report=reports"
    )
    assert status == 2, output
    report = re.sub(r"\x1b\[[0-9;]*m", "", output)
    report = report[report.index("\nFAILED ") + 1 :]
    for host in ("ws03", "ws07", "ws12", "ws20", "ws25"):
        assert host in report
    assert "25 workstations ok" in report
    assert "PLAY RECAP" not in output
    assert rows(report) < ROWS, report


def test_red_is_only_what_is_wrong(fleet: Fleet) -> None:
    fleet.break_some()
    fleet.write()
    _status, output = on_a_terminal(fleet.folder, "-i", "hosts.yml", "connectomics.cave.verify")
    red = [line for line in output.splitlines() if RED in line]
    assert red
    for line in red:
        assert re.search(r"ws03|ws07|ws12|ws20|ws25|failed, 1 pending|FAILED|TOKENS|server refuses", line), line


def test_one_trouble_is_one_line_and_one_block(fleet: Fleet) -> None:
    fleet.break_some()
    status, output = fleet.run("verify")
    assert status == 2
    assert "fatal:" not in output
    assert "{" not in output
    for host in ("ws07", "ws12", "ws20"):
        assert len(re.findall(rf"^ +{host}: ", output, re.M)) == 1
    assert "27 hosts: ok" not in output.partition("FAILED")[2]
    assert re.search(r"^    2[0-9] hosts: ok$", output, re.M)


def test_diffs_that_are_the_same_are_printed_once(small: Fleet) -> None:
    for name in small.hosts:
        small.hosts[name] = {"ansible_python_interpreter": f"{small.folder}/ws01/python"}
    small.save("ws01", "0123456789abcdef0123456789abcdef")
    status, output = small.run("provision", "--tags", "token", "--check", "--diff")
    assert status == 0, output
    assert output.count("+++ after") == 1
    assert "(and the same on 2 more: " in output
    assert "ws02: would be changed" in output


def test_a_run_in_which_nothing_is_new_says_so_in_a_few_lines(small: Fleet) -> None:
    status, output = small.run("verify")
    assert status == 0
    assert output.strip().splitlines()[-1] == "3 workstations ok; 1 user"
    assert rows(output) < 10


def test_more_words_bring_ansibles_own_output_back(small: Fleet) -> None:
    status, output = small.run("verify", "-v")
    assert status == 0
    assert "PLAY RECAP" in output
    assert "TASK [" in output


def test_a_playbook_without_a_report_ends_in_counts_and_keeps_its_messages_whole(small: Fleet) -> None:
    message = "a long message " * 30
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.debug": {"msg": "to be read"}},
            {"ansible.builtin.fail": {"msg": message}, "when": "inventory_hostname == 'ws02'"},
        ],
    }
    (small.folder / "own.yml").write_text(yaml.safe_dump([play]))
    small.write()
    done = ansible(small.folder, "playbook", "-i", "hosts.yml", "own.yml", **SETTINGS)
    assert done.status == 2
    assert "ws01: to be read" in done.output
    assert message.strip() in done.output
    assert "3 hosts: 2 ok, 1 failed\nws02: failed, see above" in done.output


def test_an_interrupted_run_says_how_far_it_was(small: Fleet) -> None:
    slow = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Wait", "ansible.builtin.command": "sleep 60"}],
    }
    (small.folder / "slow.yml").write_text(yaml.safe_dump([slow]))
    small.write()
    status, output = on_a_terminal(small.folder, "-i", "hosts.yml", "slow.yml", interrupt_at="  Wait")
    assert status != 0
    assert 'Stopped in the task "Wait", after 0 hosts. No file was left half written' in output


@pytest.mark.parametrize("flag", ["--syntax-check", "--list-tasks"])
def test_what_runs_nothing_says_nothing_of_an_interruption(small: Fleet, flag: str) -> None:
    _status, output = small.run("verify", flag)
    assert "Stopped" not in output


def test_the_default_output_of_ansible_ends_in_a_true_recap(small: Fleet) -> None:
    small.hosts["ws02"] = {"caveclient_tokens": [{"user": "no-such-user-here", "token": "f" * 32}]}
    status, output = small.run("verify", settings={"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"})
    assert status == 2
    recap = output.partition("PLAY RECAP")[2]
    assert re.search(r"ws02 .* failed=1", recap)
    assert re.search(r"ws01 .* failed=0", recap)
    assert rows(recap) < 12
