# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Token stores beside ansible-vault, for real: from the text of the guide to hosts that have a new token.

What is promised of each is the same, and so are the tests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from ansible_run import ansible, environment, wait_until_read
from lab import USER, Lab, squeezed
from recipes import recipes
from token_stores import STORES, TestStore

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

pytestmark = pytest.mark.network
STRIKE = Path(__file__).parents[1] / "fleet" / "plugins"
TROUBLES = [(name, trouble) for name, store in STORES.items() for trouble in store.troubles]


class StoreLab(Lab):
    """A lab whose tokens are in a store, as the guide says, and two workstations of Alice's."""

    def __init__(self, folder: Path, cave: CaveServer, kind: type[TestStore]) -> None:
        super().__init__(folder / "lab", cave, ("ws1", "ws2"))
        self.vault.unlink()
        del self.variables["caveclient_tokens"], self.variables["caveclient_datastacks"]
        self.tokens_store = kind(folder / "store", self.folder)
        for variables in self.hosts.values():
            variables.update(self.tokens_store.variables)

    def follow(self) -> None:
        """Do what the guide says, up to the tokens in the store and on the hosts."""
        self.write_inventory()
        for step in recipes()[self.tokens_store.recipe]:
            if step.path:
                path = self.folder / step.path
                path.parent.mkdir(parents=True, exist_ok=True)
                # The one who runs the tests is the only user there is.
                path.write_text(re.sub(r"user: alice\b", f"user: {USER}", step.text))
            else:
                self._type(step.text)

    def _type(self, script: str) -> None:
        """Run commands in a terminal, and answer what they ask."""
        variables = environment(self.folder, **{**self.tokens_store.environment(), "TERM": "xterm"})
        terminal = pexpect.spawn(
            "bash", ["-ec", script], cwd=str(self.folder), env=variables, encoding="utf-8", timeout=60
        )
        screen = ""
        answers = {"worked with .* before": "y", "Token .*Enter:": self.token, "Store it for alice": "y"}
        while (found := terminal.expect([pexpect.EOF, *answers])) > 0:
            screen += f"{terminal.before}{terminal.after}"
            wait_until_read(terminal.fileno())
            terminal.send(f"{list(answers.values())[found - 1]}\r")
        screen += terminal.before or ""
        terminal.close()
        assert terminal.exitstatus == 0, screen
        self.assert_nothing_shown(screen)

    def arguments(self, *words: str, **more: Any) -> list[str]:
        """Return the arguments of ansible-playbook; no vault has a password."""
        return super().arguments(*words, **{**more, "with_password": False})

    def run(self, playbook: str, *more: str, **variables: Any) -> tuple[int, str]:
        """Run a playbook, and return its status and what it said."""
        self.settings = self.tokens_store.environment()
        done = self.play(playbook, *more, caveclient_report=str(self.report), **variables)
        return done.status, squeezed(done)

    def overlap(self, *more: str, **settings: str) -> tuple[int, str]:
        """Rotate by overlap; ``settings`` are environment variables."""
        self.tokens_store.settings |= settings
        return self.run("rotate", *more, strategy="overlap", grace=0.5)

    def killed(self, task: str) -> None:
        """Begin to rotate, and kill all of the run when a task begins."""
        strike = {
            "ANSIBLE_CALLBACK_PLUGINS": str(STRIKE),
            "ANSIBLE_CALLBACKS_ENABLED": "strike",
            "STRIKE_LOG": str(self.folder.parent / "strikes"),
            "STRIKE_ON": f"task {re.escape(task)}",
            "STRIKE_NUMBER": "1",
            "STRIKE_WHAT": "all",
        }
        words = self.arguments("rotate", strategy="overlap", grace=0.5, caveclient_report=str(self.report))
        done = ansible(self.folder, "playbook", *words, **{**self.tokens_store.environment(), **strike})
        assert done.status < 0, done.output
        self.assert_nothing_shown(done.output)

    def in_clear(self, token: str) -> set[str]:
        """Return the files that hold a token in clear: the folder's, and those of the store."""
        found = [path for path in self.folder.parent.rglob("*") if path.is_file() and not path.is_symlink()]
        holding = [path for path in found if token.encode() in path.read_bytes()]
        return {str(path.relative_to(self.folder)) for path in holding}


