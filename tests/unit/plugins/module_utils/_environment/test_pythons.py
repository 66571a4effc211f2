# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pythons as _pythons
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import (
    Python,
    choose_python,
    installs_on,
    numbers,
    probe,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import System


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def bare(tmp_path: Path, **more: object) -> Python:
    """Return a Python that has nothing beside itself."""
    facts = {
        "executable": sys.executable,
        "version": "3.11.2",
        "base": sys.executable,
        "has_venv": True,
        "lacks_distutils": False,
        "is_venv": False,
        "externally_managed": False,
        "has_pip": False,
        "pips": (),
        "site_packages": str(tmp_path),
        "prefix": str(tmp_path),
    }
    return Python(**{**facts, **more})  # type: ignore[arg-type]  # passed on


def test_a_python_says_what_it_is() -> None:
    python = probe(sys.executable)

    assert python is not None
    assert python.version == ".".join(map(str, sys.version_info[:3]))
    assert python.release == sys.version_info[:2]
    assert python.base == os.path.realpath(sys.executable)
    assert python.has_venv


@pytest.mark.parametrize("script", ["exit 1", "echo hello", "echo '[]'", "echo '{}'"])
def test_what_is_no_python_is_none(tmp_path: Path, script: str) -> None:
    assert probe(str(program(tmp_path / "python", script))) is None


@pytest.mark.parametrize(
    ("python", "version", "fits"),
    [
        ((3, 9), "", True),
        ((3, 13), "8.2.1", True),
        ((3, 8), "", False),
        ((3, 8), "8.2.1", False),
        ((3, 8), "7.3.2", False),
        ((3, 8), "7.3.1", True),
        ((3, 8), "5.4.0", True),
    ],
)
def test_an_old_python_gets_an_old_release_only_when_that_was_asked_for(
    python: tuple[int, int], version: str, fits: bool
) -> None:
    assert installs_on(python, version) is fits


def fake_pythons(monkeypatch: pytest.MonkeyPatch, folder: Path, *versions: str) -> None:
    """Put Pythons that only say which they are on the PATH, and nothing else."""
    for version in versions:
        program(folder / f"python{version.rpartition('.')[0]}", "")
    monkeypatch.setattr(_processes, "_FURTHER_FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))
    found = {f"python{version.rpartition('.')[0]}": version for version in versions}
    monkeypatch.setattr(
        _pythons,
        "probe",
        lambda path: bare(folder, executable=path, base=path, version=found.get(Path(path).name, "3.11.7")),
    )


def test_the_python_that_runs_the_module_is_taken_when_none_is_named() -> None:
    assert choose_python("", "").executable == sys.executable


def test_an_old_python_looks_for_the_newest_on_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18", "3.9.2", "3.12.1")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    assert choose_python("", "").version == "3.12.1"


def test_an_old_python_without_a_newer_one_is_refused_and_the_silent_release_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    with pytest.raises(CaveError, match=r"without a word\); this host's Python is 3\.8, and it has no newer one"):
        choose_python("", "")
    with pytest.raises(CaveError, match=r"caveclient 8\.2\.1 needs Python 3\.9 or later"):
        choose_python("", "8.2.1")


def test_an_old_python_serves_an_old_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.12.1")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    assert choose_python("", "7.3.1").executable == sys.executable


def test_a_python_is_found_by_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.9.2", "3.12.1")

    monkeypatch.setattr(_pythons, "this_system", lambda: System(family="debian"))

    assert choose_python("3.12", "").version == "3.12.1"
    assert choose_python("3.12.1", "").version == "3.12.1"
    with pytest.raises(CaveError, match=r"no Python 3\.1 on its PATH"):
        choose_python("3.1", "")
    with pytest.raises(CaveError, match=r"apt-get install python3\.12\)"):
        choose_python("3.12.4", "")


def test_a_program_that_is_no_python_does_not_hide_one_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A version manager's shim is first on many PATHs, and runs only where its user chose that version."""
    shims, real = tmp_path / "shims", tmp_path / "bin"
    shims.mkdir()
    real.mkdir()
    program(shims / "python3.12", "echo 'version 3.12 is not installed' >&2; exit 127")
    fake_pythons(monkeypatch, real, "3.12.1")
    pretend = _pythons.probe
    monkeypatch.setattr(_pythons, "probe", lambda path: None if Path(path).parent == shims else pretend(path))
    monkeypatch.setenv("PATH", f"{shims}:{real}")

    assert choose_python("3.12", "").executable == str(real / "python3.12")


@pytest.mark.parametrize("others", [True, False])
def test_a_python_that_others_can_change_is_passed_over_and_named_where_it_is_the_only_one(
    others: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ansible may run by a user's own Python, or on a Mac by that of Homebrew."""
    fake_pythons(monkeypatch, tmp_path, *(["3.12.1"] if others else []))
    said = f"{sys.executable} belongs to ann"
    monkeypatch.setattr(_pythons, "_changeable", lambda python: said if python == sys.executable else "")
    if others:
        assert choose_python("", "").version == "3.12.1"
    else:
        with pytest.raises(CaveError, match=r"belongs to ann, so root does not run .* is no other Python"):
            choose_python("", "")


def test_an_old_python_that_was_named_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18")

    with pytest.raises(CaveError, match=r"python3\.8 is Python 3\.8\.18"):
        choose_python("3.8", "")
    assert choose_python("3.8", "5.4.0").version == "3.8.18"


def test_a_path_that_is_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaveError, match="is not a Python that runs on this host"):
        choose_python(str(tmp_path / "python3"), "")


@pytest.mark.parametrize(("version", "found"), [("8.2.1", (8, 2, 1)), ("8.3.0rc1", (8, 3, 0)), ("", ()), ("x1", ())])
def test_the_numbers_of_a_version(version: str, found: tuple[int, ...]) -> None:
    assert numbers(version) == found
