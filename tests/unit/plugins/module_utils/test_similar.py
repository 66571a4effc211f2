# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean, similar

HOSTS = ["ws1", "ws2", "ws3", "hpc-login", "node10"]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("wsl", HOSTS, ["ws1"]),
        ("wsI", HOSTS, ["ws1"]),
        ("WS3", HOSTS, ["ws3"]),
        ("hpc_login", HOSTS, ["hpc-login"]),
        ("hpc.login", HOSTS, ["hpc-login"]),
        ("node1O", HOSTS, ["node10"]),
        ("nodelO", HOSTS, ["node10"]),
        ("w1s", HOSTS, ["ws1"]),
        ("hpclogin", HOSTS, ["hpc-login"]),
        ("ws9", HOSTS, ["ws1", "ws2", "ws3"]),
        ("wsl", ["wsI", "ws2", "ws1"], ["wsI", "ws1"]),
        ("minnie65_pubic", ["minnie65_phase3_v1", "minnie65_public"], ["minnie65_public"]),
        ("opnbao", ["openbao", "sops", "pass", "aws", "google"], ["openbao"]),
        ("bnac", ["banc", "fanc", "flywire"], ["banc"]),
        ("printer", HOSTS, []),
        ("", HOSTS, []),
        ("ws1", HOSTS, []),
        ("x" * 5000, ["x" * 199], []),
    ],
)
def test_the_nearest_names_are_meant_and_a_look_alike_before_all_others(
    name: str, known: list[str], meant: list[str]
) -> None:
    assert similar(name, known) == meant


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=8))
def test_only_known_names_are_meant_and_never_the_name_itself(name: str, known: list[str]) -> None:
    found = similar(name, known)
    assert set(found) <= set(known) - {name}
    assert len(found) == len(set(found))


@given(st.text("abcl1IoO0_-", min_size=3, max_size=12), st.data())
def test_whatever_else_is_known_a_name_that_only_looks_the_same_is_meant(right: str, data: st.DataObject) -> None:
    alike = {"l": "1I", "1": "lI", "I": "1l", "o": "0O", "0": "oO", "O": "0o", "_": "-", "-": "_"}
    name = "".join(data.draw(st.sampled_from(char + alike.get(char, char.upper()))) for char in right)
    others = data.draw(st.lists(st.text("abcl1IoO0_-", max_size=12), max_size=5))
    if name not in {right, *others}:
        assert right in similar(name, [*others, right])


@pytest.mark.parametrize(
    ("name", "known", "question"),
    [
        ("wsl", HOSTS, " Did you mean ws1?"),
        ("ws9", HOSTS, " Did you mean ws1, ws2 or ws3?"),
        ("ws99", [f"ws{number}" for number in range(10, 40)], " Did you mean ws19, ws29 or ws39?"),
        ("printer", HOSTS, ""),
    ],
)
def test_all_that_are_equally_near_are_named(name: str, known: list[str], question: str) -> None:
    assert did_you_mean(name, known) == question


def test_of_many_that_are_equally_near_some_are_named_and_the_others_counted() -> None:
    known = [f"ws{number}" for number in range(1, 9)]
    assert did_you_mean("ws9", known) == " Did you mean ws1, ws2, ws3, ws4 or one of 4 more like these?"
