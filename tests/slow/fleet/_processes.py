# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes belong to a host of the fleet: read from /proc, so that nothing else is ever ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ._errors import FleetError


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with the id it names one process for good."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int, started: int) -> bool:
    """Return whether the process that had this id at this start time still lives."""
    return start_time(pid) == started


def in_namespace_of(pid: int) -> list[int]:
    """Return the ids of all processes in the PID namespace of a process."""
    namespace = (Path("/proc") / str(pid) / "ns/pid").readlink()
    found = []
    for other in _ids():
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(other) / "ns/pid").readlink() == namespace:
                found.append(other)
    return found


def mounting(folder: Path) -> list[int]:
    """Return the ids of all processes whose root is an overlay that writes below a folder."""
    mark = f"upperdir={folder}/"
    found = []
    for pid in _ids():
        with contextlib.suppress(OSError):
            if mark in (Path("/proc") / str(pid) / "mountinfo").read_text():
                found.append(pid)
    return found


def in_hosts(pids: Iterable[int]) -> list[int]:
    """Return those processes that are in a PID namespace of their own, not in this machine's."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if re.search(r"^NSpid:\s+\d+\s+\d+", (Path("/proc") / str(pid) / "status").read_text(), re.MULTILINE):
                found.append(pid)
    return found


def kill(pids: Iterable[int]) -> None:
    """End processes by SIGKILL and wait until they are gone.

    Raises:
        FleetError: one of them outlived it.
    """
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_end(pids)


def wait_for_end(pids: Iterable[int], timeout: float = 10) -> None:
    """Wait until processes are gone.

    Raises:
        FleetError: one of them outlived the timeout, in seconds.
    """
    left = set(pids)
    deadline = time.monotonic() + timeout
    while left := {pid for pid in left if not _is_gone(pid)}:
        if time.monotonic() > deadline:
            raise FleetError(f"processes that did not end within {timeout} s: {sorted(left)}")
        time.sleep(0.005)


def _ids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _is_gone(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] == "Z"


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; the second, the name, may hold anything."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
