# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages of services: one true line says whose trouble it is, however many hosts there are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    service_blocked_verdict,
    service_down_verdict,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import build_report
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.services import service_troubles
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import table

SERVER = "https://global.daf-apis.com"
LOCAL = "https://minnie.microns-daf.com"
STACK = "minnie65_public"
SERVICES = ("materialize", "chunkedgraph", "l2cache", "skeleton", "annotation")


def down(service: str, reason: str = "answers 503", *, with_token: bool = False) -> Verdict:
    return service_down_verdict(LOCAL, STACK, service, reason, 503)._replace(with_token=with_token)


def blocked(reason: str = "connection refused") -> Verdict:
    return service_blocked_verdict(LOCAL, STACK, reason)


def untrusted() -> Verdict:
    reason = "the server's certificate is not trusted"
    return Verdict("tls_error", "No.", server=LOCAL, datastack=STACK, service="all", reason=reason)


def result(*troubles: Verdict) -> dict[str, Any]:
    """Return what verify_access registers for a host with these troubles."""
    bad = {verdict.service for verdict in troubles}
    fine = () if "all" in bad else [name for name in SERVICES if name not in bad]
    told = [Verdict("ok", "", server=LOCAL, datastack=STACK, service=name) for name in fine]
    overall = troubles[0] if troubles else Verdict("ok", "It works.", server=SERVER)
    user = {
        "user": "alice",
        **overall._replace(server=SERVER).as_dict(),
        "fingerprint": "3fa9c2d1",
        "datastacks": [{"datastack": STACK, "verdict": "ok", "server": SERVER}],
        "services": [verdict.as_dict() for verdict in (*troubles, *told)],
    }
    return {"changed": False, "failed": bool(troubles), "users": [user], "verdict": overall.verdict}


def report(*results: dict[str, Any]) -> dict[str, Any]:
    hosts = {f"ws{number}": [found] for number, found in enumerate(results, 1)}
    return build_report("verify", hosts, time=datetime(2026, 11, 22, tzinfo=UTC), clean=Cleaner())


def sentences(*results: dict[str, Any]) -> list[str]:
    return [group["message"] for group in service_troubles(report(*results))]


def lines(*results: dict[str, Any]) -> list[str]:
    return [line.text for line in table(report(*results), 120)]


def test_an_outage_is_one_line_for_all_hosts() -> None:
    assert sentences(*[result(down("materialize"))] * 30) == [
        "CAVE: materialize of minnie65_public answers 503 from all 30 hosts: tokens and network work."
    ]


def test_services_that_fail_alike_are_in_one_line_and_others_in_another() -> None:
    both = result(down("materialize"), down("annotation"), down("skeleton", "answers with a web page"))
    assert sentences(both, both) == [
        "CAVE: materialize and annotation of minnie65_public answer 503 from all 2 hosts: tokens and network work.",
        "CAVE: skeleton of minnie65_public answers with a web page from all 2 hosts: tokens and network work.",
    ]


def test_what_some_hosts_alone_meet_names_them_and_counts_the_others() -> None:
    assert sentences(result(), result(down("materialize")), result(), result(down("materialize"))) == [
        "CAVE: materialize of minnie65_public answers 503 from ws2, ws4; 2 others are served."
    ]


def test_a_firewall_before_some_hosts_is_told_from_an_outage() -> None:
    assert sentences(*[result()] * 6, result(blocked()), result(), result(blocked())) == [
        "BLOCKED on ws7, ws9: minnie.microns-daf.com:443: connection refused; 7 others are not."
    ]
    (group,) = service_troubles(report(result(blocked()), result()))
    assert group["remedy"] == "Ask whoever runs the firewall."


def test_a_certificate_that_some_hosts_alone_do_not_trust_names_them_and_not_cave() -> None:
    assert sentences(result(), result(untrusted()), result()) == [
        "NOT TRUSTED on ws2: minnie.microns-daf.com:443: the server's certificate is not trusted; 2 others are served."
    ]
    (for_some,) = service_troubles(report(result(untrusted()), result()))
    (for_all,) = service_troubles(report(result(untrusted()), result(untrusted())))
    assert "Check on these hosts" in for_some["remedy"]
    assert "caveclient_ca_path" in for_all["remedy"]
    assert not any("tls_error" in line for line in lines(result(), result(untrusted())))


def test_a_server_that_no_host_reaches_may_be_either() -> None:
    (group,) = service_troubles(report(*[result(blocked())] * 3))
    assert group["message"] == "BLOCKED on all 3 hosts: minnie.microns-daf.com:443: connection refused."
    assert "CAVE is down" in group["remedy"]


def test_what_only_a_token_brings_to_light_is_compared_with_those_who_asked_with_one() -> None:
    asker = result(down("materialize", "answers 500", with_token=True))
    assert sentences(asker, result(), result()) == [
        "CAVE: materialize of minnie65_public answers 500 when asked with a token (from ws1): tokens and network work."
    ]


@pytest.mark.parametrize("times", [("5", "4.9", "4.75"), ("30", "30", "29.9")])
def test_how_much_time_was_left_on_each_host_makes_no_line_of_its_own(times: tuple[str, ...]) -> None:
    reasons = [f"does not answer: no complete answer within {time} s" for time in times]
    assert sentences(*[result(down("skeleton", reason)) for reason in reasons]) == [
        "CAVE: skeleton of minnie65_public does not answer: no complete answer in time from all 3 hosts: "
        "tokens and network work."
    ]


def test_many_hosts_are_named_in_brief() -> None:
    (sentence,) = sentences(*[result(down("materialize"))] * 20, result())
    assert "from ws1, ws2, ws3, ws4 and 16 more; 1 other is served." in sentence


@pytest.mark.parametrize("hosts", [2, 30, 300])
def test_the_report_begins_with_whose_trouble_it_is_and_does_not_grow_with_the_hosts(hosts: int) -> None:
    shown = lines(*[result(down("materialize"))] * hosts)
    assert shown[0].startswith(f"FAILED   CAVE: materialize of minnie65_public answers 503 from all {hosts} hosts")
    assert len(shown) == 3


def test_other_troubles_are_told_as_ever() -> None:
    lost = Verdict("missing_permission", "No permission.", "Ask for it.", LOCAL, STACK, service="chunkedgraph")
    shown = lines(result(lost), result(down("materialize")))
    assert shown[0].startswith("FAILED   CAVE: materialize")
    assert [line for line in shown if line.startswith("FAILED   missing_permission")]


def test_without_trouble_there_is_nothing_to_say() -> None:
    assert sentences(result(), result()) == []
    old = report(result(down("materialize")))
    for host in old["hosts"]:
        for user in host["users"]:
            del user["services"]  # a report of an earlier version
    assert service_troubles(old) == []
    assert table(old, 120)[0].text.startswith("FAILED   service_down: ws1")
