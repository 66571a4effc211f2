# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fleet promises to the tests that stand on it."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_run import ROOT

from fleet import Fleet, Host
from fleet._network import Network

from .conftest import MakeFleet

pytestmark = [pytest.mark.root, pytest.mark.slow]


def ssh(fleet: Fleet, host: Host, command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command on a host by SSH, as `lab`."""
    argv = ["ssh", "-F", str(fleet.ssh_config), "-o", "ConnectTimeout=3", host.name, command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)


def traces(folder: Path, network: Network) -> list[str]:
    """Return what there is of a fleet on this machine: files, devices, routes, rules, mounts and processes."""
    found = [str(path) for path in [folder] if path.exists()]
    for what in (["ip", "-o", "link"], ["ip", "route", "show", "table", "all"], ["iptables-save"]):
        lines = subprocess.run(what, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in lines if network.bridge in line or str(network.subnet) in line]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in (entry / "mountinfo").read_text():
                found.append(str(entry))
        except OSError:
            continue
    return found


def test_umasks_hold_in_every_way_onto_a_host(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(6, umasks=("022", "077"))
    assert [host.umask for host in fleet] == ["022", "077"] * 3
    for host in fleet:
        assert host.run(["sh", "-c", "umask"], "alice").stdout == f"0{host.umask}\n"
        assert ssh(fleet, host, "umask").stdout == f"0{host.umask}\n"
        assert ssh(fleet, host, "sudo sh -c umask").stdout == f"0{host.umask}\n"
        assert ssh(fleet, host, "sudo -u alice sh -c umask").stdout == f"0{host.umask}\n"


def test_nothing_is_left_when_a_fleet_is_down(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    fleet.connect_to_index("ws001")
    for host, fault in zip(fleet, ("down", "hang", "full_disk"), strict=True):
        host.inflict(fault)
    network = fleet.network
    assert len(traces(fleet.folder, network)) > 10
    fleet.down()
    assert traces(fleet.folder, network) == []


@pytest.mark.parametrize("moment", ["starting", "up"])
def test_the_next_fleet_removes_what_a_killed_process_left(make_fleet: MakeFleet, tmp_path: Path, moment: str) -> None:
    name = f"pytest-{os.getpid()}-killed"
    block = f"with Fleet(12, name={name!r}): print('up', flush=True); time.sleep(60)"
    code = f"import time; from fleet import Fleet\n{block}"
    log = tmp_path / "log"
    with log.open("w") as output:
        victim = subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, cwd=ROOT / "tests")
        folder = Fleet(name=name).folder
        sign = folder / "ssh_config" if moment == "starting" else log
        while not (sign.exists() and sign.stat().st_size):
            assert victim.poll() is None, log.read_text()
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    network = Network(ipaddress.IPv4Network(json.loads((folder / "state.json").read_text())["subnet"]))
    assert traces(folder, network)
    make_fleet(1).down()
    assert traces(folder, network) == []


def test_the_processes_of_others_are_left_alone(make_fleet: MakeFleet) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "sleep", "60"]
    with subprocess.Popen(command) as stranger:
        make_fleet(1).down()
        assert stranger.poll() is None
        stranger.kill()
