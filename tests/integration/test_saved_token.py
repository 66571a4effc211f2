# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""saved_token as a process, for its own user and, as root, for real users of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_run import ansible
from homes import (
    DEFAULT_FILE,
    LOCAL_FILE,
    LOCAL_HOST,
    NEW_TOKEN,
    OLD_TOKEN,
    OTHER_TOKEN,
    SERVER,
    SERVER_FILE,
    User,
    fill,
    picture,
    real_group,
    real_user,
    secrets_of,
    token_in,
)
from module_runner import Outcome, command, module_input, python_for_all, run_module

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

root = pytest.mark.root
TOKENS = (OLD_TOKEN, NEW_TOKEN, OTHER_TOKEN)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="homes-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def lab() -> Iterator[str]:
    """A group of this machine, after which no user is named."""
    with real_group() as name:
        yield name


@pytest.fixture
def add_user(folder: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], User]]:
    """`add_user("alice")`: a real user of this machine, gone after the test."""
    group = request.getfixturevalue("lab")
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(real_user(group, folder, name))


@dataclass
class Host:
    """A host with one user, and the module run for this user."""

    home: Path
    user: User | None
    """None: whoever runs the tests."""
    umask: int
    secrets: list[str] = field(default_factory=lambda: list(TOKENS))
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The secrets directory."""
        return secrets_of(self.home)

    def fill(self, files: dict[str, Any]) -> Path:
        """Put files into the secrets directory, as the user's."""
        return self.user.fill(files) if self.user else fill(self.home, files)

    def own(self, path: Path) -> Path:
        """Give a path to the user."""
        if self.user:
            os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)
        return path

    def run(self, check: bool = False, **options: Any) -> Outcome:
        """Run the module, and look for tokens in what it prints."""
        arguments = {"validate": False, **options}
        if "tokens" not in options:
            arguments = {"datastacks": ["minnie65_public"], **arguments}
            if self.user:
                arguments = {"user": self.user.name, **arguments}
        home = Path("/root") if self.user else self.home
        outcome = run_module(
            "saved_token", arguments, home, check=check, umask=self.umask, environment=self.environment
        )
        assert not [token for token in self.secrets if token in outcome.output]
        return outcome

    def save(self, **options: Any) -> dict[str, Any]:
        """Predict, save, and save again; return the first user's result."""
        before = picture(self.home)
        predicted = self.run(check=True, **options)
        assert picture(self.home) == before, "check mode changes nothing"
        done = self.run(**options)
        assert done.ok, done.message
        assert {key: done.result[key] for key in ("changed", "users", "diff")} == {
            key: predicted.result[key] for key in ("changed", "users", "diff")
        }, "check mode predicts"
        again = self.run(**options)
        assert again.ok, again.message
        assert not again.result["changed"], "a second run changes nothing"
        assert picture(self.home) != before or not done.result["changed"]
        found: dict[str, Any] = done.result["users"][0]
        return found

    def refuse(self, **options: Any) -> str:
        """Fail, in check mode and for real, and leave every file as it is; return the message."""
        before = picture(self.home.parent, besides=())
        predicted = self.run(check=True, **options)
        done = self.run(**options)
        assert not done.ok
        assert not done.result["changed"]
        assert picture(self.home.parent, besides=()) == before, "every file is as before"
        assert predicted.message == done.message, "check mode predicts"
        assert "Unexpected" not in done.message
        assert "Traceback" not in done.output
        return done.message


@pytest.fixture(
    params=[
        pytest.param((False, 0o022), id="own-user"),
        pytest.param((True, 0o022), id="root-for-alice", marks=root),
        pytest.param((True, 0o077), id="root-for-alice-umask-077", marks=root),
    ]
)
def host(request: pytest.FixtureRequest, folder: Path) -> Host:
    """A host, once for each way to serve its user."""
    is_other, umask = request.param
    if is_other:
        user = request.getfixturevalue("add_user")("alice")
        return Host(user.home, user, umask)
    home = folder / "home"
    home.mkdir()
    return Host(home, None, umask)


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {Path(item["path"]).name: item["action"] for item in result["files"]}


