# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a datastack: what is open, what needs a permission and whose, and how each of them fails.

Only the stand-in is asked: on other deployments the services are on another server than the auth server.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from contract.asking import Server

from cave_server import CaveServer

NOBODYS_TOKEN = "deadbeef" * 4
OPEN = {
    "/materialize/version": r'"5\.26\.4"',
    "/materialize/api/versions": r"\[2,3\]",
    "/l2cache/": r"PCGL2Cache v1\.3\.1",
    "/l2cache/api/v1/table_mapping": r".*l2cache_id.*",
    "/skeletoncache/api/version": r'"0\.23\.11"',
    "/skeletoncache/api/versions": r"\[-1,0,1,2,3,4\]",
    "/skeletoncache/health": r'"healthy"',
    "/annotation/api/versions": r"\[2\]",
    "/schema/versions": r"\[2\]",
    "/schema/views/version": r'"5\.26\.3"',
    "/auth_info": r".*login_url.*",
}
NAMED = {
    "materialize": ("datastack", "/materialize/api/v2/datastack/{}/versions", [1, 2]),
    "segmentation": ("pychunkedgraph", "/segmentation/api/v1/table/{}/oldest_timestamp", {"iso": "2020"}),
    "segmentation info": ("pychunkedgraph", "/segmentation/table/{}/info", {"graph": {}}),
    "skeletoncache": ("datastack", "/skeletoncache/api/v1/{}/precomputed/skeleton/info", {"@type": "neuro"}),
    "annotation": ("aligned_volume", "/annotation/api/v2/aligned_volume/{}/table", ["synapses"]),
}
TOKEN_ONLY = {"/segmentation/api/version": '"2.21.1"', "/meshing/api/v1/": "PyChunkedGraph Meshing v2.21.1"}


@pytest.fixture
def cave(server: Server) -> CaveServer:
    """The stand-in, which is the datastack's local server too."""
    return server.stand_in("the services of a datastack on the same server")


def ask(server: Server, service: str, token: str, name: str = "") -> requests.Response:
    """Ask a service about the datastack, by the name that it has there, or by another one."""
    namespace, path, _answer = NAMED[service]
    return server.get(path.format(name or server.names()[namespace]), token)


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("path", OPEN)
def test_what_is_open_answers_without_a_token(server: Server, path: str) -> None:
    answer = server.get(path, headers={"X-Requested-With": "x"})
    assert answer.status_code == 200
    assert re.fullmatch(OPEN[path], answer.text.strip(), re.DOTALL)


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("path", TOKEN_ONLY)
def test_the_chunkedgraph_tells_its_version_to_any_token_and_its_auth_server_to_all(server: Server, path: str) -> None:
    answer = server.get(path, headers={"X-Requested-With": "x"})
    assert (answer.status_code, answer.json()["error"]) == (401, "no_token")
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{server.authorize}"'
    assert server.get(path, server.token_no_permission).text.strip() == TOKEN_ONLY[path]


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("service", NAMED)
def test_who_may_view_the_datastack_is_served(server: Server, service: str) -> None:
    answer = ask(server, service, server.token)
    assert answer.status_code == 200
    assert type(answer.json()) is type(NAMED[service][2])
    assert set(NAMED[service][2]) <= set(answer.json())


@pytest.mark.usefixtures("cave")
def test_the_l2_cache_answers_a_question_about_no_nodes(server: Server) -> None:
    path = f"/l2cache/api/v1/table/{server.names()['pychunkedgraph']}/attributes?update_cache=false"
    answer = server.ask("POST", path, server.token, json={"l2_ids": []})
    assert (answer.status_code, answer.json()) == (200, {})
    assert server.ask("POST", path, server.token_no_permission, json={"l2_ids": []}).status_code == 403


def test_a_table_without_an_l2_cache_is_a_500_that_says_so(server: Server, cave: CaveServer) -> None:
    cave.add_person("fly", ["flywire_fafb_public"])
    path = "/l2cache/api/v1/table/flywire_fafb_public/attributes?update_cache=false"
    answer = server.ask("POST", path, cave.person("fly").token, json={"l2_ids": []})
    assert answer.status_code == 500
    assert answer.json()["message"] == "Dataset flywire_fafb_public does not have an L2 Cache."
    assert "flywire_fafb_public" not in server.get("/l2cache/api/v1/table_mapping").json()


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("service", NAMED)
def test_refusals_are_those_of_the_info_service(server: Server, service: str) -> None:
    assert ask(server, service, NOBODYS_TOKEN).json()["error"] == "invalid_token"
    assert ask(server, service, server.token_no_tos).json()["error"] == "missing_tos"
    refused = ask(server, service, server.token_no_permission)
    assert (refused.status_code, refused.json()["error"]) == (403, "missing_permission")
    unknown = ask(server, service, server.token, "nosuchname")
    assert unknown.status_code == 400
    assert unknown.json()["data"] == {"resource_namespace": NAMED[service][0], "table_id": "nosuchname"}


