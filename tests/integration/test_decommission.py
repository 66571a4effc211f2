# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook decommission on pretend workstations of this machine: nothing of a token is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from homes import DEFAULT_FILE, LEGACY_FILE, OTHER_TOKEN, fill, picture
from lab import USER, Lab, recap, squeezed

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

STACKS = [{"name": "minnie65_public", "local_server": "https://minnie.microns-daf.com"}]
OTHER_FILES = ("old-cave-secret.json", "token.txt")


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, cave, ["ws1", "ws2"])
    lab.variables["caveclient_datastacks"] = STACKS
    done = lab.play("provision", "--tags", "token")
    assert done.ok, done.output
    return lab


def scatter(lab: Lab) -> None:
    """Copies of the token as people and programs leave them."""
    for name in lab.hosts:
        directory = lab.secrets(name)
        copy = (directory / DEFAULT_FILE).read_text()
        for other in (
            f"{DEFAULT_FILE}~",
            f"{DEFAULT_FILE}.bak",
            f".{DEFAULT_FILE}.swp",
            "old-cave-secret.json",
            "token.txt",
        ):
            (directory / other).write_text(copy)
        (directory / LEGACY_FILE).write_text(json.dumps({"token": lab.token, "mine": "kept"}))


def test_nothing_of_the_token_is_left_anywhere(lab: Lab) -> None:
    scatter(lab)
    assert len(lab.holding(lab.token)) == 2 * 9
    done = lab.play("decommission", users=USER, caveclient_report="reports")
    assert done.ok, done.output
    assert lab.holding(lab.token) == []
    assert f"Taken off: {USER} {fingerprint(lab.token)} (2 hosts)." in squeezed(done)
    assert "Revoked on the server: nothing." in squeezed(done)
    for name in lab.hosts:
        assert json.loads((lab.secrets(name) / LEGACY_FILE).read_text()) == {"mine": "kept"}
    again = lab.play("decommission", users=USER)
    assert again.ok, again.output
    assert "Taken off: nothing." in squeezed(again)
    assert "changed=1" not in again.output


def test_hosts_with_odd_names_are_counted_too(lab: Lab) -> None:
    for name, odd in (("ws1", "room 3, left"), ("ws2", "room 3, right")):
        lab.hosts[odd] = {**lab.hosts.pop(name), "ansible_python_interpreter": str(lab.python(name))}
    done = lab.play("decommission", users=USER)
    assert done.ok, done.output
    assert f"Taken off: {USER} {fingerprint(lab.token)} (2 hosts)." in squeezed(done)


def test_check_mode_takes_nothing_off_and_says_what_it_would(lab: Lab) -> None:
    before = [picture(lab.home(name)) for name in lab.hosts]
    done = lab.play("decommission", "--check", "--diff", users=USER, revoke=True)
    assert done.ok, done.output
    assert [picture(lab.home(name)) for name in lab.hosts] == before
    assert lab.tokens() == [lab.token]
    assert f"Would be taken off: {USER} {fingerprint(lab.token)} (2 hosts)." in squeezed(done)
    assert f"Would be revoked on the server: {fingerprint(lab.token)}." in squeezed(done)
    assert "Revoked on the server" not in done.output
    assert "Check mode, nothing was changed" in done.output


def test_everybody_everywhere_has_to_be_asked_for(lab: Lab) -> None:
    done = lab.play("decommission")
    assert done.status == 2
    assert "Refused, and nothing was done. This would take everybody's tokens off all hosts" in squeezed(done)
    assert [host for host, counts in recap(done.output).items() if counts["failed"]] == ["localhost"]
    assert lab.holding(lab.token)
    one = lab.play("decommission", "--limit", "ws1")
    assert one.ok, one.output
    assert {path.split("/")[0] for path in lab.holding(lab.token)} == {"ws2"}
    rest = lab.play("decommission", everywhere=True)
    assert rest.ok, rest.output
    assert lab.holding(lab.token) == []