# What is done --------------------------------------------------------------------------------------------------------


def test_from_nothing_a_user_gets_all_files_and_owns_them(host: Host) -> None:
    result = host.save(token=NEW_TOKEN)
    assert result["fingerprint"] == fingerprint(NEW_TOKEN)
    assert set(result["readers"].values()) == {fingerprint(NEW_TOKEN)}
    owner = (host.user.uid, host.user.gid) if host.user else (os.geteuid(), os.getegid())
    for path, (kind, mode, uid, gid, _content) in picture(host.home, besides=()).items():
        assert (mode, uid, gid) == (0o700 if kind == "d" else 0o600, *owner), path
    for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE):
        assert token_in(host.directory / name) == NEW_TOKEN


@root
@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", ["", SERVER_FILE])
def test_what_not_even_root_may_replace_is_named_before_anything_is_written(
    flag: str, name: str, add_user: Callable[[str], User]
) -> None:
    alice = add_user("alice")
    host = Host(alice.home, alice, 0o022)
    marked = host.fill({DEFAULT_FILE: {"token": OLD_TOKEN}, SERVER_FILE: {"token": OLD_TOKEN}}) / name
    if subprocess.run(["chattr", f"+{flag}", marked], capture_output=True, check=False).returncode:
        pytest.skip("the file system of the test's folder has no such marks")
    try:
        message = host.refuse(token=NEW_TOKEN)
    finally:
        subprocess.run(["chattr", f"-{flag}", marked], check=True)
    assert f"{marked} is marked immutable. Allow changes (sudo chattr -ia {marked})" in message
    assert host.run(token=NEW_TOKEN).ok


@root
@pytest.mark.parametrize("name", ["", SERVER_FILE])
def test_a_file_that_others_may_read_and_nobody_change_stands_in_no_ones_way_without_a_token_to_remove(
    name: str, add_user: Callable[[str], User]
) -> None:
    alice = add_user("alice")
    host = Host(alice.home, alice, 0o022)
    directory = host.fill({SERVER_FILE: {"token": OLD_TOKEN}})
    (directory / SERVER_FILE).chmod(0o644)
    directory.chmod(0o755)
    if subprocess.run(["chattr", "+i", directory / name], capture_output=True, check=False).returncode:
        pytest.skip("the file system of the test's folder has no such marks")
    try:
        nothing_to_remove = host.save(state="absent", key="banc")
        message = host.refuse(state="absent")
    finally:
        subprocess.run(["chattr", "-i", directory / name], check=True)
    assert nothing_to_remove["changed"] is (name == SERVER_FILE)  # the directory is closed to others
    assert f"{directory / name} is marked immutable. Allow changes (sudo chattr -ia {directory / name})" in message


@root
def test_the_user_can_read_and_change_the_files_and_others_cannot(add_user: Callable[[str], User]) -> None:
    alice, bob = add_user("alice"), add_user("bob")
    outcome = run_module("saved_token", {"user": alice.name, "token": NEW_TOKEN, "validate": False}, Path("/root"))
    assert outcome.ok, outcome.message
    path = str(alice.secrets / DEFAULT_FILE)
    assert NEW_TOKEN in alice.run("cat", path).stdout
    assert alice.run("touch", path).returncode == 0
    assert "Permission denied" in bob.run("cat", path).stderr


def test_a_new_token_replaces_the_old_one_and_keeps_the_rest_byte_for_byte(host: Host) -> None:
    text = '{ "brain_and_nerve_cord":"%s",\r\n\t"token" : "%s" }\n\n'
    host.fill({DEFAULT_FILE: text % (OTHER_TOKEN, OLD_TOKEN), "google-secret.json": "not ours", "notes": OLD_TOKEN})
    result = host.save(token=f"  {NEW_TOKEN}\n")
    assert result["previous_fingerprint"] == fingerprint(OLD_TOKEN)
    assert (host.directory / DEFAULT_FILE).read_bytes() == (text % (OTHER_TOKEN, NEW_TOKEN)).encode()
    assert token_in(host.directory / SERVER_FILE, "brain_and_nerve_cord") == OTHER_TOKEN
    assert (host.directory / "google-secret.json").read_text() == "not ours"


