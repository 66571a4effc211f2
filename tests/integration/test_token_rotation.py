# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a rotation in labs where one could lock somebody out, or say that all is well when it is not."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible
from lab import PASSWORD, USER, Lab, recap

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable
from cave_server import CaveServer

pytestmark = [pytest.mark.slow, pytest.mark.long]

YEAR = 365 * 86400


def said(run: Run) -> str:
    """An output without its line breaks."""
    return " ".join(run.output.split())


def make_lab(folder: Path, cave: CaveServer, **people: str) -> Lab:
    """A lab in which every host has the token of its person."""
    lab = Lab(folder, cave, people)
    for host, person in people.items():
        lab.save(lab.persons[person].token, host)
    return lab


def encrypted(name: str, token: str, password: str = PASSWORD, vault_id: str | None = None) -> str:
    """A variable with a vault string."""
    lines = VaultLib().encrypt(token, VaultSecret(password.encode()), vault_id=vault_id).decode().splitlines()
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in lines)


def pending(lab: Lab) -> list[str]:
    """The hosts that are not done."""
    path = lab.report / "pending"
    return path.read_text().split() if path.exists() else []


def set_host(lab: Lab, host: str, **variables: Any) -> None:
    """Set variables of a host."""
    lab.hosts[host].update(variables)


# -- one token, wherever it is -----------------------------------------------------------------------------------------


