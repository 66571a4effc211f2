# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages on a fleet of real SSH hosts: the report's first line says whose trouble it is, and stays one line.

Beside it runs what a scientist would, a notebook with the real caveclient: it fails exactly where the report says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from lab import STACK, Lab
from notebook import Shown, fails_by, run_notebook

from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 30
MOST_LINES = 8
"""Of the report, however many hosts there are."""
NAME = "local.cave.test"
SERVICES = ("/materialize", "/segmentation", "/l2cache", "/skeletoncache", "/annotation")
QUERY = f"""
from caveclient import CAVEclient
print(CAVEclient({STACK!r}).materialize.get_versions())
"""
WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


class Story(NamedTuple):
    """What goes wrong, and what the report's first line says of it."""

    begin: Callable[[Lab, Host], Any]
    said: str
    options: Mapping[str, Any] = MappingProxyType({})
    on_one: bool = False
    """Whether the others are served."""


def fault(prefix: str, kind: str, **parameters: Any) -> Callable[[Lab, Host], Any]:
    return lambda lab, _host: lab.cave.set_fault(prefix, kind, **parameters)


def for_one_host(lab: Lab, host: Host) -> None:
    lab.cave.set_fault("/materialize", "status", status=503, client=host.address)


def resolve(host: Host, address: str) -> None:
    """Let a host have this address for the local server; empty: none."""
    line = f"echo {address} {NAME} >> /etc/hosts" if address else "true"
    host.run(["sh", "-c", f"sed -i '/{NAME}/d' /etc/hosts; {line}"])


def without_name(_lab: Lab, host: Host) -> None:
    resolve(host, "")


def another_address(_lab: Lab, host: Host) -> None:
    resolve(host, "127.0.0.1")


def intercepted(lab: Lab, host: Host) -> None:
    """Let a proxy with an authority of its own answer to a host in the place of the local server."""
    resolve(host, lab.fleet.gateway)


def hiccup(lab: Lab, _host: Host) -> None:
    assert lab.play("verify", caveclient_services="none").ok  # the info service remembers the token
    lab.cave.configure(auth_hiccup=429)
    lab.play("verify", "--limit", "ws001")  # the services remember a refusal
    lab.cave.configure(auth_hiccup=0)


def withdrawn(lab: Lab, _host: Host) -> None:
    lab.cave.set_permissions("alice", [])


def all_down(lab: Lab, _host: Host) -> None:
    for prefix in SERVICES:
        lab.cave.set_fault(prefix, "status", status=502)


def everything_down(lab: Lab, _host: Host) -> None:
    lab.cave.set_fault("/", "status", status=502)


STORIES = {
    "one service for all": Story(
        fault("/materialize", "status", status=503), f"CAVE: materialize of {STACK} answers 503 from all {HOSTS} hosts"
    ),
    "one service for one host": Story(
        for_one_host, f"CAVE: materialize of {STACK} answers 503 from ws002; {HOSTS - 1} others are served", on_one=True
    ),
    "no name on one host": Story(without_name, f"BLOCKED on ws002: {NAME}:", on_one=True),
    "another address on one host": Story(another_address, f"BLOCKED on ws002: {NAME}:", on_one=True),
    "intercepted on one host": Story(intercepted, f"NOT TRUSTED on ws002: {NAME}:", on_one=True),
    "all services": Story(all_down, f"CAVE: every service of {STACK} answers 502 from all {HOSTS} hosts"),
    "slow gateway": Story(
        fault("/skeletoncache", "hang"), f"CAVE: skeleton of {STACK} does not answer", {"caveclient_timeout": 10}
    ),
    "limit reached": Story(fault("/materialize/api/v", "status", status=429), "CAVE: rate_limited: ws"),
    "auth hiccup": Story(hiccup, "refuse a token that the auth server accepts"),
    "info's own token": Story(
        lambda lab, _host: lab.cave.configure(without_token=["info"]), "CAVE: server_error: ws001 (alice), ws002"
    ),
    "permission withdrawn": Story(withdrawn, "missing_permission: ws001 (alice), ws002 (alice)"),
    "everything": Story(everything_down, "CAVE: server_error: ws001 (alice), ws002 (alice)"),
}


@pytest.fixture(scope="module")
def fleet_and_server() -> Iterator[tuple[Fleet, CaveServer]]:
    """Hosts, and a server that they know by two names: the auth server's address, and the local server's name.

    Where a proxy would listen that intercepts connections is another server, whose authority nobody trusts.
    """
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name="pytest-services", users=("alice",)) as fleet,
        CaveServer(tls=True, address=fleet.server_address, names=[NAME]) as cave,
        CaveServer(tls=True, address=fleet.gateway, port=port_of(cave), names=[NAME]),
    ):
        yield fleet, cave


def port_of(cave: CaveServer) -> int:
    return int(cave.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def lab(fleet_and_server: tuple[Fleet, CaveServer], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The lab, whose hosts have Alice's token."""
    fleet, cave = fleet_and_server
    lab = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), ["alice"])
    assert lab.play("provision", "--tags", "token").ok
    return lab


def query(lab: Lab, folder: Path, host: Host) -> Shown:
    """Run a notebook of Alice's in a host's network, with its names and with her files there."""
    place = folder / host.name
    shutil.copytree(host.root("/home/alice/.cloudvolume"), place / "home" / ".cloudvolume")
    (place / "hosts").write_text(host.read_file("/etc/hosts"))
    enter = ("nsenter", f"--target={host.pid}", "--net", "--", "unshare", "--mount")
    variables = {"HOME": str(place / "home"), "no_proxy": "*"}
    prefix = (*enter, "sh", "-c", WITH_HOSTS, str(place / "hosts"))
    return run_notebook(place / "jupyter", QUERY, variables=variables, prefix=prefix, ca_path=lab.cave.ca)


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_the_first_line_of_the_report_says_whose_trouble_it_is_and_a_notebook_agrees(
    lab: Lab, story: Story, tmp_path: Path
) -> None:
    token = lab.token
    lab.cave.reset()
    lab.cave.add_person("alice", [STACK], token=token)
    lab.cave.serve(STACK, f"https://{NAME}:{port_of(lab.cave)}")
    for host in lab.fleet:
        resolve(host, lab.fleet.server_address)
    story.begin(lab, lab.fleet["ws002"])

    lab.report = tmp_path / "reports"
    run = lab.play("verify", caveclient_report=str(lab.report), **story.options)

    assert run.status == 2, run.output
    lines = run.output.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("FAILED "))
    end = next(number for number, line in enumerate(lines) if "workstation" in line and "ok" in line)
    report = lines[begin : end + 1]
    assert story.said in " ".join(" ".join(report[:3]).split()), run.output
    assert len(report) <= MOST_LINES + 2, "\n".join(report)

    users = {name: host["users"][0] for name, host in lab.reported().items()}
    # What the services say to a person is asked once, from any of the hosts.
    to_alice = [item for user in users.values() for item in user.get("services") or () if item["with_token"]]
    tried = [lab.fleet["ws002"], lab.fleet["ws003"]] if story.on_one else [lab.fleet["ws002"]]
    with ThreadPoolExecutor() as pool:
        shown = list(pool.map(partial(query, lab, tmp_path), tried))
    for host, found in zip(tried, shown, strict=True):
        fails = fails_by(users[host.name], to_alice)
        assert bool(found.error) is fails, (host.name, found)
        assert ("[1, 2]" in found.text) is not fails, (host.name, found)
    assert not story.on_one or bool(shown[0].error) > bool(shown[1].error)
