# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation decides from what it finds, whatever moment the run before was killed at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import Listing, ServerToken
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import (
    DEFAULT_NAME,
    NEW_FOR,
    Decision,
    Owner,
    Seen,
    Subject,
    decide,
    description,
    replaces,
    rotation_name,
    still_without,
    strangers,
    successor,
    used_since,
)

SERVER = "https://cave.example.org"
NOW = 1_800_000_000.0
OLD, NEW, OTHER = "a" * 32, "b" * 32, "c" * 32


def token(number: int, value: str, text: str = "", age: float = 10 * NEW_FOR, **more: Any) -> ServerToken:
    return ServerToken(number, text, NOW - age, NOW - age, more.get("last_used"), value)


def decided(
    vault: str, *tokens: ServerToken, strategy: str = "auto", name: str = "", held: Collection[str] = ()
) -> Decision:
    return decide(strategy, name, vault, Listing(tokens, NOW), held)


OLD_ONE = token(1, OLD, "made by hand")
NEW_ONE = token(2, NEW, description("spring", fingerprint(OLD)), age=60)


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_description_says_which_token_it_replaces() -> None:
    text = description("spring", fingerprint(OLD))
    assert (rotation_name(text), replaces(text)) == ("spring", fingerprint(OLD))
    assert rotation_name(description("", fingerprint(OLD))) == DEFAULT_NAME


@pytest.mark.parametrize("text", ["", "spring", "spring (replaces )", "(replaces 3fa9c2d1)", "x (replaces 3fa9c2d1) y"])
def test_any_other_description_is_that_of_no_rotation(text: str) -> None:
    assert rotation_name(text) is None
    assert replaces(text) is None


def test_a_name_that_is_too_long_is_refused_with_the_length_that_fits() -> None:
    assert len(description("x" * 100, fingerprint(OLD))) == 120
    with pytest.raises(CaveError, match="has 101 characters; it may have 100"):
        description("x" * 101, fingerprint(OLD))


def test_of_several_successors_every_run_takes_the_oldest() -> None:
    others = [
        token(number, value, description(name, fingerprint(OLD)))
        for number, value, name in ((7, NEW, "a"), (5, OTHER, "b"))
    ]
    found = successor(Listing(tuple(others), NOW), fingerprint(OLD))
    assert found is not None
    assert found.id == 5


# -- the state after a kill, moment by moment --------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "overlap"])
def test_before_anything_was_done_a_new_token_is_made(strategy: str) -> None:
    assert decided(OLD, OLD_ONE, strategy=strategy, held=[fingerprint(OLD)]) == Decision("make", "", None, OLD_ONE)


@pytest.mark.parametrize("strategy", ["auto", "overlap"])
@pytest.mark.parametrize("name", ["", "spring", "another name"])
def test_made_and_not_stored_it_is_taken_up(strategy: str, name: str) -> None:
    found = decided(OLD, NEW_ONE, OLD_ONE, strategy=strategy, name=name)
    assert (found.action, found.new, found.old) == ("continue", NEW_ONE, OLD_ONE)


@pytest.mark.parametrize("strategy", ["auto", "overlap"])
@pytest.mark.parametrize("held", [[], [fingerprint(OLD)], [fingerprint(OLD), fingerprint(NEW)], [fingerprint(NEW)]])
def test_stored_and_not_everywhere_or_not_revoked_it_is_taken_up(strategy: str, held: list[str]) -> None:
    found = decided(NEW, NEW_ONE, OLD_ONE, strategy=strategy, held=held)
    assert (found.action, found.new, found.old) == ("continue", NEW_ONE, OLD_ONE)


@pytest.mark.parametrize(
    ("strategy", "name"), [("auto", ""), ("overlap", ""), ("auto", "spring"), ("overlap", "spring")]
)
def test_revoked_it_is_over_and_no_other_one_is_made(strategy: str, name: str) -> None:
    assert decided(NEW, NEW_ONE, strategy=strategy, name=name, held=[fingerprint(NEW)]).action == "roll_out"


def test_the_same_name_makes_no_second_token_however_old_the_first_is() -> None:
    old = NEW_ONE._replace(created=NOW - 100 * NEW_FOR, updated=NOW - 100 * NEW_FOR)
    assert decided(NEW, old, strategy="overlap", name="spring").action == "roll_out"
    assert decided(NEW, old, strategy="overlap", name="autumn").action == "make"
    assert decided(NEW, old, strategy="overlap").action == "make"


def test_another_rotation_follows_at_once_under_another_name() -> None:
    assert decided(NEW, NEW_ONE, strategy="overlap", name="autumn").action == "make"


