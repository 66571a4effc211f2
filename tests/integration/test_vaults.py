# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recipes of docs/docsite/rst/vaults.rst, run as they stand there: from each kind of vault into the secrets files.

Those of stores that enroll and rotate write are run in tests/slow/stores.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from ansible_run import Run, ansible, environment
from homes import DEFAULT_FILE, secrets_of, token_in
from lab import USER, Lab
from recipes import recipes
from token_stores import STORES

from cave_server import CaveServer


class Controller:
    """The administrator's folder, one pretend workstation, and what a recipe needs besides."""

    def __init__(self, folder: Path, cave: CaveServer) -> None:
        self.folder = folder
        self.token = cave.add_person("alice", ["minnie65_public"]).token
        self.environment: dict[str, str] = {}
        self.arguments: list[str] = []
        self.home = folder / "ws1"
        self.home.mkdir()
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(self.home))} exec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        (folder / "hosts.yml").write_text(
            f"all:\n  hosts: {{ws1: }}\n  vars:\n    ansible_connection: local\n"
            f"    ansible_python_interpreter: {python}\n    caveclient_become: false\n"
            f"    caveclient_server: {cave.url}\n"
        )

    def follow(self, recipe: str, typed: str = "") -> None:
        """Do what the page says; ``typed`` is what a person would type."""
        for step in recipes()[recipe]:
            if step.path:
                path = self.folder / step.path
                path.parent.mkdir(parents=True, exist_ok=True)
                # The one who runs the tests is the only user there is.
                path.write_text(re.sub(r"user: alice\b", f"user: {getpass.getuser()}", step.text))
            else:
                self._run(step.text, typed)

    def _run(self, script: str, typed: str) -> None:
        """Run commands with what is typed on standard input; in a terminal when nothing is typed there."""
        if typed:
            done = subprocess.run(
                ["bash", "-ec", script],
                cwd=self.folder,
                env=self._environment(),
                input=typed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=60,
            )
            output, status = done.stdout, done.returncode
        else:
            terminal = pexpect.spawn(
                "bash", ["-ec", script], cwd=str(self.folder), env=self._environment(), encoding="utf-8", timeout=60
            )
            terminal.expect(pexpect.EOF)
            terminal.close()
            output, status = str(terminal.before), int(terminal.exitstatus or 0)
        assert status == 0, output
        assert self.token not in output

    def _environment(self) -> dict[str, str]:
        variables = environment(self.folder, **self.environment)
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        return variables

    def play(self, playbook: str, *arguments: str) -> Run:
        words = ["-i", "hosts.yml", f"connectomics.cave.{playbook}", *self.arguments, *arguments]
        done = ansible(self.folder, "playbook", *words, **self.environment)
        assert self.token not in done.output
        return done

    def provisions(self) -> None:
        """From the vault to the secrets file, proven, and nothing of it is shown."""
        done = self.play("provision", "--tags", "token", "-vvv")
        assert done.ok, done.output
        assert "1 workstation ok" in done.output
        assert token_in(secrets_of(self.home) / DEFAULT_FILE) == self.token


@pytest.fixture
def controller(cave: CaveServer, tmp_path: Path) -> Controller:
    return Controller(tmp_path, cave)


def in_clear(controller: Controller) -> list[str]:
    """The files of the controller that hold the token in clear."""
    return [
        str(path.relative_to(controller.folder))
        for path in controller.folder.rglob("*")
        if path.is_file() and controller.home not in path.parents and controller.token.encode() in path.read_bytes()
    ]


@pytest.fixture
def vault_password(controller: Controller) -> None:
    (controller.folder / "password").write_text("correct horse")
    controller.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(controller.folder / "password")


@pytest.mark.usefixtures("vault_password")
def test_ansible_vault_variable_by_variable(controller: Controller) -> None:
    controller.follow("inline", typed=controller.token)
    assert in_clear(controller) == []
    controller.provisions()
    del controller.environment["ANSIBLE_VAULT_PASSWORD_FILE"]
    assert controller.play("audit", "-e", f"caveclient_audit_users={getpass.getuser()}").ok


@pytest.mark.usefixtures("vault_password")
def test_ansible_vault_the_whole_file(controller: Controller) -> None:
    editor = controller.folder / "editor"
    editor.write_text(f'#!/bin/sh\ncat > "$1" << \'E\'\nvault_cave_tokens: {{alice: "{controller.token}"}}\nE\n')
    editor.chmod(0o755)
    controller.environment["EDITOR"] = str(editor)
    controller.follow("whole")
    editor.unlink()
    assert in_clear(controller) == []
    controller.provisions()
    del controller.environment["ANSIBLE_VAULT_PASSWORD_FILE"]
    # As the page says: Ansible itself does not begin.
    audit = controller.play("audit")
    assert audit.status != 0
    assert "vault" in audit.output.lower()


def test_a_token_file_on_the_controller(controller: Controller) -> None:
    controller.follow("file", typed=f"{controller.token}\n")
    assert in_clear(controller) == ["secrets/alice"]
    assert (controller.folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert (controller.folder / "secrets" / "alice").stat().st_mode & 0o777 == 0o600
    controller.provisions()


def test_every_recipe_of_the_page_is_run() -> None:
    assert recipes().keys() == {"inline", "whole", "file", *STORES}


def test_a_run_asks_the_store_once_for_a_token_however_many_hosts_it_has(cave: CaveServer, tmp_path: Path) -> None:
    lab = Lab(tmp_path, cave, [f"ws{number}" for number in range(1, 7)])
    passwords, calls = tmp_path / "passwords", tmp_path / "calls"
    (passwords / "cave").mkdir(parents=True)
    (passwords / "cave" / "alice.gpg").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pass").write_text(f'#!/bin/sh\necho "$*" >> {calls}\nsleep 0.3\necho {lab.token}\n')
    (tmp_path / "bin" / "pass").chmod(0o755)
    lab.settings = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "ANSIBLE_FORKS": "6"}
    token = "{{ lookup('connectomics.cave.stored_token', 'cave/alice') }}"
    lab.variables["caveclient_store"] = {"type": "pass", "path": str(passwords)}
    lab.variables["caveclient_tokens"] = [{"user": USER, "token": token}]
    for playbook in ("provision", "verify", "rotate"):
        calls.write_text("")
        run = lab.play(playbook, *(["--tags", "token"] if playbook == "provision" else []))
        assert run.ok, run.output
        assert calls.read_text().splitlines() in (["show cave/alice"], []), playbook
    assert {lab.saved(host) for host in lab.hosts} == {lab.token}
    assert [path for path in lab.holding(lab.token) if "/.cloudvolume/" not in path] == ["bin/pass"]
