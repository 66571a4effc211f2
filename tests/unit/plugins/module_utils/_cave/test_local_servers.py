# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Local servers as the records name them, with requests answered here."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave import local_servers
from ansible_collections.connectomics.cave.plugins.module_utils._cave.local_servers import (
    learn_local_servers,
    with_local_servers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import Datastack
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict

SERVER, LOCAL = "https://cave.lab.example", "https://local.lab.example"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens with which was asked; the server accepts the one that is good, and does not answer about slow."""
    tokens: list[str] = []

    def ask_record(server: str, datastack: str, token: str, **_limits: Any) -> Verdict:
        tokens.append(token)
        if datastack == "slow":
            return Verdict("unreachable", "", "", server)
        return Verdict(
            "ok" if token == "good" else "invalid_token", "", "", server, local_server=LOCAL if token == "good" else ""
        )

    monkeypatch.setattr(local_servers, "ask_record", ask_record)
    return tokens


def test_the_next_token_is_asked_with_where_the_first_is_dead(asked: list[str]) -> None:
    assert learn_local_servers({(SERVER, "mouse"): ["dead", "dead", "good", "other"]}) == {SERVER: {"mouse": LOCAL}}
    assert asked == ["dead", "good"]


def test_no_more_than_three_tokens_are_tried(asked: list[str]) -> None:
    assert learn_local_servers({(SERVER, "mouse"): ["one", "two", "three", "good"]}) == {}
    assert asked == ["one", "two", "three"]


def test_a_server_that_cannot_be_reached_is_asked_once(asked: list[str]) -> None:
    assert learn_local_servers({(SERVER, "slow"): ["one", "good"]}) == {}
    assert asked == ["one"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", LOCAL), ("https://mine.lab.example", "https://mine.lab.example")],
)
def test_what_the_user_says_counts_more_than_the_record(given: str, expected: str) -> None:
    (stack,) = with_local_servers(SERVER, [Datastack("mouse", given)], {SERVER: {"mouse": LOCAL}})
    assert stack.local_server == expected
