# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from copy import copy
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import (
    known_variables,
    unknown_variables,
    wrong_variables,
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("caveclient_verfy", "caveclient_verify"),
        ("caveclient_token", "caveclient_tokens"),
        ("cavclient_tokens", "caveclient_tokens"),
        ("cave_client_tokens", "caveclient_tokens"),
        ("CAVEclient_tokens", "caveclient_tokens"),
        ("cavecilent_server", "caveclient_server"),
        ("caveclient_strategy", "caveclient_rotate_strategy"),
        ("caveclient_server_address", "caveclient_server"),
    ],
)
def test_a_typing_error_is_named_with_what_was_probably_meant(name: str, meant: str) -> None:
    assert unknown_variables([name]) == [f"{name} is no variable of this collection: did you mean {meant}?"]


def test_the_variables_of_playbooks_are_named_for_one_without_the_playbook() -> None:
    (sentence,) = unknown_variables(["caveclient_users"])
    meant = "caveclient_audit_users, caveclient_decommission_users or caveclient_rotate_users"
    assert sentence == f"caveclient_users is no variable of this collection: did you mean {meant}?"


def test_a_variable_like_none_is_named_all_the_same() -> None:
    assert unknown_variables(["caveclient_zzzzzz"]) == ["caveclient_zzzzzz is no variable of this collection."]


@pytest.mark.parametrize(
    "name",
    ["ansible_facts", "cave_report", "caveclients_of_my_own", "client_tokens", "vault_cave_token_alice", "c", ""],
)
def test_other_variables_are_nobodys_business(name: str) -> None:
    assert unknown_variables([name]) == []


def test_what_the_collection_reads_is_known() -> None:
    assert unknown_variables(known_variables()) == []
    assert {"caveclient_tokens", "caveclient_report", "caveclient_hosts", "caveclient_fast"} <= known_variables()


def test_the_variables_of_a_host_are_checked_as_those_of_the_role() -> None:
    assert wrong_variables({"caveclient_verify": "client", "caveclient_keep": "2", "other": object()}, copy) == ""
    wrong = wrong_variables({"caveclient_verify": "clint", "caveclient_keep": "two"}, copy)
    assert "value of caveclient_verify must be one of: api, client, none" in wrong
    assert "caveclient_keep must be a whole number, and is 'two'." in wrong


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rate", -1, "caveclient_rate must be from 0 to 1000000, and is -1."),
        ("rate", True, "caveclient_rate must be a number, and is true."),
        ("rate", float("inf"), "caveclient_rate must be from 0 to 1000000, and is Infinity."),
        ("retries", -1, "caveclient_retries must be from 0 to 1000, and is -1."),
        ("retries", [], "caveclient_retries must be a whole number, and is a list."),
        ("timeout", 10**12, "caveclient_timeout must be from 1 to 86400, and is 1000000000000."),
        ("path", ["a"], "caveclient_path must be a path, and is a list."),
        ("server", {"a": 1}, "caveclient_server must be text, and is a mapping."),
        ("extras", [["cv"]], "caveclient_extras must be a list of texts, and its item 1 is a list."),
        ("packages", ["numpy", None], "caveclient_packages must be a list of texts, and its item 2 is null."),
        ("packages", {"numpy": 1}, "caveclient_packages must be a list of texts, and is a mapping."),
        ("tokens", [{"user": "a"}, "b"], "caveclient_tokens must be a list of mappings, and its item 2 is 'b'."),
        ("tokens", [{"user": "a"}, {"token": "b"}], "Entry 2 of caveclient_tokens names no user."),
        ("tokens", [{"user": " "}], "Entry 1 of caveclient_tokens names no user."),
        (
            "tokens",
            [{"user": 1000}],
            "Entry 1 of caveclient_tokens has a user that is not text. Put the name in quotes.",
        ),
        (
            "tokens",
            [{"user": "a", "state": True}],
            "Entry 1 of caveclient_tokens has a state other than present and absent.",
        ),
        ("hosts", " , ", "caveclient_hosts names no host. Name hosts or groups, or leave it out."),
        ("hosts", [",", ""], "caveclient_hosts names no host. Name hosts or groups, or leave it out."),
        ("hosts", ["ws1", ""], ""),
        ("stale", "0" * 32, "value of caveclient_stale must be one of: update, report, ignore, and is another text."),
        ("verify", None, 'caveclient_verify has no value. Give it one, or leave it out: the default is "api".'),
        (
            "validate",
            "0123456789abcdef0123456789abcdef",
            "caveclient_validate must be true or false, and is another text.",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_with_the_name_of_its_variable(name: str, value: Any, sentence: str) -> None:
    assert wrong_variables({f"caveclient_{name}": value}, copy, [name]) == sentence


def test_a_variable_without_a_value_is_named_with_its_default_where_one_is_needed() -> None:
    wrong = wrong_variables({"caveclient_datastacks": None, "caveclient_retries": None, "caveclient_keep": "two"}, copy)
    assert "caveclient_datastacks has no value. Give it one, or leave it out: the default is [" in wrong
    assert "caveclient_retries has no value. Give it one, or leave it out: the default is 2." in wrong
    assert "caveclient_keep" in wrong
    assert "NoneType" not in wrong


def test_a_variable_that_a_template_leaves_out_is_not_set() -> None:
    left_out = "__omit_place_holder__0123"
    assert wrong_variables({"caveclient_retries": left_out, "caveclient_path": left_out}, copy) == ""


def test_text_and_paths_may_be_left_empty() -> None:
    assert wrong_variables({"caveclient_interpreter": None, "caveclient_group": None}, copy) == ""
