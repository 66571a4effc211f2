# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook rotate on pretend workstations, with the real ansible-playbook and the stand-in server."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_run import Run
from lab import OFF, USER, Lab

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import request
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    """Three workstations of Alice's, which have her token."""
    lab = Lab(tmp_path, cave, {"ws1": "alice", "ws2": "alice", "ws3": "alice"})
    lab.save(lab.persons["alice"].token)
    return lab


def said(output: str) -> str:
    """An output without its line breaks."""
    return " ".join(output.split())


def assert_rotated(lab: Lab, old: str, person: str = "alice") -> str:
    """Check that one new token is everywhere, that it is the only one, and return it."""
    (new,) = lab.tokens(person)
    assert new != old
    assert lab.stored(person) == new
    hosts = [host for host, owner in lab.people.items() if owner == person]
    assert [lab.saved(host) for host in hosts] == [new] * len(hosts)
    return new


def assert_unchanged(run: Run, lab: Lab) -> None:
    """Check that a run has changed nothing on any host."""
    assert [bool(re.search(rf"^{host} .*changed=0 .*failed=0", run.output, re.MULTILINE)) for host in lab.hosts] == [
        True
    ] * len(lab.hosts)


def ask(lab: Lab, token: str) -> int:
    """The status of the auth server's answer to somebody who uses a token."""
    return request("GET", f"{lab.cave.url}/auth/api/v1/user/cache", token, timeout=10).status


def assert_untouched(lab: Lab, saved: str) -> None:
    assert [lab.saved(host) for host in lab.hosts] == [saved] * len(lab.hosts)


# -- overlap -----------------------------------------------------------------------------------------------------------


def test_overlap_makes_stores_rolls_out_proves_and_revokes_and_then_nothing_is_left_to_do(lab: Lab) -> None:
    old = lab.persons["alice"].token
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.ok, run.output
    new = assert_rotated(lab, old)
    assert lab.cave.tokens("alice")[0]["description"] == f"spring (replaces {fingerprint(old)})"
    assert "up to five minutes" in said(run.output)
    assert lab.vault.read_text().startswith("# the lab's tokens\nvault_cave_token_alice: !vault |\n")
    again = lab.rotate(strategy="overlap", name="spring")
    assert again.ok, again.output
    assert_unchanged(again, lab)
    assert lab.tokens() == [new]


def test_an_overlap_makes_no_token_while_all_its_hosts_are_off_and_the_next_run_does(lab: Lab) -> None:
    old = lab.persons["alice"].token
    for host in lab.hosts.values():
        host.update(OFF)
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.status == 2, run.output
    assert "No token was made: no host could get it now: ws1" in said(run.output)
    assert "0 workstations ok, 3 pending" in run.output
    assert (lab.report / "pending").read_text() == "ws1\nws2\nws3\n"
    assert (lab.tokens(), lab.stored()) == ([old], old)
    for host in lab.hosts.values():
        for setting in OFF:
            del host[setting]
    again = lab.rotate(strategy="overlap", name="spring")
    assert again.ok, again.output
    assert_rotated(lab, old)


def test_an_overlap_makes_no_token_that_no_host_could_save_and_one_for_the_hosts_that_can(lab: Lab) -> None:
    old = lab.persons["alice"].token
    files = {host: lab.secrets(host) / "cave-secret.json" for host in lab.hosts}
    good = {host: path.read_text() for host, path in files.items()}
    for path in files.values():
        path.write_text("{")
    for check in ([], ["--check"]):
        run = lab.rotate(*check, strategy="overlap")
        assert run.status == 2, run.output
        assert "No token was made: no host could get it now: ws1, ws2, ws3 (" in said(run.output)
        assert "is not JSON" in said(run.output)
        assert (lab.tokens(), lab.stored()) == ([old], old)
    for host in ("ws2", "ws3"):
        files[host].write_text(good[host])
    run = lab.rotate(strategy="overlap")
    assert run.status == 2, run.output
    (new,) = set(lab.tokens()) - {old}
    assert [lab.saved(host) for host in ("ws2", "ws3")] == [new] * 2
    files["ws1"].write_text(good["ws1"])
    assert lab.rotate(strategy="overlap").ok
    assert_rotated(lab, old)


def test_check_mode_predicts_and_changes_nothing(lab: Lab) -> None:
    old = lab.persons["alice"].token
    before = lab.vault.read_bytes()
    run = lab.rotate("--check", "--diff", strategy="overlap")
    assert run.ok, run.output
    assert "A new token would be made" in said(run.output)
    assert f"would be kept as vault_cave_token_alice in {lab.vault}" in said(run.output)
    assert run.output.count("changed=1") >= 2
    assert (lab.tokens(), lab.vault.read_bytes()) == ([old], before)
    assert_untouched(lab, old)
    assert not lab.report.exists()


