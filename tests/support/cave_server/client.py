# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`CaveServer`: the stand-in server as a Python object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

START_SECONDS = 30.0
STOP_SECONDS = 5.0
# The machine's proxy, if it has one, leads away from loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Person:
    """Somebody with an account; `token` is the newest key's (empty without a key)."""

    name: str
    id: int
    email: str
    token: str


class CaveServer:
    """A stand-in CAVE server in a process of its own; a context manager.

    Args:
        tls: HTTPS; `ca` is then the bundle that trusts it.
        cache_ttl: seconds for which the info service remembers a token.
        legacy: making a token kills the person's old ones.
        address: to listen at. The control API is on loopback in any case.
        port: 0: any.
        latency: seconds that every answer takes.
        auth_down_delay: seconds until the info service gives up on an auth server that is down.
        certificate: `good`, `wrong_host`, `expired` or `untrusted`.
        tls_version: speak `1.0`, `1.1`, `1.2` or `1.3` alone.
        names: further host names for the certificate.
    """

    def __init__(
        self,
        tls: bool = False,
        cache_ttl: float = 300,
        legacy: bool = False,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        latency: float = 0,
        auth_down_delay: float = 3,
        certificate: str = "good",
        tls_version: str | None = None,
        names: Iterable[str] = (),
    ) -> None:
        self.url = ""
        self.ca: str | None = None
        self.pid = 0
        self._control = ""
        self._key = ""
        self._process: subprocess.Popen[str] | None = None
        self._command = [sys.executable, "-m", "cave_server", "--die-with", "stdin"]
        self._command += ["--address", address, "--port", str(port), "--cache-ttl", str(cache_ttl)]
        self._command += ["--latency", str(latency), "--auth-down-delay", str(auth_down_delay)]
        self._command += ["--legacy"] if legacy else []
        if tls:
            self._command += ["--tls", "--certificate", certificate, *[f"--name={name}" for name in names]]
            self._command += ["--tls-version", tls_version] if tls_version else []

    @classmethod
    def attach(cls, ready_file: str | os.PathLike[str]) -> CaveServer:
        """Return the server that was started as a command with this `--ready-file`; stopping is left to its starter."""
        server = cls()
        server._ready(Path(ready_file).read_text(encoding="utf-8"))
        return server

    def start(self) -> CaveServer:
        """Start it and wait until it is ready."""
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        self._process = process
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the stand-in server ended with status {process.returncode} before it was ready")
        self._ready(line)
        return self

    def _ready(self, line: str) -> None:
        told = json.loads(line)
        self.url, self.ca, self.pid = told["url"], told["ca"], told["pid"]
        self._control, self._key = told["control"], told["key"]

    def stop(self) -> None:
        """Stop it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __enter__(self) -> CaveServer:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    # The world

    def reset(self, **options: Any) -> None:
        """Start afresh: nobody there, no faults, no requests. Options: cache_ttl, legacy, latency, auth_down_delay."""
        self._call("reset", **options)

    def configure(self, **options: Any) -> None:
        """Change options and leave the rest as it is: those of `reset`, and these.

        auth_down: as `set_auth_down`.
        auth_hiccup: status that the services get from the auth server in place of its answers; 0: none.
        without_token: services (info, materialize, ...) whose own token is dead.
        broken: services whose store is down.
        versions, limits: of services, and questions a minute, as `world.VERSIONS` and `world.LIMITS`.
        """
        self._call("configure", **options)

    def set_listening(self, on: bool) -> None:
        """Refuse connections, or take them again, at the same port; nothing is forgotten."""
        self._call("listen", on=on)

    def set_auth_down(self, down: bool = True) -> None:
        """Take the auth server down, or up again; the info service stays."""
        self._call("configure", auth_down=down)

    def advance(self, seconds: float) -> None:
        """Let time pass at once, for caches and dates."""
        self._call("advance", seconds=seconds)

    # People

    def add_person(
        self,
        name: str,
        permissions: Iterable[str] | Mapping[str, Iterable[str]] = (),
        accepted_tos: bool = True,
        admin: bool = False,
        token: str | None = None,
        description: str | None = None,
        with_key: bool = True,
        parent: Person | None = None,
    ) -> Person:
        """Add a person with one key.

        Args:
            permissions: datasets to view, or a mapping of datasets to `view` and `edit`.
            accepted_tos: all terms of service, or none.
            token: the value of the key, if it must be a certain one.
            description: of the key.
            with_key: False: no key at all.
            parent: whose service account it is.
        """
        granted = (
            {dataset: list(allowed) for dataset, allowed in permissions.items()}
            if isinstance(permissions, Mapping)
            else permissions
            if isinstance(permissions, str)
            else list(permissions)
        )
        return _person(
            self._call(
                "add_person",
                name=name,
                permissions=granted,
                accepted_tos=accepted_tos,
                admin=admin,
                token=token,
                description=description,
                with_key=with_key,
                parent_id=parent.id if parent else None,
            )
        )

    def person(self, name: str) -> Person:
        """Return a person as they are now."""
        return _person(self._call("person", name=name))

    def set_permissions(self, name: str, permissions: Iterable[str] | Mapping[str, list[str]]) -> None:
        """Give a person these permissions and no others."""
        granted = dict(permissions) if isinstance(permissions, Mapping) else list(permissions)
        self._call("set_permissions", name=name, permissions=granted)

    def accept_tos(self, name: str, terms: int | None = None) -> None:
        """Let a person accept terms of service, or all."""
        self._call("accept_tos", name=name, terms=terms)

    def log_in(self, name: str) -> str:
        """Return what a browser holds after login: the value of the cookie `middle_auth_token`."""
        return str(self._call("log_in", name=name))

    # Tokens

    def make_token(self, name: str, description: str | None = None, token: str | None = None) -> str:
        """Make a key and return its token."""
        return str(self._call("make_token", name=name, description=description, token=token))

    def tokens(self, name: str) -> list[dict[str, Any]]:
        """Return what `GET user/token` would, without using a token."""
        listed: list[dict[str, Any]] = self._call("tokens", name=name)
        return listed

    def hidden_tokens(self, name: str) -> list[str]:
        """Return a person's tokens that are alive and in no list."""
        listed: list[str] = self._call("hidden_tokens", name=name)
        return listed

    def refresh(self, name: str) -> str:
        """Exchange a person's only key; return the new token. The old one is dead at once."""
        return str(self._call("refresh", name=name))

    def revoke(self, token: str) -> None:
        """Kill a token."""
        self._call("revoke", token=token)

    # Datastacks

    def add_datastack(
        self,
        name: str,
        local_server: str | None = None,
        dataset: str | None = None,
        terms: int | None = None,
        record: bool = True,
        **fields: Any,
    ) -> None:
        """Add a datastack.

        Args:
            local_server: of its services; None: this server.
            dataset: what permissions are given for; the name by default.
            terms: id of the terms of service that its dataset, if new, demands.
            record: False: the auth server knows it, the info service doesn't.
            fields: fields of its record that are to differ.
        """
        self._call(
            "add_datastack",
            name=name,
            dataset=dataset,
            terms=terms,
            record=record,
            **({"local_server": local_server} if local_server else {}),
            **fields,
        )

    def serve(self, name: str = "minnie65_public", url: str | None = None) -> None:
        """Let a datastack's local server be this server, or the one of an address."""
        self._call("serve", name=name, url=url)

    def map_name(self, namespace: str, name: str, dataset: str) -> None:
        """Let a name in a service's namespace belong to another dataset than its datastack."""
        self._call("map_name", namespace=namespace, name=name, dataset=dataset)

    def add_terms(self, name: str) -> int:
        """Add terms of service and return their id."""
        return int(self._call("add_terms", name=name))

    # Faults and requests

    def set_fault(
        self,
        prefix: str,
        kind: str,
        times: int | None = None,
        skip: int = 0,
        method: str | None = None,
        fingerprint: str | None = None,
        client: str | None = None,
        **parameters: Any,
    ) -> None:
        """Switch a fault on for requests whose path begins with `prefix`; `cave_server/README.md` lists the kinds.

        Args:
            times: how many requests it meets; None: all.
            skip: how many pass unharmed first.
            method: only this one.
            fingerprint: only requests with the token of this fingerprint.
            client: only requests from this address.
            parameters: of the kind.
        """
        self._call(
            "set_fault",
            prefix=prefix,
            kind=kind,
            times=times,
            skip=skip,
            method=method,
            fingerprint=fingerprint,
            client=client,
            parameters=parameters,
        )

    def clear_faults(self) -> None:
        """Switch all faults off."""
        self._call("clear_faults")

    def requests(self, prefix: str = "", internal: bool = False) -> list[dict[str, Any]]:
        """Return the requests whose path begins with `prefix`.

        Each has method, path, fingerprint (of its token, or None), sent_in (header, cookie, query or None), client
        (address), time, status (None: no answer) and internal. `internal`: also the services' questions to the auth
        server.
        """
        listed: list[dict[str, Any]] = self._call("requests", prefix=prefix, internal=internal)
        return listed

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._call("clear_requests")

    def _call(self, call: str, /, **arguments: Any) -> Any:
        request = urllib.request.Request(
            self._control,
            data=json.dumps({"call": call, "arguments": arguments}).encode(),
            headers={"Authorization": self._key, "Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=START_SECONDS) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            with error:
                told = json.load(error)["error"] if error.code in (400, 403) else error.reason
            raise ValueError(told) from None


def _person(told: Mapping[str, Any]) -> Person:
    return Person(told["name"], told["id"], told["email"], told["token"] or "")
