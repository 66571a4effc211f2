# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the matrix of tests/support/matrix.toml: every ansible-core against every managed Python on every Debian.

    nox -s matrix                    all of it, with ansible-test's sanity tests on every ansible-core
    nox -s matrix -- --core 2.19     one of them; what is known of the others stays
    nox -s matrix -- --preview       the cells of the next one, before its release, for information
    nox -s matrix -- --testing       the Python of Debian's testing, with every ansible-core that supports it, likewise
    nox -s matrix -- --table         the table again, of the last run

A cell is a real host that is reached over SSH (see tests/slow/fleet): there the playbooks predict, provision, provision
again, verify, audit, rotate and decommission, and the modules do the same one by one. A warning counts as a
failure. What came of it is in .cache/reports/matrix.json, with Ansible's output beside it in matrix/;
tests/slow/matrix/result.json and the table in README.md are brought up to date when all is green.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import support_matrix
from fleet import FleetError
from images.rootfs import RootfsError
from support_matrix import CORES, PREVIEW, ROOT, Cell, Core

from matrix import controllers, lab, result

REPORTS = ROOT / ".cache" / "reports"
REPORT = REPORTS / "matrix.json"


def run_core(core: Core, known: result.CoreResult | None, *, cells: bool, sanity: bool) -> result.CoreResult:
    """Run one version of ansible-core, and return what came of it.

    Args:
        core: which.
        known: what is known of it, which stays where it is not run again.
        cells: whether to run the cells.
        sanity: whether to run the sanity tests.

    Raises:
        matrix.controllers.NoControllerError: it cannot run here.
        fleet.FleetError: the hosts cannot be.
        images.rootfs.RootfsError: their root file systems cannot be.
    """
    controller = controllers.provide(core)
    found = result.CoreResult(controller.version, controller.python_version)
    if known and known.version == found.version:
        found.sanity, found.cells = known.sanity, known.cells
    logs = REPORTS / "matrix"
    logs.mkdir(parents=True, exist_ok=True)
    if cells:
        absent = lab.absent_pythons()
        wanted = []
        for cell in support_matrix.cells(core):
            if not support_matrix.supported(cell):
                found.cells[cell.host] = result.UNSUPPORTED
            elif cell.python in absent:
                found.cells[cell.host] = result.NO_PYTHON
            else:
                wanted.append(cell)
        for cell, steps in lab.run_cells(controller, wanted, logs / core.version).items():
            wrong = "; ".join(f"{step}: {reason}" for step, reason in steps.items() if reason)
            found.cells[cell.host] = wrong or result.PASSED
    if sanity:
        found.sanity = lab.sanity(controller, logs / f"sanity-{core.version}.log") or result.PASSED
    return found


def run_testing(cores: Sequence[Core]) -> int:
    """Run the cells of Debian's testing, print what came of them, and return the exit status."""
    wrong = False
    for core in cores:
        cells = [Cell(core.version, *item) for item in support_matrix.TESTING.items()]
        wanted = [cell for cell in cells if support_matrix.supported(cell)]
        logs = REPORTS / "matrix" / f"testing-{core.version}"
        for cell, steps in (lab.run_cells(controllers.provide(core), wanted, logs) if wanted else {}).items():
            faults = [f"{step}: {reason}" for step, reason in steps.items() if reason]
            print(f"ansible-core {core.version}, {cell.host}: {'; '.join(faults) or result.PASSED}", flush=True)
            wrong = wrong or bool(faults)
    return int(wrong)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--core", nargs="+", choices=CORES, default=list(CORES), help="versions of ansible-core")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--cells", action="store_true", help="the cells alone")
    only.add_argument("--sanity", action="store_true", help="the sanity tests alone")
    only.add_argument("--table", action="store_true", help="run nothing, show what came of the last run")
    only.add_argument("--preview", action="store_true", help="the next version, for information; nothing is kept")
    only.add_argument("--testing", action="store_true", help="Debian's testing, for information; nothing is kept")
    told = parser.parse_args(arguments)
    if told.testing:
        return run_testing([CORES[version] for version in told.core])
    if told.preview:
        found = run_core(PREVIEW, None, cells=True, sanity=False)
        print(f"ansible-core {found.version}, for information:")
        print("\n".join(f"  {host}: {outcome}" for host, outcome in found.cells.items()))
        return 0
    results = result.load(REPORT)
    errors = []
    for version in [] if told.table else told.core:
        start = time.monotonic()
        try:
            # Together a fleet of hosts and its controller are a lot: one ansible-core after the other.
            results[version] = run_core(
                CORES[version], results.get(version), cells=not told.sanity, sanity=not told.cells
            )
        except (controllers.NoControllerError, FleetError, RootfsError) as error:
            errors.append(f"ansible-core {version}: {error}")
        else:
            # The other half of it may have run meanwhile.
            results = result.merged(result.load(REPORT), version, results[version], not told.sanity, not told.cells)
            result.save(results, REPORT)
            print(f"ansible-core {version}: {time.monotonic() - start:.0f} s", flush=True)
    faults = [*errors, *result.faults(results)]
    print(result.markdown_table(results))
    if not faults:
        result.save(results, result.KEPT)
        result.write_readme(results)
    print("\n".join(["", *faults]) if faults else "All green: README.md and tests/slow/matrix/result.json say so.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
