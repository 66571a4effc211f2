# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a function under strace, which records its system calls, kills it at one of them, or lets one of them fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LIMIT = 60
"""Seconds for one run."""
END = "/this-is-where-the-traced-function-ended"
_NAMES = """
access faccessat faccessat2 chdir chmod fchmod fchmodat fchmodat2 chown fchown fchownat close creat fcntl fstat stat
lstat newfstatat statx fsync fdatasync ftruncate getdents getdents64 ioctl link linkat lseek mkdir mkdirat mknod mknodat
open openat openat2 read pread64 readlink readlinkat rename renameat renameat2 symlink symlinkat unlink unlinkat
utimensat write pwrite64
"""
CALLS = ",".join(f"?{name}" for name in _NAMES.split())  # the question mark: where this machine has it
"""All that touch files. What a kill before any other call leaves behind, a kill before the next of these does too."""


@dataclass(frozen=True)
class Traced:
    """How a traced function ended."""

    answer: dict[str, Any] | None
    """``{"result": ...}``, ``{"error": message}`` or ``{"raised": ...}``; None: it was killed."""
    calls: list[str]
    """The system calls up to the function's end, one a line, with the process id in front."""

    @property
    def injected(self) -> bool:
        """Whether a call of the function itself was made to fail."""
        return any("(INJECTED)" in call for call in self.calls)


def traced(function: Callable[[], Any], *arguments: str, umask: int = 0, follow: bool = True) -> Traced:
    """Run a function in a fork, under strace from its first system call on.

    Args:
        function: its result must be JSON-able.
        arguments: of strace.
        umask: of the fork.
        follow: whether the processes that it starts are traced as well.
    """
    pipe, child_end = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        pid = os.fork()
        if not pid:
            os.close(pipe)
            _be_traced(function, child_end, umask)
        os.close(child_end)
        os.waitpid(pid, os.WUNTRACED)
        command = ["strace", "-p", str(pid), "-o", str(trace), "-s", "300", *(["-f"] if follow else []), *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            line = strace.stderr.readline()
            assert "attached" in line, line
            os.kill(pid, signal.SIGCONT)
            with os.fdopen(pipe, "rb") as file:
                told = file.read()
            os.waitpid(pid, 0)
            strace.wait(LIMIT)
        calls = trace.read_text(errors="replace").splitlines()
    ends = [number for number, call in enumerate(calls) if END in call]
    return Traced(json.loads(told) if told else None, calls[: ends[0]] if ends else calls)


def _be_traced(function: Callable[[], Any], child_end: int, umask: int) -> NoReturn:
    try:
        os.umask(umask)
        signal.alarm(LIMIT)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            answer = {"result": function()}
        except CaveError as error:
            answer = {"error": error.message}
        except BaseException as error:  # noqa: BLE001 (that is what an attack looks for)
            answer = {"raised": repr(error)}
        Path(END).exists()
        os.write(child_end, json.dumps(answer).encode())
    finally:
        os._exit(0)


@dataclass(frozen=True)
class Point:
    """A system call of a function: the how-manieth of its name."""

    call: str
    number: int

    @property
    def can_fail(self) -> bool:
        """Whether the disk has a say in it: not in ``ioctl``, nor in ``lseek``, by which a directory is rewound."""
        return self.call not in ("ioctl", "lseek")


def points(function: Callable[[], Any], calls: str = CALLS, follow: bool = True) -> list[Point]:
    """Run a function, and return its system calls in order."""
    counts: Counter[str] = Counter()
    found = []
    for line in traced(function, "-e", f"trace={calls}", follow=follow).calls:
        if match := re.match(r"(?:\d+ +)?([a-z0-9_]+)\(", line):
            counts[match.group(1)] += 1
            found.append(Point(match.group(1), counts[match.group(1)]))
    return found


def killed_at(point: Point, function: Callable[[], Any]) -> Traced:
    """Kill a function before one of its system calls."""
    return traced(function, "-e", f"trace={CALLS}", "-e", f"inject={point.call}:signal=KILL:when={point.number}")


def failing_at(point: Point, error: str, function: Callable[[], Any]) -> Traced:
    """Let one of a function's system calls fail with an error (``ENOSPC``)."""
    return traced(function, "-e", f"trace={CALLS}", "-e", f"inject={point.call}:error={error}:when={point.number}")


def modes_given(calls: list[str]) -> list[tuple[str, int]]:
    """Return, for each call that makes something or sets a mode, the call and the mode that it asks for."""
    found = []
    for call in calls:
        made = re.search(r"(?:openat|open|creat)\(.*O_CREAT.*, (0[0-7]*)\)", call)
        named = re.search(r"(?:mkdir|mkdirat|mknod|mknodat|chmod|fchmod|fchmodat|fchmodat2)\(.*?, (0[0-7]*)[,)]", call)
        match = made or named
        if match:
            found.append((call, int(match.group(1), 8)))
    return found
