# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's own recap and exit status say what the report says, and nothing done is no success."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_run import Run, ansible
from lab import OFF, WITH_PASSWORD, Lab, squeezed

from cave_server import CaveServer

NOBODY = {"caveclient_tokens": [{"user": "no-such-user-here", "token": "0123456789abcdef0123456789abcdef"}]}
PLAYBOOKS = ("provision", "verify", "audit")


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """Four hosts: ws1 and ws4 are fine, the user of ws2 does not exist, ws3 is off."""
    lab = Lab(tmp_path, cave, ["ws1", "ws2", "ws3", "ws4"])
    tokens = {"caveclient_tokens": lab.variables.pop("caveclient_tokens")}
    for host, more in {"ws1": tokens, "ws2": NOBODY, "ws3": tokens | OFF, "ws4": tokens}.items():
        lab.hosts[host] |= more
    lab.save(lab.token, "ws1", "ws4")
    return lab


def site(lab: Lab, *plays: object) -> str:
    """Write plays into one playbook, and return its name; a word is a playbook of the collection."""
    written = [{"import_playbook": f"connectomics.cave.{play}"} if isinstance(play, str) else play for play in plays]
    (lab.folder / "site.yml").write_text(yaml.safe_dump(written))
    return "site.yml"


def blamed(run: Run) -> list[str]:
    """Return the hosts that failed or were unreachable, by Ansible's recap."""
    lines = re.findall(r"^(\S+) +: ok=.* unreachable=(\d+) +failed=(\d+)", run.output.partition("PLAY RECAP")[2], re.M)
    assert lines, run.output
    return [host for host, unreachable, failed in lines if int(unreachable) + int(failed)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ANSIBLE_STRATEGY": "free"},
        {"ANSIBLE_ANY_ERRORS_FATAL": "true"},
        {"ANSIBLE_GATHERING": "implicit", "ANSIBLE_FORKS": "1"},
    ],
    ids=["plain", "free", "any_errors_fatal", "one_fork"],
)
def test_exactly_the_hosts_that_are_not_fine_fail(lab: Lab, settings: dict[str, str]) -> None:
    run = lab.play("verify", settings=settings)
    assert run.status == 2, run.output
    assert blamed(run) == ["ws2", "ws3"]


@pytest.mark.parametrize("limit", ["all", "ws1", "ws2,ws3"], ids=["some_wrong", "all_well", "all_wrong"])
def test_the_report_is_the_last_thing_above_the_recap(lab: Lab, limit: str) -> None:
    run = lab.play("verify", "--limit", limit)
    above = run.output.partition("PLAY RECAP")[0].rstrip().splitlines()
    last = [line for line in above if line.strip() and not line.startswith("NO MORE HOSTS LEFT")][-1]
    assert last.startswith("1 workstation ok" if limit == "ws1" else "Again for what is not done: "), run.output


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_limit_changes_nothing_about_whom_the_recap_blames(lab: Lab, playbook: str) -> None:
    arguments = (
        ["-e", "caveclient_audit_users=no-such-user-here"] if playbook == "audit" else ["--skip-tags", "install"]
    )
    run = lab.play(playbook, "--limit", "ws1,ws2,ws3", *arguments)
    assert run.status == 2, run.output
    assert "ws3" in blamed(run)
    assert "ws1" not in blamed(run) or playbook == "audit"


@pytest.mark.parametrize("pending_ok", [False, True])
def test_where_all_hosts_are_off_nothing_is_proven_and_nobody_is_said_to_lack_tokens(
    lab: Lab, pending_ok: bool
) -> None:
    run = lab.play("verify", "--limit", "ws3", "-e", f"caveclient_pending_ok={pending_ok}")
    assert run.status == 2, run.output
    assert blamed(run) == (["localhost"] if pending_ok else ["ws3"])
    assert "Name users and tokens" not in run.output


def test_a_host_that_may_be_pending_is_not_blamed(lab: Lab) -> None:
    run = lab.play("verify", "--limit", "ws1,ws3", "-e", "caveclient_pending_ok=true")
    assert run.status == 0, run.output
    assert blamed(run) == []


@pytest.mark.parametrize("limit", [[], ["--limit", "ws1,ws4"]], ids=["all", "limited"])
def test_a_report_that_cannot_be_written_is_no_success_and_the_table_is_there(lab: Lab, limit: list[str]) -> None:
    lab.hosts = {name: lab.hosts[name] for name in ("ws1", "ws4")}
    (lab.folder / "reports").write_text("in the way")
    run = lab.play("verify", "-e", "caveclient_report=reports", *limit)
    assert run.status == 2, run.output
    assert "2 workstations ok; 1 user" in run.output
    assert "FAILED   The folder reports cannot be made: File exists." in run.output
    assert blamed(run) == ["localhost"]


