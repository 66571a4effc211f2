# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation decides from what it finds. That it locks nobody out, whatever happens, is in ``test_model``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import (
    NEW_FOR,
    decide,
    old_token,
    to_rehearse,
    used_since,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.holders import taken_off
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import (
    DEFAULT_NAME,
    description,
    replaces,
    rotation_name,
    successor,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Entry,
    Inventory,
    Known,
    Listed,
    Place,
    Request,
    Rotation,
    Seen,
)

SERVER, NOW = "https://cave.example.org", 1_800_000_000.0
OLD, NEW, OTHER, THIRD = "aaaaaaa1", "bbbbbbb2", "ccccccc3", "ddddddd4"


def entry(host: str = "ws1", user: str = "alice", token: str = OLD, server: str = SERVER) -> Entry:
    return Entry(host, 0, user, server, "token", token)


def listed(token: str, number: int, text: str = "by hand", age: float = 10 * NEW_FOR, **more: Any) -> Listed:
    return Listed(token, number, text, NOW - age, more.get("last_used"))


OLD_ONE = listed(OLD, 1)
NEW_ONE = listed(NEW, 2, description("spring", OLD), age=60)


def account(*tokens: Listed, person: int = 3, **more: Any) -> Account:
    return Account(True, person=person, name="Alice", tokens=tokens, now=NOW, **{"two_live": True, **more})


def has(*places: tuple[str, str], **more: Any) -> Seen:
    """What a host has: users and tokens."""
    return Seen(tuple(Place(user, "cave-secret.json", "token", token) for user, token in places), **more)


def decided(
    entries: list[Entry], accounts: dict[str, Account], seen: Mapping[str, Seen | str] | None = None, **request: Any
) -> list[Rotation]:
    hosts = tuple(dict.fromkeys(item.host for item in entries))
    vault = {item.token: (f"vault of {item.host}",) for item in entries}
    held = {host: has(*((item.user, item.token) for item in entries if item.host == host)) for host in hosts}
    found = held if seen is None else seen
    asked = Request(**{"hosts": hosts, "strategy": "overlap", **request})
    return list(decide(Known(Inventory(hosts, tuple(entries), vault=vault), found, accounts, asked)))


def one(token: str, *tokens: Listed, **request: Any) -> Rotation:
    (found,) = decided([entry(token=token)], {token: account(*tokens)}, **request)
    return found


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_a_description_says_which_token_it_replaces(kept: bool) -> None:
    text = description("spring", OLD, kept)
    assert (rotation_name(text), replaces(text)) == ("spring", OLD)
    assert rotation_name(description("", OLD)) == DEFAULT_NAME


@pytest.mark.parametrize("text", ["", "spring", "spring (replaces )", "(replaces 3fa9c2d1)", "x (replaces 3fa9c2d1) y"])
def test_any_other_description_is_that_of_no_rotation(text: str) -> None:
    assert (rotation_name(text), replaces(text)) == (None, None)


def test_a_name_that_is_too_long_is_refused_with_the_length_that_fits() -> None:
    assert len(description("x" * 100, OLD)) == 120
    with pytest.raises(CaveError, match="has 101 characters; it may have 100"):
        description("x" * 101, OLD)


def test_of_several_successors_every_run_takes_the_oldest() -> None:
    others = [listed(NEW, 7, description("a", OLD)), listed(OTHER, 5, description("b", OLD))]
    found = successor(others, OLD)
    assert found is not None
    assert found.id == 5


# -- the state after a kill, moment by moment --------------------------------------------------------------------------


def test_somebody_elses_description_takes_no_token_of_mine() -> None:
    entries = [entry("ws1", "alice", NEW), entry("ws1", "mallory", OLD)]
    accounts = {NEW: account(NEW_ONE), OLD: account(OLD_ONE, person=4)}
    assert [item.tokens for item in decided(entries, accounts)] == [(NEW,), (OLD,)]