def test_what_the_inventory_does_not_know_stays_unless_it_is_asked_for(lab: Lab) -> None:
    for name in lab.hosts:
        fill(lab.home(name), {"proofreading.zetta.ai-cave-secret.json": {"token": OTHER_TOKEN, "banc": OTHER_TOKEN}})
    done = lab.play("decommission", users=USER)
    assert done.ok, done.output
    assert lab.holding(lab.token) == []
    assert len(lab.holding(OTHER_TOKEN)) == 2
    done = lab.play("decommission", users=USER, found=True)
    assert done.ok, done.output
    assert lab.holding(OTHER_TOKEN) == []


def test_the_token_is_revoked_when_that_is_asked_for(lab: Lab) -> None:
    other = lab.cave.make_token("alice")
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.ok, done.output
    assert f"Revoked on the server: {fingerprint(lab.token)}." in squeezed(done)
    assert [token["token"] for token in lab.cave.tokens("alice")] == [other]
    again = lab.play("decommission", users=USER, revoke=True)
    assert again.ok, again.output
    assert "Revoked on the server: nothing." in squeezed(again)


def test_a_token_that_was_found_is_revoked_with_the_one_of_the_vault(lab: Lab) -> None:
    leaked, laptop = lab.cave.make_token("alice", "leaked"), lab.cave.make_token("alice", "a laptop's")
    copies = [lab.secrets(host) / "old-cave-secret.json" for host in ("ws1", "ws2")]
    for copy in copies:
        copy.write_text(json.dumps({"token": leaked}))
    arguments: dict[str, Any] = {"users": USER, "found": True, "revoke": True}
    predicted = lab.play("decommission", "--check", **arguments)
    both = " and ".join(sorted(map(fingerprint, (leaked, lab.token))))
    kept = lab.play("decommission", "--limit", "ws1", **arguments)
    assert kept.status == 2
    assert f"{fingerprint(leaked)} ({USER}) is not revoked, as it may still be needed: ws2" in squeezed(kept)
    assert lab.tokens() == [laptop, leaked, lab.token]
    done = lab.play("decommission", **arguments)
    assert done.ok, done.output
    assert lab.tokens() == [laptop]
    for run, says in ((predicted, "Would be revoked"), (done, "Revoked")):
        revoked = squeezed(run).partition(f"{says} on the server: ")[2].partition(".")[0]
        assert " and ".join(sorted(revoked.split(", "))) == both, run.output
    assert f"alice still has other tokens on the server: {fingerprint(laptop)} (a laptop's)." in squeezed(done)


def test_the_token_of_the_vault_is_kept_while_one_that_was_found_has_to_be_revoked_with_it(lab: Lab) -> None:
    leaked = lab.cave.make_token("alice", "leaked")
    for host in lab.hosts:
        (lab.secrets(host) / "cave-secret.json").write_text(json.dumps({"token": leaked}))
    lab.variables["caveclient_retries"] = 0
    lab.cave.set_fault("/auth/api/v1/user/token", "status", status=503, times=1, method="DELETE")
    run = lab.play("decommission", users=USER, revoke=True)
    assert run.status == 2, run.output
    assert lab.holding(leaked) == lab.holding(lab.token) == []
    assert lab.tokens() == [leaked, lab.token]
    found, given = fingerprint(leaked), fingerprint(lab.token)
    assert f"{found} ({USER}) is not revoked: {lab.cave.url}" in squeezed(run)
    assert f"As no further run finds it, revoke it on {lab.cave.url}/sticky_auth/settings/tokens, or by" in squeezed(
        run
    )
    assert f"(state: absent, fingerprint: {found}) with the token {given}, which is kept for that." in squeezed(run)
    assert f"{given} ({USER}) is not revoked: with it, {found} has to be revoked first." in squeezed(run)
    lab.cave.revoke(leaked)
    assert lab.play("decommission", users=USER, revoke=True).ok
    assert lab.tokens() == []


def test_a_token_that_was_found_and_that_nobody_lists_is_named(lab: Lab) -> None:
    lab.cave.add_person("mallory", ["minnie65_public"])
    strange = lab.cave.make_token("mallory")
    (lab.secrets("ws1") / "old-cave-secret.json").write_text(json.dumps({"token": strange}))
    done = lab.play("decommission", users=USER, found=True, revoke=True)
    assert done.ok, done.output
    assert lab.holding(strange) == []
    assert f"{fingerprint(strange)} ({USER}) is in nobody's list of tokens here" in squeezed(done)


