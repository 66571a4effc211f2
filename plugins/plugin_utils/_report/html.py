# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as one page for people."""

from __future__ import annotations

import base64
import hashlib
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

GUIDE = "https://connectomics.github.io/ansible-collection-cave/docsite/troubleshoot.html"

_MATRIX_USERS = 8  # with more of them, a column for each no longer fits

_SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; }
    catch { button.textContent = document.execCommand("copy") ? "Copied" : "Selected"; }
  });
}
const search = document.getElementById("search");
if (search) {
  document.getElementById("searching").hidden = false;
  const bodies = [...document.querySelectorAll(".fleet tbody")];
  const seek = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const body of bodies) {
      const text = body.textContent.toLowerCase();
      body.hidden = !words.every((word) => text.includes(word));
    }
    const matching = bodies.filter((body) => !body.hidden);
    const shown = matching.filter((body) => body.getClientRects().length);
    const more = matching.length - shown.length;
    document.getElementById("found").textContent =
      words.length ? `${shown.length} shown` + (more ? `, ${more} more under \u201ceverything\u201d` : "") : "";
  };
  search.addEventListener("input", seek);
  document.querySelectorAll("[name=show]").forEach((radio) => radio.addEventListener("change", seek));
}
"""
"""Of the page: what works without it stays as it is."""


def to_html(report: Mapping[str, Any]) -> bytes:
    """Return the report as one page that needs nothing else: no font, no picture, no network, and no script."""
    names = sorted({user["user"] for host in report["hosts"] for user in host["users"]}, key=natural_key)
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    worst = worst_state(report)
    tokens = token_sentences(report)
    pieces = _template().stream(
        report=report,
        summary=summary(report),
        groups=problem_groups(report),
        tokens=tokens,
        columns=names if len(names) <= _MATRIX_USERS else [],
        states=[state for state in STATES if report["counts"]["hosts"][state]],
        hosts=sorted(report["hosts"], key=lambda host: STATES.index(host["state"])),
        worst=worst,
        all_well=bool(report["hosts"]) and worst == "ok" and not report["notes"] and not tokens,
        duration=_duration(report["run"]["seconds"] or 0) if report["run"] else "",
        guide=GUIDE,
        script=_SCRIPT,
        script_hash=f"sha256-{digest}",
    )
    pieces.enable_buffering(1000)  # a large fleet's page has millions of them
    return b"".join(piece.encode("utf-8") for piece in pieces)


def _duration(seconds: float) -> str:
    """Return a time as people say it: 3 s, 4 min 10 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
