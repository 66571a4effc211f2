# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server as a process: starting, listening, certificates, many clients, and leaving nothing behind."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
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


def test_help_tells_the_faults() -> None:
    done = subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, text=True)
    assert "gzip_bomb" in done.stdout
    assert "--die-with" in done.stdout


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


def test_not_listening_refuses_connections_and_forgets_nothing(cave: CaveServer) -> None:
    person = cave.add_person("alice")
    session = requests.Session()
    assert session.get(f"{cave.url}/info/version", timeout=10).status_code == 200
    cave.set_listening(False)
    with pytest.raises(requests.exceptions.ConnectionError):
        session.get(f"{cave.url}/info/version", timeout=10)
    cave.set_listening(True)
    assert session.get(f"{cave.url}/info/version", timeout=10).status_code == 200
    assert cave.person("alice") == person


def test_a_good_certificate_is_trusted_by_its_bundle_alone(cave_tls: CaveServer) -> None:
    assert version(cave_tls, verify=cave_tls.ca).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        version(cave_tls)


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


def test_a_certificate_may_have_further_names(tmp_path: Path) -> None:
    with CaveServer(tls=True, names=["cave.example.org"]) as cave:
        parts = urlsplit(cave.url)
        context = ssl.create_default_context(cafile=cave.ca)
        with (
            socket.create_connection((str(parts.hostname), parts.port or 0)) as plain,
            context.wrap_socket(plain, server_hostname="cave.example.org") as connection,
        ):
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
    assert list(tmp_path.iterdir()) == []


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


def test_it_listens_where_it_is_told() -> None:
    with CaveServer(address="127.0.0.77") as cave:
        assert cave.url.startswith("http://127.0.0.77:")
        assert version(cave).status_code == 200
        parts = urlsplit(cave.url)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", parts.port or 0))


def test_it_listens_at_a_unix_socket_as_well() -> None:
    with tempfile.TemporaryDirectory() as folder:  # its names are short, as those of sockets have to be
        path = Path(folder, "door")
        arguments = [*COMMAND, "--die-with", "stdin", "--socket", str(path)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(path))
            door.sendall(b"GET /info/version HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: door.recv(4096), b""))
        process.terminate()
        assert gone(process)
    assert answer.endswith(b'"4.3.3"\n')


@pytest.mark.parametrize("tls", [False, True])
def test_300_hosts_at_once_are_served_in_seconds(tls: bool, cave: CaveServer, cave_tls: CaveServer) -> None:
    server = cave_tls if tls else cave
    tokens = [server.add_person(f"person{number}", ["minnie65_public"]).token for number in range(30)]

    def prove(number: int) -> int:
        return requests.get(
            f"{server.url}/auth/api/v1/user/cache",
            headers={"Authorization": f"Bearer {tokens[number % 30]}"},
            verify=server.ca or True,
            timeout=30,
        ).status_code

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(300) as pool:
        assert set(pool.map(prove, range(300))) == {200}
    # The clients, in the same two cores, take most of it.
    assert time.monotonic() - start < 20
    assert len(server.requests("/auth/api/v1/user/cache")) == 300