def test_a_host_that_is_off_may_hold_a_token_of_whoever_had_the_dead_one_of_its_variables() -> None:
    """Whose a dead token was, only the description of the one that replaced it says."""
    entries = [entry("ws1", "carol", OLD), entry("ws3", "bob", THIRD)]
    mine = [OLD_ONE, listed(NEW, 2, description("spring", THIRD))]
    found = decided(
        entries, {OLD: account(*mine), THIRD: Account(False, "dead")}, {"ws1": has(("carol", OLD)), "ws3": "off"}
    )
    (made,) = [item for item in found if item.action == "make"]
    assert [(item.host, item.user) for item in made.kin] == [("ws3", "bob")]
    stranger = decided(entries, {OLD: account(OLD_ONE), THIRD: Account(False, "dead")})
    assert [item.kin for item in stranger if item.action == "make"] == [()]


def test_no_token_is_made_while_no_host_could_get_it() -> None:
    entries = [entry("ws1"), entry("ws2")]
    off: dict[str, Seen | str] = {"ws1": "off", "ws2": has(failed={"alice": "no home"})}
    accounts = {OLD: account(OLD_ONE)}
    (found,) = decided(entries, accounts, off)
    assert (found.action, found.old) == ("refuse", ())
    assert found.reason.startswith("No token was made: no host could get it now: ")
    assert "ws1 (off); ws2 (alice: no home)" in found.reason
    assert [item.action for item in decided(entries, accounts, {**off, "ws2": has(("alice", OLD))})] == ["make"]
    of_two = [*entries, entry("ws2", user="lab")]  # one account's trouble is its own
    assert [item.action for item in decided(of_two, accounts, off)] == ["make"]
    for wanted in ({"anyway": True}, {"give_up": frozenset({"ws1", "ws2"})}):
        assert [item.action for item in decided(entries, accounts, off, **wanted)] == ["make"]


def test_a_host_that_was_given_up_gets_a_token_last_and_stands_for_no_other() -> None:
    entries = [entry("ws1"), entry("ws2")]
    accounts = {OLD: account(OLD_ONE)}
    full = has(("alice", OLD), failed={"alice": "no space left"}, rehearsed=True)
    (found,) = decided(entries, accounts, {"ws1": "off", "ws2": full}, give_up=frozenset({"ws2"}))
    assert found.action == "refuse"
    assert "no host could get it now: ws1 (off)." in found.reason
    (found,) = decided(entries, accounts, give_up=frozenset({"ws1"}))
    assert found.canaries[0] == "ws2"


def test_a_dead_token_may_be_of_whoever_has_a_user_of_that_name() -> None:
    """Also where the user has another token of the person whose token goes."""
    entries = [entry("ws1"), entry("ws2", "shared", NEW), entry("ws3", "shared", THIRD), entry("ws3", "bob", THIRD)]
    person = account(OLD_ONE, NEW_ONE)
    accounts = {OLD: person, NEW: person, THIRD: Account(False, "dead")}
    hosts = ("ws1", "ws2", "ws3")
    seen: dict[str, Seen | str] = {"ws1": has(), "ws2": has(("shared", NEW)), "ws3": "off"}
    request = Request(hosts, strategy="overlap", users=frozenset({"alice"}), own_store=True)
    (found,) = taken_off(Known(Inventory(hosts, tuple(entries)), seen, accounts, request))
    assert [(item.host, item.user) for item in found.kin] == [("ws2", "shared"), ("ws3", "shared")]
    assert [blocker.host for blocker in found.blockers] == ["ws3"]


def test_the_oldest_token_is_revoked_first_as_the_later_ones_lead_to_it() -> None:
    third = listed(THIRD, 3, description("autumn", NEW), age=30)
    person = account(OLD_ONE, NEW_ONE, third)
    (found,) = decided([entry("ws1", token=NEW), entry("ws2", token=THIRD)], {NEW: person, THIRD: person})
    assert (found.new, [item.token for item in found.old]) == (THIRD, [OLD, NEW])


# -- nobody else -------------------------------------------------------------------------------------------------------


