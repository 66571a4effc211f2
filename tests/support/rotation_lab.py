# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pretend workstations of a lab, for tests of the playbook rotate: homes in a folder, a vault, a stand-in server."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible, command, environment

from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable
from cave_server import CaveServer


def _descendants(pid: int) -> list[int]:
    """All processes that a process has started, and these."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [other for child in children for other in _descendants(child)]


PASSWORD = b"correct horse"
USER = getpass.getuser()


class Lab:
    """A lab in a folder.

    Args:
        folder: an empty one.
        cave: the server of its people.
        people: who works on which workstation; everybody has the same account name, that of the tests.
    """

    def __init__(self, folder: Path, cave: CaveServer, people: Mapping[str, str]) -> None:
        self.folder = folder
        self.cave = cave
        self.people = dict(people)
        self.persons = {name: cave.add_person(name, ["minnie65_public"]) for name in dict.fromkeys(people.values())}
        self.vault = folder / "group_vars" / "all" / "vault.yml"
        self.report = folder / "reports"
        self.vault.parent.mkdir(parents=True)
        (folder / "password").write_bytes(PASSWORD)
        self.set_variables()
        self.write_vault({f"vault_cave_token_{name}": person.token for name, person in self.persons.items()})
        self.hosts: dict[str, dict[str, Any]] = {}
        for host, person in people.items():
            (folder / host).mkdir()
            # The Python of a workstation is this one, with a home of its own.
            python = folder / host / "python"
            interpreter = shlex.quote(sys.executable)
            python.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(folder / host))} exec {interpreter} "$@"\n')
            python.chmod(0o755)
            self.hosts[host] = {
                "ansible_connection": "local",
                "ansible_python_interpreter": str(python),
                "person": person,
            }
        self.write_inventory()

    def set_variables(self, **more: Any) -> None:
        """Write the variables of all hosts."""
        variables = {
            "caveclient_become": False,
            "caveclient_server": self.cave.url,
            "caveclient_datastacks": ["minnie65_public"],
            "caveclient_tokens": [{"user": USER, "token": "{{ lookup('vars', 'vault_cave_token_' ~ person) }}"}],
            **more,
        }
        (self.vault.parent / "main.yml").write_text(json.dumps(variables, indent=2))

    def write_vault(self, tokens: Mapping[str, str]) -> None:
        """Write the vault file, with each variable encrypted by itself."""
        text = "# the lab's tokens\n"
        for name, token in tokens.items():
            lines = VaultLib().encrypt(token, VaultSecret(PASSWORD)).decode().splitlines()
            text += f"{name}: !vault |\n" + "".join(f"          {line}\n" for line in lines)
        self.vault.write_text(text)

    def write_inventory(self) -> None:
        """Write the inventory as ``hosts`` is now."""
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": self.hosts}}))

    def switch_off(self, *hosts: str) -> None:
        """Make hosts unreachable."""
        for host in hosts:
            self.hosts[host].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
        self.write_inventory()

    def switch_on(self, *hosts: str) -> None:
        """Make hosts reachable again."""
        for host in hosts:
            self.hosts[host]["ansible_connection"] = "local"
        self.write_inventory()

    def secrets(self, host: str) -> Path:
        """The secrets directory of the user of a host."""
        return self.folder / host / ".cloudvolume" / "secrets"

    def saved(self, host: str) -> str | None:
        """The token that a host has, as caveclient reads it."""
        path = self.secrets(host) / f"{self.cave.url.partition('//')[2]}-cave-secret.json"
        return json.loads(path.read_text())["token"] if path.exists() else None

    def save(self, token: str, *hosts: str) -> None:
        """Put a token on hosts (all of them by default), as provisioning has done it."""
        for host in hosts or self.hosts:
            self.secrets(host).mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (f"{self.cave.url.partition('//')[2]}-cave-secret.json", "cave-secret.json"):
                path = self.secrets(host) / name
                path.write_text(json.dumps({"token": token}))
                path.chmod(0o600)

    def stored(self, person: str = "alice") -> str | None:
        """The token of a person in the vault."""
        return read_variable(str(self.vault), (f"vault_cave_token_{person}",), [("default", VaultSecret(PASSWORD))])

    def arguments(self, *more: str, **variables: Any) -> list[str]:
        """The arguments of ansible-playbook for a rotation."""
        extra = {"caveclient_rotate_grace": 0.5, "caveclient_report": str(self.report), **variables}
        return [
            *("-i", "hosts.yml", "--vault-password-file", "password", "connectomics.cave.rotate"),
            *(
                "-e",
                json.dumps(
                    {f"caveclient_rotate_{k}" if not k.startswith("caveclient_") else k: v for k, v in extra.items()}
                ),
            ),
            *more,
        ]

    def rotate(self, *more: str, **variables: Any) -> Run:
        """Rotate; keywords are variables, ``caveclient_rotate_`` left out."""
        run = ansible(self.folder, "playbook", *self.arguments(*more, **variables))
        self.assert_nothing_shown(run.output)
        return run

    def start(self, *more: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a rotation, and leave it running."""
        return subprocess.Popen(
            command("playbook", *self.arguments(*more, **variables)),
            cwd=self.folder,
            env=environment(self.folder, PYTHONUNBUFFERED="1"),
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

    def tokens(self, person: str = "alice") -> list[str]:
        """All tokens of a person that are alive, newest first."""
        return [item["token"] for item in self.cave.tokens(person)]

    def assert_nothing_shown(self, output: str) -> None:
        """Check that no token of anybody is in an output or report."""
        reports = "".join(path.read_text() for path in self.report.rglob("*") if path.is_file())
        for person in self.persons:
            for token in [*self.tokens(person), self.persons[person].token]:
                assert token not in output + reports
