# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of what is tested with what, what says the same elsewhere, and what came of its last run."""

from __future__ import annotations

import re

import yaml
from matrix import platforms, result
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from support_matrix import CORES, ROOT

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


def test_workflows_call_sessions_that_there_are() -> None:
    sessions = {name.replace("_", "-") for name in re.findall(r"^def (\w+)\(", (ROOT / "noxfile.py").read_text(), re.M)}
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for called in re.findall(r"nox --session ([\w -]+?)(?: --(?: |$)|$)", workflow.read_text(), re.MULTILINE):
            assert set(called.split()) <= sessions, workflow.name
