# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab of the tests: an administrator's folder with inventory and vault, a stand-in CAVE server, and workstations.

The workstations are folders of this machine, each with a home for the user who runs the tests, or the hosts of a fleet.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stub_wheels
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible, command, environment
from homes import open_way
from interpreters import open_python

from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable
from cave_server import CaveServer

if TYPE_CHECKING:
    from fleet import Fleet, Host

PASSWORD = "correct horse"
USER = getpass.getuser()
STACK = "minnie65_public"
CA_FILE = "/etc/ssl/cave-ca.pem"
"""Where the hosts of a fleet have the authority of the server."""
WITH_PASSWORD = ("--vault-password-file", "password")
OFF = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-o ConnectTimeout=3",
}
"""Variables of a host that cannot be reached."""


class Lab:
    """An administrator's folder. What is changed in ``hosts`` and ``variables`` counts from the next run on.

    Args:
        folder: an empty one, or one that is still to be made.
        cave: the server of the lab's people.
        people: who works on which workstation; names of workstations alone: Alice, on all of them.
        python: that the workstations have; by default, one that every account can start.

    Attributes:
        hosts: the variables of each host, by name.
        variables: those of all hosts.
        persons: of the server, by name.
        vault: the file with the tokens, each of them encrypted by itself.
        report: the folder of the reports.
        fleet: where the hosts are those of one.
    """

    fleet: Fleet
    variables: dict[str, Any]
    settings: Mapping[str, str] = {}
    """Environment variables of every run."""

    def __init__(
        self,
        folder: Path,
        cave: CaveServer,
        people: Mapping[str, str] | Iterable[str],
        python: str = "",
    ) -> None:
        self.people = dict(people) if isinstance(people, Mapping) else dict.fromkeys(people, "alice")
        folder.mkdir(parents=True, exist_ok=True)
        open_way(folder)
        self._found(folder, cave, dict.fromkeys(self.people.values()))
        here = f"{folder}/{{{{ inventory_hostname }}}}"
        cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
        for host, person in self.people.items():
            self.home(host).mkdir(parents=True)
            # A workstation's Python is one of this machine, with a home of its own.
            settings = f"HOME={shlex.quote(str(self.home(host)))} UV_CACHE_DIR={shlex.quote(cache)}"
            self.python(host).write_text(f'#!/bin/sh\n{settings} exec {shlex.quote(python or open_python())} "$@"\n')
            self.python(host).chmod(0o755)
            self.hosts[host] = {"person": person}
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": f"{here}/python",
            "caveclient_become": False,
            "caveclient_server": cave.url,
            "caveclient_datastacks": [STACK],
            "caveclient_path": f"{here}/opt/caveclient",
            "caveclient_jupyter_dir": f"{here}/jupyter",
            "caveclient_doctor_path": f"{here}/bin/cave-doctor",
            "caveclient_tokens": [{"user": USER, "token": "{{ lookup('vars', 'vault_cave_token_' ~ person) }}"}],
        }

    @classmethod
    def of_fleet(cls, fleet: Fleet, cave: CaveServer, folder: Path, users: Iterable[str]) -> Lab:
        """Return the lab of a fleet, where each user of every host has a token of the person with the same name."""
        lab = cls.__new__(cls)
        lab.fleet = fleet
        lab.settings = {"ANSIBLE_FORKS": "20"}
        lab._found(folder, cave, users)
        inventory = yaml.safe_load(fleet.inventory.read_text())["all"]
        lab.hosts = inventory["hosts"]
        lab.variables = {
            **inventory["vars"],
            "caveclient_server": cave.url,
            "caveclient_datastacks": [STACK],
            "caveclient_tokens": [{"user": user, "token": f"{{{{ vault_cave_token_{user} }}}}"} for user in users],
        }
        if cave.ca is not None:
            lab.variables |= {"caveclient_ca_path": CA_FILE, "caveclient_rotate_ca_path": str(cave.ca)}
            for host in fleet:
                host.write_file(CA_FILE, Path(cave.ca).read_text())
                host.run(["chmod", "644", CA_FILE])
        return lab

    def _found(self, folder: Path, cave: CaveServer, people: Iterable[str]) -> None:
        self.folder = folder
        self.cave = cave
        self.persons = {name: cave.add_person(name, [STACK]) for name in people}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.variables = {}
        self.report = folder / "reports"
        self.vault = folder / "group_vars" / "all" / "vault.yml"
        self.vault.parent.mkdir(parents=True)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o600)
        self.write_vault({f"vault_cave_token_{name}": person.token for name, person in self.persons.items()})

    @property
    def token(self) -> str:
        """The token that Alice had at the beginning."""
        return self.persons["alice"].token

    # The administrator's files ---------------------------------------------------------------------------------------

    def write_vault(self, tokens: Mapping[str, str]) -> None:
        """Write the vault file, with each variable encrypted by itself."""
        text = "# the lab's tokens\n"
        for name, token in tokens.items():
            lines = VaultLib().encrypt(token, VaultSecret(PASSWORD.encode())).decode().splitlines()
            text += f"{name}: !vault |\n" + "".join(f"          {line}\n" for line in lines)
        self.vault.write_text(text)

    def store(self, **tokens: str) -> None:
        """Put the tokens of persons into the vault, and nobody else's."""
        self.write_vault({f"vault_cave_token_{person}": token for person, token in tokens.items()})

    def stored(self, person: str = "alice") -> str | None:
        """Return the token of a person in the vault."""
        secrets = [("default", VaultSecret(PASSWORD.encode()))]
        return read_variable(str(self.vault), (f"vault_cave_token_{person}",), secrets)

    def offer_caveclient(self) -> None:
        """Let the workstations install a caveclient that takes no time, and cannot ask a server."""
        wheels = str(stub_wheels.lab(self.folder / "wheels", "8.2.1"))
        self.variables |= {"caveclient_find_links": [wheels], "caveclient_offline": True}

    def inventory(self) -> dict[str, Any]:
        """Return the inventory."""
        return {"all": {"vars": self.variables, "children": {"workstations": {"hosts": self.hosts}}}}

    def write_inventory(self) -> None:
        """Write the inventory as it is now."""
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(self.inventory()))

    def switch_off(self, *hosts: str) -> None:
        """Make hosts unreachable."""
        for host in hosts:
            self.hosts[host].update(OFF)

    def switch_on(self, *hosts: str) -> None:
        """Make hosts reachable again."""
        for host in hosts:
            for name in OFF:
                del self.hosts[host][name]

    # The workstations ------------------------------------------------------------------------------------------------

    def home(self, host: str) -> Path:
        """Return the home of the user of a workstation."""
        return self.folder / host / "home"

    def python(self, host: str) -> Path:
        """Return the Python of a workstation."""
        return self.folder / host / "python"

    def secrets(self, host: str) -> Path:
        """Return the secrets directory of the user of a workstation."""
        return self.home(host) / ".cloudvolume" / "secrets"

    @property
    def server_file(self) -> str:
        """The name of the file that caveclient reads for the server."""
        return f"{self.cave.url.partition('//')[2]}-cave-secret.json"

    def saved(self, host: str | Host, user: str = "") -> str | None:
        """Return the token that a host has, as caveclient reads it; on a host of a fleet, for one of its users."""
        folder = self.secrets(host) if isinstance(host, str) else host.root(f"/home/{user}/.cloudvolume/secrets")
        path = folder / self.server_file
        return str(json.loads(path.read_text())["token"]) if path.exists() else None

    def save(self, token: str, *hosts: str) -> None:
        """Put a token on workstations (all of them by default), as provisioning has done it."""
        for host in hosts or self.hosts:
            self.secrets(host).mkdir(mode=0o700, parents=True, exist_ok=True)
            server_map = {"cave_datastack_to_server_map.json": {STACK: self.cave.url}}
            files = {name: {"token": token} for name in (self.server_file, "cave-secret.json")}
            for name, content in (files | server_map).items():
                path = self.secrets(host) / name
                path.write_text(json.dumps(content))
                path.chmod(0o600)

    def holding(self, token: str) -> list[str]:
        """Return all files below the folder that hold a token in clear."""
        return sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and token.encode() in path.read_bytes()
        )

    def tokens(self, person: str = "alice") -> list[str]:
        """Return all tokens of a person that are alive, newest first."""
        return [item["token"] for item in self.cave.tokens(person)]

    # Runs ------------------------------------------------------------------------------------------------------------

    def arguments(self, playbook: str, *more: str, with_password: bool = True, **variables: Any) -> list[str]:
        """Return the arguments of ansible-playbook, after writing the inventory.

        Args:
            playbook: of the collection, or a file in the folder.
            more: further arguments.
            with_password: whether the vault opens.
            variables: extra ones; without ``caveclient_`` in front they are the playbook's: ``grace`` of ``rotate``.
        """
        self.write_inventory()
        extra = {
            name if name.startswith("caveclient_") else f"caveclient_{playbook}_{name}": value
            for name, value in variables.items()
        }
        words = ["-i", "hosts.yml", *(WITH_PASSWORD if with_password else ())]
        words += [playbook if "." in playbook else f"connectomics.cave.{playbook}"]
        return [*words, *(["-e", json.dumps(extra)] if extra else []), *more]

    def play(
        self,
        playbook: str,
        *more: str,
        with_password: bool = True,
        settings: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> Run:
        """Run a playbook, and look for tokens in all that it printed and reported; see ``arguments``.

        Args:
            playbook: of the collection, or a file in the folder.
            more: arguments of ansible-playbook.
            with_password: whether the vault opens.
            settings: environment variables.
            variables: extra ones.
        """
        words = self.arguments(playbook, *more, with_password=with_password, **variables)
        tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # uv among them
        run = ansible(self.folder, "playbook", *words, **{**tools, **self.settings, **(settings or {})})
        self.assert_nothing_shown(run.output)
        return run

    def rotate(self, *more: str, **variables: Any) -> Run:
        """Rotate, with a report and hardly any grace."""
        return self.play("rotate", *more, **{"grace": 0.5, "caveclient_report": str(self.report), **variables})

    def start(self, *more: str, settings: Mapping[str, str] | None = None, **variables: Any) -> subprocess.Popen[str]:
        """Start a rotation, and leave it running; ``settings`` are environment variables."""
        variables = {"grace": 0.5, "caveclient_report": str(self.report), **variables}
        return subprocess.Popen(
            command("playbook", *self.arguments("rotate", *more, **variables)),
            cwd=self.folder,
            env=environment(self.folder, **{"PYTHONUNBUFFERED": "1", **self.settings, **(settings or {})}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def kill(process: subprocess.Popen[str], workers: bool = True) -> None:
        """Kill a rotation; ``workers`` are the processes that do its tasks, which are in sessions of their own."""
        victims = [process.pid, *(_descendants(process.pid) if workers else [])]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)
        if process.stdout:
            process.stdout.close()

    def reported(self) -> dict[str, dict[str, Any]]:
        """Return what the last report says of each host."""
        report = json.loads((self.report / "report.json").read_text())
        return {host["name"]: host for host in report["hosts"]}

    def assert_nothing_shown(self, output: str) -> None:
        """Check that no token of anybody is in an output or report, and that nothing broke."""
        reports = "".join(path.read_text() for path in self.report.rglob("*") if path.is_file())
        for name, person in self.persons.items():
            assert not [token for token in (*self.tokens(name), person.token) if token in output + reports]
        assert "Traceback" not in output


def _descendants(pid: int) -> list[int]:
    """Return all processes that a process has started, and these; each may end at any time."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [other for child in children for other in _descendants(child)]


def squeezed(run: Run) -> str:
    """Return what a run printed, without its line breaks."""
    return " ".join(run.output.split())


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return the counts of a run's recap, by host."""
    lines = output.rpartition("PLAY RECAP")[2].splitlines()
    return {
        line.split()[0]: {name: int(count) for name, _sign, count in (word.partition("=") for word in line.split()[2:])}
        for line in lines
        if "changed=" in line
    }
