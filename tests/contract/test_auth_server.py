# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The auth server: people, keys, terms of service."""

from __future__ import annotations

import email.utils
import re
import time
from typing import Any

import pytest
from contract.asking import Server, fingerprint, without_tokens

from cave_server import CaveServer

PREFIXES = ["/auth", "/sticky_auth"]
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT")
TOKEN = re.compile(r"[0-9a-f]{32}")
MAKING = "to make and kill tokens"


def keys(server: Server, token: str) -> list[dict[str, Any]]:
    """Return the list of keys, with fingerprints for tokens."""
    answer = server.get("/auth/api/v1/user/token", token)
    assert answer.status_code == 200
    return without_tokens(answer.json())


def accepted(server: Server, token: str) -> bool:
    """Return whether the auth server accepts a token."""
    return server.get("/auth/api/v1/user/cache", token).status_code == 200


# Versions


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_version_is_open_to_all(server: Server, prefix: str) -> None:
    answer = server.get(f"{prefix}/version")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.fullmatch(r"neuroglance_auth -- version \d+(\.\d+)+", answer.text)


def test_the_stand_in_is_version_2_30_3(server: Server) -> None:
    server.stand_in("one certain version")
    assert server.get("/auth/version").text == "neuroglance_auth -- version 2.30.3"


# What a token is worth


