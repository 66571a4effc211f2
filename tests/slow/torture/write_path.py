# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks on the path by which tokens are written into homes."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from caveclient_environments import caveclient_python
from homes import (
    DEFAULT_FILE,
    LEGACY_FILE,
    LOCAL_FILE,
    NEW_TOKEN,
    OLD_TOKEN,
    OTHER_TOKEN,
    SERVER,
    SERVER_FILE,
    SERVER_MAP,
    User,
    fill,
    picture,
    real_group,
    real_user,
    secrets_of,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torture.attacks import Report, Short, attack
from torture.tracing import CALLS, failing_at, killed_at, modes_given, points, traced

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import json_edit as _json_edit
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import writer as _writer
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request

QUARANTINED = ".malformed-"


def request(token: str | None = NEW_TOKEN, key: str = "token") -> Request:
    """A request for the default server."""
    return Request(SERVER, parse_datastacks(["minnie65_public"], SERVER), key, token)


def save(home: Home, requests: list[Request]) -> list[dict[str, Any]]:
    """Save, and raise what a file that stands in the way of a request has to say."""
    results = _writer.save(home, requests, "update", check_mode=False)
    for result in results:
        if result.get("failed"):
            raise CaveError(result["msg"])
    return results


def home_at(folder: Path, **more: Any) -> Home:
    """The home of whoever runs the attack. ``CLOUD_VOLUME_DIR`` is not looked for."""
    return Home("me", os.geteuid(), str(folder), **{"cloud_volume_dir": "", **more})


@contextmanager
def scratch(below: str | None = None) -> Iterator[Path]:
    """A folder that every user may enter, on a file system in memory where there is one."""
    memory = "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=below or (memory if os.access(memory, os.W_OK) else None)))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# States to start from ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A home to start from, and what is then asked for."""

    name: str
    files: dict[str, Any]
    requests: tuple[Request, ...] = (request(),)
    modes: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, folder: Path) -> Path:
        """Make the home anew; return it."""
        home = folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        if self.files:
            fill(home, self.files)
        for name, mode in self.modes.items():
            (home / name).chmod(mode)
        return home

    def save(self, home: Path) -> list[dict[str, Any]]:
        """Do what is asked for."""
        options = {**self.options}
        if "cloud_volume_dir" in options:
            options["cloud_volume_dir"] = str(home / options["cloud_volume_dir"])
        if "group" in options:
            options["group"] = os.getegid()
        return save(home_at(home, **options), list(self.requests))


OLD = {"token": OLD_TOKEN, "brain_and_nerve_cord": OTHER_TOKEN}
EVERYWHERE = dict.fromkeys((SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, LEGACY_FILE), OLD)
STATES = (
    State("create", {}),
    State("replace", EVERYWHERE),
    State("carry-over", {LEGACY_FILE: OLD}),
    State(
        "repair",
        {name: {"token": NEW_TOKEN} for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE)},
        modes={".cloudvolume": 0o777, ".cloudvolume/secrets": 0o755, f".cloudvolume/secrets/{DEFAULT_FILE}": 0o644},
    ),
    State("set-aside", {DEFAULT_FILE: '{"token": "cut', SERVER_FILE: OLD}, options={"on_malformed": "replace"}),
    State("absent", {**EVERYWHERE, f"{DEFAULT_FILE}~": OLD_TOKEN, SERVER_FILE: {"token": OLD_TOKEN}}, (request(None),)),
    State("two-directories", EVERYWHERE, options={"cloud_volume_dir": "data"}),
    State(
        "two-servers",
        {DEFAULT_FILE: OLD},
        (request(), Request("https://proofreading.zetta.ai", [], "token", OTHER_TOKEN)),
    ),
    State("group", EVERYWHERE, options={"mode": 0o640, "group": True}),
)


def contents(home: Path) -> dict[str, bytes]:
    """The regular files of a home, but for the lock and what killed runs leave."""
    return {
        path: content
        for path, (kind, *_rest, content) in picture(home).items()
        if kind == "-" and not _directory.TEMPORARY.fullmatch(Path(path).name)
    }


def litter(home: Path) -> list[str]:
    """What killed runs leave."""
    return [path.name for path in home.rglob("*") if _directory.TEMPORARY.fullmatch(path.name)]