def test_permission_for_the_datastack_does_not_imply_that_for_its_table_and_volume(
    server: Server, cave: CaveServer
) -> None:
    names = server.names()
    cave.map_name("pychunkedgraph", names["pychunkedgraph"], "other_dataset")
    assert ask(server, "materialize", server.token).status_code == 200
    assert ask(server, "annotation", server.token).status_code == 200
    refused = ask(server, "segmentation", server.token)
    assert refused.json()["data"] == {"auth_dataset": "other_dataset", "required_permission": "view"}


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("namespace", ["datastack", "pychunkedgraph", "aligned_volume"])
def test_any_token_learns_the_dataset_of_a_name(server: Server, namespace: str) -> None:
    path = "/auth/api/v1/service/{}/table/{}/dataset"
    answer = server.get(path.format(namespace, server.names()[namespace]), server.token_no_permission)
    assert (answer.status_code, answer.json()) == (200, server.datastack)
    unknown = server.get(path.format(namespace, "nosuchname"), server.token)
    assert (unknown.status_code, unknown.text) == (404, "No dataset for given service and table names")
    assert server.get(path.format(namespace, "nosuchname"), NOBODYS_TOKEN).status_code == 401


@pytest.mark.usefixtures("cave")
def test_the_state_service_refuses_in_words(server: Server) -> None:
    path = "/nglstate/api/v1/version"
    assert server.get(path, server.token_no_permission).json() == "0.7.2"
    for headers, status, text in (
        ({"X-Requested-With": "x"}, 401, "Unauthorized"),
        ({"Authorization": f"Bearer {NOBODYS_TOKEN}"}, 401, "Invalid/Expired Token"),
        ({"Authorization": "Token x"}, 400, "Invalid Request"),
    ):
        answer = server.get(path, headers=headers)
        assert (answer.status_code, answer.text) == (status, text)
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["WWW-Authenticate"].startswith(f'Bearer realm="{server.authorize}"')


@pytest.mark.usefixtures("cave")
@pytest.mark.parametrize("path", ["/segmentation", "/l2cache", "/materialize"])
def test_without_its_last_slash_a_path_leads_to_plain_http(server: Server, path: str) -> None:
    answer = server.get(path, server.token)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"{server.url.replace('https:', 'http:')}{path}/"


@pytest.mark.usefixtures("cave")
def test_a_wrong_method_is_a_500_of_materialize_and_a_405_of_the_chunkedgraph(server: Server) -> None:
    assert server.ask("POST", "/segmentation/table/x/info", server.token).status_code == 405
    answer = server.ask("POST", "/materialize/api/v2/datastack/x/versions", server.token)
    assert answer.status_code == 500
    assert answer.json()["message"].startswith("405 Method Not Allowed")


# What each of them remembers


@pytest.mark.parametrize("service", NAMED)
def test_a_service_goes_on_serving_a_dead_token_that_it_has_seen(
    server: Server, cave: CaveServer, service: str
) -> None:
    names = server.names()
    path = NAMED[service][1].format(names[NAMED[service][0]])
    assert server.get(path, server.token).status_code == 200
    cave.revoke(server.token)
    assert server.get(path, server.token).status_code == 200
    cave.advance(301)
    assert server.get(path, server.token).status_code == 401


@pytest.mark.parametrize("status", [429, 404])
@pytest.mark.parametrize("service", NAMED)
def test_after_a_hiccup_of_the_auth_server_a_good_token_is_invalid_for_300_seconds(
    server: Server, cave: CaveServer, service: str, status: int
) -> None:
    path = NAMED[service][1].format(server.names()[NAMED[service][0]])
    cave.configure(auth_hiccup=status)
    assert server.get(path, server.token).json()["error"] == "invalid_token"
    cave.configure(auth_hiccup=0)
    assert server.get("/auth/api/v1/user/cache", server.token).status_code == 200
    cave.advance(299)
    assert server.get(path, server.token).json()["error"] == "invalid_token"
    cave.advance(2)
    assert server.get(path, server.token).status_code == 200