def test_a_token_that_was_found_is_not_passed_over_where_the_one_in_the_vault_is_dead(lab: Lab) -> None:
    """It is alive, and the same person's: only the list says so, which a dead token does not get."""
    newer = lab.cave.make_token("alice", "newer")
    lab.save(newer)
    lab.cave.revoke(lab.token)
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.status == 2
    assert lab.holding(newer) == []
    assert f"{fingerprint(newer)} ({USER}) is not revoked: it may be of the same person as the token" in squeezed(done)
    assert f"Whoever has the account can revoke it on {lab.cave.url}/sticky_auth/settings/tokens." in squeezed(done)
    assert lab.tokens() == [newer]


def test_a_value_that_ends_in_a_newline_is_the_same_token(lab: Lab) -> None:
    lab.store(alice=f"{lab.token}\n")
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.ok, done.output
    assert lab.tokens() == []


def test_a_token_that_others_hold_is_not_revoked_unless_it_is_forced(lab: Lab) -> None:
    done = lab.play("decommission", "--limit", "ws1", users=USER, revoke=True)
    assert done.status == 2
    assert f"as it may still be needed: ws2 ({USER}: {lab.secrets('ws2')}/" in squeezed(done)
    assert f"; its variables name {fingerprint(lab.token)} for {USER}). Take it off there as well" in squeezed(done)
    assert lab.tokens() == [lab.token]
    assert {path.split("/")[0] for path in lab.holding(lab.token)} == {"ws2"}
    forced = lab.play("decommission", "--limit", "ws1", users=USER, revoke=True, force=True)
    assert forced.ok, forced.output
    assert lab.tokens() == []


def test_another_account_that_has_the_token_keeps_it_alive(lab: Lab) -> None:
    entries = lab.variables["caveclient_tokens"]
    lab.variables["caveclient_tokens"] = [*entries, {**entries[0], "user": "guest", "state": "present"}]
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.status == 2
    assert f"ws1, ws2 (its variables name {fingerprint(lab.token)} for guest)" in squeezed(done)
    assert lab.tokens() == [lab.token]


def test_a_host_that_may_have_the_token_though_its_variables_name_a_newer_one_keeps_it_alive(lab: Lab) -> None:
    newer = lab.cave.make_token("alice", "newer")
    lab.write_vault({"vault_cave_token_alice": lab.token, "vault_newer": newer})
    lab.hosts["ws2"]["caveclient_tokens"] = [{"user": USER, "token": "{{ vault_newer }}"}]
    lab.switch_off("ws2")
    arguments: dict[str, Any] = {"users": USER, "revoke": True}
    kept = lab.play("decommission", "--limit", "ws1", **arguments)
    assert kept.status == 2
    assert f"{fingerprint(lab.token)} ({USER}) is not revoked, as it may still be needed: ws2 (" in squeezed(kept)
    lab.switch_on("ws2")
    seen = lab.play("decommission", "--limit", "ws1", **arguments)
    assert seen.status == 2
    assert f"ws2 ({USER}: {lab.secrets('ws2')}/" in squeezed(seen)
    assert lab.token in lab.tokens()
    (lab.secrets("ws2") / "minnie.microns-daf.com-cave-secret.json").unlink()
    lab.save(newer, "ws2")
    done = lab.play("decommission", "--limit", "ws1", **arguments)
    assert done.ok, done.output
    assert lab.tokens() == [newer]


def test_a_copy_on_a_host_whose_variables_do_not_name_the_person_keeps_the_token_alive(lab: Lab) -> None:
    stranger = lab.cave.add_person("bob", ["minnie65_public"]).token
    lab.write_vault({"vault_cave_token_alice": lab.token, "vault_bob": stranger})
    lab.hosts["ws2"]["caveclient_tokens"] = [{"user": "bob", "token": "{{ vault_bob }}"}]
    copy = lab.secrets("ws2") / "mine.json"
    copy.write_text(json.dumps({"token": lab.token}))
    for name in (DEFAULT_FILE, lab.server_file):
        (lab.secrets("ws2") / name).unlink()
    done = lab.play("decommission", "--limit", "ws1", users=USER, revoke=True)
    assert done.status == 2
    assert f"{USER}: {copy} has {fingerprint(lab.token)} as token" in squeezed(done).partition("needed: ws2 (")[2]
    assert lab.tokens() == [lab.token]


