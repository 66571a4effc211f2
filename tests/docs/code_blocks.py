# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The code blocks of the guides and READMEs, taken out of them."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from antsibull_docutils.rst_code_finder import find_code_blocks
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs" / "docsite" / "rst").glob("*.rst"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "roles" / "caveclient" / "README.md",
]
_ROLES = re.compile(r":(?:ref|ansplugin|ansopt|doc):`[^`]*`", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code: in which file and line, in which language, and what it says."""

    path: Path
    line: int
    language: str
    text: str
    before: str = ""
    """The paragraph before it, which may name the file that it is."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The name of the file that the paragraph before it begins with; empty when it is none."""
        match = re.match(r"`{1,2}([\w./-]+\.\w+)`{1,2}", self.before)
        return match[1] if match else ""


def rst_blocks(path: Path) -> Iterator[Block]:
    """Yield the code blocks of a guide."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    # Sphinx's roles are unknown to docutils, and code blocks have none.
    plain = _ROLES.sub(lambda match: "x" + "\n" * match[0].count("\n"), text)
    with warnings.catch_warnings():  # of docutils, to antsibull
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        blocks = list(find_code_blocks(plain))
    for block in blocks:
        above = "\n".join(lines[: block.row_offset]).rpartition(".. code-block::")[0]
        before = above.rstrip().rpartition("\n\n")[2]
        yield Block(path, block.row_offset + 1, block.language or "", block.content, before)


def markdown_blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced code blocks of a page."""
    before = ""
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "inline":
            before = token.content
        elif token.type == "fence":
            yield Block(path, (token.map or [0])[0] + 2, token.info, token.content, before)


def all_blocks() -> list[Block]:
    """Return the code blocks of all guides and pages."""
    blocks = [block for path in GUIDES for block in rst_blocks(path)]
    return blocks + [block for path in PAGES if path.exists() for block in markdown_blocks(path)]


def commands(block: Block) -> list[list[str]]:
    """Return the command lines of a block for a shell, each as words; comments and leading prompts are dropped."""
    joined = block.text.replace("\\\n", " ")
    found = [shlex.split(line.removeprefix("$ ").lstrip("("), comments=True) for line in joined.splitlines()]
    return [words for words in found if words]
