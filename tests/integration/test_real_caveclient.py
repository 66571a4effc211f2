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


def test_a_good_token_gets_a_client(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    assert ask(cave.url, person.token) == {
        "opened": [],
        "local_server": cave.url,
        "datastacks": ["minnie65_public"],
        "tokens": 1,
    }


def test_over_tls_it_trusts_the_bundle_that_the_environment_names(
    cave_tls: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    person = cave_tls.add_person("alice", ["minnie65_public"])
    assert cave_tls.ca
    told = ask(cave_tls.url, person.token, REQUESTS_CA_BUNDLE=cave_tls.ca)
    assert told["local_server"] == cave_tls.url


def test_over_tls_it_refuses_an_authority_that_it_does_not_know(
    cave_tls: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    person = cave_tls.add_person("alice", ["minnie65_public"])
    assert ask(cave_tls.url, person.token)["raised"] == "requests.exceptions.SSLError"


def test_it_asks_for_the_version_and_the_record_and_nothing_else(
    cave: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    ask(cave.url, person.token)
    paths = [entry["path"] for entry in cave.requests()]
    assert paths[:2] == ["/info/version", "/info/api/v2/datastack/full/minnie65_public"]
    assert [entry for entry in paths[2:] if entry not in ("/info/api/v2/datastacks", "/auth/api/v1/user/token")] == []


def test_without_a_token_it_says_that_none_is_set_up(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    told = ask(cave.url, None)
    assert told["raised"] == "caveclient.base.AuthException"
    assert "You have not setup a token to access" in told["message"]


def test_an_unknown_token_is_an_http_error_401(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    told = ask(cave.url, "0123456789abcdef0123456789abcdef")
    assert told["raised"] == "requests.exceptions.HTTPError"
    url = f"{cave.url}/info/api/v2/datastack/full/minnie65_public"
    assert told["message"].startswith(f"401 Client Error: UNAUTHORIZED for url: {url} content: b'{{")


def test_terms_of_service_owed_open_a_browser_and_are_an_http_error_403(
    cave: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    person = cave.add_person("alice", ["minnie65_public"], accepted_tos=False)
    told = ask(cave.url, person.token)
    assert told["raised"] == "requests.exceptions.HTTPError"
    assert told["message"].startswith("403 Client Error: FORBIDDEN")
    assert told["opened"] == [f"{cave.url}/sticky_auth/api/v1/tos/2/accept"]


def test_no_permission_is_an_http_error_403_without_a_browser(
    cave: CaveServer, ask: Callable[..., dict[str, Any]]
) -> None:
    told = ask(cave.url, cave.add_person("alice").token)
    assert told["raised"] == "requests.exceptions.HTTPError"
    assert "Missing permission: view for dataset minnie65_public" in told["message"]
    assert told["opened"] == []


def test_an_unknown_datastack_is_an_http_error_400(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    told = ask(cave.url, cave.add_person("alice").token, datastack="nosuchstack")
    assert told["raised"] == "requests.exceptions.HTTPError"
    assert told["message"].startswith("400 Client Error: BAD REQUEST")


def test_a_refused_connection_is_a_connection_error(cave: CaveServer, ask: Callable[..., dict[str, Any]]) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    cave.set_listening(False)
    assert ask(cave.url, person.token)["raised"] == "requests.exceptions.ConnectionError"


@pytest.mark.parametrize(("retry_after", "requests"), [(None, 1), (0, 4)])
def test_429_is_asked_again_only_when_the_server_says_after_how_long(
    cave: CaveServer, ask: Callable[..., dict[str, Any]], retry_after: int | None, requests: int
) -> None:
    person = cave.add_person("alice", ["minnie65_public"])
    cave.set_fault("/info/api/v2/datastack", "status", status=429, retry_after=retry_after)
    told = ask(cave.url, person.token)
    assert told["message"].startswith("429 Client Error")
    assert len(cave.requests("/info/api/v2/datastack/full")) == requests


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
