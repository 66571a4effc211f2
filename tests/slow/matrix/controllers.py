# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An environment for each ansible-core, from its lock in requirements/; of the next one, the newest pre-release."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from interpreters import find_interpreters
from support_matrix import PREVIEW, ROOT, Core

FOLDER = ROOT / ".cache" / "controllers"
ASK = """
import ansible.module_utils.basic
from ansible.release import __version__
from ansible_test._util.target.common.constants import CONTROLLER_PYTHON_VERSIONS, REMOTE_ONLY_PYTHON_VERSIONS
for answer in ([__version__], CONTROLLER_PYTHON_VERSIONS, REMOTE_ONLY_PYTHON_VERSIONS + CONTROLLER_PYTHON_VERSIONS):
    print(*answer)
"""


class NoControllerError(Exception):
    """A version of ansible-core cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Controller:
    """A version of ansible-core, installed.

    Attributes:
        core: which.
        python: the interpreter of its environment.
        python_version: of that interpreter ("3.12").
        version: the release ("2.17.14").
    """

    core: Core
    python: Path
    python_version: str
    version: str

    def program(self, name: str) -> list[str]:
        """Return the command of one of Ansible's programs ("playbook")."""
        return [str(self.python), "-m", "ansible", name]


def provide(core: Core) -> Controller:
    """Return a version of ansible-core, after installing it if it is not there as its lock has it.

    Raises:
        NoControllerError: no Python here runs it, or it cannot be installed.
    """
    version, interpreter = _interpreter(core)
    folder = FOLDER / core.version
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    preview = [f"ansible-core>={core.version}.0.dev0", "--prerelease=allow"]
    packages = preview if core == PREVIEW else ["--require-hashes", "--requirement", str(core.requirements)]
    lock = b"" if core == PREVIEW else core.requirements.read_bytes()
    wanted = hashlib.sha256(lock + str(interpreter).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        # ansible-test asks pip for its settings.
        _run([str(uv), "venv", "--quiet", "--seed", "--python", str(interpreter), str(folder)])
        _run([str(uv), "pip", "install", "--quiet", "--python", str(python), *packages])
        stamp.write_text(wanted)
    release, controller, managed = _run([str(python), "-c", ASK]).splitlines()
    if tuple(controller.split()) != core.controller or tuple(managed.split()) != core.managed:
        raise NoControllerError(
            f"tests/support/matrix.toml says that ansible-core {core.version} runs on {' '.join(core.controller)} and "
            f"manages {' '.join(core.managed)}; it says itself that it runs on {controller} and manages {managed}"
        )
    return Controller(core, python, version, release)


def _interpreter(core: Core) -> tuple[str, Path]:
    here = find_interpreters()
    for version in (core.run_on, *reversed(core.controller)):
        if version in here:
            return version, here[version]
    raise NoControllerError(
        f"ansible-core {core.version} needs Python {' or '.join(core.controller)}; here are "
        f"{', '.join(here) or 'none'} (python tests/support/interpreters.py)"
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise NoControllerError(f"{' '.join(command[:3])}: {done.stderr.strip()[-2000:]}")
    return done.stdout
