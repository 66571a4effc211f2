# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages on a fleet of real SSH hosts: the report's first line says whose trouble it is, and stays one line."""

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
SERVICES = ("/materialize", "/segmentation", "/l2cache", "/skeletoncache", "/annotation")


class Story(NamedTuple):
    """What goes wrong, and what the report's first line says of it."""

    begin: Callable[[Lab, Host], Any]
    said: str
    options: Mapping[str, Any] = MappingProxyType({})


def fault(prefix: str, kind: str, **parameters: Any) -> Callable[[Lab, Host], Any]:
    return lambda lab, _host: lab.cave.set_fault(prefix, kind, **parameters)


def for_one_host(lab: Lab, host: Host) -> None:
    lab.cave.set_fault("/materialize", "status", status=503, client=host.address)


def without_name(_lab: Lab, host: Host) -> None:
    host.run(["sed", "-i", f"/{NAME}/d", "/etc/hosts"])


def another_address(_lab: Lab, host: Host) -> None:
    host.run(["sed", "-i", f"/{NAME}/d", "/etc/hosts"])
    host.run(["sh", "-c", f"echo 127.0.0.1 {NAME} >> /etc/hosts"])


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
        for_one_host, f"CAVE: materialize of {STACK} answers 503 from ws002; {HOSTS - 1} others are served"
    ),
    "no name on one host": Story(without_name, f"BLOCKED on ws002: {NAME}:"),
    "another address on one host": Story(another_address, f"BLOCKED on ws002: {NAME}:"),
    "all services": Story(all_down, f"CAVE: every service of {STACK} answers 502 from all {HOSTS} hosts"),
    "slow gateway": Story(
        fault("/skeletoncache", "hang"), f"CAVE: skeleton of {STACK} does not answer", {"caveclient_timeout": 10}
    ),
    "limit reached": Story(fault("/materialize/api/v2", "status", status=429), "CAVE: rate_limited: ws"),
    "auth hiccup": Story(hiccup, "refuse a token that the auth server accepts"),
    "info's own token": Story(
        lambda lab, _host: lab.cave.configure(without_token=["info"]), "CAVE: server_error: ws001 (alice), ws002"
    ),
    "permission withdrawn": Story(withdrawn, "missing_permission: ws001 (alice), ws002 (alice)"),
    "everything": Story(everything_down, "CAVE: server_error: ws001 (alice), ws002 (alice)"),
}


@pytest.fixture(scope="module")
def fleet_and_server() -> Iterator[tuple[Fleet, CaveServer]]:
    """Hosts, and a server that they know by two names: the auth server's address, and the local server's name."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name="pytest-services", users=("alice",)) as fleet,
        CaveServer(address=fleet.server_address) as cave,
    ):
        yield fleet, cave


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
    lab.cave.serve(STACK, f"http://{NAME}:{lab.cave.url.rpartition(':')[2]}")
    for host in lab.fleet:
        host.run(["sed", "-i", f"/{NAME}/d", "/etc/hosts"])
        host.run(["sh", "-c", f"echo {lab.fleet.server_address} {NAME} >> /etc/hosts"])
    story.begin(lab, lab.fleet["ws002"])
    run = lab.play("verify", **story.options)
    assert run.status == 2, run.output
    lines = run.output.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("FAILED "))
    end = next(number for number, line in enumerate(lines) if "workstation" in line and "ok" in line)
    report = lines[begin : end + 1]
    assert story.said in " ".join(" ".join(report[:3]).split()), run.output
    assert len(report) <= MOST_LINES + 2, "\n".join(report)