def test_a_host_outside_of_the_limit_that_cannot_be_looked_at_keeps_the_old_token_alive(lab: Lab) -> None:
    old = lab.persons["alice"].token
    refused = lab.rotate("--limit", "ws1,ws3", strategy="overlap")
    assert not refused.ok
    assert f"No token was made: ws2 may hold {fingerprint(old)} too and is not in this run" in said(refused.output)
    assert lab.tokens() == [old]
    lab.switch_off("ws2")
    assert not lab.rotate(strategy="overlap").ok
    assert (lab.report / "pending").read_text() == "ws2\n"
    lab.switch_on("ws2")
    run = lab.rotate("--limit", "ws1", strategy="overlap")
    assert not run.ok
    assert (lab.report / "pending").read_text() == "ws2\n"
    assert f"ws2 ({USER}: outside of this run, without" in said(run.output)
    assert old in lab.tokens()
    assert lab.rotate(strategy="overlap").ok
    assert_rotated(lab, old)


@contextmanager
def used(lab: Lab, token: str) -> Iterator[None]:
    """Somebody who is in no inventory uses a token."""
    stop = threading.Event()

    def use() -> None:
        while not stop.wait(0.3):
            ask(lab, token)

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_somebody_outside_of_the_inventory_who_uses_the_old_token_keeps_it_alive(lab: Lab) -> None:
    old = lab.persons["alice"].token
    with used(lab, old):
        run = lab.rotate(strategy="overlap", grace=3)
        assert not run.ok
        assert "Somebody outside of the inventory still uses it: last at 20" in said(run.output)
        assert old in lab.tokens()
        assert "3 workstations ok" in run.output
        forced = lab.rotate("-e", "caveclient_rotate_revoke=even_if_used", strategy="overlap", grace=3)
    assert forced.ok, forced.output
    assert_rotated(lab, old)


def test_a_token_stays_as_long_as_the_one_that_it_replaced_is_used(lab: Lab) -> None:
    """Nothing else leads a later run to that one, which would live for ever, with exit status 0."""
    old = lab.persons["alice"].token
    lab.switch_off("ws2")
    assert not lab.rotate(strategy="overlap", name="spring").ok
    spring = lab.stored()
    lab.switch_on("ws2")
    with used(lab, old):
        run = lab.rotate(strategy="overlap", name="autumn", grace=3)
    assert not run.ok
    assert f"a later run needs it to find {fingerprint(old)}." in said(run.output)
    assert {old, spring} < set(lab.tokens())
    run = lab.rotate(strategy="overlap", name="autumn")
    assert run.ok, run.output
    assert lab.tokens() == [lab.stored()]


def test_where_a_new_token_kills_the_old_one_all_hosts_get_it_at_once(lab: Lab) -> None:
    lab.cave.configure(legacy=True)
    run = lab.rotate(strategy="overlap")
    assert run.ok, run.output
    assert "The server has killed the old one" in said(run.output)
    assert_rotated(lab, lab.persons["alice"].token)
    assert "TASK [Save the tokens on the canary host" not in run.output


def test_two_people_are_rotated_in_one_run_and_one_ones_trouble_is_not_the_others(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, cave, {"ws1": "alice", "ws2": "bob", "ws3": "bob"})
    for host, person in lab.people.items():
        lab.save(lab.persons[person].token, host)
    old = {name: person.token for name, person in lab.persons.items()}
    cave.revoke(old["bob"])
    run = lab.rotate(strategy="overlap")
    assert not run.ok
    assert_rotated(lab, old["alice"])
    assert [lab.saved(host) for host in ("ws2", "ws3")] == [old["bob"]] * 2
    assert lab.stored("bob") == old["bob"]
    assert "does not accept the token" in said(run.output)


STORE = """
- name: Set a fact as playbooks do
  ansible.builtin.set_fact:
    entry: "{{ caveclient_rotated.users | first }}-{{ caveclient_rotated.given }}"
  run_once: true
- name: Look who runs this, and where
  ansible.builtin.command: sh -c 'echo "$HOME"'
  register: who
  changed_when: false
- name: Keep it
  ansible.builtin.copy:
    content: "TOKEN\\n"
    dest: "{{ inventory_dir }}/safe-{{ entry }}"
    mode: "0600"
  when: who is success and who.stdout == lookup('ansible.builtin.env', 'HOME')
  delegate_to: localhost
  no_log: true
"""
OPENED = "{{ lookup('connectomics.cave.rotated_token', caveclient_rotated.sealed) }}"


