# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments with a real caveclient, kept below .cache/ from one test run to the next."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "caveclient"

BEFORE_6 = ("packaging", "pytz", "pyarrow<20")
"""What releases before 6 import and don't require, and the last pyarrow that goes with their numpy 1."""


def caveclient_python(
    version: str | None = "8.2.1", *extras: str, packages: tuple[str, ...] = (), python: str = sys.executable
) -> Path:
    """Return a Python that imports this caveclient, after building its environment if it isn't there yet.

    Args:
        version: of caveclient; None: without it, for `packages` alone.
        extras: of caveclient, such as `cv`.
        packages: further requirements.
        python: the interpreter that the environment is made with.

    Raises:
        subprocess.CalledProcessError: the package index was not reached, or has no solution.
    """
    if version and int(version.split(".")[0]) < 6:
        packages = (*packages, *BEFORE_6)
    extra = f"[{','.join(sorted(extras))}]" if extras else ""
    wanted = ([f"caveclient{extra}=={version}"] if version else []) + sorted(packages)
    tag = subprocess.run(
        [python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    digest = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:8]
    folder = CACHE / f"{version or 'none'}-{tag}-{digest}"
    complete = folder / "complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        # Several test processes may want the same one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder, python, wanted)
            complete.touch()
    return folder / "bin" / "python"


def _build(folder: Path, python: str, wanted: list[str]) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    interpreter = str(folder / "bin" / "python")
    if uv:
        subprocess.run([uv, "venv", "--quiet", "--python", python, folder], check=True)
        if (
            subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, *wanted], check=False).returncode
            == 0
        ):
            return
        # pip knows every index that the machine's pip.conf names.
        shutil.rmtree(folder)
    subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
