# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import stub_wheels

from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import (
    RECORD,
    Shortfall,
    ask_environment,
    installed_packages,
    make_record,
    provided_extras,
    read_record,
    reasons_to_install,
    same_release,
    shortfall,
    site_packages_of,
    write_record,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Request, parse_request

HAVE = {"caveclient": "8.2.1", "packaging": "25.0", "numpy": "2.3.5"}


def request(version: str = "", *, kernel: bool = False, python: str = "", **lists: list[str]) -> Request:
    """Return a request as the module would make it."""
    words = {"extras": [], "packages": [], "constraints": [], **lists}
    return parse_request(version, words["extras"], words["packages"], words["constraints"], python, kernel)


def record_of(asked: Request, packages: dict[str, str] | None = None) -> dict[str, Any]:
    return make_record(asked, "3.11.2", "/usr/bin/python3.11", "uv 0.9.5", packages or HAVE)


@pytest.fixture
def python(tmp_path: Path) -> tuple[str, Path]:
    """An environment's Python that has packaging and stubs, and the folder of its packages."""
    site_packages = tmp_path / "site-packages"
    for wheel in sorted(stub_wheels.lab(tmp_path / "wheels", "8.2.1").glob("*.whl")):
        if not wheel.name.startswith(("numpy-1", "matplotlib", "cloud_volume")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site_packages)
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\nexec {sys.executable} -S -c "
        f'"import sys; sys.path.insert(0, {str(site_packages)!r}); exec(sys.argv.pop())" "$@"\n'
    )
    script.chmod(0o755)
    return str(script), site_packages


# --- What is there ---


def test_packages_are_read_from_the_names_of_their_metadata(tmp_path: Path) -> None:
    for name in (
        "numpy-2.3.5.dist-info",
        "jupyter_client-8.6.0.dist-info",
        "old-1.0-py3.9.egg-info",
        "caveclient",
        "x.py",
    ):
        (tmp_path / name).mkdir()

    assert installed_packages(tmp_path) == {"numpy": "2.3.5", "jupyter-client": "8.6.0", "old": "1.0"}


@pytest.mark.parametrize("name", ["caveclient-8.2.1.dist-info", "CAVEclient-5.4.0.dist-info"])
def test_an_installation_that_was_cut_short_does_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert installed_packages(tmp_path) == {}

    (tmp_path / name / "RECORD").touch()
    assert installed_packages(tmp_path) == {"caveclient": name.split("-")[1].removesuffix(".dist")}


def test_no_folder_is_no_packages(tmp_path: Path) -> None:
    assert installed_packages(tmp_path / "gone") == {}


def test_extras_are_read_from_the_metadata(python: tuple[str, Path], tmp_path: Path) -> None:
    assert provided_extras(python[1]) == {"cv"}
    assert provided_extras(tmp_path / "gone") == set()


def test_the_folder_of_packages_is_that_of_the_python(tmp_path: Path) -> None:
    assert site_packages_of(tmp_path, "3.11.2") == tmp_path / "lib" / "python3.11" / "site-packages"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = record_of(request(">=8", extras=["cv"], packages=["numpy"], python="3.11"))

    write_record(tmp_path, record)

    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"request": []}',
        json.dumps({**record_of(Request()), "packages": []}).encode(),
        json.dumps({**record_of(Request()), "python": None}).encode(),
        json.dumps({**record_of(Request()), "request": {"version": ""}}).encode(),
    ],
)
def test_a_damaged_record_makes_an_environment_unfinished(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)

    assert read_record(tmp_path) == {}


# --- Whether it is what was asked for ---


@pytest.mark.parametrize("version", ["", "8.2.1", "==8.2.1"])
def test_what_is_there_needs_no_question(version: str) -> None:
    assert shortfall(request(version), {}, HAVE) == Shortfall()


def test_another_exact_version_is_certainly_not_it() -> None:
    assert shortfall(request("8.2.0"), record_of(request()), HAVE).reasons == (
        "caveclient 8.2.1 is installed, 8.2.0 is asked for",
    )


def test_nothing_installed_is_certainly_not_it() -> None:
    assert shortfall(request(), record_of(request()), {"numpy": "2"}).reasons == ("caveclient is not installed",)


def test_a_request_that_was_recorded_needs_no_question() -> None:
    asked = request(">=8,<9", extras=["cv"], packages=["numpy>=2"], constraints=["packaging<26"])

    assert shortfall(asked, record_of(asked), HAVE) == Shortfall()


