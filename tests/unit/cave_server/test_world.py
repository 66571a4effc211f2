# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the contract tests cannot reach: mistakes of a test that uses the stand-in, and what it is filled with."""

from __future__ import annotations

import pytest

from cave_server.errors import MissingPermissionError
from cave_server.world import World, public_world

NOON = 1_795_348_555.75


@pytest.fixture
def world() -> World:
    """The public datastacks at a fixed time."""
    return public_world(clock=lambda: NOON)


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


def test_revoking_what_is_not_alive_is_a_mistake(world: World) -> None:
    token = world.keys(world.add_person("alice"))[0].token
    world.revoke(token)
    with pytest.raises(ValueError, match="no token") as raised:
        world.revoke(token)
    assert token not in str(raised.value)


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


def test_edit_alone_is_not_view(world: World) -> None:
    (key,) = world.keys(world.add_person("alice", permissions={"minnie65_public": ["edit"]}))
    description = world.info.who(key.token)
    assert description
    with pytest.raises(MissingPermissionError):
        world.info.datastack(key.token, description, "minnie65_public")
