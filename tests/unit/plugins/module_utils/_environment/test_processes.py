# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import (
    Outcome,
    clean_environment,
    home_directory,
    in_use,
    run,
)


def test_the_home_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    assert home_directory({"HOME": str(tmp_path)}) == str(tmp_path)
    assert home_directory({"HOME": str(tmp_path / "gone")}) != str(tmp_path / "gone")
    assert home_directory({}) == home_directory({"HOME": "/nowhere"})


@pytest.mark.root
def test_the_home_that_sudo_left_is_not_used_by_root(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)

    assert home_directory({"HOME": str(tmp_path)}) == home_directory({})


def test_what_leads_other_packages_in_is_left_out(tmp_path: Path) -> None:
    misleading = [
        "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CONDA_PREFIX",
        "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_CONSTRAINT", "UV_SYSTEM_PYTHON",
        "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_CONSTRAINT",
    ]  # fmt: skip
    kept = {
        "PIP_INDEX_URL": "a",
        "UV_INDEX": "b",
        "https_proxy": "c",
        "SSL_CERT_FILE": "d",
        "UV_CACHE_DIR": str(tmp_path),
    }

    cleaned = clean_environment({**dict.fromkeys(misleading, "x"), **kept, "HOME": str(tmp_path)})

    assert cleaned.items() >= kept.items()
    assert not set(misleading) & set(cleaned)
    assert cleaned["PYTHONNOUSERSITE"] == "1"


def test_programs_are_found_although_sudo_strips_the_path() -> None:
    assert clean_environment({})["PATH"].split(":") == ["/usr/local/bin", "/usr/bin", "/bin"]
    assert clean_environment({"PATH": "/opt/bin:/usr/bin"})["PATH"] == "/opt/bin:/usr/bin:/usr/local/bin:/bin"


def test_a_process_runs_in_the_root_folder_with_its_environment_alone() -> None:
    outcome = run(
        ["/bin/sh", "-c", "pwd; echo $ONLY$HOME; cat; echo oops >&2; exit 3"], {"ONLY": "this"}, 10, text="in\n"
    )

    assert outcome == Outcome(3, "/\nthis\nin\n", "oops\n")


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pipe = tmp_path / "open for as long as one of them lives"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    started = time.monotonic()
    script = f"exec 3> '{pipe}'; echo begun >&3; sleep 120 & sleep 120"
    outcome = run(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}, 2)

    assert outcome.returncode is None
    os.set_blocking(reader, True)
    with os.fdopen(reader) as held:
        assert held.read() == "begun\n"  # to its end, which comes when the last of them is gone
    assert time.monotonic() - started < 60


def test_a_process_that_leaves_its_group_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_processes, "_LAST_WORDS", 0.3)
    started = time.monotonic()
    outcome = run(["setsid", "--fork", "/bin/sleep", "20"], {"PATH": os.environ["PATH"]}, 0.3)

    assert outcome.returncode is None
    assert time.monotonic() - started < 10


def test_a_process_in_a_folder_uses_it(tmp_path: Path) -> None:
    program = tmp_path / "build" / "bin" / "sleep"
    program.parent.mkdir(parents=True)
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    assert not in_use(tmp_path / "build")

    process = subprocess.Popen([program, "60"])
    try:
        # For a moment, a program that has just started has no command line yet.
        limit = time.monotonic() + 10
        while not in_use(tmp_path / "build") and time.monotonic() < limit:
            time.sleep(0.01)
        assert in_use(tmp_path / "build")
        assert not in_use(tmp_path / "buil")
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
def test_root_takes_nothing_from_places_that_others_can_write(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours):
        (folder / "uv").mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    names = ["UV_CACHE_DIR", "PIP_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "UV_CONFIG_FILE", "PIP_CONFIG_FILE"]
    names += ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LD_AUDIT", "BASH_ENV", "GIT_EXEC_PATH", "TEMP", "TMP", "NEW_ONE"]

    assert clean_environment(dict.fromkeys(names, str(ours))).items() >= dict.fromkeys(names, str(ours)).items()
    assert not set(names) & set(clean_environment(dict.fromkeys(names, str(theirs))))
    assert "XDG_CONFIG_DIRS" not in clean_environment({"XDG_CONFIG_DIRS": f"{ours}:{theirs}"})
    assert clean_environment({"PATH": f"{ours}:{theirs}:."})["PATH"].split(":")[:2] == [str(ours), "/usr/local/bin"]
    assert "TMPDIR" in clean_environment({"TMPDIR": "/tmp"})
    assert "TMPDIR" not in clean_environment({"TMPDIR": str(theirs)})
    assert clean_environment({"SSH_AUTH_SOCK": str(theirs)})["SSH_AUTH_SOCK"] == str(theirs)  # is talked to
    words = {"https_proxy": "http://proxy.lab.example:3128", "UV_HTTP_TIMEOUT": "30", "UV_NO_BINARY": ""}
    assert clean_environment(words).items() >= words.items()

    (ours / "uv").chmod(0o777)  # by an administrator who shared the cache once
    assert "UV_CACHE_DIR" not in clean_environment({"UV_CACHE_DIR": str(ours)})


def test_a_program_that_is_not_there_is_an_outcome_like_any_other() -> None:
    outcome = run(["/nowhere/uv"], {}, 1)

    assert outcome.returncode == 126
    assert "/nowhere/uv" in outcome.error
