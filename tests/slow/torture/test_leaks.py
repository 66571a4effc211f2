# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hunt for tokens finds them: in every form, and in every place in which one is left on purpose."""

from __future__ import annotations

import base64
import gzip
import html
import json
import textwrap
import urllib.parse
from collections.abc import Callable

import pytest
from torture.attacks import attacks
from torture.canaries import Canaries, canary
from torture.leaks import DEBUG, EVERYTHING, Case, Loudness, copy_collection, hunting, playbook

TOKEN = canary()
NOISE = "nothing to see here, 100% \\n &amp; \x1b[31mred\x1b[0m\n" * 200
FORMS: dict[str, Callable[[str], str]] = {
    "clear": str,
    "the first half": lambda token: token[:26],
    "the second half": lambda token: token[-26:],
    "base64": lambda token: base64.b64encode(token.encode()).decode(),
    "base64 of more": lambda token: base64.b64encode(f"token={token}\n".encode()).decode(),
    "base64 of yet more": lambda token: base64.b64encode(f"Bearer {token}\n".encode()).decode(),
    "base64 for URLs": lambda token: base64.urlsafe_b64encode(f"user:{token}".encode()).decode(),
    "base64 in lines": lambda token: "\n".join(textwrap.wrap(base64.b64encode(f"{{{token}".encode()).decode(), 10)),
    "URL-quoted": lambda token: urllib.parse.quote(token, safe=""),
    "URL-quoted, small": lambda token: urllib.parse.quote(token, safe="").lower() if token.islower() else
    urllib.parse.quote(token, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
    "all URL-quoted": lambda token: "".join(f"%{ord(character):02x}" for character in token),
    "JSON": json.dumps,
    "JSON in JSON": lambda token: json.dumps(json.dumps(token).replace("/", "\\/")),
    "JSON, all escaped": lambda token: "".join(f"\\u{ord(character):04x}" for character in token),
    "Python, all escaped": lambda token: "".join(f"\\x{ord(character):02x}" for character in token),
    "HTML": lambda token: html.escape(token).replace("+", "&#43;").replace("/", "&#x2F;"),
    "hexadecimal": lambda token: token.encode().hex(),
    "split over lines": lambda token: "\n        ".join(textwrap.wrap(token, 7)),
    "split by written line breaks": lambda token: "\\n".join(textwrap.wrap(token, 7)),
    "split by colours": lambda token: "\x1b[0m".join(textwrap.wrap(token, 7)),
    "spread": " ".join,
    "in UTF-16": lambda token: token.encode("utf-16-le").decode(),
}  # fmt: skip


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("form", FORMS)
def test_a_token_is_found_in_every_form(form: str, size: str) -> None:
    noise = NOISE if size == "large" else "x"
    hits = Canaries({"mine": TOKEN, "other": canary()}).find(f"{noise} {FORMS[form](TOKEN)} {noise}".encode())
    assert {hit.token for hit in hits} == {"mine"}


def test_a_text_without_a_token_has_none() -> None:
    canaries = Canaries({str(number): canary() for number in range(20)})
    assert not canaries.find(NOISE.encode() + gzip.compress(NOISE.encode()) + TOKEN.encode())


SEED = """
def _leak(module):
    import base64, os, subprocess, sys, syslog, urllib.parse
    module.no_log_values.clear()
    token = module.params["token"]
    warning = "warned: " + base64.b64encode(b"x" + token.encode()).decode()
    syslog.syslog("logged: " + " ".join(token))
    for path, text in {
        "/tmp/left": urllib.parse.quote(token, safe=""),
        "/opt/.left": token.encode().hex(),
        "/tmp/instant": token.replace("/", "\\\\/"),
    }.items():
        with open(path, "w") as file:
            file.write(text)
    os.unlink("/tmp/instant")
    asleep = [sys.executable, "-c", "import time; time.sleep(0.1)"]
    subprocess.run([*asleep, token])
    subprocess.run(asleep, env={"LEFT": token})
    module.exit_json(ansible_facts={"left": token}, warnings=[warning])


def main()"""
CALL = "run_module(ARGUMENTS, _leak)"
PLACES = (
    "the output",
    "syslog",
    "a command line",
    "a command line: traced",
    "an environment",
    "an environment: traced",
    "a file while it was there: /tmp/instant",
    "the files of ws001: /tmp/left",
    "the files of ws001: /opt/.left",
    "the controller's files: ansible.log",
    "the controller's files: facts/",
    "the controller's files: junit/",
    "the controller's files: record.jsonl",
)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("is_fast", [True, False], ids=["the fast way", "Ansible's own way"])
def test_a_token_is_found_in_every_place_in_which_it_is_left(is_fast: bool) -> None:
    if lacks := attacks()["leaks-selection"].lacks():
        pytest.skip(f"needs {lacks}")
    variables = {name: value for name, value in EVERYTHING.items() if name not in DEBUG}
    variables.update(ANSIBLE_CALLBACKS_ENABLED="junit", ANSIBLE_GATHERING="explicit")
    task = {"connectomics.cave.saved_token": {"user": "alice", "token": "{{ vault_cave_token_alice_new }}"}}
    with hunting(1) as hunt:
        hunt.reset()
        hunt.collections = copy_collection(hunt.folder / "seeded")
        module = hunt.collections / "ansible_collections/connectomics/cave/plugins/modules/saved_token.py"
        text = module.read_text().replace("def main()", SEED, 1)
        seeded = text.replace("run_module(ARGUMENTS, lambda module: run(module.params, module.check_mode))", CALL)
        assert seeded.count(CALL) == 1
        module.write_text(seeded)
        loudness = Loudness("seeded", ("-vvv",), variables, traced=True)
        tasks = playbook([Case("leaky", task)], local=False)
        found = hunt.play(tasks, loudness if is_fast else loudness.stock)
    missed = [place for place in PLACES if not any(leak.startswith(place) for leak in found.leaks)]
    assert not missed, (found.leaks, found.output)
