# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks on the caveclient environment: installed, upgraded, rolled back and killed meanwhile, with the real uv."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import stub_wheels
from interpreters import open_python
from module_runner import arguments_of
from torture.attacks import Report, Short, attack
from torture.tracing import Point, points, traced
from torture.write_path import scratch, thinned

from ansible_collections.connectomics.cave.plugins.module_utils._backends.caveclient import run
from ansible_collections.connectomics.cave.plugins.module_utils._environment.builds import Builds
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

CHANGES = """
mkdir mkdirat rename renameat renameat2 symlink symlinkat unlink unlinkat rmdir chmod fchmod fchmodat fchmodat2
utimensat write fsync vfork clone
"""
"""The calls of a run at which it is killed: those that change files, and those that start the installer."""
CHANGING = ",".join(f"?{name}" for name in CHANGES.split())
OLD, NEW = "8.1.0", "8.2.0"


@dataclass(frozen=True)
class Job:
    """Something that is asked for, what was there before, and what may be live meanwhile."""

    name: str
    before: tuple[str, ...]
    ask: dict[str, Any]
    live: tuple[str, ...]
    finally_live: str
    state: str = "present"


JOBS = (
    Job("upgrade", (OLD,), {"version": NEW, "keep": 1}, (OLD, NEW), NEW),
    Job("first", (), {"version": NEW}, ("", NEW), NEW),
    Job("roll-back", (OLD, NEW), {}, (OLD, NEW), OLD, "rolled_back"),
    Job("from-the-shelf", (OLD, NEW), {"version": OLD, "keep": 1}, (OLD, NEW), OLD),
    Job("upgrade-and-forget", (OLD,), {"version": NEW, "keep": 0, "jupyter_kernel": "CAVE"}, (OLD, NEW), NEW),
)


class Site:
    """A host's folder with an environment, and wheels to install from."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "caveclient"
        self.folder = folder
        self.wheels = folder / "wheels"
        for version in (OLD, NEW):
            stub_wheels.caveclient(self.wheels, version, requires=())
        kernel = {"ipykernel/__init__.py": "", "ipykernel/kernelapp.py": ""}
        stub_wheels.wheel(self.wheels, "ipykernel", "7.0.0", kernel)

    def ask(self, state: str, **options: Any) -> dict[str, Any]:
        """Do what the module does."""
        given = {
            "path": str(self.path),
            "installer": "uv",
            "find_links": [str(self.wheels)],
            "remote_src": True,
            "offline": True,
            "python": open_python(),
            "jupyter_dir": str(self.folder / "jupyter"),
            "timeout": 60,
            "_controller": None,
            "state": state,
        }
        return run(arguments_of("caveclient", **given, **options), False, str(self.folder))

    def prepare(self, job: Job) -> None:
        """Make it as it was before a job. It is made once, and copied after that."""
        kept = self.folder / f"kept-{job.name}"
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self.folder / "jupyter", ignore_errors=True)
        if not kept.exists():
            for version in job.before:
                self.ask("present", version=version)
            self.path.mkdir(exist_ok=True)
            shutil.copytree(self.path, kept, symlinks=True)
        else:
            shutil.copytree(kept, self.path, symlinks=True)

    def live(self) -> str:
        """Return the version that a user imports; empty when nothing is live."""
        python = self.path / "current" / "bin" / "python"
        if not (self.path / "current").is_symlink():
            return ""
        code = "import caveclient, caveclient.late as l; assert caveclient.__version__ == l.VERSION; print(l.VERSION)"
        done = subprocess.run([python, "-I", "-B", "-c", code], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def half_built(self) -> list[str]:
        """Return what is there of builds that are not whole."""
        return [str(path.relative_to(self.path)) for path in Builds(str(self.path)).leftovers()]


def _in_a_group(action: Callable[[], Any]) -> dict[str, Any]:
    """Run in a process group of its own, with the installers that it starts."""
    os.setpgid(0, 0)
    result: dict[str, Any] = action()
    return {"version": result["version"]}


def _killed_at(point: Point, action: Callable[[], Any]) -> bool:
    """Kill a run before one of its own calls; what it started goes on, as it would."""
    inject = f"inject={point.call}:signal=KILL:when={point.number}"
    return traced(partial(_in_a_group, action), "-e", f"trace={CHANGING}", "-e", inject, follow=False).answer is None


def _killed_after(seconds: float, action: Callable[[], Any]) -> bool:
    """Kill a run with all that it started, as a power cut does."""
    pid = os.fork()
    if not pid:
        try:
            _in_a_group(action)
        finally:
            os._exit(0)
    time.sleep(seconds)
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _look(report: Report, site: Site, job: Job, where: str) -> None:
    """Look at what a killed run left, run it again, and look at that."""
    found = site.live()
    report.check(found in job.live, f"{where}: live is {found!r}")
    try:
        site.ask(job.state, **job.ask)
    except CaveError as error:
        report.check(False, f"{where}: the next run fails: {error.message}")
        return
    if job.state == "present":
        again = site.ask(job.state, **job.ask)
        report.check(not again["changed"], f"{where}: the run after the next one has {again['reasons']}")
    found = site.live()
    report.check(found == job.finally_live, f"{where}: after the next run, live is {found!r}")
    report.check(job.state != "present" or not site.half_built(), f"{where}: {site.half_built()} stays")
    left = [path.name for path in site.path.iterdir() if not re.fullmatch(r"builds|current|\.lock", path.name)]
    report.check(not left, f"{where}: {left} stays")


@attack(
    "kill-environment",
    "Whatever interrupts an installation, current leads to a caveclient that imports, and the next run completes",
    "SIGKILL at every call that changes a file, and of the whole process group at moments of the installation, while "
    "it is installed, upgraded and rolled back",
    fewest=150,
    short=Short(0.05, 2),
    needs=["strace"],
)
def killed_anywhere(report: Report, scale: float) -> None:
    """Kill installations at calls of their own, and with their installers at moments."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with scratch() as folder:
        os.environ["UV_CACHE_DIR"] = str(folder / "uv-cache")
        site = Site(folder)
        for job in JOBS if scale >= 0.1 else JOBS[:1]:
            action = partial(site.ask, job.state, **job.ask)
            site.prepare(job)
            site.prepare(job)
            started = time.monotonic()
            found = points(partial(_in_a_group, action), CHANGING, follow=False)
            lasts = time.monotonic() - started
            for point in thinned(found, scale):
                site.prepare(job)
                report.check(_killed_at(point, action), f"{job.name}, {point}: not killed")
                report.tries += 1
                _look(report, site, job, f"{job.name}, {point}")
            moments = max(1, round(20 * scale))
            for number in range(moments):
                site.prepare(job)
                moment = lasts * (number + 0.5) / moments
                report.tries += _killed_after(moment, action)
                _look(report, site, job, f"{job.name}, all killed after {moment:.2f} s")
