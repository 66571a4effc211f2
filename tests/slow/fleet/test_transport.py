# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Over real SSH a module does as ansible.builtin.command does, and no token lies in a file on a host unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible import release
from ansible_run import Run, ansible, environment
from homes import NEW_TOKEN

from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

PASSWORD = "correct horse"
PLACE = "/root/secrets"
COMMAND = {"ansible.builtin.command": "id -un"}
AUDIT = {"connectomics.cave.saved_token_info": {"users": ["root"], "secrets_dir": PLACE}}
SAVE = {"connectomics.cave.saved_token": {"token": NEW_TOKEN, "validate": False, "secrets_dir": PLACE}}
ALLOWED: dict[str, Any] = {"caveclient_allow_remote_files": True}
TERMINAL = "the SSH options ask for a terminal (-t or RequestTTY). Take that out of them."
REQUIRETTY = "sudo wants a terminal (requiretty). Remove requiretty from the host's sudoers for this account."


class Desk:
    """A host, and an administrator's folder."""

    def __init__(self, fleet: Fleet, cave: CaveServer, folder: Path) -> None:
        self.fleet = fleet
        self.cave = cave
        self.host: Host = next(iter(fleet))
        self.folder = folder
        self.host.run(["chpasswd"], input=f"lab:{PASSWORD}\nroot:{PASSWORD}\n")
        self.allow("lab ALL=(ALL:ALL) NOPASSWD: ALL")

    def allow(self, *lines: str) -> None:
        """Set the host's sudoers, and forget what was saved there before."""
        self.host.run(
            ["sh", "-c", "umask 337; rm -f /etc/sudoers.d/lab; cat > /etc/sudoers.d/lab"], input="\n".join([*lines, ""])
        )
        self.host.run(["rm", "-rf", PLACE, "/home/lab/.ansible"])

    def play(self, *tasks: dict[str, Any], settings: dict[str, str] | None = None, **variables: Any) -> Run:
        """Run tasks as root of the host, with Ansible's own defaults."""
        playbook = self.folder / "playbook.yml"
        play = {"hosts": self.host.name, "gather_facts": False, "become": True, "vars": variables, "tasks": tasks}
        playbook.write_text(json.dumps([play]))
        words = ["-i", str(self.fleet.inventory), str(playbook)]
        return ansible(self.folder, "playbook", *words, **{"ANSIBLE_TIMEOUT": "60", **(settings or {})})

    @property
    def saved(self) -> bool:
        """Whether the token is where it was to be saved."""
        return self.host.run(["grep", "-rq", NEW_TOKEN, PLACE], check=False).returncode == 0

    @property
    def left(self) -> list[str]:
        """The files with the token that lie in the folder for temporary files."""
        found = self.host.run(["grep", "-rl", NEW_TOKEN, "/home/lab/.ansible"], check=False)
        return found.stdout.splitlines()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(1, name="pytest-transport", pythons=("3.11",), users=("alice",)) as fleet,
        CaveServer(address=fleet.server_address) as cave,
    ):
        yield Desk(fleet, cave, tmp_path_factory.mktemp("desk"))


@pytest.fixture
def desk(bare: Desk) -> Desk:
    """A host whose administrator may use sudo without a password, and nothing saved on it."""
    bare.allow("lab ALL=(ALL:ALL) NOPASSWD: ALL")
    return bare


def test_with_ansibles_defaults_no_file_holds_the_token(desk: Desk) -> None:
    done = desk.play(COMMAND, AUDIT, SAVE)
    assert done.ok, done.output
    assert desk.saved
    assert desk.host.run(["ls", "/home/lab/.ansible/tmp"], check=False).stdout == ""


def test_sudo_with_a_password_works_as_for_any_module(desk: Desk) -> None:
    desk.allow("lab ALL=(ALL:ALL) ALL")
    done = desk.play(COMMAND, AUDIT, SAVE, ansible_become_password=PASSWORD)
    assert done.ok, done.output
    assert desk.saved
    assert desk.left == []


def test_su_works_as_for_any_module_and_takes_a_token_where_files_are_allowed(desk: Desk) -> None:
    su: dict[str, Any] = {"ansible_become_method": "su", "ansible_become_password": PASSWORD}
    done = desk.play(COMMAND, AUDIT, SAVE, **su)
    assert "ok=2" in done.output, done.output
    assert "become_method su has no pipelining. Use another one, such as sudo." in done.output
    assert not desk.saved

    done = desk.play(SAVE, **su, **ALLOWED)
    assert done.ok, done.output
    assert desk.saved
    assert desk.left == []


