# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of what the collection is tested with, tests/support/matrix.toml, and the cells that come of it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("matrix.toml")


@dataclass(frozen=True)
class Core:
    """One version of ansible-core.

    Attributes:
        version: as in "2.19".
        run_on: the Python of its controller in these tests.
        controller: the Pythons that it supports on the controller.
        managed: the Pythons that it supports on managed hosts.
    """

    version: str
    run_on: str
    controller: tuple[str, ...]
    managed: tuple[str, ...]

    @property
    def requirements(self) -> Path:
        """The file that locks it, with the tools of the tests."""
        return ROOT / "requirements" / f"ansible-core-{self.version}.txt"


@dataclass(frozen=True, order=True)
class Cell:
    """One combination of a controller and a managed host."""

    core: str
    debian: str
    python: str

    @property
    def host(self) -> str:
        """The name of its host in an inventory."""
        return f"{self.debian}-{self.python}"


_told = tomllib.loads(LIST.read_text(encoding="utf-8"))
PYTHONS: tuple[str, ...] = tuple(_told["pythons"])
DEBIAN: Mapping[str, str] = _told["debian"]
TESTING: Mapping[str, str] = _told["testing"]
"""The Debian that is not released, and its Python."""


def _cores(told: Mapping[str, Any]) -> dict[str, Core]:
    return {
        version: Core(version, limits["run_on"], tuple(limits["controller"]), tuple(limits["managed"]))
        for version, limits in told.items()
    }


CORES: Mapping[str, Core] = _cores(_told["ansible-core"])
(PREVIEW,) = _cores(_told["preview"]).values()
"""The next version, which has no lock."""


def cells(core: Core) -> list[Cell]:
    """Return all cells of a version of ansible-core, whether it supports the Python or not."""
    return [Cell(core.version, debian, python) for debian in DEBIAN for python in PYTHONS]


def supported(cell: Cell) -> bool:
    """Return whether its ansible-core supports the Python of the managed host."""
    return cell.python in {**CORES, PREVIEW.version: PREVIEW}[cell.core].managed


def diagonal() -> list[Cell]:
    """Return few cells in which every ansible-core, every Python and every Debian is, and all of them supported.

    The oldest ansible-core gets the oldest Python, the newest the newest. When there are more Pythons than versions of
    ansible-core, the last one gets the rest.
    """
    cores, releases = list(CORES.values()), list(DEBIAN)
    found: list[Cell] = []
    for place, python in enumerate(PYTHONS):
        rest = [core for core in cores[min(place, len(cores) - 1) :] if python in core.managed]
        core = (rest or [core for core in cores if python in core.managed])[0]
        own = [release for release, version in DEBIAN.items() if version == python]
        found.append(Cell(core.version, own[0] if own else releases[place % len(releases)], python))
    return found
