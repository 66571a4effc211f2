# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract is tested on any server that the environment names: here on a stand-in that it takes for a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cave_server import CaveServer

CONTRACT = Path(__file__).resolve().parent.parent / "contract"
TOKENS = {"CAVE_TEST_TOKEN": "alice", "CAVE_TEST_TOKEN_NO_TOS": "bob", "CAVE_TEST_TOKEN_NO_PERMISSION": "carol"}


@pytest.fixture
def people(cave_tls: CaveServer) -> CaveServer:
    """A server with the people that the contract wants."""
    cave_tls.add_person("alice", ["minnie65_public"])
    cave_tls.add_person("bob", ["minnie65_public"], accepted_tos=False)
    cave_tls.add_person("carol")
    return cave_tls


def contract(cave: CaveServer, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the contract's tests on a server."""
    named = {"CAVE_TEST_SERVER": cave.url, "CAVE_TEST_CA": cave.ca or ""}
    named |= {variable: cave.person(name).token for variable, name in TOKENS.items()}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", CONTRACT],
        env=os.environ | named | variables,
        cwd=CONTRACT.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("trouble", ["tokens", "connection"])
def test_a_failing_run_shows_no_token(people: CaveServer, trouble: str) -> None:
    tokens = {variable: people.person(name).token for variable, name in TOKENS.items()}
    if trouble == "tokens":
        for name in TOKENS.values():
            people.set_permissions(name, ["h01_c3_flat"])
            people.refresh(name)
        # Some of them are valid, so that lists come back; none is whose it should be.
        tokens["CAVE_TEST_TOKEN"] = people.person("bob").token
    else:
        people.set_listening(False)
    done = contract(people, **tokens)
    assert done.returncode == 1
    assert "failed" in done.stdout
    shown = [name for name, token in tokens.items() if token in done.stdout + done.stderr]
    assert shown == []
