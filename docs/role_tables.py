# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the table of the role's variables into its README, from the role's argument_specs: `nox -s tables`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SPECS = ROOT / "roles" / "caveclient" / "meta" / "argument_specs.yml"
READMES = (ROOT / "roles" / "caveclient" / "README.md",)
BEGIN = "<!-- variables: written by docs/role_tables.py -->"
END = "<!-- end of variables -->"


def plain(text: str) -> str:
    """Return the text of a description without Ansible's markup, fit for a cell of a Markdown table."""
    text = re.sub(r"\b[COV]\(([^)]*)\)", r"`\1`", text)
    text = re.sub(r"\bM\(([^)#]*)[^)]*\)", r"`\1`", text)
    return text.replace("|", "\\|")


def row(name: str, option: dict[str, Any]) -> str:
    """Return the row of one variable."""
    description = option["description"]
    texts = description if isinstance(description, list) else [description]
    default = option.get("default")
    shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default!r}`"
    choices = " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "." if "choices" in option else ""
    return f"| `{name}` | {option['type']} | {shown} | {' '.join(plain(text) for text in texts)}{choices} |"


def table() -> str:
    """Return the table of all variables."""
    options = yaml.safe_load(SPECS.read_text())["argument_specs"]["main"]["options"]
    rows = [row(name, option) for name, option in options.items()]
    return "\n".join(["| variable | type | default | what it does |", "|---|---|---|---|", *rows])


def with_table(text: str) -> str:
    """Return a README's text with its table as it has to be."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    stale = [path for path in READMES if with_table(path.read_text()) != path.read_text()]
    for path in stale:
        path.write_text(with_table(path.read_text()))
    sys.stdout.write(f"{len(stale)} of {len(READMES)} READMEs changed.\n")
