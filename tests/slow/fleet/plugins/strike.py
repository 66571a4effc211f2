# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback that counts what all processes of a run do, and kills a part of them at one moment."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: strike
type: notification
short_description: Kill a part of the run at one moment
description:
  - Each effect is a line of 64 bytes in the file that STRIKE_LOG names. When the effect of the number STRIKE_NUMBER
    comes that matches STRIKE_ON, the part STRIKE_WHAT of the run (main, worker, all, connection) gets SIGKILL; the
    connections STRIKE_DELAY seconds later.
"""

WIDTH = 64
MAIN = os.getpid()
LOG = os.environ["STRIKE_LOG"]
_IS_METHOD = re.compile(rb"(GET|POST|DELETE) ")


def effect(name: str) -> None:
    """Count an effect, and strike when its turn has come."""
    handle = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{name:{WIDTH - 1}.{WIDTH - 1}}\n".encode())
        number = os.lseek(handle, 0, os.SEEK_CUR) // WIDTH
    finally:
        os.close(handle)
    wanted = os.environ["STRIKE_ON"]
    if not re.match(wanted, name):
        return
    matching = [line for line in effects()[:number] if re.match(wanted, line)]
    if len(matching) == int(os.environ["STRIKE_NUMBER"]):
        _strike(os.environ["STRIKE_WHAT"])


def effects() -> list[str]:
    """Return all effects so far."""
    return [line.strip() for line in Path(LOG).read_text().splitlines()]


def _strike(what: str) -> None:
    if what == "connection":
        if os.fork() == 0:
            time.sleep(float(os.environ["STRIKE_DELAY"]))
            _kill(_connections())
            os._exit(0)
        return
    victims = {"main": [MAIN], "worker": [os.getpid()], "all": [*_below(MAIN), MAIN, os.getpid()]}[what]
    _kill([pid for pid in victims if pid != os.getpid()] + [pid for pid in victims if pid == os.getpid()])


def _kill(pids: list[int]) -> None:
    for pid in dict.fromkeys(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _connections() -> list[int]:
    """Return the SSH processes of this run, and those that keep its connections open."""
    mark = str(Path(os.environ["ANSIBLE_HOME"], "cp")).encode()
    return [pid for pid, command in _commands() if command.startswith(b"ssh") and mark in command]


def _commands() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:
            continue


def _below(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*(other for child in children for other in _below(child)), *children]


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "http.client.send" and isinstance(args[1], bytes) and _IS_METHOD.match(args[1]):
        effect("request " + " ".join(args[1].split(b" ", 2)[number].decode() for number in (0, 1)))
    elif event == "os.rename":
        effect(f"rename {Path(str(args[1])).name}")
    elif event == "subprocess.Popen" and Path(os.fsdecode(args[0])).name == "ssh":
        effect("ssh")


def _answered(getresponse: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Any) -> Any:
        response = getresponse(self)
        effect(f"answer {self._method} {response.status}")
        return response

    return counted


class CallbackModule(CallbackBase):
    """Loaded in the main process before there are others, which are copies of it."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "strike"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Begin to count."""
        super().__init__()
        http.client.HTTPConnection.getresponse = _answered(http.client.HTTPConnection.getresponse)  # type: ignore[method-assign]
        sys.addaudithook(_watch)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Count a task."""
        del is_conditional
        effect(f"task {task.get_name()}")
