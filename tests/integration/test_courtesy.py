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
# The old token is asked about where it is found, and where it is replaced (is it the same person's?). The new one where
# it is saved, and once more for the records of datastacks whose local server is not publicly known.
TWICE = 2


@pytest.mark.slow
def test_a_rotation_asks_twice_at_most_for_every_host_and_token(lab: Lab) -> None:
    old = lab.persons["alice"].token
    new = lab.cave.refresh("alice")
    lab.write_vault({"vault_cave_token_alice": new})
    lab.cave.clear_requests()
    run = lab.rotate(strategy="cutover")
    assert run.ok, run.output
    asked = proofs(lab.cave)
    assert asked == {fingerprint(old): TWICE * WORKSTATIONS, fingerprint(new): TWICE * WORKSTATIONS + BESIDES}

    again = lab.rotate(strategy="cutover")
    assert again.ok, again.output
    assert "changed=1" not in again.output
    assert proofs(lab.cave) == {fingerprint(new): WORKSTATIONS + BESIDES}


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


def test_a_small_fleet_is_left_in_peace(tmp_path: Path) -> None:
    run = pretend_fleet(tmp_path, 2, [{"name": "Look", "connectomics.cave.saved_token_info": {"users": [USER]}}])
    assert run.ok, run.output
    assert "of 2 hosts" not in run.output
