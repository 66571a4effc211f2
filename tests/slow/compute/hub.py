# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A JupyterHub on loopback, in a mount namespace where people have accounts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from ansible_run import ROOT
from homes import copy_of_etc
from package.conftest import python_with
from token_stores import free_port

FIRST_ID = 61_500
TOKEN = "c" * 32
"""Of the hub's own API."""
PATIENCE = 120
SETTINGS = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub}
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.spawner_class = "simple"  # all servers run as the hub's user, and start in no time
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy}"
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "test", "services": ["test"], "scopes": ["read:hub", "admin:users", "admin:servers"]}}
]
c.Spawner.start_timeout = c.Spawner.http_timeout = {patience}
c.Spawner.args = ["--allow-root"]
"""
WITH_ACCOUNTS = 'mount --bind "$0/etc" /etc; exec "$@"'


class Hub:
    """A JupyterHub, which is down again after the block.

    Args:
        folder: for all that it writes; is made.
        text: of its configuration, beside what lets a test use it.
        homes: of people with accounts, by name.
    """

    def __init__(self, folder: Path, text: str, homes: Mapping[str, Path]) -> None:
        self.folder = folder
        self._text = text
        self._homes = homes
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"token {TOKEN}"
        self._api = ""

    def __enter__(self) -> Hub:
        """Start it, and wait until it answers."""
        self.folder.mkdir()
        ports = {"port": free_port(), "hub": free_port(), "proxy": free_port()}
        self._api = f"http://127.0.0.1:{ports['port']}/hub/api"
        settings = SETTINGS.format(token=TOKEN, patience=PATIENCE, **ports)
        (self.folder / "config.py").write_text(self._text + settings)
        self._make_accounts()
        lock = ROOT / "requirements" / "jupyterhub.txt"
        programs = python_with("jupyterhub", ["--require-hashes", "--requirement", str(lock)], lock).parent
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_ACCOUNTS, str(self.folder)]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*enter, str(programs / "jupyterhub"), "--config", "config.py"],
                cwd=self.folder,
                env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "no_proxy": "*"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(lambda: self._ask("get", "/info").ok)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it, its proxy and all servers."""
        assert self._process
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)

    def log(self) -> str:
        """Return its log."""
        return (self.folder / "log").read_text()

    def start_server(self, user: str) -> None:
        """Start a person's server, and wait until it answers."""
        self._ask("post", f"/users/{user}")
        self._ask("post", f"/users/{user}/server").raise_for_status()
        self._wait(lambda: bool(self._server(user).get("ready")))

    def stop_server(self, user: str) -> None:
        """Stop a person's server, and wait until it is down."""
        self._ask("delete", f"/users/{user}/server").raise_for_status()
        self._wait(lambda: not self._server(user))

    def _server(self, user: str) -> dict[str, Any]:
        servers: dict[str, dict[str, Any]] = self._ask("get", f"/users/{user}").json()["servers"]
        return servers.get("", {})

    def _ask(self, method: str, path: str) -> requests.Response:
        return self._session.request(method, self._api + path, timeout=PATIENCE)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if is_so():
                    return
            except requests.RequestException:
                pass  # it does not answer yet
            time.sleep(0.1)
        raise TimeoutError(self.log()[-5000:])

    def _make_accounts(self) -> None:
        added = {
            "passwd": "{name}:x:{id}:{id}::{home}:/bin/bash\n",
            "group": "{name}:x:{id}:\n",
            "shadow": "{name}:*::::::\n",
        }
        settings = copy_of_etc(self.folder)
        for file, line in added.items():
            text = (settings / file).read_text()
            for number, (name, home) in enumerate(self._homes.items(), FIRST_ID):
                text += line.format(name=name, id=number, home=home)
                for path in [home, *home.rglob("*")]:
                    os.lchown(path, number, number)
            (settings / file).write_text(text)
