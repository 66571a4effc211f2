# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the attacks on the collection's promises, say what came of them, and write it as JSON.

    python -m torture [--scale 0.1] [--report FILE] [ATTACK ...]
    python -m torture --page    # the table in the guide on security, from the report

Without names all of them are run, each in a process of its own. The report holds the last run of each attack, so a
long run can be made in pieces. The exit status is 1 when a promise was broken, or when an attack could not be run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from torture import page
from torture.attacks import Attack, Report, as_mapping, attacks

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / ".cache" / "reports" / "torture.json"
INNER = "--into"


def run_apart(attack: Attack, scale: float) -> Report:
    """Run an attack in a process of its own, which ends in time; that it does not end well is a failure."""
    with tempfile.TemporaryDirectory(prefix="torture-report-") as folder:
        answer = Path(folder) / "report.json"
        words = [sys.executable, "-m", "torture", "--scale", str(scale), INNER, str(answer), attack.name]
        limit = max(60.0, attack.limit * scale)
        started = time.monotonic()
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                _none, said = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                said = f"it took more than {limit:.0f} s"
            finally:
                end(process)
        if answer.exists():
            return Report(**json.loads(answer.read_text()))
    report = Report(
        attack.name, attack.promise, attack.about, scale=scale, seconds=round(time.monotonic() - started, 1)
    )
    report.check(False, " ".join(said.strip().splitlines()[-3:]))
    return report


def end(process: subprocess.Popen[str]) -> None:
    """End an attack that has not ended by itself: first so that it can remove the users that it made."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def told(report: Report) -> str:
    """Return a report as text: what came of it, and what did not hold."""
    figures = f"{report.tries} tries, {report.failures} failures, {report.seconds:.0f} s"
    return "\n    ".join([f"{report.name}: {report.left_out or figures}", *report.notes])


def read_reports(path: Path) -> dict[str, Report]:
    """Return what a report file holds, by the attack's name; nothing when it is none."""
    names = {field.name for field in fields(Report)}
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())["attacks"]
        return {item["name"]: Report(**{name: item[name] for name in names & set(item)}) for item in found}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_reports(path: Path, reports: list[Report], known: dict[str, Attack]) -> None:
    """Write reports, beside what the file holds of other attacks that still exist."""
    merged = {**read_reports(path), **{report.name: report for report in reports}}
    kept = [merged[name] for name in known if name in merged]
    whole = {
        "tries": sum(report.tries for report in kept),
        "failures": sum(report.failures for report in kept),
        "attacks": [as_mapping(report) for report in kept],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> int:
    """Run the attacks that the command line names."""
    known = attacks()
    parser = argparse.ArgumentParser(prog="torture", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(known))
    parser.add_argument("--scale", type=float, default=1.0, help="1: the full number of tries")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the JSON goes")
    parser.add_argument("--page", action="store_true", help="run nothing, write the report's figures into the guide")
    parser.add_argument(INNER, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.attacks) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    if chosen.page:
        page.write(known, read_reports(chosen.report))
        return 0
    if chosen.into:
        chosen.into.write_text(json.dumps(as_mapping(known[chosen.attacks[0]].run(chosen.scale))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the attack that runs is ended then, too
    reports = []
    for name in chosen.attacks or known:
        print(f"{name}: {known[name].about} ...", file=sys.stderr, flush=True)
        reports.append(run_apart(known[name], chosen.scale))
        write_reports(chosen.report, reports, known)
    print(*map(told, reports), f"\n{chosen.report}", sep="\n")
    return int(any(report.failures or report.left_out for report in reports))


if __name__ == "__main__":
    sys.exit(main())
