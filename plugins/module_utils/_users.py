# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work done as another user, so that the kernel enforces that user's permissions."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import select
import signal
import time
from typing import Any, Callable, Iterable, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unexpected
from ansible_collections.connectomics.cave.plugins.module_utils._text import system_name

PATIENCE = 30.0
"""Seconds for one account. A module works as its users twice at most: less than the 120 s of the role's tasks."""
_CHILDREN_AT_ONCE = 16
_HANGS_AFTER = 1.0
"""Seconds after which a child counts as one that waits for a file system."""
_MOST_CHILDREN = 256
_USUAL_LIMIT = 1024
_MAX_ANSWER = 16 * 1024 * 1024
"""Bytes; more than any user's files can make a function say."""


class Job(NamedTuple):
    """A function to run as a user; what it returns must be JSON-able."""

    user: pwd.struct_passwd
    function: Callable[[], Any]


_NO_ID = 2**32 - 1
"""What setuid and setgid refuse on every system."""


class _Child(NamedTuple):
    number: int
    pid: int
    start: float
    answer: bytearray


def find_user(name: str) -> pwd.struct_passwd:
    """Return the account of a user name of this host.

    Raises:
        CaveError: there is no such user (then ``details`` has ``unknown_user``, unless it is clear who was meant), or
            this process may not work for that user.
    """
    try:
        user = pwd.getpwnam(system_name(name))
    except (KeyError, ValueError) as error:
        from ansible_collections.connectomics.cave.plugins.module_utils._similar import account_meant

        meant = account_meant(name)
        if meant:
            raise CaveError(f"This host has no user {name!r}. Did you mean {meant}?") from error
        message = f"This host has no user {name!r}. Create the account first, or correct the name."
        raise CaveError(message, unknown_user=name) from error
    if os.geteuid() not in (0, user.pw_uid):
        me = current_user().pw_name
        remedy = "Run the task as root: become: true, and no other become_user."
        raise CaveError(f"Running as {me}, which cannot work for {name}. {remedy}")
    return user_at_home(user)


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
    account = _current_account()
    if account is None:
        raise CaveError(
            f"The user id {os.geteuid()} of this process has no account on this host. "
            "Create one, or run as another user."
        )
    return user_at_home(account)


def _current_account() -> pwd.struct_passwd | None:
    """Return the account of this process: of several with its user id, the one that logged in."""
    for name in (os.environ.get("LOGNAME"), os.environ.get("USER")):
        with contextlib.suppress(KeyError, ValueError):
            account = pwd.getpwnam(name or "")
            if account.pw_uid == os.geteuid():
                return account
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid())
    return None


def user_at_home(user: pwd.struct_passwd) -> pwd.struct_passwd:
    """Return the account with the home directory that its programs go by: HOME, where this process is one of them.

    HOME is not believed where it belongs to somebody else: some set-ups of sudo leave it as it was. Nor is it that of
    another account which has the same user id.
    """
    home = os.environ.get("HOME", "")
    try:
        is_own = user.pw_uid == os.geteuid() and os.path.isabs(home) and os.stat(home).st_uid == user.pw_uid
    except OSError:
        is_own = False
    account = _current_account() if is_own else None
    return pwd.struct_passwd((*user[:5], home, *user[6:])) if account and account.pw_name == user.pw_name else user


_imported: list[str] = []
"""Archives of which everything is imported."""


