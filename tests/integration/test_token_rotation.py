# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rotation against the stand-in server and a real vault file, without playbooks around."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultSecret

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import Subject
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import unseal
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.steps import Holder, Looked, Settings
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import file as _file
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable, set_variable
from cave_server import CaveServer

SECRETS = [("default", VaultSecret(b"correct horse"))]
TOKENS = "/auth/api/v1/user/token"
STACKS = ("minnie65_public",)
SETTINGS = Settings(
    strategy="overlap",
    name="spring",
    users=frozenset(),
    vault_files=(),
    vault_id=None,
    own_store=False,
    other_person=False,
    revoke="when_unused",
    grace=0.0,
    timeout=10,
    retries=0,
    ca_path=None,
    check=False,
)


class Rotation:
    """Users with tokens on hosts, and a vault with all of the tokens; ``tokens`` are those in the vault."""

    def __init__(self, cave: CaveServer, folder: Path) -> None:
        self.cave = cave
        self.path = folder / "vault.yml"
        self.tokens: dict[str, str] = {}
        self.holders: list[Holder] = []
        self.looked: dict[tuple[str, str, str], Looked] = {}

    def add(self, user: str, *hosts: str) -> str:
        person = self.cave.add_person(user, STACKS)
        self.tokens[user] = person.token
        set_variable(str(self.path), (f"vault_cave_token_{user}",), person.token, SECRETS)
        self.holders += [Holder(host, user, self.cave.url, person.token, STACKS) for host in hosts]
        for host in hosts:
            self.looked[host, user, self.cave.url] = Looked(fingerprint(person.token), person.id)
        return person.token

    def stored(self, user: str = "alice") -> str | None:
        return read_variable(str(self.path), (f"vault_cave_token_{user}",), SECRETS)

    def alive(self, user: str = "alice") -> list[str]:
        return [item["token"] for item in self.cave.tokens(user)]

    def begin(self, **settings: Any) -> dict[str, Subject]:
        """Prove and begin, as the next run would; return what became of each user's token."""
        chosen = SETTINGS._replace(**settings)
        holders = [item._replace(token=str(self.stored(item.user))) for item in self.holders]
        subjects = _steps.prove(holders, chosen)
        _steps.begin(subjects, holders, self.looked, SECRETS, [str(self.path)], chosen)
        return {user: subject for subject in subjects for user in subject.users}

    def end(self, subject: Subject, missing: Mapping[str, str] | None = None, **settings: Any) -> _steps.Ended:
        chosen = SETTINGS._replace(**settings)
        marks = _steps.mark([subject], chosen)
        return _steps.end(subject, list(missing or ()), marks, chosen)


@pytest.fixture
def rotation(cave: CaveServer, tmp_path: Path) -> Rotation:
    return Rotation(cave, tmp_path)


def test_a_new_token_is_stored_before_it_is_anywhere_else(rotation: Rotation) -> None:
    old = rotation.add("alice", "ws1", "ws2")
    subject = rotation.begin()["alice"]
    new = rotation.stored()
    assert new is not None
    assert rotation.alive() == [new, old]
    assert (subject.action, subject.new, subject.old, subject.old_alive) == (
        "made",
        fingerprint(new),
        fingerprint(old),
        True,
    )
    assert unseal(subject.sealed) == new
    assert new not in repr(subject)
    again = rotation.begin()["alice"]
    assert (again.action, again.new, again.old) == ("continued", subject.new, subject.old)
    assert rotation.alive() == [new, old]


def test_the_old_token_is_revoked_once_and_proven_dead(rotation: Rotation) -> None:
    old = rotation.add("alice", "ws1")
    subject = rotation.begin()["alice"]
    ended = rotation.end(subject)
    assert (ended.finished, ended.revoked) == (True, True)
    assert old not in rotation.alive()
    again = rotation.end(subject)
    assert (again.finished, again.revoked) == (True, False)


@pytest.mark.parametrize("revoke", ["when_unused", "even_if_used"])
def test_as_long_as_a_host_may_need_it_the_old_token_stays(rotation: Rotation, revoke: str) -> None:
    old = rotation.add("alice", "ws1")
    subject = rotation.begin()["alice"]
    ended = rotation.end(subject, {"ws1 (alice: it is off)": ""}, revoke=revoke)
    assert not ended.finished
    assert "ws1 (alice: it is off)" in ended.note
    assert old in rotation.alive()


def test_never_means_never(rotation: Rotation) -> None:
    old = rotation.add("alice", "ws1")
    assert rotation.end(rotation.begin()["alice"], revoke="never").finished
    assert old in rotation.alive()


