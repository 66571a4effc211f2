# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the wrong place among a module's options is hidden."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._module import answer, strings_out_of_place

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


class Ended(Exception):  # noqa: N818 (it is none)
    """A module has ended."""


class Module:
    """As much of a module as ``answer`` needs."""

    def fail_json(self, **result: Any) -> None:
        """Fail. An error that is still being handled would be printed along with the result."""
        raise Ended("failed", result, sys.exc_info()[0])

    def exit_json(self, **result: Any) -> None:
        """End well."""
        raise Ended("well", result, sys.exc_info()[0])


def _answered(work: Callable[[], dict[str, Any]]) -> tuple[str, dict[str, Any], object]:
    with pytest.raises(Ended) as ended:
        answer(cast("Any", Module()), work)
    return cast("tuple[str, dict[str, Any], object]", ended.value.args)


def _raise(error: Exception) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        raise error

    return work


def test_a_result_ends_a_module_well() -> None:
    assert _answered(lambda: {"changed": True}) == ("well", {"changed": True}, None)


def test_a_failure_has_its_reason_and_its_details() -> None:
    error = CaveError("So it is.", users=[1])
    assert _answered(_raise(error)) == ("failed", {"msg": "So it is.", "users": [1]}, None)


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), UnicodeError(SECRET)])
def test_an_error_that_nobody_thought_of_is_told_by_its_place_and_without_its_message(error: Exception) -> None:
    how, result, handled = _answered(_raise(error))
    assert (how, handled) == ("failed", None)
    assert result["msg"].startswith("Unforeseen error at test_module.py:")
    assert type(error).__name__ in result["msg"]
    assert SECRET not in str(result)