@root
def test_files_that_root_left_in_a_home_are_given_back(add_user: Callable[[str], User]) -> None:
    alice = add_user("alice")
    path = alice.fill({DEFAULT_FILE: {"token": OLD_TOKEN}}) / DEFAULT_FILE
    os.chown(path, 0, 0)
    path.chmod(0o644)
    host = Host(alice.home, alice, 0o022)
    assert "user id 0" in str(host.save(token=NEW_TOKEN, state="present")["files"]) or path.stat().st_uid == alice.uid
    assert path.stat().st_uid == alice.uid


@root
def test_a_file_that_is_only_roots_is_named_and_left(add_user: Callable[[str], User]) -> None:
    alice = add_user("alice")
    path = alice.fill({DEFAULT_FILE: {"token": OLD_TOKEN}}) / DEFAULT_FILE
    os.chown(path, 0, 0)
    message = Host(alice.home, alice, 0o022).refuse(token=NEW_TOKEN, on_malformed="replace")
    assert f"{path} cannot be read by its user" in message
    assert f"Give the file to {alice.name}" in message


@pytest.mark.parametrize("way", ["option", "startup-file", "environment"])
def test_cloud_volume_dir_is_served_however_it_is_set(way: str, host: Host) -> None:
    elsewhere = host.home / "data"
    options: dict[str, Any] = {}
    elsewhere.mkdir()
    host.own(elsewhere)
    if way == "option":
        options["cloud_volume_dir"] = "~/data/"
    elif way == "startup-file":
        (host.home / ".bashrc").write_text('# mine\nexport CLOUD_VOLUME_DIR="$HOME/data"\n')
    else:
        host.environment["CLOUD_VOLUME_DIR"] = str(elsewhere)
    host.save(token=NEW_TOKEN, **options)
    assert token_in(elsewhere / "secrets" / LOCAL_FILE) == NEW_TOKEN
    assert token_in(host.directory / SERVER_FILE) == NEW_TOKEN


@root
def test_a_group_shares_the_files_on_purpose(add_user: Callable[[str], User], lab: str) -> None:
    alice, bob = add_user("alice"), add_user("bob")
    host = Host(alice.home, alice, 0o022)
    host.save(token=NEW_TOKEN, group=lab, mode="0640")
    assert NEW_TOKEN in bob.run("cat", str(alice.secrets / DEFAULT_FILE)).stdout
    assert "Permission denied" in bob.run("touch", str(alice.secrets / "x")).stderr
    host.save(token=NEW_TOKEN)
    assert "Permission denied" in bob.run("cat", str(alice.secrets / DEFAULT_FILE)).stderr


@root
def test_a_group_without_the_user_is_refused(add_user: Callable[[str], User]) -> None:
    alice = add_user("alice")
    message = Host(alice.home, alice, 0o022).refuse(token=NEW_TOKEN, group="root", mode="0640")
    assert f"{alice.name} is not a member of the group" in message


@root
def test_many_users_are_served_in_one_task_and_one_failure_stops_no_other(add_user: Callable[[str], User]) -> None:
    users = [add_user(f"user{number}") for number in range(5)]
    shutil.rmtree(users[2].home)
    entries = [{"user": user.name, "token": f"{NEW_TOKEN}{number}"} for number, user in enumerate(users)]
    arguments = {"tokens": entries, "validate": False}
    predicted = run_module("saved_token", arguments, Path("/root"), check=True)
    outcome = run_module("saved_token", arguments, Path("/root"))
    users[2].home.mkdir()
    assert not outcome.ok
    assert outcome.message == predicted.message
    assert outcome.message.startswith(f"1 of 5 tokens are not in place. {users[2].name}: The home directory of")
    assert [user["changed"] for user in outcome.result["users"]] == [True, True, False, True, True]
    for number, user in enumerate(users):
        if number != 2:
            assert token_in(user.secrets / DEFAULT_FILE) == f"{NEW_TOKEN}{number}"
            assert user.secrets.owner() == user.name
    assert NEW_TOKEN not in outcome.output


