# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller can bring to a host that lacks it: uv, a wheel of pip, wheels of packages."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import LINUX, MACOS

_DOWNLOAD_TIMEOUT = 120
_ARCHIVES = (".whl", ".tar.gz", ".zip")
_PIP = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
"""Runs pip as -m does, but takes nothing from the folder that the playbook is run in."""


def find_tool(kinds: Iterable[str], host: Mapping[str, str], folder: Path) -> tuple[str, Path]:
    """Return the first of ``kinds`` (uv, pip) that the controller has for a host, and its file.

    Args:
        kinds: what would help, best first.
        host: the host's system, machine, libc and python, as the module returns them.
        folder: where a wheel of pip may be downloaded to.

    Raises:
        CaveError: it has none.
    """
    reasons = {}
    for may_download in (False, True):
        for kind in kinds:
            if kind == "uv":
                uv = find_uv()
                reasons[kind] = "the controller has no uv" if uv is None else why_uv_does_not_suit(uv, host)
                if uv and not reasons[kind]:
                    return kind, uv
                found = download_uv(host, folder) if may_download else None
            else:
                found = find_pip_wheel(host["python"], folder, may_download)
                reasons[kind] = f"the controller has no wheel of pip for Python {host['python']}"
            if found:
                return kind, found
    raise CaveError(
        f"The host lacks {' and '.join(kinds)}, and {', and '.join(reasons.values())}. Install uv on the controller "
        f"(pip install uv), or pip on the host ({host.get('install_pip') or 'with its package manager'})."
    )


def find_uv() -> Path | None:
    """Return the controller's uv: beside the Python that runs Ansible, on PATH, or where its installer puts it."""
    on_path = os.environ.get("PATH", "").split(os.pathsep)
    places = [sysconfig.get_path("scripts"), *on_path, str(Path.home() / ".local" / "bin")]
    # An empty or relative one would be the folder that the playbook is run in.
    found = shutil.which("uv", path=os.pathsep.join(place for place in places if Path(place).is_absolute()))
    return Path(found).resolve() if found else None


def why_uv_does_not_suit(uv: Path, host: Mapping[str, str]) -> str:
    """Return why a uv of the controller cannot run on a host; empty when it should."""
    here = (platform.system(), platform.machine())
    if (host["system"], host["machine"]) != here:
        return f"its uv is for {' '.join(here)}, the host is {host['system']} {host['machine']}"
    with uv.open("rb") as file:
        head = file.read(4096)  # names the program that loads it; platform.libc_ver would read all of it, on every host
    if head.startswith(b"#!"):
        return f"its uv ({uv}) is a script"
    needed = "glibc" if re.search(rb"/ld(-linux|64)[\w.-]*\0", head) else "musl" if b"/ld-musl-" in head else ""
    if needed and needed != host["libc"]:
        return f"its uv needs {needed}, the host has {host['libc'] or 'another C library'}"
    return ""


def download_uv(host: Mapping[str, str], folder: Path) -> Path | None:
    """Return the uv for a host of another kind than the controller, from the package index; None without one."""
    wheel = None
    for tag in _uv_tags(host):
        wheel = wheel or _download("uv", folder, "--platform", tag)
    if wheel is None:
        return None
    with zipfile.ZipFile(wheel) as archive:
        programs = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
        for name in programs[:1]:
            (folder / "uv").write_bytes(archive.read(name))
            return folder / "uv"
    return None


def _uv_tags(host: Mapping[str, str]) -> list[str]:
    """Return the platforms in the names of the wheels of uv that run on a host, the likeliest first."""
    machine = host["machine"]
    if host["system"] == MACOS:
        return ["macosx_11_0_arm64"] if machine == "arm64" else [f"macosx_10_12_{machine}"]
    if host["libc"] == "musl":
        return [f"musllinux_1_1_{machine}"]
    return [f"manylinux_2_{number}_{machine}" for number in (17, 28, 31)] if host["system"] == LINUX else []


def find_pip_wheel(python: str, folder: Path, may_download: bool = True) -> Path | None:
    """Return a wheel of pip for a version of Python: one that comes with a Python here, or else a downloaded one."""
    for place in _places_of_wheels():
        for wheel in sorted(place.glob("pip-*.whl"), reverse=True):
            if supports_python(wheel, python):
                return wheel
    release = ".".join(python.split(".")[:2])
    return _download("pip", folder, "--python-version", release) if may_download else None


def _download(package: str, folder: Path, *options: str) -> Path | None:
    """Return the newest wheel of a package from the controller's index; None where there is none."""
    command = [sys.executable, "-c", _PIP, "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [*options, "--dest", str(folder), package]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_DOWNLOAD_TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(folder.glob(f"{package}-*.whl"), None)


def _places_of_wheels() -> Iterator[Path]:
    yield Path(sysconfig.get_path("stdlib"), "ensurepip", "_bundled")
    yield Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels")
    yield Path("/usr/share/python-wheels")


def supports_python(wheel: Path, python: str) -> bool:
    """Return whether a wheel says that it runs on a version of Python, and holds all that it needs."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # comes with ansible-core, not with Python

    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
            required = HeaderParser().parsestr(archive.read(metadata).decode())["Requires-Python"]
        # Debian keeps what its pip needs in wheels of their own.
        return "pip/_vendor/packaging/__init__.py" in names and (not required or python in SpecifierSet(required))
    except (OSError, StopIteration, ValueError, zipfile.BadZipFile, InvalidSpecifier):
        return False


def pack_wheels(folders: Iterable[Path], host: Mapping[str, str], archive: Path) -> Path:
    """Pack what a host may need out of folders of wheels into one archive, and return it.

    One file, because each file that is transferred costs a round trip.

    Raises:
        CaveError: there is nothing for this host.
    """
    folders = list(folders)
    count = 0
    with tarfile.open(archive, "w") as packed:
        for folder in folders:
            files = [folder] if folder.is_file() else sorted(folder.iterdir())
            for file in files:
                if file.is_file() and file.name.endswith(_ARCHIVES) and may_serve(file.name, host):
                    packed.add(file, arcname=file.name)
                    count += 1
    if not count:
        raise CaveError(
            f"find_links: there is no wheel for Python {host['python']} on {host['machine']} in "
            f"{', '.join(map(str, folders))}. Fill it with 'pip download caveclient'."
        )
    return archive


def may_serve(name: str, host: Mapping[str, str]) -> bool:
    """Return whether a file in a folder of wheels may be needed on a host; in doubt, it may.

    Args:
        name: the file's name.
        host: the host's system, machine and python, as the module returns them.
    """
    tags = name[: -len(".whl")].split("-") if name.endswith(".whl") else []
    if len(tags) < 5:
        return True
    pythons, abis, platforms = (tag.split(".") for tag in tags[-3:])
    release = "".join(host["python"].split(".")[:2])
    suits_python = "abi3" in abis or any(
        tag == f"cp{release}" or not re.fullmatch(r"cp\d+|pp\d+", tag) for tag in pythons
    )
    machines = (f"_{host['machine']}", *(("_universal2",) if host["system"] == MACOS else ()))
    suits_machine = "any" in platforms or any(
        tag.endswith(machines) and tag.startswith(_system_tags(host["system"])) for tag in platforms
    )
    return suits_python and suits_machine


def _system_tags(system: str) -> tuple[str, ...]:
    return {LINUX: ("manylinux", "musllinux", "linux"), MACOS: ("macosx",)}.get(system, ("",))
