# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages that hosts meet differently, on a fleet of real SSH hosts: one line of the report says whose trouble it is.

That a notebook fails exactly where verify says so: tests/integration/test_outages.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from lab import STACK, Lab

from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 30
MOST_LINES = 8
"""Of the report, however many hosts there are."""
NAME = "local.cave.test"


class Story(NamedTuple):
    """What goes wrong, and what the report's first line says of it."""

    begin: Callable[[Lab, Host], Any]
    said: str
    options: Mapping[str, Any] = MappingProxyType({})


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


STORIES = {
    "one service for all": Story(
        fault("/materialize", "status", status=503), f"CAVE: materialize of {STACK} answers 503 from all {HOSTS} hosts"
    ),
    "one service for one host": Story(
        for_one_host, f"CAVE: materialize of {STACK} answers 503 from ws002; {HOSTS - 1} others are served"
    ),
    "no name on one host": Story(without_name, f"BLOCKED on ws002: {NAME}:"),
    "another address on one host": Story(another_address, f"BLOCKED on ws002: {NAME}:"),
    "intercepted on one host": Story(intercepted, f"NOT TRUSTED on ws002: {NAME}:"),
    "slow gateway": Story(
        fault("/skeletoncache", "hang"), f"CAVE: skeleton of {STACK} does not answer", {"caveclient_timeout": 10}
    ),
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


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_the_first_line_of_the_report_says_whose_trouble_it_is(lab: Lab, story: Story) -> None:
    token = lab.token
    lab.cave.reset()
    lab.cave.add_person("alice", [STACK], token=token)
    lab.cave.serve(STACK, f"https://{NAME}:{port_of(lab.cave)}")
    for host in lab.fleet:
        resolve(host, lab.fleet.server_address)
    story.begin(lab, lab.fleet["ws002"])

    run = lab.play("verify", **story.options)

    assert run.status == 2, run.output
    lines = run.output.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("FAILED "))
    end = next(number for number, line in enumerate(lines) if "workstation" in line and "ok" in line)
    report = lines[begin : end + 1]
    assert story.said in " ".join(" ".join(report[:3]).split()), run.output
    assert len(report) <= MOST_LINES + 2, "\n".join(report)
