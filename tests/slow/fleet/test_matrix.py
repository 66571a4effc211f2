# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The diagonal of the matrix: every ansible-core, managed Python and Debian, once. `nox -s matrix` runs it all."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import support_matrix
from matrix import controllers, lab
from support_matrix import CORES, Cell

from fleet import Fleet

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.network]

AT_ONCE = 2
# All provision; the modules one by one are left to the two between which changes show.
OLDEST, *_between, NEWEST = CORES
STEPS = {core: lab.SHORT if core in (OLDEST, NEWEST) else lab.SHORT[:1] for core in CORES}
Found = dict[Cell, dict[str, str]]


def run(core: str, folder: Path) -> Found:
    """Let an ansible-core do its part on the hosts of the diagonal that are its own, and return what is wrong."""
    absent = lab.absent_pythons()
    cells = [cell for cell in support_matrix.diagonal() if cell.core == core and cell.python not in absent]
    return lab.run_cells(controllers.provide(CORES[core]), cells, folder, STEPS[core]) if cells else {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Found]]:
    """What came of each ansible-core, two at a time."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {core: pool.submit(run, core, tmp_path_factory.mktemp("matrix") / core) for core in CORES}


@pytest.mark.parametrize("core", CORES)
def test_an_ansible_core_provisions_hosts_of_other_pythons_and_debians(
    core: str, runs: dict[str, Future[Found]]
) -> None:
    found = runs[core].result()
    if not found:
        pytest.skip(f"this machine lacks Python {', '.join(lab.absent_pythons())}")

    assert {cell.host: {step: wrong for step, wrong in steps.items() if wrong} for cell, steps in found.items()} == {
        cell.host: {} for cell in found
    }
