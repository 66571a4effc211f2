# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Managed hosts for the cells of one controller, and the job that it does on them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_run
import stub_wheels
import support_matrix
from fleet import Fleet
from images import pythons
from images.rootfs import KNOWN
from interpreters import find_interpreters
from lab import STACK, Lab, recap
from support_matrix import ROOT, Cell

from cave_server import CaveServer

from .controllers import Controller

USERS = ("alice", "bob", "carol")
NEWEST, FOR_OLD_PYTHON = "8.2.1", "7.3.1"
PATIENCE = 600.0
"""Seconds that one playbook may take on all hosts."""

Counts = dict[str, int]


@dataclass(frozen=True)
class Step:
    """One playbook of the job.

    Attributes:
        name: of the step.
        playbook: its name, or a path.
        arguments: of ansible-playbook.
        variables: extra variables.
        expect: says of a host's counts in the recap what is wrong with them; empty when they are as they have to be.
    """

    name: str
    playbook: str
    arguments: tuple[str, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)
    expect: Callable[[Counts], str] = lambda _counts: ""


def _changed(counts: Counts) -> str:
    return "" if counts["changed"] else "nothing was changed"


def _unchanged(counts: Counts) -> str:
    return f"{counts['changed']} tasks changed something again" if counts["changed"] else ""


PROVISION = Step("provision", "connectomics.cave.provision", expect=_changed)
AGAIN = Step("again", "connectomics.cave.provision", expect=_unchanged)
MODULES = Step("modules", str(Path(__file__).with_name("cell.yml")), expect=_changed)
STEPS = (
    Step("predict", "connectomics.cave.provision", ("--check", "--diff"), expect=_changed),
    PROVISION,
    AGAIN,
    Step("verify", "connectomics.cave.verify", expect=_unchanged),
    Step("audit", "connectomics.cave.audit", variables={"caveclient_audit_strict": True}, expect=_unchanged),
    Step(
        "rotate",
        "connectomics.cave.rotate",
        variables={"caveclient_rotate_strategy": "overlap", "caveclient_rotate_grace": 0},
        expect=_changed,
    ),
    Step("rotate again", "connectomics.cave.rotate", expect=_unchanged),
    MODULES,
    Step(
        "decommission",
        "connectomics.cave.decommission",
        variables={"caveclient_decommission_environment": True, "caveclient_decommission_everywhere": True},
        expect=_changed,
    ),
)
SHORT = (PROVISION, MODULES)


def missing() -> list[str]:
    """Return what keeps this machine from having the hosts, in words; empty when nothing does."""
    return [*Fleet.missing(), *pythons.missing()]


def absent_pythons() -> list[str]:
    """Return the Pythons of the list that neither a Debian nor this machine has."""
    here = {*find_interpreters(), *support_matrix.DEBIAN.values()}
    return [python for python in support_matrix.PYTHONS if python not in here]


def run_cells(
    controller: Controller, cells: Sequence[Cell], log: Path, steps: Sequence[Step] = STEPS
) -> dict[Cell, dict[str, str]]:
    """Let a controller do the job on the hosts of its cells; return what is wrong by cell and step ("" for nothing).

    Args:
        controller: the ansible-core.
        cells: of that ansible-core.
        log: a folder for what Ansible prints, a file a step.
        steps: of the job.

    Raises:
        fleet.FleetError: the hosts cannot be.
        images.rootfs.RootfsError: their root file systems cannot be.
    """
    here = find_interpreters()
    carried = {python: here[python] for python in support_matrix.PYTHONS if python in here}
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir(parents=True)
    releases = [KNOWN[cell.debian] for cell in cells]
    name = f"matrix-{os.getpid()}-{controller.core.version.replace('.', '-')}"
    with (
        Fleet(len(cells), name=name, pythons=releases, users=USERS, layers=[pythons.provide(carried)]) as fleet,
        CaveServer(tls=True, address=fleet.server_address) as cave,
    ):
        _write_lab(log, fleet, cave, cells)
        return _run_steps(controller, cells, log, steps)


def _write_lab(folder: Path, fleet: Fleet, cave: CaveServer, cells: Iterable[Cell]) -> None:
    """Write what the administrator of these hosts has: an inventory, a vault, a folder of wheels."""
    wheels = folder / "wheels"
    stub_wheels.lab(wheels, FOR_OLD_PYTHON)
    stub_wheels.caveclient(wheels, NEWEST, requires_python=">=3.9")
    lab = Lab.of_fleet(fleet, cave, folder, USERS[:2])
    hosts = {}
    for cell, host in zip(cells, fleet, strict=True):
        too_old = tuple(int(part) for part in cell.python.split(".")) < (3, 9)
        hosts[cell.host] = {
            "ansible_host": host.address,
            "ansible_python_interpreter": (
                "/usr/bin/python3" if host.python == cell.python else str(pythons.interpreter(cell.python))
            ),
            "caveclient_version": FOR_OLD_PYTHON if too_old else NEWEST,
            "cell_too_old": too_old,
            "cell_token": cave.add_person(cell.host.replace(".", "-"), permissions=[STACK]).token,
        }
    lab.hosts = hosts
    lab.variables |= {
        "caveclient_find_links": [str(wheels)],
        "caveclient_offline": True,
        "cell_user": USERS[2],
        "cell_ca_path": str(cave.ca),
    }
    lab.write_inventory()


def _run_steps(
    controller: Controller, cells: Sequence[Cell], folder: Path, steps: Iterable[Step]
) -> dict[Cell, dict[str, str]]:
    environment = ansible_run.environment(
        folder, PATH=f"{controller.python.parent}:{os.environ['PATH']}", ANSIBLE_VAULT_PASSWORD_FILE="password"
    )
    found: dict[Cell, dict[str, str]] = {cell: {} for cell in cells}
    for step in steps:
        command = [*controller.program("playbook"), "-i", "hosts.yml", "--forks", "8", step.playbook, *step.arguments]
        command += ["-e", json.dumps(step.variables)] if step.variables else []
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        output = done.stdout + done.stderr
        (folder / f"{step.name.replace(' ', '-')}.log").write_text(output)
        counts = recap(done.stdout)
        for cell in cells:
            found[cell][step.name] = _judge(counts.get(cell.host), step)
        general = "; ".join(sorted(set(re.findall(r"\[(?:DEPRECATION )?WARNING\]: [^\n]*", output))))
        if not general and done.returncode and not any(found[cell][step.name] for cell in cells):
            general = f"ansible-playbook ended with {done.returncode}"
        if general:  # what is said of no single host holds for all
            for cell in cells:
                found[cell][step.name] = found[cell][step.name] or general
    return found


def _judge(counts: Counts | None, step: Step) -> str:
    """Return what is wrong with a host's counts after a step; empty when nothing is."""
    if counts is None:
        return "not in the recap"
    bad = {name: counts[name] for name in ("unreachable", "failed") if counts[name]}
    # The playbooks rescue a host that fails for their report; the play of the modules is rescued where it should be.
    if counts["rescued"] and step is not MODULES:
        bad["rescued"] = counts["rescued"]
    return ", ".join(f"{name}={count}" for name, count in bad.items()) or step.expect(counts)


def sanity(controller: Controller, log: Path) -> str:
    """Run ansible-test's sanity tests of an ansible-core, and return what is wrong; empty when nothing is."""
    command = [str(controller.python), "-m", "ansible_test_copy", "sanity"]
    environment = {**os.environ, "PATH": f"{controller.python.parent}:{os.environ['PATH']}"}
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    return f"ansible-test sanity ended with {done.returncode}: {log}" if done.returncode else ""
