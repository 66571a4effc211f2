# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notes name every host, and say what is the same of many only once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Blocker
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import hosts_named, with_reasons


def named(text: str) -> set[str]:
    """The hosts that a text names."""
    found = set()
    for part in text.split(", "):
        first, _to, last = part.partition(" to ")
        digits = re.fullmatch(r"([^0-9]*)([0-9]+)(.*)", first)
        if not last or digits is None:
            found.add(part)
            continue
        begin, number, end = digits.groups()
        until = int(last.removeprefix(begin).removesuffix(end))
        found |= {f"{begin}{str(n).zfill(len(number))}{end}" for n in range(int(number), until + 1)}
    return found


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ([f"ws{n:03}" for n in range(11, 301)], "ws011 to ws300"),
        (["ws10", "ws9", "ws8", "ws11", "ws2"], "ws2, ws8 to ws11"),
        ([f"ws{n}.lab2.example.org" for n in (1, 2, 3, 4)], "ws1.lab2.example.org to ws4.lab2.example.org"),
        ([f"10.0.0.{n}" for n in (5, 6, 7, 8, 10)], "10.0.0.5 to 10.0.0.8, 10.0.0.10"),
        ([f"rack{n}-gpu" for n in (7, 8, 9, 10)], "rack7-gpu to rack10-gpu"),
        (["hpc", "ws3", "ws1", "ws2", "hpc"], "hpc, ws1, ws2, ws3"),
        (["ws1", "ws01", "ws2", "ws02"], "ws1, ws01, ws2, ws02"),
        ([], ""),
    ],
)
def test_hosts_that_are_numbered_through_are_told_by_the_first_and_the_last(hosts: list[str], text: str) -> None:
    assert hosts_named(hosts) == text


@given(
    st.lists(
        st.builds("{}{}{}".format, st.sampled_from(["ws", "gpu-"]), st.integers(0, 30), st.sampled_from(["", ".x2"]))
    )
)
def test_no_host_is_left_out_and_none_is_added(hosts: list[str]) -> None:
    assert named(hosts_named(hosts)) - {""} == set(hosts)


def test_what_is_the_same_of_many_hosts_is_said_once() -> None:
    found = [Blocker(f"ws{n:03}", "alice: outside of this run, without 983cba98") for n in range(11, 301)]
    found += [Blocker("hpc1", "off"), Blocker("", "vault_cave_token_alice in vault.yml has 3fa9c2d1")]
    assert with_reasons(found) == (
        "ws011 to ws300 (alice: outside of this run, without 983cba98); hpc1 (off); "
        "vault_cave_token_alice in vault.yml has 3fa9c2d1"
    )


def test_reasons_that_differ_by_the_hosts_own_name_or_address_alone_are_the_same() -> None:
    unreachable = [Blocker(f"ws{n}", f"ssh: connect to host 10.0.0.{n} port 22: No route to host") for n in range(1, 6)]
    copies = [Blocker(f"ws{n}", f"alice: /nfs/ws{n}/bak has 3fa9c2d1 as token") for n in (1, 2)]
    assert with_reasons(unreachable) == "ws1 to ws5 (ssh: connect to host ... port 22: No route to host)"
    assert with_reasons(copies) == "ws1, ws2 (alice: /nfs/.../bak has 3fa9c2d1 as token)"
    assert with_reasons(unreachable[:1]) == "ws1 (ssh: connect to host 10.0.0.1 port 22: No route to host)"