def test_nobody_is_rotated_who_is_not_meant(rotation: Rotation) -> None:
    rotation.add("alice", "ws1")
    bob = rotation.add("bob", "ws1")
    found = rotation.begin(users=frozenset(["alice"]))
    assert (found["alice"].action, found["bob"].action) == ("made", "left_out")
    assert rotation.alive("bob") == [bob]
    assert rotation.stored("bob") == bob


def test_who_shares_a_token_gets_the_new_one_too(rotation: Rotation) -> None:
    rotation.add("alice", "ws1")
    rotation.holders.append(rotation.holders[0]._replace(host="ws2"))
    subject = rotation.begin(users=frozenset(["alice"]))["alice"]
    assert subject.hosts == ["ws1", "ws2"]


def test_a_colleagues_token_is_refused_when_all_old_ones_are_dead(rotation: Rotation) -> None:
    rotation.add("alice", "ws1")
    bob = rotation.add("bob", "ws1")
    set_variable(str(rotation.path), ("vault_cave_token_alice",), bob, SECRETS)
    dead = {key: item._replace(person=None) for key, item in rotation.looked.items()}
    rotation.looked = {**dead, ("ws1", "bob", rotation.cave.url): Looked(fingerprint(bob), None)}
    subject = rotation.begin(strategy="cutover")["alice"]
    assert "who is bob on the hosts" in subject.reason_against("ws1", "alice")
    told = rotation.begin(strategy="cutover", other_person=True)["alice"]
    assert told.reason_against("ws1", "alice") == ""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_on_an_older_server_auto_rolls_out_and_overlap_says_why_not(rotation: Rotation, method: str) -> None:
    old = rotation.add("alice", "ws1")
    rotation.cave.advance(0)
    rotation.cave.set_fault(TOKENS, "status", status=405, method=method, body="no")
    refused = rotation.begin()["alice"]
    assert refused.refused
    assert "older server" in refused.message
    # The stand-in has just made the old one: a day ago would be another decision.
    rolled = rotation.begin(strategy="auto")["alice"]
    assert rolled.action == "rolled_out"
    assert rotation.alive() == [old]


def test_where_a_token_cannot_be_stored_none_is_made(rotation: Rotation, tmp_path: Path) -> None:
    old = rotation.add("alice", "ws1")
    (tmp_path / "second name").hardlink_to(rotation.path)
    subject = rotation.begin()["alice"]
    assert subject.refused
    assert "hard links" in subject.message
    assert rotation.alive() == [old]


def test_a_token_that_was_made_and_could_not_be_stored_is_taken_up_by_the_next_run(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = rotation.add("alice", "ws1")

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_file, "_replace", full)
        subject = rotation.begin()["alice"]
    assert subject.refused
    assert "No space left" in subject.message
    made, _old = rotation.alive()
    assert rotation.stored() == old
    assert rotation.begin()["alice"].action == "continued"
    assert rotation.alive() == [made, old]
    assert rotation.stored() == made


def test_the_trouble_of_one_person_is_not_that_of_another(rotation: Rotation) -> None:
    rotation.add("alice", "ws1")
    dead = rotation.add("bob", "ws1")
    rotation.cave.revoke(dead)
    found = rotation.begin()
    assert (found["alice"].action, found["bob"].action) == ("made", "refused")
    assert found["bob"].access is not None
    assert found["bob"].access["verdict"] == "invalid_token"


def test_check_mode_says_what_would_be_made_and_where_it_would_be_kept(rotation: Rotation) -> None:
    old = rotation.add("alice", "ws1")
    before = rotation.path.read_bytes()
    subject = rotation.begin(check=True)["alice"]
    assert (subject.action, subject.new, subject.old) == ("made", None, fingerprint(old))
    assert subject.places == [{"path": str(rotation.path), "name": "vault_cave_token_alice"}]
    assert (rotation.alive(), rotation.path.read_bytes()) == ([old], before)


def test_another_run_that_stored_the_token_meanwhile_is_followed(rotation: Rotation) -> None:
    old = rotation.add("alice", "ws1")
    made = unseal(rotation.begin()["alice"].sealed)
    holders = [item._replace(token=old) for item in rotation.holders]  # as this run read the vault before
    subjects = _steps.prove(holders, SETTINGS)
    _steps.begin(subjects, holders, rotation.looked, SECRETS, [str(rotation.path)], SETTINGS)
    assert subjects[0].action == "continued"
    assert unseal(subjects[0].sealed) == made == rotation.stored()


def test_all_places_of_a_token_get_the_new_one(rotation: Rotation, tmp_path: Path) -> None:
    rotation.add("alice", "ws1")
    set_variable(str(rotation.path), ("tokens", "alice"), rotation.tokens["alice"], SECRETS)
    rotation.begin()
    assert read_variable(str(rotation.path), ("tokens", "alice"), SECRETS) == rotation.stored()
    assert rotation.stored() != rotation.tokens["alice"]
    assert list(tmp_path.glob(".*.tmp")) == []
