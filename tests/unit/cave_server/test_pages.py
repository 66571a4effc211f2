# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person does in a browser."""

from __future__ import annotations

import re

import pytest
import requests

from cave_server import CaveServer
from cave_server.pages import login, tokens
from cave_server.world import public_world

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


def test_a_first_token_is_made_on_the_page_of_tokens(cave: CaveServer, browser: requests.Session) -> None:
    cave.add_person("alice", with_key=False)
    browser.cookies.set("middle_auth_token", cave.log_in("alice"))
    made = browser.post(f"{cave.url}/sticky_auth/api/v1/user/token", json={"description": "laptop"}, timeout=10)
    assert made.status_code == 200
    page = browser.get(cave.url + TOKENS, timeout=10)
    assert re.findall(r"token: <code>([0-9a-f]{32})</code>", page.text) == [made.json()]
    assert "<span>laptop</span>" in page.text
    assert [key["last_used"] for key in cave.tokens("alice")] == [None]


def test_after_logging_out_the_login_page_comes_again(cave: CaveServer, browser: requests.Session) -> None:
    person = cave.add_person("alice")
    browser.cookies.set("middle_auth_token", cave.log_in("alice"))
    assert browser.get(f"{cave.url}/sticky_auth/api/v1/logout", timeout=10).json() == "success"
    assert "authorize" in browser.get(cave.url + TOKENS, timeout=10).url
    answer = browser.get(
        f"{cave.url}/auth/api/v1/logout", headers={"Authorization": f"Bearer {person.token}"}, timeout=10
    )
    assert (answer.status_code, answer.text) == (422, "Can't logout an API Key.")


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(cave: CaveServer) -> None:
    person = cave.add_person("alice")
    answer = requests.get(f"{cave.url}{TOKENS}?a=b&middle_auth_token={person.token}", timeout=10, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{cave.url}{TOKENS}?a=b")
    assert answer.cookies["middle_auth_token"] == person.token


def test_terms_that_do_not_exist_are_404(cave: CaveServer) -> None:
    cave.add_person("alice")
    answer = requests.get(
        f"{cave.url}/sticky_auth/api/v1/tos/99/accept", cookies={"middle_auth_token": cave.log_in("alice")}, timeout=10
    )
    assert (answer.status_code, answer.text) == (404, "Terms of Service does not exist")


def test_a_login_may_be_timed_and_another_persons_token_not(cave: CaveServer) -> None:
    alice, bob = cave.add_person("alice"), cave.add_person("bob")
    headers = {"Authorization": f"Bearer {alice.token}"}
    path = f"{cave.url}/auth/api/v1/user/token"
    assert requests.get(f"{path}/{alice.token}/ttl", headers=headers, timeout=10).json() == -1
    assert 0 < requests.get(f"{path}/{cave.log_in('alice')}/ttl", headers=headers, timeout=10).json() <= 7 * 24 * 3600
    assert requests.get(f"{path}/{bob.token}/ttl", headers=headers, timeout=10).status_code == 404


def test_pages_quote_what_people_wrote() -> None:
    world = public_world()
    person = world.add_person("<b>", description="<script>alert(1)</script>")
    for page in (tokens(person, world.keys(person)), login([person])):
        assert "<b>" not in page
        assert "<script>alert" not in page