def is_whole(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """Say which file is neither as before nor as after, empty when all is well."""
    for path in {*found, *before, *after}:
        is_set_aside = path not in found and found.get(f"{path}{QUARANTINED}1") == before.get(path)
        if found.get(path) not in (before.get(path), after.get(path)) and not is_set_aside:
            return f"{path} is neither old nor new: {found.get(path)!r}"
    return ""


def _reference(state: State, folder: Path) -> tuple[dict[str, bytes], dict[str, bytes], Any]:
    """The files of a state before and after, and the picture after."""
    home = state.make(folder)
    before = contents(home)
    state.save(home)
    return before, contents(home), _without_owners(home)


def _without_owners(home: Path) -> dict[str, Any]:
    return {path: (kind, mode, content) for path, (kind, mode, _uid, _gid, content) in picture(home).items()}


def thinned(found: list[Any], scale: float) -> list[Any]:
    return found if scale >= 1 else found[:: max(1, round(1 / scale))]


# The attacks ---------------------------------------------------------------------------------------------------------


@attack(
    "never-readable",
    "A secret is never readable by others, not for an instant",
    "the system calls of every kind of write, under umask 000: no file or directory is made wider than 0600 or 0700",
    fewest=100,
    short=Short(1.0, 100),
    needs=["strace"],
)
def never_readable_by_others(report: Report, scale: float) -> None:
    """Read from the system calls whether there is a moment at which others could read."""
    with scratch() as folder:
        for state in STATES:
            allowed = 0o050 if "group" in state.options else 0
            home = state.make(folder)
            trace = traced(partial(state.save, home), "-e", f"trace={CALLS}", umask=0)
            report.check(trace.answer is not None and "result" in trace.answer, f"{state.name}: {trace.answer}")
            renamed = synced = False
            for call in trace.calls:
                synced = synced and "O_CREAT" not in call
                if "rename" in call:
                    report.check(
                        synced or QUARANTINED in call, f"{state.name}: renamed before it is on the disk: {call}"
                    )
                    renamed, synced = True, False
                synced = synced or "fsync(" in call
            for call, mode in modes_given(trace.calls):
                report.tries += 1
                # The folder that holds the directory of secrets files may be read by all, if none can change it.
                above = mode == 0o755 and state.name == "repair"
                report.check(mode & 0o077 & ~allowed == 0 or above, f"{state.name}: {call}")
            report.check(renamed or state.name in ("absent", "repair"), f"{state.name}: nothing was renamed")
            for path, (kind, mode, *_rest) in picture(home, besides=()).items():
                if kind != "d":
                    report.tries += 1
                    report.check(mode & 0o077 & ~allowed == 0, f"{state.name}: {path} has mode {mode:04o}")


@attack(
    "kill",
    "A file is the old or the new one, whole, and the next run cleans up",
    "SIGKILL at every system call of every kind of write",
    fewest=500,
    short=Short(0.1, 140),
    needs=["strace"],
)
def killed_anywhere(report: Report, scale: float) -> None:
    """Kill a save at each of its system calls, look at what is left, and run it again."""
    with scratch() as folder:
        for state in STATES:
            before, after, final = _reference(state, folder)
            home = state.make(folder)
            for point in thinned(points(partial(state.save, home)), scale):
                home = state.make(folder)
                trace = killed_at(point, partial(state.save, home))
                report.tries += 1
                where = f"{state.name}, {point}"
                report.check(trace.answer is None, f"{where}: not killed: {trace.answer}")
                report.check(
                    not is_whole(contents(home), before, after), f"{where}: {is_whole(contents(home), before, after)}"
                )
                for name in litter(home):
                    mode = stat.S_IMODE(next(home.rglob(name)).stat().st_mode)
                    report.check(mode & 0o077 & ~0o040 == 0, f"{where}: {name} with mode {mode:04o}")
                try:
                    state.save(home)
                except CaveError as error:
                    report.check(False, f"{where}: the next run fails: {error.message}")
                    continue
                report.check(not litter(home), f"{where}: {litter(home)} stays")
                report.check(_without_owners(home) == final, f"{where}: the next run ends otherwise")


ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EMFILE")


@attack(
    "faults",
    "A fault leaves every file whole, no litter, and a clear error",
    f"{', '.join(ERRORS)} at every system call of every kind of write",
    fewest=7500,
    short=Short(0.02, 160),
    needs=["strace"],
)
def faults_anywhere(report: Report, scale: float) -> None:
    """Let each system call of a save fail with each error."""
    ends: Counter[str] = Counter()
    with scratch() as folder:
        for state in STATES:
            before, after, final = _reference(state, folder)
            calls = [point for point in points(partial(state.save, state.make(folder))) if point.can_fail]
            for point, error in thinned(list(itertools.product(calls, ERRORS)), scale):
                home = state.make(folder)
                trace = failing_at(point, error, partial(state.save, home))
                where = f"{state.name}, {error} at {point}"
                if not trace.injected:
                    report.check(False, f"{where}: did not happen")
                    continue
                report.tries += 1
                answer = trace.answer or {"raised": "no answer"}
                ends[next(iter(answer))] += 1
                report.check("raised" not in answer, f"{where}: {answer.get('raised')}")
                report.check(not litter(home), f"{where}: {litter(home)} stays")
                torn = is_whole(contents(home), before, after)
                report.check(not torn, f"{where}: {torn}")
                if "closed to its user" in str(answer):
                    continue  # it says itself that this file could not be looked into
                if "result" in answer:
                    report.check(contents(home) == after, f"{where}: said to be well, and is not")
                elif "error" in answer:
                    message = answer["error"]
                    report.check(
                        "/" in message
                        and message.endswith(".")
                        and OLD_TOKEN not in message
                        and NEW_TOKEN not in message,
                        f"{where}: {message}",
                    )
                try:
                    state.save(home)
                except CaveError as failure:
                    report.check(False, f"{where}: the next run fails: {failure.message}")
                    continue
                report.check(_without_owners(home) == final, f"{where}: the next run ends otherwise")
    report.counts = dict(ends)


@attack(
    "file-systems",
    "A fault leaves every file whole, no litter, and a clear error",
    "a full file system, with less and less room, and one that is mounted read-only",
    fewest=90,
    short=Short(0.2, 27),
    needs=["root", "mounting"],
)
def real_file_systems(report: Report, scale: float) -> None:
    """Save on a full and on a read-only file system. Needs root, to mount them."""
    with scratch() as folder:
        mount = folder / "mounted"
        mount.mkdir()
        for state in STATES:
            for room in range(0, 40, max(1, round(4 / scale))):
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "none", str(mount)], check=True)
                try:
                    before, after, _final = _reference(state, mount)
                    home = state.make(mount)
                    with suppress(OSError), (mount / "filler").open("wb", buffering=0) as filler:
                        while True:
                            filler.write(b"x" * 4096)
                    with suppress(OSError):
                        os.truncate(mount / "filler", max(0, (mount / "filler").stat().st_size - room * 1024))
                    _save_against_odds(report, state, home, before, after, "No space left on device")
                finally:
                    subprocess.run(["umount", str(mount)], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", str(mount)], check=True)
            try:
                before, after, _final = _reference(state, mount)
                home = state.make(mount)
                subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
                everything = picture(home, besides=())
                _save_against_odds(report, state, home, before, after, "read-only mount", "mounted read-only")
                report.check(
                    picture(home, besides=()) == everything, f"{state.name}: changed on a read-only file system"
                )
            finally:
                subprocess.run(["umount", str(mount)], check=True)


def _save_against_odds(
    report: Report, state: State, home: Path, before: dict[str, bytes], after: dict[str, bytes], *reasons: str
) -> None:
    report.tries += 1
    try:
        state.save(home)
    except CaveError as error:
        report.check(
            any(reason in error.message for reason in reasons) and "again" in error.message,
            f"{state.name}: {error.message}",
        )
        report.counts["refused"] = report.counts.get("refused", 0) + 1
    else:
        report.counts["done"] = report.counts.get("done", 0) + 1
        report.check(contents(home) == after, f"{state.name}: said to be well, and is not")
    torn = is_whole(contents(home), before, after)
    report.check(not torn, f"{state.name}: {torn}")
    report.check(not litter(home), f"{state.name}: {litter(home)} stays")


# Planted links and races ---------------------------------------------------------------------------------------------


def _swap_for_ever(home: Path, targets: list[Path], seed: int) -> None:
    """What the attacker does, as the user: put anything in the place of anything, and mostly put it back at once.

    Without the second part no write would come far enough to be attacked where it is delicate.
    """
    dice = random.Random(seed)  # noqa: S311 (an attacker's dice)
    secrets = secrets_of(home)
    names = [SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, SERVER_MAP, _directory.LOCK_FILE]
    while True:
        with suppress(OSError):
            temporary = [name for name in os.listdir(secrets) if name.endswith(".tmp")]
            place = dice.choice(
                [secrets.parent, *[secrets] * 3, *[secrets / name for name in [*names, *temporary * 4]]]
            )
            target = dice.choice([*targets, Path("/nowhere"), home / "elsewhere"])
            if place.suffix in (".json", ".lock", ".tmp"):
                target = dice.choice([target, target / place.name])
            moved = place.with_name(f".{place.name}.{seed}")
            with suppress(OSError):
                os.rename(place, moved)
            with suppress(OSError):
                kind = dice.randrange(7)
                if kind < 3:
                    os.symlink(target, place)
                elif kind == 3:
                    os.link(target, place)
                elif kind == 4:
                    os.mkfifo(place)
                elif kind == 5:
                    os.mkdir(place)
            time.sleep(dice.random() * 0.001)
            if dice.randrange(10):
                _put_back(place, moved)
        if dice.randrange(40) == 0:
            shutil.rmtree(secrets.parent, ignore_errors=True)
            for path in home.glob(".cloudvolume*"):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):
            os.makedirs(secrets, 0o700)
        time.sleep(dice.random() * 0.004)