def test_an_empty_name_is_not_the_user_that_the_task_runs_as(host: Host) -> None:
    assert "The user's name is empty" in host.refuse(user="", token=NEW_TOKEN)
    assert "The user's name is empty" in host.refuse(tokens=[{"user": "", "token": NEW_TOKEN}])


@root
def test_an_ordinary_user_serves_itself_alone(add_user: Callable[[str], User]) -> None:
    if python_for_all() is None:
        pytest.skip("no Python here that another user may run")
    alice, bob = add_user("alice"), add_user("bob")
    arguments = {"token": NEW_TOKEN, "validate": False}
    outcome = run_module("saved_token", arguments, alice.home, user=alice)
    assert outcome.ok, outcome.message
    assert outcome.result["users"][0]["user"] == alice.name
    assert token_in(alice.secrets / SERVER_FILE) == NEW_TOKEN
    assert alice.secrets.owner() == alice.name
    outcome = run_module("saved_token", {**arguments, "user": bob.name}, alice.home, user=alice)
    assert f"Running as {alice.name}, which cannot work for {bob.name}. Run the task as root" in outcome.message
    assert picture(bob.home) == {}


# Bad input -----------------------------------------------------------------------------------------------------------

BAD_TOKENS = {
    "empty": ("", "The token is empty"),
    "placeholder": ("YOUR_TOKEN_HERE", "placeholder"),
    "integer": (12345678901234567890, "Put the token in quotes"),
    "float": (1.2345e30, "Put the token in quotes"),
    "vault-string": ("$ANSIBLE_VAULT;1.1;AES256\n63616665\n", "not decrypted"),
    "vault-mapping": ({"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n63616665\n"}, "not decrypted"),
    "inner-space": (f"{NEW_TOKEN[:16]} {NEW_TOKEN[16:]}", "white space inside"),
    "inner-newline": (f"{NEW_TOKEN[:16]}\n{NEW_TOKEN[16:]}", "white space inside"),
    "10-kB": (NEW_TOKEN * 320, "10240 characters"),
    "control-character": (f"{NEW_TOKEN}\x00", "character"),
    "template": ("{{ vault_cave_token_alice }}", "template"),
}


@root
@pytest.mark.parametrize("how", ["rw", "ro"])
def test_a_file_that_is_mounted_by_itself_is_named_before_anything_is_written(folder: Path, how: str) -> None:
    """As a container gets it: it can be read, and perhaps written, but never replaced."""
    home = folder / "home"
    directory = fill(home, {name: {"token": OLD_TOKEN} for name in (DEFAULT_FILE, SERVER_FILE)})
    outside = folder / "my secret"
    outside.write_text(json.dumps({"token": OLD_TOKEN}))
    before = picture(home)
    script = f"mount --bind '{outside}' '{directory / DEFAULT_FILE}' && "
    script += f"mount -o remount,bind,{how} '{directory / DEFAULT_FILE}' && exec \"$@\""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command("saved_token")],
        input=module_input({"token": NEW_TOKEN, "validate": False}),
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = json.loads(done.stdout)
    assert "cave-secret.json: it is a mount of its own" in said["msg"], said
    assert picture(home) == before


@root
@pytest.mark.parametrize("name", [".cloudvolume", ".cloudvolume/secrets"])
def test_a_link_to_another_users_directory_is_refused(name: str, add_user: Callable[[str], User]) -> None:
    alice, bob = add_user("alice"), add_user("bob")
    bob.fill({DEFAULT_FILE: {"token": OLD_TOKEN}})
    bob.secrets.parent.chmod(0o777)
    bob.secrets.chmod(0o777)
    (alice.home / name).parent.mkdir(exist_ok=True)
    (alice.home / name).symlink_to(bob.home / name)
    alice.owns(alice.home)
    message = Host(alice.home, alice, 0o022).refuse(token=NEW_TOKEN)
    assert (
        f"{alice.secrets} leads (through a symbolic link) to a directory that belongs to user id {bob.uid}" in message
    )
    assert "Remove the link" in message


