# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which secrets files must change so that every reader sends one token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import Entry
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Plan, Wish, plan
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import places, read_by_all

SERVER = "https://global.daf-apis.com"
ZETTA = "https://proofreading.zetta.ai"
USUAL = "/home/alice/.cloudvolume/secrets"
ELSEWHERE = "/data/cv/secrets"
H_FILE = f"{USUAL}/global.daf-apis.com-cave-secret.json"
S_FILE = f"{USUAL}/minnie.microns-daf.com-cave-secret.json"
FLY_FILE = f"{USUAL}/prod.flywire-daf.com-cave-secret.json"
Z_FILE = f"{USUAL}/proofreading.zetta.ai-cave-secret.json"
DEFAULT = f"{USUAL}/cave-secret.json"
LEGACY = f"{USUAL}/chunkedgraph-secret.json"
MAP = f"{USUAL}/cave_datastack_to_server_map.json"
OLD, NEW, OTHER = "old-token-0001", "new-token-0002", "other-token-0003"


def wish(token: str | None = NEW, server: str = SERVER, key: str = "token", stale: str = "update", **more: Any) -> Wish:
    names = more.get("datastacks", ["minnie65_public"] if server == SERVER else ["kronauer_ant"])
    return Wish(server, parse_datastacks(names, server), key, token, stale)


def texts(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {path: json.dumps(content) for path, content in files.items()}


def planned(files: dict[str, dict[str, Any]], wanted: Wish, directories: list[str] | None = None) -> dict[str, Any]:
    result = plan(texts(files), directories or [USUAL], wanted)
    return {path: json.loads(text) for path, text in result.texts.items()}


MAPPED = {"minnie65_public": SERVER}


def test_from_nothing_every_reader_gets_its_file() -> None:
    token = {"token": NEW}
    assert planned({}, wish()) == {H_FILE: token, S_FILE: token, DEFAULT: token, MAP: MAPPED}


def test_a_stale_server_file_is_updated() -> None:
    files = {H_FILE: {"token": OTHER}, DEFAULT: {"token": OLD}}
    assert planned(files, wish())[H_FILE] == {"token": NEW}


def test_a_legacy_file_with_the_old_token_is_updated_and_with_another_left_alone() -> None:
    assert planned({LEGACY: {"token": OLD}}, wish())[LEGACY] == {"token": NEW}
    files = {LEGACY: {"token": OTHER}, DEFAULT: {"token": OLD}}
    assert planned(files, wish())[LEGACY] == {"token": OTHER}


def test_extra_keys_are_carried_into_a_file_that_shadows_them() -> None:
    banc = {"token": OLD, "brain_and_nerve_cord": OTHER}
    result = planned({DEFAULT: banc}, wish())
    assert result[H_FILE] == result[S_FILE] == result[DEFAULT] == {**banc, "token": NEW}


def test_extra_keys_of_the_legacy_file_are_carried_too() -> None:
    result = planned({LEGACY: {"token": OLD, "fanc_production_mar2021": OTHER}}, wish())
    assert result[DEFAULT] == result[H_FILE] == {"token": NEW, "fanc_production_mar2021": OTHER}


def test_a_file_that_is_there_gets_no_keys_of_others() -> None:
    files = {H_FILE: {"token": OLD}, DEFAULT: {"token": OLD, "brain_and_nerve_cord": OTHER}}
    assert planned(files, wish())[H_FILE] == {"token": NEW}


def test_another_key_takes_the_token_with_it_into_a_new_server_file() -> None:
    result = planned({DEFAULT: {"token": OLD}}, wish(OTHER, key="brain_and_nerve_cord"))
    assert result[H_FILE] == {"token": OLD, "brain_and_nerve_cord": OTHER}
    assert result[DEFAULT] == {"token": OLD, "brain_and_nerve_cord": OTHER}


def test_every_directory_in_which_a_reader_looks_gets_the_files() -> None:
    result = planned({}, wish(), [USUAL, ELSEWHERE])
    assert result[f"{ELSEWHERE}/cave-secret.json"] == {"token": NEW}
    assert result[f"{ELSEWHERE}/minnie.microns-daf.com-cave-secret.json"] == {"token": NEW}
    assert f"{ELSEWHERE}/cave_datastack_to_server_map.json" not in result


# stale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stale", "expected", "reported"), [("update", NEW, []), ("report", OLD, [FLY_FILE]), ("ignore", OLD, [])]
)
def test_other_files_with_the_replaced_token(stale: str, expected: str, reported: list[str]) -> None:
    files = {DEFAULT: {"token": OLD}, FLY_FILE: {"token": OLD, "mine": OLD}, Z_FILE: {"token": OTHER}}
    result = plan(texts(files), [USUAL], wish(stale=stale))
    assert json.loads(result.texts[FLY_FILE]) == {"token": expected, "mine": OLD}
    assert json.loads(result.texts[Z_FILE]) == {"token": OTHER}
    assert result.stale == reported
    assert result.replaced == {OLD}


def test_files_without_json_in_their_names_are_not_updated() -> None:
    files = {DEFAULT: {"token": OLD}, f"{USUAL}/cave-secret.json.bak": {"token": OLD}}
    assert planned(files, wish())[f"{USUAL}/cave-secret.json.bak"] == {"token": OLD}


