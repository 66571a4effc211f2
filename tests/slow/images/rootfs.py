# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems of Debian releases, built once by mmdebstrap and kept in a cache folder.

Each holds what a workstation has before anybody installs caveclient: Python and nothing else of Python
(no pip, no ensurepip, no packaging), an SSH server, sudo and systemd. The fleet lays one overlay a host over
them, and `build.py` makes container images of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import support_matrix

CACHE_VARIABLE = "CAVE_TEST_CACHE"
RELEASES = support_matrix.DEBIAN
KNOWN = {**RELEASES, **support_matrix.TESTING}
PACKAGES = (
    "ca-certificates",
    "iproute2",
    "openssh-server",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)
# Every machine has its own of these; a root file system that is shared must hold none.
PER_MACHINE = ("/etc/ssh/ssh_host_*", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts")
HOOKS = (
    *(f'rm -f "$1"{pattern}' for pattern in PER_MACHINE),
    'ln -s /dev/null "$1"/etc/systemd/system/ssh.service',  # the fleet starts sshd itself, containers need none
)


class RootfsError(Exception):
    """A root file system cannot be built; the message says why, and what to do."""


@dataclass(frozen=True)
class Rootfs:
    """One Debian release on disk."""

    release: str
    python: str
    path: Path


def cache_folder() -> Path:
    """Return the folder for everything that is built once: `$CAVE_TEST_CACHE`, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "connectomics-cave"


def release_of(python: str) -> str:
    """Return the Debian release whose Python is the given one ("3.11" gives "bookworm").

    Raises:
        RootfsError: no release has this Python.
    """
    for release, version in KNOWN.items():
        if version == python:
            return release
    raise RootfsError(f"no Debian release here has Python {python}: choose from {', '.join(KNOWN.values())}")


def missing() -> list[str]:
    """Return what keeps this machine from building a root file system, in words; empty when nothing does."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("root is needed")
    if not shutil.which("mmdebstrap"):
        reasons.append("mmdebstrap is not installed (apt-get install --no-install-recommends mmdebstrap)")
    return reasons


def provide(release: str) -> Rootfs:
    """Return the root file system of a Debian release, after building it if the cache has none.

    Raises:
        RootfsError: the release is unknown, a tool is missing, or mmdebstrap failed.
    """
    if release not in KNOWN:
        raise RootfsError(f"unknown Debian release {release!r}: choose from {', '.join(KNOWN)}")
    path = cache_folder() / "rootfs" / f"{release}-{_recipe(release)}"
    if not path.is_dir():
        with _lock(path.parent / f"{release}.lock"):
            if not path.is_dir():
                _build(release, path)
    return Rootfs(release, KNOWN[release], path)


def _recipe(release: str) -> str:
    """Return a short name for what goes into a root file system, so that a changed list builds a new one."""
    return hashlib.sha256(repr((release, PACKAGES, DPKG_OPTIONS, HOOKS)).encode()).hexdigest()[:8]


def _build(release: str, path: Path) -> None:
    reasons = missing()
    if reasons:
        raise RootfsError(f"the root file system of {release} cannot be built: {'; '.join(reasons)}")
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    command += [f"--customize-hook={hook}" for hook in HOOKS]
    if release in support_matrix.TESTING:  # a mirror that is some weeks behind has no valid date
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    log = path.with_name(f"{release}.log")
    with log.open("wb") as output:
        result = subprocess.run(
            [*command, release, str(unfinished)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if result.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RootfsError(f"mmdebstrap {release} ended with {result.returncode}; the end of {log}:\n{last}")
    _require_bare_python(unfinished, release)
    unfinished.rename(path)


def _require_bare_python(root: Path, release: str) -> None:
    """Refuse a root file system with more of Python than Python: tests rely on a bare one."""
    version = f"python{KNOWN[release]}"
    if not (root / "usr/bin" / version).exists():
        raise RootfsError(f"{release} has no /usr/bin/{version}: the list of releases here is out of date")
    found = [
        str(path.relative_to(root))
        for folder in (f"usr/lib/{version}", "usr/lib/python3/dist-packages")
        for name in ("pip", "ensurepip", "packaging", "setuptools")
        for path in [root / folder / name]
        if path.exists()
    ]
    if found:
        raise RootfsError(f"{release} should have nothing of Python but Python, and has {', '.join(found)}")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
