# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of 60 real hosts cut in slices, three runners at once: the same as one runner, and the same report."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_run import Run, environment
from lab import Lab

from cave_server import CaveServer
from fleet import Fleet
from fleet.conftest import MakeFleet

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS, RUNNERS = 60, 3
BIN = Path(sys.executable).parent


class Runners:
    """A folder as ansible-runner wants it, for a fleet of which one host is switched off and one cannot reach CAVE."""

    def __init__(self, fleet: Fleet, cave: CaveServer, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.lab = Lab.of_fleet(fleet, cave, folder / "inventory", ["alice"])
        self.lab.variables["caveclient_timeout"] = 10
        self.lab.write_inventory()

    def run(self, name: str, playbook: str, *arguments: str) -> Run:
        """Let a runner run a playbook; its artifacts and its report have a name of their own."""
        report = f"caveclient_report={self.folder}/reports/{name}"
        command = [BIN / "ansible-runner", "run", self.folder, "--ident", name, "--playbook", playbook]
        done = subprocess.run(
            [*map(str, command), "--cmdline", shlex.join(["--forks", "20", "-e", report, *arguments])],
            cwd=self.folder,
            env=environment(
                self.folder,
                PATH=f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
                ANSIBLE_VAULT_PASSWORD_FILE=str(self.lab.folder / "password"),
            ),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr, [])

    def in_slices(self, playbook: str, *arguments: str) -> list[Run]:
        """Cut the fleet in slices, and let a runner at once work on each."""

        def work(number: int) -> Run:
            first, last = number * HOSTS // RUNNERS, (number + 1) * HOSTS // RUNNERS - 1
            slice_of_all = ("--limit", f"all[{first}:{last}]")
            return self.run(f"{playbook}-{number}", f"connectomics.cave.{playbook}", *slice_of_all, *arguments)

        with ThreadPoolExecutor(RUNNERS) as pool:
            return list(pool.map(work, range(RUNNERS)))

    def report(self, name: str) -> dict[str, Any]:
        """Return a report, but for how and when its runs were started, and which host of a run spoke for its users."""
        found: dict[str, Any] = json.loads((self.folder / "reports" / name / "report.json").read_bytes())
        del found["run"]
        for item in [found, *found["hosts"]]:
            del item["time"]
        for service in [item for host in found["hosts"] for user in host["users"] for item in user["services"]]:
            del service["with_token"]
        return found


@pytest.fixture
def runners(make_fleet: MakeFleet, tmp_path: Path) -> Iterator[Runners]:
    fleet = make_fleet(HOSTS)
    with CaveServer(tls=True, address=fleet.server_address) as cave:
        yield Runners(fleet, cave, tmp_path)


def test_a_fleet_in_slices_ends_as_with_one_runner_and_the_merged_report_is_that_of_one(runners: Runners) -> None:
    hosts = list(runners.fleet)
    hosts[7].inflict("down")
    hosts[33].inflict("cut_off")
    runs = runners.in_slices("provision", "--tags", "token")
    assert [run.ok for run in runs] == [False, False, True], "".join(run.output for run in runs)
    # down: nothing can be read there; cut off: nothing may have been written.
    saved = {
        host.name: runners.lab.token
        in host.run(["cat", "/home/alice/.cloudvolume/secrets/cave-secret.json"], check=False).stdout
        for host in hosts
        if host is not hosts[7]
    }
    without = [name for name, is_saved in saved.items() if not is_saved]
    assert without == [hosts[33].name], "".join(run.output for run in runs)

    assert [run.ok for run in runners.in_slices("verify")] == [False, False, True]
    assert not runners.run("single", "connectomics.cave.verify").ok
    reports = ",".join(f"{runners.folder}/reports/verify-{number}" for number in range(RUNNERS))
    merged = runners.run("merged", "connectomics.cave.merge_reports", "-e", f"caveclient_reports={reports}")
    assert not merged.ok
    assert runners.report("merged") == runners.report("single")
    assert runners.report("single")["counts"]["hosts"]["ok"] == HOSTS - 2
    pending = [(runners.folder / "reports" / name / "pending").read_text() for name in ("merged", "single")]
    assert pending == [f"{hosts[7].name}\n{hosts[33].name}\n"] * 2
