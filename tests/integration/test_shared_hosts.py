# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docs/docsite/rst/shared_hosts.rst promises: many people on a host, many hosts on a home, and images."""

from __future__ import annotations

import getpass
import json
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import stub_wheels
import yaml
from ansible_run import Run, ansible
from homes import DEFAULT_FILE, real_group, real_user, secrets_of, token_in
from interpreters import open_python
from module_runner import run_module

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

STACK = "minnie65_public"
PEOPLE = 50


@pytest.mark.root
@pytest.mark.slow
def test_fifty_people_on_one_host_are_one_task(cave: CaveServer, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as homes, ExitStack() as stack:
        Path(homes).chmod(0o755)
        group = stack.enter_context(real_group())
        users = [stack.enter_context(real_user(group, Path(homes), f"p{number}")) for number in range(PEOPLE)]
        tokens = {user.name: cave.add_person(user.name, [STACK]).token for user in users}
        broken, refused = users[7], users[23]
        broken.fill({DEFAULT_FILE: "{"})
        tokens[refused.name] = "0123456789abcdef0123456789abcdef"
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "caveclient_become": False,
            "caveclient_server": cave.url,
            "vault_cave_tokens": tokens,
            # As the page has it.
            "caveclient_tokens": "{{ vault_cave_tokens | dict2items(key_name='user', value_name='token') }}",
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"hub": host}}}))
        words = ["-i", "hosts.yml", "connectomics.cave.provision", "--tags", "token", "-e", "caveclient_report=reports"]
        done = ansible(tmp_path, "playbook", *words)
        assert done.status == 2
        assert done.output.count("TASK [connectomics.cave.caveclient : Save the tokens") == 1
        assert not [token for token in tokens.values() if token in done.output]
        [report] = json.loads((tmp_path / "reports" / "report.json").read_text())["hosts"]
        states = {user["user"]: user["state"] for user in report["users"]}
        assert {name for name, state in states.items() if state == "failed"} == {broken.name, refused.name}
        assert len(states) == PEOPLE
        for user in users:
            path = user.secrets / DEFAULT_FILE
            if user in (broken, refused):
                continue
            assert token_in(path) == tokens[user.name]
            status = path.stat()
            assert (status.st_uid, status.st_mode & 0o777) == (user.uid, 0o600)
        assert (broken.secrets / DEFAULT_FILE).read_text() == "{"
        assert not refused.secrets.exists()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("hosts", [("ws1", "ws2"), ("hub", "hub")])
def test_one_token_of_two_people_is_the_first_note_unless_it_is_said_whose_it_is(
    cave: CaveServer, tmp_path: Path, hosts: tuple[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as homes, ExitStack() as stack:
        Path(homes).chmod(0o755)
        group = stack.enter_context(real_group())
        users = [stack.enter_context(real_user(group, Path(homes), f"p{number}")).name for number in range(2)]
        token = cave.add_person("alice", [STACK]).token

        def play(playbook: str, *more: str, **own: str) -> str:
            entries: dict[str, list[Any]] = {host: [] for host in hosts}
            for host, user in zip(hosts, users, strict=True):
                entries[host].append({"user": user, "token": token, **own})
            shared = {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "caveclient_become": False,
                "caveclient_server": cave.url,
                "mail": "Alice@example.org",
            }
            inventory = {"hosts": {host: {"caveclient_tokens": entries[host]} for host in hosts}, "vars": shared}
            (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": inventory}))
            done = ansible(tmp_path, "playbook", "-i", "hosts.yml", f"connectomics.cave.{playbook}", *more)
            assert done.ok, done.output
            assert token not in done.output
            return " ".join(done.output.partition("NOTE")[2].split())

        who = " and ".join(f"{user} ({host})" for host, user in zip(hosts, users, strict=True))
        note = f"{who} have one token, {fingerprint(token)}, which is that of alice."
        notes = play("provision", "--tags", "token")
        assert notes.startswith(note)
        assert notes.count("have one token") == 1
        assert play("verify").startswith(note)
        assert "have one token" not in play("provision", "--tags", "token", person="{{ mail }}")
        assert "have one token" not in play("verify", person="alice@example.org")


def test_one_token_of_two_people_is_a_warning_of_a_task_that_no_report_follows(tmp_path: Path) -> None:
    entries = [{"user": user, "token": TOKEN} for user in (getpass.getuser(), "no-such-user")]
    options = {"tokens": entries, "validate": False, "secrets_dir": str(tmp_path / "secrets")}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"connectomics.cave.saved_token": options}]}
    (tmp_path / "site.yml").write_text(yaml.safe_dump([play]))
    python = f"ansible_python_interpreter={sys.executable}"
    run = ansible(tmp_path, "playbook", "-i", "localhost,", "-c", "local", "-e", python, "site.yml")
    warning = f"[WARNING]: {getpass.getuser()} and no-such-user have one token for"
    assert " ".join(run.output.split()).count(warning) == 1, run.output


# Images ---------------------------------------------------------------------------------------------------------------

TOKEN = "0123456789abcdef0123456789abcdef"


def build(folder: Path, *arguments: str, **variables: Any) -> Run:
    """Provision a pretend image, whose server is out of reach; its token is in the inventory all the same."""
    image = folder / "image"
    image.mkdir(exist_ok=True)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(image))} exec {shlex.quote(open_python())} "$@"\n')
    python.chmod(0o755)
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "caveclient_become": False,
        "caveclient_server": "http://127.0.0.1:9",
        "caveclient_tokens": [{"user": getpass.getuser(), "token": TOKEN}],
        "caveclient_path": str(image / "opt" / "caveclient"),
        "caveclient_jupyter_dir": str(image / "jupyter"),
        "caveclient_doctor_path": str(image / "cave-doctor"),
        "caveclient_retries": 0,
        **variables,
    }
    (folder / "image.yml").write_text(yaml.safe_dump({"all": {"hosts": {"image": host}}}))
    done = ansible(folder, "playbook", "-i", "image.yml", "connectomics.cave.provision", *arguments)
    (folder / "image.yml").unlink()
    assert TOKEN not in done.output
    return done


def test_an_image_is_built_offline_and_holds_no_token(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    stub_wheels.wheel(wheels, "caveclient", "8.2.1", {"caveclient/__init__.py": "__version__ = '8.2.1'\n"})
    links = f"{{caveclient_find_links: [{wheels}]}}"
    options = ("-e", "caveclient_offline=true", "-e", links)
    done = build(tmp_path, "--tags", "install", *options, caveclient_jupyter_kernel=False)
    assert done.ok, done.output
    assert (tmp_path / "image" / "opt" / "caveclient" / "current").is_symlink()
    assert not secrets_of(tmp_path / "image").exists()
    holding = [
        path for path in (tmp_path / "image").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holding == []


def test_a_token_is_written_without_its_server_only_when_that_is_said(tmp_path: Path) -> None:
    refused = build(tmp_path, "--tags", "token")
    assert refused.status == 2
    assert "set validate: false" in " ".join(refused.output.split())
    assert not secrets_of(tmp_path / "image").exists()
    done = build(tmp_path, "--tags", "token", "-e", "caveclient_validate=false")
    assert done.ok, done.output
    assert "the server was not asked" in " ".join(done.output.split())
    saved = run_module("saved_token_info", {"server": "http://127.0.0.1:9"}, tmp_path / "image")
    assert saved.result["users"][0]["fingerprint"] == fingerprint(TOKEN)
