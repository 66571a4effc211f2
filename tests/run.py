# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the stages of `make test`, and sum them up.

    python tests/run.py [stage ...]

Every stage runs, also after one that failed. Stages that use one core go two at a time, and what they print comes when
they end. A stage that this machine cannot run is left out, with the reason; where CI is set in the environment that
counts as a failure, for there nothing may be missing. The last line counts the tests: pytest's own, and one for each
other command.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TREE = ".tree/ansible_collections/connectomics/cave"  # the same folder by its importable name: `make tree`
DOCS_LINT = "antsibull-docs lint-collection-docs --plugin-docs"
REPORTS = ROOT / ".cache" / "reports"
MINUTE = 60.0
UNDER_WAY: set[subprocess.Popen[bytes]] = set()


def nothing() -> str | None:
    """Every machine can."""
    return None


def to_be_root() -> str | None:
    """Say what is missing to act for other users."""
    return None if os.geteuid() == 0 else "needs root"


def root_and(*programs: str) -> Callable[[], str | None]:
    """Return a check for root and programs."""

    def check() -> str | None:
        missing = [program for program in programs if shutil.which(program) is None]
        return to_be_root() or (f"needs {', '.join(missing)}: make packages" if missing else None)

    return check


@dataclass(frozen=True)
class Stage:
    """Commands that belong together, all run, and what they need of the machine."""

    name: str
    about: str
    commands: tuple[str, ...]
    needs: Callable[[], str | None] = nothing
    limit: float = 10 * MINUTE
    one_core: bool = False  # so that another one can run beside it


STAGES = (
    Stage(
        "lint",
        "style, types, licences and documentation",
        (
            "ruff check --quiet",
            "ruff format --check --quiet",
            f"mypy {TREE}/plugins tests extra requirements tools noxfile.py",
            "yamllint --strict .",
            "ansible-lint --offline -q",
            "codespell",
            "reuse lint --lines",
            "antsibull-changelog lint",
            f"{DOCS_LINT} --check-extra-docs-refs --validate-collection-refs=all .",
            "nox --no-venv --session docs-check extra-checks",
        ),
        one_core=True,
    ),
    Stage("unit", "functions, without network or server", ("pytest --numprocesses=2 tests/unit",)),
    Stage("contract", "the stand-in server keeps CAVE's protocol", ("pytest tests/contract",), one_core=True),
    Stage(
        "integration",
        "modules, role and playbooks as processes, on this machine",
        ("pytest --numprocesses=2 --dist=loadfile -m 'not long' tests/integration",),
        limit=25 * MINUTE,
    ),
    Stage("torture", "attacks on the write path, a selection", ("pytest tests/slow/torture",)),
    Stage(
        "sanity",
        "ansible-test's rules, on every Python at hand",
        ("python tests/run_ansible_test.py sanity",),
        one_core=True,
    ),
    Stage("targets", "ansible-test's integration targets, twice", ("python tests/run_ansible_test.py integration",)),
    Stage("docs", "the site, and every example in it", ("make --silent docs", "pytest tests/docs"), one_core=True),
    Stage(
        "package",
        "the tarball: built, imported, installed, run and signed",
        ("pytest tests/slow/package",),
        one_core=True,
    ),
    Stage(
        "molecule",
        "the role on three distributions",
        ("python tests/run_molecule.py test",),
        root_and("podman", "mmdebstrap"),
        limit=20 * MINUTE,
    ),
    Stage(
        "fleet",
        "playbooks over real SSH",
        ("pytest tests/slow/fleet",),
        root_and("mmdebstrap", "ip", "ssh"),
        limit=20 * MINUTE,
    ),
)


@dataclass
class Result:
    """What came of one stage."""

    stage: Stage
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


def run_stages(stages: list[Stage]) -> list[Result]:
    """Run stages, those of one core two at a time and first."""
    results = {}
    with ThreadPoolExecutor(2) as lanes:
        running = {}
        for stage in (stage for stage in stages if stage.one_core):
            log = (REPORTS / f"{stage.name}.log").open("w+", encoding="utf-8")
            running[lanes.submit(run_stage, stage, log)] = log
        try:
            for ended in as_completed(running):
                with running[ended] as log:
                    log.seek(0)
                    print(log.read(), end="", flush=True)
                results[ended.result().stage.name] = ended.result()
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in list(UNDER_WAY):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    results |= {stage.name: run_stage(stage, sys.stdout) for stage in stages if not stage.one_core}
    return [results[stage.name] for stage in stages]


def run_stage(stage: Stage, log: IO[str]) -> Result:
    """Run the commands of a stage; what they print goes to the log."""
    result = Result(stage)
    print(f"\n=== {stage.name}: {stage.about}", file=log, flush=True)
    if reason := stage.needs():
        result.notes.append(f"left out: {reason}")
        result.failed, result.skipped = (1, 0) if "CI" in os.environ else (0, 1)
        return result
    start = time.monotonic()
    for command in stage.commands:
        left = stage.limit - (time.monotonic() - start)
        run_command(command, left, result, log)
    result.seconds = time.monotonic() - start
    return result


def run_command(command: str, limit: float, result: Result, log: IO[str]) -> None:
    """Run one command, and add what it counted to the result."""
    print(f"--- {command}", file=log, flush=True)
    words = shlex.split(command)
    report = REPORTS / f"{result.stage.name}.xml"
    report.unlink(missing_ok=True)
    if words[0] == "pytest":
        words.append(f"--junitxml={report}")
    status = run_limited(words, limit, log)
    if report.exists():
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314  # our own file
        counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        failed = counts["failures"] + counts["errors"]
        result.failed += failed
        result.skipped += counts["skipped"]
        result.passed += counts["tests"] - failed - counts["skipped"]
        if status and not failed:  # a usage error, no tests, a killed run
            result.failed += 1
    else:
        result.failed += status != 0
        result.passed += status == 0
    if status:
        result.notes.append(" ".join(words[:2]) + f" ({status})")


def run_limited(words: list[str], limit: float, log: IO[str]) -> int:
    """Run a command without standard input and return its exit status; when the time is up, end it and its children."""
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    ) as process:
        UNDER_WAY.add(process)
        try:
            return process.wait(timeout=max(limit, 1.0))
        except subprocess.TimeoutExpired:
            print(f"Not done in time: {' '.join(words)}", file=log, flush=True)
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            return 124
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            UNDER_WAY.discard(process)


def print_summary(results: list[Result]) -> int:
    """Print one line a stage and one for all; return the exit status."""
    print("\n=== summary")
    for result in results:
        line = f"{result.stage.name:<12} {result.word:<9} {result.passed:>5} {result.failed:>5} {result.skipped:>5}"
        print(f"{line} {result.seconds:>7.1f} s  {'; '.join(result.notes)}".rstrip())
    passed = sum(result.passed for result in results)
    failed = sum(result.failed for result in results)
    skipped = sum(result.skipped for result in results)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def main(names: list[str]) -> int:
    """Run the named stages, or all."""
    known = {stage.name: stage for stage in STAGES}
    if unknown := set(names) - set(known):
        print(f"Unknown stage: {', '.join(sorted(unknown))}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    return print_summary(run_stages([known[name] for name in names or known]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