def test_what_an_earlier_play_rescued_is_not_this_runs_failure(lab: Lab) -> None:
    rescued = {
        "hosts": "ws1",
        "gather_facts": False,
        "tasks": [
            {
                "block": [{"ansible.builtin.fail": {"msg": "tried"}}],
                "rescue": [{"ansible.builtin.debug": {"msg": "well, then"}}],
            }
        ],
    }
    run = lab.play(site(lab, rescued, "verify"), "--limit", "ws1")
    assert run.status == 0, run.output
    assert blamed(run) == []


def test_a_playbook_does_not_report_what_another_one_found(lab: Lab) -> None:
    """The second one fails before the task that it reports."""
    broken = {"import_playbook": "connectomics.cave.provision", "vars": {"caveclient_verify": "nonsense"}}
    run = lab.play(site(lab, "verify", broken), "--limit", "ws1")
    assert run.status == 2, run.output
    assert blamed(run) == ["ws1"]
    assert "1 workstation ok; 1 user" in run.output
    assert "0 workstations ok, 1 failed; 0 users" in run.output


def test_the_rest_of_a_site_goes_on_with_the_hosts_that_are_fine(lab: Lab) -> None:
    after = {"hosts": "ws1,ws2", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "after"}}]}
    run = lab.play(site(lab, "verify", after))
    assert run.status == 2, run.output
    tail = run.output.partition("Fail the hosts")[2]
    assert re.search(r'ok: \[ws1\] => {\s+"msg": "after"', tail)
    assert not re.search(r"ok: \[ws2\]", tail)


def test_tools_that_read_the_statistics_see_what_the_report_says(lab: Lab) -> None:
    settings = {"ANSIBLE_CALLBACKS_ENABLED": "tell", "ANSIBLE_CALLBACK_PLUGINS": str(lab.folder)}
    (lab.folder / "tell.py").write_text(
        "from ansible.plugins.callback import CallbackBase\n"
        "class CallbackModule(CallbackBase):\n"
        "    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, 'notification', 'tell'\n"
        "    CALLBACK_NEEDS_ENABLED = True\n"
        "    def v2_playbook_on_stats(self, stats):\n"
        "        print('BLAMED', sorted({*stats.failures, *stats.dark}))\n"
    )
    assert "BLAMED ['ws2', 'ws3']" in lab.play("verify", settings=settings).output


# Nothing done is no success -------------------------------------------------------------------------------------------


def test_hosts_without_tokens_are_left_alone_and_named(lab: Lab) -> None:
    lab.hosts = {"ws1": lab.hosts["ws1"], "fs1": {}}
    run = lab.play("verify")
    assert run.status == 0, run.output
    assert "NOTE     Left alone, without caveclient_tokens: fs1." in run.output
    assert not re.search(r"^fs1 +: ok=", run.output, re.M)


@pytest.mark.parametrize(
    ("playbook", "arguments", "line"),
    [
        (
            "provision",
            ["-e", "caveclient_hosts=xyz"],
            "caveclient_hosts=xyz matches no host. ansible-inventory --graph",
        ),
        (
            "audit",
            ["-e", "caveclient_hosts=ws9", "--limit", "ws1"],
            "caveclient_hosts=ws9 matches no host within --limit",
        ),
        (
            "audit",
            ["-e", "caveclient_hosts=ws1,wsl"],
            "caveclient_hosts=ws1,wsl: wsl is no host or group of the inventory.",
        ),
        (
            "rotate",
            ["-e", "caveclient_hosts=all:!fsl"],
            "all:!fsl: fsl is no host or group of the inventory. Did you mean fs1",
        ),
        (
            "provision",
            ["-e", '{"caveclient_hosts": ["ws1", "~fs[2-9]"]}'],
            "ws1,~fs[2-9]: ~fs[2-9] is no host or group",
        ),
        ("verify", ["--limit", "fs1"], "No host within --limit fs1 has caveclient_tokens."),
        ("verify", ["-e", "caveclient_hosts=fs1"], "Nothing is proven: no host has a user"),
        ("verify", ["--tags", "x"], "No task ran: --tags x leaves none. This playbook has no tags."),
    ],
)
def test_nothing_done_is_no_success(lab: Lab, playbook: str, arguments: list[str], line: str) -> None:
    lab.hosts = {"ws1": lab.hosts["ws1"], "fs1": {}}
    run = lab.play(playbook, *arguments)
    assert run.status == 2, run.output
    assert line in squeezed(run)


