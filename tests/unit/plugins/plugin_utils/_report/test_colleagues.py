# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A token that two people of the inventory have is noticed, wherever they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import ok, report_of, result, unreachable

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.colleagues import other_accounts, shared_tokens

ALICES, OWN = "3fa9c2d1", "52c07a90"
ALICE = {"id": 3, "name": "Alice", "email": "alice@example.org"}


def saved(user: str, fingerprint: str = ALICES, **more: Any) -> dict[str, Any]:
    """A user's entry of saved_token."""
    return {
        "user": user,
        "server": "https://global.daf-apis.com:443",
        "changed": False,
        "fingerprint": fingerprint,
        "access": {"verdict": "ok", "person": ALICE},
        **more,
    }


def nobody(host: str, user: str) -> set[str]:
    """No entry names a person."""
    del host, user
    return set()


def test_a_token_of_two_users_is_named_with_all_their_hosts_whatever_text_names_the_server() -> None:
    report = report_of(
        {
            **{f"ws{number}": [result(saved("alice"))] for number in (1, 10, 2, 3, 4)},
            "hpc1": [result(saved("bob", access=None), saved("carol", OWN))],
            "hpc2": [result(ok("bob", person=None))],
            "off": [unreachable("off")],
        }
    )
    assert shared_tokens(report, nobody) == [
        "alice (ws1 to ws4, ws10) and bob (hpc1, hpc2) have one token, 3fa9c2d1, which is that of Alice. "
        "Give each their own, or name the account in person."
    ]


def test_one_user_on_many_hosts_is_the_usual_case_and_nobodys_entries_are_read() -> None:
    report = report_of({f"ws{number}": [result(saved("alice"), saved("bob", OWN))] for number in range(5)})

    def unread(host: str, user: str) -> set[str]:
        raise AssertionError((host, user))

    assert shared_tokens(report, unread) == []


@pytest.mark.parametrize(
    ("alices", "bobs", "noted"),
    [
        ({"alice@example.org"}, {"alice@example.org"}, False),
        ({"alice@example.org"}, {"alice"}, False),
        ({"alice@example.org"}, set(), True),
        ({"alice@example.org"}, {"bob@example.org"}, True),
        (set(), set(), True),
    ],
)
def test_whose_token_it_is_has_to_be_said_for_all_of_them_and_truly(
    alices: set[str], bobs: set[str], noted: bool
) -> None:
    report = report_of({"ws1": [result(saved("alice"))], "ws2": [result(saved("bob"))]})
    persons = {("ws1", "alice"): alices, ("ws2", "bob"): bobs}
    assert bool(shared_tokens(report, lambda host, user: persons[host, user])) is noted


def test_where_no_server_told_whose_it_is_what_the_entries_say_has_to_do() -> None:
    report = report_of({"ws1": [result(saved("alice", access=None), saved("bob", access=None))]})
    assert "which is that of one person" in shared_tokens(report, nobody)[0]
    assert shared_tokens(report, lambda _host, _user: {"alice@example.org"}) == []


PLACES = st.lists(st.tuples(st.sampled_from(["ws1", "ws2", "hpc"]), st.sampled_from("abc"), st.sampled_from("01")))


@given(st.data(), PLACES)
def test_the_order_of_hosts_does_not_matter_and_each_shared_token_is_named_once(
    data: st.DataObject, places: list[tuple[str, str, str]]
) -> None:
    tokens = {(host, user): token * 8 for host, user, token in places}
    hosts: dict[str, list[Any]] = {}
    for (host, user), token in tokens.items():
        hosts.setdefault(host, []).append(saved(user, token))
    notes = shared_tokens(report_of({host: [result(*users)] for host, users in hosts.items()}), nobody)
    mixed = {
        host: [result(*data.draw(st.permutations(hosts[host])))] for host in data.draw(st.permutations(list(hosts)))
    }
    assert shared_tokens(report_of(mixed), nobody) == notes
    users = {token: {user for (_host, user), own in tokens.items() if own == token} for token in tokens.values()}
    assert len(notes) == sum(len(found) > 1 for found in users.values())


def test_a_token_of_another_account_than_the_last_one_is_named_once_for_all_hosts() -> None:
    moved = saved("alice", account="bob@example.org", previous_account="alice@example.org")
    results: dict[str, list[Any]] = {
        **{f"ws{number}": [{"skipped": True}, result(moved)] for number in (1, 2, 3, 4)},
        "ws5": [result(saved("alice", account="alice@example.org", previous_account="alice@example.org"))],
        "ws6": [result(saved("alice", account="alice@example.org", previous_account=None)), None, "odd"],
    }
    assert other_accounts(results) == [
        "The token of alice is that of bob@example.org; the one that it replaced on ws1 to ws4 was that of "
        "alice@example.org. Is it a colleague's?"
    ]
