# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server as a process: starting, listening, certificates, many clients, and leaving nothing behind."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