def test_a_persons_other_tokens_are_left_alone() -> None:
    laptop = token(3, OTHER, "alice's laptop")
    assert decided(OLD, laptop, OLD_ONE).old == OLD_ONE
    assert decided(NEW, laptop, NEW_ONE).action == "roll_out"


# -- the strategy ------------------------------------------------------------------------------------------------------


def test_auto_rolls_out_what_is_new_to_a_host() -> None:
    found = decided(OLD, OLD_ONE, held=[fingerprint(OTHER), fingerprint(OLD)])
    assert found.action == "roll_out"
    assert fingerprint(OTHER) in found.reason


@pytest.mark.parametrize("age", [0.0, 60.0, NEW_FOR - 1])
def test_auto_rolls_out_what_was_made_today(age: float) -> None:
    assert decided(OLD, token(1, OLD, age=age)).action == "roll_out"
    assert decided(OLD, token(1, OLD, age=age), strategy="overlap").action == "make"


@pytest.mark.parametrize("strategy", ["auto", "overlap"])
@pytest.mark.parametrize("made_by", ["made by hand", description("", fingerprint(OTHER))])
def test_a_token_does_not_become_new_by_being_used(strategy: str, made_by: str) -> None:
    """A server moves "updated" with every use, and the run itself has used it a moment ago."""
    used = token(1, OLD, made_by, last_used=NOW)._replace(updated=NOW)
    assert decided(OLD, used, strategy=strategy, held=[fingerprint(OLD)]).action == "make"


def test_cutover_makes_and_revokes_nothing() -> None:
    for tokens in ((OLD_ONE,), (OLD_ONE, NEW_ONE)):
        found = decided(OLD, *tokens, strategy="cutover")
        assert (found.action, found.old) == ("roll_out", None)


def test_what_the_server_does_not_list_cannot_be_replaced() -> None:
    assert decided(OLD, token(9, OTHER)).action == "roll_out"
    with pytest.raises(CaveError, match="does not list it, so it could not be revoked"):
        decided(OLD, token(9, OTHER), strategy="overlap")


# -- whose token it is -------------------------------------------------------------------------------------------------

ALICE = Owner("ws1", "alice", SERVER, fingerprint(NEW), 3, "Alice", 3, fingerprint(OLD))
BOB = Owner("ws1", "bob", SERVER, fingerprint(OTHER), 4, "Bob", 4, fingerprint(OTHER))


def test_the_same_person_as_before_is_no_stranger() -> None:
    assert strangers([ALICE, BOB]) == {}


def test_a_host_whose_token_is_of_another_person_says_so() -> None:
    wrong = ALICE._replace(person=4, person_name="Bob")
    assert list(strangers([wrong, BOB])) == [wrong]
    assert "of another person (id 3)" in strangers([wrong, BOB])[wrong]


def test_a_host_with_a_dead_token_is_judged_by_the_users_others() -> None:
    dead = ALICE._replace(host="ws2", before=None, person=4)
    alive = ALICE._replace(person=4)
    assert set(strangers([dead, alive])) == {dead, alive}
    assert strangers([dead._replace(person=3), alive._replace(person=3)]) == {}


def test_when_all_old_tokens_are_dead_a_person_who_is_another_user_is_a_stranger() -> None:
    wrong = ALICE._replace(before=None, person=4, person_name="Bob", token=BOB.token)
    assert strangers([wrong, BOB]) == {wrong: "The token for alice is that of Bob (id 4), who is bob on the hosts."}
    assert strangers([ALICE._replace(before=None), BOB]) == {}


def test_users_who_shared_a_token_before_may_share_the_new_one() -> None:
    first = ALICE._replace(before=None)
    second = first._replace(user="guest")
    assert strangers([first, second]) == {}


def test_a_user_without_a_token_before_is_no_stranger() -> None:
    assert strangers([ALICE._replace(before=None, held="", person=4), BOB]) == {}


# -- whether the old token can go --------------------------------------------------------------------------------------

SUBJECT = Subject(
    SERVER,
    fingerprint(OLD),
    ["alice"],
    ["ws1", "ws2"],
    action="made",
    new=fingerprint(NEW),
    old=fingerprint(OLD),
    old_id=1,
)
HAS = Seen(frozenset([fingerprint(NEW)]))


