# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work done as another user, so that the kernel enforces that user's permissions."""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_CHILDREN_AT_ONCE = 16


class Job(NamedTuple):
    """A function to run as a user; what it returns must be JSON-able."""

    user: pwd.struct_passwd
    function: Callable[[], Any]


class _Child(NamedTuple):
    number: int
    pid: int
    deadline: float


def find_user(name: str) -> pwd.struct_passwd:
    """Return the account of a user name of this host.

    Raises:
        CaveError: there is no such user, or this process may not work for that user.
    """
    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise CaveError(f"This host has no user {name!r}. Create the account first, or correct the name.") from error
    if os.geteuid() not in (0, user.pw_uid):
        me = current_user().pw_name
        raise CaveError(f"Running as {me}, which cannot work for {name}. Run the task with become: true.")
    return user


def current_user() -> pwd.struct_passwd:
    """Return the account that this process runs as.

    Raises:
        CaveError: the user id has no account.
    """
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise CaveError("The user id %d of this process has no account on this host." % os.geteuid()) from error


def run_as(user: pwd.struct_passwd, function: Callable[[], Any], timeout: float = 60) -> Any:
    """Run ``function`` in a child process that has become ``user``, and return its result.

    Raises:
        CaveError: the function raised it, failed in an unforeseen way, or took more than ``timeout`` seconds.
    """
    result = run_each_as([Job(user, function)], timeout)[0]
    if isinstance(result, CaveError):
        raise result
    return result


def run_each_as(jobs: list[Job], timeout: float = 60) -> list[Any]:
    """Run every job in a child process of its own, some at a time, and return the results in the jobs' order.

    A job that fails, or takes more than ``timeout`` seconds, has its CaveError as the result: it stops no other.
    """
    results: list[Any] = [None] * len(jobs)
    running: dict[int, _Child] = {}
    answers: dict[int, bytearray] = {}
    waiting = list(range(len(jobs)))[::-1]
    while waiting or running:
        while waiting and len(running) < _CHILDREN_AT_ONCE:
            number = waiting.pop()
            pipe, pid = _start(jobs[number])
            running[pipe] = _Child(number, pid, time.monotonic() + timeout)
            answers[pipe] = bytearray()
        patience = max(0.0, min(child.deadline for child in running.values()) - time.monotonic())
        for pipe in select.select(list(running), [], [], patience)[0]:
            chunk = os.read(pipe, 65536)
            answers[pipe] += chunk
            if not chunk:
                child = running.pop(pipe)
                os.close(pipe)
                _end(child.pid)
                results[child.number] = _result(bytes(answers.pop(pipe)), jobs[child.number].user)
        for pipe, child in list(running.items()):
            if time.monotonic() >= child.deadline:
                del running[pipe]
                os.close(pipe)
                _end(child.pid)
                results[child.number] = CaveError(
                    "The file system of %s's home (%s) did not answer within %d s. Is a network home hanging?"
                    % (jobs[child.number].user.pw_name, jobs[child.number].user.pw_dir, timeout)
                )
    return results


def _start(job: Job) -> tuple[int, int]:
    # The groups are looked up before the fork: name services may hold locks that a forked child never gets.
    groups = os.getgrouplist(job.user.pw_name, job.user.pw_gid) if os.geteuid() == 0 else None
    pipe, child_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(child_end)
        return pipe, pid
    try:
        os.close(pipe)
        if groups is not None:
            os.setgroups(groups)
            os.setgid(job.user.pw_gid)
            os.setuid(job.user.pw_uid)
        os.umask(0o077)
        os.chdir("/")
        try:
            answer = {"result": job.function()}
        except CaveError as error:
            answer = {"error": error.message, "details": error.details}
        except Exception as error:  # whatever it is, the parent must hear of it, and without a value from a file
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            place = "%s:%d" % (os.path.basename(where.tb_frame.f_code.co_filename), where.tb_lineno) if where else "?"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            answer = {"error": f"Unforeseen error at {place}: {reason}. Please report it.", "details": {}}
        remaining = json.dumps(answer).encode()
        while remaining:
            remaining = remaining[os.write(child_end, remaining) :]
    finally:
        os._exit(0)


def _end(pid: int) -> None:
    """End a child of ours. One that hangs in the kernel is left to it: waiting for it would hang us too."""
    for _attempt in range(50):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _result(answer: bytes, user: pwd.struct_passwd) -> Any:
    try:
        content = json.loads(answer)
    except ValueError:
        return CaveError(f"The process that worked as {user.pw_name} ended without an answer. Was it killed?")
    if "error" in content:
        return CaveError(content["error"], **content["details"])
    return content["result"]
