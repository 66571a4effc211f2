# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What profiles stand for, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_run import ROOT
from homes import OLD_TOKEN

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import KNOWN_LOCAL_SERVERS
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import (
    PROFILES,
    chosen,
    with_packages,
    with_profiles,
)

SERVER = "https://global.daf-apis.com"
KEYS = ["token", "brain_and_nerve_cord"]


def expanded(*entries: Any, **args: Any) -> list[Any]:
    """Return the entries of a task for BANC."""
    given = {"server": SERVER, "profiles": ["banc"], "users": list(entries), **args}
    return with_profiles(given, "users")["users"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("alice", {"user": "alice", "keys": KEYS}),
        ({"user": "alice"}, {"user": "alice", "keys": KEYS}),
        ({"user": "alice", "server": SERVER}, {"user": "alice", "server": SERVER, "keys": KEYS}),
        ({"user": "alice", "server": f"{SERVER}/ "}, {"user": "alice", "server": f"{SERVER}/ ", "keys": KEYS}),
        ({"user": "alice", "state": "absent"}, {"user": "alice", "state": "absent", "keys": KEYS}),
    ],
)
def test_an_entry_gets_the_names_of_the_token(entry: Any, expected: Any) -> None:
    assert expanded(entry) == [expected]


@pytest.mark.parametrize(
    "entry",
    [
        {"user": "alice", "key": "own"},
        {"user": "alice", "keys": ["token"]},
        {"user": "alice", "server": "https://proofreading.zetta.ai"},
        42,
    ],
)
def test_what_names_its_own_keys_or_another_server_is_left_alone(entry: Any) -> None:
    assert expanded(entry) == [entry]


def test_an_entry_for_the_usual_server_is_one_of_a_task_that_names_none() -> None:
    assert expanded({"user": "alice", "server": SERVER}, server=None)[0]["keys"] == KEYS


def test_lists_in_one_text_are_cut_at_their_commas_as_ansible_does() -> None:
    given = {"profiles": ["banc"], "users": "alice, bob", "datastacks": "minnie65_public,brain_and_nerve_cord"}
    assert with_profiles(given, "users") == {
        "users": [{"user": name, "keys": KEYS} for name in ("alice", "bob")],
        "datastacks": ["minnie65_public", "brain_and_nerve_cord"],
    }


def test_datastacks_are_added_once() -> None:
    own = {"name": "brain_and_nerve_cord", "local_server": "https://cave.lab.example.org"}
    args = {"profiles": ["banc", "flywire"], "datastacks": ["minnie65_public", own]}
    assert with_profiles(args, "users") == {"datastacks": ["minnie65_public", own, "flywire_fafb_public"]}


def test_without_profiles_nothing_is_changed_and_the_option_goes() -> None:
    entries = [{"user": "alice"}]
    assert with_profiles({"profiles": [], "users": entries}, "users") == {"users": entries}
    assert with_packages({"profiles": [], "packages": ["matplotlib"]}) == {"packages": ["matplotlib"]}


def test_a_profile_without_further_names_leaves_entries_alone() -> None:
    assert expanded({"user": "alice"}, profiles=["flywire"]) == [{"user": "alice"}]


def test_packages_are_installed_with_the_others_and_the_doctor_knows_the_datastacks() -> None:
    found = with_packages({"profiles": "banc", "packages": "matplotlib,banc", "doctor_defaults": {"server": SERVER}})
    assert found == {
        "packages": ["matplotlib", "banc"],
        "doctor_defaults": {"server": SERVER, "datastacks": ["brain_and_nerve_cord"]},
    }


@pytest.mark.parametrize("names", [["bank"], "bank", 3, [3], {"banc": True}])
def test_what_is_no_list_of_profiles_is_refused_with_those_that_there_are(names: Any) -> None:
    with pytest.raises(CaveError, match="banc, fanc, flywire"):
        chosen(names)


def test_a_token_in_the_place_of_a_profile_is_not_shown() -> None:
    with pytest.raises(CaveError, match="no profile of that name") as caught:
        chosen([OLD_TOKEN])
    assert OLD_TOKEN not in str(caught.value)


def test_every_profile_is_in_the_guide_and_its_local_servers_are_known() -> None:
    guide = (ROOT / "docs" / "docsite" / "rst" / "provision.rst").read_text(encoding="utf-8")
    for name, profile in PROFILES.items():
        assert "token" in profile.keys
        assert all(f"``{word}``" in guide for word in (name, *profile.datastacks, *profile.keys, *profile.packages))
        assert all(stack in KNOWN_LOCAL_SERVERS[SERVER] for stack in profile.datastacks)
