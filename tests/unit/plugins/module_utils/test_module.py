# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the wrong place among a module's options is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._module import strings_out_of_place

SECRET = "0123456789abcdef0123456789abcdef"
SPEC = {
    "user": {"type": "str"},
    "token": {"type": "raw", "no_log": True},
    "place": {"type": "dict", "options": {"path": {"type": "str"}}},
    "tokens": {
        "type": "list",
        "elements": "dict",
        "options": {"user": {"type": "str"}, "token": {"type": "raw", "no_log": True}},
    },
}


@pytest.mark.parametrize(
    "params",
    [
        {"tokne": SECRET},
        {"tokne": [{"x": (SECRET,)}]},
        {"tokens": SECRET},
        {"tokens": f"alice={SECRET}"},
        {"tokens": {"alice": SECRET}},
        {"tokens": [SECRET]},
        {"tokens": [[SECRET]]},
        {"tokens": [{"tokne": SECRET}]},
        {"tokens": [f'{{"user": "alice", "tokne": "{SECRET}"}}']},
        {"tokens": [f"user=alice tokne={SECRET}"]},
        {"place": {"token": SECRET}},
        {"place": SECRET},
    ],
)
def test_a_token_in_the_wrong_place_is_hidden(params: dict[str, Any]) -> None:
    assert strings_out_of_place(params, SPEC) == {SECRET}


@pytest.mark.parametrize("token", [12345678901234567890, "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="])
def test_a_token_of_any_form_is_hidden(token: object) -> None:
    assert strings_out_of_place({"tokens": [{"tokne": token}]}, SPEC) == {str(token)}


@pytest.mark.parametrize(
    "params",
    [
        {"user": "a-rather-long-name", "token": SECRET},
        {"tokens": [{"user": "a-rather-long-name", "token": SECRET}]},
        {"tokens": None, "place": None},
        {"place": {"path": "/a/rather/long/path"}},
        {"tokens": []},
        {"_ansible_remote_tmp": "/a/rather/long/path"},
        {"chekc": True, "stat": "present", "n": 7},
    ],
)
def test_what_stands_in_its_place_or_is_short_stays_readable(params: dict[str, Any]) -> None:
    assert strings_out_of_place(params, SPEC) == set()
