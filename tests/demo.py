# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job, end to end, on this computer: `make demo`. No root, no real CAVE server, nothing left behind."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cave_server import CaveServer

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PEOPLE = {"ws1": "alice", "ws2": "bob", "ws3": "carol"}
STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line of the story, with the seconds since the beginning."""
    print(f"\n[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


class Lab:
    """Three pretend workstations in a folder: a home and a /opt each, one ordinary user, no root."""

    def __init__(self, folder: Path, cave: CaveServer) -> None:
        self.folder = folder
        self.cave = cave
        self.password_file = folder / "vault-password"
        self.password_file.write_text("demo\n")
        self.password_file.chmod(0o600)
        (folder / "group_vars").mkdir()
        (folder / "group_vars" / "all.yml").write_text(
            f"""\
ansible_connection: local
ansible_python_interpreter: "{folder}/{{{{ inventory_hostname }}}}/python"
caveclient_become: false
caveclient_server: {cave.url}
caveclient_datastacks: [minnie65_public]
caveclient_tokens:
  - user: {getpass.getuser()}
    token: "{{{{ vault_cave_token }}}}"
caveclient_path: "{folder}/{{{{ inventory_hostname }}}}/opt/caveclient"
caveclient_jupyter_dir: "{folder}/{{{{ inventory_hostname }}}}/jupyter"
"""
        )
        for host, person in PEOPLE.items():
            (folder / host / "home").mkdir(parents=True)
            # A workstation's Python is this one, with a home of its own.
            python = folder / host / "python"
            home = shlex.quote(str(folder / host / "home"))
            cache = shlex.quote(os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv"))
            python.write_text(
                f'#!/bin/sh\nHOME={home} UV_CACHE_DIR={cache} exec {shlex.quote(sys._base_executable)} "$@"\n'  # type: ignore[attr-defined]  # not in the stubs
            )
            python.chmod(0o755)
            self.encrypt(host, cave.add_person(person, permissions=["minnie65_public"]).token)
        (folder / "hosts.yml").write_text("workstations:\n  hosts:\n" + "".join(f"    {host}:\n" for host in PEOPLE))

    def encrypt(self, host: str, token: str) -> None:
        """Put a workstation's token into its file in the vault; it reaches ansible-vault through a pipe."""
        vault = self.folder / "host_vars" / host / "vault.yml"
        vault.parent.mkdir(parents=True, exist_ok=True)
        vault.unlink(missing_ok=True)
        command: list[str | Path] = [
            BIN / "ansible-vault",
            "encrypt",
            "--vault-password-file",
            self.password_file,
            "--output",
            vault,
            "-",
        ]
        subprocess.run(command, input=f"vault_cave_token: {token}\n", text=True, check=True, capture_output=True)

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        """Run a playbook of the collection; return its exit status and what it printed."""
        command = ["ansible-playbook", "-i", str(self.folder / "hosts.yml"), f"connectomics.cave.{playbook}"]
        print(f"         $ {' '.join(['ansible-playbook', f'connectomics.cave.{playbook}', *arguments])}", flush=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.password_file),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }
        run = subprocess.run(
            [str(BIN / command[0]), *command[1:], *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return run.returncode, run.stdout

    def expect(self, wanted: bool, outcome: tuple[int, str], *patterns: str) -> None:
        """Show the report of a run, and end the demo when it is not what was to be shown."""
        status, output = outcome
        report = output[output.rfind("TASK [Report]") : output.rfind("PLAY RECAP")]
        for line in report.splitlines():
            if re.match(r"[A-Z]{4,} | {6,}(->|[^ ^])|\d+ workstations", line) and not line.startswith(("TASK", "PLAY")):
                print(f"         | {line}", flush=True)
        missing = [pattern for pattern in patterns if not re.search(pattern, output)]
        if (status == 0) is not wanted or missing:
            print(output)
            sys.exit(f"The demo did not show what it should: exit status {status}, not found: {missing}")


def main() -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory(prefix="cave-demo-") as name, CaveServer() as cave:
        lab = Lab(Path(name), cave)
        say(f"A stand-in CAVE server runs at {cave.url}, and three pretend workstations wait for it.")

        say("Provision them: the real caveclient from the package index, everybody's token from the vault.")
        lab.expect(True, lab.play("provision", "-e", "caveclient_verify=client"), r"3 workstations ok")

        say("Once more: nothing changes.")
        outcome = lab.play("provision")
        lab.expect(True, outcome, *(rf"{host} .*changed=0 .*failed=0" for host in PEOPLE))
        print("\n".join(f"         | {line}" for line in outcome[1].splitlines() if "changed=" in line))

        say("Verify by API, then by the real CAVEclient('minnie65_public'), no server address named.")
        lab.expect(True, lab.play("verify"), r"3 workstations ok")
        lab.expect(True, lab.play("verify", "-e", "caveclient_verify=client"), r"3 workstations ok")

        say("Bob makes a new token, which kills his old one. Who is locked out?")
        new_token = cave.refresh("bob")
        lab.expect(False, lab.play("verify"), r"ws2", r"invalid_token")

        say("The new token goes into the vault, and out to the workstation that needs it: a cutover.")
        lab.encrypt("ws2", new_token)
        lab.expect(True, lab.play("rotate"), r"3 workstations ok \(1 updated, 2 unchanged\)")
        lab.expect(True, lab.play("verify"), r"3 workstations ok")

        say("New tokens for all, while the old ones go on working until the last workstation has let go: an overlap.")
        arguments = ("-e", "caveclient_rotate_strategy=overlap", "-e", "caveclient_rotate_grace=1")
        lab.expect(True, lab.play("rotate", *arguments), r"3 workstations ok \(3 updated\)")
        lab.expect(True, lab.play("verify"), r"3 workstations ok")
        left = {person: len(cave.tokens(person)) for person in PEOPLE.values()}
        print(f"         | tokens that the server still knows: {left}")
        if set(left.values()) != {1}:
            sys.exit("The demo did not show what it should: an old token was not revoked.")
    say("Done. Nothing of it is left behind.")


if __name__ == "__main__":
    main()
