# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What saved_token does with its options, before and after the files are written."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from homes import (
    DEFAULT_FILE,
    NEW_TOKEN,
    OLD_TOKEN,
    OTHER_TOKEN,
    SERVER,
    SERVER_FILE,
    fill,
    picture,
    secrets_of,
    token_in,
)
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import saved_token as _saved_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave import probe as _probe
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Person, Verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import startup_texts as _startup_texts

ME = _users.current_user().pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name
ZETTA = "https://proofreading.zetta.ai"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of whoever runs the tests, empty."""
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {})
    monkeypatch.delenv("CLOUD_VOLUME_DIR", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def run(check_mode: bool = False, **options: Any) -> dict[str, Any]:
    return _saved_token.run(arguments_of("saved_token", **{"validate": False, **options}), check_mode)


def refused(**options: Any) -> CaveError:
    with pytest.raises(CaveError) as caught:
        run(**options)
    return caught.value


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Question]]:
    """`answering(verdict)`: every question gets this verdict; returns the list of those that are asked."""

    def answer(name: str, message: str = "It is so.", remedy: str = "Do this.") -> list[Question]:
        asked: list[Question] = []

        def prove(questions: Iterable[Question], **_limits: Any) -> dict[Question, Access]:
            asked.extend(questions)
            return {question: Access(Verdict(name, message, remedy, question.server)) for question in asked}

        monkeypatch.setattr(_probe, "prove", prove)
        return asked

    return answer


def test_entries_take_what_they_lack_from_the_task(home: Path) -> None:
    entries = [{"token": NEW_TOKEN}, {"token": OTHER_TOKEN, "server": ZETTA, "key": "mine"}]
    result = run(tokens=entries, user=ME, datastacks=["minnie65_public"])
    assert [user["server"] for user in result["users"]] == [SERVER, ZETTA]
    names = set(picture(secrets_of(home)))
    assert "minnie.microns-daf.com-cave-secret.json" in names
    assert token_in(secrets_of(home) / "proofreading.zetta.ai-cave-secret.json", "mine") == OTHER_TOKEN


def test_datastacks_of_the_task_are_not_those_of_another_server(home: Path) -> None:
    run(tokens=[{"token": OTHER_TOKEN, "server": ZETTA}], datastacks=["minnie65_public"])
    assert set(picture(secrets_of(home))) == {"proofreading.zetta.ai-cave-secret.json", DEFAULT_FILE}


def test_no_tokens_at_all_is_nothing_to_do(home: Path) -> None:
    assert run(tokens=[]) == {"changed": False, "users": [], "diff": []}
    assert picture(home) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"token": NEW_TOKEN, "tokens": []}, "Found both tokens and token"),
        ({"token": None}, "The token is empty"),
        ({"token": "YOUR_TOKEN_HERE"}, "placeholder"),
        ({"token": NEW_TOKEN, "server": "global.daf-apis.com"}, "Did you mean https://global.daf-apis.com?"),
        ({"token": NEW_TOKEN, "datastacks": ["a/b"]}, "not the name of a datastack"),
        ({"token": NEW_TOKEN, "key": " "}, "The key ' ' is not a name"),
        ({"token": NEW_TOKEN, "key": "a\nb"}, "is not a name"),
        ({"token": NEW_TOKEN, "user": "nobody-of-that-name"}, "no user 'nobody-of-that-name'"),
        ({"token": NEW_TOKEN, "group": "no-group-of-that-name"}, "no group 'no-group-of-that-name'"),
        ({"token": NEW_TOKEN, "secrets_dir": "relative"}, "secrets_dir: 'relative' is not an absolute path"),
        ({"token": NEW_TOKEN, "cloud_volume_dir": "~bob/x"}, "cloud_volume_dir: '~bob/x' is not an absolute path"),
        ({"token": NEW_TOKEN, "mode": "0644"}, "lets others read the file"),
        ({"token": NEW_TOKEN, "mode": 0o644}, "lets others read the file"),
        ({"token": NEW_TOKEN, "mode": 600}, "'0600', in quotes"),
        ({"token": NEW_TOKEN, "mode": 640}, "'0600', in quotes"),
        ({"token": NEW_TOKEN, "mode": "0700"}, "is no file mode"),
        ({"token": NEW_TOKEN, "mode": "4600"}, "is no file mode"),
        ({"token": NEW_TOKEN, "mode": "-600"}, "Use '0600'"),
        ({"token": NEW_TOKEN, "mode": True}, "Use '0600'"),
        ({"token": NEW_TOKEN, "mode": "u=rw"}, "not an octal number"),
        ({"token": NEW_TOKEN, "mode": [6]}, "not an octal number"),
        ({"token": NEW_TOKEN, "mode": "0640"}, "lets a group in, but no group is given"),
        ({"token": NEW_TOKEN, "mode": "0440", "group": MY_GROUP}, "could not read and change"),
        ({"token": NEW_TOKEN, "mode": "0400"}, "could not read and change"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(options: dict[str, Any], reason: str, home: Path) -> None:
    error = refused(**options)
    assert reason in error.message
    assert NEW_TOKEN not in error.message + json.dumps(error.details)
    assert picture(home) == {}


def test_a_mode_for_a_group_with_the_group_is_taken(home: Path) -> None:
    run(token=NEW_TOKEN, mode=0o640, group=MY_GROUP)
    assert picture(secrets_of(home))[DEFAULT_FILE][1] == 0o640


def test_entries_that_contradict_each_other_are_refused(home: Path) -> None:
    error = refused(tokens=[{"token": NEW_TOKEN}, {"token": OTHER_TOKEN, "user": ME}, {"state": "absent"}])
    assert f"Entries 1, 2 and 3 of tokens contradict each other about what {SERVER_FILE} is to hold" in error.message
    assert picture(home) == {}


@pytest.mark.parametrize("group", ["no-such-group", "a\0b", "\ud800", "0"])
def test_a_group_that_is_none_is_named(group: str) -> None:
    assert "This host has no group" in refused(token=NEW_TOKEN, mode=0o640, group=group).message


@pytest.mark.parametrize("other", [".", "../link"])
def test_two_accounts_with_one_user_id_and_one_home_cannot_have_two_tokens(
    home: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Each run would write the one, and then the other."""
    (home.parent / "link").symlink_to(home.name)
    twin = type(pwd.getpwuid(0))(("twin", "x", os.geteuid(), os.getegid(), "", f"{home}/{other}", "/bin/sh"))
    mine = type(twin)((ME, *twin[1:5], str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"twin": twin, ME: mine}.__getitem__)
    error = refused(tokens=[{"user": ME, "token": OLD_TOKEN}, {"user": "twin", "token": NEW_TOKEN}])
    assert f"{ME} and twin are one user id with one home" in error.message
    assert picture(home) == {}
    assert run(tokens=[{"user": ME, "token": NEW_TOKEN}, {"user": "twin", "token": NEW_TOKEN}])["changed"]
    assert token_in(secrets_of(home) / SERVER_FILE) == NEW_TOKEN


