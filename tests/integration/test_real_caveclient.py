# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real caveclient finds the stand-in server to be what it expects."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cave_server import CaveServer

pytestmark = [pytest.mark.network, pytest.mark.slow]

VERSION = "8.2.1"
PROGRAM = """
import json, sys, webbrowser
opened = []
webbrowser.open = lambda url, *args, **kwargs: opened.append(url)
from caveclient import CAVEclient
datastack, address, token = json.loads(sys.stdin.read())
told = {"opened": opened}
try:
    client = CAVEclient(datastack, server_address=address, auth_token=token, write_server_cache=False)
    told["local_server"] = client.local_server
    told["datastacks"] = client.info.get_datastacks()
    told["tokens"] = len(client.auth.get_tokens())
except Exception as error:
    told["raised"] = "%s.%s" % (type(error).__module__, type(error).__name__)
    told["message"] = str(error)
print(json.dumps(told))
"""

SERVICES = """
import json, sys
from caveclient import CAVEclient
datastack, address, token = json.loads(sys.stdin.read())
client = CAVEclient(datastack, server_address=address, auth_token=token, write_server_cache=False)
calls = {
    "materialize": lambda: client.materialize.get_versions(),
    "chunkedgraph": lambda: str(client.chunkedgraph.server_version),
    "oldest": lambda: client.chunkedgraph.get_oldest_timestamp().year,
    "l2cache": lambda: client.l2cache.has_cache(),
    "skeleton": lambda: str(client.skeleton.server_version),
    "annotation": lambda: client.annotation.get_tables(),
    "state": lambda: str(client.state.server_version),
}
told = {}
for name, call in calls.items():
    try:
        told[name] = call()
    except Exception as error:
        told[name] = "%s: %s" % (type(error).__name__, str(error)[:60])
print(json.dumps(told))
"""


@pytest.fixture(scope="session")
def python(caveclient_python: Callable[..., Path]) -> Path:
    """A Python with caveclient."""
    return caveclient_python(VERSION)


@pytest.fixture
def ask(python: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run `CAVEclient(datastack)` in an empty home; return what became of it."""

    def run(
        address: str,
        token: str | None,
        datastack: str = "minnie65_public",
        program: str = PROGRAM,
        **variables: str,
    ) -> dict[str, Any]:
        done = subprocess.run(
            [python, "-c", program],
            input=json.dumps([datastack, address, token]),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
        )
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    return run


def test_it_asks_for_the_version_and_the_record_and_nothing_else(
    cave: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    ask(cave.url, person.token)
    paths = [entry["path"] for entry in cave.requests()]
    assert paths[:2] == ["/info/version", "/info/api/v2/datastack/full/minnie65_public"]
    assert [entry for entry in paths[2:] if entry not in ("/info/api/v2/datastacks", "/auth/api/v1/user/token")] == []


def test_the_services_of_a_datastack_serve_it(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    cave.serve("minnie65_public")
    person = cave.add_person("alice", ["minnie65_public"])
    assert ask(cave.url, person.token, program=SERVICES) == {
        "materialize": [1, 2],
        "chunkedgraph": "2.21.1",
        "oldest": 2020,
        "l2cache": True,
        "skeleton": "0.23.11",
        "annotation": ["synapses", "nuclei"],
        "state": "0.7.2",
    }


def test_a_service_that_is_down_breaks_what_is_asked_of_it(
    cave: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    cave.serve("minnie65_public")
    person = cave.add_person("alice", ["minnie65_public"])
    cave.set_fault("/segmentation", "status", status=503)
    cave.configure(broken=["annotation"])
    told = ask(cave.url, person.token, program=SERVICES)
    assert told["materialize"] == [1, 2]
    for name in ("chunkedgraph", "oldest", "l2cache"):
        assert told[name].startswith("RetryError") or told[name].startswith("HTTPError: 503")
    assert told["annotation"].startswith("HTTPError: 500 Server Error")
