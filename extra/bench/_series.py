# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured: the contestants of each series, and the ratios that are to be reached."""

from __future__ import annotations

import functools
import json
import os
import pwd
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctor_desk import DATASTACK, Desk

from cave_server import CaveServer

from ._lab import PYTHON, Bench, bench, with_caveclient, with_venv
from ._meter import BenchError, Sample

Contestant = Callable[[Any], Sample]
WRITE = (
    "sudo -u alice sh -c 'umask 077; cd; mkdir -p .cloudvolume/secrets; cat > .cloudvolume/secrets/cave-secret.json'"
)


@dataclass(frozen=True)
class Ratio:
    """One contestant divided by another.

    Attributes:
        about: what is compared, as the page says it.
        of: the contestant.
        to: the one that it is divided by; empty: none, the figure counts by itself.
        measure: wall, controller_cpu, hosts_cpu, cpu (both together), memory or largest.
        goal: what is to be reached at most; None: for information.
        factor: what the result is multiplied by; for a comparison of fleets, their sizes.
    """

    about: str
    of: str
    to: str
    goal: float | None = None
    measure: str = "wall"
    factor: float = 1.0


@dataclass(frozen=True)
class Series:
    """Contestants that take turns in one lab.

    Attributes:
        about: a title.
        contestants: by name.
        ratios: of their medians.
        place: brings up the lab, given a folder.
        rounds: how often each has its turn.
        warm_up: whether each has a turn before those that count, which fills all caches.
        hosts: how many, where all contestants run on the same number.
    """

    about: str
    contestants: Mapping[str, Contestant]
    ratios: tuple[Ratio, ...]
    place: Callable[[Path], AbstractContextManager[object]]
    rounds: int = 5
    warm_up: bool = True
    hosts: int = 0


def _play(name: str, **options: Any) -> Contestant:
    return lambda where: where.play(name, **{"changed": False, **options})


def _write(name: str, **options: Any) -> Contestant:
    return _play(name, changed=True, new_tokens=True, **options)


def _by_ssh(where: Bench) -> Sample:
    where.renew_tokens()
    return where.over_ssh(WRITE, json.dumps({"token": where.tokens[0]["token"]}))


@contextmanager
def _provisioned(folder: Path, hosts: int = 30) -> Iterator[Bench]:
    with bench(folder, hosts, layers=[with_caveclient(folder), with_venv()]) as where:
        where.play("provision", changed=True)
        yield where


@contextmanager
def _provisioned_both_ways(folder: Path) -> Iterator[Bench]:
    with _provisioned(folder) as where:
        where.play("pip_uri_file_copy", changed=True)  # whose file has other spaces; it is as right for provision
        yield where


@contextmanager
def _shared(folder: Path, users: int = 50, layers: Sequence[Path] = ()) -> Iterator[Bench]:
    with bench(folder, 1, users=[f"user{number:03}" for number in range(1, users + 1)], layers=layers) as where:
        yield where


@contextmanager
def _crowded(folder: Path) -> Iterator[Bench]:
    with _shared(folder, 500, [with_caveclient(folder)]) as where:
        where.play("provision", changed=True, caveclient_tokens=where.tokens)
        yield where


def _unchanged_for(where: Bench, count: int) -> Sample:
    return where.play("provision", changed=False, caveclient_tokens=where.tokens[:count])


def _one_of_many(where: Bench, count: int) -> Sample:
    where.renew_tokens()
    return where.play("saved_token", changed=True, bench_tokens=where.tokens[:count])


@contextmanager
def _installing(folder: Path) -> Iterator[Bench]:
    with bench(folder, 1, layers=[with_venv()]) as where:
        where.lab.fleet.connect_to_index("ws001")
        yield where


def _install(where: Bench, name: str, cold: bool) -> Sample:
    host = where.lab.fleet["ws001"]
    host.run(["sh", "-c", f"rm -rf /opt/bench-{name}" + (f" ~root/.cache/{name}" if cold else "")])
    return where.play(name, changed=True)


@contextmanager
def _installing_everywhere(folder: Path, hosts: int = 30) -> Iterator[Bench]:
    with bench(folder, hosts) as where:
        where.lab.fleet.connect_to_index(*where.lab.hosts)
        yield where


