# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller's side says of users who get no token."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.action.rotated_token import _with

REFUSED = {"user": "bob", "changed": False, "failed": True, "msg": "The token is dead."}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"changed": False, "users": []}, "bob: The token is dead."),
        ({"changed": False, "users": [], "failed": True, "msg": "alice: no."}, "alice: no. bob: The token is dead."),
    ],
)
def test_the_reason_is_said_whether_or_not_the_module_had_anything_to_do(result: dict[str, Any], message: str) -> None:
    both = _with(result, [REFUSED])
    assert (both["failed"], both["msg"], both["users"]) == (True, message, [REFUSED])
