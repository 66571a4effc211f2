# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vault_variable, with the real ansible-playbook and the real ansible-vault."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import ansible, run_tasks

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
