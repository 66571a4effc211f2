# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the info service remembers."""

from __future__ import annotations

import pytest

from cave_server.errors import (
    AuthDownError,
    MissingPermissionError,
    NotFoundError,
    TermsOwedError,
    UnknownNameError,
)
from cave_server.memory import InfoService
from cave_server.world import World, public_world

STACK = "minnie65_public"


@pytest.fixture
def world() -> World:
    """The public datastacks at a fixed time."""
    return public_world(clock=lambda: 1000.0)


@pytest.fixture
def info(world: World) -> InfoService:
    """Its info service."""
    return world.info


def token_of(world: World, name: str = "alice", **arguments: object) -> str:
    """Add a person and return their token."""
    return world.keys(world.add_person(name, **arguments))[0].token  # type: ignore[arg-type]  # passed on


def look(info: InfoService, token: str, name: str = STACK) -> dict[str, object]:
    """Ask for a datastack."""
    description = info.who(token)
    assert description
    return info.datastack(token, description, name)


def asked(world: World) -> int:
    """Return how often the auth server was asked."""
    return sum(entry["internal"] for entry in world.log)


def test_what_is_remembered_is_not_asked_again_until_300_seconds_from_its_first_sight(
    world: World, info: InfoService
) -> None:
    token = token_of(world)
    assert info.who(token)
    world.advance(299)
    assert info.who(token)
    assert asked(world) == 1
    world.advance(2)
    assert info.who(token)
    assert asked(world) == 2


def test_a_refusal_is_remembered_as_long(world: World, info: InfoService) -> None:
    assert info.who("unknown") is None
    token_of(world, token="unknown")
    world.advance(299)
    assert info.who("unknown") is None
    world.advance(2)
    assert info.who("unknown")


def test_with_no_memory_every_request_asks(world: World) -> None:
    world.info.cache_ttl = 0
    token = token_of(world)
    world.info.who(token)
    world.revoke(token)
    assert world.info.who(token) is None


def test_the_log_of_its_questions_holds_no_token(world: World, info: InfoService) -> None:
    token = token_of(world)
    info.who(token)
    assert token not in str(list(world.log))


def test_refusals_name_what_is_missing(world: World, info: InfoService) -> None:
    token = token_of(world, permissions=[STACK], accepted_tos=False)
    with pytest.raises(TermsOwedError) as owed:
        look(info, token)
    assert owed.value.terms["tos_id"] == 2
    with pytest.raises(MissingPermissionError) as missing:
        look(info, token, "h01_c3_flat")
    assert missing.value.dataset == "h01_c3_flat"
    with pytest.raises(UnknownNameError):
        look(info, token, "nosuchstack")
    world.add_datastack("half", local_server="https://x.example.org", dataset=STACK, record=False)
    world.accept_terms(world.person("alice"), 2)
    with pytest.raises(NotFoundError):
        look(info, token, "half")
    assert look(info, token)["local_server"] == "https://minnie.microns-daf.com"


def test_edit_alone_is_not_view(world: World, info: InfoService) -> None:
    token = token_of(world, permissions={STACK: ["edit"]})
    with pytest.raises(MissingPermissionError):
        look(info, token)


def test_the_list_ignores_terms_of_service_and_does_not_ask_again(world: World, info: InfoService) -> None:
    token = token_of(world, permissions=[STACK], accepted_tos=False)
    description = info.who(token)
    assert description
    assert info.datastacks(description) == [STACK]
    world.set_permissions("alice", [STACK, "h01_c3_flat"])
    description = info.who(token)
    assert description
    assert info.datastacks(description) == [STACK]


def test_it_asks_again_20_times_in_a_window_for_each_token(world: World, info: InfoService) -> None:
    alice, bob = token_of(world), token_of(world, "bob")
    for token in (alice, bob):
        for _time in range(30):
            with pytest.raises(MissingPermissionError):
                look(info, token)
    assert asked(world) == 42
    world.advance(301)
    with pytest.raises(MissingPermissionError):
        look(info, alice)
    # Its memory is old, so it asks, and what is missing makes it ask again.
    assert asked(world) == 44


def test_a_token_that_died_meanwhile_is_noticed_by_asking_again(world: World, info: InfoService) -> None:
    token = token_of(world)
    assert info.who(token)
    world.revoke(token)
    with pytest.raises(MissingPermissionError):
        look(info, token)
    assert info.who(token) is None


def test_with_the_auth_server_down_what_is_remembered_is_served(world: World, info: InfoService) -> None:
    token = token_of(world, permissions=[STACK])
    look(info, token)
    other = token_of(world, "bob")
    world.auth_down = True
    assert look(info, token)
    with pytest.raises(AuthDownError):
        info.who(other)
    with pytest.raises(AuthDownError):
        look(info, token, "h01_c3_flat")


def test_the_defaults_are_the_real_servers() -> None:
    world = World()
    assert (world.info.cache_ttl, world.auth_down_delay, world.legacy, world.latency) == (300, 3, False, 0)
