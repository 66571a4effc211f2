# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server that the contract is tested on: the one that the environment names, or else the stand-in over TLS.

CAVE_TEST_SERVER (URL), CAVE_TEST_CA (bundle, where the server's certificate needs one), CAVE_TEST_DATASTACK (default
minnie65_public), and tokens of people who may see it (CAVE_TEST_TOKEN), who owe its terms of service
(CAVE_TEST_TOKEN_NO_TOS), and who may not see it (CAVE_TEST_TOKEN_NO_PERMISSION). What is asked of a named server
changes nothing there. Tokens are compared by fingerprint, so that no failing test prints one.
"""

from __future__ import annotations

import os

import pytest
from contract.asking import Server

from cave_server import CaveServer


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """The server under test."""
    datastack = os.environ.get("CAVE_TEST_DATASTACK", "minnie65_public")
    if "CAVE_TEST_SERVER" in os.environ:
        names = ("CAVE_TEST_TOKEN", "CAVE_TEST_TOKEN_NO_TOS", "CAVE_TEST_TOKEN_NO_PERMISSION")
        tokens = {name: os.environ.get(name, "") for name in names}
        url = os.environ["CAVE_TEST_SERVER"].rstrip("/")
        return Server(url, os.environ.get("CAVE_TEST_CA"), datastack, tokens, None)
    cave: CaveServer = request.getfixturevalue("cave_tls")
    tokens = {
        "CAVE_TEST_TOKEN": cave.add_person("alice", [datastack]).token,
        "CAVE_TEST_TOKEN_NO_TOS": cave.add_person("bob", [datastack], accepted_tos=False).token,
        "CAVE_TEST_TOKEN_NO_PERMISSION": cave.add_person("carol").token,
    }
    cave.serve(datastack)
    return Server(cave.url, cave.ca, datastack, tokens, cave)
