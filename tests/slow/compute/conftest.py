# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person with a token at a desk, and the recipes of the guide, with the desk's places in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from docs.code_blocks import GUIDES, commands, rst_blocks
from doctor_desk import DATASTACK, Desk

from cave_server import CaveServer

(GUIDE,) = (path for path in GUIDES if path.name == "compute.rst")
BLOCKS = list(rst_blocks(GUIDE))


class Recipes:
    """The code blocks of the guide.

    Args:
        usual: places and addresses in them, and what stands for each here.
    """

    def __init__(self, usual: Mapping[str, str]) -> None:
        self.usual = usual

    def text(self, name: str, **more: str) -> str:
        """Return a file of the guide; `more` are further words to replace, each of which has to be there."""
        (block,) = (block for block in BLOCKS if block.file == name)
        said = block.text
        for word, here in more.items():
            assert word in said, f"{word} is not in {name}"
            said = said.replace(word, here)
        for word, here in self.usual.items():
            said = said.replace(word, here)
        return said

    def command(self, *words: str) -> list[str]:
        """Return the command of the guide that begins with some words, without these."""
        listed = [command for block in BLOCKS if block.language == "bash" for command in commands(block)]
        (found,) = (command for command in listed if command[: len(words)] == list(words))
        return found[len(words) :]


@pytest.fixture
def desk(tmp_path: Path, cave: CaveServer) -> Desk:
    """Alice's desk, where all is well."""
    return Desk.of_alice(tmp_path, cave)


@pytest.fixture
def recipes(desk: Desk, tmp_path: Path) -> Recipes:
    """The recipes, of which ``query.py`` is in the desk's folder."""
    server = f'"{DATASTACK}", server_address="{desk.server}"'
    recipes = Recipes({f'"{DATASTACK}"': server, "/usr/local/bin/cave-doctor": str(desk.program)})
    (tmp_path / "query.py").write_text(recipes.text("query.py"))
    return recipes
