# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server as a process: starting, listening, certificates, many clients, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from cave_server import CaveServer

COMMAND = [sys.executable, "-m", "cave_server"]


def version(cave: CaveServer, **options: object) -> requests.Response:
    """Ask for the version."""
    return requests.get(f"{cave.url}/info/version", timeout=10, **options)  # type: ignore[arg-type]  # passed on


def gone(process: subprocess.Popen[str], seconds: float = 5) -> bool:
    """Say whether a process ends in time, and end it if it doesn't."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    finally:
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
    return True


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The server as a command, with a ready file."""
    arguments = [*COMMAND, "--die-with", "stdin", "--ready-file", str(tmp_path / "ready")]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.terminate()
    assert gone(process)


def test_the_ready_file_is_whole_and_its_owners_alone(process: subprocess.Popen[str], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    assert stat.S_IMODE(ready.stat().st_mode) == 0o600
    assert json.loads(ready.read_text())["pid"] == process.pid
    assert list(tmp_path.iterdir()) == [ready]
    assert version(CaveServer.attach(ready)).json() == "4.3.3"


def test_it_ends_at_sigterm(process: subprocess.Popen[str]) -> None:
    process.terminate()
    assert gone(process)
    assert process.returncode == 0


def test_it_ends_with_its_parent(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    assert gone(process)


def test_it_ends_although_a_client_hangs_in_a_fault(process: subprocess.Popen[str], tmp_path: Path) -> None:
    cave = CaveServer.attach(tmp_path / "ready")
    cave.set_fault("/info", "hang")
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{cave.url}/info/version", timeout=0.3)
    parts = urlsplit(cave.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0)) as connection:
        connection.sendall(b"GET /info/version HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        process.terminate()
        assert gone(process)


def test_the_context_manager_leaves_nothing_behind() -> None:
    with CaveServer(tls=True) as cave:
        assert cave.ca
        folder = Path(cave.ca).parent
        pid = cave.pid
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RuntimeError, match="before it was ready"):
        CaveServer(port=taken.getsockname()[1]).start()
    assert "address already in use" in capfd.readouterr().err


def test_the_control_api_wants_its_key_and_tells_mistakes(cave: CaveServer) -> None:
    answer = requests.post(cave._control, json={"call": "clear_requests", "arguments": {}}, timeout=10)
    assert answer.status_code == 403
    with pytest.raises(ValueError, match="no person 'nobody'"):
        cave.make_token("nobody")
    with pytest.raises(ValueError, match="no fault 'cutt'"):
        cave.set_fault("/", "cutt")
    with pytest.raises(ValueError, match="no option 'colour'"):
        cave.configure(colour="blue")
    with pytest.raises(ValueError, match="no call '_listen'"):
        cave._call("_listen", on=False)


def test_reset_gives_a_fresh_world_and_the_options_of_the_start() -> None:
    with CaveServer(cache_ttl=7, legacy=True) as cave:
        person = cave.add_person("alice")
        cave.set_fault("/", "status", status=500)
        cave.set_listening(False)
        cave.reset(legacy=False)
        assert requests.get(f"{cave.url}/info/version", timeout=10).status_code == 200
        with pytest.raises(ValueError, match="no person"):
            cave.tokens("alice")
        assert [entry["path"] for entry in cave.requests()] == ["/info/version"]
        alice = cave.add_person("alice")
        assert alice.id == person.id
        assert alice.token != person.token
        cave.make_token("alice")
        assert len(cave.tokens("alice")) == 2
        cave.reset()
        cave.add_person("alice")
        cave.make_token("alice")
        assert len(cave.tokens("alice")) == 1


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("wrong_host", "doesn't match|mismatch|not valid for"),
        ("expired", "expired"),
        ("untrusted", "unable to get local issuer"),
    ],
)
def test_a_bad_certificate_is_refused_for_its_reason(certificate: str, reason: str) -> None:
    with (
        CaveServer(tls=True, certificate=certificate) as cave,
        pytest.raises(requests.exceptions.SSLError, match=reason),
    ):
        version(cave, verify=cave.ca)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
def test_a_server_may_speak_tls_1_0_alone() -> None:
    with CaveServer(tls=True, tls_version="1.0") as cave:
        with pytest.raises(requests.exceptions.SSLError):
            version(cave, verify=cave.ca)
        parts = urlsplit(cave.url)
        # The reason is the version: who allows it gets in.
        context = ssl.create_default_context(cafile=cave.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        with (
            socket.create_connection((str(parts.hostname), parts.port or 0)) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
        ):
            assert connection.version() == "TLSv1"


def test_the_log_of_requests_names_tokens_by_fingerprint_alone(cave: CaveServer) -> None:
    token = cave.add_person("alice").token
    path = "/info/api/v2/datastack/full/minnie65_public"
    headers = {"Authorization": f"Bearer {token}"}
    requests.get(f"{cave.url}/auth/api/v1/user/token/{token}/ttl", headers=headers, timeout=10)
    requests.get(f"{cave.url}{path}?middle_auth_token={token}", headers=headers, timeout=10)
    requests.get(cave.url + path, cookies={"middle_auth_token": token}, timeout=10)
    log = cave.requests()
    assert token not in json.dumps(log)
    assert [(entry["path"], entry["sent_in"]) for entry in log] == [
        ("/auth/api/v1/user/token/TOKEN/ttl", "header"),
        (path, "header"),
        (path, "cookie"),
    ]
    assert len({entry["fingerprint"] for entry in log}) == 1
