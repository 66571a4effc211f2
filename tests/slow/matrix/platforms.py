# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write what is known of each platform into docs/docsite/rst/platforms.rst, from what ran.

    nox -s platforms                                          the table again
    nox -s platforms -- --ran "Fedora 42" --at ADDRESS        the workflow's job of that platform was green there

A Debian is proven here when all its cells of the matrix passed. What the workflow platforms.yml has jobs for, or only
the guide knows of, is not yet run until a run is noted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import support_matrix
import yaml
from support_matrix import CORES, DEBIAN, ROOT

from matrix import result

PROVEN, BY_WORKFLOW, NOT_RUN = "proven here", "run by the workflow", "not yet run"
PAGE = ROOT / "docs" / "docsite" / "rst" / "platforms.rst"
WORKFLOW = ROOT / ".github" / "workflows" / "platforms.yml"
KEPT = Path(__file__).with_name("platforms.json")
"""The runs of the workflow that were green: platform -> address."""
OTHERS = ("Ubuntu in WSL 2", "openSUSE Leap 15")
"""Platforms that there is code for, and no job."""
BEGIN, END = ".. platforms: written by nox -s platforms\n", ".. end of platforms\n"


def in_workflow() -> dict[str, str]:
    """Return the platforms that the workflow has a job for, and where each runs."""
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    entries = [entry for job in jobs for entry in job["strategy"]["matrix"]["include"]]
    return {
        entry["platform"]: f"container ``{entry['image']}``" if "image" in entry else f"runner ``{entry['runner']}``"
        for entry in entries
    }


def rows(results: result.Results, ran: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return each platform, its status, and how it is tested.

    Args:
        results: of the matrix.
        ran: the runs of the workflow.
    """
    found = []
    faults = list(result.faults(results))
    for release, python in DEBIAN.items():
        cells = [cell for core in CORES.values() for cell in support_matrix.cells(core) if cell.debian == release]
        passed = cells and not any(f", {release}, " in fault for fault in faults) and len(results) == len(CORES)
        how = f"real hosts over SSH, every ansible-core by every Python (its own is {python}); containers"
        found.append((f"Debian {release}", PROVEN if passed else NOT_RUN, how))
    for platform, where in in_workflow().items():
        address = ran.get(platform)
        word = f"`{BY_WORKFLOW} <{address}>`__" if address else NOT_RUN
        found.append((platform, word, f"a job of the workflow: {where}; faked facts and file trees in unit tests"))
    found += [(platform, NOT_RUN, "faked facts and file trees in unit tests") for platform in OTHERS]
    return found


def with_table(text: str, results: result.Results, ran: dict[str, str]) -> str:
    """Return the page's text with its table as it has to be."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 18 60", ""]
    for row in (("platform", "status", "how it is tested"), *rows(results, ran)):
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row)]
    table = "\n".join(lines)
    return f"{before}{BEGIN}\n{table}\n\n{END}{after}"


def runs() -> dict[str, str]:
    """Return the runs of the workflow that are noted."""
    noted: dict[str, str] = json.loads(KEPT.read_text(encoding="utf-8"))
    return noted


def main(arguments: Sequence[str]) -> None:
    """Note a run where one is told, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ran", choices=list(in_workflow()), help="a platform whose job was green")
    parser.add_argument("--at", help="the address of that run")
    told = parser.parse_args(arguments)
    if bool(told.ran) != bool(told.at):
        parser.error("a run is a platform (--ran) and an address (--at)")
    if told.ran:
        KEPT.write_text(json.dumps({**runs(), told.ran: told.at}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    text = with_table(PAGE.read_text(encoding="utf-8"), result.load(result.KEPT), runs())
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
