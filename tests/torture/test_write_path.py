# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A selection of the attacks on the write path, short enough for every run of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torture import mutations, write_path
from torture.write_path import NEED_ROOT, NEED_STRACE

pytestmark = pytest.mark.slow

SCALES = {
    "never-readable": 1.0,
    "races": 0.02,
    "kill": 0.1,
    "faults": 0.02,
    "file-systems": 0.2,
    "together": 0.1,
    "malformed": 0.05,
}
FEWEST = {
    "never-readable": 100,
    "races": 200,
    "kill": 140,
    "faults": 160,
    "file-systems": 27,
    "together": 64,
    "malformed": 1000,
}


def _can_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", write_path.ATTACKS)
def test_no_attack_on_the_write_path_succeeds(name: str) -> None:
    if name in NEED_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    if name in NEED_STRACE and not shutil.which("strace"):
        pytest.skip("needs strace: make packages")
    if name == "file-systems" and not _can_mount():
        pytest.skip("this machine lets nobody mount")
    report = write_path.run(name, SCALES[name])
    assert report["failures"] == 0, report["notes"]
    assert report["tries"] >= FEWEST[name], report


@pytest.mark.network
def test_among_the_real_save_token_nothing_of_ours_is_torn(caveclient_python: Callable[..., Path]) -> None:
    report = write_path.run("together", 0.1, caveclient=caveclient_python())
    assert report["failures"] == 0, report["notes"]
    assert report["counts"]["ours done"] > 0


@pytest.mark.parametrize("name", mutations.SHORT)
def test_a_defect_in_the_write_path_is_noticed(name: str, tmp_path: Path) -> None:
    (found,) = mutations.run([name], tmp_path, sys.executable)
    assert found["caught_by"], found