def test_everybody_who_sends_the_new_token_alone_has_let_go_of_the_old_one() -> None:
    wanted = [("ws1", "alice"), ("ws2", "alice")]
    assert still_without(SUBJECT, wanted, dict.fromkeys(wanted, HAS)) == []


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (None, "ws2 (alice: not looked at)"),
        (Seen(problem="it is off"), "ws2 (alice: it is off)"),
        (Seen(frozenset([fingerprint(OLD)])), f"ws2 (alice sends {fingerprint(OLD)})"),
        (Seen(frozenset([None])), "ws2 (alice sends no token)"),
        (Seen(), "ws2 (alice sends no token)"),
        (Seen(frozenset([fingerprint(NEW), fingerprint(OLD)])), "alice sends"),
    ],
)
def test_whoever_does_not_is_named(seen: Seen | None, says: str) -> None:
    wanted = [("ws1", "alice"), ("ws2", "alice")]
    found = {wanted[0]: HAS, **({wanted[1]: seen} if seen else {})}
    (missing,) = still_without(SUBJECT, wanted, found)
    assert says in missing


def test_a_use_after_the_last_host_had_the_new_token_is_told_with_its_time() -> None:
    assert used_since(token(1, OLD, last_used=NOW), NOW, NOW) == ""
    assert used_since(token(1, OLD), NOW, NOW) == ""
    assert used_since(None, NOW, NOW) == ""
    said = used_since(token(1, OLD, last_used=NOW + 7), NOW - 5, NOW)
    assert "last at 2027-01-15T08:00:07Z, 7 s after the last host" in said


# -- subjects ----------------------------------------------------------------------------------------------------------


def test_a_subject_survives_being_a_result() -> None:
    subject = replace(SUBJECT, places=[{"path": "a", "name": "b"}], person={"id": 3, "name": "Alice", "email": ""})
    subject.withhold("ws1", "alice", "somebody else's")
    assert Subject.of(subject.as_dict()) == subject


def test_a_subject_is_about_the_token_before_and_after() -> None:
    assert SUBJECT.holds(SERVER, fingerprint(OLD))
    assert SUBJECT.holds(SERVER, fingerprint(NEW))
    assert not SUBJECT.holds(SERVER, fingerprint(OTHER))
    assert not SUBJECT.holds("https://other.example.org", fingerprint(OLD))


# -- what the hosts' variables say -------------------------------------------------------------------------------------


def test_the_entries_of_a_host_are_read_with_their_defaults() -> None:
    variables = {
        "caveclient_server": SERVER,
        "caveclient_datastacks": ["minnie65_public"],
        "caveclient_tokens": [
            {"user": "alice", "token": OLD},
            {"user": "bob", "token": NEW, "server": "https://other.example.org", "datastacks": ["x"]},
            {"user": "gone", "state": "absent"},
        ],
    }
    first, second = _steps.holders_of("ws1", variables)
    assert first == ("ws1", "alice", SERVER, OLD, ("minnie65_public",))
    assert second == ("ws1", "bob", "https://other.example.org", NEW, ("x",))
    assert OLD not in repr(first)


@pytest.mark.parametrize(
    "entries", [["x"], [{"user": "alice"}], [{"user": "alice", "token": 5}], [{"token": "two words"}]]
)
def test_entries_that_cannot_be_used_are_a_hosts_own_problem(entries: list[Any]) -> None:
    good = {"caveclient_tokens": [{"user": "alice", "token": OLD}]}
    found, problems = _steps.gather(
        ["ws1", "ws2"], lambda host: {"caveclient_tokens": entries} if host == "ws1" else good
    )
    assert [item.host for item in found] == ["ws2"]
    assert list(problems) == ["ws1"]


# -- the first host ----------------------------------------------------------------------------------------------------


def test_the_least_troubled_hosts_come_first_and_one_after_the_other() -> None:
    subject = replace(SUBJECT, hosts=["ws1", "ws2", "ws3", "ws4", "ws5"], old_alive=True)
    hosts = ["ws0", "ws1", "ws2", "ws3", "ws4"]
    assert _steps.canaries([subject], hosts, {"ws1": 100, "ws3": 1}, []) == [["ws2"], ["ws4"], ["ws3"]]
    assert _steps.canaries([subject], hosts, {}, ["ws4", "ws1"]) == [["ws4", "ws1"]]


def test_a_first_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(CaveError, match="names ws9, which this run cannot reach"):
        _steps.canaries([SUBJECT], ["ws1"], {}, ["ws9"])


def test_when_the_old_token_is_dead_already_nobody_waits_for_a_first_host() -> None:
    assert _steps.canaries([replace(SUBJECT, old_alive=False)], ["ws1", "ws2"], {}, []) == []
    assert _steps.canaries([replace(SUBJECT, old_alive=None)], ["ws1", "ws2"], {}, []) != []
