# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One build for the hosts of a kind, over real SSH and sudo, with the real caveclient and no index on the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab, recap

from cave_server import CaveServer

from .conftest import MakeFleet
from .test_provision import wheels

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.network]


def test_the_hosts_of_a_kind_take_one_build_and_a_host_of_another_kind_makes_its_own(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fleet = make_fleet(3, pythons=("3.11", "3.11", "3.13"), users=("alice",))
    with CaveServer(tls=True, address=fleet.server_address) as cave:
        lab = Lab.of_fleet(fleet, cave, tmp_path / "lab", ("alice",))
        lab.variables |= {"caveclient_offline": True, "caveclient_build_once": True}
        for host in fleet:
            lab.hosts[host.name]["caveclient_find_links"] = [str(wheels(host.python))]
        done = lab.play("provision", "-v", "--tags", "install")
        again = lab.play("provision", "--tags", "install")

    assert done.ok, done.output
    builds: dict[str, set[str]] = {host.python: set() for host in fleet}
    for host in fleet:
        prefix = host.run(
            ["/opt/caveclient/current/bin/python", "-c", "import caveclient, sys; print(sys.prefix)"], "alice"
        ).stdout
        assert prefix.startswith("/opt/caveclient/builds/")
        builds[host.python].add(prefix)
        assert host.run(["find", "/", "-xdev", "-name", "*.archive", "-o", "-xdev", "-name", "*.work"]).stdout == ""
    assert {python: len(found) for python, found in builds.items()} == {"3.11": 1, "3.13": 1}
    assert done.output.count('"taken_from"') == 1
    assert again.ok, again.output
    assert {counts["changed"] for counts in recap(again.output).values()} == {0}, again.output
