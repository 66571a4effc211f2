# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vault_variable, with the real ansible-playbook and the real ansible-vault."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import ansible, command, environment, run_tasks

from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable

NAME = "vault_cave_token_alice"
OLD = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
NEW = "f9e8d7c6b5a4938271605f4e3d2c1b0a"
PASSWORDS = {"default": "correct horse", "lab": "battery staple", "wrong": "not this one"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, password in PASSWORDS.items():
        (tmp_path / f"{name}.password").write_text(password)
    return tmp_path


def with_vault(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--vault-id", f"{name}@{name}.password")]


def encrypt(text: str, vault_id: str = "default") -> str:
    secret = VaultSecret(PASSWORDS[vault_id].encode())
    return VaultLib().encrypt(text, secret, vault_id=vault_id).decode()


def block(text: str, vault_id: str = "default") -> str:
    """A ``!vault`` string, as ``ansible-vault encrypt_string`` prints it."""
    return "!vault |\n" + "".join(f"          {line}\n" for line in encrypt(text, vault_id).splitlines())


@pytest.fixture(params=["inline", "file"])
def vault(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A vault file with Alice's old token, in each of the two forms."""
    path = folder / "vault.yml"
    if request.param == "inline":
        path.write_text(f"# the lab's tokens\n{NAME}: {block(OLD)}\nother: 'kept'   # as it is\n")
    else:
        path.write_text(encrypt(f"# the lab's tokens\n{NAME}: {OLD}\n\nother: 'kept'   # as it is\n"))
    return path


def decrypted(path: Path, *variable: str, vault_id: str = "default") -> str | None:
    return read_variable(str(path), variable or (NAME,), [(vault_id, VaultSecret(PASSWORDS[vault_id].encode()))])


def store(**options: Any) -> dict[str, Any]:
    return {"connectomics.cave.vault_variable": {"path": "vault.yml", "name": NAME, **options}}


def test_a_token_is_replaced_and_ansible_and_ansible_vault_read_the_new_one(folder: Path, vault: Path) -> None:
    task = store(value="{{ token }}")
    first = run_tasks(folder, [task, task], *with_vault("default"), variables={"token": NEW})
    assert first.ok, first.output
    assert [result["changed"] for result in first.results] == [True, False]
    assert stat.S_IMODE(vault.stat().st_mode) == 0o600
    shown = run_tasks(
        folder,
        [{"ansible.builtin.debug": {"msg": "{{ [" + NAME + ", other] }}"}}],
        "-e",
        f"@{vault}",
        *with_vault("default"),
    )
    assert shown.results[0]["msg"] == [NEW, "kept"]
    if vault.read_text().startswith("$ANSIBLE_VAULT"):
        text = ansible(folder, "vault", "view", *with_vault("default"), str(vault)).output
    else:
        text = vault.read_text()
    assert text.startswith(f"# the lab's tokens\n{NAME}: ")
    assert text.endswith("\n\nother: 'kept'   # as it is\n")


def test_a_value_that_comes_out_of_a_vault_can_be_stored(folder: Path) -> None:
    (folder / "source.yml").write_text(f"source: {block(NEW)}")
    run = run_tasks(folder, [store(value="{{ source }}")], "-e", "@source.yml", *with_vault("default"))
    assert run.ok, run.output
    assert decrypted(folder / "vault.yml") == NEW


@pytest.mark.parametrize("new_format", ["inline", "file"])
def test_a_new_file_opens_with_the_password_of_the_run(folder: Path, new_format: str) -> None:
    run = run_tasks(
        folder,
        [store(name="tokens", key="alice", value=NEW, format=new_format), store(name="tokens", key="bob", value=OLD)],
        *with_vault("lab"),
    )
    assert run.ok, run.output
    assert [result["created"] for result in run.results] == [True, False]
    assert run.results[0]["vault_id"] == "lab"
    assert decrypted(folder / "vault.yml", "tokens", "alice", vault_id="lab") == NEW
    assert decrypted(folder / "vault.yml", "tokens", "bob", vault_id="lab") == OLD


def test_with_several_vault_ids_each_variable_keeps_its_own(folder: Path) -> None:
    path = folder / "vault.yml"
    path.write_text(f"of_default: {block(OLD)}of_lab: {block(OLD, 'lab')}")
    run = run_tasks(
        folder,
        [
            store(name="of_lab", value=NEW),
            store(name="of_default", value=NEW),
            store(name="new", value=NEW, vault_id="lab"),
        ],
        *with_vault("default", "lab"),
    )
    assert run.ok, run.output
    assert [result["vault_id"] for result in run.results] == ["lab", "default", "lab"]
    assert decrypted(path, "of_lab", vault_id="lab") == NEW
    assert decrypted(path, "new", vault_id="lab") == NEW
    assert decrypted(path, "of_default") == NEW


def test_without_a_vault_password_it_fails_and_says_how_to_give_one(folder: Path, vault: Path) -> None:
    before = vault.read_bytes()
    run = run_tasks(folder, [store(value=NEW)])
    assert not run.ok
    assert "has no vault secret" in run.output
    assert "--ask-vault-pass" in run.output
    assert vault.read_bytes() == before


def test_with_the_wrong_password_nothing_is_written(folder: Path, vault: Path) -> None:
    before = vault.read_bytes()
    run = run_tasks(folder, [store(value=NEW)], *with_vault("wrong"))
    assert not run.ok
    assert "cannot be decrypted with the vault secrets of this run (vault ids: wrong)" in " ".join(run.output.split())
    assert vault.read_bytes() == before


def test_check_mode_says_what_the_run_then_does(folder: Path, vault: Path) -> None:
    before = vault.read_bytes()
    predicted = run_tasks(folder, [store(value=NEW)], "--check", "--diff", *with_vault("default"))
    assert predicted.ok, predicted.output
    assert vault.read_bytes() == before
    done = run_tasks(folder, [store(value=NEW)], "--diff", *with_vault("default"))
    for run in (predicted, done):
        assert re.search(
            r"-vault_cave_token_alice: token [0-9a-f]{8}\n\+vault_cave_token_alice: token [0-9a-f]{8}\n", run.output
        )
    same = ("changed", "created", "path", "name", "format", "vault_id", "fingerprint", "previous_fingerprint")
    assert {key: done.results[0][key] for key in same} == {key: predicted.results[0][key] for key in same}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"value": 12345678901234567890123456789012}, "YAML read it as a number. Put it in quotes"),
        ({"value": [NEW]}, "is not a string"),
        ({"value": ""}, "is empty"),
        ({}, "state is present but all of the following are missing: value"),
        ({"value": NEW, "name": "none"}, "is a list, not a string"),
        ({"value": NEW, "mode": "0644"}, "0644 is refused"),
        ({"value": NEW, "path": "nowhere/vault.yml"}, "there is no such directory"),
    ],
)
def test_bad_input_is_refused_with_the_reason_and_without_the_value(
    folder: Path, options: dict[str, Any], says: str
) -> None:
    path = folder / "vault.yml"
    path.write_text("none: [1]\n")
    run = run_tasks(folder, [store(**options)], "-vvvv", *with_vault("default"))
    assert not run.ok
    assert says in " ".join(run.output.split())
    assert path.read_text() == "none: [1]\n"
    assert NEW not in run.output
    assert "12345678901234567890123456789012" not in run.output


