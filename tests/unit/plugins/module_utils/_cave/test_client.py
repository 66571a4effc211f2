# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of a caveclient that runs in a process of its own. It is a stand-in: the datastack says what it does."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_run import coverage
from raw_server import Conversation, RawServer, http_answer, say

from ansible_collections.connectomics.cave.plugins.module_utils import _systems
from ansible_collections.connectomics.cave.plugins.module_utils._cave import client_script as _client_script
from ansible_collections.connectomics.cave.plugins.module_utils._cave import trust as _trust
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client import Check, environment, run_client
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_errors import ClientOutcome, client_verdict

SERVER = "https://global.daf-apis.com"
CLIENT = """
import os, webbrowser
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

__version__ = "8.2.1"


class TermsError(requests.exceptions.HTTPError):
    pass


class CAVEclient:
    def __init__(self, datastack, **options):
        self.local_server = "https://minnie.microns-daf.com"
        if datastack == "nothing":
            return
        if datastack == "key":
            raise KeyError(options["auth_token_key"])
        if datastack == "leaves":
            raise SystemExit("that is all")
        if datastack == "browser":
            opened = [webbrowser.open("https://x"), webbrowser.open_new("https://x"), webbrowser.open_new_tab("https://x")]
            assert opened == [False] * 3
            webbrowser.get("firefox")
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(1, status_forcelist=[429])))
        answer = session.get(os.environ["SERVER"])
        if answer.status_code == 403:
            raise TermsError("403 Client Error: " + answer.text)
        answer.raise_for_status()
"""


def check(folder: Path, server: str, *datastacks: str, key: str = "token", timeout: float = 20) -> list[dict[str, Any]]:
    """Run the check with the stand-in in ``folder``, and return what it tells of each datastack."""
    report = (folder / "report.jsonl").open("w+", encoding="utf-8")
    asked = json.dumps({"timeout": timeout, "key": key, "datastacks": datastacks})
    search = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path), str(folder)])
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": search, "SERVER": server, "no_proxy": "*", **coverage()}
    command = [sys.executable, "-m", _client_script.__name__, str(report.fileno()), asked]
    with report:
        subprocess.run(command, env=variables, pass_fds=[report.fileno()], cwd=folder, check=True, timeout=60)
        report.seek(0)
        return [json.loads(line) for line in report]


