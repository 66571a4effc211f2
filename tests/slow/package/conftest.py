# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tarball that is checked, and an environment with nothing but ansible-core and it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from ansible_run import LIMIT, ROOT, Run, environment

UV = Path(sys.executable).with_name("uv")
REQUIREMENTS = ROOT / "requirements"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""With uv at hand, as the guides say."""


def load_release() -> ModuleType:
    """Return tools/release.py as a module."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load_release()


def python_with(name: str, arguments: list[str], of: Path) -> Path:
    """Return a Python of its own with packages, made once for a lock file."""
    stamp = hashlib.sha256(of.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / "environments" / f"{name}-{stamp}"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        command: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *arguments]
        subprocess.run(command, check=True, timeout=300)
        (folder / ".complete").touch()
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Installed:
    """An administrator's computer: ansible-core and the collection, and nothing of this checkout."""

    python: Path
    collections: Path

    def run(self, folder: Path, name: str, *arguments: str, **more: str) -> Run:
        """Run one of Ansible's programs there."""
        done = subprocess.run(
            [str(self.python), "-m", "ansible", name, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment(folder, ANSIBLE_COLLECTIONS_PATH=str(self.collections), **more),
            timeout=LIMIT,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr, [])


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tarball that CAVE_RELEASE names, else one that is built of the last commit."""
    if named := os.environ.get("CAVE_RELEASE"):
        return Path(named)
    return Path(release.build(tmp_path_factory.mktemp("built")))


@pytest.fixture(scope="session")
def importer() -> Path:
    """A Python with galaxy-importer."""
    lock = REQUIREMENTS / "importer.txt"
    return python_with("importer", ["--require-hashes", "--requirement", str(lock)], lock)


@pytest.fixture(scope="session")
def navigator() -> Path:
    """ansible-navigator, with an ansible-core of its own."""
    lock = REQUIREMENTS / "navigator.txt"
    arguments = ["--require-hashes", "--requirement", str(lock)]
    return python_with("navigator", arguments, lock).with_name("ansible-navigator")


@pytest.fixture(scope="session")
def empty_python() -> Path:
    """A Python with ansible-core, as locked, and nothing else."""
    lock = REQUIREMENTS / "dev.txt"
    locked = re.search(r"^ansible-core==\S+", lock.read_text(encoding="utf-8"), re.MULTILINE)
    assert locked
    return python_with("core", [locked[0], "--constraints", str(lock)], lock)


@pytest.fixture
def empty(tmp_path: Path, empty_python: Path) -> Installed:
    """A computer without the collection."""
    return Installed(empty_python, tmp_path / "collections")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, empty_python: Path, tarball: Path) -> Installed:
    """A computer with the collection, from the tarball."""
    folder = tmp_path_factory.mktemp("installed")
    computer = Installed(empty_python, folder / "collections")
    run = computer.run(
        folder, "galaxy", "collection", "install", "--offline", "-p", str(computer.collections), str(tarball)
    )
    assert run.ok, run.output
    assert "WARNING" not in run.output, run.output
    return computer
