# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks by what stands in variables: names, paths and addresses that mean something to a shell, a page or a path."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homes import DEFAULT_FILE, NEW_TOKEN, OLD_TOKEN, SERVER, fill, picture
from module_runner import run_module
from torture.attacks import Report, Short, attack
from torture.write_path import scratch, thinned

SECRETS = ".cloudvolume/secrets/"


def _payloads(canary: Path) -> list[str]:
    """Return what is put into variables; some of it makes the canary, if anybody runs it."""
    touch = f"touch {canary}"
    return [
        "",
        " ",
        "'",
        '"',
        "\\",
        "a\nb",
        "a\r\nX-Injected: yes",
        "\nok: [localhost] => {}",
        "..",
        "../",
        "../../../etc/passwd",
        "/../../outside",
        "..\\..\\outside",
        "a/../../outside/x",
        "%2e%2e%2foutside",
        "~root",
        "-rf",
        "--help",
        "*",
        "\x00",
        "a\x00b",
        "\x1b[2J\x1b]0;owned\x07",
        "\x9b31m",
        "\u202egnp.exe",
        "\u2028line",
        "caf\u00e9\u0301",
        "x" * 5000,
        "{{ 7 * 7 }}",
        f"{{{{ lookup('pipe', '{touch}') }}}}",
        "{% raw %}",
        "<script>alert(1)</script>",
        "&lt;b&gt;",
        "a]]>b",
        f"$({touch})",
        f"`{touch}`",
        f"; {touch}",
        f"| {touch} #",
        f"' || {touch} #",
        f"\n{touch}\n",
        f"__import__('os').system('{touch}')",
        f"!!python/object/apply:os.system ['{touch}']",
        "%s%s%n",
        "${HOME}",
        "https://user:pw@host/",
        f"https://$({touch})",
        "https://../../outside",
        "https://host/../../x",
        "https://h\u00f6st",
        "https://host\n.evil",
        "file:///etc/passwd",
    ]


_SAVE = {"token": NEW_TOKEN, "server": SERVER, "validate": False, "cloud_volume_dir": ""}
_ASK = {"server": "http://127.0.0.1:9", "timeout": 2, "retries": 0, "cloud_volume_dir": ""}
_MAKE = {"server": "http://127.0.0.1:9", "timeout": 2, "retries": 0, "token": NEW_TOKEN}
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "saved_token user": ("saved_token", {**_SAVE, "user": "?"}),
    "saved_token server": ("saved_token", {**_SAVE, "server": "?"}),
    "saved_token token": ("saved_token", {**_SAVE, "token": "?"}),
    "saved_token key": ("saved_token", {**_SAVE, "key": "?"}),
    "saved_token datastack": ("saved_token", {**_SAVE, "datastacks": ["?"]}),
    "saved_token local server": ("saved_token", {**_SAVE, "datastacks": [{"name": "x", "local_server": "?"}]}),
    "saved_token group": ("saved_token", {**_SAVE, "group": "?", "mode": "0640"}),
    "saved_token mode": ("saved_token", {**_SAVE, "mode": "?"}),
    "saved_token in a list": ("saved_token", {**_SAVE, "token": None, "tokens": [{"user": "?", "token": NEW_TOKEN}]}),
    "saved_token server in a list": (
        "saved_token",
        {**_SAVE, "token": None, "tokens": [{"server": "?", "token": NEW_TOKEN}]},
    ),
    "saved_token_info user": ("saved_token_info", {"users": ["?"], "cloud_volume_dir": ""}),
    "saved_token_info server": ("saved_token_info", {"server": "?", "cloud_volume_dir": ""}),
    "saved_token_info datastack": ("saved_token_info", {"datastacks": ["?"], "cloud_volume_dir": ""}),
    "verify_access user": ("verify_access", {**_ASK, "users": ["?"]}),
    "verify_access server": ("verify_access", {**_ASK, "server": "?"}),
    "verify_access datastack": ("verify_access", {**_ASK, "datastacks": ["?"]}),
    "verify_access key": ("verify_access", {**_ASK, "key": "?"}),
    "verify_access interpreter": (
        "verify_access",
        {**_ASK, "method": "client", "datastacks": ["x"], "interpreter": "?"},
    ),
    "verify_access certificates": ("verify_access", {**_ASK, "server": "https://127.0.0.1:9", "ca_path": "?"}),
    "server_token description": ("server_token", {**_MAKE, "description": "?"}),
    "server_token fingerprint": ("server_token", {**_MAKE, "state": "absent", "fingerprint": "?"}),
    "server_token server": ("server_token", {**_MAKE, "description": "lab", "server": "?"}),
    "server_token_info token": ("server_token_info", {**_MAKE, "token": "?"}),
    "caveclient version": ("caveclient", {"version": "?", "offline": True}),
    "caveclient extra": ("caveclient", {"extras": ["?"], "offline": True}),
    "caveclient package": ("caveclient", {"packages": ["?"], "offline": True}),
    "caveclient constraint": ("caveclient", {"constraints": ["?"], "offline": True}),
    "caveclient Python": ("caveclient", {"python": "?", "offline": True}),
    "caveclient interpreter": ("caveclient", {"interpreter": "?", "offline": True}),
}
"""Where a payload (the question mark) is put: the module and its options."""


