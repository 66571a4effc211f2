# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide on security says what is tested, and no more."""

from __future__ import annotations

import pytest
from torture import page
from torture.attacks import attacks

PAGE = page.PAGE.read_text(encoding="utf-8")


def test_every_attack_is_in_the_table_with_what_it_has_to_come_to() -> None:
    expected = [row[:3] for row in page.rows(attacks(), {})]
    assert [row[:3] for row in page.read()] == expected, "write it anew: python -m torture --page"


@pytest.mark.parametrize("row", page.read(), ids=lambda row: str(row[1]).split("``")[1])
def test_what_the_table_says_of_the_last_run_is_enough_and_without_failure(row: tuple[str, ...]) -> None:
    result = page.result_of(row[3])
    if result is not None:
        assert result[0] >= int(row[2].replace(",", ""))
        assert result[1] == 0
