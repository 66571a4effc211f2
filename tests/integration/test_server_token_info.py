# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""server_token_info against the stand-in server."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._backends.server_token import run_info
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer


def info(cave: CaveServer, token: str) -> list[dict[str, Any]]:
    result = run_info({"server": cave.url, "token": token, "ca_path": None, "timeout": 20, "retries": 2})
    assert not result["changed"]
    tokens: list[dict[str, Any]] = result["tokens"]
    return tokens


def test_all_tokens_are_listed_newest_first_and_none_is_shown(cave: CaveServer) -> None:
    alice = cave.add_person("alice", description="first")
    second = cave.make_token("alice", "second")
    cave.add_person("bob")
    listed = info(cave, alice.token)
    assert [item["description"] for item in listed] == ["second", "first"]
    assert [item["fingerprint"] for item in listed] == [fingerprint(second), fingerprint(alice.token)]
    assert [item["current"] for item in listed] == [False, True]
    assert alice.token not in repr(listed)
    assert second not in repr(listed)
    assert listed[0]["last_used"] is None
    assert listed[0]["unused_for"] is None
    assert listed[1]["last_used"].endswith("Z")
    assert 0 <= listed[1]["unused_for"] <= 5
    assert 0 <= listed[0]["age"] <= 5


def test_a_description_from_elsewhere_cannot_forge_the_output(cave: CaveServer) -> None:
    alice = cave.add_person("alice")
    cave.make_token("alice", f"\x1b[31mred\x1b[0m\r\n{alice.token}")
    description = info(cave, alice.token)[0]["description"]
    assert description.startswith("red")
    assert description.isprintable()
    assert alice.token not in description


def test_a_dead_token_lists_nothing(cave: CaveServer) -> None:
    alice = cave.add_person("alice")
    cave.revoke(alice.token)
    with pytest.raises(CaveError) as caught:
        info(cave, alice.token)
    assert caught.value.details["access"]["verdict"] == "invalid_token"
