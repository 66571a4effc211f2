# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seeded defects of tests/slow/torture still fit the code, so that the slow tests can try them."""

from __future__ import annotations

import pytest
from torture.mutations import DEFECTS, ROOT, SHORT, UNIT


@pytest.mark.parametrize("name", DEFECTS)
def test_a_seeded_defect_has_one_place_in_the_code_and_tests_that_exist(name: str) -> None:
    defect = DEFECTS[name]
    text = (ROOT / "plugins" / "module_utils" / defect.file).read_text(encoding="utf-8")

    assert text.count(defect.found) == 1
    for test in defect.tests:
        file, _colons, function = test.partition("::")
        assert f"def {function}" in (ROOT / UNIT / file).read_text(encoding="utf-8")


def test_the_short_selection_is_of_defects_that_there_are() -> None:
    assert set(SHORT) <= set(DEFECTS)