def test_a_rotation_whose_tags_leave_no_task_leaves_nothing_to_finish(lab: Lab) -> None:
    lab.variables["caveclient_report"] = "reports"
    assert lab.play("rotate", "--tags", "x").status == 2
    run = lab.play("verify")
    assert "A rotation is not finished" not in squeezed(run)
    assert not (lab.folder / "reports" / "pending.rotate").exists()


def test_a_name_in_the_limit_that_no_host_has_is_no_success(lab: Lab) -> None:
    run = lab.play("verify", "--limit", "ws1,wsz,!nosuch")
    assert run.status == 2, run.output
    assert "FAILED --limit ws1,wsz,!nosuch: wsz is no host or group of the inventory." in squeezed(run)
    assert "nosuch is no host" not in squeezed(run)


@pytest.mark.parametrize("pattern", ["ws*[0]", "ws?", "~ws[12]$:!fs1", "all:&ws1:!fs1", ["ws1"]])
def test_caveclient_hosts_is_a_pattern_or_a_list(lab: Lab, pattern: str | list[str]) -> None:
    lab.hosts = {"ws1": lab.hosts["ws1"], "fs1": {}}
    run = lab.play("verify", "-e", json.dumps({"caveclient_hosts": pattern}))
    assert run.status == 0, run.output
    assert "1 workstation ok; 1 user" in run.output


def test_a_host_with_nobody_to_ask_is_named(lab: Lab) -> None:
    lab.hosts = {"ws1": lab.hosts["ws1"], "ws4": {"caveclient_tokens": [{"user": "mallory", "state": "absent"}]}}
    run = lab.play("verify")
    assert run.status == 0, run.output
    assert "NOTE     Nobody was asked about on ws4." in run.output


def test_caveclient_hosts_may_be_this_machine_without_an_inventory(lab: Lab) -> None:
    variables = {
        **lab.variables,
        **lab.hosts["ws1"],
        "ansible_python_interpreter": f"{lab.folder}/ws1/python",
    }
    (lab.folder / "vars.json").write_text(json.dumps({**variables, "caveclient_hosts": "localhost"}))
    run = ansible(lab.folder, "playbook", "connectomics.cave.verify", "-e", "@vars.json")
    assert run.status == 0, run.output
    assert "1 workstation ok; 1 user" in run.output


def test_the_collections_own_variables_are_known(lab: Lab) -> None:
    assert "is no variable of this collection" not in lab.play("verify", "--limit", "ws1").output


def test_a_list_of_hosts_does_not_need_a_run(lab: Lab) -> None:
    run = lab.play("verify", "--list-hosts")
    assert run.status == 0, run.output
    assert "ws1" in run.output


@pytest.mark.parametrize("playbook", ["verify", "rotate"])
def test_hosts_are_worked_on_whatever_characters_are_in_their_names(lab: Lab, playbook: str) -> None:
    names = {"ws1": "lab pc 1", "ws4": "ws[4],x"}
    everybodys = {**lab.variables, **lab.hosts["ws1"]}
    hosts = {
        odd: {**everybodys, "ansible_python_interpreter": str(lab.python(name)), "caveclient_path": f"{lab.folder}/opt"}
        for name, odd in names.items()
    }
    (lab.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": [*hosts]}, "_meta": {"hostvars": hosts}}))
    (lab.folder / "hosts.sh").write_text('#!/bin/sh\ncat "$(dirname "$0")/hosts.json"\n')
    (lab.folder / "hosts.sh").chmod(0o755)
    if playbook == "rotate":
        lab.store(alice=lab.cave.make_token("alice"))
    words = ["-i", "hosts.sh", *WITH_PASSWORD, f"connectomics.cave.{playbook}", "-e", "caveclient_report=reports"]
    run = ansible(lab.folder, "playbook", *words, "--limit", "lab*")
    assert run.ok == (playbook == "verify"), run.output
    if playbook == "rotate":
        assert (lab.report / "pending").read_text() == "ws[4],x\n"
        assert re.search(r"^ws\[4\],x +: ok=1 .* failed=1 ", run.output, re.M), run.output
    whole = ansible(lab.folder, "playbook", *words)
    assert whole.ok, whole.output
    assert "2 workstations ok" in whole.output
    assert [lab.saved(name) for name in names] == [lab.stored()] * 2
