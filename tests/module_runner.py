# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module as a process of its own, without ansible-playbook around it: a tenth of a second instead of two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible
from homes import User

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 90.0
"""Seconds for one run."""


@dataclass(frozen=True)
class Outcome:
    """How a module ended: its exit status, its result, and all that it printed."""

    status: int
    result: dict[str, Any]
    output: str

    @property
    def ok(self) -> bool:
        """Whether the task went well."""
        return self.status == 0

    @property
    def message(self) -> str:
        """Why it failed."""
        return str(self.result.get("msg", ""))


def python_for_all() -> str | None:
    """Return a Python that other users may run too; None where root keeps them all."""
    found = [os.path.realpath(sys.executable)] + [
        shutil.which(name, path="/usr/bin:/usr/local/bin") for name in ("python3",)
    ]
    for path in found:
        if path and all(Path(above).stat().st_mode & 0o001 for above in [path, *map(str, Path(path).parents)]):
            return path
    return None


def command(name: str) -> list[str]:
    """Return the command that runs a module with the Python of the tests."""
    return [sys.executable, "-m", f"ansible_collections.connectomics.cave.plugins.modules.{name}"]


def module_input(arguments: dict[str, Any], check: bool = False) -> str:
    """Return what a module reads from its standard input."""
    return json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}})


def run_module(
    name: str,
    arguments: dict[str, Any],
    home: Path,
    *,
    check: bool = False,
    user: User | None = None,
    umask: int = 0o022,
    **environment: str,
) -> Outcome:
    """Run a module of this collection.

    Args:
        name: of the module.
        arguments: its options.
        home: the ``HOME`` of the process.
        check: in check mode.
        user: who runs it; None: whoever runs the tests.
        umask: of the process.
        environment: further variables.
    """
    run = command(name)
    more: dict[str, Any] = {}
    if user is not None:
        python = python_for_all()
        assert python, "no Python that another user may run"
        run[0] = python
        more = {"user": user.uid, "group": user.gid, "extra_groups": os.getgrouplist(user.name, user.gid)}
    packages = Path(ansible.__file__).parent.parent
    done = subprocess.run(
        run,
        input=module_input(arguments, check),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{ROOT / '.tree'}{os.pathsep}{packages}",
            **environment,
        },
        cwd="/",
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
        **more,
    )
    line = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "{}"
    assert line.startswith("{"), f"the module printed no result: {done.stdout}{done.stderr}"
    return Outcome(done.returncode, json.loads(line), done.stdout + done.stderr)
