# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of the matrix: kept as JSON, shown as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import support_matrix
from support_matrix import CORES, DEBIAN, PYTHONS, ROOT, Cell

PASSED = "passed"
UNSUPPORTED = "not supported by ansible-core"
NO_PYTHON = "no such Python on this machine"
KEPT = Path(__file__).with_name("result.json")
"""The last run of everything, which the table in README.md is made of."""
README = ROOT / "README.md"
BEGIN = "<!-- matrix: written by nox -s matrix -->"
END = "<!-- end of matrix -->"


@dataclass
class CoreResult:
    """What came of one version of ansible-core.

    Attributes:
        version: the release ("2.17.14").
        python: of the controller ("3.10").
        sanity: of `ansible-test sanity`: "passed", or what is wrong; empty when it was not run.
        cells: by name of the host: "passed", why it was not run, or what is wrong.
    """

    version: str
    python: str
    sanity: str = ""
    cells: dict[str, str] = field(default_factory=dict)


Results = dict[str, CoreResult]


def load(path: Path) -> Results:
    """Return the results in a file; none where there is none."""
    if not path.exists():
        return {}
    return {core: CoreResult(**told) for core, told in json.loads(path.read_text(encoding="utf-8")).items()}


def save(results: Results, path: Path) -> None:
    """Write results to a file, in the order of the list."""
    ordered = {core: asdict(results[core]) for core in CORES if core in results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


def merged(known: Results, core: str, found: CoreResult, cells: bool, sanity: bool) -> Results:
    """Return what is known with what was found about one ansible-core, of the part or the parts that were run."""
    before = known.get(core, CoreResult("", ""))
    if before.version != found.version:
        return known | {core: found}
    new = CoreResult(
        found.version,
        found.python,
        found.sanity if sanity else before.sanity,
        found.cells if cells else before.cells,
    )
    return known | {core: new}


def faults(results: Results) -> Iterator[str]:
    """Yield, in words, what keeps results from being all green: what failed, and what was not run."""
    for core in CORES.values():
        result = results.get(core.version)
        if result is None:
            yield f"ansible-core {core.version}: not run"
            continue
        if result.sanity != PASSED:
            yield f"ansible-core {core.version}: sanity: {result.sanity or 'not run'}"
        for cell in support_matrix.cells(core):
            wanted = PASSED if support_matrix.supported(cell) else UNSUPPORTED
            if (found := result.cells.get(cell.host, "not run")) != wanted:
                yield f"ansible-core {core.version}, {cell.debian}, Python {cell.python}: {found}"


def markdown_table(results: Results) -> str:
    """Return the table of the README: a row for each ansible-core, with the releases that passed on each Python."""
    head = ["ansible-core", "controller", *(f"Python {python}" for python in PYTHONS), "`ansible-test sanity`"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for core in CORES.values():
        result = results.get(core.version, CoreResult(core.version, core.run_on))
        cells = [_releases(result, core.version, python) for python in PYTHONS]
        sanity = "✓" if result.sanity == PASSED else "✗"
        lines.append(f"| {' | '.join([result.version, f'Python {result.python}', *cells, sanity])} |")
    return "\n".join(lines)


def _releases(result: CoreResult, core: str, python: str) -> str:
    found = {debian: result.cells.get(Cell(core, debian, python).host, "") for debian in DEBIAN}
    if set(found.values()) == {PASSED}:
        return "✓"
    if set(found.values()) == {UNSUPPORTED}:
        return "not supported"
    return ", ".join(f"{debian} {'✓' if outcome == PASSED else '✗'}" for debian, outcome in found.items())


def with_table(text: str, results: Results) -> str:
    """Return a README's text with its table as the results have it."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown_table(results)}\n\n{END}{after}"


def write_readme(results: Results) -> None:
    """Write the table into README.md."""
    README.write_text(with_table(README.read_text(encoding="utf-8"), results), encoding="utf-8")