def test_all_tokens_of_all_keys_and_servers_are_revoked(lab: Lab) -> None:
    second = lab.cave.make_token("alice", "of a dataset")
    third = lab.cave.make_token("alice", "a laptop's")
    elsewhere = lab.cave.url.replace("127.0.0.1", "localhost")
    lab.write_vault({"vault_cave_token_alice": lab.token, "vault_second": second})
    lab.variables["caveclient_tokens"] = [
        {"user": USER, "token": "{{ vault_cave_token_alice }}"},
        {"user": USER, "token": "{{ vault_second }}", "key": "banc"},
        {"user": USER, "token": "{{ vault_second }}", "server": elsewhere},
        {"user": USER, "token": "{{ vault_second }}", "key": "fanc"},
    ]
    assert lab.play("provision", "--tags", "token").ok
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.ok, done.output
    assert lab.tokens() == [third]
    assert f"{USER} {fingerprint(second)} ({len(lab.hosts)} host" in squeezed(done)
    assert f"alice still has other tokens on the server: {fingerprint(third)} (a laptop's)." in squeezed(done)
    deleted = [item for item in lab.cave.requests("/auth/api/v1/user/token") if item["method"] == "DELETE"]
    assert len(deleted) == 2


def test_a_token_that_the_vault_does_not_give_is_not_revoked_and_that_is_said(lab: Lab) -> None:
    lab.variables["caveclient_tokens"] = [{"user": USER, "token": "{{ nowhere }}"}]
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.status == 2
    assert f"Not revoked, since the vault does not have the token, or does not open, for {USER}" in squeezed(done)
    assert lab.holding(lab.token) == []
    assert lab.cave.tokens("alice")


def test_an_entry_that_cannot_be_read_may_name_a_token_that_is_not_revoked(lab: Lab) -> None:
    bob = lab.cave.add_person("bob", ["minnie65_public"])
    lab.save(bob.token, "ws2")
    lab.hosts["ws2"]["caveclient_tokens"] = [{"user": USER, "token": "{{ nowhere }}"}]
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.status == 2
    assert "cannot be read on ws2 (entry 1 of caveclient_tokens: it cannot be read" in squeezed(done)
    assert lab.tokens() == []
    assert lab.holding(bob.token) == []
    assert [item["token"] for item in lab.cave.tokens("bob")] == [bob.token]
    lab.hosts["ws2"]["caveclient_tokens"] = [{"user": USER, "token": "{{ vault_cave_token_bob }}"}]
    lab.store(alice=lab.token, bob=bob.token)
    done = lab.play("decommission", users=USER, revoke=True)
    assert done.ok, done.output
    assert lab.tokens("bob") == []


def test_the_environment_goes_when_that_is_asked_for(lab: Lab) -> None:
    for name in lab.hosts:
        build = lab.folder / name / "opt" / "caveclient" / "builds" / "one"
        build.mkdir(parents=True)
        (build.parent.parent / "current").symlink_to("builds/one")
    done = lab.play("decommission", "--limit", "ws1")
    assert done.ok, done.output
    assert (lab.folder / "ws1" / "opt" / "caveclient" / "current").is_symlink()
    done = lab.play("decommission", "--limit", "ws1", environment=True)
    assert done.ok, done.output
    assert not (lab.folder / "ws1" / "opt" / "caveclient" / "current").is_symlink()
    assert (lab.folder / "ws2" / "opt" / "caveclient" / "current").is_symlink()


def test_a_token_in_another_place_that_programs_read_is_not_passed_over(lab: Lab) -> None:
    elsewhere = lab.home("ws1") / ".neuroglancer" / "secrets"
    elsewhere.mkdir(parents=True)
    (elsewhere / DEFAULT_FILE).write_text(json.dumps({"token": lab.token}))
    done = lab.play("decommission", users=USER)
    assert done.status == 2
    assert f"rm {elsewhere / DEFAULT_FILE}" in squeezed(done)
    assert "A token is left" in squeezed(done)
