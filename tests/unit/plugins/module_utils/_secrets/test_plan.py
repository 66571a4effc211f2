# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which secrets files must change so that every reader sends one token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import hidden_keys
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import plan
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request, conflicts

SERVER = "https://global.daf-apis.com"
ZETTA = "https://proofreading.zetta.ai"
LAB = "https://cave.lab.example"
STACK = {"name": "minnie65_public", "local_server": ""}
SHARED = [{"name": "mouse", "local_server": "https://minnie.microns-daf.com"}]
OF_ZETTA = [{"name": "mouse", "local_server": "https://data.proofreading.zetta.ai"}]
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


def request(token: str | None = NEW, server: str = SERVER, key: str = "token", **more: Any) -> Request:
    names = more.get("datastacks", ["minnie65_public"] if server == SERVER else ["kronauer_ant"])
    return Request(server, parse_datastacks(names, server), key, token)


def texts(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {path: json.dumps(content) for path, content in files.items()}


def planned(
    files: dict[str, dict[str, Any]], *requests: Request, directories: tuple[str, ...] = (USUAL,)
) -> dict[str, Any]:
    result = plan(texts(files), directories, requests)
    return {path: json.loads(text) for path, text in result.texts.items()}


MAPPED = {"minnie65_public": SERVER}


def test_from_nothing_every_reader_gets_its_file() -> None:
    token = {"token": NEW}
    assert planned({}, request()) == {H_FILE: token, S_FILE: token, DEFAULT: token, MAP: MAPPED}


def test_a_legacy_file_with_the_old_token_is_updated_and_with_another_left_alone() -> None:
    assert planned({LEGACY: {"token": OLD}}, request())[LEGACY] == {"token": NEW}
    files = {LEGACY: {"token": OTHER}, DEFAULT: {"token": OLD}}
    assert planned(files, request())[LEGACY] == {"token": OTHER}


def test_extra_keys_are_carried_into_a_file_that_shadows_them() -> None:
    banc = {"token": OLD, "brain_and_nerve_cord": OTHER}
    result = planned({DEFAULT: banc}, request())
    assert result[H_FILE] == result[S_FILE] == result[DEFAULT] == {**banc, "token": NEW}


def test_extra_keys_of_the_legacy_file_are_carried_too() -> None:
    result = planned({LEGACY: {"token": OLD, "fanc_production_mar2021": OTHER}}, request())
    assert result[DEFAULT] == result[H_FILE] == {"token": NEW, "fanc_production_mar2021": OTHER}


def test_a_key_that_a_person_wrote_into_the_default_file_later_reaches_the_servers_files() -> None:
    files = {H_FILE: {"token": OLD}, S_FILE: {"token": OLD}, DEFAULT: {"token": OLD, "brain_and_nerve_cord": OTHER}}
    assert hidden_keys(texts(files), H_FILE, request().family()) == {"brain_and_nerve_cord": OTHER}
    result = planned(files, request())
    assert result[H_FILE] == result[S_FILE] == {"token": NEW, "brain_and_nerve_cord": OTHER}
    assert hidden_keys(texts(result), H_FILE, request().family()) == {}


def test_the_token_for_all_servers_stays_that_of_its_server_where_servers_swap_tokens() -> None:
    files = {H_FILE: {"token": OLD}, Z_FILE: {"token": OTHER}, DEFAULT: {"token": OLD}}
    result = planned(files, request(OTHER, datastacks=[]), request(OLD, server=ZETTA, datastacks=[]))
    assert (result[H_FILE], result[Z_FILE], result[DEFAULT]) == ({"token": OTHER}, {"token": OLD}, {"token": OTHER})


def test_a_key_of_another_server_is_not_missed() -> None:
    files: dict[str, dict[str, Any]] = {
        H_FILE: {"token": OLD},
        Z_FILE: {"zetta": OTHER},
        DEFAULT: {"token": OLD, "zetta": OTHER},
    }
    assert hidden_keys(texts(files), H_FILE, request().family()) == {}
    assert planned(files, request())[H_FILE] == {"token": NEW}


def test_another_key_takes_the_token_with_it_into_a_new_server_file() -> None:
    result = planned({DEFAULT: {"token": OLD}}, request(OTHER, key="brain_and_nerve_cord"))
    assert result[H_FILE] == {"token": OLD, "brain_and_nerve_cord": OTHER}
    assert result[DEFAULT] == {"token": OLD, "brain_and_nerve_cord": OTHER}


# stale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stale", "expected", "told"), [("update", NEW, set()), ("report", OLD, {FLY_FILE}), ("ignore", OLD, set())]
)
def test_other_files_with_the_replaced_token(stale: str, expected: str, told: set[str]) -> None:
    files = {DEFAULT: {"token": OLD}, FLY_FILE: {"token": OLD, "mine": OTHER}, Z_FILE: {"token": OTHER}}
    result = plan(texts(files), [USUAL], [request()], stale)
    assert json.loads(result.texts[FLY_FILE]) == {"token": expected, "mine": OTHER}
    assert json.loads(result.texts[Z_FILE]) == {"token": OTHER}
    (share,) = result.shares
    assert (set(share.stale), share.replaced) == (told, {OLD})


