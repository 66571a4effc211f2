# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person at a computer that has cave-doctor and a home, and nothing of Ansible."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pexpect
from homes import fill, secrets_of

from ansible_collections.connectomics.cave.plugins.plugin_utils._doctor_file import build
from cave_server import CaveServer

DATASTACK = "minnie65_public"
PERSON = 65534
"""An account that every computer has, and that may do nothing; its home is the desk's."""


class Desk:
    """A person at a computer that has cave-doctor and a home, and nothing of Ansible."""

    def __init__(self, folder: Path, server: str) -> None:
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.program = folder / "cave-doctor"
        self.server = server
        self.environments = folder / "caveclient"
        port = urlsplit(server).port
        self.local_server = f"http://localhost:{port}"
        """Another name of the server, which stands for the datastack's local server."""
        stacks = [{"name": DATASTACK, "local_server": self.local_server}]
        lab = {"version": "0.1.0", "server": server, "datastacks": stacks, "path": str(self.environments)}
        self.program.write_bytes(build(lab))
        self.program.chmod(0o755)
        self.usual: list[str] = []
        """Arguments of every question."""
        self.as_person = os.geteuid() == 0
        """Whether the program runs as an ordinary account, and not as the account of the tests."""
        self.environment = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "no_proxy": "*"}

    @classmethod
    def of_alice(cls, folder: Path, cave: CaveServer) -> Desk:
        """Return the desk of Alice, where all is well, and whose programs run as the account of the tests."""
        desk = cls(folder, cave.url)
        desk.as_person = False
        cave.serve(DATASTACK)
        desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)
        return desk

    @property
    def secrets(self) -> Path:
        """The secrets directory."""
        return secrets_of(self.home)

    @property
    def server_file(self) -> Path:
        """The file that caveclient reads for the server."""
        return self.secrets / f"{urlsplit(self.server).netloc}-cave-secret.json"

    def save(self, token: str) -> Path:
        """Let both of the usual secrets files hold a token; return the server's."""
        fill(self.home, {self.server_file.name: {"token": token}, "cave-secret.json": {"token": token}})
        return self.server_file

    def ask(
        self, *arguments: str, python: str = "/usr/bin/python3", answers: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run cave-doctor, with answers to what it asks."""
        return subprocess.run(
            self._command(python, *arguments),
            env={**self.environment, **more},
            input=answers,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _command(self, python: str, *arguments: str) -> list[str]:
        command = [python, str(self.program), *arguments]
        if not self.as_person:
            return command
        for path in [self.home, *self.home.rglob("*")]:
            if path.lstat().st_uid == 0:
                os.lchown(path, PERSON, PERSON)
        return ["setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups", *command]

    def at_terminal(self, *arguments: str) -> pexpect.spawn[str]:
        """Start cave-doctor at a terminal."""
        first, *words = self._command("/usr/bin/python3", *arguments)
        return pexpect.spawn(first, words, env=self.environment, encoding="utf-8", timeout=30)
