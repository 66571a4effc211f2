# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from cave_answers import FORM, INVALID, MISSING_PERMISSION, MISSING_TOS, SERVER, STACK, TOKEN, UNKNOWN, answer, page

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    account_of,
    account_verdict,
    datastack_verdict,
    permitted_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import failure_verdict, refusal_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    VERDICTS,
    Person,
    Verdict,
    malformed_file_verdict,
    no_token_verdict,
    token_page,
)
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

ALICE: dict[str, Any] = {
    "id": 3,
    "name": "Alice",
    "email": "alice@lab.example",
    "admin": False,
    "missing_tos": [],
    "permissions": {STACK: 1},
    "permissions_v2": {STACK: ["view"]},
    "permissions_v2_ignore_tos": {STACK: ["view"]},
}
RECORD = {"aligned_volume": {"id": 1, "name": "minnie65_phase3"}, "local_server": "https://minnie.microns-daf.com"}
REALM = f'Bearer realm="{SERVER}/sticky_auth/api/v1/authorize"'


def challenged(challenge: str) -> Answer:
    return Answer(401, {"content-type": "text/html", "www-authenticate": challenge}, b"Unauthorized", SERVER)


def on_datastack(given: Answer) -> Verdict:
    return datastack_verdict(given, SERVER, STACK, TOKEN)


EVERY_BAD_VERDICT = [
    *[on_datastack(answer(401, INVALID)), on_datastack(answer(403, MISSING_TOS))],
    *[on_datastack(answer(403, MISSING_PERMISSION)), on_datastack(answer(400, UNKNOWN))],
    *[on_datastack(page(200)), on_datastack(page(302, location="https://evil.example/"))],
    *[on_datastack(answer(429, {})), on_datastack(page(502)), on_datastack(answer(418, {}))],
    *[on_datastack(answer(403, {"error": "brand_new"})), on_datastack(page(407))],
    *[
        failure_verdict(HttpError(kind, SERVER, "a reason"), SERVER)
        for kind in (
            *("dns", "refused", "unreachable", "timeout", "tls", "ca", "cut", "too_large", "bad_answer"),
            *("proxy", "bad_url", "bad_request"),
        )
    ],
    no_token_verdict(SERVER, "alice", "there is no secrets file"),
    malformed_file_verdict(SERVER, "/home/alice/x.json", "it is empty"),
]


@pytest.mark.parametrize("verdict", EVERY_BAD_VERDICT, ids=lambda verdict: verdict.verdict)
def test_every_bad_verdict_says_what_and_where_and_what_to_do(verdict: Verdict) -> None:
    assert verdict.verdict in VERDICTS
    assert not verdict.ok
    assert "global.daf-apis.com" in verdict.message or "/home/alice/x.json" in verdict.message
    assert verdict.message.endswith((".", ")"))
    assert len(verdict.remedy) > 20
    assert verdict.server == SERVER
    assert TOKEN not in str(verdict)


def test_every_verdict_but_ok_is_reached_by_some_answer() -> None:
    of_services = {"service_blocked", "service_down", "incompatible_client"}
    assert {verdict.verdict for verdict in EVERY_BAD_VERDICT} == set(VERDICTS) - {"ok"} - of_services


# user/cache ----------------------------------------------------------------------------------------------------------


def account(**changes: object) -> Account:
    found = account_of(answer(200, {**ALICE, **changes}), SERVER, TOKEN)
    assert isinstance(found, Account)
    return found


def test_user_cache_tells_whose_token_it_is() -> None:
    verdict = account_verdict(account(), SERVER)
    assert verdict.ok
    assert verdict.person == Person(3, "Alice", "alice@lab.example")
    assert "alice@lab.example" in verdict.message


def test_a_permission_to_view_decides() -> None:
    verdict = permitted_verdict(account(), SERVER, STACK)
    assert verdict is not None
    assert verdict.ok


@pytest.mark.parametrize("permissions", [{}, {STACK: []}, {STACK: ["edit"]}, {STACK: "view"}, {STACK: None}, [], None])
def test_without_a_permission_to_view_nothing_is_decided(permissions: object) -> None:
    assert permitted_verdict(account(permissions_v2=permissions), SERVER, STACK) is None


def test_terms_that_are_owed_name_their_form() -> None:
    owed = [{"dataset_id": 1, "dataset_name": STACK, "tos_id": 2, "tos_name": "MICrONS Terms"}]
    verdict = permitted_verdict(account(permissions_v2={}, missing_tos=owed), SERVER, STACK)
    assert verdict is not None
    assert (verdict.verdict, verdict.url) == ("missing_tos", FORM)
    assert "MICrONS Terms" in verdict.message
    assert FORM in verdict.remedy


