# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The info service: datastacks, and what it remembers of a token."""

from __future__ import annotations

import re
import time

from contract.asking import Server

RECORD = {
    "aligned_volume",
    "segmentation_source",
    "skeleton_source",
    "analysis_database",
    "viewer_site",
    "synapse_table",
    "soma_table",
    "local_server",
    "description",
    "viewer_resolution_x",
    "viewer_resolution_y",
    "viewer_resolution_z",
    "proofreading_status_table",
    "cell_identification_table",
    "proofreading_review_table",
}
CACHE = "time to pass"


# Open to all


def test_the_version_is_json_and_open_to_all(server: Server) -> None:
    answer = server.get("/info/version")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"\d+(\.\d+)+", answer.json())


def test_the_stand_in_is_version_4_3_3(server: Server) -> None:
    server.stand_in("one certain version")
    assert server.get("/info/version").json() == "4.3.3"


def test_the_api_versions_are_open_to_all(server: Server) -> None:
    answer = server.get("/info/api/versions")
    assert answer.status_code == 200
    assert 2 in answer.json()


# Datastacks


def test_the_list_of_datastacks_ignores_terms_of_service(server: Server) -> None:
    for token in (server.token, server.token_no_tos):
        answer = server.get("/info/api/v2/datastacks", token)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert server.datastack in answer.json()


def test_the_list_of_datastacks_leaves_out_what_a_person_may_not_see(server: Server) -> None:
    assert server.datastack not in server.get("/info/api/v2/datastacks", server.token_no_permission).json()


def test_who_is_allowed_gets_the_whole_record_with_its_nulls(server: Server) -> None:
    answer = server.get(server.full, server.token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    record = answer.json()
    assert set(record) >= RECORD
    assert set(record["aligned_volume"]) >= {"id", "name", "display_name", "description", "image_source"}
    assert re.match(r"https?://", record["local_server"])


def test_who_owes_terms_of_service_is_told_where_to_accept_them(server: Server) -> None:
    answer = server.get(server.full, server.token_no_tos)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/json"
    told = answer.json()
    data = told["data"]
    assert told == {
        "data": {
            "tos_form_url": f"{server.url}/sticky_auth/api/v1/tos/{data['tos_id']}/accept",
            "tos_id": data["tos_id"],
            "tos_name": data["tos_name"],
        },
        "error": "missing_tos",
        "message": "Need to accept Terms of Service to access resource.",
    }


def test_admins_owe_terms_of_service_too(server: Server) -> None:
    cave = server.stand_in("an admin")
    admin = cave.add_person("root", [server.datastack], accepted_tos=False, admin=True)
    answer = server.get(server.full, admin.token)
    assert (answer.status_code, answer.json()["error"]) == (403, "missing_tos")


def test_a_browser_is_sent_to_the_terms_of_service_that_are_owed(server: Server) -> None:
    cave = server.stand_in("to log in")
    answer = server.get(server.full, cookies={"middle_auth_token": cave.log_in("bob")})
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(f"{server.url}/sticky_auth/api/v1/tos/2/accept?redirect=")


def test_who_may_not_see_a_datastack_is_told_the_dataset(server: Server) -> None:
    answer = server.get(server.full, server.token_no_permission)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "data": {"auth_dataset": server.datastack, "required_permission": "view"},
        "error": "missing_permission",
        "message": f"Missing permission: view for dataset {server.datastack}",
    }


def test_an_unknown_datastack_is_a_bad_request(server: Server) -> None:
    answer = server.get("/info/api/v2/datastack/full/nosuchstack", server.token)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "data": {"resource_namespace": "datastack", "table_id": "nosuchstack"},
        "error": "invalid_table_id",
        "message": "Invalid table_id for service",
    }


def test_an_unknown_datastack_is_told_to_nobody_without_a_token(server: Server) -> None:
    answer = server.get("/info/api/v2/datastack/full/nosuchstack", "f" * 32)
    assert answer.status_code == 401


def test_a_datastack_without_a_record_is_404_json(server: Server) -> None:
    cave = server.stand_in("a datastack without a record")
    cave.add_datastack("half_known", record=False)
    cave.set_permissions("alice", ["half_known"])
    answer = server.get("/info/api/v2/datastack/full/half_known", server.token)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.json(), dict)
    other = server.get("/info/api/v2/datastack/full/half_known", server.token_no_permission)
    assert other.json()["error"] == "missing_permission"