@root
def test_a_link_to_roots_files_reaches_nothing(add_user: Callable[[str], User], folder: Path) -> None:
    alice = add_user("alice")
    precious = folder / "precious"
    precious.write_text(json.dumps({"token": OLD_TOKEN}))
    precious.chmod(0o600)
    alice.fill({})
    (alice.secrets / DEFAULT_FILE).symlink_to(precious)
    alice.owns(alice.home)
    host = Host(alice.home, alice, 0o022)
    assert f"{alice.secrets / DEFAULT_FILE} is a symbolic link (to '{precious}')" in host.refuse(token=NEW_TOKEN)
    host.save(token=NEW_TOKEN, on_malformed="replace")
    assert (precious.read_text(), precious.owner()) == (json.dumps({"token": OLD_TOKEN}), "root")
    assert fingerprint(OLD_TOKEN) not in str(host.run(token=NEW_TOKEN).result)


@root
@pytest.mark.parametrize("mode", [0o500, 0o000])
@pytest.mark.parametrize("name", ["", ".cloudvolume", ".cloudvolume/secrets"])
def test_a_directory_that_the_user_may_not_write_is_named(
    name: str, mode: int, add_user: Callable[[str], User]
) -> None:
    alice = add_user("alice")
    if name:
        (alice.home / name).mkdir(parents=True)
        alice.owns(alice.home)
    (alice.home / name).chmod(mode)
    message = Host(alice.home, alice, 0o022).refuse(token=NEW_TOKEN)
    assert str(alice.home / name) in message
    assert "chmod u+rwx" in message


# Proof first ---------------------------------------------------------------------------------------------------------


def test_a_good_token_is_proven_and_saved_in_one_task(host: Host, cave: CaveServer) -> None:
    cave.serve("minnie65_public", f"https://{LOCAL_HOST}")
    alice = cave.add_person("alice", permissions=["minnie65_public"], accepted_tos=True)
    host.secrets.append(alice.token)
    result = host.save(token=f" {alice.token}\n", server=cave.url, validate=True)
    assert result["access"]["verdict"] == "ok"
    assert result["access"]["person"]["email"] == alice.email
    assert result["access"]["fingerprint"] == result["fingerprint"] == fingerprint(alice.token)
    record = "/info/api/v2/datastack/full/minnie65_public"  # names the local server, which no table can know here
    assert {request["path"] for request in cave.requests()} == {"/auth/api/v1/user/cache", record}
    assert token_in(host.directory / LOCAL_FILE) == alice.token

    result = host.save(state="absent", server=cave.url, validate=True)
    assert not (host.directory / LOCAL_FILE).exists(), "the record is asked before the token is gone"
    assert "stale" not in actions(result).values()


def test_a_token_that_the_server_refuses_leaves_the_file_untouched(host: Host, cave: CaveServer) -> None:
    alice = cave.add_person("alice", permissions=["minnie65_public"], accepted_tos=True)
    host.secrets.append(alice.token)
    host.save(token=alice.token, server=cave.url, validate=True)
    message = host.refuse(token=NEW_TOKEN, server=cave.url, validate=True)
    assert "Nothing was written." in message
    assert cave.url in message
    cave.revoke(alice.token)
    assert "Nothing was written." in host.refuse(token=alice.token, server=cave.url, validate=True)


# With the real ansible-playbook --------------------------------------------------------------------------------------


def playbook(folder: Path, *tasks: dict[str, Any]) -> Path:
    """Write a playbook in which every task's failure is caught, and its message printed."""
    blocks = [
        {
            "block": [{"name": f"Case {number}", "connectomics.cave.saved_token": task, "register": "it"}],
            "rescue": [{"ansible.builtin.debug": {"msg": "refused: {{ ansible_failed_result.msg }}"}}],
        }
        for number, task in enumerate(tasks)
    ]
    path = folder / "playbook.yml"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": blocks}]))
    return path