@pytest.mark.parametrize("owed", [None, "x", [1, None], [{"dataset_name": 7}], [{"dataset_name": "another"}]])
def test_terms_of_other_datasets_or_of_a_wrong_type_decide_nothing(owed: object) -> None:
    assert permitted_verdict(account(permissions_v2={}, missing_tos=owed), SERVER, STACK) is None


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(401, INVALID), "invalid_token"),
        (page(401), "not_a_cave_server"),
        (challenged('Basic realm="proxy"'), "not_a_cave_server"),
        (challenged(REALM), "no_token"),
        (challenged(f'{REALM}, error="invalid_token"'), "invalid_token"),
        (challenged(f'Negotiate, {REALM}, error="invalid_token"'), "invalid_token"),
        (answer(401, INVALID, **{"www-authenticate": f"{REALM}, Negotiate"}), "invalid_token"),
        (
            answer(401, INVALID, **{"www-authenticate": 'Bearer realm="sso", error="invalid_token"'}),
            "not_a_cave_server",
        ),
        (challenged('Bearer realm="sso", error="invalid_token"'), "not_a_cave_server"),
        (answer(401, {"code": 401, "message": "[x]: No edits allowed on virtual tables"}), "client_error"),
        (answer(401, ["invalid_token"]), "client_error"),
        (answer(401, {"error": "no_token", "message": "Unauthorized - No Token Provided"}), "no_token"),
        (answer(400, {"error": "bad_auth_header", "message": "Authorization header must ..."}), "client_error"),
        (page(302, location=f"{SERVER}/sticky_auth/api/v1/authorize?redirect=x"), "not_a_cave_server"),
        (page(200), "not_a_cave_server"),
        (page(404), "not_a_cave_server"),
        (page(403), "not_a_cave_server"),
        (answer(200, ALICE, "text/html"), "not_a_cave_server"),
        (answer(200, ALICE, "text/plain"), "not_a_cave_server"),
        (answer(200, b"\x1f\x8b\x08\x00", **{"content-encoding": "gzip"}), "not_a_cave_server"),
        (answer(200, []), "not_a_cave_server"),
        (answer(200, "token"), "not_a_cave_server"),
        (answer(200, {}), "not_a_cave_server"),
        (answer(200, {"id": 3}), "not_a_cave_server"),
        (answer(200, {**ALICE, "id": "3"}), "not_a_cave_server"),
        (answer(200, b'{"id": 3, "na'), "server_error"),
        (answer(429, {}), "rate_limited"),
        (page(500), "server_error"),
        (page(502), "server_error"),
        (page(503), "server_error"),
        (page(407), "unreachable"),
        (page(408), "server_error"),
        (page(421), "not_a_cave_server"),
        (page(451), "not_a_cave_server"),
        (page(511), "not_a_cave_server"),
        (page(520), "server_error"),
        (answer(204, b""), "not_a_cave_server"),
        (page(304), "not_a_cave_server"),
        (answer(103, b""), "not_a_cave_server"),
    ],
)
def test_other_answers_of_user_cache(given: Answer, verdict: str) -> None:
    found = account_of(given, SERVER, TOKEN)
    assert isinstance(found, Verdict)
    assert found.verdict == verdict


# The info service ----------------------------------------------------------------------------------------------------


def test_a_record_is_access_and_names_the_local_server() -> None:
    verdict = on_datastack(answer(200, RECORD))
    assert (verdict.verdict, verdict.datastack) == ("ok", STACK)
    assert verdict.local_server == "https://minnie.microns-daf.com"


def test_an_invalid_token_names_its_fingerprint_and_the_token_page() -> None:
    verdict = on_datastack(answer(401, INVALID))
    assert fingerprint(TOKEN) in verdict.message
    assert verdict.url == token_page(SERVER) == f"{SERVER}/sticky_auth/settings/tokens"
    assert verdict.url in verdict.remedy
    assert "ansible-playbook connectomics.cave.rotate" in verdict.remedy


def test_a_missing_permission_names_the_dataset_that_the_server_names() -> None:
    verdict = on_datastack(answer(403, MISSING_PERMISSION))
    assert verdict.verdict == "missing_permission"
    assert "dataset minnie65 (datastack minnie65_public)" in verdict.message
    assert "minnie65" in verdict.remedy


@pytest.mark.parametrize("data", [None, [], {}, {"auth_dataset": 7}, {"auth_dataset": None, "required_permission": {}}])
def test_a_missing_permission_without_details_falls_back_to_the_datastack(data: object) -> None:
    verdict = on_datastack(answer(403, {**MISSING_PERMISSION, "data": data}))
    assert "no permission 'view' for dataset minnie65_public on" in verdict.message


