# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's variables are said once and agree everywhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import VERDICTS

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "caveclient"
OPTIONS: dict[str, dict[str, Any]] = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())[
    "argument_specs"
]["main"]["options"]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
TASKS = "\n".join(path.read_text() for path in sorted((ROLE / "tasks").glob("*.yml")))


def test_the_defaults_are_those_that_the_argument_specs_document() -> None:
    assert {name: option["default"] for name, option in OPTIONS.items() if "default" in option} == DEFAULTS


def test_every_variable_of_the_role_begins_with_its_name() -> None:
    assert [name for name in OPTIONS if not name.startswith("caveclient_")] == []


def test_every_documented_variable_is_used_and_every_used_one_is_documented() -> None:
    used = set(re.findall(r"(?<![_\w])caveclient_\w+", TASKS))
    listed = re.findall(r"__caveclient_variables:\n((?: +- \w+\n)+)", TASKS)
    used |= {f"caveclient_{option}" for options in listed for option in re.findall(r"\w+", options)}
    by_actions = {"caveclient_allow_remote_files", "caveclient_fast"}
    assert used | by_actions == set(OPTIONS)


def test_no_task_hides_what_happens() -> None:
    assert not re.search(r"no_log|ignore_errors|failed_when", TASKS)


def test_the_readme_has_the_variables_as_the_argument_specs_have_them() -> None:
    readme = ROLE / "README.md"
    spec = importlib.util.spec_from_file_location("role_tables", ROOT / "docs" / "role_tables.py")
    assert spec is not None
    assert spec.loader is not None
    role_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(role_tables)
    assert readme.read_text() == role_tables.with_table(readme.read_text()), "run: nox -s tables"


def test_the_readme_explains_every_verdict() -> None:
    explained = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "README.md").read_text().partition("## When something is wrong")[2], re.M
    )
    assert tuple(explained) == VERDICTS
