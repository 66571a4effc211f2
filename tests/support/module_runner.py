# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module as a process of its own, without ansible-playbook around it: milliseconds instead of seconds."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import ansible
from ansible_run import coverage
from homes import User

ROOT = Path(__file__).resolve().parents[2]
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


def arguments_of(name: str, **given: Any) -> dict[str, Any]:
    """Return what a module hands on to its work: the defaults of its options, and what is given."""
    module = importlib.import_module(f"ansible_collections.connectomics.cave.plugins.modules.{name}")
    return {**{option: how.get("default") for option, how in module.ARGUMENTS["argument_spec"].items()}, **given}


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
    environment: Mapping[str, str] | None = None,
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
    packages = Path(ansible.__file__).parent.parent
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{ROOT / '.tree'}{os.pathsep}{packages}",
        **coverage(),
        **(environment or {}),
    }
    told = module_input(arguments, check)
    if user is None:
        status, output = _in_a_fork(name, told, variables, umask)
    else:
        status, output = _as_a_user(name, told, variables, umask, user)
    line = output.strip().splitlines()[-1] if output.strip() else ""
    assert line.startswith("{"), f"the module printed no result: {output}"
    return Outcome(status, json.loads(line), output)


def _in_a_fork(name: str, told: str, variables: dict[str, str], umask: int) -> tuple[int, str]:
    """Run a module in a fork of this process, which has imported all that a module needs already."""
    module = importlib.import_module(f"ansible_collections.connectomics.cave.plugins.modules.{name}")
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as stdout:
        stdin.write(told)
        stdin.seek(0)
        pid = os.fork()
        if not pid:
            _be_the_module(module, stdin.fileno(), stdout.fileno(), variables, umask)
        deadline = time.monotonic() + LIMIT
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        stdout.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), stdout.read()


def _be_the_module(module: ModuleType, stdin: int, stdout: int, variables: dict[str, str], umask: int) -> NoReturn:
    status = 1
    try:
        for number, descriptor in ((0, stdin), (1, stdout), (2, stdout)):
            os.dup2(descriptor, number)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        sys.argv = [f"{module.__name__.rpartition('.')[2]}.py"]
        os.environ.clear()
        os.environ.update(variables)
        os.chdir("/")
        os.umask(umask)
        module.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 (pytest, of which this is a copy, must not see it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _as_a_user(name: str, told: str, variables: dict[str, str], umask: int, user: User) -> tuple[int, str]:
    python = python_for_all()
    assert python, "no Python that another user may run"
    done = subprocess.run(
        [python, *command(name)[1:]],
        input=told,
        env=variables,
        cwd="/",
        umask=umask,
        user=user.uid,
        group=user.gid,
        extra_groups=os.getgrouplist(user.name, user.gid),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout + done.stderr