def _filled(value: Any, payload: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, payload) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_filled(inner, payload) for inner in value]
    return payload if value == "?" else value


def _messages(result: Any, name: str = "") -> Iterator[str]:
    """Yield all that is written for a person to read."""
    if isinstance(result, str) and name in ("msg", "message", "remedy", "reason", "reasons", "warnings"):
        yield result
    elif isinstance(result, dict):
        for key, inner in result.items():
            if key != "invocation":
                yield from _messages(inner, str(key))
    elif isinstance(result, list):
        for inner in result:
            yield from _messages(inner, name)


def _acts(text: str) -> bool:
    """Return whether a text has characters that a terminal acts on, or that are not seen."""
    return any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)


@attack(
    "hostile-variables",
    "What stands in a variable is refused or harmless: never executed, never a path outside of the secrets directory",
    "quotes, newlines, ../, Jinja, HTML, shell and terminal escapes as user name, path, server address, datastack, "
    "key, description, version and package",
    fewest=1300,
    short=Short(0.03, 40),
)
def hostile_variables(report: Report, scale: float) -> None:
    """Put each payload into each place, and look for what came of it."""
    ends: Counter[str] = Counter()
    with scratch() as folder:
        canary, home, outside = folder / "canary", folder / "home", folder / "outside"
        outside.mkdir()
        (outside / "precious").write_text("precious")
        pairs = list(itertools.product(PLACES, _payloads(canary)))
        for place, payload in thinned(pairs, scale):
            module, options = PLACES[place]
            fill(home, {DEFAULT_FILE: {"token": OLD_TOKEN}})
            more = (
                {"path": str(folder / "caveclient")} if module == "caveclient" and "interpreter" not in options else {}
            )
            where = f"{place} {payload[:40]!r}"
            before = {name: what for name, what in picture(folder).items() if not name.startswith("home/")}
            environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
            # What would be installed is found out as well in check mode.
            arguments = {**_filled(options, payload), **more}
            outcome = run_module(module, arguments, home, check=module == "caveclient", environment=environment)
            shutil.rmtree(home / ".cache", ignore_errors=True)  # of uv
            report.tries += 1
            ends["done" if outcome.ok else "refused"] += 1
            report.check(not canary.exists(), f"{where}: executed")
            report.check("Traceback" not in outcome.output, f"{where}: {outcome.output[-300:]}")
            acting = [text for text in _messages(outcome.result) if _acts(text)]
            report.check(not acting, f"{where}: would be printed as it is: {acting[:1]!r}")
            after = {name: what for name, what in picture(folder).items() if not name.startswith("home/")}
            report.check(after == before, f"{where}: changed {sorted(set(after) ^ set(before))}")
            strange = [
                name
                for name in picture(home)
                if not name.startswith(SECRETS) and name not in (".cloudvolume", SECRETS.rstrip("/"))
            ]
            report.check(not strange, f"{where}: made {strange}")
            nested = [name for name in picture(home) if name.startswith(SECRETS) and "/" in name[len(SECRETS) :]]
            report.check(not nested, f"{where}: made {nested}")
            report.check(NEW_TOKEN not in json.dumps(outcome.result), f"{where}: shows the token")
    report.counts = dict(ends)
