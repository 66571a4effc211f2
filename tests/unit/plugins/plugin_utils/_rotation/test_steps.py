# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables say, how tokens pass from task to task, and what the hosts' results mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import hosts as _hosts
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.ansible_run import inventory_files
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import (
    Host,
    VaultFiles,
    inventory_of,
    read_host,
    variable_files,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Entry,
    Place,
    Request,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import (
    seal,
    seal_state,
    unseal,
    unseal_state,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import Settings, State

SERVER = "https://cave.example.org"
OLD, NEW = "a" * 32, "b" * 32
SECRETS = [("default", VaultSecret(b"correct horse"))]
OMIT = "__omit_place_holder__0123456789abcdef"


def read(entries: Any, **more: Any) -> Any:
    return read_host("ws1", {"caveclient_server": SERVER, "caveclient_tokens": entries, **more}, list)


# -- sealed ------------------------------------------------------------------------------------------------------------


def test_a_sealed_token_is_read_by_this_run_alone() -> None:
    sealed = seal(NEW)
    assert NEW not in sealed
    assert NEW not in seal_state({"token": NEW})
    assert unseal(sealed) == NEW
    assert unseal_state(seal_state({"token": NEW})) == {"token": NEW}
    program = (
        "import sys\nfrom ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import unseal\n"
        "sys.exit(unseal(sys.argv[1]) is not None)"
    )
    assert subprocess.run([sys.executable, "-c", program, sealed], check=False).returncode == 0


@pytest.mark.parametrize("text", ["", "x", "ünsealed", NEW])
def test_what_was_not_sealed_opens_nothing(text: str) -> None:
    assert unseal(text) is None


# -- the variables -----------------------------------------------------------------------------------------------------


def test_an_entry_keeps_what_is_its_own() -> None:
    own = {"server": "https://other.example.org", "datastacks": ["x"], "key": "banc", "person": "bob@example.org"}
    host = read([{"user": "alice", "token": f"{OLD}\n"}, {"user": "bob", "token": NEW, **own}], caveclient_mode="0640")
    first, second = host.held
    assert (first.entry, first.datastacks) == (
        Entry("ws1", 0, "alice", SERVER, "token", fingerprint(OLD)),
        ("minnie65_public",),
    )
    assert (second.own, second.datastacks) == ({"user": "bob", **own}, ("x",))
    assert host.settings == {"mode": "0640"}
    assert OLD not in repr(first)


def test_what_a_template_left_out_is_not_there() -> None:
    host = read([{"user": "alice", "token": OLD, "server": OMIT, "key": OMIT}, {"user": "bob", "token": OMIT}])
    assert [item.entry.server for item in host.held] == [SERVER]
    assert [user for user, _message in host.problems] == ["bob"]


@pytest.mark.parametrize(
    "wrong", ["x", {"user": "bob"}, {"user": "bob", "token": 5}, {"user": "bob", "token": ""}, {"token": OLD}]
)
def test_an_entry_that_cannot_be_used_is_its_own_trouble(wrong: Any) -> None:
    host = read([wrong, {"user": "alice", "token": OLD}])
    assert [item.entry.user for item in host.held] == ["alice"]
    assert len(host.problems) == 1


@pytest.mark.parametrize("wrong", ["text", {"user": "alice"}])
def test_a_variable_that_is_no_list_may_name_anybody(wrong: Any) -> None:
    inventory = inventory_of([read(wrong)])
    assert inventory.unknown == {"ws1": None}


def test_an_entry_that_is_to_be_absent_names_its_token_and_nothing_more() -> None:
    host = read([{"user": "alice", "token": OLD, "state": "absent"}, {"user": "bob", "state": "absent"}])
    assert [(item.entry.user, item.entry.absent) for item in host.held] == [("alice", True)]
    assert host.problems == ()


@pytest.mark.parametrize(
    "text", ["https://CAVE.example.org/", "https://cave.example.org:443", "http://cave.example.org"]
)
def test_however_a_server_is_spelled_the_value_is_the_same_token(text: str) -> None:
    spelled = read([{"user": "alice", "token": OLD, "server": text}], caveclient_server=text)
    plain = read([{"user": "alice", "token": f" {OLD}\n"}])
    assert [item.entry.token for item in spelled.held] == [item.entry.token for item in plain.held]


@pytest.mark.parametrize(
    "text", ["HTTPS://cave.example.org", "https://cäve.example.org", "cave.example.org", "https://c/x"]
)
def test_an_entry_of_a_server_that_cannot_be_one_keeps_its_users_tokens_alive(text: str) -> None:
    host = read([{"user": "alice", "token": OLD, "server": text}, {"user": "bob", "token": NEW}])
    assert inventory_of([host]).unknown == {"ws1": frozenset({"alice"})}
    assert inventory_of([read([{"user": "alice", "token": OLD}], caveclient_server=text)]).unknown == {"ws1": None}


# -- the vault ---------------------------------------------------------------------------------------------------------


def encrypted(name: str, token: str) -> str:
    lines = VaultLib().encrypt(token, SECRETS[0][1]).decode().splitlines()
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in lines)


def test_a_folder_that_is_a_link_is_searched_as_ansible_does(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (real / "vault.yml").write_text(encrypted("v", OLD))
    (real / "again").symlink_to(real)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all").symlink_to(real)
    assert [Path(path).name for path in variable_files([str(tmp_path)])] == ["vault.yml"]
    vault = VaultFiles([str(tmp_path)], [], [], SECRETS)
    assert vault.store([OLD], NEW) == [{"path": str(real / "vault.yml"), "name": "v"}]
    assert [name for _path, name in vault.places(NEW)] == [("v",)]


OTHER_ID = ("lab", VaultSecret(b"battery staple"))


def vaulted(text: str, secret: tuple[str, VaultSecret] = SECRETS[0]) -> str:
    return str(VaultLib().encrypt(text, secret[1], vault_id=None if secret is SECRETS[0] else secret[0]).decode())


@pytest.mark.parametrize(
    ("name", "text", "variables"),
    [
        ("group_vars/all.yml", f"v: {OLD}\n", [("v",)]),
        ("group_vars/all.yaml", f"v: '{OLD}'\r\nother: 1\r\n", [("v",)]),
        ("group_vars/all", f'v: "{OLD}"', [("v",)]),
        ("group_vars/lab.vienna", encrypted("v", f"{OLD}\n"), [("v",)]),
        ("host_vars/ws1.lab.example.org", encrypted("v", OLD), [("v",)]),
        ("host_vars/ws1.lab.example.org.yml", encrypted("v", f" {OLD}\r\n"), [("v",)]),
        ("host_vars/ws1/deep/er.yml", vaulted(f"---\nv: {OLD}\nw: {OLD}\n"), [("v",), ("w",)]),
        ("group_vars/all/tokens.json", vaulted(f'{{"v": "{OLD}", "n": 1}}'), [("v",)]),
        ("group_vars/all/vault.yml", vaulted(f"v: {{alice: {OLD}, bob: x}}\n", OTHER_ID), [("v", "alice")]),
        ("group_vars/all/vault.yml", f"v:\n  alice: {OLD}  # hers\n  bob: x\nw: {OLD}\n", [("v", "alice"), ("w",)]),
    ],
)
def test_a_token_is_replaced_in_every_form_in_which_a_file_of_variables_holds_it(
    tmp_path: Path, name: str, text: str, variables: list[tuple[str, ...]]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode())
    vault = VaultFiles([str(tmp_path)], [], [], [*SECRETS, OTHER_ID], "default", ["ws1.lab.example.org", "lab.vienna"])
    assert vault.fixed(OLD) == []
    vault.store([OLD], NEW)
    assert vault.places(OLD) == []
    assert [variable for _path, variable in vault.places(NEW)] == variables
    assert NEW not in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "caveclient_tokens:\n  - user: alice\n    token: TOKEN\n",
        "caveclient_tokens:\n  - {user: alice, token: 'TOKEN '}\nv: TOKEN\n",
        "v: &shared TOKEN\nw: *shared\n",
        "v: {a: {b: TOKEN}}\n",
        "v: TOKEN\nv: TOKEN\n",
        "base: &base\n  v: TOKEN\n<<: *base\n",
        'entries: \'[{"user": "alice", "token": "TOKEN"}]\'\n',
        "entries: >-\n  alice\n  TOKEN\n",
        encrypted("headers", f"Authorization: Bearer {OLD}"),
        "v:\n  - " + encrypted("t", OLD).replace("\n", "\n      "),
    ],
)
def test_a_place_in_which_a_token_cannot_be_replaced_is_told_before_one_is_made(tmp_path: Path, text: str) -> None:
    path = tmp_path / "group_vars" / "all.yml"
    path.parent.mkdir()
    path.write_text(text.replace("TOKEN", OLD))
    (reason,) = VaultFiles([str(tmp_path)], [], [], SECRETS).fixed(OLD)
    assert f"{path} holds" in reason
    assert "Give the token a variable of its own" in reason


