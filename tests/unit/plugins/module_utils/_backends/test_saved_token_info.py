# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom saved_token_info looks at, and for which server; what it finds is tried as a process elsewhere."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from homes import DEFAULT_FILE, NEW_TOKEN, OLD_TOKEN, OTHER_TOKEN, fill
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import saved_token_info as _saved_token_info
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory

SERVER = "https://global.daf-apis.com"
DEFAULTS = arguments_of("saved_token_info", path="/nonexistent", cloud_volume_dir="", timeout=5, retries=0)


def account(name: str, home: Path, uid: int | None = None) -> pwd.struct_passwd:
    number = os.geteuid() if uid is None else uid
    return pwd.struct_passwd((name, "x", number, os.getegid(), "", str(home), "/bin/sh"))


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend users alice and bob, with homes in a folder, and a daemon without one."""
    names = {name: account(name, tmp_path / name) for name in ("alice", "bob", "daemon")}
    for name in ("alice", "bob"):
        (tmp_path / name).mkdir()

    def find(name: str) -> pwd.struct_passwd:
        if name not in names:
            raise CaveError(f"This host has no user {name!r}. Create it.", unknown_user=name)
        return names[name]

    monkeypatch.setattr(_users, "find_user", find)
    monkeypatch.setattr(_saved_token_info, "accounts_on_host", lambda _homes, **_where: dict(names))
    return tmp_path


def look(**options: Any) -> list[dict[str, Any]]:
    result = _saved_token_info.run({**DEFAULTS, **options})
    assert result["changed"] is False
    assert result["problems"] == sum(len(user.get("problems", [])) for user in result["users"])
    return list(result["users"])


def test_only_those_who_have_something_are_found(people: Path) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    assert [user["user"] for user in look()] == ["alice"]


def test_what_is_wrong_with_the_machine_is_not_told_of_everybody(people: Path) -> None:
    site = people / "opt" / "current" / "lib" / "python3.11" / "site-packages"
    (site / "caveclient-5.31.0.dist-info").mkdir(parents=True)
    assert look(path=str(people / "opt")) == []
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    [alice] = look(path=str(people / "opt"))
    assert [problem["code"] for problem in alice["problems"]] == ["known_bad_caveclient"]


def test_a_directory_that_hides_what_is_in_it_is_something(people: Path) -> None:
    (people / "alice" / ".cloudvolume" / "secrets").mkdir(parents=True, mode=0o755)
    (people / "alice" / ".cloudvolume" / "secrets").chmod(0o755)
    [alice] = look()
    assert [problem["code"] for problem in alice["problems"]] == ["loose_mode"]


def test_who_is_named_is_told_about_also_with_nothing(people: Path) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    [bob] = look(users=["bob"])
    assert (bob["user"], bob["fingerprint"], bob["files"], bob["problems"]) == ("bob", None, [], [])


def test_who_is_expected_to_have_a_token_is_looked_at_besides_those_found(people: Path) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    users = look(expected=[{"user": "bob", "token": OLD_TOKEN}])
    assert [(user["user"], [item["code"] for item in user["problems"]]) for user in users] == [
        ("alice", []),
        ("bob", ["unexpected_token"]),
    ]


@pytest.mark.parametrize(
    ("entry", "server"),
    [({}, SERVER), ({"server": "https://cave.example.org"}, "https://cave.example.org"), ({"key": "banc"}, SERVER)],
)
def test_an_entry_says_server_and_key(people: Path, entry: dict[str, Any], server: str) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN, "banc": OLD_TOKEN}})
    token = OLD_TOKEN if "key" in entry else NEW_TOKEN
    [user] = look(users=["alice"], expected=[{"user": "alice", "token": token, **entry}])
    assert user["server"] == server
    assert user["expected"] == {"fingerprint": fingerprint(token), "matches": True}


def test_datastacks_of_the_task_are_those_of_its_server_alone(people: Path) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    expected = [{"user": "alice"}, {"user": "alice", "server": "https://cave.example.org"}]
    stacks = [{"name": "mine", "local_server": "https://local.example.org"}]
    own, other = look(users=["alice"], datastacks=stacks, expected=expected)
    assert {reader["host"] for reader in own["readers"]} == {"global.daf-apis.com", "local.example.org"}
    assert {reader["host"] for reader in other["readers"]} == {"cave.example.org"}


@pytest.mark.parametrize("lacking", ["account", "home"])
def test_who_has_no_account_or_home_here_is_named_and_a_failure_only_where_a_home_is_due(
    lacking: str, people: Path
) -> None:
    name = "mallory" if lacking == "account" else "daemon"
    [stranger] = look(users=[name])
    assert (stranger["has_account"], "failed" in stranger, stranger["files"]) == (False, False, [])
    assert (name if lacking == "account" else str(people / name)) in stranger["msg"]
    [gone] = look(users=[name], expected=[{"user": name, "state": "absent"}])
    assert ("failed" in gone, gone["expected"]) == (False, {"fingerprint": None, "matches": True})
    [due] = look(users=[name], expected=[{"user": name, "token": NEW_TOKEN}])
    assert (due.get("failed", False), due["has_account"]) == (lacking == "home", False)


def test_every_place_with_a_token_is_listed_whatever_program_server_or_key_it_is_for(people: Path) -> None:
    home = people / "alice"
    files: dict[str, dict[str, Any]] = {
        ".cloudvolume/secrets/cave-secret.json": {"token": NEW_TOKEN, "banc": OLD_TOKEN},
        ".cloudvolume/secrets/proofreading.zetta.ai-cave-secret.json": {"token": OTHER_TOKEN},
        ".cloudvolume/secrets/chunkedgraph-secret.json": {"token": OLD_TOKEN},
        ".cloudvolume/secrets/cave-secret.json.malformed-1": {"token": OLD_TOKEN},
        ".cloudvolume/secrets/google-secret.json": {"type": "service_account", "private_key": "-- a key --"},
        ".neuroglancer/secrets/cave-secret.json": {"token": OLD_TOKEN},
        ".cloudfiles/secrets/cave-secret.json": {"token": OTHER_TOKEN},
        "cv/secrets/cave-secret.json": {"token": NEW_TOKEN},
        "mine/cave-secret.json": {"token": NEW_TOKEN, "list": []},
    }
    for name, content in files.items():
        (home / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(content))
    [user] = look(users=["alice"], secrets_dir="~/mine", cloud_volume_dir="~/cv")
    found = {
        (str(Path(file["path"]).relative_to(home)), key): mark
        for file in user["files"]
        for key, mark in file["fingerprints"].items()
        if mark
    }
    assert found == {
        (name, key): fingerprint(value)
        for name, content in files.items()
        for key, value in content.items()
        if str(value) in (NEW_TOKEN, OLD_TOKEN, OTHER_TOKEN)
    }
    assert user["unread"] == []


def test_one_installation_under_two_names_is_one_finding(people: Path) -> None:
    """conda links lib/python3.1 to lib/python3.11."""
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    library = people / "alice" / "miniconda3" / "lib"
    (library / "python3.11" / "site-packages" / "caveclient-5.31.0.dist-info").mkdir(parents=True)
    (library / "python3.1").symlink_to("python3.11")
    [alice] = look(users=["alice"])
    assert [(problem["code"], problem["path"]) for problem in alice["problems"]] == [
        ("known_bad_caveclient", str(library / "python3.11" / "site-packages"))
    ]


def test_a_folder_crowded_with_secrets_files_fails_its_user_alone(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_directory, "MOST_FILES", 3)
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    fill(people / "bob", {f"host{number}-cave-secret.json": {"token": OLD_TOKEN} for number in range(4)})
    alice, bob = look(users=["alice", "bob"])
    assert alice["fingerprint"] == fingerprint(NEW_TOKEN)
    assert bob["failed"] is True
    assert "holds 4 secrets files; expected at most 3" in bob["msg"]


@pytest.mark.usefixtures("people")
def test_an_empty_list_of_users_is_nobody() -> None:
    assert look(users=[], expected=[{"user": "alice", "token": NEW_TOKEN}]) == []


def test_files_of_an_account_that_is_gone_are_listed_under_the_user_id(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    (people / "alice" / ".cloudvolume" / "secrets").chmod(0o755)
    uid = str(os.geteuid())
    gone = pwd.struct_passwd((uid, "none", os.geteuid(), os.getegid(), "", str(people / "alice"), ""))
    monkeypatch.setattr(_saved_token_info, "accounts_on_host", lambda _homes, **_where: {uid: gone})
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    [user] = look()
    assert (user["user"], user["has_account"], user["fingerprint"]) == (uid, False, fingerprint(NEW_TOKEN))
    assert user["msg"] == f"The user id {uid} has no account on this host."


def test_a_folder_of_homes_that_does_not_answer_is_told(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(people / "alice", {DEFAULT_FILE: {"token": NEW_TOKEN}})
    alice = account("alice", people / "alice")
    silent = CaveError("/homes/gone did not answer within 5 s.")
    monkeypatch.setattr(
        _saved_token_info, "accounts_on_host", lambda _homes, **_where: {"alice": alice, "/homes/gone": silent}
    )
    first, second = look()
    assert first["fingerprint"] == fingerprint(NEW_TOKEN)
    assert (second["user"], second["failed"], second["msg"]) == ("/homes/gone", True, silent.message)


@pytest.mark.parametrize("hangs", [True, False])
def test_an_account_of_the_system_is_told_where_it_is_not_known_what_it_has(
    hangs: bool, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that hangs may hold a token; that root may not work as others says nothing of one of them."""
    service = account("service", people / "alice", uid=1)
    error = CaveError("The home did not answer.", **({"hangs": "/srv"} if hangs else {}))
    monkeypatch.setattr(_saved_token_info, "accounts_on_host", lambda _homes, **_where: {"service": service})
    monkeypatch.setattr(_saved_token_info, "inspect_each", lambda accounts, *_: dict.fromkeys(accounts, error))
    assert [(user["user"], user["failed"]) for user in look()] == [("service", True)] * hangs


def test_the_file_that_sets_cloud_volume_dir_is_named_in_the_remedy(people: Path) -> None:
    home = people / "alice"
    fill(home, {DEFAULT_FILE: {"token": NEW_TOKEN}})
    (home / ".profile").write_text("export CLOUD_VOLUME_DIR=/proc/self/nowhere\n")  # nobody can make a folder there
    [user] = look(users=["alice"], cloud_volume_dir=None)
    [problem] = user["problems"]
    assert problem["code"] == "cloud_volume_dir_split"
    assert "CLOUD_VOLUME_DIR is /" in problem["message"]
    assert problem["remedy"].endswith(f"unset CLOUD_VOLUME_DIR >> {home}/.profile'")
