# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure the collection against what an administrator would write instead: `nox -s bench`.

    nox -s bench -- [--rounds N] [--page] [series ...]

Contestants take turns, so that a machine that gets slower gets slower for all. The results are added to bench.json,
each series under its name, with a plot beside it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from ._meter import BenchError, Sample
from ._page import plot, write_page
from ._results import Measured, load, machine, store, table
from ._series import SERIES, Series


def measure(series: Series, rounds: int, folder: Path) -> dict[str, list[Sample]]:
    """Let the contestants of a series take turns."""
    samples: dict[str, list[Sample]] = {name: [] for name in series.contestants}
    with series.place(folder) as where:
        for turn in range(0 if series.warm_up else 1, rounds + 1):
            for name, contestant in series.contestants.items():
                sample = contestant(where)
                if turn:
                    samples[name].append(sample)
            print(f"  {turn} of {rounds}", end="\r", flush=True)
    return samples


def main() -> int:
    """Run the series that are named, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help="for every series (default: its own number, at least 5)")
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of: {', '.join(SERIES)} (default: all)")
    parser.add_argument(
        "--page",
        action="store_true",
        help="write the stored results into the documentation (without a series: do only that)",
    )
    options = parser.parse_args()
    if unknown := set(options.series) - set(SERIES):
        parser.error(f"unknown series: {', '.join(sorted(unknown))}; there are: {', '.join(SERIES)}")
    here = machine()  # now: the library for plots brings a finder of packages in the place of Python's own
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down then, too
    for name in options.series or ([] if options.page else SERIES):
        series = SERIES[name]
        print(f"{name}: {series.about}", flush=True)
        with tempfile.TemporaryDirectory(prefix="cave-bench-") as folder:
            try:
                samples = measure(series, options.rounds or series.rounds, Path(folder))
            except BenchError as error:
                print(f"bench: {error}", file=sys.stderr)
                return 1
        measured = Measured.of(series, samples)
        results = {**load(), name: measured.as_dict(here)}
        store({known: results[known] for known in SERIES if known in results})
        print(table(measured))
        print(f"  {plot(name, results[name])}", flush=True)
    if options.page:
        write_page(load())
    return 0


if __name__ == "__main__":
    sys.exit(main())
