# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host asks the services for all that have the token."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._services_once import merged, questions_left

SERVER = "https://global.daf-apis.com"
LOCAL = "https://minnie.microns-daf.com"
STACK = "minnie65_public"


def user(name: str = "alice", fingerprint: str = "3fa9c2d1", verdict: str = "ok", **more: Any) -> dict[str, Any]:
    stacks = [{"datastack": STACK, "verdict": verdict, "server": SERVER}]
    return {
        "user": name,
        "verdict": verdict,
        "server": SERVER,
        "fingerprint": fingerprint,
        "datastacks": stacks,
        **more,
    }


def service(name: str, verdict: str = "ok", **more: Any) -> dict[str, Any]:
    return {"service": name, "datastack": STACK, "server": LOCAL, "verdict": verdict, **more}


def test_a_token_is_asked_about_by_the_host_that_claims_it() -> None:
    claimed: set[str] = set()

    def claim(name: str) -> bool:
        is_new = name not in claimed
        claimed.add(name)
        return is_new

    first = questions_left({"users": [user()]}, ["alice"], claim)
    assert first == [{"user": "alice", "server": SERVER, "datastacks": [STACK]}]
    assert questions_left({"users": [user("shared")]}, ["shared"], claim) == []
    assert questions_left({"users": [user("bob", "00000000")]}, ["bob"], claim) != []


def test_options_of_a_user_are_kept() -> None:
    holder = {"user": "alice", "server": f"{SERVER}/", "key": "banc", "datastacks": [STACK, "another"]}
    left = questions_left({"users": [user()]}, [{"user": "bob"}, holder], lambda _name: True)
    assert left == [{"user": "alice", "server": SERVER, "key": "banc", "datastacks": [STACK]}]


def test_nobody_asks_about_what_does_not_work_anyhow() -> None:
    claims: list[str] = []
    users = [
        user(verdict="missing_tos"),
        user("bob", services=[service("all", "service_blocked")]),
        {"user": "carol", "verdict": "client_error", "server": SERVER, "datastacks": []},
    ]
    assert questions_left({"users": users}, ["alice", "bob", "carol"], lambda name: not claims.append(name)) == []  # type: ignore[func-returns-value]
    assert claims == []


def test_results_are_joined_service_by_service() -> None:
    first = {"changed": False, "verdict": "ok", "users": [user(services=[service("materialize", version="5.26.4")])]}
    told = user(services=[service("materialize"), service("annotation")], token_kind="key")
    (found,) = merged(first, {"users": [told]})["users"]
    assert found["services"] == [service("materialize", version="5.26.4"), service("annotation")]
    assert (found["verdict"], found["token_kind"]) == ("ok", "key")


def test_the_worse_verdict_counts_and_says_why() -> None:
    first = {"changed": False, "verdict": "ok", "users": [user(), user("bob")]}
    bad = user(services=[service("materialize", "service_down")])
    second = {
        "failed": True,
        "msg": "it is down",
        "users": [{**bad, "verdict": "service_down", "message": "it is down"}],
    }
    result = merged(first, second)
    assert (result["verdict"], result["failed"], result["msg"]) == ("service_down", True, "it is down")
    assert [item["verdict"] for item in result["users"]] == ["service_down", "ok"]
    assert result["users"][0]["message"] == "it is down"


def test_what_was_wrong_before_is_not_forgotten() -> None:
    first = {
        "failed": True,
        "msg": "blocked",
        "verdict": "invalid_token",
        "users": [user("bob", verdict="invalid_token"), user()],
    }
    result = merged(first, {"users": [user(services=[service("annotation")])]})
    assert (result["verdict"], result["failed"], result["msg"]) == ("invalid_token", True, "blocked")


def test_a_second_run_that_failed_altogether_is_a_failure_that_leaves_the_first_result() -> None:
    first = {"changed": False, "verdict": "ok", "users": [user()]}
    result = merged(first, {"failed": True, "msg": "no connection"})
    assert result == {**first, "failed": True, "msg": "no connection"}