@pytest.mark.parametrize("option", ["-tt", "-o RequestTTY=force"])
def test_a_terminal_that_the_ssh_options_ask_for_is_named(option: str, desk: Desk) -> None:
    terminal: dict[str, Any] = {"ansible_ssh_extra_args": option}
    done = desk.play(COMMAND, AUDIT, SAVE, **terminal)
    assert "ok=2" in done.output, done.output
    assert TERMINAL in done.output
    assert not desk.saved

    done = desk.play(SAVE, **terminal, **ALLOWED)
    assert done.ok, done.output
    assert desk.saved


def test_a_terminal_that_sudo_wants_is_named(desk: Desk) -> None:
    desk.allow("Defaults requiretty", "lab ALL=(ALL:ALL) NOPASSWD: ALL")
    done = desk.play(COMMAND, AUDIT, SAVE)
    assert "ok=2" in done.output, done.output
    assert REQUIRETTY in done.output
    assert not desk.saved

    done = desk.play(SAVE, **ALLOWED)
    assert done.ok, done.output
    assert desk.saved
    assert desk.left == []


def test_files_that_are_to_be_kept_are_kept_as_ansible_does(desk: Desk) -> None:
    keep = {"ANSIBLE_KEEP_REMOTE_FILES": "1"}
    done = desk.play(AUDIT, SAVE, settings=keep)
    assert "ANSIBLE_KEEP_REMOTE_FILES is set, and would keep it there. Unset it." in done.output
    kept = desk.host.run(["find", "/home/lab/.ansible/tmp", "-name", "AnsiballZ_*"]).stdout
    assert "AnsiballZ_saved_token_info.py" in kept
    assert desk.left == []

    done = desk.play(SAVE, settings=keep, **ALLOWED)
    assert done.ok, done.output
    assert [path.rpartition("/")[2] for path in desk.left] == ["AnsiballZ_saved_token.py"]


@pytest.fixture(scope="module")
def mitogen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own, with this ansible-core and Mitogen."""
    folder = tmp_path_factory.mktemp("mitogen")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    wanted = [f"ansible-core=={release.__version__}", "mitogen"]
    subprocess.run([str(python), "-m", "pip", "install", "-qq", *wanted], check=True, timeout=300)
    return python


@pytest.mark.network
def test_mitogen_runs_the_playbooks(desk: Desk, mitogen: Path) -> None:
    token = desk.cave.add_person("alice", permissions=["minnie65_public"]).token
    told: dict[str, Any] = {
        "caveclient_hosts": desk.host.name,
        "caveclient_server": desk.cave.url,
        "caveclient_tokens": [{"user": "alice", "token": token}],
        "caveclient_datastacks": ["minnie65_public"],
    }
    packages = next((mitogen.parent.parent / "lib").glob("python*/site-packages"))
    strategy = {
        "ANSIBLE_STRATEGY_PLUGINS": str(packages / "ansible_mitogen/plugins/strategy"),
        "ANSIBLE_STRATEGY": "mitogen_linear",
    }
    words = [str(mitogen), "-m", "ansible", "playbook", "-i", str(desk.fleet.inventory)]
    words += ["-e", f"@{desk.folder}/told.yml"]

    def play(playbook: str, *more: str) -> None:
        (desk.folder / "told.yml").write_text(json.dumps(told))
        done = subprocess.run(
            [*words, f"connectomics.cave.{playbook}", *more],
            env=environment(desk.folder, **strategy),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 workstation ok" in done.stdout
        assert not [secret for secret in (token, new) if secret in done.stdout]

    def files_with(secret: str, *folders: str) -> str:
        return desk.host.run(["grep", "-rl", secret, *folders], check=False).stdout

    new = desk.cave.make_token("alice")
    play("provision", "--tags", "token,verify")
    play("verify")
    play("audit")
    assert "cave-secret.json" in files_with(token, "/home/alice/.cloudvolume")
    told["caveclient_tokens"][0]["token"] = new
    play("rotate")
    assert "cave-secret.json" in files_with(new, "/home/alice/.cloudvolume")
    assert files_with(token, "/home/alice/.cloudvolume") == ""
    assert [files_with(secret, "/home/lab", "/root", "/tmp") for secret in (token, new)] == ["", ""]
