# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every attack in its short form, and a few of the defects that the tests have to notice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torture import mutations
from torture.attacks import Attack, attacks

pytestmark = pytest.mark.slow

ATTACKS = attacks()


def _parameter(attack: Attack) -> Any:
    marks = [getattr(pytest.mark, need) for need in attack.needs if need in ("root", "network")]
    return pytest.param(attack, id=attack.name, marks=marks)


@pytest.mark.parametrize("attack", [_parameter(attack) for attack in ATTACKS.values() if attack.short])
def test_no_attack_succeeds(attack: Attack) -> None:
    if lacks := attack.lacks():
        pytest.skip(f"needs {lacks}")
    assert attack.short
    report = attack.run(attack.short.scale)
    assert report.failures == 0, report.notes
    assert report.tries >= attack.short.fewest, report


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.root) if name == "still-root" else name for name in mutations.SHORT],
)
def test_a_defect_in_the_write_path_is_noticed(name: str, tmp_path: Path) -> None:
    (found,) = mutations.run([name], tmp_path, sys.executable)
    assert found["caught_by"], found
