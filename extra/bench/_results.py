# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Medians and ratios, their file, and how they are told."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ansible_run import ROOT

from ._meter import Sample
from ._series import Ratio, Series

REPORT = ROOT / ".cache" / "reports" / "bench.json"
MEASURES = ("wall", "controller_cpu", "hosts_cpu", "memory", "largest")


@dataclass(frozen=True)
class Measured:
    """A series with its samples."""

    about: str
    samples: Mapping[str, Sequence[Sample]]
    ratios: Sequence[Ratio]
    hosts: int = 0

    @classmethod
    def of(cls, series: Series, samples: Mapping[str, Sequence[Sample]]) -> Measured:
        """Return a series together with what was measured."""
        return cls(series.about, samples, series.ratios, series.hosts)

    def median(self, name: str, measure: str) -> float:
        """Return a contestant's median of wall, controller_cpu, hosts_cpu, cpu (both), memory or largest."""
        return statistics.median(_value(sample, measure) for sample in self.samples[name])

    def ratio(self, ratio: Ratio) -> float:
        """Return the value of a ratio."""
        divisor = self.median(ratio.to, ratio.measure) if ratio.to else 1.0
        return self.median(ratio.of, ratio.measure) / divisor * ratio.factor

    def as_dict(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """Return all of it for JSON, with the machine that it was measured on."""
        return {
            "about": self.about,
            "machine": dict(where),
            "hosts": self.hosts,
            "samples": {name: [dataclasses.asdict(one) for one in taken] for name, taken in self.samples.items()},
            "medians": {
                name: {measure: round(self.median(name, measure), 4) for measure in MEASURES} for name in self.samples
            },
            "ratios": [{**dataclasses.asdict(one), "value": round(self.ratio(one), 4)} for one in self.ratios],
        }


def _value(sample: Sample, measure: str) -> float:
    if measure == "cpu":
        return sample.controller_cpu + sample.hosts_cpu
    return float(getattr(sample, measure))


def machine() -> dict[str, Any]:
    """Return what kind of machine this is, without any name of it."""
    processor = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": processor.group(1) if processor else platform.machine(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "ansible-core": version("ansible-core"),
    }


def load() -> dict[str, Any]:
    """Return the results that there are, by series."""
    return dict(json.loads(REPORT.read_text())) if REPORT.exists() else {}


def store(results: Mapping[str, Any]) -> None:
    """Write the results."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(results, indent=1) + "\n")


def table(measured: Measured) -> str:
    """Return the medians and ratios as text."""
    lines = [f"  {'':<22} {'wall':>9} {'controller':>11} {'hosts':>9}   (s, medians)"]
    for name in measured.samples:
        wall, controller, hosts = (measured.median(name, measure) for measure in MEASURES[:3])
        lines.append(f"  {name:<22} {wall:>9.4f} {controller:>11.3f} {hosts:>9.3f}")
    for ratio in measured.ratios:
        goal = "" if ratio.goal is None else f"   (to be reached: {ratio.goal:.2f})"
        lines.append(f"  {measured.ratio(ratio):6.3f}  {ratio.about}{goal}")
    return "\n".join(lines)