LOUD: dict[str, dict[str, Any]] = {
    "plain": {},
    "debug": {"ANSIBLE_DEBUG": "1"},
    "log": {"ANSIBLE_LOG_PATH": "ansible.log"},
    "args": {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1"},
}


@pytest.mark.parametrize("loud", LOUD)
@pytest.mark.usefixtures("vault")
def test_no_value_is_printed_or_logged_at_any_verbosity(folder: Path, loud: str) -> None:
    (folder / "token.yml").write_text(f"token: {NEW}\n")
    tasks = [
        store(value="{{ token }}"),
        store(value="{{ token }}", name="vault_cave_tokens", key="alice"),
        store(state="absent"),
    ]
    run = run_tasks(folder, tasks, "-e", "@token.yml", "-vvvvv", "--diff", *with_vault("default"), **LOUD[loud])
    assert run.ok, run.output
    failing = run_tasks(
        folder,
        [store(value="{{ token }}", path="/")],
        "-e",
        "@token.yml",
        "-vvvvv",
        *with_vault("default"),
        **LOUD[loud],
    )
    assert not failing.ok
    (folder / "token.yml").unlink()
    said = run.output + failing.output
    said += "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())
    for value in (OLD, NEW):
        assert value not in said


def _processes(folder: Path, names: list[str]) -> list[subprocess.Popen[str]]:
    """Start a run of its own for each variable, all at once."""
    started = []
    for name in names:
        place = folder / name
        place.mkdir()
        playbook = place / "playbook.yml"
        playbook.write_text(
            "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - connectomics.cave.vault_variable:\n"
            f"        path: {folder / 'vault.yml'}\n        name: {name}\n        value: {name}-{NEW}\n"
        )
        started.append(
            subprocess.Popen(
                command("playbook", "--vault-id", f"default@{folder / 'default.password'}", str(playbook)),
                cwd=place,
                env=environment(place),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
    return started


def test_two_runs_at_the_same_time_keep_each_others_variables(folder: Path, vault: Path) -> None:
    names = ["first", "second", "third"]
    for process in _processes(folder, names):
        output, _nothing = process.communicate(timeout=120)
        assert process.returncode == 0, output
    for name in names:
        assert decrypted(vault, name) == f"{name}-{NEW}"
    assert decrypted(vault) == OLD


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_a_whole_file_and_the_next_one_finishes(folder: Path, vault: Path) -> None:
    before = vault.read_bytes()
    delays = [0.5 + 0.2 * step for step in range(5)]
    for number, delay in enumerate(delays):
        (process,) = _processes(folder, [f"killed{number}"])
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert decrypted(vault) == OLD
        assert decrypted(vault, "other") == "kept"
    vault.write_bytes(before)
    run = run_tasks(folder, [store(value=NEW)], *with_vault("default"))
    assert run.ok, run.output
    assert decrypted(vault) == NEW
    assert not [name for name in folder.iterdir() if name.suffix == ".tmp"]


@pytest.fixture
def make_link(folder: Path, vault: Path) -> Callable[[], Path]:
    def make() -> Path:
        (folder / "group_vars").mkdir()
        link = folder / "group_vars" / "all.yml"
        link.symlink_to(vault)
        return link

    return make


def test_a_linked_group_vars_file_stays_linked(folder: Path, vault: Path, make_link: Callable[[], Path]) -> None:
    link = make_link()
    run = run_tasks(folder, [store(path=str(link), value=NEW)], *with_vault("default"))
    assert run.ok, run.output
    assert run.results[0]["path"] == str(vault)
    assert link.is_symlink()
    assert decrypted(link) == NEW
