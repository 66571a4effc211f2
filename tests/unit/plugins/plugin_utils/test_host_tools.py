# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import stub_wheels

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils import _host_tools
from ansible_collections.connectomics.cave.plugins.plugin_utils._host_tools import (
    find_pip_wheel,
    find_tool,
    find_uv,
    may_serve,
    pack_wheels,
    supports_python,
    why_uv_does_not_suit,
)

HOST = {"system": "Linux", "machine": "x86_64", "libc": "glibc", "python": "3.11.2"}
LIKE_THIS = {"system": platform.system(), "machine": platform.machine(), "libc": "glibc", "python": "3.11.2"}


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv of the controller, which is only looked at."""
    path = tmp_path / "bin" / "uv"
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF" + bytes(700) + b"/lib64/ld-linux-x86-64.so.2\0" + bytes(5000))
    path.chmod(0o755)
    monkeypatch.setattr(_host_tools, "find_uv", lambda: path)
    return path


def test_the_uv_beside_ansible_is_found_without_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible is often run by its full path, from an environment that nobody activated."""
    monkeypatch.setenv("PATH", "/nowhere")
    beside = Path(sys.executable).with_name("uv")

    assert find_uv() == (beside.resolve() if beside.exists() else None)


@pytest.mark.parametrize("path", ["", ":", ".", "bin", "/nowhere::bin"])
def test_the_folder_that_ansible_runs_in_has_no_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str) -> None:
    for folder in (tmp_path, tmp_path / "bin"):
        folder.mkdir(exist_ok=True)
        (folder / "uv").write_text("#!/bin/sh\n")
        (folder / "uv").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    found = find_uv()

    assert found is None or tmp_path not in found.parents


@pytest.mark.parametrize("name", ["pip/__main__.py", "pip.py", "runpy.py", "zipfile.py"])
def test_the_folder_that_ansible_runs_in_has_no_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """The playbook may be run in a folder in which others can write, such as /tmp."""
    here, index, folder = (tmp_path / part for part in ("here", "index", "folder"))
    for path in (here / "pip", index, folder):
        path.mkdir(parents=True)
    planted = here / "planted"
    (here / name).write_text(f"open({str(planted)!r}, 'w').close()\n")
    (here / "pip" / "__init__.py").touch()
    if name == "pip.py":
        shutil.rmtree(here / "pip")
    stub_wheels.wheel(index, "pip", "99.0", {"pip/__main__.py": ""})
    for variable, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(_host_tools, "_places_of_wheels", list)
    monkeypatch.chdir(here)

    found = find_pip_wheel("3.11.2", folder)

    assert not planted.exists()
    assert found is not None
    assert found.name.startswith("pip-99.0")


def test_uv_is_brought_to_a_machine_of_the_same_kind(uv: Path, tmp_path: Path) -> None:
    assert find_tool(["uv", "pip"], LIKE_THIS, tmp_path) == ("uv", uv)


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"machine": "riscv64"}, "the host is Linux riscv64"),
        ({"system": "Plan9"}, "the host is Plan9"),
        ({"libc": "musl"}, "its uv needs glibc, the host has musl"),
        ({"libc": ""}, "the host has another C library"),
    ],
)
def test_a_uv_that_cannot_run_there_is_not_brought(uv: Path, difference: dict[str, str], reason: str) -> None:
    assert why_uv_does_not_suit(uv, LIKE_THIS) == ""
    assert reason in why_uv_does_not_suit(uv, {**LIKE_THIS, **difference})


@pytest.mark.parametrize(
    ("loader", "libc"),
    [
        ("/lib64/ld-linux-x86-64.so.2", "glibc"),
        ("/lib/ld-linux-aarch64.so.1", "glibc"),
        ("/lib64/ld64.so.2", "glibc"),
        ("/lib/ld-musl-x86_64.so.1", "musl"),
        ("", None),
    ],
)
def test_a_uv_runs_where_the_c_library_is_that_it_was_linked_with(uv: Path, loader: str, libc: str | None) -> None:
    uv.write_bytes(b"\x7fELF" + bytes(700) + loader.encode() + bytes(5000))
    for other in ("glibc", "musl"):
        fits = why_uv_does_not_suit(uv, {**LIKE_THIS, "libc": other}) == ""
        assert fits == (libc in (None, other))


def test_a_script_that_starts_uv_is_not_brought(uv: Path) -> None:
    uv.write_text("#!/bin/sh\nexec /opt/uv/uv\n")

    assert "is a script" in why_uv_does_not_suit(uv, LIKE_THIS)


@pytest.mark.usefixtures("uv")
def test_pip_is_brought_when_uv_cannot_be(tmp_path: Path) -> None:
    kind, wheel = find_tool(["uv", "pip"], {**LIKE_THIS, "machine": "riscv64"}, tmp_path)

    assert kind == "pip"
    assert wheel.name.startswith("pip-")