def with_safes(cave: CaveServer, folder: Path) -> Lab:
    """A lab whose tokens are in files that Ansible reads each time."""
    lab = Lab(folder, cave, {"ws1": "alice", "ws2": "bob", "ws3": "alice"})
    for host, person in lab.people.items():
        token = lab.persons[person].token
        lab.save(token, host)
        (folder / f"safe-{USER}-{fingerprint(token)}").write_text(token)
        lab.hosts[host]["safe"] = f"safe-{USER}-{fingerprint(token)}"
    entry = {"user": USER, "token": "{{ lookup('ansible.builtin.file', inventory_dir ~ '/' ~ safe) }}"}
    lab.variables["caveclient_tokens"] = [entry]
    return lab


def test_the_labs_own_tasks_store_each_new_token_with_what_tasks_usually_do(cave: CaveServer, tmp_path: Path) -> None:
    lab = with_safes(cave, tmp_path)
    (lab.folder / "store.yml").write_text(STORE.replace("TOKEN", OPENED))
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.ok, run.output
    for host, person in lab.people.items():
        (new,) = lab.tokens(person)
        assert new != lab.persons[person].token
        assert lab.saved(host) == new
        assert (lab.folder / str(lab.hosts[host]["safe"])).read_text() == f"{new}\n"
        assert lab.stored(person) == lab.persons[person].token


def test_a_store_that_gives_something_else_than_was_stored_stops_the_token_before_any_host_has_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = with_safes(cave, tmp_path)
    (lab.folder / "store.yml").write_text(STORE.replace("TOKEN", "f" * 32))
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.status == 2
    assert f"what caveclient_tokens gives now is {fingerprint('f' * 32)}" in said(run.output)
    for host, person in lab.people.items():
        old = lab.persons[person].token
        assert (lab.saved(host), old in lab.tokens(person)) == (old, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no list of tasks"),
        ("name: Store it\n", "is no list of tasks"),
        ("- hosts: all\n  tasks: []\n", "something else than tasks"),
        ("- name: [\n", "cannot be read"),
    ],
)
def test_a_file_of_tasks_that_could_not_run_is_refused_before_a_token_is_made(lab: Lab, text: str, says: str) -> None:
    (lab.folder / "store.yml").write_text(text)
    run = lab.rotate(strategy="overlap", store_tasks="store.yml")
    assert run.status == 2
    assert "Refused, and nothing was done. caveclient_rotate_store_tasks names " in said(run.output)
    assert says in said(run.output)
    assert lab.tokens() == [lab.token]


def test_a_store_that_still_gives_the_old_token_stops_the_new_one_before_any_host_has_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = with_safes(cave, tmp_path)
    store = lab.folder / "store.yml"
    store.write_text("- ansible.builtin.debug:\n    msg: stored\n")
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.status == 2
    for host, person in lab.people.items():
        old = lab.persons[person].token
        assert f"what caveclient_tokens gives now is {fingerprint(old)}." in said(run.output)
        assert (lab.saved(host), old in lab.tokens(person)) == (old, True)
    store.write_text(STORE.replace("TOKEN", OPENED))
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.ok, run.output
    for host, person in lab.people.items():
        assert [lab.saved(host)] == lab.tokens(person) != [lab.persons[person].token]


def test_a_store_that_one_host_does_not_read_stops_the_new_token_before_any_host_has_it(
    cave: CaveServer, tmp_path: Path
) -> None:
    lab = with_safes(cave, tmp_path)
    old = lab.token
    (tmp_path / "own-safe").write_text(old)
    lab.hosts["ws3"]["safe"] = "own-safe"
    (lab.folder / "store.yml").write_text(STORE.replace("TOKEN", OPENED))
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.status == 2
    assert f"what caveclient_tokens gives now on ws3 is {fingerprint(old)}." in said(run.output)
    assert [lab.saved(host) for host in ("ws1", "ws3")] == [old, old]
    assert [lab.saved("ws2")] == lab.tokens("bob") != [lab.persons["bob"].token]
    del lab.hosts["ws3"]["safe"]
    lab.hosts["ws3"]["safe"] = lab.hosts["ws1"]["safe"]
    run = lab.rotate(strategy="overlap", store_tasks="store.yml", other_person=True)
    assert run.ok, run.output
    assert [lab.saved(host) for host in ("ws1", "ws3")] == 2 * lab.tokens() != [old, old]


