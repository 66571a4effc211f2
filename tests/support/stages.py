# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stages: sessions of nox that count the tests they ran, and cadences: sessions that run several stages.

All commands of a stage run, also after one that failed. All stages of a cadence run, each in a process of its own, and
those that use one core two at a time. A stage that this machine cannot run is left out, with the reason; where CI is
set in the environment that is a failure, for there nothing may be missing. The last line that a cadence prints counts
the tests: pytest's own, and one for each other command.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / ".cache" / "reports"
MINUTE = 60.0
CI = "CI" in os.environ
ROOT_ONLY = "not root" if CI and os.geteuid() != 0 else ""
"""For pytest -m: CI leaves the tests that need root to the stage `root`; elsewhere they are skipped, and say so."""


@dataclass
class Result:
    """What came of a stage."""

    stage: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        """The verdict in one word."""
        if self.failed:
            return "FAILED"
        return "passed" if self.passed else "left out"

    @property
    def path(self) -> Path:
        """The file that keeps it."""
        return REPORTS / "stages" / f"{self.stage}.json"

    def save(self) -> None:
        """Write it to its file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def load(self) -> Result:
        """Return the result in its file; a failure when there is none."""
        if not self.path.exists():
            return Result(self.stage, failed=1, notes=["it did not run to its end"])
        return Result(**json.loads(self.path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Stage:
    """What is known of a stage before it runs."""

    name: str
    about: str
    needs: Callable[[], str | None]
    limit: float
    one_core: bool


STAGES: dict[str, Stage] = {}


def nothing() -> str | None:
    """Return None: every machine can run it."""
    return None


def root_and(*programs: str) -> Callable[[], str | None]:
    """Return a check for root and programs, which returns what is missing."""

    def check() -> str | None:
        if os.geteuid() != 0:
            return "needs root"
        missing = [program for program in programs if shutil.which(program) is None]
        return f"needs {', '.join(missing)}: sudo sh tests/packages.sh" if missing else None

    return check


class Run:
    """The commands of a stage, and what they count."""

    def __init__(self, stage: Stage, arguments: Iterable[str]) -> None:
        self.result = Result(stage.name)
        self.arguments = list(arguments)
        """What was given on the command line after `--`."""

    def __call__(self, *words: str, **environment: str) -> None:
        """Run a command, which counts as one test."""
        status = self._run(words, environment)
        self.result.failed += status != 0
        self.result.passed += status == 0

    def pytest(self, *arguments: str, marked: str = "", **environment: str) -> None:
        """Run pytest and count its tests.

        Args:
            arguments: of pytest. Paths and options given on the command line take their place.
            marked: which tests, as for `pytest -m`.
            environment: further variables.
        """
        report = REPORTS / f"{self.result.stage}.xml"
        report.unlink(missing_ok=True)
        marks = " and ".join(filter(None, (marked, ROOT_ONLY)))
        words = ["pytest", f"--junitxml={report}", *(["-m", marks] if marks else []), *(self.arguments or arguments)]
        status = self._run(words, environment)
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        if report.exists():
            suite = next(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314  # our own file
            counts = {name: int(suite.get(name, 0)) for name in counts}
        failed = counts["failures"] + counts["errors"]
        self.result.failed += failed or status != 0  # a usage error, no tests, a killed run
        self.result.skipped += counts["skipped"]
        self.result.passed += counts["tests"] - failed - counts["skipped"]

    def _run(self, words: Iterable[str], environment: dict[str, str]) -> int:
        words = [str(word) for word in words]
        print(f"--- {' '.join(words)}", flush=True)
        status = subprocess.run(
            words, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False
        ).returncode
        if status:
            self.result.notes.append(" ".join(words[:2]) + f" ({status})")
        return status


def stage(
    *, needs: Callable[[], str | None] = nothing, limit: float = 10 * MINUTE, one_core: bool = False
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Make a session of a function, which runs the commands of a stage; its docstring says what about.

    Args:
        needs: returns what the machine lacks for it, or None.
        limit: seconds that it may take in a cadence.
        one_core: whether another one can run beside it.
    """

    def decorate(function: Callable[[Run], None]) -> Callable[[Run], None]:
        name = function.__name__.replace("_", "-")
        about = (function.__doc__ or "").strip().rstrip(".")
        known = STAGES[name] = Stage(name, about, needs, limit, one_core)

        def session(session: nox.Session) -> None:
            print(f"\n=== {name}: {about}", flush=True)
            run = Run(known, session.posargs)
            if reason := needs():
                run.result.notes.append(f"left out: {reason}")
                run.result.failed, run.result.skipped = (1, 0) if CI else (0, 1)
            else:
                run.result.path.unlink(missing_ok=True)
                start = time.monotonic()
                try:
                    function(run)
                except Exception as error:  # noqa: BLE001 (a stage that cannot begin has failed)
                    run.result.failed += 1
                    run.result.notes.append(f"{type(error).__name__}: {error}")
                run.result.seconds = round(time.monotonic() - start, 1)
            run.result.save()
            if run.result.failed:
                session.error(f"{run.result.failed} failed: {'; '.join(run.result.notes)}")

        session.__doc__ = function.__doc__
        nox.session(name=name, venv_backend="none", default=False)(session)
        return function

    return decorate