def _put_back(place: Path, moved: Path) -> None:
    for remove in (os.unlink, os.rmdir):
        with suppress(OSError):
            remove(place)
    with suppress(OSError):
        os.rename(moved, place)


@contextmanager
def _attacker(user: User, targets: list[Path], seed: int) -> Iterator[None]:
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            signal.alarm(1800)
            _swap_for_ever(user.home, targets, seed)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _everything(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names, inodes, modes, owners, sizes and times of change below a folder."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_nlink,
            status.st_mtime_ns,
        )
    return found


@attack(
    "races",
    "Work for a user reaches nothing that the user could not reach, and ends in time",
    "writes as root while two processes of the user swap directories, secrets files, lock and temporary names with "
    "links, hard links, FIFOs, directories and nothing",
    fewest=10_000,
    short=Short(0.02, 200),
    needs=["root"],
)
def planted_links_and_races(report: Report, scale: float) -> None:
    """Save as root for a user who swaps everything meanwhile. Needs root, to make users."""
    ends: Counter[str] = Counter()
    bound = _directory.LOCK_PATIENCE + 5
    slowest = 0.0
    with (
        scratch() as folder,
        real_group() as group,
        real_user(group, folder) as alice,
        real_user(group, folder, "bob") as bob,
    ):
        roots = folder / "roots"
        names = (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, SERVER_MAP, _directory.LOCK_FILE, "secrets/x.json")
        for owner, place, open_mode in ((0, roots, 0o755), (bob.uid, bob.home / "theirs", 0o711)):
            (place / "secrets").mkdir(parents=True)
            for name in names:
                (place / name).write_text(json.dumps({"token": OTHER_TOKEN}))
                (place / name).chmod(0o600)
                os.chown(place / name, owner, -1)
            for path in (place, place / "secrets"):
                path.chmod(open_mode)
                os.chown(path, owner, -1)
        before = {**_everything(roots), **_everything(bob.home)}
        entry = pwd.getpwnam(alice.name)
        tries = max(20, round(10_000 * scale))
        with _attacker(alice, [roots, bob.home / "theirs"], 1), _attacker(alice, [roots, bob.home / "theirs"], 2):
            for number in range(tries):
                home = Home(alice.name, alice.uid, str(alice.home), cloud_volume_dir="", on_malformed="replace")
                wanted = request(f"{NEW_TOKEN}{number % 7}") if number % 10 else request(None)
                started = time.monotonic()
                result = _users.run_each_as([_users.Job(entry, partial(save, home, [wanted]))])[0]
                taken = time.monotonic() - started
                slowest = max(slowest, taken)
                report.tries += 1
                report.check(taken < bound, f"took {taken:.1f} s")
                if isinstance(result, CaveError):
                    ends["refused"] += 1
                    report.check("Unexpected" not in result.message, result.message)
                    told = result.message
                else:
                    ends["done"] += 1
                    told = json.dumps(result)
                report.check(fingerprint(OTHER_TOKEN) not in told, f"read what the user cannot read: {told}")
        after = {**_everything(roots), **_everything(bob.home)}
        changed = [path for path in {*before, *after} if before.get(path) != after.get(path)]
        report.check(not changed, f"changed: {changed}")
        strangers = [str(path) for path in alice.home.rglob("*") if path.lstat().st_uid != alice.uid]
        report.check(not strangers, f"not the user's: {strangers}")
    report.counts = {**ends, "slowest_ms": round(slowest * 1000)}


