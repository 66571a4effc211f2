# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The auth server's state."""

from __future__ import annotations

import pytest

from cave_server.errors import AlreadyExistsError, DatabaseError, NotFoundError, SeveralKeysError
from cave_server.world import World, date, fingerprint, public_world

NOON = 1_795_348_555.75


@pytest.fixture
def world() -> World:
    """The public datastacks at a fixed time."""
    return public_world(clock=lambda: NOON)


def test_a_date_is_written_as_the_auth_server_does_to_the_second() -> None:
    assert date(NOON) == "Sun, 22 Nov 2026 11:55:55 GMT"
    assert date(None) is None


def test_a_fingerprint_is_the_first_8_digits_of_sha256() -> None:
    assert fingerprint("secret") == "2bb80d53"


def test_a_token_is_32_lower_case_hex_digits_and_new_each_time(world: World) -> None:
    person = world.add_person("alice")
    tokens = {world.make_key(person).token for _time in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 and set(token) <= set("0123456789abcdef") for token in tokens)


def test_a_token_may_be_asked_for_by_value_once(world: World) -> None:
    token = "bm90IGhleCBidXQgYmFzZTY0IG9mIDMyIGJ5dGVzIC4="
    assert world.add_person("alice", token=token).id == 3
    assert world.owner(token) is world.person("alice")
    with pytest.raises(ValueError, match="exists already"):
        world.make_key(world.person("alice"), token=token)


