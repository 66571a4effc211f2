# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run tasks and playbooks with the real ansible-playbook of the Python that runs the tests.

Where CAVE_TESTS_CORE names another ansible-core ("2.17"), with that one (see tests/slow/matrix).
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 180.0
"""Seconds for one run."""
ROWS, COLUMNS = 40, 110
"""Of the terminal."""


@dataclass(frozen=True)
class Run:
    """How a run ended: its exit status, all that it printed, and the results of its tasks (of the last host)."""

    status: int
    output: str
    results: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether no task failed."""
        return self.status == 0


def coverage() -> dict[str, str]:
    """What lets processes tell which lines they ran, when that is measured (nox -s coverage)."""
    return {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE_", "CAVE_COVERAGE"))}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment for a command of Ansible: none of the tester's settings, and all it writes below ``folder``."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
        "ANSIBLE_HOME": str(folder / ".ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
        **coverage(),
        **more,
    }


def wait_until_read(terminal: int) -> None:
    """Wait until a program on a terminal reads an answer: what is typed before that is thrown away.

    Args:
        terminal: the file descriptor of the other end.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + 30
    usual = termios.ECHO | termios.ICANON
    while termios.tcgetattr(terminal)[3] & usual == usual:
        if time.monotonic() > deadline:
            raise TimeoutError("nothing reads from the terminal")
        time.sleep(0.02)


def on_a_terminal(
    words: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
    interrupt_at: str | Path = "",
    answers: bool = True,
    columns: int = COLUMNS,
) -> tuple[int, str]:
    """Run a command on a terminal, and return its exit status and all that it printed.

    Args:
        words: the command.
        folder: to run it in.
        settings: its environment.
        interrupt_at: what is printed, or which file is there, when somebody presses Ctrl-C. Not when a task begins: a
            Python that is about to fork may lose it.
        answers: whether somebody is there to be asked; otherwise its standard input is empty.
        columns: of the terminal.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    process = subprocess.Popen(
        words,
        stdin=theirs if answers else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**settings, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    printed = ""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            printed += part.decode(errors="replace").replace("\r\n", "\n")
        if interrupt_at and (interrupt_at.exists() if isinstance(interrupt_at, Path) else interrupt_at in printed):
            interrupt_at = ""
            process.send_signal(signal.SIGINT)
    os.close(ours)
    return process.wait(timeout=30), printed


def uncoloured(text: str) -> str:
    """Return what a terminal shows, without the sequences that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def command(name: str, *arguments: str) -> list[str]:
    """The command line of one of Ansible's programs (``playbook``, ``vault`` ...), as installed for controller()."""
    return [controller(), "-m", "ansible", name, *arguments]


@functools.cache
def controller() -> str:
    """Return the Python with the ansible-core that is asked for, or that of the tests."""
    wanted = os.environ.get("CAVE_TESTS_CORE")
    if not wanted:
        return sys.executable
    from matrix import controllers
    from support_matrix import CORES

    return str(controllers.provide(CORES[wanted]).python)


def ansible(folder: Path, name: str, *arguments: str, stdin: str | None = None, **more: str) -> Run:
    """Run one of Ansible's programs in ``folder``; further keywords are environment variables.

    Where CAVE_TESTS_STOCK is set (nox -s stock), modules go to hosts as Ansible sends them.
    """
    if name == "playbook" and "CAVE_TESTS_STOCK" in os.environ:
        arguments = (*arguments, "-e", '{"caveclient_fast": false}')
    done = subprocess.run(
        command(name, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, **more),
        timeout=LIMIT,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr, [])


def run_tasks(
    folder: Path,
    tasks: Sequence[Mapping[str, Any]],
    *arguments: str,
    variables: Mapping[str, Any] | None = None,
    hosts: str = "localhost",
    **more: str,
) -> Run:
    """Run tasks on this machine as a playbook, and return their results.

    Args:
        folder: an empty place for the playbook and all that Ansible writes.
        tasks: as in a playbook; those without ``register`` get a name of their own.
        arguments: of ansible-playbook.
        variables: of the play.
        hosts: of the play.
        more: environment variables.
    """
    results = folder / "results.json"
    results.unlink(missing_ok=True)
    named = [{"register": f"result_{number}", **task} for number, task in enumerate(tasks)]
    registered = ", ".join(task["register"] for task in named)
    written = [
        {
            "ansible.builtin.copy": {
                "content": "{{ [" + registered + "] | ansible.builtin.to_json }}",
                "dest": str(results),
                "mode": "0600",
            },
            "check_mode": False,
            "diff": False,
            "delegate_to": "localhost",
        }
    ]
    play = {
        "hosts": hosts,
        "gather_facts": False,
        "vars": {
            **(
                {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
                if hosts == "localhost"
                else {}
            ),
            **(variables or {}),
        },
        "tasks": named + written,
    }
    playbook = folder / "playbook.yml"
    playbook.write_text(json.dumps([play]))
    done = ansible(folder, "playbook", *arguments, str(playbook), **more)
    found = json.loads(results.read_text()) if results.exists() else []
    return Run(done.status, done.output, found)
