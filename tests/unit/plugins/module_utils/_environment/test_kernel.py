# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment.kernel import (
    belongs_to,
    kernel_content,
    kernel_file,
    read_kernel,
    remove_kernel,
    write_kernel,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

PYTHON = "/opt/caveclient/current/bin/python"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return kernel_file(str(tmp_path / "jupyter"))


def test_what_is_in_the_way_of_a_kernel_is_named_before_it_is_written(file: Path) -> None:
    assert read_kernel(file) == {}
    file.mkdir(parents=True)
    with pytest.raises(CaveError, match=r"kernel\.json is a directory, where a file was expected"):
        read_kernel(file)


def test_the_kernel_is_named_cave(file: Path) -> None:
    assert file.parts[-3:] == ("kernels", "cave", "kernel.json")


def test_a_kernel_is_read_as_it_was_written(file: Path) -> None:
    content = kernel_content(PYTHON, "CAVE (Zürich)")

    write_kernel(file, content)

    assert read_kernel(file) == content
    assert belongs_to(file, PYTHON)
    assert [path.name for path in file.parent.iterdir()] == ["kernel.json"]


def test_everybody_may_read_the_kernel_whatever_the_umask(file: Path) -> None:
    file.parent.mkdir(parents=True)
    umask = os.umask(0o077)
    try:
        write_kernel(file, kernel_content(PYTHON, "CAVE"))
    finally:
        os.umask(umask)

    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_kernel_that_nobody_else_can_read_counts_as_missing(file: Path) -> None:
    write_kernel(file, kernel_content(PYTHON, "CAVE"))
    file.chmod(0o600)

    assert read_kernel(file) == {}


def test_a_link_in_its_place_is_replaced_not_followed(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir(parents=True)
    (tmp_path / "other").write_text("keep")
    file.symlink_to(tmp_path / "other")
    (file.parent / ".kernel.json.new").symlink_to(tmp_path / "other")

    write_kernel(file, kernel_content(PYTHON, "CAVE"))

    assert not file.is_symlink()
    assert (tmp_path / "other").read_text() == "keep"


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{", '{"argv": []}', '{"argv": "x"}', '{"argv": ["/usr/bin/python3"]}']
)
def test_a_kernel_of_somebody_else_does_not_belong_to_us(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)

    assert not belongs_to(file, PYTHON)


def test_removing_takes_the_folder_along_unless_it_holds_something_else(file: Path) -> None:
    write_kernel(file, kernel_content(PYTHON, "CAVE"))
    remove_kernel(file)
    assert not file.parent.exists()

    write_kernel(file, kernel_content(PYTHON, "CAVE"))
    (file.parent / "logo.png").touch()
    remove_kernel(file)
    assert [path.name for path in file.parent.iterdir()] == ["logo.png"]
