# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody with a new Debian, the tarball and the README: what stands there is typed, and workstations are verified.

The computers are hosts of the fleet, fresh and bare: sudo asks for a password, and no host key is known. What is typed
and what comes back is kept as a transcript in .cache/reports/readme-RELEASE.txt.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pexpect
import pytest
from ansible_run import ROOT
from docs.code_blocks import Block, markdown_blocks
from package.conftest import release

from cave_server import CaveServer
from fleet import Fleet, Host
from fleet.conftest import MakeFleet

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.network]

TEN_MINUTES = 600
CA_FILE = "/etc/ssl/cave-ca.pem"
PROMPT = "readme> "
PASSWORD = "correct horse"
SUDO_PASSWORD = "battery staple"
PEOPLE = ("alice", "bob")
BOOKWORM, TRIXIE = "3.11", "3.13"  # a release by its Python


def blocks() -> list[Block]:
    """Return the code blocks of the README's way from an empty folder to a verified fleet."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Quick start")
    end = next(number for number, line in enumerate(lines) if number > start and line.startswith("## "))
    return [block for block in markdown_blocks(ROOT / "README.md") if start < block.line <= end]


class Typist:
    """An administrator at the new computer, who types what the README says."""

    def __init__(self, fleet: Fleet, host: Host, transcript: Path) -> None:
        self.host = host
        self._log = transcript.open("w", encoding="utf-8")
        command = ["-tt", "-F", str(fleet.ssh_config), host.name, "bash", "--norc", "--noprofile"]
        self.terminal = pexpect.spawn("ssh", command, encoding="utf-8", timeout=60, dimensions=(50, 160))
        self.terminal.logfile_read = self._log
        self.type(f"unset PROMPT_COMMAND; PS1='{PROMPT}'; stty -echo; bind 'set enable-bracketed-paste off'; cd")

    def type(self, line: str, answers: dict[str, str] | None = None) -> None:
        """Type a line, answer its questions in their order, and wait until it has ended well."""
        self._log.write(f"\n{line}\n")
        self.terminal.sendline(line)
        for question, answer in (answers or {}).items():
            self.terminal.expect(question)
            time.sleep(1)  # what is typed before the terminal is ready is thrown away
            self.terminal.sendline(answer)
        self.terminal.expect_exact(PROMPT, 300)
        self.terminal.sendline("echo status=$?")
        self.terminal.expect(r"status=(\d+)")
        found = self.terminal.match
        assert isinstance(found, re.Match)
        self.terminal.expect_exact(PROMPT)
        assert found[1] == "0", line

    def close(self) -> None:
        """Leave."""
        self.terminal.close(force=True)
        self._log.close()


def provide_what_the_readme_asks_for(fleet: Fleet, computer: Host, workstations: list[Host]) -> None:
    """Give the administrator SSH to workstations that have names, and an account that becomes root by a password."""
    names = "".join(f"{host.address} ws{number}.lab.example.org\n" for number, host in enumerate(workstations, 1))
    computer.write_file("/etc/hosts", computer.read_file("/etc/hosts") + names)
    computer.run(["install", "-d", "-m", "700", "/home/lab/.ssh"], "lab")
    computer.write_file("/home/lab/.ssh/id_ed25519", (fleet.folder / "id_ed25519").read_text(), "lab")
    computer.run(["chmod", "600", "/home/lab/.ssh/id_ed25519"], "lab")
    for host in fleet:
        host.run(["chpasswd"], input=f"lab:{SUDO_PASSWORD}\n")
        host.write_file("/etc/sudoers.d/lab", "lab ALL=(ALL:ALL) ALL\n")


@pytest.mark.parametrize("python", [TRIXIE, pytest.param(BOOKWORM, marks=pytest.mark.long)])
def test_who_follows_the_readme_has_verified_workstations_in_ten_minutes(
    make_fleet: MakeFleet, tmp_path: Path, python: str
) -> None:
    fleet = make_fleet(3, pythons=(python, BOOKWORM, TRIXIE), users=PEOPLE)
    computer, *workstations = list(fleet)
    with CaveServer(tls=True, address=fleet.server_address) as cave:
        assert cave.ca is not None
        fleet.connect_to_index(*(host.name for host in fleet))
        for host in fleet:
            host.write_file(CA_FILE, Path(cave.ca).read_text())
            host.run(["chmod", "644", CA_FILE])
        provide_what_the_readme_asks_for(fleet, computer, workstations)
        tarball = release.build(tmp_path)
        (computer.root("/home/lab") / tarball.name).write_bytes(tarball.read_bytes())
        tokens = {name: cave.add_person(name, permissions=["minnie65_public"]).token for name in PEOPLE}
        start = time.monotonic()
        said = follow_the_readme(fleet, cave, tokens)
    assert time.monotonic() - start < TEN_MINUTES
    assert re.findall(r"^\d+ workstations? .*", said, re.MULTILINE)[-1].strip() == "2 workstations ok; 2 users"
    assert not [secret for secret in (*tokens.values(), PASSWORD, SUDO_PASSWORD) if secret in said]


def follow_the_readme(fleet: Fleet, cave: CaveServer, tokens: dict[str, str]) -> str:
    """Type what the README says, try what it promises, and return all that was on the screen."""
    computer, *workstations = list(fleet)
    transcript = ROOT / ".cache" / "reports" / f"readme-{computer.release}.txt"
    transcript.parent.mkdir(parents=True, exist_ok=True)
    typist = Typist(fleet, computer, transcript)
    try:
        for block in blocks():
            if block.file:
                computer.write_file(f"/home/lab/lab/{block.file}", block.text, "lab")
                # The one thing that is not as in the README: which server, and whose certificates.
                ours = {
                    "caveclient_server": cave.url,
                    "caveclient_ca_path": CA_FILE,
                    "caveclient_enroll_ca_path": CA_FILE,
                }
                computer.run(["mkdir", "-p", "/home/lab/lab/group_vars/all"], "lab")
                computer.write_file("/home/lab/lab/group_vars/all/server.yml", json.dumps(ours), "lab")
            elif block.language == "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    for typed, answers in conversations(line, tokens):
                        typist.type(typed, answers)
            else:
                for host in workstations:
                    for name in PEOPLE:
                        python = ["/opt/caveclient/current/bin/python", "-"]
                        host.run(python, name, input=block.text, env={"REQUESTS_CA_BUNDLE": CA_FILE})
    finally:
        typist.close()
    said = re.sub(r"\x1b\[[0-9;?]*[a-z]", "", transcript.read_text(encoding="utf-8"))
    transcript.write_text(said, encoding="utf-8")
    return said


def conversations(line: str, tokens: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return what is typed for a line of the README, and what is answered to the questions that follow."""
    if "enroll" in line:  # once for each person
        return [
            (
                line.replace("alice", name),
                {"Vault password: ": PASSWORD, "Has .*before.*": "y", "Token .*Enter:": token, "Store it.*": "y"},
            )
            for name, token in tokens.items()
        ]
    answers = {}
    if line.startswith("sudo "):
        answers = {r"\[sudo\] password for lab: ": SUDO_PASSWORD, r"continue\? \[Y/n\]": "y"}
    if line.startswith("ssh "):
        answers = {r"\(yes/no/\[fingerprint\]\)\? ": "yes"}
    if "connectomics.cave.init" in line:
        answers = {"which encrypts the lab's tokens: ": PASSWORD, "confirm .*: ": PASSWORD}
    if " -K" in line:
        answers["BECOME password: "] = SUDO_PASSWORD
    if "--ask-vault-pass" in line:
        answers["Vault password: "] = PASSWORD
    return [(line, answers)]
