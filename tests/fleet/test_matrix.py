# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The diagonal of the matrix: every ansible-core, managed Python and Debian, once. `make matrix` runs it all."""

from __future__ import annotations

from pathlib import Path

import pytest
import support_matrix
from matrix import controllers, lab
from support_matrix import CORES

from fleet import Fleet

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.network]


@pytest.mark.parametrize("version", CORES)
def test_an_ansible_core_provisions_hosts_and_each_module_keeps_its_promises(version: str, tmp_path: Path) -> None:
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    absent = lab.absent_pythons()
    cells = [cell for cell in support_matrix.diagonal() if cell.core == version and cell.python not in absent]
    if not cells:
        pytest.skip(f"this machine lacks Python {', '.join(absent)}")

    controller = controllers.provide(CORES[version])
    found = lab.run_cells(controller, cells, tmp_path / "lab", lab.SHORT)

    assert {cell: {step: wrong for step, wrong in steps.items() if wrong} for cell, steps in found.items()} == {
        cell: {} for cell in cells
    }
