# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From hosts that have Python and nothing else to scientists with access, over real SSH and sudo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_run import ROOT, Run
from lab import CA_FILE, Lab, recap

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.network]

PEOPLE = ("alice", "bob")
ASK = "import hashlib; from caveclient import CAVEclient; c = CAVEclient('minnie65_public'); " + (
    "print(hashlib.sha256(c.auth.token.encode()).hexdigest()[:8], c.server_address)"
)


def wheels(python: str) -> Path:
    """Return a folder with all wheels that a host of that Python needs, as somebody with an index would make it."""
    folder = ROOT / ".cache" / "wheels" / python
    if not (folder / ".complete").exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary=:all:"]
        command += [f"--python-version={python}", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"]
        subprocess.run([*command, "caveclient", "ipykernel"], check=True, timeout=300)
        (folder / ".complete").touch()
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three bare hosts, one of them without a way to an index, provisioned once."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(3, name="pytest-provision", users=PEOPLE, umasks=("022", "077")) as fleet,
        CaveServer(tls=True, address=fleet.server_address) as cave,
    ):
        with_index = [host.name for host in fleet if host.python != "3.11"]
        fleet.connect_to_index(*with_index)
        lab = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), PEOPLE)
        for host in fleet:
            if host.name not in with_index:
                lab.hosts[host.name] |= {
                    "caveclient_offline": True,
                    "caveclient_find_links": [str(wheels(host.python))],
                }
        yield lab


@pytest.fixture(scope="module")
def provisioned(lab: Lab) -> Run:
    """The first provisioning of the bare hosts."""
    return lab.play("provision", caveclient_verify="client")


def test_provision_brings_bare_hosts_to_working_access_on_every_python(provisioned: Run) -> None:
    assert provisioned.ok, provisioned.output
    assert "3 workstations ok" in provisioned.output


def test_a_second_provision_changes_nothing(lab: Lab, provisioned: Run) -> None:
    assert provisioned.ok
    again = lab.play("provision", caveclient_verify="client")
    assert again.ok, again.output
    changed = {host: counts["changed"] for host, counts in recap(again.output).items()}
    assert changed == dict.fromkeys(["localhost", *lab.hosts], 0)


def test_check_mode_after_it_predicts_no_change(lab: Lab, provisioned: Run) -> None:
    assert provisioned.ok
    check = lab.play("provision", "--check", "--diff")
    assert check.ok, check.output
    assert sum(counts["changed"] for counts in recap(check.output).values()) == 0


def test_each_user_has_the_own_token_by_the_real_caveclient_with_no_server_named(lab: Lab, provisioned: Run) -> None:
    assert provisioned.ok
    for host in lab.fleet:
        for user in PEOPLE:
            said = host.run(
                ["/opt/caveclient/current/bin/python", "-c", ASK],
                user,
                env={"REQUESTS_CA_BUNDLE": CA_FILE},
            ).stdout.split()
            assert said == [fingerprint(lab.persons[user].token), lab.cave.url]


def modes(host: Host, user: str) -> dict[str, str]:
    """Return mode and owner of a user's secrets directory and all in it, as that user sees them."""
    listing = host.run(["find", f"/home/{user}/.cloudvolume", "-printf", "%y %m %u %p\\n"], user).stdout
    return {
        path: f"{kind} {mode} {owner}" for kind, mode, owner, path in (line.split() for line in listing.splitlines())
    }


def test_files_are_0600_and_directories_0700_and_the_users_own_whatever_the_umask(lab: Lab, provisioned: Run) -> None:
    assert provisioned.ok
    assert {host.umask for host in lab.fleet} == {"022", "077"}
    for host in lab.fleet:
        for user in PEOPLE:
            found = {
                path: state for path, state in modes(host, user).items() if "/cache" not in path.removeprefix("/home")
            }
            wrong = {
                path: state
                for path, state in found.items()
                if state != (f"d 700 {user}" if state.startswith("d") else f"f 600 {user}")
            }
            assert wrong == {}
            assert len(found) >= 6


def test_everybody_finds_the_kernel_CAVE(lab: Lab, provisioned: Run) -> None:  # noqa: N802 - the kernel's name
    assert provisioned.ok
    for host in lab.fleet:
        kernel = json.loads(host.read_file("/usr/local/share/jupyter/kernels/cave/kernel.json", "bob"))
        assert kernel["display_name"] == "CAVE"
        assert host.run([kernel["argv"][0], "-c", "import ipykernel, caveclient"], "bob").returncode == 0
