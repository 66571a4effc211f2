# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""This computer as the workstations of a lab, each with a home of its own."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import stub_wheels

from cave_server import CaveServer


class Workstations:
    """Pretend workstations in a folder, for one person with a token: local connections, separate homes, no root.

    caveclient is a stub that installs in no time.
    """

    def __init__(self, folder: Path, cave: CaveServer, *names: str) -> None:
        self.folder = folder
        self.names = names
        self.person = cave.add_person("alice", permissions=["minnie65_public"])
        self._wheels = stub_wheels.lab(folder / "wheels", "8.2.1")
        self._server = cave.url
        for name in names:
            (folder / name / "home").mkdir(parents=True)
            python = folder / name / "python"
            python.write_text(f'#!/bin/sh\nHOME={folder}/{name}/home exec {sys.executable} "$@"\n')
            python.chmod(0o755)

    def variables(self) -> dict[str, Any]:
        """Return the variables of all hosts, but for the tokens."""
        here = f"{self.folder}/{{{{ inventory_hostname }}}}"
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": f"{here}/python",
            "caveclient_become": False,
            "caveclient_server": self._server,
            "caveclient_path": f"{here}/opt/caveclient",
            "caveclient_jupyter_dir": f"{here}/jupyter",
            "caveclient_find_links": [str(self._wheels)],
            "caveclient_offline": True,
        }

    def tokens(self) -> list[dict[str, str]]:
        """Return the list caveclient_tokens, with the token in clear."""
        return [{"user": getpass.getuser(), "token": self.person.token}]

    def inventory(self, **more: Any) -> dict[str, Any]:
        """Return the inventory; ``more`` are further variables of all hosts."""
        hosts: dict[str, Any] = {name: {} for name in self.names}
        return {"all": {"vars": {**self.variables(), **more}, "children": {"workstations": {"hosts": hosts}}}}

    def saved(self, name: str) -> str:
        """Return the content of a workstation's file for all servers; empty when there is none."""
        path = self.folder / name / "home" / ".cloudvolume" / "secrets" / "cave-secret.json"
        return path.read_text() if path.exists() else ""
