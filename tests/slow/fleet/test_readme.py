# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody with a new Debian, the tarball and the README: what stands there is typed, and workstations are verified.

The computers are hosts of the fleet, fresh and bare. What is typed and what comes back is kept as a transcript in
.cache/reports/readme.txt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
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
PEOPLE = ("alice", "bob")


def blocks() -> list[Block]:
    """Return the code blocks of the README's way from an empty folder to a verified fleet."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## From an empty folder to a verified fleet")
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

    def type(self, line: str, timeout: float = 60) -> None:
        """Type a line, and wait until it is done."""
        self.send(line)
        self.done(timeout)

    def send(self, line: str) -> None:
        """Type a line."""
        self._log.write(f"\n{line}\n")
        self.terminal.sendline(line)

    def done(self, timeout: float) -> None:
        """Wait until the last line is done; it has to have ended well."""
        self.terminal.expect_exact(PROMPT, timeout)
        self.terminal.sendline("echo status=$?")
        self.terminal.expect(r"status=(\d+)")
        found = self.terminal.match
        assert isinstance(found, re.Match)
        self.terminal.expect_exact(PROMPT)
        assert found[1] == "0"

    def answer(self, question: str, text: str, timeout: float = 60) -> None:
        """Answer a question; what is typed is not shown."""
        self.terminal.expect(question, timeout)
        time.sleep(1)  # what is typed before the terminal is ready is thrown away
        self.terminal.sendline(text)

    def close(self) -> None:
        """Leave."""
        self.terminal.close(force=True)
        self._log.close()


@pytest.fixture
def lab(make_fleet: MakeFleet) -> Iterator[tuple[Fleet, CaveServer]]:
    """A new computer, two workstations, and a CAVE server in the place of the public one."""
    fleet = make_fleet(3, pythons=("3.13", "3.11", "3.9"), users=PEOPLE)
    with CaveServer(tls=True, address=fleet.server_address) as cave:
        assert cave.ca is not None
        fleet.connect_to_index(*(host.name for host in fleet))
        for host in fleet:
            host.write_file(CA_FILE, Path(cave.ca).read_text())
            host.run(["chmod", "644", CA_FILE])
        yield fleet, cave


def let_in(fleet: Fleet, computer: Host, workstations: list[Host]) -> None:
    """Give the administrator what the README asks for: names that can be resolved, and SSH with sudo."""
    names = "".join(f"{host.address} ws{number}.lab.example.org\n" for number, host in enumerate(workstations, 1))
    computer.write_file("/etc/hosts", computer.read_file("/etc/hosts") + names)
    computer.run(["install", "-d", "-m", "700", "/home/lab/.ssh"], "lab")
    computer.write_file("/home/lab/.ssh/id_ed25519", (fleet.folder / "id_ed25519").read_text(), "lab")
    computer.write_file("/home/lab/.ssh/config", "Host *\n  StrictHostKeyChecking accept-new\n", "lab")
    computer.run(["chmod", "600", "/home/lab/.ssh/id_ed25519"], "lab")


def test_who_follows_the_readme_has_verified_workstations_in_ten_minutes(
    lab: tuple[Fleet, CaveServer], tmp_path: Path
) -> None:
    fleet, cave = lab
    computer, *workstations = list(fleet)
    let_in(fleet, computer, workstations)
    tarball = release.build(tmp_path)
    (computer.root("/home/lab") / tarball.name).write_bytes(tarball.read_bytes())
    tokens = {name: cave.add_person(name, permissions=["minnie65_public"]).token for name in PEOPLE}
    transcript = ROOT / ".cache" / "reports" / "readme.txt"
    transcript.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
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
                    type_line(typist, line, tokens)
            else:
                assert block.language == "python"
                for host in workstations:
                    for name in PEOPLE:
                        python = ["/opt/caveclient/current/bin/python", "-"]
                        host.run(python, name, input=block.text, env={"REQUESTS_CA_BUNDLE": CA_FILE})
    finally:
        typist.close()
    assert time.monotonic() - start < TEN_MINUTES
    said = re.sub(r"\x1b\[[0-9;?]*[a-z]", "", transcript.read_text(encoding="utf-8"))
    transcript.write_text(said, encoding="utf-8")
    assert re.findall(r"^\d+ workstations? .*", said, re.MULTILINE)[-1].strip() == "2 workstations ok; 2 users"
    assert not [token for token in tokens.values() if token in said]


def type_line(typist: Typist, line: str, tokens: dict[str, str]) -> None:
    """Type a line of the README, and answer what it asks."""
    line = line.replace("apt-get install", "apt-get -qq -y install")
    if "apt-get" in line:
        typist.type("sudo apt-get -qq update", 120)  # a new container has no list of packages yet
    if "enroll" not in line:
        typist.send(line)
        if "connectomics.cave.init" in line:
            for _time in range(2):
                typist.answer("which encrypts the lab's tokens: ", PASSWORD)
        if " -K" in line:
            typist.answer("BECOME password.*: ", "not asked for by sudo here")
        if "--ask-vault-pass" in line:
            typist.answer("Vault password: ", PASSWORD)
        typist.done(300)
        return
    for name, token in tokens.items():  # once for each person
        typist.send(line.replace("alice", name))
        typist.answer("Vault password: ", PASSWORD)
        typist.answer("Has .*before.*", "y")
        typist.answer("Token .*Enter:", token)
        typist.answer("Store it.*", "y")
        typist.done(60)
