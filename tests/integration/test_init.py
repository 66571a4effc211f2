# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook init: a lab's folder to start from."""

from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible, command, environment, wait_until_read

from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import PROFILES

PASSWORD = "correct horse"


def init(folder: Path, *answers: str, dest: str = "lab") -> Run:
    """Run the playbook on a terminal, and answer its questions."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("playbook", "connectomics.cave.init", "-e", f"dest={dest}"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment(folder),
        start_new_session=True,
    )
    os.close(theirs)
    printed, waiting = b"", list(answers)
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
        asked = printed.count(b"which encrypts the lab's tokens: ")
        while waiting and asked > len(answers) - len(waiting):
            wait_until_read(ours)
            os.write(ours, waiting.pop(0).encode() + b"\n")
    os.close(ours)
    return Run(process.wait(timeout=60), printed.decode(), [])


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_it_makes_a_folder_in_which_ansible_works(tmp_path: Path) -> None:
    run = init(tmp_path, PASSWORD, PASSWORD)
    assert run.status == 0, run.output
    lab = tmp_path / "lab"
    assert set(files(lab)) == {
        ".gitignore",
        "README.md",
        "ansible.cfg",
        "group_vars/workstations/cave.yml",
        "group_vars/workstations/vault.yml",
        "hosts.yml",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in [lab, *lab.rglob("*")]} == {0o700, 0o600}
    assert PASSWORD not in run.output
    assert len((lab / "README.md").read_text().splitlines()) <= 40
    verified = ansible(lab, "playbook", "connectomics.cave.verify")
    assert verified.status == 2
    assert "PLAY RECAP" not in verified.output  # the lab's callback is in place
    assert "The inventory has no hosts:" in verified.output
    assert "hosts.yml names none" in " ".join(verified.output.split())


def test_the_settings_offer_all_profiles_in_a_line_that_is_a_comment(tmp_path: Path) -> None:
    init(tmp_path, PASSWORD, PASSWORD)
    text = (tmp_path / "lab" / "group_vars" / "workstations" / "cave.yml").read_text()
    assert "caveclient_profiles" not in yaml.safe_load(text)
    [line] = re.findall(r"^# (caveclient_profiles: .*)$", text, re.MULTILINE)
    assert yaml.safe_load(line) == {"caveclient_profiles": list(PROFILES)}


def test_the_vault_opens_with_the_password_that_was_typed_and_with_no_other(tmp_path: Path) -> None:
    init(tmp_path, PASSWORD, PASSWORD)
    text = (tmp_path / "lab" / "group_vars" / "workstations" / "vault.yml").read_text()
    assert PASSWORD not in text

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!vault", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
    (value,) = yaml.load(text, Loader).values()  # noqa: S506 - of a safe loader
    assert VaultLib([("default", VaultSecret(PASSWORD.encode()))]).decrypt(value) == b"made by init"


def test_a_password_that_differs_the_second_time_makes_no_vault(tmp_path: Path) -> None:
    run = init(tmp_path, PASSWORD, "another horse", PASSWORD, PASSWORD)
    assert run.status == 0, run.output
    assert "***** VALUES ENTERED DO NOT MATCH ****" in run.output


@pytest.mark.parametrize("there", ["lab/precious", "lab/.hidden"])
def test_it_overwrites_nothing_and_asks_for_no_password(tmp_path: Path, there: str) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / there).write_text("precious")
    run = init(tmp_path)
    assert run.status == 2
    assert "lab is there and not empty: nothing was changed." in run.output
    assert files(tmp_path / "lab") == {there.removeprefix("lab/"): "precious"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("precious")
    assert init(tmp_path).status == 2
    assert (tmp_path / "lab").read_text() == "precious"


def test_an_empty_password_makes_nothing(tmp_path: Path) -> None:
    run = init(tmp_path, "", "")
    assert run.status == 2, run.output
    assert "There is no password." in run.output
    assert not (tmp_path / "lab").exists()


def test_a_check_does_not_say_that_the_folder_is_made(tmp_path: Path) -> None:
    words = ["connectomics.cave.init", "--check", "-e", "dest=lab", "-e", "caveclient_init_vault_password=secret"]
    run = ansible(tmp_path, "playbook", *words)
    assert run.ok, run.output
    assert "lab would be made" in run.output
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("dest", ["null", "5", "[1]"])
def test_what_is_no_name_of_a_folder_is_refused(dest: str, tmp_path: Path) -> None:
    run = ansible(tmp_path, "playbook", "connectomics.cave.init", "-e", f'{{"dest": {dest}}}')
    assert run.status == 2, run.output
    assert "Name the folder to make: -e dest=lab" in run.output