@pytest.mark.parametrize("arguments", [["-vvvv", "--diff"], ["-vvvv", "--diff", "--check"]], ids=["real", "check"])
def test_no_output_of_ansible_shows_a_token(arguments: list[str], tmp_path: Path, cave: CaveServer) -> None:
    directory = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, SERVER_FILE: f'{{"token": "{OLD_TOKEN}'})
    before = picture(directory, besides=())
    local = {"validate": False, "datastacks": ["minnie65_public"]}
    refusals: list[dict[str, Any]] = [
        {**local, "token": NEW_TOKEN},
        {"token": NEW_TOKEN, "server": cave.url},
        {**local, "token": f"{NEW_TOKEN} {OTHER_TOKEN}"},
        {**local, "tokens": [{"token": NEW_TOKEN}, {"token": OTHER_TOKEN}]},
        {**local, "tokens": [{"tokne": NEW_TOKEN}]},
        {**local, "tokne": NEW_TOKEN},
        {**local, "tokens": {"alice": NEW_TOKEN}},
        {**local, "tokens": NEW_TOKEN},
        {**local, "token": NEW_TOKEN, "state": "gone"},
        {**local, "token": NEW_TOKEN, "mode": "0644"},
        {**local, "token": NEW_TOKEN, "user": "nobody-of-that-name"},
        *({**local, "token": BAD_TOKENS[name][0]} for name in ("integer", "vault-string", "10-kB")),
    ]
    done = ansible(tmp_path, "playbook", *arguments, str(playbook(tmp_path, *refusals)))
    assert done.status == 0, done.output
    assert done.output.count('"msg": "refused: ') == len(refusals), done.output
    assert not [token for token in TOKENS if token in done.output]
    assert "output has been hidden" not in done.output
    for reason in (
        "is not JSON (at line 1 column 11)",
        "contradict each other",
        "tokne. Supported",
        "white space inside",
    ):
        assert reason in done.output
    assert picture(directory, besides=()) == before

    changes: list[dict[str, Any]] = [
        {**local, "token": NEW_TOKEN, "on_malformed": "replace"},
        {**local, "token": OTHER_TOKEN, "on_malformed": "replace"},
        {**local, "state": "absent", "on_malformed": "replace"},
    ]
    done = ansible(tmp_path, "playbook", *arguments, str(playbook(tmp_path, *changes)))
    assert done.status == 0, done.output
    assert not [token for token in TOKENS if token in done.output]
    assert fingerprint(NEW_TOKEN) in done.output
    assert "changed=3" in done.output


def test_a_vault_string_that_cannot_be_decrypted_changes_nothing(tmp_path: Path) -> None:
    directory = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    before = picture(directory, besides=())
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    made = ansible(
        tmp_path, "vault", "encrypt_string", "--vault-password-file", str(secret), "--stdin-name", "t", stdin=NEW_TOKEN
    )
    assert made.ok, made.output
    encrypted = made.output[made.output.index("t: !vault") :]
    encrypted = "\n".join(line for line in encrypted.splitlines() if line.startswith(("t:", "    "))) + "\n"
    (tmp_path / "vars.yml").write_text(encrypted)
    path = playbook(tmp_path, {"token": "{{ t }}", "validate": False})
    done = ansible(tmp_path, "playbook", "-vvvv", "-e", f"@{tmp_path}/vars.yml", str(path))
    assert "vault" in done.output.lower()
    assert not [token for token in TOKENS if token in done.output]
    assert picture(directory, besides=()) == before
    done = ansible(tmp_path, "playbook", "-e", f"@{tmp_path}/vars.yml", "--vault-password-file", str(secret), str(path))
    assert "changed=1" in done.output
    assert token_in(directory / DEFAULT_FILE) == NEW_TOKEN


def test_the_action_group_sets_defaults(tmp_path: Path) -> None:
    path = tmp_path / "playbook.yml"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {"group/connectomics.cave.cave": {"server": "https://other.example.org"}},
        "tasks": [{"connectomics.cave.saved_token": {"token": NEW_TOKEN, "validate": False}}],
    }
    path.write_text(json.dumps([play]))
    done = ansible(tmp_path, "playbook", str(path))
    assert done.ok, done.output
    assert token_in(secrets_of(tmp_path) / "other.example.org-cave-secret.json") == NEW_TOKEN
    assert not (secrets_of(tmp_path) / f"{LOCAL_HOST}-cave-secret.json").exists()
    assert SERVER not in done.output
