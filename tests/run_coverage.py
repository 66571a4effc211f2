# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure how much of plugins/ the unit and integration tests run: `make coverage`.

    python tests/run_coverage.py [argument of pytest ...]

Everything that the tests start is measured as well: ansible-playbook, modules in the archives that Ansible makes of
them, processes that become another user. The lines that are left are listed; .cache/reports/coverage.json has it by
file. The exit status is 0 when enough is covered. Whether tests pass is asked elsewhere: under measurement everything
takes several times as long, and some of them are about time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / ".cache" / "reports" / "coverage.json"
TESTS = ("--numprocesses=2", "--dist=loadfile", "-m", "not long")
SUITES = ("tests/unit", "tests/integration")
"""Apart, as `make test` runs them."""
SOME_FAILED = 1
LINES, BRANCHES = 95.0, 90.0
"""What has to be covered, in percent."""


def main(arguments: Sequence[str]) -> int:
    """Run the tests, print what they leave out, and return the exit status."""
    coverage = [sys.executable, "-m", "coverage"]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    # Each of some ten thousand processes writes a small database, and waits until its disk has it.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="cave-coverage-", dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o1777)  # processes of other users write what they ran, too
        # Whatever a process has as its working directory, it finds the files.
        environment = {**os.environ, "CAVE_COVERAGE": folder, "CAVE_COVERAGE_ROOT": str(ROOT)}

        def run(*words: str) -> int:
            return subprocess.run([*coverage, *words], cwd=ROOT, env=environment, check=False).returncode

        for these in [arguments] if arguments else [(*TESTS, suite) for suite in SUITES]:
            if run("run", "-m", "pytest", *these) not in (0, SOME_FAILED):
                print("The tests were not run to their end.", file=sys.stderr)
                return 1
        run("combine", "--quiet")
        run("report")
        if run("json", "--quiet", "-o", str(REPORT)):
            return 1
    totals = json.loads(REPORT.read_text(encoding="utf-8"))["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    print(f"\nplugins: {lines:.1f} % of lines (of {LINES:.0f}), {branches:.1f} % of branches (of {BRANCHES:.0f})")
    return 1 if lines < LINES or branches < BRANCHES else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
