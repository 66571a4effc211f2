# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role adds to its modules: which of them run, and when."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from ansible_run import Run, ansible
from lab import USER, Lab

from cave_server import CaveServer

VERIFY = "TASK [connectomics.cave.caveclient : Verify that the users' access works]"


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """A workstation with nothing on it, and a caveclient that installs in no time and cannot ask a server."""
    lab = Lab(tmp_path, cave, ["ws1"])
    lab.offer_caveclient()
    return lab


def test_a_check_of_an_empty_host_says_what_would_be_done_and_tries_nothing_that_is_not_there(lab: Lab) -> None:
    checked = lab.play("provision", "--check", caveclient_verify="client")
    assert checked.ok, checked.output
    assert "changed=2" in checked.output
    assert lab.saved("ws1") is None
    assert f"{VERIFY}\nskipping: [ws1]" in plain(checked)


def test_a_check_of_a_provisioned_host_tries_what_is_there(lab: Lab) -> None:
    assert lab.play("provision").ok
    checked = lab.play("provision", "--check", caveclient_verify="client")
    assert not checked.ok
    assert "changed=0" in checked.output
    assert "client_error" in checked.output  # of the caveclient that cannot ask


def test_two_switches_are_two_switches(lab: Lab) -> None:
    """What saves without asking the server leaves it to the verification to ask."""
    run = lab.play("provision", caveclient_validate=False, caveclient_verify="api")
    assert run.ok, run.output
    assert f"{VERIFY}\nok: [ws1]" in plain(run)


def test_a_token_that_was_proven_on_the_way_is_not_asked_about_again(lab: Lab) -> None:
    own = [{"hosts": "workstations", "gather_facts": False, "roles": ["connectomics.cave.caveclient"]}]
    (lab.folder / "own.yml").write_text(yaml.safe_dump(own))
    assert f"{VERIFY}\nskipping: [ws1]" in plain(lab.play("own.yml"))
    run = lab.play("provision")
    assert run.ok, run.output
    assert VERIFY not in plain(run)  # no process for each host that would find out that there is nothing to do


@pytest.mark.parametrize("own", [False, True])
def test_a_token_that_an_entry_saves_without_asking_is_verified_afterwards(own: bool, lab: Lab) -> None:
    entry = {"user": USER, "token": "{{ vault_cave_token_alice }}", "validate": False}
    lab.variables["caveclient_tokens"] = [entry]
    lab.store(alice="f" * 32)
    play = [{"hosts": "workstations", "gather_facts": False, "roles": ["connectomics.cave.caveclient"]}]
    (lab.folder / "own.yml").write_text(yaml.safe_dump(play))
    run = lab.play("own.yml" if own else "provision", "--skip-tags", "install")
    assert run.status == 2, run.output
    assert "does not accept the token" in " ".join(run.output.split())


def test_a_person_provisions_their_own_computer_as_the_guide_says(lab: Lab) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "docsite" / "rst" / "provision.rst").read_text(encoding="utf-8")
    block = next(part for part in guide.split(".. code-block:: yaml\n") if "caveclient_become: false" in part)
    lab.variables |= yaml.safe_load(block.partition("\nAll commands")[0])
    run = lab.play("provision")
    assert run.ok, run.output
    home = lab.home("ws1")
    places = ("caveclient/current/bin/python", ".local/share/jupyter/kernels/cave", ".local/bin/cave-doctor")
    assert [place for place in places if not (home / place).exists()] == []
    assert lab.saved("ws1") == lab.token
    assert "changed=0" in lab.play("provision").output


def test_tags_choose_what_provision_does(lab: Lab) -> None:
    run = lab.play("provision", "--tags", "verify")
    assert "no_token" in run.output
    assert "TASK [connectomics.cave.caveclient : Save the tokens" not in run.output
    run = lab.play("provision", "--skip-tags", "install,verify", caveclient_validate=False)
    assert run.ok, run.output
    assert VERIFY not in plain(run)
    assert lab.play("provision", "--tags", "verify").ok
    assert lab.play("provision", "--skip-tags", "token,install").ok


def test_nobody_asks_when_both_switches_are_off(lab: Lab) -> None:
    run = lab.play("provision", caveclient_validate=False, caveclient_verify="none")
    assert run.ok, run.output
    assert "(the server was not asked)" in run.output


def test_a_colleagues_token_is_refused_where_the_entry_names_the_person(lab: Lab) -> None:
    (entry,) = lab.variables["caveclient_tokens"]
    email = lab.persons["alice"].email
    lab.variables["caveclient_tokens"] = [{**entry, "person": "bob@example.org"}]
    refused = lab.play("provision", "--tags", "token")
    assert not refused.ok
    assert f"The token is of {email}, not of bob@example.org. Nothing was written." in " ".join(refused.output.split())
    assert lab.saved("ws1") is None
    lab.variables["caveclient_tokens"] = [{**entry, "person": email.upper()}]
    assert lab.play("provision", "--tags", "token").ok
    assert lab.saved("ws1") == lab.token
    assert lab.play("verify").ok


def plain(run: Run) -> str:
    """Return what a run printed, without the lines of asterisks."""
    return run.output.replace(" *", "").replace("*", "")


def test_a_misspelt_variable_is_named_wherever_it_is_set(tmp_path: Path) -> None:
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": {"h1": {"caveclient_verfy": "none"}}, "vars": {**here, "caveclient_sever": "x"}}}
    files = {
        "hosts.yml": inventory,
        "group_vars/all.yml": {"cavclient_tokens": []},
        "host_vars/h1.yml": {"caveclient_token": []},
        "own.yml": [
            {
                "hosts": "all",
                "gather_facts": False,
                "tasks": [{"connectomics.cave.saved_token_info": {"users": []}}] * 2,
            }
        ],
        "role.yml": [{"hosts": "all", "gather_facts": False, "roles": ["connectomics.cave.caveclient"]}],
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(content))
    meant = {
        "cavclient_tokens": "caveclient_tokens",
        "caveclient_sever": "caveclient_server",
        "caveclient_timout": "caveclient_timeout",
        "caveclient_token": "caveclient_tokens",
        "caveclient_verfy": "caveclient_verify",
    }
    for playbook in ("own.yml", "role.yml"):
        words = [
            "-i",
            "hosts.yml",
            playbook,
            "--tags",
            "all,token",
            "--skip-tags",
            "install",
            "-e",
            "caveclient_timout=3",
        ]
        run = ansible(tmp_path, "playbook", *words)
        assert run.status == 0, run.output
        for name, right in meant.items():
            said = " ".join(run.output.split())
            assert said.count(f"{name} is no variable of this collection: did you mean {right}?") == 1, playbook