def test_another_spelling_of_an_exact_version_is_believed_when_it_was_recorded() -> None:
    asked = request("8.2.1.post0")

    assert shortfall(asked, record_of(asked), HAVE) == Shortfall()
    assert shortfall(asked, record_of(request()), HAVE).reasons


def test_asking_for_less_than_is_there_changes_nothing() -> None:
    record = record_of(request("", extras=["cv"], packages=["numpy"], constraints=["numpy<3"]))

    assert shortfall(request(), record, HAVE) == Shortfall()


def test_what_was_never_recorded_is_a_question() -> None:
    asked = request(">=8", extras=["cv"], packages=["numpy>=2"], constraints=["packaging<26"])

    assert shortfall(asked, {}, HAVE) == Shortfall(
        questions=("caveclient>=8", "caveclient[cv]", "numpy>=2"), constraints=("packaging<26",)
    )


def test_a_record_no_longer_vouches_for_a_package_that_was_changed_since() -> None:
    asked = request(">=8", packages=["numpy>=2"])
    changed = {**HAVE, "numpy": "1.26.4"}

    assert shortfall(asked, record_of(asked), changed).questions == ("numpy>=2",)
    assert shortfall(asked, record_of(asked), {**HAVE, "caveclient": "7.0.0"}).questions == ("caveclient>=8",)


def test_a_package_that_was_removed_since_is_a_question() -> None:
    asked = request(packages=["numpy"])

    assert shortfall(asked, record_of(asked), {"caveclient": "8.2.1"}).questions == ("numpy",)


# --- Asking the environment itself ---


@pytest.mark.parametrize(
    ("missing", "reasons"),
    [
        (Shortfall(questions=("caveclient>=8", "numpy", "packaging")), []),
        (Shortfall(questions=("caveclient>=9",)), ["caveclient 8.2.1 is installed, >=9 is asked for"]),
        (Shortfall(questions=("matplotlib",)), ["matplotlib is not installed"]),
        (Shortfall(questions=("caveclient[cv]",)), ["cloud-volume is not installed"]),
        (Shortfall(questions=("numpy; sys_platform == 'win32'", "x; sys_platform == 'win32'")), []),
        (Shortfall(constraints=("numpy<2",)), ["numpy 2.3.5 is installed, <2 is asked for"]),
        (Shortfall(constraints=("scipy<2", "numpy<3")), []),
    ],
)
def test_the_environment_judges_what_was_never_recorded(
    python: tuple[str, Path], missing: Shortfall, reasons: list[str]
) -> None:
    assert ask_environment(python[0], missing, dict(os.environ)) == reasons


def test_a_package_from_a_url_is_not_taken_for_another(python: tuple[str, Path]) -> None:
    found = ask_environment(python[0], Shortfall(questions=("numpy @ https://lab.example/n.whl",)), dict(os.environ))

    assert found == ["numpy 2.3.5 is installed, nobody knows whether from https://lab.example/n.whl"]


def test_an_environment_that_cannot_judge_is_filled_anew(tmp_path: Path) -> None:
    reasons = ask_environment(str(tmp_path / "gone"), Shortfall(("x",), ("numpy",), ("scipy<2",)), dict(os.environ))

    assert len(reasons) == 2
    assert all("does not answer" in reason for reason in reasons)


def test_no_process_is_started_for_what_the_files_tell(
    python: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_processes.subprocess, "Popen", None)
    asked = request(">=8", packages=["numpy"])
    record = record_of(asked, installed_packages(python[1]))

    assert reasons_to_install(asked, record, python[1], python[0], {}) == []
    assert reasons_to_install(request("8.2.0"), record, python[1], python[0], {}) != []


def test_a_specifier_that_is_new_but_met_is_no_reason(python: tuple[str, Path]) -> None:
    record = record_of(request(), installed_packages(python[1]))

    assert reasons_to_install(request(">=8,<9"), record, python[1], python[0], dict(os.environ)) == []
    assert reasons_to_install(request("<8"), record, python[1], python[0], dict(os.environ)) == [
        "caveclient 8.2.1 is installed, <8 is asked for"
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"), [("8.2", "8.2.0", True), ("8.2", "8.20", False), ("8", "8.0.0", True)]
)
def test_trailing_zeros_make_no_other_release(one: str, other: str, same: bool) -> None:
    assert same_release(one, other) is same


def test_a_record_has_every_field_of_a_request() -> None:
    assert set(record_of(Request())["request"]) == set(Request._fields)
