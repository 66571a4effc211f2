# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom saved_token_info looks at, and for which server; what it finds is tried as a process elsewhere."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from homes import DEFAULT_FILE, NEW_TOKEN, OLD_TOKEN, fill

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import saved_token_info as _saved_token_info
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

SERVER = "https://global.daf-apis.com"
DEFAULTS: dict[str, Any] = {
    "users": None,
    "expected": None,
    "server": SERVER,
    "datastacks": [],
    "key": "token",
    "validate": False,
    "path": "/nonexistent",
    "secrets_dir": None,
    "cloud_volume_dir": "",
    "mode": "0600",
    "ca_path": None,
    "timeout": 5,
    "retries": 0,
}


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
    monkeypatch.setattr(_saved_token_info, "_accounts", lambda: list(names))
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


@pytest.mark.usefixtures("people")
def test_someone_without_an_account_is_wrong_unless_nothing_should_be_there() -> None:
    [missing] = look(users=["mallory"])
    assert missing["failed"] is True
    [gone] = look(users=["mallory"], expected=[{"user": "mallory", "state": "absent"}])
    assert "failed" not in gone
    assert gone["expected"] == {"fingerprint": None, "matches": True}


def test_homes_of_a_directory_service_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "unlisted").mkdir()
    listed = account("listed", tmp_path / "listed", 1500)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwall", lambda: [listed])
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account(f"user{uid}", tmp_path / "unlisted", uid))
    owner = (tmp_path / "unlisted").stat().st_uid
    assert _saved_token_info._accounts()[:1] == ["listed"]
    assert f"user{owner}" in _saved_token_info._accounts()


def test_an_ordinary_user_finds_no_one_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert _saved_token_info._accounts() == [pwd.getpwuid(65534).pw_name]


def test_the_file_that_sets_cloud_volume_dir_is_named_in_the_remedy(people: Path) -> None:
    home = people / "alice"
    fill(home, {DEFAULT_FILE: {"token": NEW_TOKEN}})
    (home / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/usr\n")
    shared = home / ".profile"
    shared.write_text("export CLOUD_VOLUME_DIR=/nowhere\n")
    [user] = look(users=["alice"], cloud_volume_dir=None)
    [problem] = user["problems"]
    assert problem["code"] == "cloud_volume_dir_split"
    assert "CLOUD_VOLUME_DIR is /" in problem["message"]
