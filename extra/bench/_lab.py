# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the contestants run: a fleet of SSH hosts, the stand-in CAVE server, and an administrator's folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_run import ROOT, command, environment
from fleet import Fleet
from lab import Lab, recap

from cave_server import CaveServer

from ._meter import BenchError, Group, Meter, Sample

PYTHON = "3.11"
VERSION = "8.2.1"
GROUP = "neuro"
CACHE = ROOT / ".cache" / "bench"
PLAYBOOKS = Path(__file__).with_name("playbooks")
FOR_PIP = ("python3-pip-whl", "python3-setuptools-whl", "python3.11-venv", "python3-venv", "python3-distutils")
FOR_ANSIBLES_PIP = ("python3-packaging", "python3-setuptools", "python3-pkg-resources", "python3-lib2to3")


class Bench:
    """A lab over SSH whose commands are measured.

    Args:
        lab: the administrator's folder, the server, the hosts.
        meter: measures commands.

    Attributes:
        lab: the same.
        forks: of Ansible, where it does not run with its defaults.
    """

    def __init__(self, lab: Lab, meter: Meter) -> None:
        self.lab = lab
        self.forks = int(lab.settings["ANSIBLE_FORKS"])
        self._meter = meter
        lab.variables |= {"bench_group": GROUP, "bench_version": VERSION}
        self._tokens = {name: person.token for name, person in lab.persons.items()}
        self._tell()

    @property
    def tokens(self) -> list[dict[str, str]]:
        """What the hosts are to have, as ``caveclient_tokens`` has it."""
        return [{"user": user, "token": token} for user, token in self._tokens.items()]

    def renew_tokens(self) -> None:
        """Give every user a token that no host has yet."""
        self._tokens = {user: self.lab.cave.make_token(user) for user in self._tokens}
        self._tell()

    def _tell(self) -> None:
        """Let one task's contestants have the tokens as they are, and whole playbooks have them in the vault."""
        self.lab.variables["bench_tokens"] = self.tokens
        self.lab.store(**self._tokens)

    def settings(self, defaults: bool = False) -> dict[str, str]:
        """Return the environment of Ansible's programs: an administrator who has read about speed, or one who has not.

        The latter has 5 forks and no pipelining.
        """
        return environment(self.lab.folder, **({} if defaults else {**self.lab.settings, "ANSIBLE_PIPELINING": "true"}))

    def play(
        self,
        name: str,
        *,
        changed: bool,
        new_tokens: bool = False,
        defaults: bool = False,
        first: int = 0,
        watch_memory: bool = False,
        **variables: Any,
    ) -> Sample:
        """Measure a playbook of this folder, or of the collection.

        Args:
            name: of the playbook.
            changed: whether it must change every host; otherwise it must change none.
            new_tokens: whether every user gets a token that no host has yet.
            defaults: whether Ansible runs with its defaults.
            first: on how many hosts; 0: on all.
            watch_memory: whether to look at the memory meanwhile.
            variables: extra ones.

        Raises:
            BenchError: it failed, or did not do what it was to do.
        """
        if new_tokens:
            self.renew_tokens()
        playbook = PLAYBOOKS / f"{name}.yml"
        more = ["-e", json.dumps(variables)] if variables else []
        with self._only(first):
            words = self.lab.arguments(str(playbook) if playbook.exists() else name, *more)
        run = command("playbook", *words)
        sample, done = self._meter.run(run, self.settings(defaults), self.lab.folder, watch_memory)
        counts = {host: found for host, found in recap(done.stdout).items() if host in self.lab.hosts}
        wanted = first or len(self.lab.hosts)
        wrong = [
            host
            for host, found in counts.items()
            if found["unreachable"] or found["failed"] or bool(found["changed"]) is not changed
        ]
        if done.returncode or len(counts) != wanted or wrong:
            said = (done.stdout + done.stderr)[-3000:]
            raise BenchError(f"{name} was to leave {wanted} hosts {'changed' if changed else 'unchanged'}:\n{said}")
        return sample

    @contextlib.contextmanager
    def _only(self, first: int) -> Iterator[None]:
        """Let the inventory have so many hosts: with --limit, a rotation fails while the others lack the token."""
        hosts = self.lab.hosts
        self.lab.hosts = dict(list(hosts.items())[: first or None])
        try:
            yield
        finally:
            self.lab.hosts = hosts

    def over_ssh(self, script: str, text: str = "") -> Sample:
        """Measure a shell script that runs on all hosts by plain SSH, as many at a time as Ansible has forks.

        Args:
            script: the script.
            text: its standard input on every host: what must not be seen in a process list.
        """
        names, secret = self.lab.folder / "names", self.lab.folder / "secret"
        names.write_text("\n".join(self.lab.hosts))
        secret.write_text(text)
        each = 'ssh -F "$1" "$0" "$2" < secret'
        run = ["xargs", "-a", str(names), "-P", str(self.forks), "-I", "HOST", "sh", "-c", each, "HOST"]
        run += [str(self.lab.fleet.ssh_config), script]
        sample, done = self._meter.run(run, self.settings(), self.lab.folder)
        if done.returncode:
            raise BenchError(f"ssh ended with {done.returncode}: {done.stderr[-1000:]}")
        return sample


@contextlib.contextmanager
def bench(
    folder: Path,
    hosts: int,
    users: Sequence[str] = ("alice",),
    layers: Sequence[Path] = (),
    python: str = PYTHON,
) -> Iterator[Bench]:
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
        yield Bench(Lab.of_fleet(fleet, cave, folder / "lab", users), Meter(controller, group))


def with_caveclient(folder: Path) -> Path:
    """Return a layer with caveclient as the role installs it, and as Ansible's pip does: made once for all hosts."""
    layer = CACHE / f"caveclient-{VERSION}-twice"
    if not (layer / ".complete").exists():
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir(parents=True)
        with bench(folder / "layer", 1, layers=[with_venv()]) as one:
            fleet = one.lab.fleet
            fleet.connect_to_index("ws001")
            one.play("provision", changed=True, caveclient_version=VERSION)
            one.play("pip", changed=True)
            for place in ("opt", "usr"):
                source = fleet["ws001"].folder / "upper" / place
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
