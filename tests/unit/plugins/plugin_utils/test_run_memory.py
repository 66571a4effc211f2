# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of a run know of each other: each text is found out once, by real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible import constants

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._run_memory import RunMemory

FORKS = multiprocessing.get_context("fork")
TEXT = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


class Client:
    """The client of a store: each call is a line in a file."""

    def __init__(self, log: Path, answer: Callable[[], str] = lambda: TEXT) -> None:
        self.log = log
        self._answer = answer

    def __call__(self) -> str:
        with self.log.open("a") as file:
            file.write("asked\n")
        return self._answer()

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def in_processes(count: int, ask: Callable[[], str]) -> list[Any]:
    """Return what processes that begin at the same time get: a text, or the message of the error."""
    gate, answers = FORKS.Barrier(count), FORKS.SimpleQueue()

    def work() -> None:
        gate.wait(30)
        try:
            answers.put(ask())
        except CaveError as error:
            answers.put(error)

    workers = [FORKS.Process(target=work) for _number in range(count)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _worker in workers]
    for worker in workers:
        worker.join(30)
    return found


def test_many_processes_that_ask_at_the_same_time_cause_one_call(tmp_path: Path) -> None:
    memory, client = RunMemory(), Client(tmp_path / "log")
    assert in_processes(8, lambda: memory.once("alice", client)) == [TEXT] * 8
    assert memory.once("alice", client) == TEXT
    assert client.calls == 1


def test_each_key_has_its_own_text(tmp_path: Path) -> None:
    memory = RunMemory()
    for key in ("alice", "bob"):
        assert memory.once(key, partial(str.format, "of {}", key)) == f"of {key}"
    assert in_processes(2, lambda: memory.once("bob", Client(tmp_path / "log"))) == ["of bob"] * 2


def test_no_file_has_the_text(folder: Path) -> None:
    RunMemory().once("alice", lambda: TEXT)
    assert [path.read_bytes() for path in folder.iterdir()] == [b""]


def test_what_is_found_out_afresh_counts_from_then_on_for_all(tmp_path: Path) -> None:
    memory = RunMemory()
    memory.once("alice", lambda: "old")
    assert in_processes(1, lambda: memory.once("alice", lambda: "new", afresh=True)) == ["new"]
    assert memory.once("alice", Client(tmp_path / "log")) == "new"


def test_a_process_that_is_killed_while_it_asks_holds_nobody_up(tmp_path: Path) -> None:
    memory = RunMemory()

    def killed() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    worker = FORKS.Process(target=lambda: memory.once("alice", killed))
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    assert memory.once("alice", Client(tmp_path / "log")) == TEXT


def test_a_failure_is_that_of_all_who_wait_and_the_next_one_asks_again(tmp_path: Path) -> None:
    memory = RunMemory()
    gate = FORKS.Event()

    def fail() -> str:
        gate.wait(30)
        raise CaveError("it is sealed. Unseal it.")

    broken = Client(tmp_path / "log", fail)
    outcomes = FORKS.SimpleQueue()

    def work() -> None:
        try:
            memory.once("alice", broken)
        except CaveError as error:
            outcomes.put(error.message)

    workers = [FORKS.Process(target=work) for _number in range(3)]
    for worker in workers:
        worker.start()
    _wait_until_locked(len(workers))
    gate.set()
    assert [outcomes.get() for _worker in workers] == ["it is sealed. Unseal it."] * 3
    for worker in workers:
        worker.join(30)
    assert broken.calls == 1
    assert memory.once("alice", Client(tmp_path / "other log")) == TEXT


def _wait_until_locked(count: int) -> None:
    """Wait until one process has the lock, and the others wait for it, as the kernel lists them."""
    path = Path(str(constants.DEFAULT_LOCAL_TMP), "cave-once")
    for _try in range(3000):
        if path.exists() and Path("/proc/locks").read_text().count(f":{path.stat().st_ino} ") >= count:
            return
        time.sleep(0.01)
    raise TimeoutError("nobody waits")


@pytest.mark.parametrize("size", [16, 100])
def test_what_no_longer_fits_is_asked_for_again(tmp_path: Path, size: int) -> None:
    memory, client = RunMemory(size), Client(tmp_path / "log")
    for _time in range(2):
        assert memory.once("a key", lambda: "a text") == "a text"
        assert memory.once("a long key " * 20, client) == TEXT
    assert client.calls == 2


def test_without_a_folder_of_the_run_the_text_is_found_out_all_the_same(folder: Path) -> None:
    folder.rmdir()
    assert RunMemory().once("alice", lambda: TEXT) == TEXT
