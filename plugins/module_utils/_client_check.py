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
import webbrowser
from typing import Any

MOST_MEMORY = 4 << 30
"""Bytes of address space: caveclient reads whatever a server sends into memory, and takes about 1 GiB of it at rest."""
MOST_BODY = 65536
HEADERS = ("content-type", "content-encoding", "location", "retry-after")


class _LastAnswer:
    """Remembers the answer that caveclient got last: the exceptions that it raises often don't have it."""

    def __init__(self) -> None:
        self.answer: Any = None

    def listen(self) -> None:
        """Look over the shoulder of every requests.Session."""
        import requests

        send = requests.Session.send

        def sending(session: Any, request: Any, **options: Any) -> Any:
            self.answer = None
            self.answer = send(session, request, **options)
            return self.answer

        requests.Session.send = sending  # type: ignore[method-assign,assignment]

    def describe(self) -> dict[str, Any] | None:
        """Return the answer as JSON-able data, None without one."""
        if self.answer is None:
            return None
        return {
            "status": self.answer.status_code,
            "headers": {name: self.answer.headers[name] for name in HEADERS if name in self.answer.headers},
            "body": self.answer.content[:MOST_BODY].decode("latin-1"),
            "url": self.answer.url,
            "redirected": bool(self.answer.history),
        }


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
        last.answer = None
        # No server address: which one it is, is part of what is checked.
        client = CAVEclient(datastack) if key == "token" else CAVEclient(datastack, auth_token_key=key)
        result["local_server"] = str(getattr(client, "local_server", "") or "")
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever it is, it is the result)
        result.update(_describe(error))
    result["answer"] = last.describe()
    return result


def main(arguments: list[str]) -> None:
    """Check each datastack, and write a line of JSON about each.

    Args:
        arguments: number of the descriptor to write to; then, as JSON, ``seconds``, ``key`` and ``datastacks``.
    """
    descriptor, asked = int(arguments[0]), json.loads(arguments[1])
    os.set_inheritable(descriptor, False)
    signal.alarm(asked["seconds"])  # should whoever started this be gone
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    _forbid_browsers()
    last = _LastAnswer()
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
