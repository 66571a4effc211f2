# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Jupyter kernel that offers a caveclient environment to everybody on a host."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._atomic import replace_file
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import restore_labels, system_certificates

KERNEL_NAME = "cave"
GUIDE = "https://connectomics.github.io/ansible-collection-cave/scientists.html"
"""What a person reads when a notebook says 401, 403 or 503."""
_LONGEST = 1 << 20


def kernel_file(jupyter_dir: str) -> Path:
    """Return the path of the kernel's description below a Jupyter data directory."""
    return Path(jupyter_dir, "kernels", KERNEL_NAME, "kernel.json")


def certificate_variables(ca_path: str | None = None) -> dict[str, str]:
    """Return the variables that make caveclient trust a bundle of certificate authorities; by default, the system's.

    By itself requests trusts a list of its own, which lacks the authority of a lab or of its proxy.
    """
    bundle = ca_path or system_certificates()
    return {"REQUESTS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle} if bundle else {}


def kernel_content(python: str, display_name: str, ca_path: str | None = None) -> dict[str, Any]:
    """Return the description of a kernel (https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs).

    With ``-I`` the packages are those that were proven, whatever a PYTHONPATH of the notebook server adds.
    """
    return {
        "argv": [python, "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "env": certificate_variables(ca_path),
        "metadata": {"debugger": True, "help": GUIDE},
    }


def read_kernel(file: Path) -> dict[str, Any]:
    """Return the description that is there; empty when there is none that everybody can read.

    Raises:
        CaveError: a directory is in its place.
    """
    if file.is_dir() and not file.is_symlink():
        raise CaveError(f"jupyter_kernel: {file} is a directory, where a file was expected. Move it away.")
    content, mode = _read(file)
    return content if mode & 0o444 == 0o444 else {}


def belongs_to(file: Path, python: str) -> bool:
    """Return whether the kernel that is there starts this Python."""
    argv = _read(file)[0].get("argv")
    return isinstance(argv, list) and argv[:1] == [python]


def _read(file: Path) -> tuple[dict[str, Any], int]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}, 0
    mode = os.fstat(descriptor).st_mode
    content = None
    try:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(os.read(descriptor, _LONGEST)) if stat.S_ISREG(mode) else None
    finally:
        os.close(descriptor)
    return content if isinstance(content, dict) else {}, mode


def write_kernel(file: Path, content: dict[str, Any]) -> None:
    """Write the description in one step, for everybody to read: a notebook server never reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _remove_leftovers(file)
        text = json.dumps(content, indent=1) + "\n"
        replace_file(descriptor, file.name, text.encode(), mode=0o644)
        restore_labels(str(file.parent))
    finally:
        os.close(descriptor)


def remove_kernel(file: Path) -> None:
    """Remove the description, and its folder unless somebody has put something else there."""
    file.unlink(missing_ok=True)
    _remove_leftovers(file)
    with contextlib.suppress(OSError):
        file.parent.rmdir()


def _remove_leftovers(file: Path) -> None:
    """Remove what a run that was killed has not put in the file's place."""
    for path in file.parent.glob(f".{file.name}.*.tmp"):
        path.unlink()
