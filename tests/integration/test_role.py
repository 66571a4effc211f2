# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role adds to its modules: which of them run, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_run import Run, ansible
from package.conftest import PATH
from package.workstation import Workstations

from cave_server import CaveServer

VERIFY = "TASK [connectomics.cave.caveclient : Verify that the users' access works]"


class Lab:
    """One pretend workstation, with a caveclient that installs in no time and cannot ask a server."""

    def __init__(self, folder: Path, cave: CaveServer) -> None:
        self.stations = Workstations(folder, cave, "ws1")
        self._folder = folder
        inventory = self.stations.inventory(caveclient_tokens=self.stations.tokens())
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def provision(self, *arguments: str) -> Run:
        """Provision."""
        words = ("-i", "hosts.yml", "connectomics.cave.provision", *arguments)
        return ansible(self._folder, "playbook", *words, PATH=PATH)


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """A workstation with nothing on it."""
    return Lab(tmp_path, cave)


def test_a_check_of_an_empty_host_says_what_would_be_done_and_tries_nothing_that_is_not_there(lab: Lab) -> None:
    checked = lab.provision("--check", "-e", "caveclient_verify=client")
    assert checked.ok, checked.output
    assert "changed=2" in checked.output
    assert lab.stations.saved("ws1") == ""
    assert f"{VERIFY}\nskipping: [ws1]" in squeezed(checked)


def test_a_check_of_a_provisioned_host_tries_what_is_there(lab: Lab) -> None:
    assert lab.provision().ok
    checked = lab.provision("--check", "-e", "caveclient_verify=client")
    assert not checked.ok
    assert "changed=0" in checked.output
    assert "client_error" in checked.output  # of the caveclient that cannot ask


def test_two_switches_are_two_switches(lab: Lab) -> None:
    """What saves without asking the server leaves it to the verification to ask."""
    run = lab.provision("-e", "caveclient_validate=false", "-e", "caveclient_verify=api")
    assert run.ok, run.output
    assert f"{VERIFY}\nok: [ws1]" in squeezed(run)


def test_a_token_that_was_proven_on_the_way_is_not_asked_about_again(lab: Lab) -> None:
    assert f"{VERIFY}\nskipping: [ws1]" in squeezed(lab.provision())


def test_nobody_asks_when_both_switches_are_off(lab: Lab) -> None:
    run = lab.provision("-e", "caveclient_validate=false", "-e", "caveclient_verify=none")
    assert run.ok, run.output
    assert "(the server was not asked)" in run.output


def squeezed(run: Run) -> str:
    """Return what a run printed, without the lines of asterisks."""
    return run.output.replace(" *", "").replace("*", "")
