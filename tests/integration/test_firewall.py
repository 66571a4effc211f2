# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``audit -e caveclient_audit_firewall=true``: what has to be let through, and where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import STACK, Lab, squeezed

from cave_server import CaveServer


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """Two workstations with Alice's token, of whose datastack the local server is the stand-in as well."""
    lab = Lab(tmp_path, cave, ["ws1", "ws2"])
    lab.save(lab.token)
    cave.serve(STACK)
    return lab


def test_what_the_records_lead_to_is_listed_and_what_is_blocked_is_named(lab: Lab) -> None:
    run = lab.play("audit", caveclient_audit_firewall=True)
    here = lab.cave.url.partition("//")[2]
    assert f"Let through: {here} (auth, services, segmentation); 2 of 2 hosts reach it." in squeezed(run), run.output
    assert "BLOCKED on all 2 hosts: images.example.org:443 (images): the name cannot be resolved" in squeezed(run)
    assert "BLOCKED on all 2 hosts: viewer.example.org:443 (viewer)" in squeezed(run)
    assert run.status == 2


def test_a_host_behind_a_proxy_that_does_not_answer_is_named(lab: Lab) -> None:
    python = lab.python("ws2")
    python.write_text(python.read_text().replace("exec ", "http_proxy=http://127.0.0.1:1 no_proxy= exec "))
    run = lab.play("audit", caveclient_audit_firewall=True)
    here = lab.cave.url.partition("//")[2]
    assert f"BLOCKED on ws2: {here} (auth, services, segmentation): connection refused" in squeezed(run), run.output
    assert "1 of 2 hosts reach it" in squeezed(run)


def test_no_token_is_sent_to_find_out_what_is_reached(lab: Lab) -> None:
    lab.play("audit", caveclient_audit_firewall=True)
    assert [request for request in lab.cave.requests() if request["method"] == "HEAD"]
    assert not [r for r in lab.cave.requests() if r["method"] == "HEAD" and r["fingerprint"]]


def test_an_audit_without_it_tries_nothing(lab: Lab) -> None:
    lab.cave.clear_requests()
    run = lab.play("audit")
    assert "Let through" not in run.output
    assert not [request for request in lab.cave.requests() if request["method"] == "HEAD"]
