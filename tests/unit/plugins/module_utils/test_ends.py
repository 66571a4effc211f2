# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How processes that end badly are told."""

from __future__ import annotations

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._ends import how


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (3, "ended with status 3"),
        (-9, "was ended by SIGKILL (probably for lack of memory)"),
        (-11, "was ended by SIGSEGV (it crashed)"),
        (-15, "was ended by SIGTERM"),
        (-40, "was ended by signal 40"),
    ],
)
def test_a_process_that_ended(status: int, said: str) -> None:
    assert how(status) == said