def test_an_unknown_datastack_is_told_apart_from_one_without_a_record() -> None:
    unknown, empty = on_datastack(answer(400, UNKNOWN)), on_datastack(answer(404, {"message": "no record"}))
    assert unknown.verdict == empty.verdict == "unknown_datastack"
    assert "knows no datastack" in unknown.message
    assert "has no record" in empty.message


def test_a_web_page_in_place_of_a_missing_datastack_is_no_cave_server() -> None:
    assert on_datastack(page(404)).verdict == "not_a_cave_server"


def test_a_local_server_in_the_place_of_the_auth_server_is_told_with_the_right_one() -> None:
    verdict = refusal_verdict(page(404), "https://minnie.microns-daf.com", TOKEN, "a person")
    assert verdict.verdict == "not_a_cave_server"
    assert "use their auth server, https://global.daf-apis.com," in verdict.remedy


def test_a_redirect_to_https_says_so() -> None:
    given = page(301, location="https://cave.example/info")
    verdict = datastack_verdict(given, "http://cave.example", STACK, TOKEN)
    assert verdict.verdict == "not_a_cave_server"
    assert verdict.remedy == "Use https://cave.example as the server address."


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("30", "rate limit reached; retry in 30 s."),
        (" 30 ", "retry in 30 s."),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "retry in 0 s."),
        ("9" * 40, "retry in 999999999 s."),
        *((value, "rate limit reached.") for value in ("", "\x1b[31m", "-5", "1.5", "soon", "\xb2", "30, 60")),
    ],
)
def test_too_many_requests_says_how_long_to_wait(header: str, said: str) -> None:
    message = on_datastack(answer(429, {}, **{"retry-after": header})).message
    assert message.endswith(said)
    assert "\x1b" not in message


def test_what_the_server_says_is_passed_on_in_brief() -> None:
    verdict = on_datastack(answer(500, {"message": "database " + "x" * 1000}))
    assert "database xxx" in verdict.message
    assert len(verdict.message) < 400


def test_a_server_that_echoes_the_token_does_not_get_it_shown() -> None:
    echoed = {"error": TOKEN, "message": f"bad token {TOKEN}", "data": {"auth_dataset": TOKEN, "tos_name": TOKEN}}
    for status in (400, 401, 403, 404, 429, 500):
        assert TOKEN not in str(on_datastack(answer(status, echoed)))
    for error in ("missing_tos", "missing_permission", "invalid_table_id"):
        assert TOKEN not in str(on_datastack(answer(403, {**echoed, "error": error})))
    assert TOKEN not in str(on_datastack(page(302, location=f"https://evil.example/{TOKEN}")))
    assert TOKEN not in str(on_datastack(answer(200, {**RECORD, "local_server": f"https://{TOKEN}"})))
    assert TOKEN not in str(account(name=TOKEN, email=TOKEN).person)


# Failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("dns", "unreachable"),
        ("refused", "unreachable"),
        ("unreachable", "unreachable"),
        ("timeout", "unreachable"),
        ("cut", "unreachable"),
        ("proxy", "unreachable"),
        ("tls", "tls_error"),
        ("ca", "tls_error"),
        ("too_large", "not_a_cave_server"),
        ("bad_answer", "not_a_cave_server"),
        ("bad_url", "client_error"),
        ("bad_request", "client_error"),
    ],
)
def test_a_failure_without_an_answer(kind: str, verdict: str) -> None:
    assert failure_verdict(HttpError(kind, SERVER, "why"), SERVER).verdict == verdict


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("the server's certificate is not trusted: certificate has expired", "clock"),
        ("the server's certificate is not trusted: certificate is not yet valid", "clock"),
        (
            "the server's certificate is not trusted: Hostname mismatch, certificate is not valid for 'x'",
            "another name",
        ),
        ("the server's certificate is not trusted: unable to get local issuer certificate", "ca_path"),
        ("no TLS connection: WRONG_VERSION_NUMBER", "http:// or https://"),
        ("no TLS connection: TLSV1_ALERT_PROTOCOL_VERSION", "older than 1.2"),
        ("the connection broke off while TLS was agreed on", "whether a firewall or proxy cuts the connection"),
        ("no TLS connection: TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants a certificate of this host"),
        ("no TLS connection: SSLV3_ALERT_HANDSHAKE_FAILURE", "wants a certificate of this host"),
        ("the CA certificates in /x cannot be used: No such file or directory", "PEM file"),
    ],
)
def test_a_tls_error_says_what_to_do_about_this_one(reason: str, remedy: str) -> None:
    assert remedy in failure_verdict(HttpError("tls", SERVER, reason), SERVER).remedy
