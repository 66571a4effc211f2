# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as plots, and as tables in the documentation."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_run import ROOT

from ._model import fitted
from ._results import REPORT
from ._series import SERIES

PAGE = ROOT / "docs" / "docsite" / "rst" / "performance.rst"
SCALE = ROOT / "docs" / "docsite" / "rst" / "scale.rst"
MARKS = ".. figures of nox -s bench: begin\n", ".. figures of nox -s bench: end\n"


def plot(name: str, result: Mapping[str, Any]) -> Path:
    """Draw a series as bars, one group a contestant, and return the path of the picture."""
    finders = list(sys.meta_path)
    import pygal  # it puts a finder of its plugins in everybody's way, which Python warns of

    sys.meta_path[:] = finders
    chart = pygal.HorizontalBar(
        title=f"{result['about']} (medians, seconds)",
        legend_at_bottom=True,
        disable_xml_declaration=True,
        print_values=True,
        js=(),
    )
    names = list(result["medians"])[::-1]
    chart.x_labels = names
    for measure, label in (
        ("hosts_cpu", "CPU of the hosts"),
        ("controller_cpu", "CPU of the controller"),
        ("wall", "wall time"),
    ):
        chart.add(label, [round(result["medians"][contestant][measure], 3) for contestant in names])
    path = REPORT.with_name(f"bench-{name}.svg")
    chart.render_to_file(str(path))
    return path


def write_page(results: Mapping[str, Any]) -> None:
    """Put the results into the documentation; a series without a stored result keeps the figures that are there."""
    before, old, after = _parts(PAGE)
    known = dict(zip((found := re.split(r"^(.+)\n~+\n", old, flags=re.MULTILINE))[1::2], found[2::2], strict=True))
    sections = [
        f"{series.about}\n{'~' * len(series.about)}\n{text}"
        for name, series in SERIES.items()
        if (text := _figures(results[name]) if name in results else known.get(series.about))
    ]
    PAGE.write_text(f"{before}\n{''.join(sections)}{after}")
    if "scale" in results:
        before, _old, after = _parts(SCALE)
        SCALE.write_text(f"{before}\n{_predictions(results['scale'])}\n{after}")


def _parts(page: Path) -> tuple[str, str, str]:
    """Return what stands before the figures of a page, the figures, and the rest; the marks are no figures."""
    begin, end = MARKS
    before, _begin, rest = page.read_text().partition(begin)
    figures, _end, after = rest.partition(end)
    return before + begin, figures, end + after


def _figures(result: Mapping[str, Any]) -> str:
    """Return the text of a series' section."""
    where = result["machine"]
    rounds = min(len(taken) for taken in result["samples"].values())
    parts = [
        "",
        f"{where['date']}, {where['cores']} cores ({where['processor']}), {where['memory']}, "
        f"Python {where['python']}, ansible-core {where['ansible-core']}. Runs of each: {rounds}.",
        "",
    ]
    rows = [
        [
            contestant,
            *(_each(values[measure], _hosts(contestant, result)) for measure in ("controller_cpu", "hosts_cpu")),
            _seconds(values["wall"]),
            f"{values['memory'] / 1e6:.0f} MB" if values["memory"] else "",
        ]
        for contestant, values in result["medians"].items()
    ]
    parts += _table(["", "CPU of the controller a host", "CPU of a host", "wall, all", "memory, peak"], rows)
    if result["ratios"]:
        rows = [
            [
                ratio["about"],
                _figure(ratio["value"]),
                "" if ratio["goal"] is None else _figure(ratio["goal"]),
                "" if ratio["goal"] is None else "yes" if ratio["value"] <= ratio["goal"] else "**no**",
            ]
            for ratio in result["ratios"]
        ]
        parts += _table(["what", "found", "at most", "reached"], rows)
    return "\n".join([*parts, ""])


def _predictions(result: Mapping[str, Any]) -> str:
    model = fitted(result)
    text = (
        f"The whole playbook ``rotate``: {model.fixed:.1f} s, and {model.each * 1000:.0f} ms a host (measured with "
        f"{', '.join(map(str, model.sizes[:-1]))} and {model.sizes[-1]} hosts; the line misses a median by "
        f"{model.worst * 100:.0f} % at most)."
    )
    rows = [
        [f"{hosts:,}", *(_duration(model.predict(hosts, slices)) for slices in (1, 4, 16))]
        for hosts in (300, 5_000, 50_000)
    ]
    return "\n".join([text, "", *_table(["hosts", "one controller", "4 slices", "16 slices"], rows)])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'*' if not place else ' '} - {cell}".rstrip() for place, cell in enumerate(row)]
    return [*lines, ""]


def _hosts(contestant: str, result: Mapping[str, Any]) -> int:
    """Return on how many hosts a contestant ran; 1 where that is not what it was about."""
    sized = re.fullmatch(r"(\d+) hosts", contestant)
    return int(sized.group(1)) if sized else result.get("hosts") or 1


def _each(value: float, hosts: int) -> str:
    return f"{value / hosts * 1000:.0f} ms" if value else ""


def _seconds(value: float) -> str:
    return f"{value * 1000:.2f} ms" if value < 0.1 else f"{value:.2f}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
