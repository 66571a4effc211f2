# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets for tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from fleet import PYTHONS, USERS, Fleet

MakeFleet = Callable[..., Fleet]
_numbers = itertools.count(1)


def _require_fleet() -> None:
    """Skip where no fleet can be; where CI is set nothing may be missing."""
    if reasons := Fleet.missing():
        message = f"no fleet on this machine: {'; '.join(reasons)}"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def _fleet_of_the_session() -> Iterator[Fleet]:
    _require_fleet()
    with Fleet(3, name=f"pytest-{os.getpid()}-0") as fleet:
        yield fleet


@pytest.fixture
def fleet(_fleet_of_the_session: Fleet) -> Iterator[Fleet]:
    """Three hosts, one for each Python, with alice, bob and carol; healed after each test, but their files stay."""
    yield _fleet_of_the_session
    for host in _fleet_of_the_session:
        host.heal()


@pytest.fixture
def make_fleet() -> Iterator[MakeFleet]:
    """`make_fleet(30, umasks=("077",))` brings a fleet up that is down again after the test."""
    _require_fleet()
    with ExitStack() as stack:

        def make(hosts: int, pythons: Sequence[str] = PYTHONS, users: Sequence[str] = USERS, **more: Any) -> Fleet:
            name = f"pytest-{os.getpid()}-{next(_numbers)}"
            return stack.enter_context(Fleet(hosts, name=name, pythons=pythons, users=users, **more))

        yield make