@pytest.fixture
def lab(request: pytest.FixtureRequest, cave: CaveServer, tmp_path: Path) -> Iterator[StoreLab]:
    lab = StoreLab(tmp_path, cave, STORES[request.param])
    yield lab
    lab.tokens_store.close()


@pytest.mark.parametrize("lab", STORES, indirect=True)
def test_a_token_lives_in_its_store_from_enroll_to_a_rotation_that_was_killed_after_it_stored_the_new_one(
    lab: StoreLab,
) -> None:
    old, store = lab.token, lab.tokens_store
    lab.follow()
    assert store.holds() == old
    assert lab.in_clear(old) == set()
    status, said = lab.run("provision", "--tags", "token", "-vvv")
    assert status == 0, said
    assert [lab.saved(host) for host in lab.hosts] == [old, old]

    lab.killed("Save the tokens on the canary host")
    new = store.holds()
    assert lab.tokens() == [new, old]
    assert [lab.saved(host) for host in lab.hosts] == [old, old]
    assert lab.in_clear(new) == set()
    for folder in (lab.folder / ".ansible", lab.report):  # nothing but the store knows of the killed run
        shutil.rmtree(folder, ignore_errors=True)

    status, said = lab.overlap("-vvvvv", "--diff", ANSIBLE_DEBUG="1")
    assert status == 0, said
    assert f"The old token {fingerprint(old)} is revoked" in said
    assert lab.tokens() == [new] == [store.holds()]
    assert [lab.saved(host) for host in lab.hosts] == [new, new]
    assert lab.in_clear(old) == set()
    assert {path for path in lab.in_clear(new) if "/.cloudvolume/secrets/" not in path} == set()
    status, said = lab.run("verify")
    assert status == 0, said


@pytest.mark.parametrize("lab", STORES, indirect=True)
def test_a_token_that_was_made_and_not_stored_is_stored_by_the_next_run(lab: StoreLab) -> None:
    old, store = lab.token, lab.tokens_store
    lab.follow()
    lab.save(old)
    made = lab.cave.make_token("alice", description=f"connectomics.cave rotation (replaces {fingerprint(old)})")
    status, said = lab.overlap()
    assert status == 0, said
    assert f"It is kept as {lab.tokens_store.secret}" in said
    assert lab.tokens() == [made] == [store.holds()]
    assert [lab.saved(host) for host in lab.hosts] == [made, made]


@pytest.mark.parametrize(("lab", "trouble"), TROUBLES, indirect=["lab"])
def test_a_store_that_cannot_take_a_token_is_refused_before_one_is_made(lab: StoreLab, trouble: str) -> None:
    old = lab.token
    lab.follow()
    lab.save(old)
    bring_about, sentences = lab.tokens_store.troubles[trouble]
    bring_about(lab.tokens_store)
    status, said = lab.overlap()
    assert status == 2, said
    assert [sentence for sentence in sentences if sentence not in said] == [], said
    assert lab.tokens() == [old]
    assert [lab.saved(host) for host in lab.hosts] == [old, old]


@pytest.mark.parametrize("lab", ["sops"], indirect=True)
def test_provision_says_what_the_store_said(lab: StoreLab) -> None:
    lab.follow()
    bring_about, sentences = lab.tokens_store.troubles["gone"]
    bring_about(lab.tokens_store)
    status, said = lab.run("provision", "--tags", "token")
    assert status == 2, said
    assert [sentence for sentence in sentences if sentence not in said] == [], said
