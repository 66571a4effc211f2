# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which fault meets which request."""

from __future__ import annotations

import pytest

from cave_server import wire
from cave_server.faults import INSTEAD, SPOILING, Fault, Faults


def kinds(faults: Faults, *requests: tuple[str, str, str | None]) -> list[str | None]:
    """Return the kind of fault that each request meets."""
    met = [faults.take(*request)[1] for request in requests]
    return [fault.kind if fault else None for fault in met]


GET = ("GET", "/info/version", None)


def test_a_fault_meets_what_begins_with_its_prefix() -> None:
    faults = Faults()
    faults.add(Fault("/auth/", "cut"))
    assert kinds(faults, GET, ("GET", "/auth/version", None), ("GET", "/sticky_auth/version", None)) == [
        None,
        "cut",
        None,
    ]


def test_a_fault_meets_as_many_requests_as_it_is_told() -> None:
    faults = Faults()
    faults.add(Fault("/info", "cut", times=2))
    assert kinds(faults, GET, GET, GET) == ["cut", "cut", None]


def test_a_fault_lets_some_pass_first() -> None:
    faults = Faults()
    faults.add(Fault("/info", "cut", skip=2, times=1))
    assert kinds(faults, GET, GET, GET, GET) == [None, None, "cut", None]


def test_a_fault_may_want_a_method_and_a_token() -> None:
    faults = Faults()
    faults.add(Fault("/", "cut", method="POST"))
    faults.add(Fault("/", "html", fingerprint="12345678"))
    assert kinds(faults, GET, ("POST", "/", None), ("GET", "/", "12345678"), ("GET", "/", "87654321")) == [
        None,
        "cut",
        "html",
        None,
    ]


def test_the_first_fault_wins_and_leaves_the_next_untouched() -> None:
    faults = Faults()
    faults.add(Fault("/info", "cut", times=1))
    faults.add(Fault("/info", "html", times=1))
    assert kinds(faults, GET, GET, GET) == ["cut", "html", None]


def test_delays_add_up_and_come_on_top() -> None:
    faults = Faults()
    faults.add(Fault("/", "latency", parameters={"seconds": 1}))
    faults.add(Fault("/info", "latency", parameters={"seconds": 2}))
    faults.add(Fault("/", "cut"))
    delay, fault = faults.take(*GET)
    assert delay == 3
    assert fault
    assert fault.kind == "cut"


def test_cleared_faults_are_gone() -> None:
    faults = Faults()
    faults.add(Fault("/", "cut"))
    faults.clear()
    assert kinds(faults, GET) == [None]


def test_a_mistake_in_a_tests_fault_is_told() -> None:
    with pytest.raises(ValueError, match="no fault 'cutt'; there are status"):
        Fault("/", "cutt")
    with pytest.raises(ValueError, match="fault status has no code; it has: status"):
        Fault("/", "status", parameters={"code": 500})


def test_every_fault_can_be_sent() -> None:
    assert set(wire.INSTEAD) == set(INSTEAD)
    assert set(wire.SPOILING) == set(SPOILING)
