# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine shows of its work while it works: process lists, system logs, programs started and files written."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

EVERY = 0.005
"""Seconds between two looks at all processes, at most."""
_USUAL = 1 << 14
_LONGEST = 1 << 22


# Processes -----------------------------------------------------------------------------------------------------------


class ProcessList:
    """Looks at the command line and the environment of every process, all the time, from a process of its own.

    Args:
        folder: for what it sees.
    """

    def __init__(self, folder: Path) -> None:
        self._seen = folder / "processes"
        self._told = folder / "processes.json"
        self.figures: dict[str, float] = {}
        """Known at the end: how many looks there were, and the milliseconds from one to the next."""
        self._read = 0

    def __enter__(self) -> ProcessList:
        words = [sys.executable, "-S", "-E", str(Path(__file__).resolve()), str(self._seen), str(self._told)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.read(1)
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()
        self.figures = json.loads(self._told.read_text())

    def new(self) -> bytes:
        """Return what was seen and has not been returned yet."""
        with self._seen.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        self._read += len(content)
        return content


def _look_until_the_end(seen: str, figures: str) -> None:
    """The other process: look until the standard input ends."""
    with contextlib.suppress(OSError):  # nothing else may keep it from looking in time
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    done = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        done.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    descriptor = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    known: set[int] = set()

    def keep(name: str, what: str, content: bytes) -> None:
        if content and (mark := hash(content)) not in known:
            known.add(mark)
            os.write(descriptor, f"{name} {what}: ".encode() + content.replace(b"\n", b"\0") + b"\n")

    mine = str(os.getpid())
    kernels = {mine}
    running: dict[str, tuple[int, bytes]] = {}  # process -> its command line, open, and what that was
    times = []
    while not done.is_set():
        times.append(time.monotonic())
        names = {name for name in os.listdir("/proc") if name.isdigit()} - kernels
        for name in running.keys() - names:
            os.close(running.pop(name)[0])
        for name in names:
            file, before = running.get(name) or (_open(f"/proc/{name}/cmdline"), b"")
            line = _read(file)
            if line:
                running[name] = file, line
                # The environment is what a program was started with, and a program is told by its command line.
                if line != before or len(times) % 100 == 0:
                    keep(name, "cmdline", line)
                    environ = _open(f"/proc/{name}/environ")
                    keep(name, "environ", _read(environ))
                    _close(environ)
                continue
            running.pop(name, None)
            _close(file)
            if _is_the_kernels(name):
                kernels.add(name)
        if len(times) == 1:
            os.write(1, b".")
        if len(times) % 500 == 0:
            kernels = {mine}  # their numbers may be given to others
        time.sleep(0.002)
    gaps = sorted(after - before for before, after in itertools.pairwise(times)) or [0.0]
    found = {
        "looks": len(gaps),
        "median_ms": round(gaps[len(gaps) // 2] * 1000, 2),
        "p99_ms": round(gaps[int(len(gaps) * 0.99)] * 1000, 2),
        "longest_ms": round(gaps[-1] * 1000, 2),
        "late": sum(gap > EVERY for gap in gaps),
    }
    Path(figures).write_text(json.dumps(found))


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return -1


def _read(file: int) -> bytes:
    try:
        content = os.pread(file, _USUAL, 0)
        return content if len(content) < _USUAL else os.pread(file, _LONGEST, 0)
    except OSError:
        return b""


def _close(file: int) -> None:
    if file >= 0:
        os.close(file)


def _is_the_kernels(name: str) -> bool:
    file = _open(f"/proc/{name}/stat")
    fields = _read(file).rpartition(b")")[2].split()
    _close(file)
    return len(fields) > 6 and bool(int(fields[6]) & 0x00200000)


# System logs ---------------------------------------------------------------------------------------------------------

# Modules write to the journal where Python can, else to syslog.
JOURNAL = """def sendv(*items): _keep(items)
def send(*items, **fields): _keep((items, fields))
def _keep(what):
    with open("/var/log/journal.txt", "a") as file: file.write(repr(what) + chr(10))
"""
DAEMON = "def booted(): return True\n"


class SystemLog:
    """Listens at ``/dev/log`` of this machine and of others, for what is sent to syslog.

    Args:
        roots: of the machines; one that has a system log already is left alone, and its files are looked at instead.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._paths = [root / "dev" / "log" for root in roots]
        self._sockets: list[socket.socket] = []
        self._content: list[bytes] = []
        self._lock = threading.Lock()

    def __enter__(self) -> SystemLog:
        for path in self._paths:
            if _is_heard(path):
                continue
            path.unlink(missing_ok=True)  # what a hunt that was killed left behind
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listener.bind(str(path))
            path.chmod(0o666)
            self._sockets.append(listener)
            threading.Thread(target=self._listen, args=(listener,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for listener in self._sockets:
            path = Path(listener.getsockname())
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            path.unlink(missing_ok=True)

    @property
    def listening(self) -> int:
        """How many machines it listens to."""
        return len(self._sockets)

    def _listen(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := listener.recv(_LONGEST):
                with self._lock:
                    self._content.append(content)

    def new(self) -> bytes:
        """Return what was sent and has not been returned yet."""
        with self._lock:
            content, self._content = b"\n".join(self._content), []
        return content


def _is_heard(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


# Programs and files --------------------------------------------------------------------------------------------------

_TRACED = "?execve,?execveat,write,pwrite64,writev,pwritev,?pwritev2"
_FILE = re.compile(rb"^\d+ +p?write[v0-9]*\(\d+<(/[^>]*)>")
_PROGRAM = re.compile(rb"^\d+ +execve")
TRACE = ("strace", "-f", "-qq", "-y", "-s", str(_LONGEST), "-v", "-e", f"trace={_TRACED}", "-e", "signal=none", "-o")
"""A command line to put in front of another, after the file for the trace: every program it starts, all it writes."""


@contextmanager
def traced_host(pid: int, trace: Path) -> Iterator[None]:
    """Trace all that the SSH server of a host starts, and what that writes, for as long as the block lasts."""
    with subprocess.Popen([*TRACE, str(trace), "-p", str(pid)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while b"TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def read_trace(trace: Path, is_allowed: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Return from a trace the programs that were started, and what was written into which file.

    Args:
        trace: its file.
        is_allowed: says of a path whether tokens may be written there.
    """
    if not trace.exists():
        return
    with trace.open("rb") as file:
        for line in file:
            if _PROGRAM.match(line):
                arguments, _between, variables = line.rpartition(b"], [")
                yield "a command line: traced", arguments
                yield "an environment: traced", variables
            elif (written := _FILE.match(line)) and not written.group(1).startswith((b"/dev/pts", b"/dev/null")):
                path = written.group(1).decode(errors="replace")
                if not is_allowed(path):
                    yield f"a file while it was there: {path}", line


if __name__ == "__main__":
    _look_until_the_end(*sys.argv[1:])
