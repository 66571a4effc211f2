# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``!cave-doctor`` in a cell of a notebook with the kernel CAVE, and what the notebook itself shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_desk import DATASTACK, Desk
from homes import OLD_TOKEN
from notebook import Shown, notebook_python, run_notebook

from cave_server import CaveServer

pytestmark = pytest.mark.slow
LINES = 24
"""Of a screen."""


@pytest.fixture
def desk(tmp_path: Path, cave: CaveServer) -> Desk:
    """Alice's desk, where all is well."""
    desk = Desk.of_alice(tmp_path, cave)
    desk.environments.mkdir()
    (desk.environments / "current").symlink_to(notebook_python().parent.parent)
    return desk


def notebook(desk: Desk, *cells: str) -> Shown:
    """Run a notebook at the desk."""
    variables = {**desk.environment, "PATH": f"{desk.program.parent}:/usr/bin:/bin", "BROWSER": "/bin/true"}
    return run_notebook(desk.home.parent / "jupyter", *cells, variables=variables)


VERSIONS = f"from caveclient import CAVEclient\nprint(CAVEclient({DATASTACK!r}, server_address='SERVER')" + (
    ".materialize.get_versions())"
)


Do = Callable[[Desk, CaveServer], object]
STORIES: dict[str, tuple[Do, str, str]] = {
    "all is well": (lambda desk, cave: None, "", "All is well."),
    "a dead token": (lambda desk, cave: desk.save(OLD_TOKEN), "401", "Yours: copy the token from"),
    "an outage": (
        lambda desk, cave: cave.set_fault("/materialize", "status", status=503),
        "503",
        "CAVE's: nothing to do but wait",
    ),
    "no permission": (lambda desk, cave: cave.set_permissions("alice", []), "403", "Yours: Ask the managers"),
}
"""What goes wrong, how the next cell fails (empty: it does not), and how the doctor's last lines begin."""


@pytest.mark.parametrize("story", STORIES)
def test_the_doctor_in_a_cell_says_on_one_screen_why_the_next_cell_fails(
    story: str, desk: Desk, cave: CaveServer
) -> None:
    begin, error, last = STORIES[story]
    begin(desk, cave)

    shown = notebook(desk, "!cave-doctor", VERSIONS.replace("SERVER", cave.url))

    assert last in " ".join(shown.text.split()), shown
    assert bool(shown.error) is bool(error), shown
    assert error in shown.error
    assert len(shown.text.splitlines()) <= LINES
    assert "This notebook's kernel" not in shown.text
    assert OLD_TOKEN not in str(shown)


def test_a_kernel_of_another_environment_is_named(desk: Desk) -> None:
    (desk.environments / "current").unlink()
    (desk.environments / "current").mkdir()

    shown = notebook(desk, "!cave-doctor --offline")

    said = " ".join(shown.text.split())
    assert "This notebook's kernel runs " in said, shown
    assert "not the lab's environment in" in said