def test_each_service_has_a_memory_of_its_own(server: Server, cave: CaveServer) -> None:
    names = server.names()
    assert ask(server, "materialize", server.token).status_code == 200
    paths = {name: path.format(names[namespace]) for name, (namespace, path, _answer) in NAMED.items()}
    cave.revoke(server.token)
    assert server.get(paths["materialize"], server.token).status_code == 200
    assert server.get(paths["annotation"], server.token).status_code == 401


def test_a_service_whose_own_token_is_dead_knows_no_name(server: Server, cave: CaveServer) -> None:
    names = server.names()
    cave.configure(without_token=["materialize", "info"])
    path = NAMED["materialize"][1].format(names["datastack"])
    answer = server.get(path, server.token)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_table_id")
    assert server.get("/info/api/v2/datastacks", server.token).json() == []
    assert server.get(NAMED["annotation"][1].format(names["aligned_volume"]), server.token).status_code == 200


# How each of them fails


@pytest.mark.parametrize("service", ["materialize", "annotation", "segmentation"])
def test_an_exception_of_a_service_is_a_500_with_the_reason_in_json(
    server: Server, cave: CaveServer, service: str
) -> None:
    cave.configure(broken=[service])
    answer = ask(server, service, server.token)
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, told["code"]) == (500, 500)
    assert "failed to connect" in told["message"]
    assert ("timestamp" in told) == (service == "segmentation")
    assert server.get("/materialize/version").status_code == 200


def test_the_skeleton_service_breaks_with_a_page(server: Server, cave: CaveServer) -> None:
    cave.configure(broken=["skeletoncache"])
    path = f"/skeletoncache/api/v1/{server.datastack}/precomputed/skeleton/exists"
    answer = server.ask("POST", path, server.token, json={"root_ids": [1], "skeleton_version": 4})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("service", NAMED)
def test_with_the_auth_server_down_tokens_that_are_not_remembered_are_a_500(
    server: Server, cave: CaveServer, service: str
) -> None:
    names = server.names()
    cave.set_auth_down()
    answer = server.get(NAMED[service][1].format(names[NAMED[service][0]]), server.token)
    assert answer.status_code == 500


def test_a_service_that_is_not_ready_is_nginx_page(server: Server, cave: CaveServer) -> None:
    for status, title in (
        (503, "503 Service Temporarily Unavailable"),
        (504, "504 Gateway Time-out"),
        (502, "502 Bad"),
    ):
        cave.clear_faults()
        cave.set_fault("/materialize", "status", status=status)
        answer = server.get("/materialize/version")
        assert answer.status_code == status
        assert answer.headers["Content-Type"].startswith("text/html")
        assert f"<h1>{title}" in answer.text
        assert "<center>nginx</center>" in answer.text
        assert server.get("/annotation/api/versions").status_code == 200


def test_a_fault_may_meet_one_host_alone(server: Server, cave: CaveServer) -> None:
    cave.set_fault("/materialize", "status", status=503, client="127.0.0.2")
    assert server.get("/materialize/version").status_code == 200
    cave.set_fault("/materialize", "status", status=503, client="127.0.0.1")
    assert server.get("/materialize/version").status_code == 503


# Limits


def test_the_limit_of_the_skeleton_service_is_a_429_of_the_person_not_of_the_token(
    server: Server, cave: CaveServer
) -> None:
    cave.configure(limits={"exists": 2})
    path = f"/skeletoncache/api/v1/{server.datastack}/precomputed/skeleton/exists"
    tokens = [server.token, cave.make_token("alice"), server.token]
    answers = [server.ask("POST", path, token, json={"root_ids": [1], "skeleton_version": 4}) for token in tokens]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json() == {"message": "2 per 1 minute"}
    assert "Retry-After" not in answers[2].headers
    cave.advance(61)
    assert server.ask("POST", path, server.token, json={"root_ids": [1], "skeleton_version": 4}).status_code == 200


def test_the_limit_of_materialize_is_a_500_with_a_429_inside(server: Server, cave: CaveServer) -> None:
    cave.configure(limits={"fast_query": 1})
    path = f"/materialize/api/v3/datastack/{server.datastack}/versions"
    assert server.get(path, server.token).status_code == 200
    answer = server.get(path, server.token)
    assert answer.status_code == 500
    assert answer.json()["message"] == "429 Too Many Requests: 1 per 1 minute"
    assert ask(server, "materialize", server.token).status_code == 200  # the second API has no limit
