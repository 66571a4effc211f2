# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as one page for people."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import STATES, natural_key
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import (
    problem_groups,
    summary,
    token_sentences,
    worst_state,
)

_MATRIX_USERS = 8  # with more of them, a column for each no longer fits


def to_html(report: Mapping[str, Any]) -> str:
    """Return the report as one page that needs nothing else: no script, no font, no picture, no network."""
    names = sorted({user["user"] for host in report["hosts"] for user in host["users"]}, key=natural_key)
    return _template().render(
        report=report,
        summary=summary(report),
        groups=problem_groups(report),
        tokens=token_sentences(report),
        columns=names if len(names) <= _MATRIX_USERS else [],
        states=[state for state in STATES if report["counts"]["hosts"][state]],
        worst=worst_state(report),
        servers=sorted({user["server"] for host in report["hosts"] for user in host["users"] if user["server"]}),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
