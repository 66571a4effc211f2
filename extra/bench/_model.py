# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model of what more hosts cost: a fixed part, and so much for each."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Model:
    """Wall time as a line over the number of hosts.

    Attributes:
        fixed: seconds, whatever the number.
        each: seconds for each host.
        sizes: the numbers of hosts that were measured.
        worst: by how much of itself a median lies beside the line, at most.
    """

    fixed: float
    each: float
    sizes: tuple[int, ...]
    worst: float

    def predict(self, hosts: int, slices: int = 1) -> float:
        """Return the seconds for a number of hosts, cut into slices for as many controllers of this kind."""
        return self.fixed + self.each * -(-hosts // slices)


def fitted(result: Mapping[str, Any]) -> Model:
    """Fit the model to a series whose contestants are named after a number of hosts ("30 hosts")."""
    points = {
        int(found.group(1)): float(values["wall"])
        for name, values in result["medians"].items()
        if (found := re.fullmatch(r"(\d+) hosts", name))
    }
    line = statistics.linear_regression(list(points), list(points.values()))
    # A line that begins below zero would promise less than nothing.
    fixed = max(0.0, line.intercept)
    worst = max(abs(fixed + line.slope * hosts - wall) / wall for hosts, wall in points.items())
    return Model(fixed, line.slope, tuple(sorted(points)), worst)
