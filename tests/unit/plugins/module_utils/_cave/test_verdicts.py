# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from cave_answers import FORM, SERVER, STACK, TOKEN

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    SEVERITY,
    VERDICTS,
    Person,
    Verdict,
    clean_text,
    datastack_url,
    permission_verdict,
    tos_form_url,
    worst,
)

# The list ------------------------------------------------------------------------------------------------------------


def test_the_list_is_closed_and_every_verdict_has_a_severity() -> None:
    assert sorted(SEVERITY) == sorted(VERDICTS)
    assert VERDICTS[0] == "ok"
    assert SEVERITY[-1] == "ok"


def test_the_worst_verdict_is_one_that_locks_out() -> None:
    verdicts = [Verdict(name, "") for name in ("ok", "rate_limited", "missing_tos", "invalid_token", "unreachable")]
    assert worst(verdicts) is verdicts[3]
    assert worst(verdicts[:1]) is verdicts[0]
    assert worst([]) is None


def test_a_result_has_no_empty_fields() -> None:
    verdict = Verdict("ok", "fine", server=SERVER, person=Person(3, "Alice", "alice@lab.example"))
    assert verdict.as_dict() == {
        "verdict": "ok",
        "message": "fine",
        "server": SERVER,
        "person": {"id": 3, "name": "Alice", "email": "alice@lab.example"},
    }


# Text and addresses that are not to be trusted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07red",
        "\x1b]8;;https://evil.example\x1b\\red\x1b]8;;\x1b\\",
        "\x9b31mred",
        "r\x1b[1med",
        "\n\r red \u2028",
        "\u202ered\u202c",
        "\x00red\x7f",
        "\ud800red",
        b"red\xff",
    ],
)
def test_terminal_escapes_and_invisible_characters_are_dropped(text: object) -> None:
    assert clean_text(text).replace("\ufffd", "").replace(" ", "") == "red"


def test_text_is_one_line_of_bounded_length() -> None:
    assert clean_text("a\n\n  b\tc") == "a b c"
    assert len(clean_text("x" * 10_000_000)) == 200


def test_a_token_is_masked_even_where_it_would_be_cut_or_hidden() -> None:
    texts = [TOKEN, "x" * 180 + TOKEN, TOKEN[:9] + "\x1b[0m" + TOKEN[9:], json.dumps({"message": TOKEN})]
    for text in texts:
        shown = clean_text(text, [TOKEN])
        assert all(TOKEN[start : start + 8] not in shown for start in range(24)), shown


@pytest.mark.parametrize(
    "offered",
    [
        "https://evil.example/sticky_auth/api/v1/tos/2/accept",
        "https://global.daf-apis.com.evil.example/tos",
        "https://global.daf-apis.com@evil.example/tos",
        "https://global.daf-apis.com:444/tos",
        "http://global.daf-apis.com/tos",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "//global.daf-apis.com/tos",
        "https://global.daf-apis.com/\x1b[31m",
        "https://global.daf-apis.com/\r\nx",
        "https://global.daf-apis.com/`reboot`",
        "https://[::1",
        "https://global.daf-apis.com/" + "x" * 1000,
        {"href": "x"},
        7,
        "",
        None,
    ],
)
def test_an_address_that_leads_elsewhere_is_never_passed_on(offered: object) -> None:
    assert tos_form_url(SERVER, 2, offered) == FORM
    for number in (None, "2/../../evil", True, [2], 2.5):
        assert tos_form_url(SERVER, number, offered) == SERVER


@pytest.mark.parametrize("offered", [FORM, "https://GLOBAL.daf-apis.com/sticky_auth/api/v1/tos/9/accept?next=%2F"])
def test_an_address_that_leads_back_is_passed_on(offered: str) -> None:
    assert tos_form_url(SERVER, 2, offered) == offered


def test_a_plain_http_server_may_offer_its_own_form() -> None:
    form = "http://127.0.0.1:8000/sticky_auth/api/v1/tos/2/accept"
    assert tos_form_url("http://127.0.0.1:8000", None, form) == form


def test_a_datastack_cannot_leave_its_place_in_the_address() -> None:
    assert datastack_url(SERVER, "../../x?y#z") == f"{SERVER}/info/api/v2/datastack/full/..%2F..%2Fx%3Fy%23z"


@pytest.mark.parametrize("name", ["\x1b[31mx", "x" * 1000, 7, None, {"a": 1}])
def test_a_dataset_name_is_only_shown_cleaned(name: object) -> None:
    verdict = permission_verdict(SERVER, STACK, name)
    assert "\x1b" not in verdict.message
    assert len(verdict.message) < 400
