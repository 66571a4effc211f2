# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job, end to end, on this computer: `make demo`. No root, no real CAVE server, nothing left behind."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible_run import Run
from lab import Lab, recap

from cave_server import CaveServer

PEOPLE = {"ws1": "alice", "ws2": "bob", "ws3": "carol"}
STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line of the story, with the seconds since the beginning."""
    print(f"\n[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


def play(lab: Lab, playbook: str, **variables: Any) -> Run:
    """Run a playbook of the collection, and show its command line."""
    extra = "".join(f" -e {name}={value}" for name, value in variables.items())
    print(f"         $ ansible-playbook connectomics.cave.{playbook}{extra}", flush=True)
    return lab.play(playbook, **variables)


def expect(wanted: bool, run: Run, *patterns: str) -> None:
    """Show the report of a run, and end the demo when it is not what was to be shown."""
    report = run.output[run.output.rfind("TASK [Print the report]") : run.output.rfind("PLAY RECAP")]
    for line in report.splitlines():
        if re.match(r"[A-Z]{4,} | {6,}(->|[^ ^])|\d+ workstations", line) and not line.startswith(("TASK", "PLAY")):
            print(f"         | {line}", flush=True)
    missing = [pattern for pattern in patterns if not re.search(pattern, run.output)]
    if run.ok is not wanted or missing:
        print(run.output)
        sys.exit(f"The demo did not show what it should: exit status {run.status}, not found: {missing}")


def main() -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory(prefix="cave-demo-") as folder, CaveServer() as cave:
        # As on a workstation: one that all users can start, unlike one in somebody's home.
        usual = shutil.which("python3", path="/usr/bin") or sys._base_executable  # type: ignore[attr-defined]  # not in the stubs
        lab = Lab(Path(folder), cave, PEOPLE, python=usual)
        say(f"A stand-in CAVE server runs at {cave.url}, and three pretend workstations wait for it.")

        say("Provision them: the real caveclient from the package index, everybody's token from the vault.")
        expect(True, play(lab, "provision", caveclient_verify="client"), "3 workstations ok")

        say("Once more: nothing changes.")
        again = play(lab, "provision")
        expect(True, again, *(rf"{host} .*changed=0 .*failed=0" for host in PEOPLE))
        print(
            "\n".join(f"         | {host}: changed={counts['changed']}" for host, counts in recap(again.output).items())
        )

        say("Verify by API, then by the real CAVEclient('minnie65_public'), no server address named.")
        expect(True, play(lab, "verify"), "3 workstations ok")
        expect(True, play(lab, "verify", caveclient_verify="client"), "3 workstations ok")

        say("Bob makes a new token, which kills his old one. Who is locked out?")
        tokens = {person: lab.persons[person].token for person in PEOPLE.values()} | {"bob": cave.refresh("bob")}
        expect(False, play(lab, "verify"), "ws2", "invalid_token")

        say("The new token goes into the vault, and out to the workstation that needs it: a cutover.")
        lab.store(**tokens)
        expect(True, play(lab, "rotate"), r"3 workstations ok \(1 updated, 2 unchanged\)")
        if any([item["token"] for item in cave.tokens(person)] != [token] for person, token in tokens.items()):
            sys.exit("The demo did not show what it should: a cutover made or revoked a token.")
        if [lab.saved(host) for host in PEOPLE] != [tokens[person] for person in PEOPLE.values()]:
            sys.exit("The demo did not show what it should: somebody else's token was changed.")
        expect(True, play(lab, "verify"), "3 workstations ok")

        say("New tokens for all, while the old ones go on working until the last workstation has let go: an overlap.")
        overlap = {"caveclient_rotate_strategy": "overlap", "caveclient_rotate_grace": 1}
        expect(True, play(lab, "rotate", **overlap), r"3 workstations ok \(3 updated\)")
        expect(True, play(lab, "verify"), "3 workstations ok")
        left = {person: len(cave.tokens(person)) for person in PEOPLE.values()}
        print(f"         | tokens that the server still knows: {left}")
        if set(left.values()) != {1}:
            sys.exit("The demo did not show what it should: an old token was not revoked.")
    say("Done. Nothing of it is left behind.")


if __name__ == "__main__":
    main()