# Together ------------------------------------------------------------------------------------------------------------


def _save_key(home: Path, number: int) -> None:
    """One of many writers: puts its own key into the files, some times over."""
    status = 0
    try:
        _directory.LOCK_PATIENCE = 60.0
        save(home_at(home), [request(f"{NEW_TOKEN}{number}", key=f"key{number}")])
    except CaveError as error:
        status = 1 if "Unexpected" not in error.message else 2
    except BaseException:  # noqa: BLE001 (counted by whoever started this)
        status = 2
    os._exit(status)


SAVE_TOKEN = """
import json, os, sys
from caveclient.auth import AuthClient
print("ready", flush=True)
for line in sys.stdin:
    os.environ["HOME"], server, tokens = json.loads(line)
    ready, go = os.pipe()
    children = []
    for key, token in tokens.items():
        child = os.fork()
        if not child:
            os.close(go)
            os.read(ready, 1)
            try:
                AuthClient(server_address=server, token="x").save_token(token, token_key=key, overwrite=True)
            except Exception:
                os._exit(1)  # it stumbles over the others of its kind, who write while it reads
            os._exit(0)
        children.append(child)
    os.close(ready)
    os.close(go)
    print(sum(os.waitpid(child, 0)[1] == 0 for child in children), flush=True)
"""
THEIRS = 20