# several servers -------------------------------------------------------------------------------------------------


def test_cave_secret_stays_with_the_server_whose_token_it_holds() -> None:
    files = {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}}
    result = planned(files, wish())
    assert result[DEFAULT] == {"token": OTHER}
    assert result[H_FILE] == {"token": NEW}


def test_a_token_in_a_file_of_the_same_family_claims_nothing() -> None:
    files = {DEFAULT: {"token": OLD}, FLY_FILE: {"token": OLD}}
    assert planned(files, wish())[DEFAULT] == {"token": NEW}


def test_two_servers_side_by_side_come_to_rest_in_either_order() -> None:
    for first, second in ((wish(), wish(OTHER, ZETTA)), (wish(OTHER, ZETTA), wish())):
        files: dict[str, str] = {}
        for _round in range(2):
            before = files
            files = plan(files, [USUAL], first).texts
            files = plan(files, [USUAL], second).texts
        assert files == before
        assert json.loads(files[H_FILE])["token"] == NEW
        assert json.loads(files[Z_FILE])["token"] == OTHER


# absent ----------------------------------------------------------------------------------------------------------


def test_absent_undoes_present() -> None:
    files = plan({}, [USUAL], wish()).texts
    assert plan(files, [USUAL], wish(None)).texts == {}


def test_absent_takes_its_key_and_leaves_the_others() -> None:
    files = {DEFAULT: {"token": OLD, "mine": OTHER}, H_FILE: {"token": OLD}, LEGACY: {"token": OLD}}
    assert planned(files, wish(None)) == {DEFAULT: {"mine": OTHER}}


def test_absent_forgets_the_server_of_a_datastack_only_when_nothing_is_left_for_it() -> None:
    files = {H_FILE: {"token": OLD}, MAP: {"minnie65_public": SERVER, "other": SERVER}}
    assert planned(files, wish(None)) == {MAP: {"other": SERVER}}
    files[H_FILE] = {"token": OLD, "mine": OTHER}
    assert planned(files, wish(None, key="mine"))[MAP] == files[MAP]


def test_absent_leaves_a_datastack_that_is_mapped_elsewhere() -> None:
    files = {MAP: {"minnie65_public": "https://elsewhere.example.org"}}
    assert planned(files, wish(None)) == files


def test_absent_leaves_another_servers_token() -> None:
    files = {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}, H_FILE: {"token": OLD}}
    assert planned(files, wish(None)) == {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}}


def test_absent_where_there_is_nothing_is_nothing() -> None:
    assert plan({}, [USUAL], wish(None)).texts == {}


# whatever is there -----------------------------------------------------------------------------------------------

TOKENS = st.sampled_from([OLD, NEW, OTHER, "", None, 7, True, [OLD], {"token": OLD}])
CONTENTS = st.dictionaries(st.sampled_from(["token", "mine"]), TOKENS)
PATHS = [H_FILE, S_FILE, FLY_FILE, Z_FILE, DEFAULT, LEGACY]
FILES = st.dictionaries(st.sampled_from(PATHS + [path.replace(USUAL, ELSEWHERE) for path in PATHS]), CONTENTS)
WISHES = st.builds(
    wish,
    st.sampled_from([NEW, OTHER, None]),
    st.sampled_from([SERVER, ZETTA]),
    stale=st.sampled_from(["update", "report", "ignore"]),
)
WHERE = places("/home/alice", cloud_volume_dir="/data/cv")


def sent(result: Plan, wanted: Wish) -> set[Any]:
    listing = {path: Entry(0o600, 0, 0, True, text, None, "") for path, text in result.texts.items()}
    return {reading.token for reading in read_by_all(listing, WHERE, wanted.host, wanted.local_hosts, wanted.key)}


@settings(max_examples=300)
@given(FILES, WISHES)
def test_whatever_is_there_all_readers_send_the_one_token(files: dict[str, Any], wanted: Wish) -> None:
    if wanted.token is not None:
        assert sent(plan(texts(files), [USUAL, ELSEWHERE], wanted), wanted) == {wanted.token}


@settings(max_examples=300)
@given(FILES, WISHES)
def test_whatever_is_there_a_second_run_changes_nothing(files: dict[str, Any], wanted: Wish) -> None:
    first = plan(texts(files), [USUAL, ELSEWHERE], wanted)
    assert plan(first.texts, [USUAL, ELSEWHERE], wanted).texts == first.texts


@settings(max_examples=300)
@given(FILES, WISHES)
def test_whatever_is_there_other_keys_stay(files: dict[str, Any], wanted: Wish) -> None:
    result = planned(files, wanted, [USUAL, ELSEWHERE])
    for path, content in files.items():
        for key in set(content) - {wanted.key}:
            assert result[path][key] == content[key]


@settings(max_examples=300)
@given(FILES, WISHES)
def test_whatever_is_there_other_files_are_neither_made_nor_lost(files: dict[str, Any], wanted: Wish) -> None:
    result = plan(texts(files), [USUAL, ELSEWHERE], wanted)
    before = texts(files)
    assert set(result.texts) - set(before) <= set(result.reasons)
    for path in set(before) - set(result.reasons):
        assert result.texts[path] == before[path]
    if wanted.token is not None:
        assert set(before) <= set(result.texts)
