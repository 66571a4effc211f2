# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Jupyter kernel that offers a caveclient environment to everybody on a host."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

KERNEL_NAME = "cave"


def kernel_file(jupyter_dir: str) -> Path:
    """Return the path of the kernel's description below a Jupyter data directory."""
    return Path(jupyter_dir, "kernels", KERNEL_NAME, "kernel.json")


def kernel_content(python: str, display_name: str) -> dict[str, Any]:
    """Return the description of a kernel (https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs)."""
    return {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "metadata": {"debugger": True},
    }


def read_kernel(file: Path) -> dict[str, Any]:
    """Return the description that is there; empty when there is none that everybody can read."""
    try:
        content = json.loads(file.read_bytes())
        readable = file.stat().st_mode & 0o444 == 0o444
    except (OSError, ValueError):
        return {}
    return content if readable and isinstance(content, dict) else {}


def belongs_to(file: Path, python: str) -> bool:
    """Tell whether the kernel that is there starts this Python."""
    try:
        argv = json.loads(file.read_bytes())["argv"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(argv, list) and argv[:1] == [python]


def write_kernel(file: Path, content: dict[str, Any]) -> None:
    """Write the description in one step: a notebook server never reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.chmod(0o644)
    temporary.replace(file)


def remove_kernel(file: Path) -> None:
    """Remove the description, and its folder unless somebody has put something else there."""
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()
