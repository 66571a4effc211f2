# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of the last run of the matrix, and the table that is made of it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from matrix import result
from support_matrix import CORES


@pytest.fixture
def kept() -> result.Results:
    """The results of the last run of everything."""
    return result.load(result.KEPT)


def test_the_last_run_was_of_the_whole_list_and_all_green(kept: result.Results) -> None:
    assert list(result.faults(kept)) == []
    assert list(kept) == list(CORES)


def test_the_last_run_was_with_the_locked_releases(kept: result.Results) -> None:
    for core in CORES.values():
        assert f"\nansible-core=={kept[core.version].version} " in core.requirements.read_text(encoding="utf-8")


def test_the_table_in_the_readme_is_the_one_of_the_last_run(kept: result.Results) -> None:
    text = result.README.read_text(encoding="utf-8")
    assert result.with_table(text, kept) == text


def test_a_failure_a_gap_and_a_cell_that_did_not_run_are_faults(kept: result.Results) -> None:
    core = list(CORES)[1]
    spoilt = deepcopy(kept)
    spoilt[core].cells["bookworm-3.12"] = "rotate: failed=1"
    spoilt[core].cells["trixie-3.13"] = result.NO_PYTHON
    del spoilt[core].cells["bullseye-3.9"]
    spoilt[core].sanity = ""
    del spoilt[next(iter(CORES))]

    assert sorted(result.faults(spoilt)) == [
        f"ansible-core {next(iter(CORES))}: not run",
        f"ansible-core {core}, bookworm, Python 3.12: rotate: failed=1",
        f"ansible-core {core}, bullseye, Python 3.9: not run",
        f"ansible-core {core}, trixie, Python 3.13: no such Python on this machine",
        f"ansible-core {core}: sanity: not run",
    ]


def test_a_table_shows_what_failed_and_what_was_not_run(kept: result.Results) -> None:
    spoilt = deepcopy(kept)
    spoilt["2.21"].cells["trixie-3.13"] = "rotate: failed=1"
    spoilt["2.21"].cells["trixie-3.12"] = result.NO_PYTHON

    row = result.text_table(spoilt).splitlines()[-2].split()
    assert row == ["trixie", "-", "ok", "ok", "ok", "?", "FAIL"]
    assert "bullseye ✓, bookworm ✓, trixie ✗" in result.markdown_table(spoilt).splitlines()[-1]


def test_results_come_out_of_a_file_as_they_went_in(kept: result.Results, tmp_path: Path) -> None:
    result.save(kept, tmp_path / "new" / "result.json")
    assert result.load(tmp_path / "new" / "result.json") == kept
    assert result.load(tmp_path / "none.json") == {}


def test_of_two_halves_that_ran_apart_each_is_kept() -> None:
    cells = result.merged({}, "2.19", result.CoreResult("2.19.1", "3.12", cells={"a": "passed"}), True, False)
    both = result.merged(cells, "2.19", result.CoreResult("2.19.1", "3.12", sanity="passed"), False, True)
    newer = result.merged(both, "2.19", result.CoreResult("2.19.2", "3.12", sanity="passed"), False, True)

    assert both["2.19"] == result.CoreResult("2.19.1", "3.12", "passed", {"a": "passed"})
    assert newer["2.19"].cells == {}
