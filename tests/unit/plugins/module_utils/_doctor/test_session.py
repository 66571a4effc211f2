# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What in a session changes the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._doctor.session import notes

HOME = "/home/alice"
TOKEN = "0123456789abcdef0123456789abcdef"
NAMES = (
    "HOME", "CLOUD_VOLUME_DIR", "CHUNKEDGRAPH_SECRET", "https_proxy", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "PYTHONPATH"
)  # fmt: skip


def test_an_ordinary_session_has_nothing_to_say() -> None:
    assert notes({"HOME": "/home/alice/", "PATH": "/usr/bin", "CLOUD_VOLUME_DIR": ""}, HOME) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_that_changes_the_answer_is_named(name: str) -> None:
    assert [name in note for note in notes({name: "/somewhere/else"}, HOME)] == [True]


def test_a_token_in_a_variable_is_noticed_and_not_shown() -> None:
    (note,) = notes({"CHUNKEDGRAPH_SECRET": TOKEN}, HOME)

    assert TOKEN not in note


def test_a_key_that_a_variable_names_is_told_with_its_package() -> None:
    (note,) = notes({"BANC_AUTH_TOKEN_KEY": "lab"}, HOME)
    assert note == "BANC_AUTH_TOKEN_KEY is lab: the package banc takes that key, not brain_and_nerve_cord."
    (note,) = notes({"BANC_AUTH_TOKEN_KEY": TOKEN}, HOME)
    assert "holds a token" in note
    assert TOKEN not in note


@pytest.mark.parametrize("name", NAMES)
def test_no_variable_commands_the_terminal(name: str) -> None:
    assert all(note.isprintable() for note in notes({name: "/x\x1b[2J\x9b31m\u202e\n/y"}, HOME))


@given(st.text(max_size=20), st.text(min_size=6, max_size=20))
def test_the_password_of_a_proxy_is_never_shown(user: str, password: str) -> None:
    said = " ".join(notes({"https_proxy": f"http://{user}:{password}@proxy.example.org:3128"}, HOME))

    assert password not in said.replace("proxy.example.org", "").replace("https_proxy sends requests through", "")