@pytest.mark.parametrize(
    ("permissions", "complaint"),
    [
        (["minnie65_pubic"], "no dataset 'minnie65_pubic'"),
        ("minnie65_public", "a list of datasets"),
        ({"minnie65_public": ["veiw"]}, "view and edit"),
        ({"minnie65_public": []}, "view and edit"),
    ],
)
def test_a_mistake_in_a_tests_permissions_is_told(world: World, permissions: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        world.add_person("alice", permissions=permissions)


def test_names_are_taken_once(world: World) -> None:
    world.add_person("alice")
    with pytest.raises(ValueError, match="already"):
        world.add_person("alice")
    with pytest.raises(ValueError, match="no person 'bob'"):
        world.person("bob")


def test_edit_is_level_2_and_view_level_1(world: World) -> None:
    person = world.add_person("alice", permissions={"minnie65_public": ["view", "edit"], "h01_c3_flat": ["view"]})
    assert world.describe(person)["permissions"] == {"minnie65_public": 2, "h01_c3_flat": 1}


def test_terms_of_service_are_owed_for_datasets_that_have_them(world: World) -> None:
    person = world.add_person("alice", permissions=["minnie65_public", "h01_c3_flat"], accepted_tos=False)
    told = world.describe(person)
    assert told["permissions"] == {"h01_c3_flat": 1}
    assert [owed["tos_name"] for owed in told["missing_tos"]] == ["MICrONS Terms"]
    world.accept_terms(person, 2)
    assert world.describe(person)["missing_tos"] == []
    assert world.describe(person)["permissions"] == {"minnie65_public": 1, "h01_c3_flat": 1}


def test_terms_of_service_without_the_permission_are_not_owed(world: World) -> None:
    assert world.describe(world.add_person("alice", accepted_tos=False))["missing_tos"] == []


def test_ids_of_keys_are_never_used_again(world: World) -> None:
    person = world.add_person("alice")
    second = world.make_key(person)
    world.delete_key(person, second.id)
    assert world.make_key(person).id == second.id + 1


@pytest.mark.parametrize(
    ("description", "listed"), [(None, None), ("", ""), ("x", "x"), (7, "7"), ("é" * 120, "é" * 120)]
)
def test_a_description_that_fits_is_listed(world: World, description: object, listed: str | None) -> None:
    assert world.make_key(world.add_person("alice"), description).as_dict()["description"] == listed


@pytest.mark.parametrize("description", ["x" * 121, {"a": 1}, ["a"]])
def test_a_description_that_does_not_fit_leaves_a_token_that_works_and_is_in_no_list(
    world: World, description: object
) -> None:
    person = world.add_person("alice")
    with pytest.raises(DatabaseError):
        world.make_key(person, description)
    assert len(world.keys(person)) == 1
    (hidden,) = world.hidden_tokens(person)
    assert world.authenticate(hidden) is person
    # A hidden key doesn't count for `refresh_token`, and survives it.
    world.refresh(person)
    assert world.owner(hidden) is person


def test_refresh_keeps_id_description_and_creation(world: World) -> None:
    person = world.add_person("alice", description="the one")
    (before,) = [key.as_dict() for key in world.keys(person)]
    world.advance(60)
    after = world.refresh(person).as_dict()
    assert after["token"] != before["token"]
    assert after["updated"] != before["updated"]
    assert after == before | {"token": after["token"], "updated": after["updated"]}
    assert world.owner(before["token"]) is None


def test_refresh_without_a_key_makes_one_and_with_several_refuses(world: World) -> None:
    person = world.add_person("alice", with_key=False)
    key = world.refresh(person)
    assert world.keys(person) == [key]
    world.make_key(person)
    with pytest.raises(SeveralKeysError):
        world.refresh(person)


def test_in_legacy_mode_making_a_key_kills_the_others_but_not_logins(world: World) -> None:
    person, other = world.add_person("alice"), world.add_person("bob")
    login = world.log_in(person)
    old = world.keys(person)[0].token
    world.legacy = True
    new = world.make_key(person).token
    assert [key.token for key in world.keys(person)] == [new]
    assert world.owner(old) is None
    assert world.owner(login) is person
    assert len(world.keys(other)) == 1


def test_a_login_lasts_a_week_and_is_no_key(world: World) -> None:
    person = world.add_person("alice", with_key=False)
    login = world.log_in(person)
    assert world.keys(person) == []
    assert world.seconds_left(login) == 7 * 24 * 3600
    assert world.owner(login) is person
    world.advance(7 * 24 * 3600 + 1)
    assert world.owner(login) is None
    assert world.owner(login) is None


def test_only_authenticating_counts_as_use(world: World) -> None:
    person = world.add_person("alice")
    (key,) = world.keys(person)
    world.owner(key.token)
    assert key.last_used is None
    world.authenticate(key.token)
    assert key.as_dict()["last_used"] == "Sun, 22 Nov 2026 11:55:55 GMT"
    # Less than a second later it is the same moment.
    world.advance(0.2)
    world.authenticate(key.token)
    assert key.as_dict()["last_used"] == "Sun, 22 Nov 2026 11:55:55 GMT"
    world.advance(1)
    world.authenticate(key.token)
    assert key.as_dict()["last_used"] == "Sun, 22 Nov 2026 11:55:56 GMT"


def test_revoking_what_is_not_alive_is_a_mistake(world: World) -> None:
    token = world.keys(world.add_person("alice"))[0].token
    world.revoke(token)
    with pytest.raises(ValueError, match="no token") as raised:
        world.revoke(token)
    assert token not in str(raised.value)


def test_deleting_needs_the_owner_and_an_id_that_exists(world: World) -> None:
    alice, bob = world.add_person("alice"), world.add_person("bob", admin=True)
    (key,) = world.keys(alice)
    for person, number in ((bob, key.id), (alice, 999)):
        with pytest.raises(NotFoundError):
            world.delete_key(person, number)
    assert world.owner(key.token) is alice


def test_a_service_account_has_one_name_and_one_token(world: World) -> None:
    admin = world.add_person("root", admin=True)
    robot = world.service_account(admin, "Robot")
    assert robot.email == "robot@serviceaccount"
    assert world.owner(world.token_of_service_account(robot.id)) is robot
    with pytest.raises(AlreadyExistsError):
        world.service_account(admin, "Robot")
    for nobody in (admin.id, 999):
        with pytest.raises(NotFoundError):
            world.token_of_service_account(nobody)
    assert robot not in world.people()


def test_datastacks_may_share_a_dataset(world: World) -> None:
    terms = world.add_terms("Lab Terms")
    world.add_datastack("lab_v1", local_server="https://a.example.org", dataset="lab", terms=terms)
    world.add_datastack("lab_v2", local_server="https://b.example.org", dataset="lab", synapse_table=None)
    assert [world.dataset_of("datastack", name) for name in ("lab_v1", "lab_v2", "none")] == ["lab", "lab", None]
    record = world.datastacks["lab_v2"].record
    assert record
    assert (record["local_server"], record["synapse_table"]) == ("https://b.example.org", None)
    with pytest.raises(ValueError, match="no terms of service 99"):
        world.add_datastack("lab_v3", local_server="https://a.example.org", terms=99)


def test_the_public_datastacks_name_the_local_servers_that_are_documented(world: World) -> None:
    servers = {stack.name: (stack.record or {}).get("local_server") for stack in world.datastacks.values()}
    assert servers["minnie65_public"] == servers["minnie65_phase3_v1"] == "https://minnie.microns-daf.com"
    assert servers["flywire_fafb_public"] == "https://prod.flywire-daf.com"
    assert len(servers) == 10
