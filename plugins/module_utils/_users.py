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
from typing import Any, Callable, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unforeseen

_CHILDREN_AT_ONCE = 16
_MAX_ANSWER = 16 * 1024 * 1024
"""Bytes; more than any user's files can make a function say."""


class Job(NamedTuple):
    """A function to run as a user; what it returns must be JSON-able."""

    user: pwd.struct_passwd
    function: Callable[[], Any]


class _Child(NamedTuple):
    number: int
    pid: int
    deadline: float
    answer: bytearray


def find_user(name: str) -> pwd.struct_passwd:
    """Return the account of a user name of this host.

    Raises:
        CaveError: there is no such user (then ``details`` has ``unknown_user``), or this process may not work for that
            user.
    """
    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        message = f"This host has no user {name!r}. Create the account first, or correct the name."
        raise CaveError(message, unknown_user=name) from error
    if os.geteuid() not in (0, user.pw_uid):
        me = current_user().pw_name
        raise CaveError(f"Running as {me}, which cannot work for {name}. Run the task with become: true.")
    return _at_home(user)


def find_users(names: Iterable[str]) -> dict[str, pwd.struct_passwd | CaveError]:
    """Return the account of each user name, or why there is none that this process can work for."""
    found: dict[str, pwd.struct_passwd | CaveError] = {}
    for name in names:
        if name not in found:
            try:
                found[name] = find_user(name)
            except CaveError as error:
                found[name] = error
    return found


def shown(name: str) -> str:
    """Return a user name as messages have it: one that would do something to a terminal is written with escapes."""
    return name if name.isprintable() else ascii(name)


def current_user() -> pwd.struct_passwd:
    """Return the account that this process runs as.

    Raises:
        CaveError: the user id has no account.
    """
    try:
        return _at_home(pwd.getpwuid(os.geteuid()))
    except KeyError as error:
        raise CaveError(
            f"The user id {os.geteuid()} of this process has no account on this host. "
            "Create one, or run as another user."
        ) from error


def _at_home(user: pwd.struct_passwd) -> pwd.struct_passwd:
    """Return the account with the home directory that its programs go by: HOME, where this process is one of them.

    HOME is not believed where it belongs to somebody else: some set-ups of sudo leave it as it was.
    """
    home = os.environ.get("HOME", "")
    try:
        is_own = user.pw_uid == os.geteuid() and os.path.isabs(home) and os.stat(home).st_uid == user.pw_uid
    except OSError:
        is_own = False
    return pwd.struct_passwd((*user[:5], home, *user[6:])) if is_own else user


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
    A single job for the user that this process already is needs no child: then no ``timeout`` holds, and a home that
    hangs would have hung whatever started this process.
    """
    if len(jobs) == 1 and jobs[0].user.pw_uid == os.geteuid():
        return [_unpacked(_answer(jobs[0]))]
    results: list[Any] = [None] * len(jobs)
    running: dict[int, _Child] = {}  # by the pipe that brings the answer
    waiting = list(range(len(jobs)))[::-1]
    while waiting or running:
        while waiting and len(running) < _CHILDREN_AT_ONCE:
            number = waiting.pop()
            try:
                pipe, pid = _start(jobs[number], list(running))
            except OSError as error:
                reason = f"{error.strerror}. Run this again when the host has room for more processes."
                results[number] = CaveError(
                    f"Cannot start a process that works as {jobs[number].user.pw_name}: {reason}"
                )
            else:
                running[pipe] = _Child(number, pid, time.monotonic() + timeout, bytearray())
        for pipe in _readable(running):
            child = running[pipe]
            chunk = os.read(pipe, 65536)
            child.answer.extend(chunk)
            if not chunk or len(child.answer) > _MAX_ANSWER:
                _end(running.pop(pipe), pipe)
                results[child.number] = _result(bytes(child.answer), jobs[child.number].user)
        for pipe, child in list(running.items()):
            if time.monotonic() >= child.deadline:
                _end(running.pop(pipe), pipe)
                user = jobs[child.number].user
                results[child.number] = CaveError(
                    f"The file system of {user.pw_name}'s home ({user.pw_dir}) did not answer within {timeout:g} s. "
                    "Is a network home hanging? Run this again when it answers."
                )
    return results


def _readable(running: dict[int, _Child]) -> list[int]:
    """Wait for an answer, or for the first deadline."""
    if not running:
        return []
    patience = min(child.deadline for child in running.values()) - time.monotonic()
    return select.select(list(running), [], [], max(0.0, patience))[0]


def _start(job: Job, pipes: list[int]) -> tuple[int, int]:
    """Start a job; return the pipe that brings its answer, and its process id. ``pipes`` are those of other jobs."""
    # The groups are looked up before the fork: name services may hold locks that a forked child never gets.
    groups = os.getgrouplist(job.user.pw_name, job.user.pw_gid) if os.geteuid() == 0 else None
    pipe, child_end = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(pipe)
        os.close(child_end)
        raise
    if pid:
        os.close(child_end)
        return pipe, pid
    try:
        for other in [*pipes, pipe]:  # a process of one user has no business with the answers of another
            os.close(other)
        remaining = json.dumps(_answer(job, groups, to_become=True)).encode()
        while remaining:
            remaining = remaining[os.write(child_end, remaining) :]
    finally:
        os._exit(0)


def _answer(job: Job, groups: list[int] | None = None, to_become: bool = False) -> dict[str, Any]:
    """Run a job's function, after becoming its user for good where that is not who this process is."""
    umask = os.umask(0o077)
    try:
        if groups is not None:
            # macOS takes no more than 16; without the others, a process may do less, and never more.
            os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])
            os.setgid(job.user.pw_gid)
            os.setuid(job.user.pw_uid)
        if to_become:
            os.chdir("/")
        return {"result": job.function()}
    except CaveError as error:
        return {"error": error.message, "details": error.details}
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent must hear of it, without a value from a file)
        return {"error": unforeseen(error), "details": {}}
    finally:
        os.umask(umask)


def _end(child: _Child, pipe: int) -> None:
    """End a child that is done, or shall be. One that hangs in the kernel is left to it: waiting would hang us too."""
    os.close(pipe)
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 0.1
    while not os.waitpid(child.pid, os.WNOHANG)[0] and time.monotonic() < deadline:
        time.sleep(0.0001)


def _result(answer: bytes, user: pwd.struct_passwd) -> Any:
    try:
        content = json.loads(answer)
    except ValueError:
        return CaveError(
            f"The process that worked as {user.pw_name} ended without an answer. Was it killed? Run this again."
        )
    return _unpacked(content)


def _unpacked(content: dict[str, Any]) -> Any:
    if "error" in content:
        return CaveError(content["error"], **content["details"])
    return content["result"]
