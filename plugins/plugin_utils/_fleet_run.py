# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of one run have in common: how fast they may ask the server, how far they are, what a stop leaves,
which tokens a store has given them.

Ansible works on hosts in processes of their own, which are copies of the one that loaded this.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible import constants, context, release
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.plugin_utils._run_memory import RunMemory

LARGE = 50
"""Hosts; a larger fleet is told how far it is."""
STEPS = 10
"""How often it is told."""
OLDEST_CORE = (2, 17)
AFTER_A_STOP = (
    "No file was left half written. What a host had begun may still be running there. The same command does the rest."
)

tokens_read = RunMemory()
"""What was read from a token store, for all hosts."""
_next_turn = multiprocessing.get_context("fork").Value("d", 0.0)  # when the next request may go out, time.monotonic()


def wait_for_turn(requests: int, rate: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until a host may send its requests, when all hosts of the run send at most ``rate`` a second together.

    Args:
        requests: how many this host is going to send.
        rate: requests a second; 0: as many as there are.
        sleep: waits for seconds.

    Raises:
        ValueError: that is no rate.
    """
    if not 0 <= rate < math.inf:
        raise ValueError("not a rate")
    if rate == 0 or requests <= 0:
        return
    with _next_turn.get_lock():
        now = time.monotonic()
        begin = max(now, _next_turn.value)
        _next_turn.value = begin + requests / rate
    sleep(begin - now)


def report_progress(task: Any, hosts: Sequence[str], took_long: bool | None = None) -> None:
    """Count one more host as done, and say how many are: of a large fleet every tenth part of it.

    Args:
        task: the task.
        hosts: all that it runs on.
        took_long: whether this host took so long that it is worth a word in a small fleet as well; None: no host does.
    """
    total = len(hosts)
    if total <= (LARGE if took_long is None else 1):
        return
    with contextlib.suppress(OSError):  # no word about it is worth a failure
        done = _count(str(task._uuid))
        step = -(-total // STEPS)
        due = took_long if total <= LARGE else done % step == 0 or done == total
        if due and done <= total:  # a loop goes beyond it
            tell(f"{task.get_name()}: {done} of {total} hosts")


def tell(text: str) -> None:
    """Print a line about work that takes long, unless the callback of this collection does that in its own way."""
    if not lab_callback_prints():
        Display().display(text)


def lab_callback_prints() -> bool:
    """Return whether the callback of this collection prints what happens; with -v, Ansible's own does."""
    return constants.DEFAULT_STDOUT_CALLBACK == "connectomics.cave.lab" and not Display().verbosity


def require_whole_run() -> None:
    """Raise AnsibleError for options that Ansible reads as other than they look.

    It would look like success to leave out parts of the collection's playbooks. And a limit that names no host, such as
    a file that is empty or a shell's variable that is not set, lets Ansible take all hosts.
    """
    given = context.CLIARGS
    limit = given.get("subset")
    if limit is not None and not any(map(_names_hosts, split_host_pattern(limit))):
        raise AnsibleError(
            f"--limit {limit or repr(limit)} names no host, and Ansible would take all of them. Name hosts, or leave "
            "--limit out."
        )
    playbooks = [str(name) for name in given.get("args", ())]
    if not all(name.startswith("connectomics.cave.") for name in playbooks):
        return  # a playbook of the user's own may have parts of its own to begin at, or to skip
    if given.get("start_at_task"):
        raise AnsibleError(
            "--start-at-task leaves out what the later tasks need. Run it without: what is done already is found, and "
            "stays as it is. To run a part of a playbook, name tags: --list-tags shows those that there are."
        )
    for tag in {"always", "tagged"} & set(given.get("skip_tags", ())):
        raise AnsibleError(f"--skip-tags {tag} leaves out the report, and with it whether all is well. Run it without.")


def _names_hosts(pattern: str) -> bool:
    if pattern.startswith("@"):
        with contextlib.suppress(OSError):  # Ansible has said so
            return bool(Path(pattern[1:]).read_bytes().strip())
    return bool(pattern.strip())


def require_core() -> None:
    """Raise AnsibleError when ansible-core is older than the collection supports: Ansible itself only warns."""
    found = re.match(r"(\d+)\.(\d+)", release.__version__)
    if found and (int(found[1]), int(found[2])) < OLDEST_CORE:
        raise AnsibleError(
            f"connectomics.cave needs ansible-core {'.'.join(map(str, OLDEST_CORE))} or later; this is "
            f"{release.__version__}. Install a newer one: "
            "python3 -m venv ~/ansible && ~/ansible/bin/pip install ansible-core"
        )


def explain_interruption() -> None:
    """Let a run that is interrupted (Ctrl-C) end in a line on what that means. Called by the main process."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or getattr(before, "explains", False) or lab_callback_prints():
        return
    own = os.getpid()

    def handle(number: int, frame: Any) -> Any:
        if os.getpid() == own:
            atexit.register(Display().display, f"Interrupted. {AFTER_A_STOP}")
        return before(number, frame)

    handle.explains = True  # type: ignore[attr-defined]
    with contextlib.suppress(ValueError):  # in a thread of another program
        signal.signal(signal.SIGINT, handle)


def _count(key: str) -> int:
    """Return how often this was called in this run with the same key: each call adds a byte to a file."""
    # The folder is that of the run, whose end removes it.
    path = Path(str(constants.DEFAULT_LOCAL_TMP), f"cave-{key}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, b".")
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)


def claim(key: str, name: str) -> bool:
    """Return whether this host is the first of the run that claims a name; ``key`` is that of the task."""
    digest = hashlib.sha256(f"{key} {name}".encode()).hexdigest()
    path = Path(str(constants.DEFAULT_LOCAL_TMP), f"cave-claim-{digest}")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        return False
    return True
