# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of the documentation know of the collection: its modules' options, its playbooks' variables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import ROOT, ansible

from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import known_variables

MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("[!_]*.py"))
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


@pytest.fixture(scope="session")
def module_docs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The documentation of all modules, with the fragments that they share."""
    names = [f"connectomics.cave.{name}" for name in MODULES]
    run = ansible(tmp_path_factory.mktemp("ansible-doc"), "doc", "-t", "module", "--json", *names)
    assert run.ok, run.output
    return dict(json.loads(run.output[run.output.index("{") :]))


@pytest.fixture(scope="session")
def role_options() -> dict[str, Any]:
    """The variables of the role, as its argument_specs have them."""
    specs = yaml.safe_load((ROOT / "roles" / "caveclient" / "meta" / "argument_specs.yml").read_text())
    return dict(specs["argument_specs"]["main"]["options"])


@pytest.fixture(scope="session")
def variables(role_options: dict[str, Any]) -> set[str]:
    """Every variable of the role and of the playbooks that a person may set."""
    used: set[str] = set(role_options) | known_variables()
    for path in Path(ROOT / "playbooks").rglob("*.yml"):
        used |= set(re.findall(r"(?<![_\w])caveclient_\w+", path.read_text(encoding="utf-8")))
    return used
