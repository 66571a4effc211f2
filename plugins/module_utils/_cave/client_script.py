# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``CAVEclient(datastack)``, as its documentation says, in a process of its own.

``_client`` hands the source of this file to the Python of a caveclient environment, which knows nothing of Ansible:
only the standard library and caveclient may be imported here, the latter when everything is prepared for it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import webbrowser
from typing import Any

MOST_MEMORY = 4 << 30
"""Bytes of address space, in case of anything; caveclient takes about a quarter of it."""
MOST_READ = 16 << 20
"""Bytes of an answer. caveclient itself would read on for as long as the server sends."""
MOST_TOLD = 65536
"""Bytes of an answer that are handed on."""
HEADERS = ("content-type", "content-encoding", "location", "retry-after")


class _LastAnswer:
    """Remembers the answer that caveclient got last: the exceptions that it raises often don't have it."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._answer: dict[str, Any] | None = None

    def listen(self) -> None:
        """Look over the shoulder of every requests.Session, and end a wait that goes on beyond the deadline."""
        from requests import Session
        from urllib3.util.retry import Retry

        send, retry_after = Session.send, Retry.get_retry_after

        def sending(session: Any, request: Any, **options: Any) -> Any:
            self.forget()
            answer = send(session, request, **{**options, "stream": True})
            answer._content = _read(answer)
            self._remember(answer.status_code, answer.headers, answer.content, answer.url, bool(answer.history))
            return answer

        def waiting(retry: Any, answer: Any) -> Any:
            seconds = retry_after(retry, answer)
            if seconds and time.monotonic() + seconds > self._deadline:
                self._remember(answer.status, answer.headers, b"", "", False)
                raise TimeoutError(f"the server asks for {seconds:.0f} s without requests")
            return seconds

        Session.send = sending  # type: ignore[method-assign,assignment]  # in its place on purpose
        Retry.get_retry_after = waiting  # type: ignore[method-assign,assignment]  # as above

    def forget(self) -> None:
        """Begin anew."""
        self._answer = None

    def describe(self) -> dict[str, Any] | None:
        """Return the answer as JSON-able data, None without one."""
        return self._answer

    def _remember(self, status: int, headers: Any, body: bytes, url: str, redirected: bool) -> None:
        self._answer = {
            "status": status,
            "headers": {name: headers[name] for name in HEADERS if name in headers},
            "body": body[:MOST_TOLD].decode("latin-1"),
            "url": url,
            "redirected": redirected,
        }


def _read(answer: Any) -> bytes:
    parts = []
    size = 0
    for part in answer.iter_content(65536):
        parts.append(part)
        size += len(part)
        if size > MOST_READ:
            answer.close()
            raise OverflowError(f"the answer is larger than {MOST_READ} bytes")
    return b"".join(parts)


def _forbid_browsers() -> None:
    """caveclient opens the form of the terms of service, which on a server starts a text browser that never ends."""

    def none(*_arguments: Any, **_options: Any) -> Any:
        return False

    for name in ("open", "open_new", "open_new_tab"):
        setattr(webbrowser, name, none)

    def no_controller(*_arguments: Any) -> Any:
        raise webbrowser.Error("no browser here")

    setattr(webbrowser, "get", no_controller)  # noqa: B010 (its type is another one)


def _describe(error: BaseException) -> dict[str, Any]:
    kinds = [kind for kind in type(error).__mro__ if kind not in (BaseException, object)]
    return {"names": [f"{kind.__module__}.{kind.__name__}" for kind in kinds], "text": str(error)[:4000]}


def _check(datastack: str, key: str, last: _LastAnswer) -> dict[str, Any]:
    result: dict[str, Any] = {"datastack": datastack, "names": [], "text": ""}
    try:
        CAVEclient = importlib.import_module("caveclient").CAVEclient  # noqa: N806 (its name)
        last.forget()
        # No server address: which one it is, is part of what is checked.
        client = CAVEclient(datastack) if key == "token" else CAVEclient(datastack, auth_token_key=key)
        result["local_server"] = str(getattr(client, "local_server", "") or "")
    except (Exception, SystemExit) as error:  # noqa: BLE001 (every failure is a result)
        result.update(_describe(error))
    result["answer"] = last.describe()
    return result


def main(arguments: list[str]) -> None:
    """Check each datastack, and write a line of JSON about each.

    Args:
        arguments: number of the descriptor to write to; then, as JSON, ``timeout`` (seconds for all of it), ``key`` and
            ``datastacks``.
    """
    descriptor, asked = int(arguments[0]), json.loads(arguments[1])
    os.set_inheritable(descriptor, False)
    deadline = time.monotonic() + asked["timeout"]
    signal.alarm(int(asked["timeout"]) + 2)  # should whoever started this be gone
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    _forbid_browsers()
    last = _LastAnswer(deadline)
    with contextlib.suppress(ImportError):
        last.listen()
    with os.fdopen(descriptor, "w", encoding="utf-8") as report:
        for datastack in asked["datastacks"]:
            result = _check(datastack, asked["key"], last)
            result["version"] = str(getattr(sys.modules.get("caveclient"), "__version__", ""))
            report.write(json.dumps(result) + "\n")
            report.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