def test_a_host_that_names_the_server_otherwise_keeps_the_old_token_alive(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    set_host(lab, "ws2", caveclient_server=cave.url.replace("127.0.0.1", "localhost"))
    old = lab.persons["alice"].token
    lab.switch_off("ws2")
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert old in lab.tokens()
    assert pending(lab) == ["ws2"]


def test_a_vault_that_was_written_in_part_is_finished_and_a_host_that_is_off_keeps_the_old_token(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", hpc1="alice")
    old = lab.persons["alice"].token
    new = cave.make_token("alice", f"spring (replaces {fingerprint(old)})")
    own = lab.folder / "host_vars" / "hpc1" / "vault.yml"
    own.parent.mkdir(parents=True)
    own.write_text(encrypted("vault_cave_token_alice", old))
    lab.write_vault({"vault_cave_token_alice": new})
    lab.switch_off("hpc1")
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.status == 2
    assert set(lab.tokens()) == {new, old}
    lab.switch_on("hpc1")
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.ok, run.output
    assert lab.tokens() == [new]
    assert [lab.saved(host) for host in lab.hosts] == [new, new]


def test_each_place_of_the_vault_keeps_its_own_password_and_vault_id(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice", ws3="bob")
    passwords = {"one": "first horse", "two": "second horse"}
    options = []
    for name, password in passwords.items():
        (lab.folder / name).write_text(password)
        options += ["--vault-id", f"{name}@{name}"]
    lab.vault.unlink()
    folder = lab.folder / "host_vars"
    folder.mkdir()
    text = f"vault_cave_token_alice: {lab.token}\n"
    (folder / "ws1.yml").write_text(encrypted("vault_cave_token_alice", lab.token, passwords["one"], "one"))
    (folder / "ws2.yml").write_bytes(VaultLib().encrypt(text, VaultSecret(passwords["two"].encode()), vault_id="two"))
    bob = lab.persons["bob"].token
    (folder / "ws3.yml").write_text(encrypted("vault_cave_token_bob", bob, passwords["two"], "two"))
    run = lab.play("rotate", *options, with_password=False, strategy="overlap", grace=0.2)
    assert run.ok, run.output
    assert lab.tokens() != [lab.token]
    for host, person, name in (("ws1", "alice", "one"), ("ws2", "alice", "two"), ("ws3", "bob", "two")):
        path = folder / f"{host}.yml"
        assert path.read_text().count(";AES256;") == 1
        assert f"1.2;AES256;{name}" in path.read_text()
        secrets = [(name, VaultSecret(passwords[name].encode()))]
        assert [read_variable(str(path), (f"vault_cave_token_{person}",), secrets)] == lab.tokens(person)


def test_a_token_that_one_host_takes_from_elsewhere_gets_no_new_one_and_is_kept_where_one_was_made(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = lab.token
    own = {"user": USER, "token": "{{ lookup('ansible.builtin.env', 'CAVE_TOKEN_OF_ALICE') }}"}
    set_host(lab, "ws2", caveclient_tokens=[own])
    lab.settings = {"CAVE_TOKEN_OF_ALICE": old}
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert f"ws2 would keep {fingerprint(old)}" in said(run)
    assert (lab.tokens(), lab.stored()) == ([old], old)
    new = cave.make_token("alice", f"spring (replaces {fingerprint(old)})")
    lab.store(alice=new)
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.status == 2
    assert [lab.saved(host) for host in lab.hosts] == [new, new]
    assert f"ws2 (its variables name {fingerprint(old)} for {USER}" in said(run)
    assert old in lab.tokens()
    lab.settings = {"CAVE_TOKEN_OF_ALICE": new}
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.ok, run.output
    assert lab.tokens() == [new]


def test_a_token_that_one_host_takes_from_a_store_and_another_from_elsewhere_gets_no_new_one(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    entry, tools = tmp_path / "passwords" / "cave" / "alice.gpg", tmp_path / "bin"
    entry.parent.mkdir(parents=True)
    entry.write_text(lab.token)
    (tmp_path / "passwords" / ".gpg-id").write_text("lab")
    tools.mkdir()
    insert = f"cat > {entry}.new"
    for name, text in {
        "pass": f"case $1 in show) cat {entry};; insert) {insert};; mv) mv {entry}.new {entry};; esac",
        "gpg": "",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    lab.settings = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CAVE_TOKEN_OF_ALICE": lab.token}
    stored = "{{ lookup('connectomics.cave.stored_token', 'cave/alice') }}"
    lab.variables["caveclient_store"] = {"type": "pass", "path": str(tmp_path / "passwords")}
    lab.variables["caveclient_tokens"] = [{"user": USER, "token": stored}]
    lab.vault.unlink()
    own = {"user": USER, "token": "{{ lookup('ansible.builtin.env', 'CAVE_TOKEN_OF_ALICE') }}"}
    set_host(lab, "ws2", caveclient_tokens=[own])
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert f"ws2 would keep {fingerprint(lab.token)}" in said(run), run.output
    assert lab.tokens() == [lab.token]
    del lab.hosts["ws2"]["caveclient_tokens"]
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [entry.read_text().strip()] != [lab.token]


def test_an_entry_that_takes_its_token_from_another_hosts_variables_is_rotated(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    set_host(lab, "ws2", caveclient_tokens=[{"user": USER, "token": "{{ hostvars['ws1'].alices }}"}])
    own = lab.folder / "host_vars" / "ws1.yml"
    own.parent.mkdir()
    own.write_text(encrypted("alices", lab.token))
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 2
    assert lab.tokens() == [lab.stored()] != [lab.token]
    assert lab.rotate(strategy="overlap").ok


def test_two_names_of_one_machine_are_one_machine(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.hosts["ws1.lab.example.org"] = {"person": "alice", "ansible_python_interpreter": str(lab.python("ws1"))}
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()] != [lab.token]
    assert lab.rotate(strategy="overlap").ok
    # Under its other name, the machine is not in this run, and has the token nevertheless.
    lab.store(alice=cave.make_token("alice"))
    run = lab.rotate("--limit", "ws1")
    assert "Not everywhere yet: ws2 (" in said(run)
    assert pending(lab) == ["ws2"]
    run = lab.play("decommission", "--limit", "ws1", revoke=True)
    assert "may still be needed: ws1.lab.example.org, ws2 (its variables name" in said(run)
    assert lab.stored() in lab.tokens()


def test_a_place_of_the_vault_that_was_not_named_is_refused_before_a_token_is_made(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", hpc1="alice")
    old = lab.persons["alice"].token
    own = lab.folder / "host_vars" / "hpc1" / "vault.yml"
    own.parent.mkdir(parents=True)
    own.write_text(encrypted("vault_cave_token_alice", old))
    lab.switch_off("hpc1")
    for _again in range(2):
        run = lab.rotate(strategy="overlap", vault_file=str(lab.vault))
        assert run.status == 2
        assert str(own) in said(run)
        assert lab.tokens() == [old]


def test_a_copy_under_another_key_keeps_the_old_token_alive(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = lab.persons["alice"].token
    elsewhere = lab.home("ws2") / ".neuroglancer" / "secrets" / "cave-secret.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps({"mine": old}))
    run = lab.rotate(strategy="overlap")
    if old in elsewhere.read_text():
        assert run.status == 2
        assert old in lab.tokens()
        assert f"ws2 ({USER}: {elsewhere} has {fingerprint(old)} as mine)" in said(run)


def test_a_copy_that_keeps_the_old_token_alive_is_named_with_the_command_that_removes_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    copy = lab.secrets("ws2") / "cave-secret.json.bak"
    copy.write_text(json.dumps({"token": lab.token}))
    assert lab.rotate(strategy="overlap").status == 2
    assert lab.token in lab.tokens()
    remedy = lab.reported()["ws2"]["problem"]["remedy"]
    assert remedy == f"Remove the copy on the host, then run again for this host: sudo rm {copy}"
    copy.unlink()
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()] != [lab.token]


def test_check_mode_predicts_that_a_copy_keeps_the_old_token_alive(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.store(alice=cave.make_token("alice"))
    old = fingerprint(lab.token)
    predicted = lab.rotate("--check", old=old)
    assert predicted.ok, predicted.output
    assert "The old one would be revoked when every host has the new one." in said(predicted)
    assert lab.rotate().ok
    copy = lab.secrets("ws2") / "laptop-cave-secret.json"
    copy.write_text(json.dumps({"token": lab.token}))
    for check, not_revoked in ((["--check"], "would not be revoked"), ([], "is not revoked")):
        run = lab.rotate(*check, old=old)
        assert run.status == 2, run.output
        assert f"The old token {old} {not_revoked}, as it may still be needed: ws2 ({USER}: {copy} has" in said(run)
        assert f"Remove the copy on the host, then run again for this host: sudo rm {copy}" in said(run)
    assert lab.token in lab.tokens()


def test_two_keys_with_two_tokens_of_one_account_are_both_rotated_and_both_revoked(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, cave, {"ws1": "alice", "ws2": "alice"})
    old = [lab.persons["alice"].token, cave.make_token("alice")]
    lab.write_vault({"vault_one": old[0], "vault_two": old[1]})
    lab.variables.update(
        caveclient_tokens=[
            {"user": USER, "token": "{{ vault_one }}"},
            {"user": USER, "token": "{{ vault_two }}", "key": "banc", "datastacks": ["minnie65_public"]},
        ]
    )
    assert lab.rotate().ok
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert len(lab.tokens()) == 2
    assert not set(lab.tokens()) & set(old)
    for host in lab.hosts:
        path = lab.secrets(host) / f"{cave.url.partition('//')[2]}-cave-secret.json"
        content = json.loads(path.read_text())
        assert {content["token"], content["banc"]} == set(lab.tokens())


@pytest.mark.parametrize("strategy", ["cutover", "overlap"])
def test_a_host_that_was_the_canary_of_one_token_gets_the_other_under_its_own_key_as_well(
    strategy: str, cave: CaveServer, tmp_path: Path
) -> None:
    """The second host is tried for the token that it alone has; the one that it shares is proven on the first."""
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = {name: cave.make_token("alice") for name in ("shared", "one", "two")}
    lab.write_vault({f"vault_{name}": token for name, token in old.items()})
    for host, own in (("ws1", "vault_one"), ("ws2", "vault_two")):
        entries = [("banc", "vault_shared"), ("token", own)]
        tokens = [{"user": USER, "key": key, "token": f"{{{{ {name} }}}}"} for key, name in entries]
        set_host(lab, host, caveclient_tokens=tokens)
    assert lab.rotate().ok
    if strategy == "cutover":
        lab.write_vault({f"vault_{name}": cave.make_token("alice") for name in old})
    run = lab.rotate(strategy=strategy)
    assert run.ok, run.output
    for host in lab.hosts:
        content = json.loads((lab.secrets(host) / lab.server_file).read_text())
        assert not set(content.values()) & set(old.values())


def test_two_tokens_for_a_server_under_two_names_are_never_written_one_over_the_other(
    cave: CaveServer, tmp_path: Path
) -> None:
    """The record of the first one's datastack names the server as the second entry does."""
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    cave.add_datastack("mouse", local_server=cave.url)
    cave.set_permissions("alice", ["mouse"])
    second = cave.make_token("alice")
    lab.write_vault({"vault_one": cave.make_token("alice"), "vault_two": second})
    other = {"user": USER, "token": "{{ vault_one }}", "server": cave.url.replace("127.0.0.1", "localhost")}
    own = {"user": USER, "token": "{{ vault_two }}", "datastacks": []}
    lab.variables.update(caveclient_tokens=[{**other, "datastacks": ["mouse"]}])
    set_host(lab, "ws1", caveclient_tokens=[{**other, "datastacks": ["mouse"]}, own])
    run = lab.rotate(canary=["ws2"])
    assert "Entries 1 and 2 of tokens contradict each other" in said(run), run.output
    assert run.status == 2
    assert blamed(run)[-1] == "ws1"
    assert lab.saved("ws1") == second


# -- nobody else -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_a_limited_run_makes_no_token_for_somebody_who_is_not_in_it(
    cave: CaveServer, tmp_path: Path, legacy: bool
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob")
    cave.configure(legacy=legacy)
    bob = lab.persons["bob"].token
    cave.advance(YEAR)
    run = lab.rotate("--limit", "ws1")
    assert run.ok, run.output
    assert lab.tokens("bob") == [bob]
    run = lab.rotate("--limit", "ws1", strategy="overlap")
    assert lab.tokens("bob") == [bob]
    assert lab.stored("bob") == bob
    assert lab.tokens("alice") != [lab.persons["alice"].token]


@pytest.mark.parametrize("limit", [("--limit", "ws1"), ("-e", "caveclient_hosts=ws1")])
def test_a_token_that_hosts_outside_of_the_run_hold_is_neither_replaced_nor_revoked(
    cave: CaveServer, tmp_path: Path, limit: tuple[str, str]
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    cave.configure(legacy=True)
    old = lab.persons["alice"].token
    run = lab.rotate(*limit, strategy="overlap")
    assert run.status == 2
    assert "No token was made: ws2 may hold" in said(run)
    assert lab.tokens() == [old]
    assert lab.stored() == old


def test_where_the_old_token_may_die_at_once_every_holder_has_to_be_reachable(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    cave.configure(legacy=True)
    old = lab.persons["alice"].token
    lab.switch_off("ws2")
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert "it may kill the old one at once" in said(run)
    assert lab.tokens() == [old]
    anyway = lab.rotate(strategy="overlap", anyway=True)
    assert anyway.status == 2
    assert pending(lab) == ["ws2"]
    (new,) = lab.tokens()
    assert (lab.stored(), lab.saved("ws1")) == (new, new)
    # Two days later, without a name: it is finished, and no other one is made.
    cave.advance(2 * 86400)
    lab.switch_on("ws2")
    run = lab.rotate("--limit", f"@{lab.report / 'pending'}", strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [new]
    assert lab.saved("ws2") == new


def test_a_pending_host_is_finished_days_later_with_the_token_that_was_made(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.switch_off("ws1")
    assert lab.rotate(strategy="overlap").status == 2
    new = lab.stored()
    cave.advance(2 * 86400)
    lab.switch_on("ws1")
    run = lab.rotate("--limit", f"@{lab.report / 'pending'}", strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [new]
    assert pending(lab) == []


def test_a_rotation_of_another_name_revokes_what_the_first_one_could_not(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.switch_off("ws2")
    assert lab.rotate(strategy="overlap", name="spring").status == 2
    first = lab.stored()
    lab.switch_on("ws2")
    run = lab.rotate(strategy="overlap", name="autumn")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()]
    assert lab.stored() not in (first, lab.token)
    assert f"The old token {fingerprint(lab.token)} is revoked" in said(run)


def test_what_a_rotation_has_left_is_pending_until_a_rotation_is_done_with_it(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = lab.persons["alice"].token
    lab.variables["caveclient_report"] = str(lab.report)
    lab.switch_off("ws1")
    assert lab.rotate(strategy="overlap").status == 2
    lab.switch_on("ws1")
    for playbook, options in (("verify", ()), ("provision", ("--tags", "token"))):
        run = lab.play(playbook, *options)
        assert "A rotation is not finished on ws1" in said(run)
        assert "Finish it with its own options: ansible-playbook -i hosts.yml --vault" in said(run)
        assert pending(lab) == ["ws1"], run.output
        assert old in lab.tokens()
    run = lab.rotate("--limit", f"@{lab.report / 'pending'}", strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()] != [old]
    run = lab.play("verify")
    assert "A rotation is not finished" not in said(run)
    assert sorted(path.name for path in lab.report.glob("pending*")) == []


def test_pending_hosts_of_one_person_stay_pending_when_another_one_is_rotated(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob")
    set_host(lab, "ws2", caveclient_tokens=[{"user": "bob", "token": "{{ vault_cave_token_bob }}"}])
    lab.switch_off("ws2")
    assert lab.rotate().status == 2
    assert pending(lab) == ["ws2"]
    assert lab.rotate(users=[USER]).ok
    assert pending(lab) == ["ws2"]
    set_host(lab, "ws2", caveclient_tokens=[])
    assert lab.rotate().ok
    assert pending(lab) == []


def test_a_host_that_is_given_up_holds_up_nothing_and_is_named(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", hpc1="alice")
    old = lab.persons["alice"].token
    lab.switch_off("hpc1")
    run = lab.rotate(strategy="overlap", give_up=["hpc1"])
    assert old not in lab.tokens()
    assert "Given up, so that nothing waited for what they have: hpc1." in said(run)


def test_last_years_rotation_that_kept_the_old_token_does_not_block_this_years(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    first = lab.persons["alice"].token
    assert lab.rotate(strategy="overlap", name="2026", revoke="never").ok
    second = lab.stored()
    cave.advance(YEAR)
    run = lab.rotate(strategy="overlap", name="2027")
    assert run.ok, run.output
    third = lab.stored()
    assert third != second
    assert set(lab.tokens()) == {third, first}


# -- one trouble -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{"key": "banc"}, {"datastacks": [{"name": "fanc_production_mar2021"}]}])
def test_an_entry_keeps_its_own_key_and_datastacks(cave: CaveServer, tmp_path: Path, own: dict[str, Any]) -> None:
    lab = Lab(tmp_path, cave, {"ws1": "alice"})
    cave.set_permissions("alice", ["minnie65_public", "fanc_production_mar2021"])
    lab.variables.update(caveclient_tokens=[{"user": USER, "token": "{{ vault_cave_token_alice }}", **own}])
    run = lab.rotate()
    assert run.ok, run.output
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    path = lab.secrets("ws1") / f"{cave.url.partition('//')[2]}-cave-secret.json"
    assert json.loads(path.read_text())[own.get("key", "token")] == lab.stored()


@pytest.mark.parametrize("strategy", ["cutover", "overlap"])
def test_an_account_that_no_host_has_stops_nobody_else(cave: CaveServer, tmp_path: Path, strategy: str) -> None:
    lab = make_lab(tmp_path, cave, **{f"ws{number}": "alice" for number in range(1, 6)})
    lab.persons["bob"] = cave.add_person("bob", ["minnie65_public"])
    new = cave.make_token("alice")
    lab.write_vault({"vault_cave_token_alice": new, "vault_cave_token_bob": lab.persons["bob"].token})
    lab.variables.update(
        caveclient_tokens=[
            {"user": "nobody_of_that_name", "token": "{{ vault_cave_token_bob }}"},
            {"user": USER, "token": "{{ vault_cave_token_alice }}"},
        ]
    )
    run = lab.rotate(strategy=strategy)
    assert run.status == 2
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 5
    assert (lab.stored() == new) is (strategy == "cutover")
    assert "nobody_of_that_name" in run.output


@pytest.mark.parametrize("token", ["", "{{ nowhere }}", "YOUR_TOKEN_HERE", None])
def test_an_entry_that_cannot_be_used_stops_its_own_user_alone(
    cave: CaveServer, tmp_path: Path, token: str | None
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    new = cave.make_token("alice")
    lab.write_vault({"vault_cave_token_alice": new})
    lab.variables.update(
        caveclient_tokens=[
            {"user": "bob", "token": token},
            {"user": USER, "token": "{{ vault_cave_token_alice }}"},
        ]
    )
    run = lab.rotate(users=[USER])
    assert [lab.saved(host) for host in lab.hosts] == [new, new]
    assert run.ok, run.output
    assert lab.rotate().status == 2


def test_a_host_that_only_others_use_need_not_be_there(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob")
    lab.variables.update(
        caveclient_tokens=[{"user": "{{ account }}", "token": "{{ lookup('vars', 'vault_cave_token_' ~ person) }}"}]
    )
    set_host(lab, "ws1", account=USER)
    set_host(lab, "ws2", account="bob")
    lab.switch_off("ws2")
    run = lab.rotate(users=[USER])
    assert run.ok, run.output
    assert pending(lab) == []


def test_a_canary_that_fails_once_and_is_saved_then_is_done(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = lab.persons["alice"].token
    lab.variables.update(caveclient_retries=0)
    new = cave.make_token("alice")
    lab.store(alice=new)
    # The controller asks about the new token once, then the first host does.
    cave.set_fault("/auth/api/v1/user/cache", "status", status=500, fingerprint=fingerprint(new), skip=1, times=1)
    run = lab.rotate(old=fingerprint(old))
    assert recap(run.output)["ws1"]["rescued"] == 1, run.output
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()] != [old]
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 2
    assert "2 workstations ok" in run.output


def overlap_while_lists_fail(lab: Lab, after: int) -> Run:
    """Rotate while the server gives out no further list of a person's tokens ``after`` so many."""
    lab.variables.update(caveclient_retries=0)
    lab.cave.set_fault("/auth/api/v1/user/token", "status", status=503, method="GET", skip=after)
    run = lab.rotate(strategy="overlap")
    lab.cave.clear_faults()
    assert run.status == 2, run.output
    return run


def test_a_server_that_fails_while_uses_are_looked_for_leaves_a_report_and_the_old_token(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    # The lists before this one: what the person has, again before one is made, and again after it was made.
    run = overlap_while_lists_fail(lab, after=3)
    assert lab.saved("ws1") == lab.stored() != old
    assert "is not revoked" in said(run)
    assert (lab.report / "report.json").exists()
    assert old in lab.tokens()


def test_a_token_that_was_made_and_stored_is_named_when_the_server_fails_then_and_the_next_run_goes_on_with_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    # The lists before this one: what the person has, and again before one is made.
    run = overlap_while_lists_fail(lab, after=2)
    new = lab.stored()
    assert new is not None
    assert lab.tokens() == [new, old]
    assert lab.saved("ws1") == old
    made = f"The token {fingerprint(new)} was made to replace {fingerprint(old)}, and is kept as vault_cave_token_alice"
    assert f"{made} in {lab.vault}. No host has it yet: {cave.url}" in said(run)
    assert "Run the same command again: it continues there." in said(run)
    assert recap(run.output)["ws1"]["changed"] == 1  # the controller's tasks count for it
    assert lab.rotate(strategy="overlap").ok
    assert (lab.saved("ws1"), lab.tokens()) == (new, [new])


@pytest.mark.parametrize("kind", ["status", "html"])
def test_a_server_that_fails_to_list_tokens_keeps_nobody_from_the_one_in_the_vault(
    cave: CaveServer, tmp_path: Path, kind: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    lab.variables.update(caveclient_retries=0)
    lab.store(alice=cave.make_token("alice"))
    cave.set_fault("/auth/api/v1/user/token", kind, method="GET")
    run = lab.rotate()
    assert run.ok, run.output
    assert lab.saved("ws1") == lab.stored()
    assert f"It replaces {fingerprint(lab.token)}. Whether that is still accepted is not known: {cave.url}" in said(run)
    run = lab.rotate(old=fingerprint(lab.token))
    assert run.status == 2
    assert "Nothing is revoked, as that person's tokens are not known" in said(run)
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    cave.clear_faults()
    assert lab.tokens() == [lab.stored(), lab.token]


@pytest.mark.parametrize(("fault", "more"), [("status", {"status": 429}), ("html", {})])
def test_where_the_server_makes_no_token_no_host_is_to_blame(
    cave: CaveServer, tmp_path: Path, fault: str, more: dict[str, Any]
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.variables.update(caveclient_retries=0)
    cave.set_fault("/auth/api/v1/user/token", fault, method="POST", **more)
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert blamed(run) == ["localhost"]
    assert "2 workstations ok" in run.output
    assert (lab.tokens(), lab.stored()) == ([lab.token], lab.token)


def test_a_host_on_which_nothing_can_be_started_is_not_called_unreachable(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.settings = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "true"}
    set_host(lab, "ws1", caveclient_become=True, ansible_become_exe="/bin/false")
    lab.store(alice=cave.make_token("alice"))
    run = lab.rotate(old=fingerprint(lab.token))
    assert run.status == 2
    assert (lab.saved("ws1"), lab.saved("ws2")) == (lab.token, lab.stored())
    assert lab.reported()["ws1"]["problem"]["verdict"] != "host_unreachable"
    assert "Switch it on" not in said(run)
    assert lab.token in lab.tokens()
    assert pending(lab) == ["ws1"]


@pytest.mark.parametrize(("limit", "off"), [((), ()), (("--limit", "ws1,ws2,ws3"), ("ws3",))])
def test_a_token_that_gets_no_new_one_fails_no_host_on_which_it_works(
    cave: CaveServer, tmp_path: Path, limit: tuple[str, ...], off: tuple[str, ...]
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob", ws3="alice")
    bob = lab.persons["bob"].token
    own = lab.folder / "host_vars" / "ws2" / "vault.yml"
    own.parent.mkdir(parents=True)
    own.write_text(encrypted("vault_cave_token_bob", bob))
    lab.store(alice=lab.token)
    lab.switch_off(*off)
    run = lab.rotate(*limit, strategy="overlap", vault_file=str(lab.vault))
    assert run.status == 2
    assert lab.stored() == lab.saved("ws1") != lab.token
    assert lab.tokens("bob") == [bob]
    assert f"FAILED {USER} (bob), token {fingerprint(bob)}" in said(run)
    assert blamed(run) == ["localhost", *off], run.output
    assert pending(lab) == list(off)
    assert lab.reported()["ws2"]["users"][0]["fingerprint"] == fingerprint(bob)


def test_a_dead_token_is_told_once_and_the_command_goes_on_as_it_is_printed(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob", ws3="bob")
    bob = lab.persons["bob"].token
    cave.revoke(bob)
    run = lab.rotate("--limit", "ws1,ws2,ws3")
    assert run.status == 2
    assert said(run).count("does not accept the token") == 1, run.output
    assert run.output.count("ansible-playbook") == 1, run.output
    assert "The hosts have the tokens of the vault" not in said(run)
    assert blamed(run) == ["ws2", "ws3"]
    (line,) = [text for text in run.output.splitlines() if text.startswith("Again for what is not done: ")]
    _program, *words = shlex.split(line.partition(": ")[2])
    assert "--vault-password-file" in words
    new = cave.make_token("bob")
    lab.store(alice=lab.token, bob=new)
    again = ansible(lab.folder, "playbook", *words)
    assert again.ok, again.output
    assert [lab.saved(host) for host in lab.hosts] == [lab.token, new, new]


# -- whom the recap blames, and the limit ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cutover", "overlap"])
def test_a_limited_run_fails_the_hosts_outside_of_it_that_lack_the_token_and_no_other(
    cave: CaveServer, tmp_path: Path, strategy: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice", ws3="alice")
    new = cave.make_token("alice", f"spring (replaces {fingerprint(lab.token)})")
    lab.store(alice=new)
    lab.save(new, "ws3")
    run = lab.rotate("--limit", "ws1", strategy=strategy, name="spring")
    assert run.status == 2
    assert lab.saved("ws1") == new
    assert blamed(run) == ["ws2"], run.output
    assert pending(lab) == ["ws2"]
    assert lab.saved("ws2") == lab.token
    assert lab.token in lab.tokens()


def test_the_plays_of_others_keep_to_the_limit_after_a_rotation_that_looked_beyond_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice", ws3="alice")
    lab.store(alice=cave.make_token("alice"))
    after = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "after"}}]}
    rotate = {"import_playbook": "connectomics.cave.rotate"}
    (lab.folder / "site.yml").write_text(yaml.safe_dump([rotate, after, rotate, after]))
    run = lab.play("site.yml", "--limit", "ws1,ws2", caveclient_report=str(lab.report))
    assert blamed(run) == ["ws3"], run.output
    assert run.output.count('\n    "msg": "after"') == 4, run.output
    assert recap(run.output)["ws3"]["changed"] == 0


def test_what_a_site_sets_for_a_rotation_counts_as_what_an_inventory_sets(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    own = {name: lab.variables.pop(name) for name in list(lab.variables) if name.startswith("caveclient_")}
    own |= {"caveclient_rotate_strategy": "overlap", "caveclient_rotate_grace": 0.2}
    own |= {"caveclient_report": "reports", "caveclient_junit": "junit.xml"}
    rotate = {"import_playbook": "connectomics.cave.rotate", "vars": own}
    (lab.folder / "site.yml").write_text(yaml.safe_dump([rotate]))
    run = lab.play("site.yml")
    assert run.ok, run.output
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 2 == lab.tokens() * 2
    assert lab.stored() != lab.token
    assert {host: found["state"] for host, found in lab.reported().items()} == {"ws1": "ok", "ws2": "ok"}
    assert (lab.folder / "junit.xml").exists()


def test_a_token_in_a_variable_of_a_site_reaches_the_hosts(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.write_vault({})
    new = cave.make_token("alice")
    (lab.folder / "token").write_text(new)
    own = {"vault_cave_token_alice": "{{ lookup('ansible.builtin.file', inventory_dir ~ '/token') }}"}
    rotate = {"import_playbook": "connectomics.cave.rotate", "vars": own}
    (lab.folder / "site.yml").write_text(yaml.safe_dump([rotate]))
    run = lab.play("site.yml")
    assert run.ok, run.output
    assert [lab.saved(host) for host in lab.hosts] == [new] * 2


@pytest.mark.parametrize("limit", [[], ["--limit", "ws1"]], ids=["in_the_run", "outside"])
def test_a_host_that_failed_earlier_in_the_run_is_not_done_whatever_was_found_on_it_before(
    cave: CaveServer, tmp_path: Path, limit: list[str]
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.store(alice=cave.make_token("alice"))
    fail = {"ansible.builtin.fail": {"msg": "no space left"}, "when": "inventory_hostname == 'ws2'"}
    rotate = {"import_playbook": "connectomics.cave.rotate"}
    # Outside of the limit, it is the first rotation that fails the host, which lacks the token.
    first = rotate if limit else {"hosts": "all", "gather_facts": False, "tasks": [fail]}
    (lab.folder / "site.yml").write_text(yaml.safe_dump([first, rotate]))
    run = lab.play("site.yml", *limit, caveclient_report=str(lab.report))
    assert run.status == 2, run.output
    assert "no task ran on it" in lab.reported()["ws2"]["problem"]["message"]
    assert pending(lab) == ["ws2"]
    assert lab.saved("ws1") == lab.stored()


def test_a_rotation_whose_hosts_have_all_failed_before_does_not_report_what_an_earlier_one_did(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob")
    fail = {"ansible.builtin.fail": {"msg": "no space left"}, "when": "inventory_hostname == 'ws2'"}
    rotations = [
        {"import_playbook": "connectomics.cave.rotate", "vars": {"caveclient_hosts": host}} for host in ("ws1", "ws2")
    ]
    (lab.folder / "site.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [fail]}, *rotations])
    )
    run = lab.play("site.yml", caveclient_report=str(lab.report))
    assert run.status == 2, run.output
    assert "alice" in run.output
    assert "alice" not in (lab.report / "report.json").read_text()
    assert run.output.partition("PLAY RECAP")[0].rstrip().endswith("--limit ws2"), run.output


def test_hosts_outside_of_the_limit_are_looked_at_side_by_side(cave: CaveServer, tmp_path: Path) -> None:
    """The first module on each of them goes on when all of them have begun, or after a time that one of them notes."""
    outside = ["ws2", "ws3", "ws4"]
    lab = make_lab(tmp_path, cave, **dict.fromkeys(["ws1", *outside], "alice"))
    for host in outside:
        python = lab.python(host).read_text().partition("\n")[2]
        wait = (
            f"touch {tmp_path}/begun.{host}; tries=0\n"
            f"until [ $(ls {tmp_path}/begun.* | wc -l) = {len(outside)} ]; do\n"
            f"  tries=$((tries + 1)); [ $tries -lt 200 ] || {{ touch {tmp_path}/alone; break; }}; sleep 0.1\n"
            "done\n"
        )
        lab.python(host).write_text(f"#!/bin/sh\n{wait}{python}")
    run = lab.rotate("--limit", "ws1")
    assert run.ok, run.output
    assert len(list(tmp_path.glob("begun.*"))) == len(outside)
    assert not (tmp_path / "alone").exists()
    assert [recap(run.output)[host]["ok"] for host in outside] == [1] * len(outside)


# -- refused before a token is made ------------------------------------------------------------------------------------


REFUSED = [
    ({"canary": ["wsl"]}, "caveclient_rotate_canary names wsl, which is no host of this run. Did you mean ws1?"),
    ({"users": [USER, "alcie"]}, "caveclient_rotate_users names alcie"),
    ({"users": ["absent"]}, "No host of this run has a token for absent in caveclient_tokens"),
    ({"store_tasks": "store.yml"}, "caveclient_rotate_store_tasks names store.yml, which is no file"),
    ({"vault_file": "vault.yml"}, "caveclient_rotate_vault_file names"),
    ({"vault_file": "closed.yml"}, "closed.yml"),
    ({"vault_file": "other.yml"}, "Name that file as well in caveclient_rotate_vault_file."),
    ({"strategy": "auto"}, "value of caveclient_rotate_strategy must be one of: cutover, overlap"),
    ({"old": "0a1b2c3d"}, "Ask for one after the other"),
    ({"canary": ["TOKEN"]}, "canary"),
    ({"grace": "nan"}, "caveclient_rotate_grace is nan. Give seconds: 0 or more"),
    ({"grace": "-inf"}, "caveclient_rotate_grace is -inf."),
    ({"strategy": "cutover", "old": "3fa9c2d1, spring"}, "Name the old token by the 8 hex digits"),
]


@pytest.mark.parametrize(
    ("variables", "message"), REFUSED, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_what_is_wrong_with_the_request_is_refused_and_no_host_is_to_blame(
    cave: CaveServer, tmp_path: Path, variables: dict[str, Any], message: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    lab.variables["caveclient_tokens"].append({"user": "absent", "token": old, "state": "absent"})
    (lab.folder / "other.yml").write_text("{}\n")
    (lab.folder / "closed.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3030\n")
    variables = {name: [old] if value == ["TOKEN"] else value for name, value in variables.items()}
    run = lab.rotate(**{"strategy": "overlap", **variables})
    assert run.status == 2
    assert "FAILED Refused, and nothing was done." in said(run)
    assert message in said(run)
    assert blamed(run) == ["localhost"]
    assert lab.tokens() == [old]
    assert lab.saved("ws1") == old


def test_a_vault_that_does_not_open_and_a_pattern_without_hosts_are_refused_once_and_no_host_is_to_blame(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    (lab.folder / "password").write_text("wrong horse")
    run = lab.rotate()
    assert run.status == 2
    assert "Refused, and nothing was done. No host of this run has a token that can be read. ws1, ws2: " in said(run)
    assert blamed(run) == ["localhost"]
    nobody = lab.rotate(caveclient_hosts="ws9")
    assert nobody.status == 2
    assert "caveclient_hosts=ws9 matches no host" in said(nobody)
    assert blamed(nobody) == ["localhost"]


def test_a_token_from_a_file_of_extra_variables_gets_no_new_one(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    (lab.folder / "extra.yml").write_text(lab.vault.read_text())
    run = lab.rotate("-e", "@extra.yml", strategy="overlap", canary="ws1, ")
    assert run.status == 2
    assert "Refused, and nothing was done." in said(run)
    assert f"extra.yml holds {fingerprint(old)}, and inventories and files of extra variables are not" in said(run)
    assert lab.tokens() == [old] == [lab.stored()]


@pytest.mark.parametrize(
    "text",
    [
        "caveclient_tokens:\n  - user: USER\n    token: TOKEN\n",
        "caveclient_tokens: \"{{ [{'user': 'USER', 'token': lab.all.alice}] }}\"\nlab: {all: {alice: TOKEN}}\n",
        'caveclient_tokens: "{{ entries | from_json }}"\nentries: \'[{"user": "USER", "token": "TOKEN"}]\'\n',
    ],
    ids=["in a list", "deep in a mapping", "in a longer text"],
)
def test_a_token_that_cannot_be_replaced_in_every_place_gets_no_new_one(
    cave: CaveServer, tmp_path: Path, text: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    own = lab.folder / "host_vars" / "ws2.yml"
    own.parent.mkdir()
    own.write_text(text.replace("TOKEN", lab.token).replace("USER", USER))
    set_host(lab, "ws1", caveclient_tokens=lab.variables.pop("caveclient_tokens"))
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert blamed(run) == ["localhost"]
    assert f"{own} holds {fingerprint(lab.token)} in a" in said(run)
    assert (lab.tokens(), lab.stored()) == ([lab.token], lab.token)
    assert [lab.saved(host) for host in lab.hosts] == [lab.token] * 2


def test_an_entry_that_names_another_server_gets_no_new_token_made(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    old = lab.persons["alice"].token
    with CaveServer() as other:
        set_host(lab, "ws2", caveclient_server=other.url)
        run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert "Refused, and nothing was done." in said(run)
    assert "No token was made: ws2 could not use it." in said(run)
    assert lab.tokens() == [old]


def blamed(run: Run) -> list[str]:
    """The hosts that failed or were unreachable, by Ansible's recap."""
    return [host for host, counts in recap(run.output).items() if counts["failed"] + counts["unreachable"]]


def test_a_token_of_another_person_than_the_entry_names_gets_no_new_one(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    own = {"user": USER, "token": "{{ vault_cave_token_alice }}", "person": "Alice@example.org"}
    lab.variables["caveclient_tokens"] = [own]
    for strategy in ("cutover", "overlap", "overlap", "cutover"):  # proven before, and not
        run = lab.rotate(strategy=strategy)
        assert run.ok, run.output
    (new,) = lab.tokens()
    assert new == lab.stored() != lab.token
    set_host(lab, "ws2", caveclient_tokens=[{**own, "person": "bob@example.org"}])
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.status == 2
    assert "No token was made: ws2 could not use it. The token is of alice@example.org, not of bob@" in said(run)
    assert lab.tokens() == [new]
    run = lab.rotate()
    assert blamed(run) == ["ws2"], run.output
    assert "The token is of alice@example.org, not of bob@example.org." in said(run)


def test_where_the_old_token_may_die_at_once_every_holder_has_to_be_able_to_save_a_new_one(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    cave.configure(legacy=True)
    broken = lab.secrets("ws2") / "cave-secret.json"
    good = broken.read_text()
    broken.write_text(good[:-1])
    for check in ([], ["--check"]):
        run = lab.rotate(*check, strategy="overlap")
        assert run.status == 2
        assert f"these could not get the new one: ws2 ({USER}: {broken} is not JSON" in said(run), run.output
        assert (lab.tokens(), lab.stored()) == ([lab.token], lab.token)
    broken.write_text(good)
    assert lab.rotate("--check", strategy="overlap").ok
    assert (broken.read_text(), lab.saved("ws2")) == (good, lab.token)
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert recap(run.output)["ws2"]["changed"] == 1  # what was tried before is no change
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 2 == lab.tokens() * 2


def test_where_the_old_token_may_die_at_once_none_is_made_that_would_lie_in_a_file_on_its_way(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    cave.configure(legacy=True)
    lab.settings = {"ANSIBLE_PIPELINING": "false"}
    lab.variables.update(ansible_pipelining=False, ansible_ssh_pipelining=False)
    run = lab.rotate("-e", '{"ansible_pipelining": false, "ansible_ssh_pipelining": false}', strategy="overlap")
    assert run.status == 2
    assert "these could not get the new one: ws1, ws2 (" in said(run), run.output
    assert "The token would lie in a temporary file on the host" in said(run)
    assert lab.tokens() == [lab.token]


@pytest.mark.root  # su asks everybody else for a password
def test_none_is_made_that_could_be_sent_to_no_host_or_not_to_the_first_one(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    for host in lab.hosts:
        set_host(lab, host, caveclient_become=True, ansible_become_method="su")
    run = lab.rotate(strategy="overlap")
    assert run.status == 2
    assert f"no host could get it now: ws1, ws2 ({USER}: The token would lie in a temporary file" in said(run)
    assert "become_method su has no pipelining. Use another one, such as sudo." in said(run)
    del lab.hosts["ws2"]["ansible_become_method"], lab.hosts["ws2"]["caveclient_become"]
    run = lab.rotate(strategy="overlap", canary="ws1")
    assert run.status == 2
    assert f"the canary host cannot get it first: ws1 ({USER}: The token would lie" in said(run), run.output
    assert (lab.tokens(), lab.stored()) == ([lab.token], lab.token)
    run = lab.rotate(strategy="overlap", canary="ws1", caveclient_allow_remote_files=True)
    assert run.ok, run.output
    assert [lab.saved(host) for host in lab.hosts] == [lab.stored()] * 2 == lab.tokens() * 2


def test_tasks_that_cannot_store_a_token_leave_it_where_the_message_says(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    (lab.folder / "store.yml").write_text("- ansible.builtin.fail:\n    msg: the safe is locked\n")
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", name="spring")
    assert run.status == 2
    assert "A token was made and could not be stored" in said(run)
    assert f"'spring (replaces {fingerprint(old)})'" in said(run)
    assert lab.saved("ws1") == old
    assert pending(lab) == ["ws1"]


def test_what_is_not_revoked_although_it_was_named_is_said(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="bob")
    alice, bob = (lab.persons[name].token for name in ("alice", "bob"))
    new = cave.make_token("alice")
    lab.store(alice=new, bob=bob)
    run = lab.rotate(old="0a1b2c3d")
    assert run.ok, run.output
    assert "0a1b2c3d is in nobody's list of tokens here: it was revoked before, is mistyped" in said(run)
    run = lab.rotate("--limit", "ws2", old=fingerprint(alice))
    assert run.status == 2
    assert f"{fingerprint(alice)} is not revoked: it is alice's, whose token was not rolled out by this run." in said(
        run
    )
    assert alice in lab.tokens()
    run = lab.rotate(old=f" {fingerprint(alice).upper()}")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()]
    lab.store(alice=new, bob="d" * 32)
    run = lab.rotate("--limit", "ws1", old="0a1b2c3d")
    assert run.status == 2
    assert f"0a1b2c3d is not revoked: it is in no list of tokens here, and may be of {USER}, whose list" in said(run)


# -- all around --------------------------------------------------------------------------------------------------------


def test_why_nothing_was_revoked_is_said_in_full_however_many_places_there_are(
    cave: CaveServer, tmp_path: Path
) -> None:
    people = {f"workstation-with-a-long-name-{number:02}": "alice" for number in range(12)}
    lab = make_lab(tmp_path, cave, **people)
    for host in people:
        own = lab.folder / "host_vars" / host / "a-vault-with-a-long-name.yml"
        own.parent.mkdir(parents=True)
        own.write_text(encrypted("vault_cave_token_alice", lab.persons["alice"].token))
    lab.vault.unlink()
    last = list(people)[-1]
    lab.switch_off(last)
    run = lab.rotate(strategy="overlap")
    assert run.status == 2, run.output
    assert f"is not revoked, as it may still be needed: {last}" in said(run), run.output
    notes = json.loads((lab.report / "report.json").read_text())
    assert f"is not revoked, as it may still be needed: {last}" in json.dumps(notes)


def test_a_host_outside_of_the_limit_is_looked_at_with_its_own_settings(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    set_host(lab, "ws2", caveclient_secrets_dir="~/lab/secrets")
    assert lab.rotate().ok
    lab.switch_off("ws1")
    assert lab.rotate(strategy="overlap").status == 2
    lab.switch_on("ws1")
    run = lab.rotate("--limit", "ws1", strategy="overlap")
    # What lies where the other readers look is found as well.
    assert run.status == 2
    assert pending(lab) == ["ws2"]
    for path in lab.secrets("ws2").iterdir():
        path.unlink()
    run = lab.rotate("--limit", "ws1", strategy="overlap")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()]
    assert pending(lab) == []


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_this_machine_alone_and_no_inventory(cave: CaveServer, tmp_path: Path, name: str) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    variables = {
        "caveclient_hosts": name,
        "caveclient_become": False,
        "caveclient_server": cave.url,
        "caveclient_tokens": [{"user": USER, "token": person.token}],
    }
    run = ansible(tmp_path, "playbook", "connectomics.cave.rotate", "-e", json.dumps(variables))
    assert run.ok, run.output
    assert "1 workstation ok (1 updated)" in run.output


def test_provision_after_a_rotation_in_the_same_run_takes_the_new_token(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    old = lab.persons["alice"].token
    role = {"import_role": {"name": "connectomics.cave.caveclient", "tasks_from": "token"}}
    site = [
        {"import_playbook": "connectomics.cave.rotate"},
        {"hosts": "all", "gather_facts": False, "tasks": [role]},
        {"import_playbook": "connectomics.cave.verify"},
    ]
    (lab.folder / "site.yml").write_text(yaml.safe_dump(site))
    run = lab.play("site.yml", caveclient_rotate_strategy="overlap", caveclient_rotate_grace=0.2)
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()] != [old]
    assert lab.saved("ws1") == lab.stored()


def test_a_token_that_two_people_have_is_named_first_unless_it_is_said_whose_it_is(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    lab.write_vault({"vault_cave_token_alice": lab.token, "vault_cave_token_bob": lab.token})
    bob = {"user": "bob", "token": "{{ vault_cave_token_bob }}", "person": "alice@example.org"}
    set_host(lab, "ws2", caveclient_tokens=[bob])
    run = lab.rotate()
    first = said(run).partition(" NOTE ")[2]
    who = " and ".join(sorted([f"{USER} (ws1)", "bob (ws2)"]))
    assert first.strip().startswith(f"{who} have one token, {fingerprint(lab.token)}, which is that of alice.")
    own = {"user": USER, "token": "{{ vault_cave_token_alice }}", "person": "alice@example.org"}
    set_host(lab, "ws1", caveclient_tokens=[own])
    assert "have one token" not in said(lab.rotate())


def test_two_users_of_a_host_with_one_token_are_told_once(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    entry = lab.variables["caveclient_tokens"][0]
    lab.variables["caveclient_tokens"] = [entry, {**entry, "user": "nobody"}]
    lab.store(alice=cave.make_token("alice"))
    run = lab.rotate()
    assert said(run).count("have one token, ") == 1, run.output
    assert "[WARNING]" not in run.output


@pytest.mark.parametrize("playbook", ["rotate", "provision", "verify", "decommission"])
def test_what_a_template_leaves_out_is_not_set(cave: CaveServer, tmp_path: Path, playbook: str) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    out = "{{ omit }}"
    settings = ("ca_path", "datastacks", "profiles", "timeout", "rate", "secrets_dir", "mode", "stale", "fast")
    lab.variables |= {f"caveclient_{name}": out for name in settings}
    odd = {"user": USER, "token": "{{ vault_cave_token_alice }}", "key": out, "person": out, "datastacks": out}
    # Where one entry cannot be read, a rotation reads each of them by itself.
    unread = [{"user": "nobody", "token": "{{ nowhere }}"}] if playbook == "rotate" else []
    set_host(lab, "ws1", caveclient_tokens=[odd, *unread])
    new = lab.token
    if playbook in ("rotate", "provision"):
        lab.store(alice=(new := cave.make_token("alice")))
    options = {"provision": ["--tags", "token"], "decommission": ["-e", f"caveclient_decommission_users={USER}"]}
    run = lab.play(playbook, *options.get(playbook, []))
    assert run.ok or unread, run.output
    assert "Omit" not in run.output
    assert lab.saved("ws1") == (None if playbook == "decommission" else new)


@pytest.mark.parametrize("playbook", ["rotate", "provision", "verify", "audit", "decommission"])
def test_a_host_whose_tokens_a_template_leaves_out_is_one_without_tokens(
    cave: CaveServer, tmp_path: Path, playbook: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice")
    set_host(lab, "ws1", caveclient_tokens="{{ omit }}")
    options = {"provision": ["--tags", "token"]}
    options |= {name: ["-e", f"caveclient_{name}_users={USER}"] for name in ("audit", "decommission")}
    run = lab.play(playbook, *options.get(playbook, []))
    assert run.ok, run.output
    assert "omit" not in run.output.lower(), run.output
    set_host(lab, "ws2", caveclient_tokens="{{ omit }}")
    run = lab.play(playbook, *options.get(playbook, []))
    assert run.ok == (playbook in ("audit", "decommission")), run.output
    if not run.ok:
        assert "caveclient_tokens" in said(run)
        assert blamed(run) == ["localhost"], run.output


@pytest.mark.parametrize("playbook", ["rotate", "provision"])
def test_an_entry_whose_token_is_left_out_is_one_without_a_token(
    cave: CaveServer, tmp_path: Path, playbook: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    own = {"user": USER, "token": "{{ vault_cave_token_alice }}"}
    set_host(lab, "ws1", caveclient_tokens=[{"user": "nobody", "token": "{{ omit }}"}, own])
    run = lab.play(playbook, *(["--tags", "token"] if playbook == "provision" else []))
    assert run.status == 2
    assert "not_saved: ws1 (nobody)" in run.output
    assert "he token is empty." in said(run)
    assert lab.saved("ws1") == lab.token


@pytest.mark.parametrize("playbook", ["rotate", "provision"])
def test_a_token_that_will_expire_is_named_first_and_asked_about_once(
    cave: CaveServer, tmp_path: Path, playbook: str
) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice", ws2="alice", ws3="alice", ws4="bob")
    lab.write_vault({"vault_cave_token_alice": cave.log_in("alice"), "vault_cave_token_bob": lab.persons["bob"].token})
    lab.offer_caveclient()
    cave.clear_requests()
    run = lab.play(playbook, *(["--tags", "token"] if playbook == "provision" else []))
    assert run.ok, run.output
    notes = [line for line in run.output.splitlines() if line.startswith("NOTE")]
    assert "it comes from a browser's login, and ends by itself within a week" in notes[0] + said(run)
    assert notes[0].split()[1].startswith(USER), notes
    assert run.output.count("comes from a browser's login") == 1
    assert len(cave.requests("/auth/api/v1/user/token")) == 2


def test_provision_does_not_fail_where_nobody_can_say_whether_a_token_expires(cave: CaveServer, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, cave, ws1="alice")
    lab.write_vault({"vault_cave_token_alice": cave.make_token("alice")})
    cave.set_fault("/auth/api/v1/user/token", "status", status=500)
    run = lab.play("provision", "--tags", "token")
    assert run.ok, run.output
    assert lab.saved("ws1") == lab.stored()
