# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._backends import client_check as _client_check
from ansible_collections.connectomics.cave.plugins.module_utils._backends.client_check import client_python
from ansible_collections.connectomics.cave.plugins.module_utils._backends.findings import Finding, Limits
from ansible_collections.connectomics.cave.plugins.module_utils._cave import probe as _probe
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_errors import ClientOutcome, client_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import HostUser
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading

SERVER = "https://global.daf-apis.com"
STACK = "minnie65_public"
TOKEN = "0123456789abcdef0123456789abcdef"
ALICE = {"id": 3, "email": "alice@lab.example", "missing_tos": [], "permissions_v2": {STACK: ["view"]}}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("name", ["/nowhere/\nok: [ws1] => {}", "/nowhere/\x1b[2K", "/nowhere/a b"])
def test_the_path_of_an_interpreter_that_is_not_there_stays_in_one_line_and_is_harmless(name: str) -> None:
    with pytest.raises(CaveError) as error:
        client_python({"interpreter": name, "path": "/opt/caveclient"})
    assert "does not exist: there is no" in error.value.message
    assert error.value.message.isprintable()


@pytest.mark.parametrize(
    ("raised", "text", "record", "verdict"),
    [
        ("ConnectionError", "[Errno 111] Connection refused", HttpError("refused", SERVER, "refused"), "server_error"),
        ("ConnectionError", "Failed to resolve 'x'", HttpError("dns", SERVER, "unknown name"), "server_error"),
        ("ReadTimeout", "timed out", HttpError("cut", SERVER, "it broke off"), "server_error"),
        ("SSLError", "[SSL: RECORD_LAYER_FAILURE]", HttpError("tls", SERVER, "no TLS"), "server_error"),
        ("ProxyError", "Tunnel failed", HttpError("proxy", SERVER, "the proxy answers 502"), "unreachable"),
        # What caveclient alone meets is its own: another idea of whom to trust, another way there.
        ("SSLError", "certificate verify failed: self-signed", None, "tls_error"),
        ("ConnectionError", "[Errno 111] Connection refused", None, "unreachable"),
    ],
)
def test_both_methods_say_the_same_of_an_info_service_that_is_not_reached_beside_an_auth_server_that_is(
    raised: str, text: str, record: HttpError | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_method: str, url: str, *_given: Any, **_options: Any) -> Answer:
        if "/auth/" not in url and record is not None:
            raise record
        content = ALICE if "/auth/" in url else {"aligned_volume": {"id": 1}}
        return Answer(200, JSON, json.dumps(content).encode(), url)

    monkeypatch.setattr(_probe, "request_with_retries", answer)
    question = Question(SERVER, TOKEN, (STACK,))
    [by_api] = prove([question], records=True)[question].datastacks
    outcome = ClientOutcome(SERVER, (f"requests.exceptions.{raised}",), text)
    said = client_verdict(outcome, SERVER, STACK, TOKEN)
    assert not said.ok
    users = {"alice": HostUser("alice", None, {"global.daf-apis.com": [Reading("", "", "", TOKEN)]}, {})}
    findings = [Finding("alice", said, (said,))]
    [finding] = _client_check._after_second_look(findings, users, Limits(30, 0, None), records=False)
    [by_client] = finding.datastacks
    assert by_client.verdict == verdict
    if record is not None:
        assert (by_client.verdict, by_client.message) == (by_api.verdict, by_api.message)


def test_no_token_is_asked_about_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client_check, "prove", lambda asked, **_options: dict.fromkeys(asked))
    said = client_verdict(ClientOutcome(SERVER, ("requests.ConnectionError",), "refused"), SERVER, STACK, "")
    users = {"alice": HostUser("alice", None, {"global.daf-apis.com": [Reading("", "", "", None)]}, {})}
    [finding] = _client_check._after_second_look(
        [Finding("alice", said, (said,))], users, Limits(30, 0, None), records=False
    )
    assert finding.datastacks == (said,)