def _install_everywhere(where: Bench, build_once: bool) -> Sample:
    for host in where.lab.fleet:
        host.run(["sh", "-c", "rm -rf /opt/bench-uv ~root/.cache/uv"])
    return where.play("uv", changed=True, bench_build_once=build_once)


SIZES = (10, 30, 100, 300)


@contextmanager
def _fleet(folder: Path, hosts: int, python: str = PYTHON) -> Iterator[Bench]:
    with bench(folder, hosts, python=python) as where:
        yield where


@contextmanager
def _nowhere(folder: Path) -> Iterator[Path]:
    yield folder


def _in_process(_folder: Path, what: str) -> Sample:
    command = [sys.executable, str(Path(__file__).with_name("in_process.py")), *what.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"in_process.py {what}: {done.stderr.strip()[-500:]}")
    return Sample(float(done.stdout), 0.0, 0.0)


@contextmanager
def _desk(folder: Path) -> Iterator[Desk]:
    with CaveServer() as cave:
        desk = Desk(folder, cave.url)
        desk.as_person = False  # becoming somebody else takes time that is not the program's
        cave.serve(DATASTACK)
        desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)
        yield desk


def _doctor(desk: Desk, *arguments: str) -> Sample:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = desk.ask(*arguments)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"cave-doctor ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return Sample(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 0.0)


