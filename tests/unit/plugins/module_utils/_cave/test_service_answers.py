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


def test_a_proxy_that_wants_a_password_keeps_all_services_out_of_reach() -> None:
    said = answer(407, b"", HTML)
    (verdict,) = _services.judged(STACK, {name: _services._open_verdict(STACK, name, said) for name in SERVICES})
    assert verdict.verdict == "service_blocked"
    assert "the proxy wants a user name and password" in verdict.message
