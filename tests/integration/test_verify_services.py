# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a datastack, asked by a fleet: without a token from every host, with one once for each person."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab, squeezed

from cave_server import CaveServer

HOSTS = ("ws1", "ws2", "ws3", "ws4")
OWN = ("/auth/", "/info/")
"""Paths that verify asks for each person on each host, services or not."""


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """Four workstations with Alice's token."""
    lab = Lab(tmp_path, cave, HOSTS)
    lab.save(lab.token)
    cave.clear_requests()
    return lab


def asked(lab: Lab) -> tuple[int, int]:
    """Return how many requests came without a token, and how many with one, and forget them."""
    requests = lab.cave.requests()
    with_token = [request for request in requests if request["fingerprint"]]
    assert {request["method"] for request in requests} == {"GET"}
    lab.cave.clear_requests()
    return len(requests) - len(with_token), len(with_token)


def test_a_fleet_asks_the_services_openly_from_each_host_and_with_the_token_once(lab: Lab) -> None:
    assert lab.play("verify", caveclient_services="none").status == 0
    nobodys, usual = asked(lab)
    assert nobodys == 0
    run = lab.play("verify")
    assert run.status == 0, run.output
    assert len(lab.cave.requests("/materialize/api/v2")) == 1
    openly, with_token = asked(lab)
    assert openly == 5 * len(HOSTS) + 1 <= 7 * len(HOSTS)
    assert with_token - usual <= 2 + 7


def test_reach_needs_no_token_for_the_services(lab: Lab) -> None:
    assert lab.play("verify", caveclient_services="reach").status == 0
    assert not [r for r in lab.cave.requests() if r["fingerprint"] and not r["path"].startswith(OWN)]
    assert asked(lab)[0] == 5 * len(HOSTS)


def test_every_person_is_asked_for(lab: Lab) -> None:
    lab.save(lab.cave.add_person("bob", ["minnie65_public"]).token, "ws3")
    run = lab.play("verify")
    assert run.status == 0, run.output
    askers = [request["fingerprint"] for request in lab.cave.requests("/annotation/api/v2")]
    assert len(askers) == len(set(askers)) == 2


def test_the_second_report_of_an_outage_says_since_when_it_lasts(lab: Lab) -> None:
    lab.cave.set_fault("/materialize", "status", status=503)
    report = str(lab.report)
    assert "hosts since" not in squeezed(lab.play("verify", caveclient_report=report))
    began = json.loads((lab.report / "report.json").read_text())["time"]
    for _later in range(2):
        said = squeezed(lab.play("verify", caveclient_report=report))
        assert f"answers 503 from all 4 hosts since {began[:10]} {began[11:16]} UTC: tokens and network work." in said
    lab.cave.clear_faults()
    assert lab.play("verify", caveclient_report=report).ok
    lab.cave.set_fault("/materialize", "status", status=503)
    assert "hosts since" not in squeezed(lab.play("verify", caveclient_report=report))
