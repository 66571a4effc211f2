# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured: the contestants of each series, and the ratios that are to be reached."""

from __future__ import annotations

import functools
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._lab import PYTHON, Lab, lab, with_caveclient, with_venv
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
    """

    about: str
    contestants: Mapping[str, Contestant]
    ratios: tuple[Ratio, ...]
    place: Callable[[Path], AbstractContextManager[object]]
    rounds: int = 5
    warm_up: bool = True


def _play(name: str, **options: Any) -> Contestant:
    return lambda where: where.play(name, **{"changed": False, **options})


def _write(name: str, **options: Any) -> Contestant:
    return _play(name, changed=True, new_tokens=True, **options)


def _by_ssh(where: Lab) -> Sample:
    token = where.variables(new_tokens=True)["bench_tokens"][0]["token"]
    return where.over_ssh(WRITE, json.dumps({"token": token}))


@contextmanager
def _provisioned(folder: Path, hosts: int = 30) -> Iterator[Lab]:
    with lab(folder, hosts, layers=[with_caveclient(folder)]) as where:
        where.play("provision", changed=True)
        yield where


@contextmanager
def _shared(folder: Path) -> Iterator[Lab]:
    with lab(folder, 1, users=[f"user{number:02}" for number in range(1, 51)]) as where:
        yield where


def _one_of_many(where: Lab, count: int) -> Sample:
    everybody = where.variables(new_tokens=True)["bench_tokens"]
    return where.play("rotation", changed=True, bench_tokens=everybody[:count])


@contextmanager
def _installing(folder: Path) -> Iterator[Lab]:
    with lab(folder, 1, layers=[with_venv()]) as where:
        where.fleet.connect_to_index("ws001")
        yield where


def _install(where: Lab, name: str, cold: bool) -> Sample:
    host = where.fleet["ws001"]
    kind = name.partition("_")[2]
    host.run(["sh", "-c", f"rm -rf /opt/bench-{kind}" + (f" ~root/.cache/{kind}" if cold else "")])
    return where.play(name, changed=True)


SIZES = (10, 30, 100, 300)


@contextmanager
def _fleet(folder: Path, hosts: int, python: str = PYTHON) -> Iterator[Lab]:
    with lab(folder, hosts, python=python) as where:
        yield where


def _whole_rotation(where: Lab, hosts: int = 0, watch_memory: bool = False) -> Sample:
    """Rotate as an administrator does on a bad day: the new token is in the variables already."""
    variables = where.variables(new_tokens=True)
    return where.play(
        "rotate",
        changed=True,
        first=hosts,
        watch_memory=watch_memory,
        caveclient_tokens=variables["bench_tokens"],
        caveclient_server=variables["bench_server"],
        caveclient_ca_path=variables["bench_ca"],
        caveclient_rotate_ca_path=where.cave.ca,
        caveclient_rotate_strategy="cutover",
    )


@contextmanager
def _nowhere(folder: Path) -> Iterator[Path]:
    yield folder


def _in_process(_folder: Path, what: str) -> Sample:
    command = [sys.executable, str(Path(__file__).with_name("in_process.py")), *what.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"in_process.py {what}: {done.stderr.strip()[-500:]}")
    return Sample(float(done.stdout), 0.0, 0.0)


SERIES: dict[str, Series] = {
    "rotation": Series(
        "A new token on 30 hosts",
        {
            "ping": _play("ping"),
            "ping without sudo": _play("ping", bench_become=False),
            "rotation": _write("rotation"),
            "uri + file + copy": _write("uri_file_copy"),
            "ssh": _by_ssh,
        },
        (
            Ratio("rotation's fleet stage against ping", "rotation", "ping", 1.15),
            Ratio("rotation's fleet stage against ping without sudo", "rotation", "ping without sudo"),
            Ratio("rotation's fleet stage against uri + file + copy", "rotation", "uri + file + copy", 0.30),
            Ratio("plain ssh against ping", "ssh", "ping"),
            Ratio("rotation's fleet stage against ping, CPU of the hosts", "rotation", "ping", measure="hosts_cpu"),
            Ratio("rotation's fleet stage against ping, all CPU", "rotation", "ping", measure="cpu"),
        ),
        _provisioned,
    ),
    "other_python": Series(
        "A new token on 30 hosts whose Python is of another version than the controller's",
        {"ping": _play("ping"), "rotation": _write("rotation")},
        (
            Ratio("other Python: rotation's fleet stage against ping", "rotation", "ping", 1.15),
            Ratio("other Python: the same, CPU of the hosts", "rotation", "ping", measure="hosts_cpu"),
        ),
        functools.partial(_fleet, hosts=30, python="3.13"),
    ),
    "save_token": Series(
        "A new token on 30 hosts, by caveclient's own function",
        {"rotation": _write("rotation"), "save_token": _write("save_token")},
        (
            Ratio(
                "rotation's fleet stage against save_token by command, CPU of the hosts",
                "rotation",
                "save_token",
                0.10,
                "hosts_cpu",
            ),
            Ratio("rotation's fleet stage against save_token by command", "rotation", "save_token"),
        ),
        _provisioned,
    ),
    "unchanged": Series(
        "Verifying and provisioning 30 hosts on which all is well",
        {"ping": _play("ping"), "verify": _play("verify"), "provision": _play("provision")},
        (
            Ratio("unchanged second provision, the whole role, against ping", "provision", "ping", 2.2),
            Ratio("verify by API against ping", "verify", "ping", 1.15),
            Ratio("verify by API against ping, all CPU", "verify", "ping", measure="cpu"),
        ),
        _provisioned,
    ),
    "client": Series(
        "Verifying 30 hosts by API, and by CAVEclient()",
        {"verify": _play("verify"), "CAVEclient()": _play("client")},
        (
            Ratio("verify by API against CAVEclient(), CPU of the hosts", "verify", "CAVEclient()", 0.10, "hosts_cpu"),
            Ratio("verify by API against CAVEclient()", "verify", "CAVEclient()"),
        ),
        _provisioned,
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
    "stock": Series(
        "The same with a stock ansible.cfg: 5 forks, no pipelining",
        {"stock ping": _play("ping", stock=True), "stock rotation": _write("rotation", stock=True)},
        (Ratio("stock: rotation's fleet stage against ping", "stock rotation", "stock ping", 1.0),),
        _provisioned,
    ),
    "install": Series(
        "Installing caveclient on a bare host",
        {
            "uv, cold": functools.partial(_install, name="install_uv", cold=True),
            "pip, cold": functools.partial(_install, name="install_pip", cold=True),
            "uv, warm": functools.partial(_install, name="install_uv", cold=False),
            "pip, warm": functools.partial(_install, name="install_pip", cold=False),
        },
        (
            Ratio("install by uv against ansible.builtin.pip, cold cache", "uv, cold", "pip, cold", 0.20),
            Ratio("install by uv against ansible.builtin.pip, warm cache", "uv, warm", "pip, warm", 0.05),
            Ratio("the same in CPU, cold cache", "uv, cold", "pip, cold", 0.20, "cpu"),
            Ratio("the same in CPU, warm cache", "uv, warm", "pip, warm", 0.05, "cpu"),
        ),
        _installing,
    ),
    "scale": Series(
        "The fleet stage of a rotation, on more and more hosts",
        {f"{size} hosts": _write("rotation", first=size) for size in SIZES},
        (Ratio("wall time per host, 300 hosts against 30", "300 hosts", "30 hosts", 1.1, factor=0.1),),
        functools.partial(_fleet, hosts=SIZES[-1]),
    ),
    "playbook": Series(
        "The whole playbook rotate, on more and more hosts",
        {f"{size} hosts": functools.partial(_whole_rotation, hosts=size) for size in SIZES[:-1]},
        (Ratio("wall time per host, 100 hosts against 30", "100 hosts", "30 hosts", factor=0.3),),
        functools.partial(_fleet, hosts=SIZES[-2]),
    ),
    "memory": Series(
        "The controller's memory with 300 hosts (looking at it takes time: don't compare this time with others)",
        {
            "ping": _play("ping", watch_memory=True),
            "rotation": _write("rotation", watch_memory=True),
            "playbook rotate": functools.partial(_whole_rotation, watch_memory=True),
        },
        (
            Ratio("largest process of the controller, fleet stage, MB", "rotation", "", 300, "largest", 1e-6),
            Ratio("largest process of the controller, whole playbook, MB", "playbook rotate", "", 300, "largest", 1e-6),
            Ratio("all of the controller's processes, a ping, MB", "ping", "", None, "memory", 1e-6),
            Ratio("all of the controller's processes, fleet stage, MB", "rotation", "", 300, "memory", 1e-6),
            Ratio("all of the controller's processes, whole playbook, MB", "playbook rotate", "", 300, "memory", 1e-6),
        ),
        functools.partial(_fleet, hosts=SIZES[-1]),
        rounds=1,
        warm_up=False,
    ),
    "process": Series(
        "In one process: a call that changes nothing, and a module's imports",
        {
            "saved_token": functools.partial(_in_process, what=f"saved_token {pwd.getpwuid(os.geteuid()).pw_name}"),
            "saved_token as root for another": functools.partial(_in_process, what="saved_token daemon"),
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
