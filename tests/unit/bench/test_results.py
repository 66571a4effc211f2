# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the benchmarks make of their samples. What they measure is never a matter of pass or fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench import _page
from bench._meter import Sample
from bench._model import fitted
from bench._results import Measured, table
from bench._series import SERIES, Ratio

SAMPLES: dict[str, list[dict[str, float]]] = {
    "ping": [{"wall": 2.0, "controller_cpu": 1.0, "hosts_cpu": 3.0}] * 3,
    "rotation": [{"wall": wall, "controller_cpu": 2.0, "hosts_cpu": 4.0} for wall in (9.0, 2.5, 1.0)],
}
RATIOS = (
    Ratio("rotation against ping", "rotation", "ping", 1.15),
    Ratio("the same in CPU", "rotation", "ping", measure="cpu"),
    Ratio("the same per host, ten times as many", "rotation", "ping", factor=0.1),
    Ratio("rotation in ms", "rotation", "", factor=1000),
)


@pytest.fixture
def result() -> dict[str, Any]:
    """A measured series, as it is stored."""
    return measured().as_dict(
        {"date": "2026-11-22", "cores": 2, "processor": "P", "memory": "1 GiB", "python": "3", "ansible-core": "2"}
    )


def measured() -> Measured:
    """Return a measured series."""
    samples = {name: [Sample(**values, memory=0, largest=0) for values in taken] for name, taken in SAMPLES.items()}
    return Measured("A title", samples, RATIOS)


def test_a_ratio_is_one_of_medians_and_counts_the_cpu_of_both_sides() -> None:
    assert [measured().ratio(ratio) for ratio in RATIOS] == pytest.approx([1.25, 1.5, 0.125, 2500])


def test_the_table_names_what_is_to_be_reached() -> None:
    assert "1.250  rotation against ping   (to be reached: 1.15)" in table(measured())


def test_every_ratio_is_of_contestants_of_its_series() -> None:
    for series in SERIES.values():
        for ratio in series.ratios:
            assert {ratio.of, ratio.to or ratio.of} <= set(series.contestants)
        assert series.rounds >= 5 or "memory" in series.about or "build_once" in series.about


def test_the_page_gets_a_table_and_says_what_is_not_reached(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.rst"
    page.write_text("before\n" + "old\n".join(_page.MARKS) + "after\n")
    monkeypatch.setattr(_page, "PAGE", page)
    _page.write_page({"rotation": result})
    text = page.read_text()
    assert text.startswith(f"before\n{_page.MARKS[0]}")
    assert text.endswith(f"{_page.MARKS[1]}after\n")
    assert "old" not in text
    assert "   * - rotation against ping\n     - 1.25\n     - 1.15\n     - **no**\n" in text


def test_the_model_is_the_line_through_the_medians_and_says_how_far_it_is_off() -> None:
    medians = {f"{hosts} hosts": {"wall": 2 + 0.1 * hosts} for hosts in (10, 30, 100)} | {"ping": {"wall": 1.0}}
    model = fitted({"medians": medians})
    assert (model.fixed, model.each, model.worst) == pytest.approx((2, 0.1, 0), abs=1e-9)
    assert model.sizes == (10, 30, 100)
    assert model.predict(5000) == pytest.approx(502)
    assert model.predict(5001, slices=4) == pytest.approx(2 + 0.1 * 1251)


def test_a_line_that_would_begin_below_zero_begins_at_zero() -> None:
    model = fitted({"medians": {"10 hosts": {"wall": 1.0}, "100 hosts": {"wall": 20.0}}})
    assert model.fixed == 0
    assert model.worst > 0.5
