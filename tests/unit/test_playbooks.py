# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the text of the playbooks has to keep to, whatever ansible-core makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").rglob("tasks/*.yml")])


def tasks(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every task of a playbook, those in blocks too."""
    if isinstance(value, list):
        for item in value:
            yield from tasks(item)
    elif isinstance(value, dict):
        yield value
        for name in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
            yield from tasks(value.get(name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_fact_is_set_once_for_several_hosts(path: Path) -> None:
    """On ansible-core 2.21 they share one dictionary then, and what is found out of one is believed of all."""
    shared = [
        task["name"]
        for task in tasks(yaml.safe_load(path.read_text(encoding="utf-8")))
        if "ansible.builtin.set_fact" in task and task.get("run_once") and not task.get("delegate_facts")
    ]

    assert shared == []


@pytest.mark.parametrize("path", [path for path in FILES if "roles" not in path.parts], ids=lambda path: path.name)
def test_no_setting_of_a_site_changes_how_hosts_take_turns_or_stop_each_other(path: Path) -> None:
    """A task cannot run once for all with the strategy free, and any_errors_fatal lets one host stop the others."""
    plays = [play for play in yaml.safe_load(path.read_text(encoding="utf-8")) if "hosts" in play]
    loose = [
        play["name"] for play in plays if (play.get("strategy"), play.get("any_errors_fatal")) != ("linear", False)
    ]

    assert loose == []
