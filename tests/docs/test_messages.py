# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide on troubleshooting has a section for whatever can go wrong, with the words that the programs really say."""

from __future__ import annotations

import re

import pytest
from ansible_run import ROOT

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import KNOWN_LOCAL_SERVERS
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import VERDICTS
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import PROBLEMS
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.command import without_command
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.remedies import _HOST_REMEDIES
from docs import problem_samples, verdict_samples

RST = ROOT / "docs" / "docsite" / "rst"
GUIDE = (RST / "troubleshoot.rst").read_text(encoding="utf-8")


def sections(under: str) -> dict[str, str]:
    """Return the sections below a heading of the guide, by title, with white space squeezed."""
    part = re.split(
        r"^.+\n-{3,}$", GUIDE.partition(f"\n{under}\n---")[2].partition("\n\n")[2], maxsplit=1, flags=re.MULTILINE
    )[0]
    pieces = re.split(r"^(\w+)\n\^+$", part, flags=re.MULTILINE)
    return {title: " ".join(text.split()) for title, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def test_every_verdict_has_its_section_in_the_order_of_the_list() -> None:
    assert tuple(sections("Verdicts")) == VERDICTS


def test_every_problem_has_its_section_the_most_harmful_first() -> None:
    assert tuple(sections("Problems, by code")) == tuple(PROBLEMS)


def test_there_is_a_sample_of_each() -> None:
    assert {sample.verdict for sample in verdict_samples.samples()} == set(VERDICTS)
    assert {sample.code for sample in problem_samples.samples()} == set(PROBLEMS)


@pytest.mark.parametrize("sample", verdict_samples.samples(), ids=lambda sample: sample.verdict)
def test_a_verdicts_section_has_the_message_that_is_really_said(sample: verdict_samples.Verdict) -> None:
    section = sections("Verdicts")[sample.verdict]
    assert sample.message in section


@pytest.mark.parametrize("verdict", [verdict for verdict in VERDICTS if verdict != "ok"])
def test_a_verdicts_section_has_a_remedy_that_is_really_said(verdict: str) -> None:
    remedies = {sample.remedy for sample in verdict_samples.samples() if sample.verdict == verdict}
    assert [remedy for remedy in remedies if f"-> {remedy}" in sections("Verdicts")[verdict]]


REMEDIES = {
    *(sample.remedy for sample in verdict_samples.samples()),
    *(sample.remedy for sample in problem_samples.samples()),
    *(remedy for _pattern, remedy in _HOST_REMEDIES),
}


@pytest.mark.parametrize("remedy", sorted(REMEDIES))
def test_a_command_or_address_is_the_last_thing_of_a_remedy_and_can_be_copied(remedy: str) -> None:
    sentence, command = without_command(remedy)
    assert not re.search(r"\b(ansible-playbook|curl|getent|kubectl|ssh|ssh-keygen|ssh-copy-id|sudo -u) \S", sentence)
    assert not command.endswith(".")
    assert not re.search(r"https?://\S+ [A-Z]", remedy)


@pytest.mark.parametrize("sample", problem_samples.samples(), ids=lambda sample: sample.code)
def test_a_problems_section_has_message_and_remedy_that_are_really_said(sample: problem_samples.Problem) -> None:
    section = sections("Problems, by code")[sample.code]
    assert f"{sample.message} -> {sample.remedy}" in section
    assert PROBLEMS[sample.code] in section


def test_the_deployments_in_the_facts_are_those_that_the_collection_knows() -> None:
    facts = (RST / "cave_facts.rst").read_text(encoding="utf-8")
    table = facts.partition("Public deployments\n")[2].partition("\n\nThe local server")[0]
    known = {
        (server, stack, local) for server, stacks in KNOWN_LOCAL_SERVERS.items() for stack, local in stacks.items()
    }
    rows = [re.findall(r"``([^`]+)``", row) for row in table.split("* - ")[2:]]
    assert {(row[0], stack, row[-1]) for row in rows for stack in row[1:-1]} == known