def test_a_run_notices_that_another_one_has_changed_the_variables_and_not_what_it_stored_itself(tmp_path: Path) -> None:
    """Where another run is between two places, what the variables said is not who holds the newer token."""
    folder = tmp_path / "group_vars"
    folder.mkdir()
    (folder / "alice.yml").write_text(f"v: {OLD}\n")
    (folder / "bob.yml").write_text(encrypted("w", "c" * 32))
    vault = VaultFiles([str(tmp_path)], [], [], SECRETS)
    assert [name for _path, name in vault.places(OLD)] == [("v",)]
    assert vault.still_holds([OLD])
    vault.store([OLD], NEW)
    assert vault.still_holds([NEW])
    assert not vault.still_holds([OLD])
    (folder / "bob.yml").write_text(encrypted("w", NEW))
    assert not vault.still_holds([NEW])


@pytest.mark.parametrize(
    "name",
    ["group_vars/all.yml.bak", "group_vars/all.yml~", "group_vars/all/vault~", "group_vars/.all.yml", "all.yml"],
)
def test_what_ansible_does_not_read_holds_nothing_up(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"v: {OLD}\n")
    vault = VaultFiles([str(tmp_path)], [], [], SECRETS)
    assert (vault.places(OLD), vault.fixed(OLD)) == ([], [])


