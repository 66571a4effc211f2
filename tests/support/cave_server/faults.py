# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which fault meets which request. How a fault looks on the wire is in `wire.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

INSTEAD: dict[str, tuple[str, dict[str, Any]]] = {
    "status": ("an error of the front end", {"status": 503, "retry_after": None, "body": None, "type": "text/html"}),
    "html": ("a login page, with status 200", {"status": 200}),
    "redirect": ("a redirect", {"location": "https://elsewhere.example.org/", "status": 302}),
    "cut": ("the connection is reset before anything was done", {}),
    "hang": ("no answer, ever", {}),
    "endless": ("a body without an end", {"megabytes": 10_240}),
    "endless_headers": ("header lines without an end", {"megabytes": 10_240}),
    "gzip_bomb": ("a small gzip body that unpacks to a huge one", {"megabytes": 1024}),
    "header_injection": ("terminal escapes, forged lines and absurd numbers in headers and body", {"status": 401}),
    "not_http": ("bytes that are not HTTP", {}),
}
"""Faults that the request never gets behind, so that nothing happens to keys: what they do, parameters, defaults."""

SPOILING: dict[str, tuple[str, dict[str, Any]]] = {
    "cut_after": ("the request is carried out, the answer is lost", {}),
    "cut_body": ("the connection ends in the middle of the body", {}),
    "cut_json": ("a whole answer whose JSON ends in the middle", {}),
    "content_type": ("the true body under another content type", {"type": "text/plain"}),
    "drip": ("the true answer, slowly, byte by byte", {"interval": 1.0, "headers": False}),
    "pipelined": ("the true answer, with another one that nobody asked for behind it", {}),
}
"""Faults in the answer to a request that is carried out."""

DELAYING: dict[str, tuple[str, dict[str, Any]]] = {"latency": ("the answer comes later", {"seconds": 1.0})}
"""Comes on top of the other faults."""

KINDS = INSTEAD | SPOILING | DELAYING


@dataclass
class Fault:
    """A fault, for requests whose path begins with `prefix`.

    Attributes:
        kind: one of `KINDS`; `parameters` are its own.
        times: how many more requests it meets; None: all.
        skip: how many matching requests pass unharmed first.
        method: only requests of this method.
        fingerprint: only requests with the token of this fingerprint.
        client: only requests from this address.
    """

    prefix: str
    kind: str
    times: int | None = None
    skip: int = 0
    method: str | None = None
    fingerprint: str | None = None
    client: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the kind and its parameters, and fill in the defaults."""
        if self.kind not in KINDS:
            raise ValueError(f"there is no fault {self.kind!r}; there are {', '.join(KINDS)}")
        defaults = KINDS[self.kind][1]
        unknown = set(self.parameters) - set(defaults)
        if unknown:
            raise ValueError(
                f"the fault {self.kind} has no {', '.join(sorted(unknown))}; it has: {', '.join(defaults)}"
            )
        self.parameters = defaults | self.parameters

    def meets(self, method: str, path: str, token: str | None, client: str | None = None) -> bool:
        """Say whether a request is met, and count it. `token` is its token's fingerprint, `client` who sends it."""
        if (
            self.times == 0
            or not path.startswith(self.prefix)
            or self.method not in (None, method)
            or self.fingerprint not in (None, token)
            or self.client not in (None, client)
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The faults that are switched on, in the order in which they were set."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Switch a fault on."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Switch all faults off."""
        self._faults.clear()

    def take(self, method: str, path: str, token: str | None, client: str | None = None) -> tuple[float, Fault | None]:
        """Return the delay and the fault that meet a request: all delays added up, the first of the other faults."""
        delay = 0.0
        met = None
        for fault in self._faults:
            if fault.kind in DELAYING:
                if fault.meets(method, path, token, client):
                    delay += fault.parameters["seconds"]
            elif met is None and fault.meets(method, path, token, client):
                met = fault
        return delay, met
