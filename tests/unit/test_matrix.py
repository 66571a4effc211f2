# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of what is tested with what, and what says the same elsewhere."""

from __future__ import annotations

import re

import pytest
import support_matrix
import yaml
from images import rootfs
from lab import recap
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from support_matrix import CORES, DEBIAN, PYTHONS, ROOT, Cell

VERSIONS = [Version(version) for version in CORES]


def test_requires_ansible_takes_every_ansible_core_of_the_list_and_none_before_it() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    required = SpecifierSet(runtime["requires_ansible"])
    oldest = VERSIONS[0]

    assert [version for version in VERSIONS if version not in required] == []
    assert f"{oldest.major}.{oldest.minor - 1}.99" not in required


def test_the_list_leaves_no_ansible_core_out() -> None:
    oldest = VERSIONS[0]
    assert VERSIONS == [Version(f"{oldest.major}.{oldest.minor + number}") for number in range(len(VERSIONS))]


@pytest.mark.parametrize("core", CORES)
def test_each_ansible_core_is_locked_as_itself(core: str) -> None:
    locked = re.findall(r"^ansible-core==(\S+)", CORES[core].requirements.read_text(encoding="utf-8"), re.MULTILINE)
    assert [version.rpartition(".")[0] for version in locked] == [core]


@pytest.mark.parametrize("core", CORES)
def test_each_ansible_core_runs_on_a_python_that_it_supports(core: str) -> None:
    assert CORES[core].run_on in CORES[core].controller


def test_no_lock_is_left_of_an_ansible_core_that_went_from_the_list() -> None:
    locks = {path.name for path in (ROOT / "requirements").glob("ansible-core-*.txt")}
    assert locks == {core.requirements.name for core in CORES.values()}


@pytest.mark.parametrize("path", ["README.md", "docs/docsite/rst/platforms.rst", "docs/docsite/rst/provision.rst"])
def test_guides_name_no_ansible_core_that_is_not_in_the_list(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\d.])2\.(?:1[5-9]|2\d)(?![\d])", text))

    assert named <= set(CORES)
    assert next(iter(CORES)) in named


def test_the_guide_to_platforms_names_the_whole_list() -> None:
    text = (ROOT / "docs" / "docsite" / "rst" / "platforms.rst").read_text(encoding="utf-8")

    assert f"ansible-core {', '.join(CORES)}" in text
    assert f"{PYTHONS[0]} to {PYTHONS[-1]} for the modules" in text
    assert [release for release in DEBIAN if f"({release})" not in text] == []


def test_the_list_and_the_root_file_systems_have_the_same_debians() -> None:
    assert rootfs.RELEASES == DEBIAN
    assert set(DEBIAN.values()) <= set(PYTHONS)


def test_every_combination_is_a_cell() -> None:
    every = [cell for core in CORES.values() for cell in support_matrix.cells(core)]
    assert len(set(every)) == len(every) == len(CORES) * len(DEBIAN) * len(PYTHONS)


def test_the_diagonal_has_every_ansible_core_python_and_debian_and_only_what_is_supported() -> None:
    cells = support_matrix.diagonal()

    assert {cell.core for cell in cells} == set(CORES)
    assert {cell.python for cell in cells} == set(PYTHONS)
    assert {cell.debian for cell in cells} == set(DEBIAN)
    assert all(map(support_matrix.supported, cells))
    assert len(cells) <= max(len(CORES), len(PYTHONS))


def test_python_3_8_is_no_managed_python_since_ansible_core_2_20() -> None:
    found = {core: support_matrix.supported(Cell(core, "bookworm", "3.8")) for core in ("2.17", "2.19", "2.20")}
    assert found == {"2.17": True, "2.19": True, "2.20": False}


def test_a_host_of_a_failed_run_is_read_from_its_recap() -> None:
    output = (
        "ok: [a]\nPLAY RECAP ****\n"
        "a-3.9   : ok=4    changed=2    unreachable=0    failed=1    skipped=0    rescued=0    ignored=0   \n"
    )
    assert recap(output)["a-3.9"]["failed"] == 1
    assert recap("ERROR! no such playbook\n") == {}