def test_the_wheel_of_pip_runs_on_its_own(tmp_path: Path) -> None:
    wheel = find_pip_wheel("3.11.2", tmp_path)

    assert wheel is not None
    said = subprocess.run([sys.executable, f"{wheel}/pip", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("pip ")


def test_a_controller_with_nothing_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_host_tools, "find_uv", lambda: None)
    monkeypatch.setattr(_host_tools, "_places_of_wheels", list)
    monkeypatch.setattr(_host_tools, "_download", lambda *_arguments: None)

    with pytest.raises(CaveError) as caught:
        find_tool(["uv", "pip"], {**HOST, "install_pip": "brew install uv"}, tmp_path)

    assert "or pip on the host (brew install uv)" in caught.value.message
    assert "lacks uv and pip" in caught.value.message
    assert "the controller has no uv, and the controller has no wheel of pip for Python 3.11.2" in caught.value.message
    assert "pip install uv" in caught.value.message


@pytest.mark.usefixtures("uv")
@pytest.mark.parametrize(
    ("system", "machine", "libc", "tag"),
    [
        ("Darwin", "arm64", "", "macosx_11_0_arm64"),
        ("Darwin", "x86_64", "", "macosx_10_12_x86_64"),
        ("Linux", "aarch64", "glibc", "manylinux_2_17_aarch64"),
        ("Linux", "riscv64", "glibc", "manylinux_2_31_riscv64"),
        ("Linux", "x86_64", "musl", "musllinux_1_1_x86_64"),
        ("Plan9", "x86_64", "", ""),
    ],
)
def test_a_host_of_another_kind_gets_a_uv_of_its_own_kind(
    system: str, machine: str, libc: str, tag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the index has it: a wheel that was never installed here."""

    def index(package: str, folder: Path, *options: str) -> Path | None:
        if (package, options) != ("uv", ("--platform", tag)):
            return None
        return stub_wheels.wheel(folder, "uv", "1.0", {"uv-1.0.data/scripts/uv": f"for {tag}"})

    monkeypatch.setattr(_host_tools, "_places_of_wheels", list)
    monkeypatch.setattr(_host_tools, "_download", index)
    host = {"system": system, "machine": machine, "libc": libc, "python": "3.11.2"}
    if tag:
        kind, program = find_tool(["uv", "pip"], host, tmp_path)
        assert (kind, program.name, program.read_text()) == ("uv", "uv", f"for {tag}")
    else:
        with pytest.raises(CaveError, match="The host lacks uv and pip"):
            find_tool(["uv", "pip"], host, tmp_path)


def test_wheels_for_every_mac_serve_one_of_them() -> None:
    mac = {**HOST, "system": "Darwin", "machine": "arm64"}
    assert may_serve("numpy-2.3.5-cp311-cp311-macosx_11_0_universal2.whl", mac)
    assert not may_serve("numpy-2.3.5-cp311-cp311-macosx_11_0_x86_64.whl", mac)
    assert not may_serve("numpy-2.3.5-cp311-cp311-macosx_11_0_universal2.whl", HOST)


@pytest.mark.parametrize(
    ("required", "python", "suits"),
    [(">=3.8", "3.11.2", True), (">=3.9", "3.8.18", False), ("nonsense", "3.11.2", False)],
)
def test_a_pip_that_is_too_new_for_the_host_is_not_brought(
    tmp_path: Path, required: str, python: str, suits: bool
) -> None:
    files = {"pip/__main__.py": "", "pip/_vendor/packaging/__init__.py": ""}
    wheel = stub_wheels.wheel(tmp_path, "pip", "99.0", files, requires_python=required)

    assert supports_python(wheel, python) is suits


def test_a_pip_without_what_it_needs_is_not_brought(tmp_path: Path) -> None:
    assert not supports_python(stub_wheels.wheel(tmp_path, "pip", "23.0", {"pip/__main__.py": ""}), "3.11.2")
    (tmp_path / "pip-1.whl").write_text("no archive")
    assert not supports_python(tmp_path / "pip-1.whl", "3.11.2")
    with zipfile.ZipFile(tmp_path / "pip-2.whl", "w") as archive:
        archive.writestr("x", "")
    assert not supports_python(tmp_path / "pip-2.whl", "3.11.2")


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("caveclient-8.2.1-py3-none-any.whl", True),
        ("old-1.0-py2.py3-none-any.whl", True),
        ("numpy-2.3.5-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.3.5-cp311-cp311-musllinux_1_2_x86_64.whl", True),
        ("h5py-3.16.0-cp39-abi3-manylinux_2_28_x86_64.whl", True),
        ("tool-1.0-1-py3-none-manylinux2014_x86_64.whl", True),
        ("sdist-1.0.tar.gz", True),
        ("odd.whl", True),
        ("numpy-2.3.5-cp313-cp313-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.3.5-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("numpy-2.3.5-cp311-cp311-win_amd64.whl", False),
        ("numpy-2.3.5-cp311-cp311-macosx_14_0_x86_64.whl", False),
        ("numpy-2.3.5-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
    ],
)
def test_wheels_of_other_kinds_of_machines_stay_where_they_are(name: str, serves: bool) -> None:
    assert may_serve(name, HOST) is serves


def test_the_wheels_of_several_folders_make_one_archive(tmp_path: Path) -> None:
    for name in ("a/x-1-py3-none-any.whl", "a/notes.txt", "b/y-1.tar.gz", "b/z-1-cp38-cp38-win32.whl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "folder.whl").mkdir()

    archive = pack_wheels([tmp_path / "a", tmp_path / "b"], HOST, tmp_path / "wheels.tar")

    with tarfile.open(archive) as packed:
        assert packed.getnames() == ["x-1-py3-none-any.whl", "y-1.tar.gz"]


def test_a_folder_without_a_wheel_for_the_host_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "z-1-cp38-cp38-win32.whl").touch()

    with pytest.raises(CaveError, match=r"no wheel for Python 3\.11\.2 on x86_64 in .*pip download"):
        pack_wheels([tmp_path], HOST, tmp_path / "wheels.tar")
