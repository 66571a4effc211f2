# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of what is tested with what, what says the same elsewhere, and what came of its last run."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
import yaml
from images import rootfs
from matrix import platforms, result
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from support_matrix import CORES, DEBIAN, PYTHONS, ROOT, TESTING

VERSIONS = [Version(version) for version in CORES]


def test_requires_ansible_takes_every_ansible_core_of_the_list_and_none_before_it() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    required = SpecifierSet(runtime["requires_ansible"])
    oldest = VERSIONS[0]

    assert [version for version in VERSIONS if version not in required] == []
    assert f"{oldest.major}.{oldest.minor - 1}.99" not in required
    assert VERSIONS == [Version(f"{oldest.major}.{oldest.minor + number}") for number in range(len(VERSIONS))]


def test_the_locks_are_those_of_the_list() -> None:
    assert {path.name for path in (ROOT / "requirements").glob("ansible-core-*.txt")} == {
        core.requirements.name for core in CORES.values()
    }
    for core in CORES.values():
        text = core.requirements.read_text(encoding="utf-8")
        (locked,) = re.findall(r"^ansible-core==(\S+)", text, re.MULTILINE)
        assert locked.rpartition(".")[0] == core.version


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
    assert [release for release in [*DEBIAN, *TESTING] if f"({release})" not in text] == []
    assert [python for python in TESTING.values() if f"*Python {python} on hosts*" not in text] == []
    assert rootfs.RELEASES == DEBIAN


def test_the_last_run_was_of_the_whole_list_as_it_is_locked_and_all_green() -> None:
    kept = result.load(result.KEPT)
    text = result.README.read_text(encoding="utf-8")

    assert list(result.faults(kept)) == []
    assert result.with_table(text, kept) == text
    for core in CORES.values():
        assert f"\nansible-core=={kept[core.version].version} " in core.requirements.read_text(encoding="utf-8")


def test_no_platform_is_claimed_without_a_run() -> None:
    text = platforms.PAGE.read_text(encoding="utf-8")
    kept = result.load(result.KEPT)
    ran = platforms.runs()

    assert platforms.with_table(text, kept, ran) == text
    assert set(ran) <= set(platforms.in_workflow())
    assert all(address.startswith("https://") and "/actions/runs/" in address for address in ran.values())
    words = {name: word for name, word, _how in platforms.rows(kept, {"Fedora 42": "https://x/actions/runs/1"})}
    assert words["Fedora 42"] == f"`{platforms.BY_WORKFLOW} <https://x/actions/runs/1>`__"
    assert words["macOS 14"] == words["Ubuntu 24.04"] == words["Ubuntu in WSL 2"] == platforms.NOT_RUN
    assert words["Debian trixie"] == platforms.PROVEN
    kept[next(iter(CORES))].cells["trixie-3.9"] = "rotate: failed=1"
    words = {name: word for name, word, _how in platforms.rows(kept, {})}
    assert (words["Debian trixie"], words["Debian bookworm"]) == (platforms.NOT_RUN, platforms.PROVEN)


def test_workflows_call_sessions_that_there_are() -> None:
    sessions = {name.replace("_", "-") for name in re.findall(r"^def (\w+)\(", (ROOT / "noxfile.py").read_text(), re.M)}
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for called in re.findall(r"nox --session ([\w -]+?)(?: --(?: |$)|$)", workflow.read_text(), re.MULTILINE):
            assert set(called.split()) <= sessions, workflow.name


def test_a_failure_a_gap_and_a_cell_that_did_not_run_are_faults() -> None:
    core = list(CORES)[1]
    spoilt = deepcopy(result.load(result.KEPT))
    spoilt[core].cells["bookworm-3.12"] = "rotate: failed=1"
    spoilt[core].cells["trixie-3.13"] = result.NO_PYTHON
    del spoilt[core].cells["bullseye-3.9"]
    spoilt[core].sanity = ""
    del spoilt[next(iter(CORES))]

    assert sorted(result.faults(spoilt)) == [
        f"ansible-core {next(iter(CORES))}: not run",
        f"ansible-core {core}, bookworm, Python 3.12: rotate: failed=1",
        f"ansible-core {core}, bullseye, Python 3.9: not run",
        f"ansible-core {core}, trixie, Python 3.13: no such Python on this machine",
        f"ansible-core {core}: sanity: not run",
    ]