SERIES: dict[str, Series] = {
    "rotation": Series(
        "One task that gives 30 hosts a new token",
        {
            "ping": _play("ping"),
            "ping without sudo": _play("ping", bench_become=False),
            "saved_token": _write("saved_token"),
            "saved_token, stock": _write("saved_token", caveclient_fast=False),
            "uri + file + copy": _write("uri_file_copy"),
            "ssh": _by_ssh,
        },
        (
            Ratio("saved_token against ping", "saved_token", "ping", 0.75),
            Ratio("saved_token sent by Ansible's own way against ping", "saved_token, stock", "ping", 1.35),
            Ratio("saved_token against ping without sudo", "saved_token", "ping without sudo"),
            Ratio("saved_token against uri + file + copy", "saved_token", "uri + file + copy", 0.30),
            Ratio("plain ssh against ping", "ssh", "ping"),
            Ratio("saved_token against ping, CPU of the controller", "saved_token", "ping", measure="controller_cpu"),
            Ratio("saved_token against ping, CPU of the hosts", "saved_token", "ping", measure="hosts_cpu"),
        ),
        _provisioned,
        hosts=30,
    ),
    "provision": Series(
        "The whole command provision on 30 hosts on which all is right",
        {"ping": _play("ping"), "provision": _play("provision"), "pip + uri + file + copy": _play("pip_uri_file_copy")},
        (
            Ratio("provision against pip + uri + file + copy", "provision", "pip + uri + file + copy", 0.35),
            Ratio("provision against ping", "provision", "ping"),
            Ratio("provision against ping, CPU of the controller", "provision", "ping", measure="controller_cpu"),
            Ratio("provision against ping, CPU of the hosts", "provision", "ping", measure="hosts_cpu"),
        ),
        _provisioned_both_ways,
        hosts=30,
    ),
    "verify": Series(
        "The whole command verify on 30 hosts",
        {"ping": _play("ping"), "verify": _play("verify"), "CAVEclient()": _play("client")},
        (
            Ratio("verify against CAVEclient()", "verify", "CAVEclient()", 0.35),
            Ratio("verify against CAVEclient(), CPU of the hosts", "verify", "CAVEclient()", 0.15, "hosts_cpu"),
            Ratio("verify against ping", "verify", "ping"),
            Ratio("verify against ping, CPU of the controller", "verify", "ping", measure="controller_cpu"),
        ),
        _provisioned,
        hosts=30,
    ),
    "services": Series(
        "The whole command verify on 30 hosts, with the services of the datastack and without",
        {
            "with services": _play("verify"),
            "services without a token": _play("verify", caveclient_services="reach"),
            "without services": _play("verify", caveclient_services="none"),
        },
        (
            Ratio("verify with services against verify without", "with services", "without services", 1.3),
            Ratio("verify that only reaches the services", "services without a token", "without services"),
            Ratio(
                "with services against without, CPU of the controller",
                "with services",
                "without services",
                measure="controller_cpu",
            ),
            Ratio(
                "with services against without, CPU of the hosts",
                "with services",
                "without services",
                None,
                "hosts_cpu",
            ),
        ),
        _provisioned,
        hosts=30,
    ),
    "rotate": Series(
        "The whole command rotate (cutover) on 30 hosts",
        {"ping": _play("ping"), "rotate": _write("rotate"), "uri + file + copy": _write("uri_file_copy")},
        (
            Ratio("rotate against uri + file + copy", "rotate", "uri + file + copy", 0.35),
            Ratio("rotate against ping", "rotate", "ping", 1.1),
            Ratio("rotate against ping, CPU of the controller", "rotate", "ping", 1.6, "controller_cpu"),
            Ratio("rotate against ping, CPU of the hosts", "rotate", "ping", measure="hosts_cpu"),
        ),
        _provisioned,
        hosts=30,
    ),
    "audit": Series(
        "The whole command audit on 300 hosts",
        {"ping": _play("ping"), "audit": _play("audit")},
        (
            Ratio("audit against ping", "audit", "ping", 1.0),
            Ratio("audit against ping, CPU of the controller", "audit", "ping", measure="controller_cpu"),
            Ratio("audit against ping, CPU of the hosts", "audit", "ping", measure="hosts_cpu"),
        ),
        functools.partial(_provisioned, hosts=SIZES[-1]),
        hosts=SIZES[-1],
    ),
    "other_python": Series(
        "A new token on 30 hosts whose Python is of another version than the controller's",
        {"ping": _play("ping"), "saved_token": _write("saved_token")},
        (
            Ratio("other Python: saved_token against ping", "saved_token", "ping", 0.75),
            Ratio("other Python: the same, CPU of the hosts", "saved_token", "ping", measure="hosts_cpu"),
        ),
        functools.partial(_fleet, hosts=30, python="3.13"),
        hosts=30,
    ),
    "save_token": Series(
        "A new token on 30 hosts, by caveclient's own function",
        {"saved_token": _write("saved_token"), "save_token": _write("save_token")},
        (
            Ratio(
                "saved_token against save_token by command, CPU of the hosts",
                "saved_token",
                "save_token",
                0.10,
                "hosts_cpu",
            ),
            Ratio("saved_token against save_token by command", "saved_token", "save_token"),
        ),
        _provisioned,
        hosts=30,
    ),
    "users": Series(
        "New tokens for the users of one shared host",
        {
            "1 user": functools.partial(_one_of_many, count=1),
            "50 users": functools.partial(_one_of_many, count=50),
        },
        (Ratio("50 users on one host in one call against 1 user", "50 users", "1 user", 2.0),),
        _shared,
        9,
    ),
    "crowd": Series(
        "The whole command provision on one shared host on which all is right",
        {
            "50 users": functools.partial(_unchanged_for, count=50),
            "500 users": functools.partial(_unchanged_for, count=500),
        },
        (Ratio("500 users on one host against 50 users", "500 users", "50 users", 8.0),),
        _crowded,
    ),
    "defaults": Series(
        "The same with Ansible's default settings: 5 forks, no pipelining",
        {"ping": _play("ping", defaults=True), "saved_token": _write("saved_token", defaults=True)},
        (Ratio("defaults: saved_token against ping", "saved_token", "ping", 1.0),),
        _provisioned,
        hosts=30,
    ),
    "install": Series(
        "Installing caveclient on a bare host",
        {
            "uv, cold": functools.partial(_install, name="uv", cold=True),
            "pip, cold": functools.partial(_install, name="pip", cold=True),
            "uv, warm": functools.partial(_install, name="uv", cold=False),
            "pip, warm": functools.partial(_install, name="pip", cold=False),
        },
        (
            Ratio("install by uv against ansible.builtin.pip, cold cache", "uv, cold", "pip, cold", 0.35),
            Ratio("install by uv against ansible.builtin.pip, warm cache", "uv, warm", "pip, warm", 0.15),
            Ratio("the same in CPU, cold cache", "uv, cold", "pip, cold", None, "cpu"),
            Ratio("the same in CPU, warm cache", "uv, warm", "pip, warm", None, "cpu"),
        ),
        _installing,
    ),
    "build_once": Series(
        "Installing caveclient on 30 bare hosts: each by itself, or one for all (caveclient_build_once)",
        {
            "uv on each": functools.partial(_install_everywhere, build_once=False),
            "build_once": functools.partial(_install_everywhere, build_once=True),
        },
        (
            Ratio("build_once against an installation by uv on each", "build_once", "uv on each", 0.35),
            Ratio("the same, CPU of the controller", "build_once", "uv on each", None, "controller_cpu"),
            Ratio("the same, CPU of the hosts", "build_once", "uv on each", None, "hosts_cpu"),
        ),
        _installing_everywhere,
        rounds=3,
        warm_up=False,
        hosts=30,
    ),
    "scale": Series(
        "The whole command rotate, on more and more hosts",
        {f"{size} hosts": _write("rotate", first=size) for size in SIZES},
        (
            Ratio(
                "controller CPU a host, 300 hosts against 30",
                "300 hosts",
                "30 hosts",
                1.1,
                "controller_cpu",
                factor=0.1,
            ),
            Ratio("wall time a host, 300 hosts against 30", "300 hosts", "30 hosts", 1.1, factor=0.1),
        ),
        functools.partial(_fleet, hosts=SIZES[-1]),
    ),
    "memory": Series(
        "The controller's memory with 300 hosts (looking at it takes time: don't compare this time with others)",
        {
            "ping": _play("ping", watch_memory=True),
            "saved_token": _write("saved_token", watch_memory=True),
            "rotate": _write("rotate", watch_memory=True),
        },
        (
            Ratio("largest process of the controller, one task, MB", "saved_token", "", 300, "largest", 1e-6),
            Ratio("largest process of the controller, rotate, MB", "rotate", "", 300, "largest", 1e-6),
            Ratio("all of the controller's processes, a ping, MB", "ping", "", None, "memory", 1e-6),
            Ratio("all of the controller's processes, one task, MB", "saved_token", "", 300, "memory", 1e-6),
            Ratio("all of the controller's processes, rotate, MB", "rotate", "", 300, "memory", 1e-6),
        ),
        functools.partial(_fleet, hosts=SIZES[-1]),
        rounds=1,
        warm_up=False,
        hosts=SIZES[-1],
    ),
    "doctor": Series(
        "cave-doctor, from its start to its answer",
        {
            "offline": lambda desk: _doctor(desk, "--offline"),
            "asking": _doctor,
        },
        (
            Ratio("cave-doctor --offline, ms", "offline", "", 250, factor=1000),
            Ratio("the same, CPU, ms", "offline", "", 120, "controller_cpu", 1000),
            Ratio("cave-doctor, with a server that answers at once, ms", "asking", "", 400, factor=1000),
            Ratio("the same, CPU, ms", "asking", "", None, "controller_cpu", 1000),
        ),
        _desk,
        15,
    ),
    "process": Series(
        "In one process: a call that changes nothing, and a module's imports",
        {
            "saved_token": functools.partial(_in_process, what=f"saved_token {pwd.getpwuid(os.geteuid()).pw_name}"),
            "saved_token as root for another": functools.partial(_in_process, what="saved_token man"),
            "imports of saved_token": functools.partial(_in_process, what="start saved_token"),
            "imports of caveclient": functools.partial(_in_process, what="start caveclient"),
        },
        (
            Ratio("saved_token unchanged, ms", "saved_token", "", 2.0, factor=1000),
            Ratio("the same for another user, ms", "saved_token as root for another", "", factor=1000),
            Ratio("imports of saved_token beyond basic, ms", "imports of saved_token", "", 60, factor=1000),
            Ratio("imports of caveclient beyond basic, ms", "imports of caveclient", "", 60, factor=1000),
        ),
        _nowhere,
        9,
    ),
}