def test_a_token_in_the_inventory_itself_cannot_be_replaced_and_that_is_said(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all:\n  vars:\n" + "".join(f"    {line}\n" for line in encrypted("v", OLD).splitlines()))
    (reason,) = VaultFiles([str(tmp_path)], [str(inventory)], [], SECRETS).fixed(OLD)
    assert "inventories and files of extra variables are not changed here" in reason


def test_a_token_that_the_command_gives_cannot_be_replaced_and_that_is_said(tmp_path: Path) -> None:
    given = ["caveclient_report=reports", f"vault_cave_token_alice={OLD}"]
    vault = VaultFiles([str(tmp_path)], [], [], SECRETS, given=given)
    (reason,) = vault.fixed(OLD)
    assert "The command itself (-e) gives" in reason
    assert OLD not in reason
    assert vault.fixed(NEW) == []


def test_every_file_of_an_inventory_is_looked_into_but_those_of_variables(tmp_path: Path) -> None:
    names = ["10-hosts.yml", "deep/20-more.ini", "group_vars/all.yml", "host_vars/ws1.yml", ".git/config"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert inventory_files(tmp_path) == [str(tmp_path / name) for name in names[:2]]
    assert inventory_files(tmp_path / names[0]) == [str(tmp_path / names[0])]


def test_a_place_that_was_not_named_is_told(tmp_path: Path) -> None:
    for name in ("one.yml", "two.yml"):
        path = tmp_path / "group_vars" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(encrypted("v", OLD))
    vault = VaultFiles([str(tmp_path)], [], [str(tmp_path / "group_vars" / "one.yml")], SECRETS)
    (reason,) = vault.fixed(OLD)
    assert "two.yml" in reason
    assert [Path(path).name for path, _name in vault.writable(OLD)] == ["one.yml"]


# -- what the hosts' tasks say -----------------------------------------------------------------------------------------


def result(user: str = "alice", **more: Any) -> dict[str, Any]:
    return {"changed": False, "users": [{"user": user, "server": SERVER, **more}]}


def test_all_places_of_a_host_are_seen_and_what_could_not_be_read() -> None:
    files = [{"path": "/a", "fingerprints": {"token": "1" * 8, "banc": "2" * 8, "none": None}}]
    seen = _hosts.seen_of(result(files=files, unread=["/b"]))
    assert not isinstance(seen, str)
    assert {(place.path, place.key, place.token) for place in seen.places} == {
        ("/a", "token", "1" * 8),
        ("/a", "banc", "2" * 8),
    }
    assert seen.failed == {"alice": "/b cannot be read"}


@pytest.mark.parametrize(
    "found", [None, {}, {"unreachable": True, "msg": "off"}, {"failed": True, "msg": "no python"}, {"skipped": True}]
)
def test_a_host_that_was_not_looked_at_may_have_anything(found: dict[str, Any] | None) -> None:
    assert isinstance(_hosts.seen_of(found), str)


def test_of_two_results_on_a_host_the_last_word_counts() -> None:
    first = {**result(failed=True, msg="500", changed=False), "failed": True, "msg": "alice: 500"}
    merged = _hosts.merged([first, result(changed=True)])
    entry = Entry("ws1", 0, "alice", SERVER, "token", "1" * 8)
    assert _hosts.trouble_of(entry, merged) == ""
    assert _hosts.trouble_of(entry, _hosts.merged([result(changed=True), first])) == "500"
    assert _hosts.trouble_of(entry, _hosts.merged([None, {"skipped": True}])) == "not reached"
    assert _hosts.trouble_of(entry, {"unreachable": True, "msg": "off"}) == "unreachable: off"


def test_a_wait_says_every_half_minute_what_it_waits_for() -> None:
    state = State({}, Request(()), Settings(grace=70.0))
    state.marks["1" * 8] = None, 0.0
    said: list[str] = []
    slept: list[float] = []
    _steps.wait(state, {}, said.append, slept.append)
    assert slept == [30.0, 30.0, 10.0]
    assert len(said) == 3
    assert "Ctrl-C stops here" in said[0]
    assert all("1" * 8 in text for text in said)


@pytest.mark.parametrize("grace", [0.0, 0.5])
def test_the_last_look_at_uses_comes_in_a_later_second_than_the_first(grace: float) -> None:
    """Servers say to the second when a token was used: another use in the second of the first look is not seen."""
    state = State({}, Request(()), Settings(grace=grace))
    state.marks["1" * 8] = 1_800_000_000.0, 1_800_000_000.0
    slept: list[float] = []
    _steps.wait(state, {}, lambda _text: None, slept.append)
    assert sum(slept) >= 1.0


def test_a_canary_that_was_named_and_is_off_stops_the_rollout_and_one_that_was_chosen_is_never_off() -> None:
    entries = tuple(Entry(host, 0, "alice", SERVER, "token", "1" * 8) for host in ("ws1", "ws2"))
    rotation = Rotation(("1" * 8,), entries, "roll_out", new="1" * 8, canaries=("ws2",))
    state = State({}, Request(("ws1", "ws2"), canary=("ws2",)), Settings(), rotations=[rotation])
    state.seen = {"ws1": Seen(), "ws2": "unreachable: off"}
    assert _hosts.passed(state, rotation, {}) == (False, {"ws2": "unreachable: off"})
    assert "Rollout stopped: the canary host failed" in _hosts.stopped(state, {})[rotation.tokens]
    assert "ws2: unreachable: off" in _hosts.stopped(state, {})[rotation.tokens]


def test_a_file_with_further_tokens_and_one_that_the_variables_name_are_not_to_be_removed() -> None:
    copy, further = (
        Place("alice", "/home/a b/copy.json", key, token * 8) for key, token in (("mine", "1"), ("own", "2"))
    )
    state = State({"ws1": Host("ws1")}, Request(()), Settings(), blocked={"ws1": [str(copy)]})

    def remedy(*places: Place) -> Any:
        state.seen = {"ws1": Seen(places)}
        (result,) = _hosts.found_on(state, "ws1", None, {}, registered=False) or []
        return result["remedy"]

    assert remedy(copy).endswith(": sudo rm '/home/a b/copy.json'")
    assert remedy(copy, further) == "Take 'mine' out of /home/a b/copy.json. Then run again for this host."
    state.blocked["ws1"].append(f"its variables name {copy.token} for alice")
    assert remedy(copy) == ""


ELSEWHERE = {"server": "https://other.example.org", "datastacks": ["minnie65_public"]}


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ({"user": "alice", "token": NEW}, "cave-secret.json is to hold under 'token'"),
        ({"user": "alice", "token": NEW, **ELSEWHERE}, "the server of datastack minnie65_public"),
        ({"user": "alice", "state": "absent", "token": NEW}, "is to hold under 'token'"),
    ],
)
def test_entries_that_a_host_would_refuse_to_save_get_no_new_token(second: dict[str, Any], what: str) -> None:
    host = read([{"user": "alice", "token": OLD}, second, {"user": "bob", "token": OLD}])
    refused = inventory_of([host]).refused
    assert {entry.user for entry in refused} == {"alice"}
    for reason in refused.values():
        assert "Entries 1 and 2 of its caveclient_tokens contradict each other about " in reason
        assert what in reason
    assert not read([{"user": "alice", "token": OLD}, {"user": "alice", "token": NEW, "key": "banc"}]).refused


