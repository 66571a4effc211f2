# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module ends in one way: with its result, or with what is wrong."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable
from typing import Any, ClassVar, cast

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils import _module
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

SECRET = "0123456789abcdef0123456789abcdef"


class Ended(Exception):  # noqa: N818 (it is none)
    """A module has ended."""


class Module:
    """As much of a module as is needed to end it."""

    params: ClassVar[dict[str, Any]] = {"timeout": 30}

    def fail_json(self, **result: Any) -> None:
        """Fail. An error that is still being handled would be printed along with the result."""
        raise Ended("failed", result, sys.exc_info()[0])

    def exit_json(self, **result: Any) -> None:
        """End well."""
        raise Ended("well", result, sys.exc_info()[0])


def _answered(work: Callable[[], dict[str, Any]]) -> tuple[str, dict[str, Any], object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_module, "CaveModule", lambda **_arguments: Module())
        with pytest.raises(Ended) as ended:
            _module.run_module({}, lambda _running: work())
    return cast("tuple[str, dict[str, Any], object]", ended.value.args)


def _raise(error: Exception) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        raise error

    return work


def test_a_result_ends_a_module_well() -> None:
    assert _answered(lambda: {"changed": True}) == ("well", {"changed": True}, None)


def test_at_its_end_python_does_not_search_what_a_module_has_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes a tenth of a module's time."""
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    _answered(dict)
    assert registered == [gc.freeze]


def test_a_failure_has_its_reason_and_its_details() -> None:
    error = CaveError("So it is.", users=[1])
    assert _answered(_raise(error)) == ("failed", {"msg": "So it is.", "users": [1]}, None)


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), UnicodeError(SECRET)])
def test_an_error_that_nobody_thought_of_is_told_by_its_place_and_without_its_message(error: Exception) -> None:
    how, result, handled = _answered(_raise(error))
    assert (how, handled) == ("failed", None)
    assert result["msg"].startswith("Unexpected error at test_module.py:")
    assert type(error).__name__ in result["msg"]
    assert SECRET not in str(result)
