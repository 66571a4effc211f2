# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns that processes take, and how far a fleet is."""

from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible import constants, release
from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.plugin_utils import _fleet_run
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import (
    report_progress,
    require_core,
    wait_for_turn,
)


def _wait(pauses: multiprocessing.SimpleQueue[float]) -> None:
    wait_for_turn(2, 0.001, pauses.put)  # nobody pauses: the turns are far apart, for a machine that is busy


def test_processes_that_were_forked_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(_fleet_run, "_next_turn", context.Value("d", 0.0))  # no other test waits for these turns
    pauses = context.SimpleQueue()
    processes = [context.Process(target=_wait, args=(pauses,)) for _number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = sorted(pauses.get() for _process in processes)
    assert [later - earlier for earlier, later in itertools.pairwise(found)] == pytest.approx(
        [2000, 2000, 2000], abs=200
    )


@pytest.mark.parametrize(("requests", "rate"), [(5, 0), (0, 5)])
def test_without_a_rate_or_a_request_nobody_waits(requests: int, rate: float) -> None:
    pauses: list[float] = []
    wait_for_turn(requests, rate, pauses.append)
    assert pauses == []


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        wait_for_turn(1, rate)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What Ansible has displayed."""
    lines: list[str] = []
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path), raising=False)
    monkeypatch.setattr(Display, "display", lambda _self, line: lines.append(line))
    return lines


def task(uuid: str) -> SimpleNamespace:
    """Return a task of Ansible."""
    return SimpleNamespace(_uuid=uuid, get_name=lambda: uuid)


def test_a_large_fleet_hears_of_every_tenth_part_once_and_of_its_end(said: list[str]) -> None:
    hosts = [str(number) for number in range(99)]
    for _host in [*hosts, "a loop's second round"]:
        report_progress(task("one"), hosts)
        report_progress(task("two"), hosts[:50])
    assert said == [f"one: {done} of 99 hosts" for done in (10, 20, 30, 40, 50, 60, 70, 80, 90, 99)]


def test_a_small_fleet_hears_of_the_hosts_that_take_long(said: list[str]) -> None:
    for took_long in (False, True, True):
        report_progress(task("install"), ["a", "b", "c"], took_long)
    assert said == ["install: 2 of 3 hosts", "install: 3 of 3 hosts"]


def test_a_place_that_cannot_be_written_costs_nothing_but_the_word(said: list[str], tmp_path: Path) -> None:
    (tmp_path / "cave-one").mkdir()
    report_progress(task("one"), [str(number) for number in range(99)])
    assert said == []


def test_an_ansible_core_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2.17.0", "2.19.14", "2.22.0.dev0", "3.0.0"):
        monkeypatch.setattr(release, "__version__", version)
        require_core()
    for version in ("2.9.27", "2.14.18", "2.16.19"):
        monkeypatch.setattr(release, "__version__", version)
        with pytest.raises(AnsibleError, match=rf"2\.17 or later; this is {version}"):
            require_core()
