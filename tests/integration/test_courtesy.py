# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The auth server is everybody's: how often a run asks it, by its own count. And what a long run says meanwhile."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_run import Run, run_tasks
from lab import USER, Lab

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

WORKSTATIONS = 4
PROOF = "/auth/api/v1/user/cache"
RECORD = "/info/api/v2/datastack/full/"


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    """Workstations with one person, who has access on all of them."""
    lab = Lab(tmp_path, cave, {f"ws{number}": "alice" for number in range(1, WORKSTATIONS + 1)})
    lab.save(lab.persons["alice"].token)
    return lab


def proofs(cave: CaveServer) -> Counter[str]:
    """Return how often the server was asked about each token (by fingerprint) since the last look."""
    asked = Counter(str(request["fingerprint"])[:8] for request in cave.requests(PROOF))
    cave.clear_requests()
    return asked


# The controller proves a new token before any host is touched.
BESIDES = 1
# The old token is asked about where it is found, and where it is replaced (is it the same person's?).
TWICE = 2


@pytest.mark.slow
def test_a_rotation_asks_once_for_every_host_and_new_token_and_for_the_record_once_in_all(lab: Lab) -> None:
    old = lab.persons["alice"].token
    new = lab.cave.refresh("alice")
    lab.write_vault({"vault_cave_token_alice": new})
    lab.cave.clear_requests()
    run = lab.rotate(strategy="cutover")
    assert run.ok, run.output
    asked = proofs(lab.cave)
    assert asked == {fingerprint(old): TWICE * WORKSTATIONS, fingerprint(new): WORKSTATIONS + BESIDES}

    again = lab.rotate(strategy="cutover")
    assert again.ok, again.output
    assert "changed=1" not in again.output
    assert proofs(lab.cave) == {fingerprint(new): WORKSTATIONS + BESIDES}


@pytest.mark.slow
def test_a_record_is_asked_for_once_a_run_from_here_or_by_the_first_host_where_only_a_host_can(lab: Lab) -> None:
    local_server = "https://local.lab.example"
    lab.cave.add_datastack("new_stack", local_server=local_server)
    lab.cave.set_permissions("alice", ["new_stack"])
    lab.variables["caveclient_datastacks"] = ["new_stack"]
    lab.cave.clear_requests()
    run = lab.play("provision", "--tags", "token")
    assert run.ok, run.output
    asked = [request["path"] for request in lab.cave.requests(RECORD)]
    assert asked == [f"{RECORD}new_stack"]
    for host in lab.hosts:
        assert (lab.secrets(host) / "local.lab.example-cave-secret.json").is_file(), host

    for host in lab.hosts:
        (lab.secrets(host) / "local.lab.example-cave-secret.json").write_text('{"token": "a-dead-one"}')
    lab.cave.clear_requests()
    without_vault = lab.play("audit", with_password=False, caveclient_report=str(lab.report))
    assert "a-dead-one" not in without_vault.output
    assert [request["path"] for request in lab.cave.requests(RECORD)] == [f"{RECORD}new_stack"]
    told = {
        name: [one["code"] for user in host["users"] for one in user["problems"]]
        for name, host in lab.reported().items()
    }
    assert all("stale" in codes for codes in told.values()), told
    assert len(told) == WORKSTATIONS


def pretend_fleet(folder: Path, count: int, tasks: list[dict[str, Any]], forks: int = 5, **variables: Any) -> Run:
    """Run tasks on this machine under many names."""
    names = [f"ws{number:03}" for number in range(count)]
    inventory = folder / "hosts"
    inventory.write_text("\n".join(names) + "\n")
    return run_tasks(
        folder,
        tasks,
        *("-i", str(inventory), "--forks", str(forks)),
        hosts="all",
        variables={"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **variables},
    )


@pytest.mark.slow
def test_no_more_than_the_rate_goes_out_in_a_second_from_all_hosts_together(cave: CaveServer, tmp_path: Path) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    arguments = {"user": USER, "token": person.token, "server": cave.url, "secrets_dir": str(tmp_path / "secrets")}
    cave.clear_requests()
    run = pretend_fleet(tmp_path, 5, [{"connectomics.cave.saved_token": {**arguments, "rate": 1}}])
    assert run.ok, run.output
    moments = sorted(request["time"] for request in cave.requests(PROOF))
    assert len(moments) == 5
    # A turn every second, four seconds in all, less what the first process took longer to start than the last.
    assert moments[-1] - moments[0] > 2


@pytest.mark.parametrize("rate", ["fast", -1])
def test_what_is_no_rate_is_refused_before_the_server_is_asked(cave: CaveServer, tmp_path: Path, rate: object) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    arguments = {"user": USER, "token": person.token, "server": cave.url, "secrets_dir": str(tmp_path / "secrets")}
    cave.clear_requests()
    run = pretend_fleet(tmp_path, 1, [{"connectomics.cave.saved_token": {**arguments, "rate": rate}}])
    assert not run.ok
    assert "rate must be a number of requests a second" in run.output
    assert cave.requests(PROOF) == []


@pytest.mark.slow
def test_a_large_fleet_is_told_how_far_it_is(tmp_path: Path) -> None:
    task = {"name": "Look", "connectomics.cave.saved_token_info": {"users": [USER]}}
    run = pretend_fleet(tmp_path, 51, [task])
    assert run.ok, run.output
    said = [line for line in run.output.splitlines() if line.startswith("Look: ")]
    assert said[0] == "Look: 6 of 51 hosts"
    assert said[-1] == "Look: 51 of 51 hosts"
    assert len(said) == 9