def ask(folder: Path, conversation: Conversation, *datastacks: str, **options: Any) -> list[dict[str, Any]]:
    """Run the check against a server that says what it is told to."""
    with RawServer(conversation) as server:
        return check(folder, server.url, *datastacks, **options)


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A folder with a stand-in for caveclient."""
    (tmp_path / "caveclient.py").write_text(CLIENT)
    return tmp_path


def test_a_client_that_is_content_tells_its_local_server_and_version(client: Path) -> None:
    [told] = ask(client, say(http_answer(b'{"id": 1}')), "minnie65_public")

    assert told["names"] == []
    assert told["local_server"] == "https://minnie.microns-daf.com"
    assert told["version"] == "8.2.1"
    assert told["answer"]["status"] == 200


def test_each_datastack_is_told_of_in_order_with_its_own_answer(client: Path) -> None:
    told = ask(client, say(http_answer(b"{}")), "minnie65_public", "nothing", "key", key="fanc")

    assert [item["datastack"] for item in told] == ["minnie65_public", "nothing", "key"]
    assert told[1]["answer"] is None
    assert told[2]["names"][0] == "builtins.KeyError"
    assert told[2]["text"] == "'fanc'"


def test_an_exception_comes_with_all_its_kinds_and_with_the_answer_that_led_to_it(client: Path) -> None:
    refusal = http_answer(b'{"error": "missing_tos"}', "X-Secret: 1", status="403 FORBIDDEN")
    [told] = ask(client, say(refusal), "minnie65_public")

    assert told["names"][:2] == ["caveclient.TermsError", "requests.exceptions.HTTPError"]
    assert "builtins.Exception" in told["names"]
    assert told["answer"]["status"] == 403
    assert json.loads(told["answer"]["body"]) == {"error": "missing_tos"}
    assert told["answer"]["headers"] == {"content-type": "application/json"}


def test_a_login_page_behind_a_redirect_is_told_as_one(client: Path) -> None:
    answers = [
        http_answer(b"", "Location: /login", status="302 FOUND"),
        http_answer(b"<html>", content_type="text/html"),
    ]
    [told] = ask(client, lambda connection: connection.sendall(answers.pop(0)), "minnie65_public")

    assert told["answer"]["redirected"]
    assert told["answer"]["url"].endswith("/login")
    assert told["answer"]["headers"] == {"content-type": "text/html"}


def test_an_answer_without_end_is_not_read_to_its_end(client: Path) -> None:
    part = b"0" * 65536
    size = 2 * _client_script.MOST_READ

    def endless(connection: Any) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        try:
            for _number in range(size // len(part)):
                connection.sendall(part)
        except OSError:
            return  # as it should be

    [told] = ask(client, endless, "minnie65_public")

    assert told["names"][0] == "builtins.OverflowError"
    assert str(_client_script.MOST_READ) in told["text"]


def test_of_a_long_answer_a_part_is_handed_on(client: Path) -> None:
    [told] = ask(client, say(http_answer(b"0" * 200_000)), "minnie65_public")

    assert len(told["answer"]["body"]) == _client_script.MOST_TOLD


def test_a_pause_beyond_the_deadline_is_not_waited_for(client: Path) -> None:
    begin = time.monotonic()
    [told] = ask(client, say(http_answer(b"", "Retry-After: 50", status="429 TOO MANY")), "minnie65_public", timeout=10)

    assert time.monotonic() - begin < 20
    assert told["names"][0] == "requests.exceptions.ConnectionError"  # requests makes one of every OSError
    assert "the server asks for 50 s without requests" in told["text"]
    assert told["answer"]["status"] == 429
    assert told["answer"]["headers"]["retry-after"] == "50"


def test_a_short_pause_is_waited_for(client: Path) -> None:
    answers = [http_answer(b"", "Retry-After: 1", status="429 TOO MANY"), http_answer(b"{}")]
    [told] = ask(client, lambda connection: connection.sendall(answers.pop(0)), "minnie65_public")

    assert told["names"] == []
    assert told["answer"]["status"] == 200


def test_no_browser_is_ever_opened(client: Path) -> None:
    [told] = ask(client, say(http_answer(b"{}")), "browser")

    assert told["names"][0] == "webbrowser.Error"
    assert told["text"] == "no browser here"


def test_a_client_that_ends_the_process_is_told_of_like_one_that_raises(client: Path) -> None:
    told = ask(client, say(http_answer(b"{}")), "leaves", "nothing")

    assert told[0]["names"][0] == "builtins.SystemExit"
    assert told[0]["text"] == "that is all"
    assert told[1]["names"] == []


def test_an_environment_without_caveclient_is_told_as_that(tmp_path: Path) -> None:
    [told] = ask(tmp_path, say(http_answer(b"{}")), "minnie65_public")

    assert told["names"][:2] == ["builtins.ModuleNotFoundError", "builtins.ImportError"]
    assert told["version"] == ""


@pytest.mark.parametrize(
    ("named", "ca_path", "bundle"),
    [
        ({}, None, "/system.pem"),
        ({"SSL_CERT_FILE": "/openssl.pem"}, None, "/openssl.pem"),
        ({"CURL_CA_BUNDLE": "/curl.pem", "SSL_CERT_FILE": "/openssl.pem"}, None, "/curl.pem"),
        ({"REQUESTS_CA_BUNDLE": "/requests.pem"}, None, "/requests.pem"),
        ({"REQUESTS_CA_BUNDLE": "/requests.pem"}, "/named.pem", "/named.pem"),
    ],
)
def test_caveclient_trusts_what_the_check_without_it_trusts(
    named: dict[str, str], ca_path: str | None, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _trust.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_systems, "CERTIFICATES", ("/nowhere.pem", "/system.pem"))
    monkeypatch.setattr(os.path, "isfile", "/system.pem".__eq__)
    assert environment(pwd.getpwuid(os.getuid()), ca_path, os.environ)["REQUESTS_CA_BUNDLE"] == bundle


@pytest.mark.parametrize("content", [None, b"", b"not a certificate\n"], ids=["missing", "empty", "garbage"])
def test_ca_certificates_that_the_user_cannot_use_are_named(content: bytes | None, tmp_path: Path) -> None:
    """requests says of them neither that nor where they are."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    user = pwd.getpwuid(os.geteuid())
    [said] = run_client(Check("/usr/bin/python3", ("minnie65_public",), "token", 5.0, str(path)), user)
    verdict = client_verdict(ClientOutcome(SERVER, tuple(said["names"]), said["text"]), SERVER, "minnie65_public", "")
    assert verdict.verdict == "tls_error"
    assert "the CA certificates cannot be used (" in verdict.message
    assert str(path) in verdict.message
    assert "Give ca_path a readable PEM file" in verdict.remedy