def test_a_replaced_token_is_replaced_under_every_key_and_in_copies_which_is_said() -> None:
    both = {"token": OLD, "brain_and_nerve_cord": OLD, "mine": OTHER}
    files: dict[str, dict[str, Any]] = {H_FILE: both, DEFAULT: both, LEGACY: both}
    files |= {f"{USUAL}/{copy}": {"banc": OLD} for copy in ("notes.json", "old-cave-secret.json")}
    result = plan(texts(files), [USUAL], [request()])
    new = {"token": NEW, "brain_and_nerve_cord": NEW, "mine": OTHER}
    assert [json.loads(result.texts[path]) for path in (H_FILE, DEFAULT, LEGACY)] == [new] * 3
    for copy in ("notes.json", "old-cave-secret.json"):
        assert json.loads(result.texts[f"{USUAL}/{copy}"]) == {"banc": NEW}
    reasons = result.shares[0].reasons
    assert reasons[H_FILE].endswith('; held the token that was replaced under "brain_and_nerve_cord"')
    assert reasons[LEGACY] == 'held the token that was replaced under "brain_and_nerve_cord", "token"'


@pytest.mark.parametrize("new", [NEW, None], ids=["present", "absent"])
def test_a_file_named_for_another_server_stays_and_is_told_where_it_holds_the_replaced_token(new: str | None) -> None:
    files = {H_FILE: {"token": OLD}, Z_FILE: {"token": OLD}}
    result = plan(texts(files), [USUAL], [request(new)])
    assert json.loads(result.texts[Z_FILE]) == {"token": OLD}
    assert "which is a file of proofreading.zetta.ai" in result.shares[0].stale[Z_FILE]


def test_a_token_inside_of_something_else_is_told() -> None:
    files: dict[str, dict[str, Any]] = {H_FILE: {"token": OLD}, f"{USUAL}/notes.json": {"mine": {"token": OLD}}}
    assert set(plan(texts(files), [USUAL], [request(None)]).shares[0].stale) == {f"{USUAL}/notes.json"}


def test_files_without_json_in_their_names_are_not_updated() -> None:
    files = {DEFAULT: {"token": OLD}, f"{USUAL}/cave-secret.json.bak": {"token": OLD}}
    assert planned(files, request())[f"{USUAL}/cave-secret.json.bak"] == {"token": OLD}


# several servers -------------------------------------------------------------------------------------------------


def test_cave_secret_stays_with_the_server_whose_token_it_holds() -> None:
    files = {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}}
    result = planned(files, request())
    assert result[DEFAULT] == {"token": OTHER}
    assert result[H_FILE] == {"token": NEW}


def test_a_token_in_a_file_of_the_same_family_claims_nothing() -> None:
    files = {DEFAULT: {"token": OLD}, FLY_FILE: {"token": OLD}}
    assert planned(files, request())[DEFAULT] == {"token": NEW}


@pytest.mark.parametrize("host", ["H.Example.org", "h.example.org:443", "H.example.org:80"])
def test_a_server_is_the_same_however_its_address_was_typed(host: str) -> None:
    assert host.lower().partition(":")[0] == "h.example.org"
    asked = Request("https://h.example.org", [], "token", None)
    files: dict[str, dict[str, Any]] = {
        DEFAULT: {"token": OLD},
        f"{host}-cave-secret.json": {"token": OLD, "mine": 1},
    }
    assert planned(files, asked) == {f"{host}-cave-secret.json": {"mine": 1}}
    assert planned(files, asked._replace(token=NEW))[f"{host}-cave-secret.json"]["token"] == NEW
    other = {DEFAULT: {"token": OLD}, "h.example.org:8443-cave-secret.json": {"token": OLD}}
    assert planned(other, asked) == other


def test_two_tokens_for_one_server_in_two_spellings_exclude_each_other() -> None:
    one = Request("https://h.example.org", [], "token", NEW)
    for server in ("https://H.example.org", "https://h.example.org:443"):
        assert [what for *_pair, what in conflicts([one, Request(server, [], "token", OTHER)])]
        assert not list(conflicts([one, Request(server, [], "token", NEW)]))


def test_of_two_servers_with_one_token_one_keeps_it_and_the_other_gets_its_own() -> None:
    files = {H_FILE: {"token": OLD}, Z_FILE: {"token": OLD}}
    requests = request(OLD, ZETTA), request()
    result = planned(files, *requests)
    assert (result[Z_FILE], result[H_FILE], result[S_FILE]) == ({"token": OLD}, {"token": NEW}, {"token": NEW})
    assert planned(result, *requests) == planned(files, *requests[::-1]) == result


