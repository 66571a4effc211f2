# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands in a report are for the hosts that they are about."""

from __future__ import annotations

import shlex

import pytest
from report_samples import report_of, result

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.command import (
    completed,
    for_hosts,
    split,
    with_limit,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import problem_groups

PROVISION = "ansible-playbook connectomics.cave.provision --tags token"


@pytest.mark.parametrize(
    ("remedy", "limited"),
    [
        (PROVISION, "ansible-playbook -K connectomics.cave.provision --limit ws1 --tags token"),
        (
            "Ask why: ansible-playbook connectomics.cave.audit",
            "Ask why: ansible-playbook -K connectomics.cave.audit --limit ws1",
        ),
        ("ansible-playbook connectomics.cave.rotate", "ansible-playbook -K connectomics.cave.rotate"),
        ("ansible-playbook connectomics.cave.enroll", "ansible-playbook -K connectomics.cave.enroll"),
        ("sudo rm /srv/x", "sudo rm /srv/x"),
    ],
)
def test_a_remedy_for_a_host_names_it_unless_its_command_has_to_know_all_hosts(remedy: str, limited: str) -> None:
    assert for_hosts(completed(remedy, " -K"), ["ws1"]) == limited
    assert for_hosts(limited, ["ws1"]) == limited
    assert for_hosts(limited, []) == completed(remedy, " -K")


@pytest.mark.parametrize("host", ["lab pc 1", "a,b", "it's", "-x", "ws1:22"])
def test_a_host_with_an_odd_name_stays_one_word_of_the_command(host: str) -> None:
    words = shlex.split(for_hosts(PROVISION, [host]))
    assert words[:3] + words[4:] == ["ansible-playbook", "connectomics.cave.provision", "--limit", "--tags", "token"]
    assert for_hosts(for_hosts(PROVISION, [host]), []) == PROVISION


@pytest.mark.parametrize(("count", "limit"), [(1, " --limit ws1"), (3, " --limit ws1,ws2,ws3"), (9, "")])
def test_what_is_the_same_on_several_hosts_has_one_command_for_all_of_them(count: int, limit: str) -> None:
    hosts = [f"ws{number}" for number in range(1, count + 1)]
    stale = {"code": "stale", "path": "/home/alice/x.json", "message": "An old token."}
    report = report_of(
        {
            host: [result({"user": "alice", "problems": [{**stale, "remedy": for_hosts(PROVISION, [host])}]})]
            for host in hosts
        }
    )
    (group,) = problem_groups(report)
    assert group["remedy"] == f"ansible-playbook connectomics.cave.provision{limit} --tags token"
    assert group["example"] == ""


def test_the_command_for_what_is_not_done_is_whole_however_many_hosts_there_are() -> None:
    hosts = ",".join(f"workstation{number}.lab.example.org" for number in range(300))
    parts = split(["ansible-playbook", "connectomics.cave.verify"])
    assert shlex.split(with_limit(parts, hosts, Cleaner()))[-1] == hosts
