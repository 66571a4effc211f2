# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages, as verify finds them by API and by the real caveclient, and as a notebook with the kernel CAVE sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doctor_desk import DATASTACK, Desk
from module_runner import arguments_of
from notebook import fails_by, notebook_python, run_notebook

from ansible_collections.connectomics.cave.plugins.module_utils._backends.verify_access import run
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from cave_server import CaveServer

pytestmark = [pytest.mark.slow, pytest.mark.long]

DEFAULTS = arguments_of("verify_access")
QUERY = f"""
from caveclient import CAVEclient
print(CAVEclient({DATASTACK!r}).materialize.get_versions())
"""
Verify = Callable[..., dict[str, Any]]
Begin = Callable[[CaveServer, CaveServer, Verify], object]


class Story(NamedTuple):
    """What goes wrong, and what verify calls it."""

    begin: Begin
    verdict: str


def fault(prefix: str, kind: str, **parameters: Any) -> Begin:
    """Let the server answer so below a prefix."""
    return lambda cave, _other, _verify: cave.set_fault(prefix, kind, **parameters)


def hiccup(cave: CaveServer, _other: CaveServer, verify: Verify) -> None:
    """Let the services, and not the info service, remember a refusal that the auth server has never uttered."""
    verify("api", services=["none"])
    cave.configure(auth_hiccup=429)
    verify("api", services=["full"])
    cave.configure(auth_hiccup=0)


STORIES = {
    "all is well": Story(lambda cave, other, verify: None, "ok"),
    "materialize is down": Story(fault("/materialize", "status", status=503), "service_down"),
    "another service is down": Story(fault("/skeletoncache", "status", status=503), "service_down"),
    "a gateway's page with status 200": Story(fault("/materialize", "html"), "service_down"),
    "materialize breaks off": Story(fault("/materialize", "cut"), "service_down"),
    "materialize answers what is no JSON": Story(fault("/materialize", "cut_json"), "service_down"),
    "a slow gateway": Story(fault("/materialize", "latency", seconds=1.0), "ok"),
    "the local server's name is unknown": Story(
        lambda cave, other, verify: cave.serve(DATASTACK, "http://local.invalid"), "service_blocked"
    ),
    "nothing listens": Story(
        lambda cave, other, verify: cave.serve(DATASTACK, "http://127.0.0.1:1"), "service_blocked"
    ),
    "a proxy with a certificate of its own": Story(
        lambda cave, other, verify: cave.serve(DATASTACK, other.url), "tls_error"
    ),
    "the limit is reached": Story(fault("/materialize/api/v", "status", status=429), "rate_limited"),
    "the auth server hiccups": Story(hiccup, "service_down"),
    "info's own token is dead": Story(
        lambda cave, other, verify: cave.configure(without_token=["info"]), "server_error"
    ),
    "a permission is withdrawn": Story(
        lambda cave, other, verify: cave.set_permissions("alice", []), "missing_permission"
    ),
    "everything is down": Story(fault("/", "status", status=502), "server_error"),
}


@pytest.fixture
def desk(tmp_path: Path, cave: CaveServer) -> Desk:
    """Alice's desk, where all is well."""
    desk = Desk.of_alice(tmp_path, cave)
    server_map = desk.secrets / "cave_datastack_to_server_map.json"
    server_map.write_text(f'{{"{DATASTACK}": "{cave.url}"}}')
    return desk


@pytest.fixture
def verify(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """`verify("client")`: what is found for Alice at her desk."""
    monkeypatch.setenv("HOME", str(desk.home))
    monkeypatch.setenv("no_proxy", "*")

    def ask(method: str, **options: Any) -> dict[str, Any]:
        python = str(notebook_python()) if method == "client" else None
        asked = {"server": desk.server, "datastacks": [DATASTACK], "path": str(desk.environments), "timeout": 20}
        params = {**DEFAULTS, **asked, "method": method, "interpreter": python, "services": ["full"], "retries": 0}
        try:
            found = run({**params, **options})
        except CaveError as error:
            found = error.details
        user: dict[str, Any] = found["users"][0]
        return user

    return ask


@pytest.mark.parametrize("story", STORIES)
def test_a_notebooks_query_fails_exactly_when_verify_says_so(
    story: str, desk: Desk, verify: Verify, cave: CaveServer, cave_tls: CaveServer
) -> None:
    STORIES[story].begin(cave, cave_tls, verify)

    by_api, by_client = verify("api"), verify("client")

    assert (by_api["verdict"], by_client["verdict"]) == (STORIES[story].verdict,) * 2, (by_api, by_client)
    fails = fails_by(by_api)
    shown = run_notebook(desk.home.parent / "jupyter", QUERY, variables=desk.environment)
    assert bool(shown.error) is fails, shown
    assert ("[1, 2]" in shown.text) is not fails, shown
