# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of a fleet."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _processes
from ._errors import FleetError
from ._faults import FAULTS
from ._network import Network

AS_AT_LOGIN = 'umask {umask}; cd; exec "$@"'


@dataclass(frozen=True)
class Host:
    """One host of a fleet: a machine of its own as far as SSH, Ansible and the users on it can tell.

    Attributes:
        name: its name, in the inventory too.
        number: its place in the fleet, from 1.
        address: its IPv4 address.
        release: its Debian release ("bookworm").
        python: the version of its Python ("3.11").
        umask: the umask of every session on it ("022").
        pid: its PID 1, as this machine sees it.
        started: when that process started, in clock ticks since boot.
        folder: where it lives on this machine.
        network: the network that it is plugged into.
    """

    name: str
    number: int
    address: str
    release: str
    python: str
    umask: str
    pid: int
    started: int
    folder: Path
    network: Network

    def run(
        self,
        argv: Sequence[str],
        user: str = "root",
        *,
        input: str | None = None,  # noqa: A002 - subprocess calls it so
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as a user, as after a login of theirs; SSH has no part in it.

        Args:
            argv: the command.
            user: its user.
            input: its standard input; empty otherwise.
            check: whether an exit status other than 0 is an error.
            timeout: in seconds.
            env: further environment variables.

        Raises:
            FleetError: the host is gone, or the command failed and `check` is set.
            subprocess.TimeoutExpired: it took longer than the timeout.
        """
        self._require_alive()
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        become = ["setpriv", f"--reuid={user}", f"--regid={self._group_of(user)}", "--init-groups", "--reset-env"]
        login = ["sh", "-c", AS_AT_LOGIN.format(umask=self.umask), "sh"]
        variables = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
        result = subprocess.run(
            [*enter, "--", *become, *login, *variables, *argv],
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise FleetError(f"{self.name}: {user}: {shlex.join(argv)} ended with {result.returncode}: {said}")
        return result

    def read_file(self, path: str, user: str = "root") -> str:
        """Return the text of a file of the host, read as a user of it.

        Raises:
            FleetError: that user cannot read it.
        """
        return self.run(["cat", "--", path], user).stdout

    def write_file(self, path: str, text: str, user: str = "root") -> None:
        """Write a file of the host as a user of it, with that user's umask.

        Raises:
            FleetError: that user cannot write it.
        """
        self.run(["sh", "-c", 'cat > "$1"', "sh", path], user, input=text)

    def ip(self, *command: str) -> None:
        """Run this machine's `ip` in the network of the host.

        Raises:
            FleetError: it failed.
        """
        self._require_alive()
        enter = ["nsenter", f"--target={self.pid}", "--net", "--"]
        result = subprocess.run([*enter, "ip", *command], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise FleetError(f"{self.name}: ip {shlex.join(command)}: {result.stderr.strip()}")

    def root(self, path: str = "/") -> Path:
        """Return a path of the host as this machine reaches it, which is fast.

        Absolute symbolic links on the way lead astray, and permissions don't count: `run` and `read_file` are true.
        """
        return Path(f"/proc/{self.pid}/root{path}")

    def processes(self) -> list[int]:
        """Return the ids of all processes of the host, as this machine sees them."""
        self._require_alive()
        return _processes.in_namespace_of(self.pid)

    @property
    def alive(self) -> bool:
        """Whether its PID 1 lives (a host that hangs, or is cut off, is alive)."""
        return _processes.is_alive(self.pid, self.started)

    @property
    def faults(self) -> list[str]:
        """The names of the faults that it has now."""
        return sorted(path.stem for path in self._memos.glob("*.json"))

    def inflict(self, fault: str, **options: str) -> None:
        """Give the host a fault, one of `fleet.FAULTS`, until it is healed.

        Args:
            fault: its name.
            options: see the fault.

        Raises:
            FleetError: there is no such fault, or the host has it already.
        """
        if fault not in FAULTS:
            raise FleetError(f"there is no fault {fault!r}: choose from {', '.join(FAULTS)}")
        if fault in self.faults:
            raise FleetError(f"{self.name} has the fault {fault} already: heal it first")
        self._require_alive()
        memo = FAULTS[fault].inflict(self, **options)
        self._memos.mkdir(exist_ok=True)
        (self._memos / f"{fault}.json").write_text(json.dumps(memo))

    def heal(self) -> None:
        """Take all faults off the host."""
        for fault in self.faults:
            path = self._memos / f"{fault}.json"
            FAULTS[fault].heal(self, json.loads(path.read_text()))
            path.unlink()

    @property
    def _memos(self) -> Path:
        return self.folder / "faults"

    def _group_of(self, user: str) -> str:
        for line in self.root("/etc/passwd").read_text().splitlines():
            name, _password, _uid, group, *_rest = line.split(":")
            if name == user:
                return group
        raise FleetError(f"{self.name} has no user {user!r}")

    def _require_alive(self) -> None:
        if not self.alive:
            raise FleetError(f"{self.name} has ended; what its sshd said is in {self.folder / 'sshd.log'}")
