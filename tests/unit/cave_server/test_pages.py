# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person does in a browser."""

from __future__ import annotations

import pytest
import requests

from cave_server import CaveServer

TOKENS = "/sticky_auth/settings/tokens"


@pytest.fixture
def browser() -> requests.Session:
    """Keeps cookies, follows redirects, and isn't programmatic."""
    return requests.Session()


def test_a_person_logs_in_and_comes_back_to_where_they_were_going(cave: CaveServer, browser: requests.Session) -> None:
    alice = cave.add_person("alice", with_key=False)
    cave.add_person("bob")
    page = browser.get(cave.url + TOKENS, timeout=10)
    assert "Continue as alice" in page.text
    assert "Continue as bob" in page.text
    back = browser.post(page.url, data={"email": alice.email}, timeout=10)
    assert back.url == cave.url + TOKENS
    assert "alice - alice@example.org" in back.text
    assert "You have no tokens" in back.text


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(cave: CaveServer) -> None:
    person = cave.add_person("alice")
    answer = requests.get(f"{cave.url}{TOKENS}?a=b&middle_auth_token={person.token}", timeout=10, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{cave.url}{TOKENS}?a=b")
    assert answer.cookies["middle_auth_token"] == person.token
