# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the contestants run: a fleet of SSH hosts, the stand-in CAVE server, and an administrator's folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_run import ROOT, environment
from fleet import Fleet

from cave_server import CaveServer

from ._meter import BenchError, Group, Meter, Sample

PYTHON = "3.11"
VERSION = "8.2.1"
CACHE = ROOT / ".cache" / "bench"
PLAYBOOKS = Path(__file__).with_name("playbooks")
CA_FILE = "/etc/ssl/cave-ca.pem"
GROUP = "neuro"
FOR_PIP = ("python3-pip-whl", "python3-setuptools-whl", "python3.11-venv", "python3-venv", "python3-distutils")
FOR_ANSIBLES_PIP = ("python3-packaging", "python3-setuptools", "python3-pkg-resources", "python3-lib2to3")


@dataclass
class Lab:
    """What contestants work with.

    Attributes:
        fleet: the hosts.
        cave: the server that all of them reach.
        folder: the administrator's, with the inventory and all that Ansible writes.
        meter: measures commands.
        users: those on every host who are to have a token.
    """

    fleet: Fleet
    cave: CaveServer
    folder: Path
    meter: Meter
    users: Sequence[str]
    forks: int = 20
    _tokens: dict[str, str] = field(default_factory=dict)

    def variables(self, new_tokens: bool = False) -> dict[str, Any]:
        """Return the playbooks' variables, with tokens that nobody had before when so wanted."""
        for user in self.users:
            if user not in self._tokens:
                self._tokens[user] = self.cave.add_person(user, ["minnie65_public"]).token
            elif new_tokens:
                self._tokens[user] = self.cave.make_token(user)
        return {
            "bench_tokens": [{"user": user, "token": token} for user, token in self._tokens.items()],
            "bench_server": self.cave.url,
            "bench_ca": CA_FILE,
            "bench_group": GROUP,
            "bench_version": VERSION,
        }

    def settings(self, stock: bool = False) -> dict[str, str]:
        """Return the environment of Ansible's programs: an administrator who has read about speed, or one who has not.

        The stock one has 5 forks and no pipelining.
        """
        tuned = {"ANSIBLE_FORKS": str(self.forks), "ANSIBLE_PIPELINING": "true"}
        return environment(self.folder, **({} if stock else tuned))

    def play(
        self,
        name: str,
        *,
        changed: bool,
        new_tokens: bool = False,
        stock: bool = False,
        first: int = 0,
        watch_memory: bool = False,
        **variables: Any,
    ) -> Sample:
        """Measure a playbook of this folder, or of the collection.

        Args:
            name: of the playbook.
            changed: whether it must change every host; otherwise it must change none.
            new_tokens: whether every user gets a token that no host has yet.
            stock: whether Ansible runs with its defaults.
            first: on how many hosts; 0: on all.
            watch_memory: whether to look at the memory meanwhile.
            variables: further ones.

        Raises:
            BenchError: it failed, or did not do what it was to do.
        """
        values = self.folder / "variables.json"
        values.write_text(json.dumps({**self.variables(new_tokens), **variables}))
        command = [str(Path(shutil.which("ansible-playbook") or "ansible-playbook")), "-i", str(self.fleet.inventory)]
        playbook = PLAYBOOKS / f"{name}.yml"
        command += [str(playbook) if playbook.exists() else f"connectomics.cave.{name}", "-e", f"@{values}"]
        command += ["--limit", f"all[0:{first - 1}]"] if first else []
        sample, done = self.meter.run(command, self.settings(stock), self.folder, watch_memory)
        recap = re.findall(r"ok=(\d+)\s+changed=(\d+)\s+unreachable=0\s+failed=0", done.stdout)
        wanted = first or len(self.fleet)
        right = [(int(count) > 0) == changed for _ok, count in recap]
        if done.returncode or len(recap) != wanted or not all(right):
            said = (done.stdout + done.stderr)[-3000:]
            raise BenchError(f"{name} was to leave {wanted} hosts {'changed' if changed else 'unchanged'}:\n{said}")
        return sample

    def over_ssh(self, script: str, text: str = "") -> Sample:
        """Measure a shell script that runs on all hosts by plain SSH, as many at a time as Ansible has forks.

        Args:
            script: the script.
            text: its standard input on every host: what must not be seen in a process list.
        """
        names, secret = self.folder / "names", self.folder / "secret"
        names.write_text("\n".join(self.fleet.hosts))
        secret.write_text(text)
        each = 'ssh -F "$1" "$0" "$2" < secret'
        command = ["xargs", "-a", str(names), "-P", str(self.forks), "-I", "HOST", "sh", "-c", each, "HOST"]
        command += [str(self.fleet.ssh_config), script]
        sample, done = self.meter.run(command, self.settings(), self.folder)
        if done.returncode:
            raise BenchError(f"ssh ended with {done.returncode}: {done.stderr[-1000:]}")
        return sample


@contextlib.contextmanager
def lab(
    folder: Path,
    hosts: int,
    users: Sequence[str] = ("alice",),
    layers: Sequence[Path] = (),
    forks: int = 20,
    python: str = PYTHON,
) -> Iterator[Lab]:
    """Bring a lab up for the length of a block, whose hosts have a Python of the version that is named.

    Raises:
        BenchError: this machine cannot have one.
    """
    if reasons := Fleet.missing():
        raise BenchError("; ".join(reasons))
    name = f"bench-{os.getpid()}"
    with (
        Group(f"{name}-controller") as controller,
        Group(f"{name}-hosts") as group,
        Fleet(hosts, name=name, pythons=(python,), umasks=("022",), users=users, layers=layers) as fleet,
        CaveServer(tls=True, address=fleet.server_address) as cave,
    ):
        group.add(host.pid for host in fleet)
        for host in fleet:
            host.root(CA_FILE).write_text(Path(str(cave.ca)).read_text())
            host.root(CA_FILE).chmod(0o644)
        yield Lab(fleet, cave, folder, Meter(controller, group), users, forks)


def with_caveclient(folder: Path) -> Path:
    """Return a layer with an installed caveclient: made once by the role on one host, shared by all hosts then."""
    layer = CACHE / f"caveclient-{VERSION}"
    if not (layer / ".complete").exists():
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir(parents=True)
        with lab(folder, 1) as one:
            one.fleet.connect_to_index("ws001")
            one.play("provision", changed=True, caveclient_version=VERSION)
            for place in ("opt", "usr"):
                source = next(iter(one.fleet)).folder / "upper" / place
                subprocess.run(["cp", "-a", str(source), str(layer)], check=True)
        (layer / ".complete").touch()
    return layer


def with_venv() -> Path:
    """Return a layer with what `ansible.builtin.pip` needs on a host, from Debian's packages."""
    layer = CACHE / "venv"
    if not (layer / ".complete").exists():
        shutil.rmtree(layer, ignore_errors=True)
        packages = CACHE / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        layer.mkdir(parents=True)
        command = ["apt-get", "download", "-qq", *FOR_PIP, *FOR_ANSIBLES_PIP]
        subprocess.run(command, cwd=packages, check=True)
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(layer)], check=True)
        (layer / ".complete").touch()
    return layer