def test_the_same_value_is_the_same_token_whatever_text_names_the_server() -> None:
    entries = [entry("ws1"), entry("ws2", server="http://localhost:8443")]
    (found,) = decided(entries, {OLD: account(OLD_ONE)}, seen={"ws1": has(("alice", OLD)), "ws2": "off"})
    assert found.hosts == ("ws1", "ws2")
    assert [blocker.host for blocker in found.blockers if blocker.reason == "off"] == ["ws2"]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({"ws1": has(("alice", OLD)), "ws2": "it is off"}, "ws2 (it is off)"),
        ({"ws1": has(("alice", OLD)), "ws2": has(failed={"alice": "malformed"})}, "ws2 (alice: malformed)"),
        ({"ws1": has(("alice", OLD), ("bob", OLD)), "ws2": has(("alice", OLD))}, "the variables do not name it"),
    ],
)
def test_where_the_old_token_may_die_at_once_none_is_made_unless_all_can_get_the_new_one(
    seen: dict[str, Seen | str], says: str
) -> None:
    entries = [entry("ws1"), entry("ws2")]
    accounts = {OLD: account(OLD_ONE, two_live=False)}
    (found,) = decided(entries, accounts, seen)
    assert found.action == "refuse"
    assert says in found.reason
    (anyway,) = decided(entries, accounts, seen, anyway=True)
    assert anyway.action == "make"
    (two_live,) = decided(entries, {OLD: account(OLD_ONE)}, seen)
    assert two_live.action == "make"


def test_where_it_may_die_at_once_a_host_that_is_off_may_have_it_beside_a_dead_one_by_the_variables() -> None:
    entries = [entry("ws1", "bob", NEW), entry("ws2", "alice", OLD)]
    accounts = {NEW: account(NEW_ONE, two_live=False), OLD: Account(False, "It is dead.")}
    seen: dict[str, Seen | str] = {"ws1": has(("bob", NEW)), "ws2": "it is off"}
    for hosts in (("ws1", "ws2"), ("ws1",)):
        found, *_rest = decided(entries, accounts, seen, hosts=hosts, name="summer")
        assert found.action == "refuse"
        assert "these could not get the new one: ws2 (it is off)" in found.reason
    (given_up, _dead) = decided(entries, accounts, seen, name="summer", give_up=frozenset({"ws2"}))
    assert given_up.action == "make"
    (reached, _dead) = decided(entries, accounts, {**seen, "ws2": has(("alice", OLD))}, name="summer")
    assert reached.action == "make"


@pytest.mark.parametrize("tried", [{"ws1"}, {"ws1", "ws2"}])
def test_none_is_made_when_none_of_the_hosts_that_get_it_first_could_save_it(tried: set[str]) -> None:
    entries = [entry("ws1"), entry("ws2")]
    full = has(("alice", OLD), failed={"alice": "no space left"}, rehearsed=True)
    seen = {host: full if host in tried else has(("alice", OLD)) for host in ("ws1", "ws2")}
    (found,) = decided(entries, {OLD: account(OLD_ONE)}, seen)
    assert found.action == "refuse"
    assert "could get it now: ws1" in found.reason
    seen["ws2"] = has(("alice", OLD), rehearsed=True)
    (found,) = decided(entries, {OLD: account(OLD_ONE)}, seen)
    assert (found.action, found.canaries) == ("make", ("ws2",))


def test_those_that_get_a_token_first_rehearse_and_where_it_may_kill_the_old_one_all_holders() -> None:
    entries = [entry(f"ws{number}") for number in range(1, 6)]
    hosts = tuple(item.host for item in entries)
    seen = {host: has(("alice", OLD)) for host in hosts}
    for two_live, wanted in ((True, hosts[:3]), (False, hosts)):
        accounts = {OLD: account(OLD_ONE, two_live=two_live)}
        known = Known(Inventory(hosts, tuple(entries)), seen, accounts, Request(hosts, strategy="overlap"))
        assert to_rehearse(decide(known), known) == wanted
        for request in (Request(hosts), Request(hosts, strategy="overlap", anyway=True)):
            assert to_rehearse(decide(known), known._replace(request=request)) == ()