def cadence(session: nox.Session, names: Iterable[str]) -> None:
    """Run stages, those of one core two at a time and first, and sum them up."""
    chosen = [STAGES[name] for name in names]
    for each in chosen:
        Result(each.name).path.unlink(missing_ok=True)
    REPORTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as lanes:
        running = {}
        for each in (each for each in chosen if each.one_core):
            log = (REPORTS / f"{each.name}.log").open("w+", encoding="utf-8")
            running[lanes.submit(run_apart, each, log)] = log
        try:
            for ended in as_completed(running):
                with running[ended] as log:
                    log.seek(0)
                    print(log.read(), end="", flush=True)
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in list(UNDER_WAY):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    for each in chosen:
        if not each.one_core:
            run_apart(each, sys.stdout)
    sum_up(session, [each.name for each in chosen])


UNDER_WAY: set[subprocess.Popen[bytes]] = set()


def run_apart(stage: Stage, log: IO[str]) -> None:
    """Run a stage as a process of its own, with its children; when its time is up, end them."""
    words = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "--session", stage.name]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    ) as process:
        UNDER_WAY.add(process)
        try:
            process.wait(timeout=stage.limit)
        except subprocess.TimeoutExpired:
            print(f"Not done in {stage.limit:.0f} s: {stage.name}", file=log, flush=True)
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            UNDER_WAY.discard(process)


def sum_up(session: nox.Session, names: Iterable[str]) -> None:
    """Print one line a stage, and as the very last one a line for all; the session fails when a stage did."""
    results = [Result(name).load() for name in names]
    print("\n=== summary")
    for result in results:
        line = f"{result.stage:<12} {result.word:<9} {result.passed:>5} {result.failed:>5} {result.skipped:>5}"
        print(f"{line} {result.seconds:>7.1f} s  {'; '.join(result.notes)}".rstrip())
    passed, failed, skipped = (sum(getattr(result, name) for result in results) for name in COUNTS)
    atexit.register(print, f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)  # after what nox says
    sys.stdout.flush()
    if failed or not passed:
        session.error(", ".join(result.stage for result in results if result.failed) or "nothing passed")


COUNTS = ("passed", "failed", "skipped")
BEGIN = "<!-- times: written by nox -s times -->"
END = "<!-- end of times -->"


def table(cadences: dict[str, tuple[str, ...]]) -> str:
    """Return a table of all stages with the times of their last runs here, as Markdown."""
    lines = ["| command | stage | what it does | last time |", "|---|---|---|---|"]
    for command, names in cadences.items():
        for name in names:
            seconds = Result(name).load().seconds
            told = f"{seconds:.0f} s" if seconds else "not run here"
            lines.append(f"| `make {command}` | `{name}` | {STAGES[name].about} | {told} |")
    return "\n".join(lines)


def with_table(text: str, cadences: dict[str, tuple[str, ...]]) -> str:
    """Return a page with its table as the last runs have it."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(cadences)}\n\n{END}{after}"