# What it remembers


def test_a_revoked_token_that_was_seen_answers_for_300_seconds_from_its_first_sight(server: Server) -> None:
    cave = server.stand_in(CACHE)
    assert server.get(server.full, server.token).status_code == 200
    cave.revoke(server.token)
    cave.advance(200)
    assert server.get(server.full, server.token).status_code == 200
    assert server.get("/auth/api/v1/user/cache", server.token).status_code == 401
    cave.advance(101)
    assert server.get(server.full, server.token).status_code == 401


def test_a_revoked_token_that_was_not_seen_is_refused(server: Server) -> None:
    cave = server.stand_in("to revoke a token")
    cave.revoke(server.token)
    assert server.get(server.full, server.token).status_code == 401


def test_a_refusal_is_remembered_for_as_long(server: Server) -> None:
    cave = server.stand_in(CACHE)
    token = "feedfacefeedfacefeedfacefeedface"
    assert server.get(server.full, token).status_code == 401
    cave.make_token("alice", token=token)
    cave.advance(299)
    assert server.get("/auth/api/v1/user/cache", token).status_code == 200
    assert server.get(server.full, token).status_code == 401
    cave.advance(2)
    assert server.get(server.full, token).status_code == 200


def test_a_shorter_memory_can_be_set(server: Server) -> None:
    cave = server.stand_in("a short cache")
    cave.configure(cache_ttl=5)
    assert server.get(server.full, server.token).status_code == 200
    cave.revoke(server.token)
    assert server.get(server.full, server.token).status_code == 200
    cave.advance(6)
    assert server.get(server.full, server.token).status_code == 401


def test_accepted_terms_of_service_are_seen_at_once(server: Server) -> None:
    cave = server.stand_in("to accept terms of service")
    assert server.get(server.full, server.token_no_tos).status_code == 403
    cave.accept_tos("bob")
    assert server.get(server.full, server.token_no_tos).status_code == 200


def test_a_granted_permission_is_seen_at_once(server: Server) -> None:
    cave = server.stand_in("to grant a permission")
    assert server.get(server.full, server.token_no_permission).status_code == 403
    cave.set_permissions("carol", [server.datastack])
    assert server.get(server.full, server.token_no_permission).status_code == 200


def test_after_20_vain_questions_in_300_seconds_it_asks_no_more(server: Server) -> None:
    cave = server.stand_in(CACHE)
    for _time in range(25):
        assert server.get(server.full, server.token_no_permission).status_code == 403
    # The first sight of the token, and 20 times because of what is missing.
    assert len(cave.requests("/auth/api/v1/user/cache", internal=True)) == 21
    cave.set_permissions("carol", [server.datastack])
    assert server.get(server.full, server.token_no_permission).status_code == 403
    cave.advance(301)
    assert server.get(server.full, server.token_no_permission).status_code == 200


def test_a_withdrawn_permission_is_remembered(server: Server) -> None:
    cave = server.stand_in(CACHE)
    assert server.get(server.full, server.token).status_code == 200
    cave.set_permissions("alice", [])
    assert server.get(server.full, server.token).status_code == 200
    cave.advance(301)
    assert server.get(server.full, server.token).status_code == 403


def test_with_the_auth_server_down_remembered_tokens_are_served_and_others_wait_for_502(server: Server) -> None:
    cave = server.stand_in("the auth server to go down")
    cave.configure(auth_down_delay=0.3)
    assert server.get(server.full, server.token).status_code == 200
    cave.set_auth_down()
    assert server.get(server.full, server.token).status_code == 200
    start = time.monotonic()
    assert server.get(server.full, server.token_no_permission).status_code == 502
    assert 0.3 <= time.monotonic() - start < 10
    assert server.get("/auth/api/v1/user/cache", server.token).status_code == 502
    assert server.get("/info/version").status_code == 200
    cave.set_auth_down(False)
    assert server.get("/auth/api/v1/user/cache", server.token).status_code == 200
    assert server.get(server.full, server.token_no_permission).status_code == 403


def test_a_502_is_not_remembered_as_a_refusal(server: Server) -> None:
    cave = server.stand_in("the auth server to go down")
    cave.configure(auth_down_delay=0, auth_down=True)
    assert server.get(server.full, server.token).status_code == 502
    cave.set_auth_down(False)
    assert server.get(server.full, server.token).status_code == 200