def run_as(user: pwd.struct_passwd, function: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Run ``function`` in a child process that has become ``user``, and return its result.

    Raises:
        CaveError: the function raised it, failed in an unexpected way, or took more than ``timeout`` seconds.
    """
    result = run_each_as([Job(user, function)], timeout)[0]
    if isinstance(result, CaveError):
        raise result
    return result


def run_each_as(jobs: list[Job], timeout: float = PATIENCE) -> list[Any]:
    """Run every job in a child process of its own, some at a time, and return the results in the jobs' order.

    A job that fails, or takes more than ``timeout`` seconds, has its CaveError as the result: it stops no other, nor
    does it keep others waiting: all that hang are waited for at the same time (256 of them). A single job for the user
    that this process already is, at this process's home, needs no child: then no ``timeout`` holds, and a home that
    hangs would have hung whatever started this process.
    """
    if len(jobs) == 1 and jobs[0].user.pw_uid == os.geteuid() and jobs[0].user.pw_dir == os.environ.get("HOME"):
        return [_unpacked(_answer(jobs[0]))]
    results: list[Any] = [None] * len(jobs)
    running: dict[int, _Child] = {}  # by the pipe that brings the answer
    waiting = list(range(len(jobs)))[::-1]
    while waiting or running:
        while waiting and _has_room(running):
            number = waiting.pop()
            try:
                pipe, pid = _start(jobs[number])
            except OSError as error:
                if running:
                    waiting.append(number)  # for the time when one of these has ended: files or processes are limited
                    break
                reason = f"{error.strerror}. Run this again when the host has room for more processes."
                results[number] = CaveError(
                    f"Cannot start a process that works as {jobs[number].user.pw_name}: {reason}"
                )
            else:
                running[pipe] = _Child(number, pid, time.monotonic(), bytearray())
        for pipe in _readable(running, timeout, bool(waiting)):
            child = running[pipe]
            chunk = os.read(pipe, 65536)
            child.answer.extend(chunk)
            if not chunk or len(child.answer) > _MAX_ANSWER:
                _end(running.pop(pipe), pipe)
                results[child.number] = _result(bytes(child.answer), jobs[child.number].user)
        for pipe, child in list(running.items()):
            if time.monotonic() >= child.start + timeout:
                _end(running.pop(pipe), pipe)
                user = jobs[child.number].user
                results[child.number] = CaveError(
                    f"The file system of {user.pw_name}'s home ({user.pw_dir}) did not answer within {timeout:g} s. "
                    "Is a network home hanging? Run this again when it answers.",
                    hangs=user.pw_dir,
                )
    return results


def _has_room(running: Mapping[int, _Child]) -> bool:
    """Return whether one more child may be started: those that hang use no processor, and are not to hold up others."""
    busy = sum(time.monotonic() - child.start < _HANGS_AFTER for child in running.values())
    return busy < _CHILDREN_AT_ONCE and len(running) < _MOST_CHILDREN


def _readable(running: Mapping[int, _Child], timeout: float, others_wait: bool) -> list[int]:
    """Wait for an answer, for the first deadline, or until others that wait may start; return the pipes to read."""
    if not running:
        return []
    patience = min(child.start for child in running.values()) + timeout - time.monotonic()
    if others_wait:
        patience = min(patience, _HANGS_AFTER / 4)
    poll = select.poll()
    for pipe in running:
        poll.register(pipe, select.POLLIN)
    return [pipe for pipe, _event in poll.poll(max(0.0, patience) * 1000)]


def _import_what_came_along() -> None:
    """Import all of this collection that came in Ansible's archive, which users may not read."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    if archive is None or archive in _imported:
        return
    _imported.append(archive)
    # Needed where modules are sent Ansible's own way alone.
    import importlib
    import zipfile

    with zipfile.ZipFile(archive) as packed:
        names = [name[:-3].replace("/", ".") for name in packed.namelist() if name.endswith(".py")]
    for name in names:
        if name.startswith(__name__.rpartition(".")[0]) and not name.endswith("__init__"):
            importlib.import_module(name)


def _import_what_users_may_not_read() -> None:
    """Import what is imported only where it is needed, where Python's own folder is closed to users."""
    place = os.path.dirname(os.path.realpath(os.__file__))
    while place != "/" and os.stat(place).st_mode & 0o001:
        place = os.path.dirname(place)
    if place != "/":
        import glob  # noqa: F401
        import grp  # noqa: F401
        import urllib.parse  # noqa: F401


def _start(job: Job) -> tuple[int, int]:
    """Start a job; return the pipe that brings its answer, and its process id."""
    # The groups are looked up before the fork: name services may hold locks that a forked child never gets.
    changes = os.geteuid() == 0 and job.user.pw_uid != 0
    groups = _groups_of(job.user) if changes else None
    if changes:
        _import_what_came_along()
    opened = [os.open(os.devnull, os.O_RDWR)]  # here, since where few files may be open the child could open no more
    try:
        opened += os.pipe()
        pid = os.fork()
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    nowhere, pipe, child_end = opened
    if pid:
        os.close(nowhere)
        os.close(child_end)
        return pipe, pid
    try:
        os.close(pipe)
        _close_all_but(child_end, nowhere)
        remaining = json.dumps(_answer(job, groups, to_become=True)).encode()
        while remaining:
            remaining = remaining[os.write(child_end, remaining) :]
    finally:
        os._exit(0)


def _groups_of(user: pwd.struct_passwd) -> list[int]:
    """Return the user's groups; the primary one alone where the name cannot be looked up, which is never too much."""
    try:
        # Python asks for the UTF-8 form of this text, unlike that of all other names.
        return os.getgrouplist(os.fsencode(user.pw_name).decode("utf-8"), user.pw_gid)
    except UnicodeError:
        return [user.pw_gid]


def _close_all_but(kept: int, nowhere: int) -> None:
    """Close what a child has of its parent's files; ``nowhere`` takes the place of its standard streams.

    The pipes of other users' answers are none of its business. And whoever waits for the end of the parent's output,
    such as sshd, would wait for a child that the kernel does not let go: on a file system that hangs, nothing ends it.
    """
    try:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:  # a chroot without /proc
        descriptors = list(range(_USUAL_LIMIT))
    for standard in {0, 1, 2} - {kept}:  # kept open, so that no other file gets their numbers
        os.dup2(nowhere, standard)
    for descriptor in set(descriptors) - {0, 1, 2, kept}:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _answer(job: Job, groups: list[int] | None = None, to_become: bool = False) -> dict[str, Any]:
    """Run a job's function, after becoming its user for good where that is not who this process is."""
    umask = os.umask(0o077)
    try:
        if groups is not None:
            _import_what_users_may_not_read()
            _become(job.user, groups)
        if to_become:
            os.chdir("/")
        return {"result": job.function()}
    except CaveError as error:
        return {"error": error.message, "details": error.details}
    except Exception as error:  # noqa: BLE001 (the parent must hear of any, without a value from a file)
        return {"error": unexpected(error), "details": {}}
    finally:
        os.umask(umask)


def _become(user: pwd.struct_passwd, groups: list[int]) -> None:
    try:
        # macOS takes no more than 16; without the others, a process may do less, and never more.
        os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except (OSError, OverflowError) as error:
        if {user.pw_uid, user.pw_gid} & {-1, _NO_ID}:  # the module pwd says -1
            raise CaveError(
                f"Cannot work as {user.pw_name}: the account has the user or group id {_NO_ID}, which no process can "
                "have, as it means 'none' to the system. Give the account another one."
            ) from error
        reason = os.strerror(getattr(error, "errno", 0) or errno.EINVAL)
        raise CaveError(
            f"Cannot work as {user.pw_name}: this host does not let root change to user id {user.pw_uid} or its "
            f"groups ({reason}), as in a container without other users' ids. "
            f"Run the task as {user.pw_name}, without become."
        ) from error


def _end(child: _Child, pipe: int) -> None:
    """End a child that is done, or is to be. One that hangs in the kernel is left to it: waiting would hang us too."""
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
