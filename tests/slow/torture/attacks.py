# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is of attacks: each tries to break a promise of the collection, counts how often, and reports.

An attack is a function in any module of this folder, which is found by itself::

    @attack("kill", "A file is the old or the new one", "SIGKILL at every call", fewest=500, short=Short(0.1, 40))
    def killed_anywhere(report: Report, scale: float) -> None:
        report.tries += 1
        report.check(held, "what was found instead")

``python -m torture`` runs them at full size (a scale of 1), ``pytest tests/slow/torture`` those that have a short form.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

NOTES = 10
"""How many failures are described."""


@dataclass
class Report:
    """What came of an attack."""

    name: str
    promise: str
    attack: str
    tries: int = 0
    failures: int = 0
    seconds: float = 0.0
    scale: float = 1.0
    notes: list[str] = field(default_factory=list)
    """The first few failures."""
    counts: dict[str, int] = field(default_factory=dict)
    """Further figures, by what they count."""
    caught: dict[str, str] = field(default_factory=dict)
    """Of defects: which test noticed."""
    when: str = ""
    """The day of the run, in UTC."""
    left_out: str = ""
    """Why it was not run; empty: it was."""

    def check(self, holds: bool, note: str) -> None:
        """Count a failure, and keep the first few to look at."""
        if not holds:
            self.failures += 1
            if len(self.notes) < NOTES:
                self.notes.append(note[:300])


class Short(NamedTuple):
    """The form of an attack that every run of the tests affords."""

    scale: float
    fewest: int
    """Tries that it has to come to."""


def _to_be_root() -> bool:
    return os.geteuid() == 0


def _to_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


NEEDS: dict[str, Callable[[], bool]] = {
    "root": _to_be_root,
    "strace": lambda: shutil.which("strace") is not None,
    "mounting": _to_mount,
    "network": lambda: True,  # a package index: the tests are marked with it, and the run says what it did not get
}
"""What an attack may need of the machine, and how that is found out."""


@dataclass(frozen=True)
class Attack:
    """An attack, and what it has to come to."""

    name: str
    promise: str
    about: str
    function: Callable[[Report, float], None]
    fewest: int
    """Tries at full size, at least."""
    short: Short | None
    needs: Sequence[str] = ()
    limit: float = 3600.0
    """Seconds at full size, at most."""

    def lacks(self) -> str:
        """Return what the machine lacks for it; empty when nothing."""
        return ", ".join(name for name in self.needs if not NEEDS[name]())

    def run(self, scale: float) -> Report:
        """Run it and return what came of it."""
        os.environ.pop("CLOUD_VOLUME_DIR", None)
        report = Report(self.name, self.promise, self.about, scale=scale)
        report.when = datetime.now(UTC).date().isoformat()
        if lacks := self.lacks():
            report.left_out = f"needs {lacks}"
            return report
        started = time.monotonic()
        self.function(report, scale)
        report.seconds = round(time.monotonic() - started, 1)
        if scale >= 1:
            report.check(report.tries >= self.fewest, f"{report.tries} tries, expected {self.fewest} or more")
        return report


_FOUND: dict[str, Attack] = {}


def attack(
    name: str,
    promise: str,
    about: str,
    *,
    fewest: int,
    short: Short | None = None,
    needs: Sequence[str] = (),
    limit: float = 3600.0,
) -> Callable[[Callable[[Report, float], None]], Callable[[Report, float], None]]:
    """Make an attack of a function, which takes the report to fill in and the scale.

    Args:
        name: for the command line.
        promise: what it tries to break, as the security page says it.
        about: what it does, in a few words.
        fewest: tries at full size, at least.
        short: its form for every run of the tests; None: it runs at full size only.
        needs: of the machine; see ``NEEDS``.
        limit: seconds at full size, at most.
    """

    def register(function: Callable[[Report, float], None]) -> Callable[[Report, float], None]:
        # A module that runs as a program is imported once more under its own name.
        _FOUND[name] = Attack(name, promise, about, function, fewest, short, tuple(needs), limit)
        return function

    return register


def attacks() -> dict[str, Attack]:
    """Return all attacks by name, having imported the modules of this folder."""
    folder = Path(__file__).resolve().parent
    for module in sorted(info.name for info in pkgutil.iter_modules([str(folder)])):
        if not module.startswith(("test_", "__")):
            importlib.import_module(f"torture.{module}")
    return dict(sorted(_FOUND.items(), key=lambda item: (item[1].promise, item[0])))


def as_mapping(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it."""
    return asdict(report)
