# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The random labs find every defect that is put into what a rotation decides."""

from __future__ import annotations

import pytest
from rotation_labs import search_apart
from torture.rotation_defects import DEFECTS, DEPARTURES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [*DEFECTS, *DEPARTURES])
def test_a_seeded_defect_is_found(name: str) -> None:
    found = search_apart("torture.rotation_defects", name, "60000", "7" if name in DEPARTURES else "1")
    assert found.returncode == 1, found.stdout
    assert "AssertionError" in found.stderr, found.stderr