def test_what_the_server_does_not_list_cannot_be_replaced() -> None:
    assert "does not list it, so it could not be revoked" in one(OLD, listed(OTHER, 9)).reason


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"users": frozenset(["alice", "alcie"])}, "names alcie, who has no entry"),
        ({"canary": ("ws9",)}, "names ws9, which is no host of this run"),
        ({"canary": ("WS1",)}, "names WS1, which is no host of this run. Did you mean ws1?"),
        ({"give_up": frozenset(["ws9"])}, "names ws9, which is no host of the inventory"),
        ({"name": "x" * 101}, "has 101 characters; it may have 100"),
        ({"old": frozenset([OTHER])}, "Ask for one after the other"),
        ({"old": frozenset([OTHER]), "strategy": "cutover", "revoke": "never"}, "=never forbids it"),
        ({"old": frozenset([OLD]), "strategy": "cutover"}, "which caveclient_tokens gives to alice on ws1"),
    ],
)
def test_what_cannot_be_done_for_any_token_is_refused(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(CaveError, match=message):
        one(OLD, OLD_ONE, **request_)


@pytest.mark.parametrize("text", ["AAAAAAA1", " aaaaaaa1\n", "aaaaaaa1"])
def test_an_old_token_is_the_same_however_its_fingerprint_is_written(text: str) -> None:
    assert old_token(text) == OLD


@pytest.mark.parametrize("text", ["0a1b", "a" * 32, "sha256:aaaaaaa1", ""])
def test_what_is_no_fingerprint_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(CaveError) as caught:
        old_token(text)
    assert "8 hex digits" in caught.value.message
    assert not text or text not in caught.value.message


def test_a_token_that_some_variables_take_from_elsewhere_gets_no_new_one_and_is_not_revoked() -> None:
    """Such as a lookup: that host would be given the old one again."""
    here, there = entry("ws1"), entry("ws2")
    held = {"ws1": has(("alice", OLD)), "ws2": has(("alice", OLD))}
    inventory = Inventory(("ws1", "ws2"), (here, there), vault={OLD: ("v in vault.yml",)}, elsewhere=frozenset([there]))
    asked = Request(("ws1", "ws2"), "overlap")
    (found,) = decide(Known(inventory, held, {OLD: account(OLD_ONE)}, asked))
    assert found.action == "refuse"
    assert "ws2 would keep aaaaaaa1" in found.reason
    assert "v in vault.yml" in found.reason
    (found,) = decide(Known(inventory, held, {OLD: account(OLD_ONE)}, asked._replace(give_up=frozenset(["ws2"]))))
    assert found.action == "make"
    # Where one was made already, it goes out, and the old one stays.
    begun = inventory._replace(entries=(entry("ws1", token=NEW), there))
    accounts = {token: account(OLD_ONE, NEW_ONE) for token in (OLD, NEW)}
    (found,) = decide(Known(begun, held, accounts, asked))
    assert found.action == "continue"
    assert ("ws2", "its variables name aaaaaaa1 for alice, and take it from where none is stored") in found.blockers


def test_canaries_are_hosts_on_which_nothing_else_is_wrong() -> None:
    entries = [entry(f"ws{number}") for number in range(5)]
    trouble = [100, 0, 1, 0, 5]
    seen: dict[str, Seen | str] = {
        f"ws{number}": has(("alice", OLD), trouble=much) for number, much in enumerate(trouble)
    }
    (found,) = decided(entries, {OLD: account(OLD_ONE)}, seen)
    assert found.canaries == ("ws1", "ws3", "ws2")
    (named,) = decided(entries, {OLD: account(OLD_ONE)}, seen, canary=("ws4", "ws0"))
    assert named.canaries == ("ws4", "ws0")
    (off,) = decided(entries, {OLD: account(OLD_ONE)}, {**seen, "ws4": "unreachable: off"}, canary=("ws4",))
    assert off.action == "refuse"
    assert "the canary host cannot get it first: ws4 (unreachable: off). Name another one." in off.reason


@pytest.mark.parametrize("stored_since", [True, False])
def test_no_token_is_made_that_may_kill_what_another_run_has_stored_since_the_variables_were_read(
    stored_since: bool,
) -> None:
    """The other run gives to bob what this one would kill, as it takes his dead token for all that he has."""
    entries = (entry("ws1", "alice", NEW), entry("ws2", "bob", OLD))
    accounts = {NEW: account(NEW_ONE, two_live=False), OLD: Account(False, "It is dead.")}
    vault = {NEW: ("a in vault.yml",), OLD: () if stored_since else ("b in vault.yml",)}
    seen = {"ws1": has(("alice", NEW)), "ws2": has(("bob", OLD))}
    request = Request(("ws1", "ws2"), strategy="overlap", name="autumn")
    (found,) = [
        item for item in decide(Known(Inventory(request.hosts, entries, vault=vault), seen, accounts, request))
        if item.source == NEW
    ]  # fmt: skip
    assert found.action == ("refuse" if stored_since else "make"), found.reason
    assert ("the variables have changed since this run began. Run again." in found.reason) is stored_since


# -- whose token it is -------------------------------------------------------------------------------------------------


def strangers(*people: tuple[str, str, int, int | None, str]) -> list[str]:
    """Whom a cutover refuses: user, token, its person, whose the host's token is, and which it is."""
    entries = [entry(f"ws{index}", user, token) for index, (user, token, *_rest) in enumerate(people)]
    accounts = {token: account(listed(token, 1), person=person) for _user, token, person, *_rest in people}
    seen: dict[str, Seen | str] = {
        f"ws{index}": has(*([(user, held)] if held else []), persons={(user, SERVER): before} if before else {})
        for index, (user, _token, _person, before, held) in enumerate(people)
    }
    found = decided(entries, accounts, seen, strategy="cutover")
    return [
        item.host
        for rotation in found
        for item in rotation.entries
        if rotation.action == "refuse" or item in rotation.withheld
    ]


def test_the_same_person_as_before_is_no_stranger() -> None:
    assert strangers(("alice", NEW, 3, 3, OLD), ("bob", OTHER, 4, 4, OTHER)) == []


def test_a_host_whose_token_is_of_another_person_says_so() -> None:
    assert strangers(("alice", OTHER, 4, 3, OLD), ("bob", OTHER, 4, 4, OTHER)) == ["ws0"]


def test_when_all_old_tokens_are_dead_a_person_who_is_another_user_is_a_stranger() -> None:
    assert strangers(("alice", OTHER, 4, None, OLD), ("bob", OTHER, 4, None, OTHER)) == ["ws0"]
    assert strangers(("alice", NEW, 3, None, OLD), ("guest", NEW, 3, None, OLD)) == []


def test_two_people_of_two_servers_with_the_same_number_are_no_strangers() -> None:
    mine, hers = entry("ws1", "alice", NEW), entry("ws2", "bob", OTHER, "https://other.example.org")
    accounts = {NEW: account(listed(NEW, 1)), OTHER: account(listed(OTHER, 1))._replace(name="Bob")}
    seen = {"ws1": has(("alice", OLD)), "ws2": has(("bob", OTHER))}
    assert [item.action for item in decided([mine, hers], accounts, seen, strategy="cutover")] == 2 * ["roll_out"]


def test_a_user_without_a_token_before_is_no_stranger() -> None:
    assert strangers(("alice", OTHER, 4, None, ""), ("bob", OTHER, 4, 4, OTHER)) == []


# -- uses of the old token ---------------------------------------------------------------------------------------------


def test_a_use_after_the_last_host_had_the_new_token_is_told_with_its_time() -> None:
    assert used_since(listed(OLD, 1, last_used=NOW), NOW, NOW) == ""
    assert used_since(listed(OLD, 1), NOW, NOW) == ""
    assert used_since(None, NOW, NOW) == ""
    said = used_since(listed(OLD, 1, last_used=NOW + 7), NOW - 5, NOW)
    assert "last at 2027-01-15T08:00:07Z, 7 s after the last host" in said


# -- who may still hold an old token -----------------------------------------------------------------------------------


def test_descriptions_that_lead_in_a_circle_end_the_search_for_older_tokens() -> None:
    first, second = listed(NEW, 2, description("a", OTHER)), listed(OTHER, 3, description("b", NEW))
    found = one(OLD, listed(OLD, 4, description("c", NEW)), first, second)
    assert (found.action, found.source) == ("continue", OLD)


def test_of_two_tokens_that_replace_each_other_by_their_descriptions_the_new_one_is_not_old() -> None:
    first, second = listed(NEW, 2, description("a", OTHER)), listed(OTHER, 3, description("b", NEW))
    found = one(NEW, first, second)
    assert (found.new, found.old) == (OTHER, (first,))


def test_two_tokens_of_the_vault_that_replace_each_other_by_their_descriptions_are_both_decided_on() -> None:
    tokens = (listed(NEW, 2, description("a", OTHER)), listed(OTHER, 3, description("b", NEW)))
    entries = [entry("ws1", token=NEW), entry("ws2", token=OTHER)]
    (found,) = decided(entries, {NEW: account(*tokens), OTHER: account(*tokens)})
    assert set(found.tokens) == {NEW, OTHER}
    assert {item.host for item in found.entries} == {"ws1", "ws2"}