def test_two_servers_can_swap_their_tokens() -> None:
    files = planned({}, request(OLD), request(OTHER, ZETTA))
    result = planned(files, request(OTHER), request(OLD, ZETTA))
    assert (result[H_FILE], result[Z_FILE]) == ({"token": OTHER}, {"token": OLD})


def test_a_key_of_one_server_does_not_make_the_default_file_its_own() -> None:
    requests = request("zetta-token", ZETTA, key="zetta"), request()
    result = planned({DEFAULT: {"token": OLD}}, *requests)
    assert result[DEFAULT] == {"token": NEW, "zetta": "zetta-token"}
    assert result[Z_FILE] == {"zetta": "zetta-token"}
    assert OLD not in str(result)
    assert planned(result, *requests) == planned({DEFAULT: {"token": OLD}}, *requests[::-1]) == result


@pytest.mark.parametrize(
    ("files", "requests"),
    [
        pytest.param(
            {
                f"{USUAL}/cave.lab.example-cave-secret.json": {"token": OLD},
                DEFAULT: {"token": OLD},
                FLY_FILE: {"token": NEW},
            },
            (request(OLD, datastacks=[]), request(NEW, LAB, datastacks=[])),
            id="a local server has the other's",
        ),
        pytest.param(
            {DEFAULT: {"mine": OTHER}},
            (
                request(OLD, LAB, datastacks=OF_ZETTA),
                request(NEW, LAB, key="mine", datastacks=[]),
                request(OTHER, ZETTA, key="mine"),
            ),
            id="a local server of both",
        ),
        pytest.param(
            {Z_FILE: {"mine": OLD}, DEFAULT: {"mine": OLD}},
            (
                request(OLD, LAB, key="mine", datastacks=[]),
                request(NEW, LAB, datastacks=OF_ZETTA),
                request(OTHER, ZETTA, key="mine"),
            ),
            id="a token that changes its server",
        ),
    ],
)
def test_a_second_run_leaves_the_default_file_with_its_server_where_several_hold_the_token(
    files: dict[str, dict[str, Any]], requests: tuple[Request, ...]
) -> None:
    assert not list(conflicts(requests))
    result = planned(files, *requests)
    assert planned(result, *requests) == result


@pytest.mark.parametrize(
    ("one", "other", "about"),
    [
        (request(OLD), request(NEW, datastacks=[]), "what global.daf-apis.com-cave-secret.json is to hold"),
        (request(OLD), request(None), "what global.daf-apis.com-cave-secret.json is to hold"),
        (request(OLD), request(NEW, LAB, datastacks=SHARED), "what minnie.microns-daf.com-cave-secret.json is to hold"),
        (request(OLD), request(OLD, LAB, datastacks=[STACK]), "the server of datastack minnie65_public"),
    ],
)
def test_requests_that_exclude_each_other_are_told(one: Request, other: Request, about: str) -> None:
    for pair in ([one, other], [other, one]):
        ((first, second, what),) = conflicts(pair)
        assert (first, second) == (0, 1)
        assert what.startswith(about)


# absent ----------------------------------------------------------------------------------------------------------


def test_absent_undoes_present() -> None:
    files = plan({}, [USUAL], [request()]).texts
    assert plan(files, [USUAL], [request(None)]).texts == {}


def test_absent_takes_its_key_and_leaves_the_others() -> None:
    files = {DEFAULT: {"token": OLD, "mine": OTHER}, H_FILE: {"token": OLD}, LEGACY: {"token": OLD}}
    assert planned(files, request(None)) == {DEFAULT: {"mine": OTHER}}


def test_absent_forgets_the_server_of_a_datastack_only_when_nothing_is_left_for_it() -> None:
    files = {H_FILE: {"token": OLD}, MAP: {"minnie65_public": SERVER, "other": SERVER}}
    assert planned(files, request(None)) == {MAP: {"other": SERVER}}
    files[H_FILE] = {"token": OLD, "mine": OTHER}
    assert planned(files, request(None, key="mine"))[MAP] == files[MAP]


def test_absent_leaves_a_datastack_that_is_mapped_elsewhere() -> None:
    files = {MAP: {"minnie65_public": "https://elsewhere.example.org"}}
    assert planned(files, request(None)) == files


def test_absent_leaves_another_servers_token() -> None:
    files = {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}, H_FILE: {"token": OLD}}
    assert planned(files, request(None)) == {DEFAULT: {"token": OTHER}, Z_FILE: {"token": OTHER}}


def test_absent_where_there_is_nothing_is_nothing() -> None:
    assert plan({}, [USUAL], [request(None)]).texts == {}


def test_absent_removes_the_token_under_every_key() -> None:
    both = {"token": OLD, "brain_and_nerve_cord": OLD}
    assert planned({H_FILE: both, DEFAULT: both, LEGACY: {**both, "mine": OTHER}}, request(None)) == {
        LEGACY: {"mine": OTHER}
    }
