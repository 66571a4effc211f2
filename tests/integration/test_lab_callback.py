# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on the screen with the stdout callback of the collection, at the end and while a run works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_run import COLUMNS, ROWS, command, environment, on_a_terminal, uncoloured
from lab import OFF, Lab
from package.conftest import PATH

from cave_server import CaveServer

SETTINGS = {"ANSIBLE_STDOUT_CALLBACK": "connectomics.cave.lab", "ANSIBLE_FORKS": "8"}
NOBODY = {"caveclient_tokens": [{"user": "no-such-user-here", "token": "f" * 32}]}
RED = "\x1b[0;31m"


def rows(text: str) -> int:
    """Return how many rows of the terminal a text takes."""
    return sum(max(1, -(-len(line) // COLUMNS)) for line in uncoloured(text).splitlines())


def lab_of(hosts: int, folder: Path, cave: CaveServer) -> Lab:
    lab = Lab(folder, cave, [f"ws{number:02}" for number in range(1, hosts + 1)])
    lab.save(lab.token)
    return lab


def broken_fleet(folder: Path, cave: CaveServer) -> Lab:
    """30 workstations; five of them have a problem each: a dead token, no token, no account, no Python, no network."""
    lab = lab_of(30, folder, cave)
    lab.save("0123456789abcdef0123456789abcdef", "ws03")
    for file in lab.secrets("ws07").iterdir():
        file.unlink()
    lab.hosts["ws12"] |= NOBODY
    lab.hosts["ws20"] |= {"ansible_python_interpreter": "/no/such/python"}
    lab.hosts["ws25"] |= OFF
    return lab


@pytest.fixture
def fleet(tmp_path: Path, cave: CaveServer) -> Lab:
    return broken_fleet(tmp_path, cave)


@pytest.fixture
def small(tmp_path: Path, cave: CaveServer) -> Lab:
    return lab_of(3, tmp_path, cave)


def typed(lab: Lab, *arguments: str, interrupt_at: str = "", **more: str) -> tuple[int, str]:
    """Run ansible-playbook on a terminal, with colours."""
    settings = environment(lab.folder, **SETTINGS, PATH=PATH, **more)
    del settings["ANSIBLE_NOCOLOR"]
    return on_a_terminal(command("playbook", *arguments), lab.folder, settings, interrupt_at)


def run(lab: Lab, playbook: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run a playbook with the callback; return its exit status and what it printed."""
    done = lab.play(playbook, *arguments, settings={**SETTINGS, **settings})
    return done.status, done.output


def test_the_report_of_30_hosts_with_5_problems_fits_one_screen_to_the_prompt(fleet: Lab) -> None:
    status, output = typed(fleet, *fleet.arguments("verify", caveclient_report="reports"))
    assert status == 2, output
    report = uncoloured(output)
    report = report[report.index("\nFAILED ") + 1 :]
    for host in ("ws03", "ws07", "ws12", "ws20", "ws25"):
        assert host in report
    assert "25 workstations ok" in report
    assert "PLAY RECAP" not in output
    assert rows(report) < ROWS, report


def test_red_is_only_what_is_wrong(fleet: Lab) -> None:
    _status, output = typed(fleet, *fleet.arguments("verify"))
    red = [line for line in output.splitlines() if RED in line]
    assert red
    for line in red:
        assert re.search(r"ws03|ws07|ws12|ws20|ws25|failed, 1 pending|FAILED|TOKENS|server refuses", line), line


def test_one_trouble_is_one_line_and_one_block(fleet: Lab) -> None:
    status, output = run(fleet, "verify")
    assert status == 2
    assert "fatal:" not in output
    assert "{" not in output
    for host in ("ws07", "ws12", "ws20"):
        assert len(re.findall(rf"^ +{host}: ", output, re.M)) == 1
    assert "27 hosts: ok" not in output.partition("FAILED")[2]
    assert re.search(r"^    2[0-9] hosts: ok$", output, re.M)


def test_diffs_that_are_the_same_are_printed_once(small: Lab) -> None:
    for name in small.hosts:
        small.hosts[name] |= {"ansible_python_interpreter": f"{small.folder}/ws01/python"}
    small.save("0123456789abcdef0123456789abcdef", "ws01")
    status, output = run(small, "provision", "--tags", "token", "--check", "--diff")
    assert status == 0, output
    assert output.count("+++ after") == 1
    assert "(and the same on 2 more: " in output
    assert "ws02: would be changed" in output


def test_a_run_in_which_nothing_is_new_says_so_in_a_few_lines(small: Lab) -> None:
    status, output = run(small, "verify")
    assert status == 0
    assert output.strip().splitlines()[-1] == "3 workstations ok; 1 user"
    assert rows(output) < 10


def test_more_words_bring_ansibles_own_output_back(small: Lab) -> None:
    status, output = run(small, "verify", "-v")
    assert status == 0
    assert "PLAY RECAP" in output
    assert "TASK [" in output


def test_a_playbook_without_a_report_ends_in_counts_and_keeps_its_messages_whole(small: Lab) -> None:
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
    status, output = run(small, "own.yml")
    assert status == 2
    assert "ws01: to be read" in output
    assert message.strip() in output
    assert "3 hosts: 2 ok, 1 failed\nws02: failed, see above" in output


def test_an_interrupted_run_says_how_far_it_was(small: Lab) -> None:
    slow = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Wait", "ansible.builtin.command": "sleep 60"}],
    }
    (small.folder / "slow.yml").write_text(yaml.safe_dump([slow]))
    patience = {"CONNECTOMICS_CAVE_LAB_PATIENCE": "0.5"}
    status, output = typed(small, *small.arguments("slow.yml"), interrupt_at="waiting for", **patience)
    assert status != 0
    stopped = output.partition('Stopped in the task "Wait", after 0 hosts; not done: ws')[2]
    assert "No file was left half written" in stopped
    assert "The same command does the rest." in stopped


def test_a_long_step_says_what_it_waits_for(small: Lab) -> None:
    tasks = [{"name": "Wait", "ansible.builtin.command": "sleep {{ 3 if inventory_hostname == 'ws02' else 0 }}"}]
    (small.folder / "slow.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    status, output = run(small, "slow.yml", CONNECTOMICS_CAVE_LAB_PATIENCE="0.5")
    assert status == 0, output
    assert re.search(r"^    waiting for ws02 \(\d s; 2 hosts done\)$", output, re.M), output


def test_a_playbook_that_is_begun_in_the_middle_ends_with_why_it_has_no_report(small: Lab) -> None:
    (small.folder / "site.yml").write_text(yaml.safe_dump([{"import_playbook": "connectomics.cave.verify"}]))
    status, output = run(small, "site.yml", "--start-at-task", "Verify that the users' access works")
    assert status == 2
    assert "FAILED   There is no report, as the play that prepares it did not run" in " ".join(output.splitlines())
    assert "--list-tags shows" in output


def test_a_run_without_a_task_does_not_say_ok(small: Lab) -> None:
    (small.folder / "site.yml").write_text(yaml.safe_dump([{"import_playbook": "connectomics.cave.verify"}]))
    _status, output = run(small, "site.yml", "--start-at-task", "no such task")
    assert "No task ran." in output
    assert " ok" not in output


@pytest.mark.parametrize("flag", ["--syntax-check", "--list-tasks"])
def test_what_runs_nothing_says_nothing_of_an_interruption(small: Lab, flag: str) -> None:
    _status, output = run(small, "verify", flag)
    assert "Stopped" not in output


def test_the_default_output_of_ansible_ends_in_a_true_recap(small: Lab) -> None:
    small.hosts["ws02"] |= NOBODY
    status, output = run(small, "verify", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    assert status == 2
    report, _heading, recap = output.partition("PLAY RECAP")
    assert re.search(r"ws02 .* failed=1", recap)
    assert re.search(r"ws01 .* failed=0", recap)
    assert rows(recap) < 12
    assert rows(report.rpartition("2 workstations ok, 1 failed")[2]) <= 6, "the report is next to the recap"


def test_an_interrupted_run_with_ansibles_own_output_says_what_that_means(small: Lab) -> None:
    slow, begun = small.folder / "slow", small.folder / "begun"
    slow.write_text(f"#!/bin/sh\ntouch {begun}\nexec sleep 60\n")
    slow.chmod(0o755)
    small.variables["ansible_python_interpreter"] = str(slow)
    settings = environment(small.folder, PATH=PATH)
    words = command("playbook", *small.arguments("verify"))
    status, output = on_a_terminal(words, small.folder, settings, interrupt_at=begun)
    assert status != 0
    assert "Interrupted. No file was left half written." in output