@contextmanager
def _save_tokens(caveclient: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that calls the real save_token in processes of its own, as told on its standard input."""
    with subprocess.Popen(
        [caveclient, "-c", SAVE_TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        yield program


@attack(
    "together",
    "Two runs never lose each other's keys",
    "64 writers at once, each with a key of its own, on the same files",
    fewest=640,
    short=Short(0.1, 64),
)
def together(report: Report, scale: float) -> None:
    """Let 64 writers loose on the same files."""
    with scratch() as folder:
        for number in range(max(1, round(10 * scale))):
            _alone(report, folder / str(number))


@attack(
    "among-save-token",
    "caveclient's own save_token, which takes no lock, tears nothing of ours, and one more run makes all right",
    f"64 writers at once, {THEIRS} of them the real caveclient.auth.save_token",
    fewest=640,
    short=Short(0.1, 64),
    needs=["network"],
)
def among_save_token(report: Report, scale: float) -> None:
    """Let 44 writers of ours loose on the same files, and 20 of save_token, which takes no lock.

    Promised: nothing of ours is torn or left behind, ours end well or say why not, and one more run makes all right.
    Not promised: that save_token, which reads, waits and then writes, does not write over what came in between.
    """
    counts: Counter[str] = Counter()
    with scratch() as folder, _save_tokens(caveclient_python()) as program:
        for number in range(max(1, round(10 * scale))):
            _among_save_token(report, counts, folder / str(number), program)
    report.counts = dict(counts)


def _alone(report: Report, home: Path) -> None:
    home.mkdir()
    statuses = _all_at_once(partial(_save_key, home, number) for number in range(64))
    report.tries += 64
    report.check(statuses == [0] * 64, f"ours alone: {statuses}")
    for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE):
        found = json.loads((secrets_of(home) / name).read_text())
        lost = [number for number in range(64) if found.get(f"key{number}") != f"{NEW_TOKEN}{number}"]
        report.check(not lost, f"lost in {name}: {lost}")
    report.check(not litter(home), f"{litter(home)} stays")


def _among_save_token(report: Report, counts: Counter[str], home: Path, program: subprocess.Popen[str]) -> None:
    home.mkdir()
    tokens = {f"theirs{number}": OTHER_TOKEN for number in range(THEIRS)}
    assert program.stdin
    assert program.stdout
    program.stdin.write(json.dumps([str(home), SERVER, tokens]) + "\n")
    statuses = _all_at_once((partial(_save_key, home, number) for number in range(64 - THEIRS)), program.stdin.flush)
    counts["theirs done"] += int(program.stdout.readline())
    report.tries += 64
    counts["ours done"] += statuses.count(0)
    counts["ours refused, with the reason"] += statuses.count(1)
    report.check(set(statuses) <= {0, 1}, f"with save_token: {statuses}")
    report.check(not litter(home), f"{litter(home)} stays")
    save(home_at(home, on_malformed="replace"), [request()])
    for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE):
        path = secrets_of(home) / name
        found = json.loads(path.read_text())
        report.check(found["token"] == NEW_TOKEN, f"one more run does not make {name} right")
        report.check(stat.S_IMODE(path.stat().st_mode) == 0o600, f"{name} stays readable by others")
        counts["keys of ours that save_token wrote over"] += sum(
            f"key{number}" not in found for number in range(64 - THEIRS) if statuses[number] == 0
        )


def _all_at_once(functions: Iterable[Callable[[], None]], along: Callable[[], None] = lambda: None) -> list[int]:
    """Run functions in forks at the same moment, and start what goes along with them; return their exit statuses."""
    ready, go = os.pipe()
    pids = []
    for function in functions:
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(ready, 1)
            function()
            os._exit(3)
        pids.append(pid)
    os.close(ready)
    os.close(go)
    along()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


# Malformed files -----------------------------------------------------------------------------------------------------

_PIECES = [
    f'{{"token": "{OLD_TOKEN}"}}',
    '{"token": "a", "token": "b"}',
    '{"a": {"token": [1, 2.5e99, -0, NaN, Infinity]}, "token": null}',
    '{\n  "x": "\\ud800\\u0000\\udfff",\n\t"é": "\U0001f600"\n}\n',
    "[" * 2000,
    '{"a":' * 1500,
    '{"n": ' + "9" * 5000 + "}",
    "\ufeff{}",
    "{} {}",
    "{}",
    "null",
    "",
]
_NEAR_JSON = st.lists(
    st.sampled_from(_PIECES)
    | st.text(alphabet='{}[]":,\\u0d8 \n\t\ufeffNan1e', max_size=12)
    | st.sampled_from(['"token"', '"token": "x"', "{", "}", ",", ":", '"a": 1', "\\", "\x00", "//"]),
    max_size=6,
).map("".join)
_WHOLE = st.dictionaries(
    st.text(max_size=5) | st.just("token"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
).map(lambda value: json.dumps(value, indent=len(value) % 3 or None))
_CONTENT = st.binary(max_size=80) | (_NEAR_JSON | _WHOLE | _WHOLE).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@attack(
    "malformed",
    "A file that cannot be read is never changed, and what is kept is kept exactly",
    "saving over arbitrary bytes and near-JSON: duplicate keys, deep nesting, lone surrogates, NaN",
    fewest=20_000,
    short=Short(0.05, 1000),
)
def malformed_files(report: Report, scale: float) -> None:
    """Save over files of every content, or refuse to."""
    ends: Counter[str] = Counter()
    with scratch() as folder:
        secrets = secrets_of(folder)

        @settings(
            max_examples=max(50, round(20_000 * scale)),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            _CONTENT,
            st.sampled_from([SERVER_FILE, DEFAULT_FILE, LEGACY_FILE, SERVER_MAP]),
            st.sampled_from([NEW_TOKEN, None]),
        )
        def attack(raw: bytes, name: str, token: str | None) -> None:
            shutil.rmtree(secrets.parent, ignore_errors=True)
            fill(folder, {name: raw})
            report.tries += 1
            try:
                save(home_at(folder), [request(token)])
            except CaveError as error:
                ends["refused"] += 1
                report.check(
                    picture(secrets) == {name: ("-", 0o600, os.geteuid(), os.getegid(), raw)}, f"changed: {raw!r}"
                )
                report.check(OLD_TOKEN not in error.message, f"shown: {raw!r}")
            except BaseException as error:  # noqa: BLE001 (that is what is looked for)
                report.check(False, f"{error!r} for {raw!r}")
            else:
                ends["done"] += 1
                _check_kept(report, raw, secrets / name)

        attack()
    report.counts = dict(ends)


def _check_kept(report: Report, raw: bytes, path: Path) -> None:
    mine = ("token", "minnie65_public")
    try:
        text = raw.decode()
        kept = [
            (text[m.key_start : m.value_start], text[m.value_start : m.value_end])
            for m in _json_edit.members(text)
            if m.key not in mine
        ]
    except ValueError:
        report.check(path.exists() and path.read_bytes() == raw, f"malformed, of no concern, and changed: {raw!r}")
        return
    if not path.exists():
        report.check(not kept, f"removed with what was in it: {raw!r}")
        return
    text = path.read_bytes().decode()
    found = [
        (text[m.key_start : m.value_start], text[m.value_start : m.value_end])
        for m in _json_edit.members(text)
        if m.key not in mine
    ]
    report.check(found == kept, f"not kept: {raw!r}")