def test_a_rollout_stops_only_for_the_token_whose_canaries_failed() -> None:
    alice, bob = (Entry("ws1", number, user, SERVER, "token", user) for number, user in enumerate(("alice", "bob")))
    good, bad = (
        Rotation((entry.token,), (entry,), "roll_out", new="1" * 8, canaries=("ws1",)) for entry in (alice, bob)
    )
    state = State({}, Request(("ws1",)), Settings(), rotations=[good, bad])
    users = [*result("alice")["users"], *result("bob", failed=True, msg="no home")["users"]]
    found = _hosts.stopped(state, {"ws1": {"changed": False, "users": users}})
    assert list(found) == [("bob",)]
    assert "Rollout stopped: the canary host failed" in found["bob",]
    assert "ws1: no home" in found["bob",]


# -- rehearsed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        ({"changed": True, "users": [{"user": "alice", "changed": True}]}, {}),
        ({"failed": True, "users": [{"user": "alice", "failed": True, "msg": "closed"}]}, {"alice": "closed"}),
        ({"failed": True, "msg": "su has no pipelining"}, dict.fromkeys(("alice", "bob"), "su has no pipelining")),
        ({"unreachable": True, "msg": "gone"}, dict.fromkeys(("alice", "bob"), "unreachable: gone")),
    ],
    ids=["all well", "one user", "the task", "unreachable"],
)
def test_who_could_not_be_given_a_token_counts_as_one_that_cannot_get_it(
    result: dict[str, Any], failed: dict[str, str]
) -> None:
    seen = _hosts.rehearsed(Seen(), ["alice", "bob"], result)
    assert seen.failed == failed
    assert bool(seen.trouble) == bool(failed)
