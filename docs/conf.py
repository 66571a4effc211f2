# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of Sphinx for the documentation site: `make docs`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes

PLUGINS = Path(__file__).resolve().parent.parent / "plugins"
KINDS = ("module_utils", "plugin_utils", "action", "callback", "filter", "lookup")
MARKER = ".. the table of files comes from the docstrings, by docs/conf.py\n"

ANSIBLE = "https://docs.ansible.com/projects/ansible/latest/"
LABELS = {
    "action_plugins": "plugins/action.html",
    "callback_plugins": "plugins/callback.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
"""What the reference refers to in Ansible's own documentation."""

project = "connectomics.cave"
copyright = "2026 connectomics.cave contributors"  # noqa: A001 - Sphinx's name for it
title = html_title = html_short_title = "connectomics.cave"

extensions = ["sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
intersphinx_mapping: dict[str, tuple[str, str | None]] = {}  # builds without a network
default_role = "any"
nitpicky = False  # the reference names modules of ansible-core, which this site does not hold

highlight_language = "yaml+jinja"
pygments_style = "ansible"

html_theme = "sphinx_ansible_theme"
html_theme_options = {
    "vcs_pageview_mode": "edit",
    "display_version": True,
    "topbar_links": {},
}
html_show_sphinx = False
html_use_index = False
html_copy_source = False
html_use_smartypants = True


def file_table() -> str:
    """Return a table of the files below plugins/, each with the first line of its docstring."""
    rows = [".. list-table::", "   :header-rows: 1", "   :widths: 35 65", "", "   * - file", "     - what is in it"]
    for kind in KINDS:
        for path in sorted((PLUGINS / kind).rglob("[!.]*.py"), key=lambda path: (len(path.parts), path)):
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if about:
                rows += [f"   * - ``{path.relative_to(PLUGINS)}``", f"     - {about.partition(chr(10))[0]}"]
    return "\n".join([*rows, ""])


def setup(app: Any) -> None:
    """Put the table of files and the links to Ansible's documentation in their places; called by Sphinx."""

    def fill(_app: object, _name: str, source: list[str]) -> None:
        source[0] = source[0].replace(MARKER, file_table())

    def resolve(_app: object, _environment: object, node: Any, content: nodes.Node) -> nodes.Node | None:
        page = LABELS.get(node["reftarget"])
        return nodes.reference("", "", content, refuri=ANSIBLE + page) if page else None

    app.connect("source-read", fill)
    app.connect("missing-reference", resolve)
