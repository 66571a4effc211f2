# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of the answers of services that mislead, and of any others."""

from __future__ import annotations

from typing import Any

import pytest
from cave_answers import HTML, TOKEN, answer
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave import services as _services
from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import Account
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import SERVICES, Asker, Stack
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Person

STACK = Stack("https://global.daf-apis.com", "minnie65_public", "https://minnie.microns-daf.com", "minnie65", "volume")
ASKER = Asker(TOKEN, Account(Person(3, "Alice", "alice@example.org"), {}, []))
JSON = "application/json"


@pytest.mark.parametrize(
    ("name", "said", "verdict"),
    [
        ("materialize", answer(500, {"code": 500, "message": "429 Too Many Requests: 1 per 1 minute"}), "rate_limited"),
        ("skeleton", answer(429, {"message": "100 per 1 minute"}), "rate_limited"),
        ("materialize", answer(500, {"code": 500, "message": "401 Unauthorized: a private table"}), "service_down"),
        ("chunkedgraph", answer(401, {"code": 401, "message": "No edits allowed on virtual tables"}), "service_down"),
        ("materialize", answer(401, {"error": "invalid_token", "message": "Unauthorized"}), "service_down"),
        ("materialize", answer(308, b"", HTML, location="http://minnie.microns-daf.com/materialize/"), "service_down"),
        ("materialize", answer(302, b"", HTML, location="https://login.example.org/"), "service_down"),
        ("materialize", answer(503, b"<html><h1>503 Service Temporarily Unavailable</h1>", HTML), "service_down"),
        ("annotation", answer(200, b"<html>login</html>", HTML), "service_down"),
        ("annotation", answer(200, b""), "service_down"),
        ("annotation", answer(200, {"tables": []}), "service_down"),
        ("materialize", answer(200, None), "service_down"),
        ("materialize", answer(200, []), "service_down"),
        ("materialize", answer(200, b"[1, 2"), "service_down"),
        ("materialize", answer(200, b"[" * 100_000), "service_down"),
        ("materialize", answer(200, b"[" + b"1," * 60_000 + b"1]"), "service_down"),
        ("materialize", answer(400, {"error": "invalid_table_id", "data": {"table_id": "x"}}), "service_down"),
        ("annotation", answer(403, {"error": "missing_permission", "data": {}}), "missing_permission"),
        ("annotation", answer(403, {"error": "missing_tos", "data": {"tos_id": 2}}), "missing_tos"),
        ("skeleton", answer(404, b"<html>404", HTML), "ok"),
        ("materialize", answer(200, [1, 2]), "ok"),
    ],
)
def test_an_answer_that_misleads_has_one_true_verdict(name: str, said: Answer, verdict: str) -> None:
    assert _services._personal_verdict(ASKER, STACK, name, said).verdict == verdict


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(TOKEN),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("error", "message", "data", "tos_id", "auth_dataset")), inner, max_size=4)
    ),
    max_leaves=8,
)
_ANSWERS = st.builds(
    answer,
    st.integers(100, 599) | st.sampled_from((200, 302, 401, 403, 404, 429, 500, 503)),
    _VALUES | st.binary(max_size=60),
    st.sampled_from((JSON, HTML, "text/plain", "", "application/problem+json")),
)


@given(st.sampled_from(list(SERVICES)), _ANSWERS)
@example("materialize", answer(100, {"message": TOKEN}))
def test_whatever_a_service_says_no_token_is_dead_by_it_and_none_is_shown(name: str, said: Answer) -> None:
    for verdict in (
        _services._personal_verdict(ASKER, STACK, name, said),
        _services._open_verdict(STACK, name, said),
    ):
        assert verdict.verdict in ("ok", "service_down", "rate_limited", "missing_permission", "missing_tos")
        assert verdict.service == name
        assert TOKEN not in str(verdict.as_dict())
        assert verdict.ok or verdict.remedy


@pytest.mark.parametrize(
    "said",
    [
        answer(403, b"<html>blocked by policy</html>", HTML),
        answer(451, b"<html>", HTML),
        answer(511, b"<html>", HTML),
        answer(200, b"<html>log in</html>", HTML),
        answer(302, b"", HTML, location="https://login.example.org/?to=minnie.microns-daf.com"),
        answer(307, b"", HTML, location="//login.example.org/"),
    ],
)
def test_a_page_of_the_network_in_the_place_of_all_services_is_not_caves_outage(said: Answer) -> None:
    (verdict,) = _services.judged(STACK, {name: _services._open_verdict(STACK, name, said) for name in SERVICES})
    assert verdict.verdict == "service_blocked"
    assert f"a web page that is not CAVE's comes in its place (status {said.status})" in verdict.message


@pytest.mark.parametrize(
    "said",
    [
        answer(503, b"<html>", HTML),
        answer(403, {"message": "no"}),
        answer(308, b"", HTML, location="http://minnie.microns-daf.com/materialize/"),
        answer(302, b"", HTML, location="/maintenance"),
    ],
)
def test_what_caves_own_gateway_says_is_an_outage(said: Answer) -> None:
    (verdict,) = _services.judged(STACK, {name: _services._open_verdict(STACK, name, said) for name in SERVICES})
    assert verdict.verdict == "service_down"


def test_a_record_without_an_address_of_its_services_is_not_all_well() -> None:
    stack = STACK._replace(local_server="")
    limits = _services.Limits(5, None)
    [[openly]] = _services.reach([stack], SERVICES, limits).values()
    [[personally]] = _services.serve([(ASKER, stack, tuple(SERVICES))], limits)
    for verdict in (openly, personally):
        assert (verdict.verdict, verdict.service) == ("service_down", "all")
        assert "the datastack's record names no local server" in verdict.message


@pytest.mark.parametrize(
    ("auth", "local", "is_refused"),
    [
        ("https://cave.example.org", "http://local.example.org", True),
        ("https://cave.example.org", "http://localhost.example.org", True),
        ("https://cave.example.org", "http://[bad", True),
        ("https://cave.example.org", "http://localhost:1", False),
        ("https://cave.example.org", "http://127.0.0.1:1", False),
        ("http://cave.example.org", "http://local.example.org", False),
    ],
)
def test_a_token_does_not_go_unencrypted_where_a_record_says_so(
    auth: str, local: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get(questions: list[tuple[str, str | None]], _limits: Any) -> list[Answer]:
        asked.extend(url for url, token in questions if token and url.startswith(local))
        return [answer(503, b"", HTML)] * len(questions)

    monkeypatch.setattr(_services, "_get", get)
    stack = STACK._replace(server=auth, local_server=local)
    [found] = _services.serve([(ASKER, stack, tuple(SERVICES))], _services.Limits(5, None))
    assert {verdict.verdict for verdict in found} == {"service_down"}
    assert bool(asked) is not is_refused
    assert ("unencrypted" in found[0].message) is is_refused


def test_a_proxy_that_wants_a_password_keeps_all_services_out_of_reach() -> None:
    said = answer(407, b"", HTML)
    (verdict,) = _services.judged(STACK, {name: _services._open_verdict(STACK, name, said) for name in SERVICES})
    assert verdict.verdict == "service_blocked"
    assert "the proxy wants a user name and password" in verdict.message
