# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``!cave-doctor`` in a cell of a notebook with the kernel CAVE, and what the notebook itself shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_run import ROOT
from doctor_desk import DATASTACK, Desk
from homes import OLD_TOKEN
from notebook import Shown, notebook_python, run_notebook

from cave_server import CaveServer

pytestmark = pytest.mark.slow
Do = Callable[[Desk, CaveServer, CaveServer], object]
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


class Story(NamedTuple):
    """What goes wrong, how the next cell fails (empty: it does not), and how the doctor's last lines begin."""

    begin: Do
    error: str
    last: str


def fault(prefix: str, kind: str, **parameters: Any) -> Do:
    """Let the server answer so below a prefix."""
    return lambda desk, cave, other: cave.set_fault(prefix, kind, **parameters)


def owing(desk: Desk, cave: CaveServer, other: CaveServer) -> None:
    """Let the person owe terms of service."""
    desk.save(cave.add_person("bob", permissions=[DATASTACK], accepted_tos=False).token)


def without_token(desk: Desk, cave: CaveServer, other: CaveServer) -> None:
    """Take all secrets files away."""
    shutil.rmtree(desk.secrets)


STORIES = {
    "all is well": Story(lambda desk, cave, other: None, "", "All is well."),
    "a dead token": Story(lambda desk, cave, other: desk.save(OLD_TOKEN), "401", "Yours: copy the token from"),
    "an outage": Story(fault("/materialize", "status", status=503), "503", "CAVE's: nothing to do but wait"),
    "no permission": Story(
        lambda desk, cave, other: cave.set_permissions("alice", []), "403", "Yours: Ask the managers"
    ),
    "no token": Story(without_token, "You have not setup a token", "Yours: copy the token from"),
    "terms are owed": Story(owing, "403", "Yours: log in and accept the terms of service: http"),
    "a cut file": Story(
        lambda desk, cave, other: [path.write_text("{") for path in desk.secrets.glob("*-secret.json")],
        "JSONDecodeError",
        "Yours: run: cave-doctor --fix",
    ),
    "a netrc file": Story(
        lambda desk, cave, other: (desk.home / ".netrc").write_text("default login anonymous password x\n"),
        "400",
        "Yours: run: cave-doctor --fix",
    ),
    "no such name": Story(
        lambda desk, cave, other: cave.serve(DATASTACK, "http://local.invalid"),
        "ConnectionError",
        "Your administrator's: a firewall may be in the way",
    ),
    "a proxy with a certificate of its own": Story(
        lambda desk, cave, other: cave.serve(DATASTACK, other.url),
        "SSLError",
        "Your administrator's: this computer does not trust",
    ),
    "the limit is reached": Story(fault("/materialize/api/v", "status", status=429), "429", "CAVE's: wait a minute"),
    "everything is down": Story(fault("/", "status", status=502), "502", "CAVE's: nothing to do but wait"),
}
FIRST = ("all is well", "a dead token", "an outage", "no permission")


@pytest.mark.parametrize(
    "story", [pytest.param(name, marks=[] if name in FIRST else pytest.mark.long) for name in STORIES]
)
def test_the_doctor_in_a_cell_says_on_one_screen_why_the_next_cell_fails(
    story: str, desk: Desk, cave: CaveServer, cave_tls: CaveServer
) -> None:
    begin, error, last = STORIES[story]
    begin(desk, cave, cave_tls)

    shown = notebook(desk, "!cave-doctor", VERSIONS.replace("SERVER", cave.url))

    keep(story, shown)
    assert last in " ".join(shown.text.split()), shown
    assert bool(shown.error) is bool(error), shown
    assert error in shown.error
    assert len(shown.text.splitlines()) <= LINES
    assert "This notebook's kernel" not in shown.text
    assert OLD_TOKEN not in str(shown)


def keep(story: str, shown: Shown) -> None:
    """Keep what was shown with the reports of the tests."""
    folder = ROOT / ".cache" / "reports" / "doctor"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{story}.txt").write_text(f"{shown.text}\n{shown.error}\n")


def test_a_kernel_of_another_environment_is_named(desk: Desk) -> None:
    (desk.environments / "current").unlink()
    (desk.environments / "current").mkdir()

    shown = notebook(desk, "!cave-doctor --offline")

    said = " ".join(shown.text.split())
    assert "This notebook's kernel runs " in said, shown
    assert "not the lab's environment in" in said
