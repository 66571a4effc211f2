# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a command costs: wall time, the CPU time of all processes that have to do with it, memory.

CPU time is counted by control groups (version 1 or 2), so that processes count that outlive the command (SSH's masters)
or whose parent is another (those of an SSH server).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
ENTER = 'echo $$ > "$0" && exec "$@"'
GLANCE = 0.5
"""Seconds between two looks at the memory."""


class BenchError(Exception):
    """A measurement cannot be made, or what was measured did not do what it should."""


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall time, seconds of CPU on the controller and on all hosts, bytes of memory at the peak.

    ``memory`` is the sum over the controller's processes of what each has alone and its share of what it has with
    others (the kernel's PSS), ``largest`` is what the largest of them has, shares counted in full (RSS), as `time -v`
    would say. 0 when nobody looked, for looking takes time.
    """

    wall: float
    controller_cpu: float
    hosts_cpu: float
    memory: int = 0
    largest: int = 0


class Group:
    """A control group: the CPU time of the processes in it and of all that they start."""

    def __init__(self, name: str) -> None:
        second = (GROUPS / "cgroup.controllers").exists()
        self.folder = GROUPS / name if second else GROUPS / "cpuacct" / name
        self.usage = self.folder / ("cpu.stat" if second else "cpuacct.usage")

    def __enter__(self) -> Group:
        """Make it."""
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise BenchError(f"No control group can be made in {self.folder.parent}: {error.strerror}.") from error
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left in it, and remove it."""
        self.end()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @property
    def members(self) -> Path:
        """The file that a process id is written to, to put that process in."""
        return self.folder / "cgroup.procs"

    def add(self, pids: Iterable[int]) -> None:
        """Put processes in."""
        for pid in pids:
            self.members.write_text(str(pid))

    def pids(self) -> list[int]:
        """Return the processes in it."""
        return [int(line) for line in self.members.read_text().split()]

    def end(self) -> None:
        """End all processes in it, and wait for that."""
        for attempt in range(500):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM if attempt < 100 else signal.SIGKILL)
            time.sleep(0.01)

    def seconds(self) -> float:
        """Return the CPU time of all that ever was in it."""
        text = self.usage.read_text()
        if found := re.search(r"^usage_usec (\d+)$", text, re.MULTILINE):
            return int(found.group(1)) / 1e6
        return int(text) / 1e9


class Meter:
    """Runs commands on the controller and measures them.

    Args:
        controller: the group for the commands.
        hosts: the group that the hosts' processes are in.
    """

    def __init__(self, controller: Group, hosts: Group) -> None:
        self.controller = controller
        self.hosts = hosts

    def run(
        self, command: Sequence[str], environ: Mapping[str, str], folder: Path, watch_memory: bool = False
    ) -> tuple[Sample, subprocess.CompletedProcess[str]]:
        """Run a command; when it has ended, so are all processes that it left behind, SSH connections for one."""
        before = self.controller.seconds(), self.hosts.seconds()
        with self._watched(watch_memory) as peaks:
            start = time.monotonic()
            done = subprocess.run(
                ["sh", "-c", ENTER, str(self.controller.members), *command],
                env=dict(environ),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            wall = time.monotonic() - start
        self.controller.end()
        cpu = self.controller.seconds() - before[0], self.hosts.seconds() - before[1]
        return Sample(round(wall, 4), round(cpu[0], 4), round(cpu[1], 4), *peaks), done

    @contextlib.contextmanager
    def _watched(self, on: bool) -> Iterator[list[int]]:
        peaks, ended = [0, 0], threading.Event()

        def look() -> None:
            while on and not ended.wait(GLANCE):
                seen = [_memory(pid) for pid in self.controller.pids()]
                now = sum(share for share, _all in seen), max((every for _share, every in seen), default=0)
                peaks[:] = map(max, peaks, now)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield peaks
        finally:
            ended.set()
            thread.join()


def _memory(pid: int) -> tuple[int, int]:
    """Return a process's share of the memory, and all that it has, shared or not, in bytes."""
    try:
        found = dict(re.findall(r"^(Pss|Rss):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    except OSError:
        return 0, 0
    return int(found.get("Pss", 0)) * 1024, int(found.get("Rss", 0)) * 1024