@pytest.mark.parametrize("order", [1, -1])
def test_entries_of_two_names_for_one_account_are_planned_as_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    """Directory services give an account two names; whichever came first had the file for all servers."""
    account = type(pwd.getpwuid(0))((ME, "x", os.geteuid(), os.getegid(), "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {f"LAB\\{ME}": account, ME: account}.__getitem__)
    two = [{"user": ME, "token": OTHER_TOKEN, "server": ZETTA}, {"user": f"LAB\\{ME}", "token": NEW_TOKEN}][::order]
    result = run(tokens=two)
    assert [user["user"] for user in result["users"]] == [entry["user"] for entry in two]
    assert token_in(secrets_of(home) / DEFAULT_FILE) == NEW_TOKEN
    assert not run(tokens=two)["changed"]


def test_two_accounts_that_share_a_folder_of_secrets_files_cannot_have_two_tokens(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run would write the one, and then the other; what is below each one's home is each one's own."""
    mine = type(pwd.getpwuid(0))((ME, "x", os.geteuid(), os.getegid(), "", str(home), "/bin/sh"))
    other = type(mine)(("other", *mine[1:5], str(tmp_path / "other"), "/bin/sh"))
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(pwd, "getpwnam", {"other": other, ME: mine}.__getitem__)
    two = [{"user": ME, "token": OLD_TOKEN}, {"user": "other", "token": NEW_TOKEN}, {"user": "gone", "state": "absent"}]
    shared = str(tmp_path / "shared")
    error = refused(tokens=two, secrets_dir=shared)
    assert f"{ME} and other share {shared}. Keep one of them." in error.message
    assert not (tmp_path / "shared").exists()
    one = [{**entry, "token": NEW_TOKEN} for entry in two[:2]]
    assert run(tokens=one, secrets_dir=shared)["changed"]
    assert run(tokens=two, secrets_dir="~/mine")["changed"]


def test_entries_of_servers_that_share_a_local_server_may_not_differ_there(home: Path) -> None:
    shared = [{"name": "mouse", "local_server": "https://local.lab.example"}]
    entries = [
        {"token": NEW_TOKEN, "datastacks": shared},
        {"token": OTHER_TOKEN, "server": ZETTA, "datastacks": [{**shared[0], "name": "fly"}]},
        {"token": OTHER_TOKEN, "server": "https://cave.lab.example"},
    ]
    error = refused(tokens=entries)
    assert "Entries 1 and 2 of tokens contradict each other about what local.lab.example-cave-secret.json" in (
        error.message
    )
    assert [user.get("failed", False) for user in error.details["users"]] == [True, True, False]
    assert token_in(secrets_of(home) / "cave.lab.example-cave-secret.json") == OTHER_TOKEN
    assert not (secrets_of(home) / SERVER_FILE).exists()


def test_an_entry_that_says_the_same_twice_is_no_contradiction() -> None:
    assert run(tokens=[{"token": NEW_TOKEN}, {"token": f"{NEW_TOKEN} "}])["changed"]
    assert not run(tokens=[{"token": NEW_TOKEN}, {"token": f"{NEW_TOKEN} "}])["changed"]


def test_one_entry_that_fails_stops_no_other_and_is_named(home: Path) -> None:
    error = refused(tokens=[{"user": "nobody-of-that-name", "token": NEW_TOKEN}, {"token": NEW_TOKEN}, {"token": 7}])
    assert error.message.startswith("2 of 3 tokens are not in place. nobody-of-that-name: This host has no user")
    assert [user.get("failed", False) for user in error.details["users"]] == [True, False, True]
    assert error.details["changed"]
    assert token_in(secrets_of(home) / SERVER_FILE) == NEW_TOKEN


# Proof first -----------------------------------------------------------------------------------------------------


def test_a_token_is_proven_for_its_datastacks_before_it_is_written(answering: Callable[..., list[Question]]) -> None:
    asked = answering("ok")
    result = run(token=f"{NEW_TOKEN} ", datastacks=["minnie65_public"], validate=True)
    assert asked == [Question(SERVER, NEW_TOKEN, ("minnie65_public",))]
    assert result["users"][0]["access"]["verdict"] == "ok"


def test_a_token_is_proven_when_nothing_has_to_be_written_too(answering: Callable[..., list[Question]]) -> None:
    run(token=NEW_TOKEN)
    asked = answering("invalid_token")
    assert "It is so. Nothing was written. Do this." in refused(token=NEW_TOKEN, validate=True).message
    assert len(asked) == 1


@pytest.mark.parametrize("verdict", ["invalid_token", "missing_tos", "missing_permission", "not_a_cave_server"])
def test_a_rejected_token_leaves_the_file_untouched(
    verdict: str, home: Path, answering: Callable[..., list[Question]]
) -> None:
    fill(home, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    before = picture(home, besides=())
    answering(verdict)
    error = refused(token=NEW_TOKEN, validate=True)
    assert picture(home, besides=()) == before
    assert "validate: false" not in error.message
    user = error.details["users"][0]
    assert user["access"]["verdict"] == verdict
    assert "fingerprint" not in user, "that is the token which caveclient sends"


@pytest.mark.parametrize("verdict", ["unreachable", "tls_error"])
def test_a_server_that_cannot_be_asked_names_the_way_around(
    verdict: str, home: Path, answering: Callable[..., list[Question]]
) -> None:
    answering(verdict)
    assert "set validate: false" in refused(token=NEW_TOKEN, validate=True).message
    assert picture(home) == {}


def test_only_what_can_be_written_is_proven(answering: Callable[..., list[Question]]) -> None:
    asked = answering("ok")
    refused(tokens=[{"token": 7}, {"token": NEW_TOKEN}, {"token": OTHER_TOKEN}], validate=True)
    assert run(state="absent", validate=True)["changed"] is False
    assert asked == []


def test_a_failure_shows_no_token_even_if_an_error_holds_it(answering: Callable[..., list[Question]]) -> None:
    answering("server_error", message=f"The server said: {NEW_TOKEN}.")
    error = refused(token=NEW_TOKEN, validate=True)
    assert NEW_TOKEN not in error.message
    assert fingerprint(NEW_TOKEN) in error.message


# Whose token it is -------------------------------------------------------------------------------------------------

ACCOUNTS = {NEW_TOKEN: "alice@lab.example", OTHER_TOKEN: "bob@lab.example"}


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the server know whose the tokens are, but for one that is dead; return the tokens that it was asked about."""
    asked: list[str] = []

    def prove(questions: Iterable[Question], **_limits: Any) -> dict[Question, Access]:
        found = {}
        for question in questions:
            asked.append(question.token)
            mail = ACCOUNTS.get(question.token)
            person = Person(1, "", mail) if mail else None
            verdict = Verdict("ok" if mail else "invalid_token", "It is so.", "", question.server, person=person)
            found[question] = Access(verdict)
        return found

    monkeypatch.setattr(_probe, "prove", prove)
    return asked


def test_the_token_of_another_account_is_refused(home: Path, accounts: list[str]) -> None:
    error = refused(token=OTHER_TOKEN, person="alice@lab.example", validate=True)
    assert "The token is of bob@lab.example, not of alice@lab.example. Nothing was written." in error.message
    assert picture(home) == {}
    result = run(tokens=[{"token": NEW_TOKEN, "person": "Alice@Lab.example"}], validate=True)
    assert result["users"][0]["account"] == "alice@lab.example"
    assert "warnings" not in result["users"][0]


def test_whose_a_token_is_needs_the_server(home: Path) -> None:
    assert "Set validate: true, or leave out person" in refused(token=NEW_TOKEN, person="alice@lab.example").message
    assert picture(home) == {}


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_token_of_another_account_than_the_last_one_is_a_warning(
    check_mode: bool, home: Path, accounts: list[str]
) -> None:
    fill(home, {DEFAULT_FILE: {"token": OTHER_TOKEN}})
    result = run(check_mode, token=NEW_TOKEN, validate=True)
    (user,) = result["users"]
    assert (user["account"], user["previous_account"]) == ("alice@lab.example", "bob@lab.example")
    assert "is of alice@lab.example; the one that it replaced was of bob@lab.example" in user["warnings"][0]
    assert OTHER_TOKEN not in json.dumps(result)


def test_of_a_dead_token_nobody_knows_whose_it_was(home: Path, accounts: list[str]) -> None:
    fill(home, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    result = run(token=NEW_TOKEN, validate=True)
    assert result["users"][0]["previous_account"] is None
    assert "warnings" not in result["users"][0]


def test_the_old_token_is_not_used_where_the_person_is_named(home: Path, accounts: list[str]) -> None:
    fill(home, {DEFAULT_FILE: {"token": OTHER_TOKEN}})
    run(token=NEW_TOKEN, person="alice@lab.example", validate=True)
    assert accounts == [NEW_TOKEN]


def test_one_token_for_two_users_is_a_warning(home: Path, accounts: list[str]) -> None:
    entries = [{"token": NEW_TOKEN}, {"user": "nobody-of-that-name", "token": NEW_TOKEN}]
    error = refused(tokens=entries, validate=True)
    (message,) = {message for user in error.details["users"] for message in user["warnings"]}
    assert f"{ME} and nobody-of-that-name have one token for {SERVER}" in message
    assert "which is of alice@lab.example" in message


# Results ---------------------------------------------------------------------------------------------------------


def test_the_diff_is_headed_by_user_and_server() -> None:
    (diff,) = run(token=NEW_TOKEN)["diff"]
    assert diff["before_header"] == diff["after_header"] == f"{ME}, {SERVER}"
    assert diff["before"] == ""
    assert fingerprint(NEW_TOKEN) in diff["after"]