@pytest.mark.parametrize("prefix", PREFIXES)
def test_user_cache_tells_all_about_a_token(server: Server, prefix: str) -> None:
    answer = server.get(f"{prefix}/api/v1/user/cache", server.token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    told = answer.json()
    kinds: dict[str, type | tuple[type, ...]] = {
        "admin": bool,
        "affiliations": list,
        "datasets_admin": list,
        "email": str,
        "groups": list,
        "groups_admin": list,
        "id": int,
        "missing_tos": list,
        "name": str,
        "parent_id": (int, type(None)),
        "permissions": dict,
        "permissions_v2": dict,
        "permissions_v2_ignore_tos": dict,
        "pi": (str, type(None)),
        "service_account": bool,
    }
    assert set(told) >= set(kinds)
    assert [name for name, kind in kinds.items() if not isinstance(told[name], kind)] == []
    assert "default" in told["groups"]
    assert told["permissions"][server.datastack] >= 1
    assert "view" in told["permissions_v2"][server.datastack]
    assert "view" in told["permissions_v2_ignore_tos"][server.datastack]


def test_user_cache_is_written_as_the_real_server_writes_it(server: Server) -> None:
    person = server.stand_in("a person of our own").person("alice")
    assert server.get("/auth/api/v1/user/cache", server.token).text == (
        '{"admin":false,"affiliations":[[]],"datasets_admin":[],"email":"alice@example.org",'
        f'"groups":["default","minnie-readers"],"groups_admin":[],"id":{person.id},"missing_tos":[],"name":"alice",'
        '"parent_id":null,"permissions":{"minnie65_public":1},"permissions_v2":{"minnie65_public":["view"]},'
        '"permissions_v2_ignore_tos":{"minnie65_public":["view"]},"pi":"","service_account":false}\n'
    )


def test_who_owes_terms_of_service_has_no_permission_and_is_told_which_terms(server: Server) -> None:
    told = server.get("/auth/api/v1/user/cache", server.token_no_tos).json()
    assert server.datastack not in told["permissions"]
    assert server.datastack not in told["permissions_v2"]
    assert "view" in told["permissions_v2_ignore_tos"][server.datastack]
    (owed,) = [terms for terms in told["missing_tos"] if terms["dataset_name"] == server.datastack]
    assert set(owed) == {"dataset_id", "dataset_name", "tos_id", "tos_name"}
    assert server.get("/auth/api/v1/user/missing", server.token_no_tos).json() == told["missing_tos"]


def test_the_terms_owed_for_minnie_are_those_of_microns(server: Server) -> None:
    server.stand_in("a known datastack")
    assert server.get("/auth/api/v1/user/missing", server.token_no_tos).json() == [
        {"dataset_id": 1, "dataset_name": "minnie65_public", "tos_id": 2, "tos_name": "MICrONS Terms"}
    ]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_who_owes_nothing_has_an_empty_list(server: Server, prefix: str) -> None:
    answer = server.get(f"{prefix}/api/v1/user/missing", server.token)
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_user_me_tells_who_the_owner_is(server: Server, prefix: str) -> None:
    answer = server.get(f"{prefix}/api/v1/user/me", server.token)
    assert answer.status_code == 200
    me = answer.json()
    assert set(me) >= {"id", "name", "email", "admin", "service_account"}
    told = server.get("/auth/api/v1/user/cache", server.token).json()
    assert [me[name] for name in ("id", "name", "email")] == [told[name] for name in ("id", "name", "email")]


# The list of keys


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_list_shows_every_key_in_clear_newest_id_first(server: Server, prefix: str) -> None:
    answer = server.get(f"{prefix}/api/v1/user/token", server.token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    listed = without_tokens(answer.json())
    assert fingerprint(server.token) in [key["token"] for key in listed]
    assert [key["id"] for key in listed] == sorted((key["id"] for key in listed), reverse=True)
    for key in listed:
        assert set(key) == {"created", "description", "id", "last_used", "token", "updated", "user_id"}
        assert DATE.fullmatch(key["created"])
        assert DATE.fullmatch(key["updated"])
        assert key["last_used"] is None or DATE.fullmatch(key["last_used"])


def test_the_list_has_the_newest_of_several_keys_first(server: Server) -> None:
    cave = server.stand_in(MAKING)
    cave.make_token("alice", "second")
    cave.make_token("alice", "third")
    assert [key["description"] for key in keys(server, server.token)] == ["third", "second", None]


# Making keys


@pytest.mark.parametrize("prefix", PREFIXES)
def test_create_token_makes_a_key_and_leaves_the_old_ones_alive(server: Server, prefix: str) -> None:
    server.stand_in(MAKING)
    answer = server.get(f"{prefix}/api/v1/create_token", server.token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert TOKEN.fullmatch(answer.json())
    assert accepted(server, answer.json())
    assert accepted(server, server.token)
    assert [key["description"] for key in keys(server, server.token)] == [None, None]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_posting_makes_a_described_key_and_leaves_the_old_ones_alive(server: Server, prefix: str) -> None:
    server.stand_in(MAKING)
    answer = server.ask("POST", f"{prefix}/api/v1/user/token", server.token, json={"description": "lab 7, x" + "é" * 8})
    assert answer.status_code == 200
    assert TOKEN.fullmatch(answer.json())
    assert accepted(server, server.token)
    newest = keys(server, server.token)[0]
    assert (newest["token"], newest["description"]) == (fingerprint(answer.json()), "lab 7, x" + "é" * 8)


def test_a_description_has_room_for_120_characters(server: Server) -> None:
    server.stand_in(MAKING)
    answer = server.ask("POST", "/auth/api/v1/user/token", server.token, json={"description": "é" * 120})
    assert answer.status_code == 200
    assert keys(server, server.token)[0]["description"] == "é" * 120


@pytest.mark.parametrize("description", ["x" * 121, {"a": "b"}], ids=["long", "object"])
def test_a_description_that_does_not_fit_breaks_the_server_and_leaves_a_key_in_no_list(
    server: Server, description: object
) -> None:
    cave = server.stand_in(MAKING)
    answer = server.ask("POST", "/auth/api/v1/user/token", server.token, json={"description": description})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert [key["id"] for key in keys(server, server.token)] == [key["id"] for key in cave.tokens("alice")]
    assert len(cave.tokens("alice")) == 1
    (hidden,) = cave.hidden_tokens("alice")
    assert accepted(server, hidden)


@pytest.mark.parametrize(
    "body", [{"data": b""}, {"data": b"no json", "headers": {"Content-Type": "application/json"}}, {"data": b"{}"}]
)
def test_without_a_description_a_key_has_none(server: Server, body: dict[str, Any]) -> None:
    server.stand_in(MAKING)
    assert server.ask("POST", "/auth/api/v1/user/token", server.token, **body).status_code == 200
    assert keys(server, server.token)[0]["description"] is None


# Killing keys


def test_a_deleted_key_is_dead_at_once_and_a_second_time_it_is_404(server: Server) -> None:
    cave = server.stand_in(MAKING)
    other = cave.make_token("alice", "old laptop")
    number = keys(server, server.token)[0]["id"]
    answer = server.ask("DELETE", f"/auth/api/v1/user/token/{number}", server.token)
    assert (answer.status_code, answer.json()) == (200, "success")
    assert answer.headers["Content-Type"] == "application/json"
    assert not accepted(server, other)
    assert accepted(server, server.token)
    again = server.ask("DELETE", f"/auth/api/v1/user/token/{number}", server.token)
    assert (again.status_code, again.text) == (404, "Token doesn't exist")
    assert again.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("admin", [False, True])
def test_nobody_deletes_another_persons_key_not_even_an_admin(server: Server, admin: bool) -> None:
    cave = server.stand_in(MAKING)
    other = cave.add_person("dave", admin=admin)
    number = cave.tokens("alice")[0]["id"]
    answer = server.ask("DELETE", f"/auth/api/v1/user/token/{number}", other.token)
    assert (answer.status_code, answer.text) == (404, "Token doesn't exist")
    assert accepted(server, server.token)


def test_a_key_may_delete_itself(server: Server) -> None:
    cave = server.stand_in(MAKING)
    number = cave.tokens("alice")[0]["id"]
    assert server.ask("DELETE", f"/sticky_auth/api/v1/user/token/{number}", server.token).status_code == 200
    assert not accepted(server, server.token)
    assert cave.tokens("alice") == []


# refresh_token


@pytest.mark.parametrize("prefix", PREFIXES)
def test_refresh_gives_the_only_key_a_new_token_and_kills_the_old_one(server: Server, prefix: str) -> None:
    cave = server.stand_in(MAKING)
    before = without_tokens(cave.tokens("alice"))
    answer = server.get(f"{prefix}/api/v1/refresh_token", server.token)
    assert answer.status_code == 200
    assert TOKEN.fullmatch(answer.json())
    assert not accepted(server, server.token)
    after = keys(server, answer.json())
    assert [key["id"] for key in after] == [key["id"] for key in before]
    assert [key["token"] for key in after] == [fingerprint(answer.json())]


def test_refresh_refuses_accounts_with_several_keys(server: Server) -> None:
    cave = server.stand_in(MAKING)
    other = cave.make_token("alice")
    answer = server.get("/auth/api/v1/refresh_token", server.token)
    assert answer.status_code == 400
    assert answer.text == "Refresh token does not work for accounts with more than one API Key"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert accepted(server, server.token)
    assert accepted(server, other)


# last_used


def last_used(cave: CaveServer, name: str = "alice") -> str | None:
    """Return when the newest key was used, without using it."""
    used: str | None = cave.tokens(name)[0]["last_used"]
    return used


def test_last_used_is_null_until_first_use(server: Server) -> None:
    cave = server.stand_in("an unused token")
    assert last_used(cave) is None
    server.get("/auth/api/v1/user/cache", server.token)
    assert last_used(cave) is not None


def test_last_used_is_the_time_of_the_request_in_whole_seconds(server: Server) -> None:
    before = time.time()
    used = next(key for key in keys(server, server.token) if key["token"] == fingerprint(server.token))["last_used"]
    assert DATE.fullmatch(used)
    # The server's clock may differ a little from ours.
    assert abs(email.utils.parsedate_to_datetime(used).timestamp() - before) < 60


def test_last_used_moves_with_each_request_to_the_auth_server(server: Server) -> None:
    cave = server.stand_in("time to pass")
    moments = []
    for _time in range(3):
        server.get("/auth/api/v1/user/me", server.token)
        moments.append(last_used(cave))
        cave.advance(2)
    assert len(set(moments)) == 3


def test_last_used_moves_even_when_the_auth_server_refuses(server: Server) -> None:
    cave = server.stand_in("an unused token")
    assert server.ask("POST", "/auth/api/v1/service_account", server.token, json={"name": "x"}).status_code == 403
    assert last_used(cave) is not None


def test_last_used_stays_while_the_info_service_answers_from_its_cache(server: Server) -> None:
    cave = server.stand_in("a short cache, and time to pass")
    assert server.get(server.full, server.token).status_code == 200
    first = last_used(cave)
    assert first is not None
    cave.advance(100)
    assert server.get(server.full, server.token).status_code == 200
    assert last_used(cave) == first
    cave.advance(250)
    assert server.get(server.full, server.token).status_code == 200
    assert last_used(cave) != first


# Service accounts


@pytest.mark.parametrize("prefix", PREFIXES)
def test_service_accounts_are_for_superadmins(server: Server, prefix: str) -> None:
    for method, path in (("POST", "service_account"), ("GET", "service_account/1/token")):
        answer = server.ask(method, f"{prefix}/api/v1/{path}", server.token_no_permission, json={})
        assert (answer.status_code, answer.text) == (403, "Requires superadmin privilege.")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_a_superadmin_makes_a_service_account_and_reads_its_token(server: Server) -> None:
    cave = server.stand_in("a superadmin")
    admin = cave.add_person("root", admin=True)
    made = server.ask("POST", "/auth/api/v1/service_account", admin.token, json={"name": "Robot"})
    assert made.status_code == 200
    assert made.json()["service_account"] is True
    answer = server.get(f"/auth/api/v1/service_account/{made.json()['id']}/token", admin.token)
    assert answer.status_code == 200
    told = server.get("/auth/api/v1/user/cache", answer.json()).json()
    assert (told["service_account"], told["parent_id"], told["name"]) == (True, admin.id, "Robot")


def test_a_service_accounts_terms_of_service_are_its_parents(server: Server) -> None:
    cave = server.stand_in("a superadmin")
    admin = cave.add_person("root", [server.datastack], accepted_tos=False, admin=True)
    made = server.ask("POST", "/auth/api/v1/service_account", admin.token, json={"name": "Robot"}).json()
    token = server.get(f"/auth/api/v1/service_account/{made['id']}/token", admin.token).json()
    cave.set_permissions("Robot", [server.datastack])
    assert server.get(server.full, token).json()["error"] == "missing_tos"
    cave.accept_tos("root")
    assert server.get(server.full, token).status_code == 200


# Pages for people


def test_the_page_of_tokens_is_for_people_who_are_logged_in(server: Server) -> None:
    answer = server.get("/sticky_auth/settings/tokens")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(f"{server.authorize}?redirect=")
    assert server.get("/auth/settings/tokens").status_code == 404


def test_the_page_of_tokens_shows_them(server: Server) -> None:
    answer = server.get("/sticky_auth/settings/tokens", server.token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    shown = server.token in answer.text
    assert shown


def test_the_terms_of_service_are_shown_and_accepted_in_a_browser(server: Server) -> None:
    cave = server.stand_in("to log in and to accept terms of service")
    refused = server.get(server.full, server.token_no_tos)
    path = refused.json()["data"]["tos_form_url"].removeprefix(server.url)
    assert path == "/sticky_auth/api/v1/tos/2/accept"
    assert server.get(path).status_code == 302
    cookies = {"middle_auth_token": cave.log_in("bob")}
    form = server.get(path, cookies=cookies)
    assert form.status_code == 200
    assert "MICrONS Terms" in form.text
    assert server.get(server.full, server.token_no_tos).status_code == 403
    answer = server.ask("POST", path, cookies=cookies, params={"redirect": server.url})
    assert (answer.status_code, answer.headers["Location"]) == (302, server.url)
    assert server.get(server.full, server.token_no_tos).status_code == 200


def test_accepting_the_terms_of_service_answers_500_and_counts_all_the_same(server: Server) -> None:
    cave = server.stand_in("to log in and to accept terms of service")
    cookies = {"middle_auth_token": cave.log_in("bob")}
    answer = server.ask("POST", "/sticky_auth/api/v1/tos/2/accept", cookies=cookies)
    assert answer.status_code == 500
    assert "Internal Server Error" in answer.text
    assert server.get("/auth/api/v1/user/missing", server.token_no_tos).json() == []
    assert server.get("/sticky_auth/api/v1/tos/2/accept", cookies=cookies).status_code == 200


# The token of a browser's login


def test_the_token_of_a_login_answers_as_a_key_does_and_is_in_no_list(server: Server) -> None:
    login = server.stand_in("to log in").log_in("alice")
    assert accepted(server, login)
    told = [server.get("/auth/api/v1/user/cache", token).json() for token in (login, server.token)]
    assert told[0] == told[1]
    listed = [key["token"] for key in keys(server, login)]
    assert fingerprint(login) not in listed
    assert fingerprint(server.token) in listed


def test_the_token_of_a_login_lives_604800_seconds_however_often_it_is_used(server: Server) -> None:
    cave = server.stand_in("to log in, and time to pass")
    login = cave.log_in("alice")
    ttl = f"/auth/api/v1/user/token/{login}/ttl"
    assert 604_700 < server.get(ttl, server.token).json() <= 604_800
    cave.advance(604_000)
    assert accepted(server, login)
    assert server.get(ttl, login).json() <= 800
    cave.advance(801)
    assert not accepted(server, login)


def test_a_key_has_no_end_and_another_persons_token_is_not_told(server: Server) -> None:
    server.stand_in("a token that may stand in an address")
    assert server.get(f"/auth/api/v1/user/token/{server.token}/ttl", server.token).json() == -1
    assert server.get(f"/auth/api/v1/user/token/{server.token}/ttl", server.token_no_tos).status_code == 404


def test_logging_out_kills_the_token_of_a_login_and_no_key(server: Server) -> None:
    login = server.stand_in("to log in").log_in("alice")
    answer = server.get("/auth/api/v1/logout", server.token)
    assert (answer.status_code, answer.text) == (422, "Can't logout an API Key.")
    assert accepted(server, server.token)
    answer = server.get("/auth/api/v1/logout", login)
    assert (answer.status_code, answer.json()) == (200, "success")
    assert not accepted(server, login)


def test_a_login_can_be_exchanged_for_a_key_that_stays(server: Server) -> None:
    cave = server.stand_in("to log in")
    login = cave.log_in("alice")
    made = server.ask("POST", "/auth/api/v1/user/token", login, json={"description": "lab"}).json()
    cave.advance(604_801)
    assert accepted(server, made)
    assert not accepted(server, login)


# Older servers


@pytest.mark.parametrize(("method", "path"), [("GET", "create_token"), ("POST", "user/token")])
def test_where_one_token_is_allowed_making_one_kills_the_others(server: Server, method: str, path: str) -> None:
    cave = server.stand_in("an older server's way")
    cave.configure(legacy=True)
    answer = server.ask(method, f"/auth/api/v1/{path}", server.token)
    assert answer.status_code == 200
    assert not accepted(server, server.token)
    assert [key["token"] for key in keys(server, answer.json())] == [fingerprint(answer.json())]