def test_when_the_labs_own_tasks_fail_no_host_gets_the_new_token_and_the_next_run_stores_it(lab: Lab) -> None:
    old = lab.persons["alice"].token
    store = lab.folder / "store.yml"
    store.write_text("- ansible.builtin.fail:\n    msg: the safe is locked\n")
    run = lab.rotate(strategy="overlap", store_tasks=str(store))
    assert not run.ok
    assert "the safe is locked" in run.output
    assert_untouched(lab, old)
    made = lab.tokens()
    assert len(made) == 2
    store.write_text(
        "- connectomics.cave.vault_variable:\n"
        f"    path: {lab.vault}\n    name: vault_cave_token_alice\n"
        "    value: \"{{ lookup('connectomics.cave.rotated_token', caveclient_rotated.sealed) }}\"\n"
    )
    run = lab.rotate(strategy="overlap", store_tasks=str(store))
    assert run.ok, run.output
    assert assert_rotated(lab, old) == made[0]


# -- cutover -----------------------------------------------------------------------------------------------------------


def test_after_a_refresh_one_command_puts_the_new_token_everywhere(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.write_vault({"vault_cave_token_alice": lab.cave.refresh("alice")})
    run = lab.rotate()
    assert run.ok, run.output
    assert_rotated(lab, old)
    assert f"It replaces {fingerprint(old)}, which is not among that person's tokens any more." in said(run.output)
    again = lab.rotate()
    assert again.ok, again.output
    assert_unchanged(again, lab)


def test_where_vault_and_hosts_agree_nothing_is_made_however_old_a_token_is(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.cave.advance(365 * 86400)
    assert lab.rotate().ok
    run = lab.rotate()
    assert run.ok, run.output
    assert "The hosts have the tokens of the vault. To make new ones: ansible-playbook" in said(run.output)
    assert_unchanged(run, lab)
    assert lab.tokens() == [old]


def test_a_replaced_token_that_is_alive_is_named_with_the_command_that_revokes_it(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.write_vault({"vault_cave_token_alice": lab.cave.make_token("alice")})
    run = lab.rotate()
    assert run.ok, run.output
    assert f"It replaces {fingerprint(old)}, which the server still accepts" in said(run.output)
    command = f"connectomics.cave.rotate -e caveclient_rotate_old={fingerprint(old)}"
    assert f"ansible-playbook -i hosts.yml --vault-password-file password {command}" in said(run.output)
    assert old in lab.tokens()
    lab.save(old, "ws2")
    lab.switch_off("ws2")
    kept = lab.rotate(old=fingerprint(old))
    assert not kept.ok
    assert f"The old token {fingerprint(old)} is not revoked, as it may still be needed: ws2" in said(kept.output)
    assert old in lab.tokens()
    lab.switch_on("ws2")
    revoked = lab.rotate(old=fingerprint(old))
    assert revoked.ok, revoked.output
    assert_rotated(lab, old)


def test_an_overlap_follows_each_year_and_makes_no_second_token_in_between(lab: Lab) -> None:
    for _year in range(2):
        old = lab.tokens()[0]
        lab.cave.advance(365 * 86400)
        run = lab.rotate(strategy="overlap")
        assert run.ok, run.output
        assert_rotated(lab, old)
        again = lab.rotate(strategy="overlap")
        assert again.ok, again.output
        assert_unchanged(again, lab)


def test_a_broken_first_host_does_not_keep_the_others_from_the_new_token(lab: Lab) -> None:
    lab.write_vault({"vault_cave_token_alice": lab.cave.refresh("alice")})
    (lab.secrets("ws1") / "cave-secret.json").write_text("{")
    run = lab.rotate(strategy="cutover")
    assert not run.ok
    (new,) = lab.tokens()
    assert [lab.saved(host) for host in ("ws2", "ws3")] == [new] * 2
    assert (lab.report / "pending").read_text() == "ws1\n"


def test_when_the_named_first_host_fails_no_other_is_touched(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.write_vault({"vault_cave_token_alice": lab.cave.refresh("alice")})
    (lab.secrets("ws2") / "cave-secret.json").write_text("{")
    run = lab.rotate(strategy="cutover", canary=["ws2"])
    assert not run.ok
    assert "Rollout stopped: the canary host failed" in said(run.output)
    assert [lab.saved(host) for host in ("ws1", "ws3")] == [old] * 2


# -- wrong on purpose --------------------------------------------------------------------------------------------------


def test_a_dead_token_is_refused_before_any_host_is_touched(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.write_vault({"vault_cave_token_alice": "0" * 32})
    for strategy in ("cutover", "overlap"):
        run = lab.rotate(strategy=strategy)
        assert not run.ok
        assert "does not accept the token" in said(run.output)
        assert not re.search(r"secrets files\] \*+\n(ok|changed|fatal)", run.output)
    assert_untouched(lab, old)


def test_a_colleagues_token_is_refused_unless_told_otherwise(cave: CaveServer, tmp_path: Path) -> None:
    lab = Lab(tmp_path, cave, {"ws1": "alice", "ws2": "bob"})
    old = {name: person.token for name, person in lab.persons.items()}
    for host, person in lab.people.items():
        lab.save(old[person], host)
    lab.write_vault({"vault_cave_token_alice": old["bob"], "vault_cave_token_bob": old["bob"]})
    run = lab.rotate(strategy="cutover")
    assert not run.ok
    assert f"The token for {USER} is that of bob" in said(run.output)
    assert "the one that ws1 has is of another person" in said(run.output)
    assert [lab.saved(host) for host in lab.hosts] == [old["alice"], old["bob"]]
    told = lab.rotate(strategy="cutover", other_person=True)
    assert told.ok, told.output
    assert [lab.saved(host) for host in lab.hosts] == [old["bob"], old["bob"]]


def test_a_token_for_another_server_is_refused(lab: Lab) -> None:
    old = lab.persons["alice"].token
    with CaveServer() as other:
        lab.write_vault({"vault_cave_token_alice": other.add_person("alice", ["minnie65_public"]).token})
        run = lab.rotate()
    assert not run.ok
    assert "is of another server" in said(run.output)
    assert_untouched(lab, old)


def test_an_unreachable_server_is_said_and_no_host_is_touched(lab: Lab) -> None:
    old = lab.persons["alice"].token
    lab.variables.update(caveclient_server="http://127.0.0.1:9", caveclient_retries=0)
    run = lab.rotate()
    assert not run.ok
    assert "Cannot ask" in said(run.output)
    assert_untouched(lab, old)


def test_without_a_vault_password_nothing_is_made(lab: Lab) -> None:
    old = lab.persons["alice"].token
    run = lab.rotate(with_password=False)
    assert not run.ok
    assert "The hosts have the tokens of the vault" not in said(run.output)
    assert lab.tokens() == [old]
    assert_untouched(lab, old)


# -- killed, and together ----------------------------------------------------------------------------------------------


def making(lab: Lab) -> subprocess.Popen[str]:
    """Start a rotation, and return when the server has made its token and is about to say so."""
    lab.cave.set_fault("/auth/api/v1/user/token", "drip", method="POST", interval=0.2)
    process = lab.start(strategy="overlap", name="spring")
    deadline = time.monotonic() + 60
    while len(lab.tokens()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("of_it", ["all of it", "the main process alone"])
def test_killed_between_the_servers_answer_and_the_vault_the_token_is_found_again(lab: Lab, of_it: str) -> None:
    old = lab.persons["alice"].token
    process = making(lab)
    lab.kill(process, workers=of_it == "all of it")
    lab.cave.clear_faults()
    made = lab.tokens()[0]
    # A process that does a task outlives the main one: it may store the token while the next run is on its way, and
    # ask with the old one after all hosts have the new one. Then it is what it seems, somebody who still uses it.
    run = lab.rotate(strategy="overlap", name="spring")
    if of_it == "the main process alone" and "still uses it" in said(run.output):
        run = lab.rotate(strategy="overlap", name="spring")
    assert run.ok, run.output
    assert assert_rotated(lab, old) == made


def test_a_token_whose_place_somebody_else_takes_while_it_is_made_goes_to_no_host(lab: Lab) -> None:
    """Nobody would find it in the vault again."""
    old = lab.persons["alice"].token
    process = making(lab)
    mine = lab.cave.make_token("alice", "by hand")
    lab.store(alice=mine)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert "A token was made and could not be stored: somebody has put another one" in said(output)
    assert f"as 'spring (replaces {fingerprint(old)})'" in said(output)
    assert old in lab.tokens()
    assert lab.stored() == mine
    assert_untouched(lab, old)


def test_two_rotations_at_the_same_time_end_with_one_new_token(lab: Lab) -> None:
    old = lab.persons["alice"].token
    first = lab.start(strategy="overlap", name="spring")
    second = lab.start(strategy="overlap", name="spring")
    outputs = [process.communicate(timeout=150)[0] for process in (first, second)]
    assert 0 in (first.returncode, second.returncode), "\n".join(outputs)
    new = lab.stored()
    assert new is not None
    assert new in lab.tokens()
    assert [lab.saved(host) for host in lab.hosts] == [new] * 3
    run = lab.rotate(strategy="overlap", name="spring")
    assert run.ok, run.output
    assert assert_rotated(lab, old) == new
