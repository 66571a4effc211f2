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
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from ansible_run import ROOT, Run, ansible, environment
from homes import DEFAULT_FILE, secrets_of, token_in
from images.rootfs import cache_folder
from other_collections import collections_folder
from recipes import recipes
from token_stores import STORES

from cave_server import CaveServer

AWS_PACKAGES = ("boto3==1.43.6", "moto[secretsmanager,server]==5.2.5")


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


@pytest.fixture
def password_store(controller: Controller) -> Iterator[None]:
    """A GPG key without a passphrase, and a store for it."""
    if missing := [name for name in ("gpg", "pass") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}: sudo sh tests/packages.sh")
    gpg_home = controller.folder / ".gnupg"
    gpg_home.mkdir(mode=0o700)
    variables = {**controller._environment(), "GNUPGHOME": str(gpg_home)}
    controller.environment["GNUPGHOME"] = str(gpg_home)
    key = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "lab@example.org", "default", "default"]
    for command in (key, ["pass", "init", "lab@example.org"]):
        subprocess.run(command, env=variables, check=True, capture_output=True, timeout=60)
    yield
    subprocess.run(["gpgconf", "--kill", "all"], env=variables, check=True, timeout=60)


@pytest.mark.network
@pytest.mark.usefixtures("password_store")
def test_pass(controller: Controller) -> None:
    others = collections_folder("amazon.aws", "community.general")
    controller.environment["ANSIBLE_COLLECTIONS_PATH"] = f"{ROOT / '.tree'}{os.pathsep}{others}"
    controller.follow("pass", typed=f"{controller.token}\n{controller.token}\n")
    assert in_clear(controller) == []
    controller.provisions()
    assert in_clear(controller) == []


@pytest.fixture(scope="session")
def aws() -> Iterator[tuple[str, Path]]:
    """The address of moto's stand-in for AWS, and a folder with boto3 and moto."""
    folder = cache_folder() / "aws" / "-".join(AWS_PACKAGES)
    if not (folder / ".complete").exists():
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--quiet", "--target", str(folder), *AWS_PACKAGES]
        subprocess.run(command, check=True, timeout=300)
        (folder / ".complete").touch()
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    port = str(free_port())
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from moto.server import main; main(sys.argv[1:])",
            "-H127.0.0.1",
            f"-p{port}",
        ],
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not answers(address):
            assert server.poll() is None, "moto ended"
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.2)
        yield address, folder
    finally:
        server.terminate()
        server.wait(timeout=20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


PUT = "import boto3, sys; boto3.client('secretsmanager').create_secret(Name=sys.argv[1], SecretString=sys.stdin.read())"
Secret = Callable[[str], str]


@pytest.mark.network
@pytest.mark.parametrize(
    ("recipe", "name", "secret"),
    [
        ("aws", "cave/alice", lambda token: token),
        ("aws-json", "cave/tokens", lambda token: f'{{"alice": "{token}", "bob": "x"}}'),
    ],
)
def test_aws_secrets_manager(
    controller: Controller, aws: tuple[str, Path], recipe: str, name: str, secret: Secret
) -> None:
    address, packages = aws
    others = collections_folder("amazon.aws", "community.general")
    controller.environment |= {
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.tree'}{os.pathsep}{others}",
        "PYTHONPATH": str(packages),
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    value = secret(controller.token)
    put = [sys.executable, "-c", PUT, name]
    subprocess.run(put, input=value, text=True, env=controller._environment(), check=True, timeout=60)
    controller.follow(recipe)
    controller.provisions()
    assert in_clear(controller) == []


def test_a_token_file_on_the_controller(controller: Controller) -> None:
    controller.follow("file", typed=f"{controller.token}\n")
    assert in_clear(controller) == ["secrets/alice"]
    assert (controller.folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert (controller.folder / "secrets" / "alice").stat().st_mode & 0o777 == 0o600
    controller.provisions()


def test_every_recipe_of_the_page_is_run() -> None:
    assert recipes().keys() == {"inline", "whole", "pass", "aws", "aws-json", "file", *STORES}
