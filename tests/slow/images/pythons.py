# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pythons that a Debian release does not have, as a layer of files that runs on every release.

No Debian release has Python 3.8, 3.10 or 3.12. The interpreters of this machine (pyenv's) are linked to the C library
of this machine, which an older release lacks: so a copy of each goes below /opt/pythons together with the shared
libraries that it needs, the dynamic linker included, and is told by patchelf to take these. Nothing of the host's own
changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from .rootfs import RootfsError, cache_folder

PLACE = Path("/opt/pythons")
LIBRARIES = PLACE / "lib"
# What a bare host's Python lacks as well, and what is only there to develop with.
LEFT_OUT = (
    *("__pycache__", "*.a", "config-*", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests"),
    *("tkinter", "turtledemo", "_tkinter*", "_test*"),
)
RECIPE = 1  # another number after a change of what is made here


def interpreter(version: str) -> Path:
    """Return the path of a Python on a host that has the layer."""
    return PLACE / version / "bin" / "python3"


def missing() -> list[str]:
    """Return what keeps this machine from making the layer, in words; empty when nothing does."""
    return [] if shutil.which("patchelf") else ["patchelf is not installed (apt-get install patchelf)"]


def provide(sources: Mapping[str, Path]) -> Path:
    """Return a layer with these Pythons, after making it if the cache has none.

    Args:
        sources: the interpreters of this machine, by version.

    Raises:
        RootfsError: a tool is missing, or an interpreter's libraries cannot be found.
    """
    name = hashlib.sha256(repr((RECIPE, sorted(sources.items()), LEFT_OUT)).encode()).hexdigest()[:8]
    path = cache_folder() / "pythons" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            if reasons := missing():
                raise RootfsError("; ".join(reasons))
            unfinished = path.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            for version, source in sources.items():
                _copy(version, source.resolve(), unfinished)
            unfinished.rename(path)
    return path


def _copy(version: str, source: Path, layer: Path) -> None:
    """Put one Python and the libraries that it needs into the layer."""
    root = layer / PLACE.relative_to("/") / version
    libraries = layer / LIBRARIES.relative_to("/")
    for folder in (root / "bin", root / "lib", libraries):
        folder.mkdir(parents=True, exist_ok=True)
    binary = root / "bin" / f"python{version}"
    shutil.copy2(source, binary)
    (root / "bin" / "python3").symlink_to(binary.name)
    standard = source.parent.parent / "lib" / f"python{version}"
    copied = root / "lib" / standard.name
    shutil.copytree(standard, copied, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (copied / "site-packages").mkdir()
    linker = ""
    modules = sorted(copied.glob("lib-dynload/*.so"))
    new = []
    for library, file in _needed([source, *modules]).items():
        linker = library if library.startswith("ld-") else linker
        if not (libraries / library).exists():
            shutil.copy2(file, libraries / library)
            new.append(libraries / library)
    subprocess.run(["patchelf", "--set-interpreter", str(LIBRARIES / linker), str(binary)], check=True)
    # An RPATH, unlike a RUNPATH, counts for what the libraries need in their turn.
    for file in [binary, *modules, *(path for path in new if path.name not in (linker, "libc.so.6"))]:
        subprocess.run(["patchelf", "--force-rpath", "--set-rpath", str(LIBRARIES), str(file)], check=True)


def _needed(files: Iterable[Path]) -> dict[str, Path]:
    """Return the shared libraries that programs and modules need, directly and indirectly, by name."""
    listed = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    if absent := re.findall(r"^\s+(\S+) => not found", listed, re.MULTILINE):
        raise RootfsError(f"a Python of this machine needs what is not here: {', '.join(sorted(set(absent)))}")
    found = {name: Path(path) for name, path in re.findall(r"^\s+(\S+) => (/\S+)", listed, re.MULTILINE)}
    return found | {Path(path).name: Path(path) for path in re.findall(r"^\s+(/\S+) \(", listed, re.MULTILINE)}
