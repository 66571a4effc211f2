# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""caveclient (three releases), cloud-volume and cloud-files, for real, all send the same token after saved_token."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import (
    DEFAULT_FILE,
    HOST,
    LEGACY_FILE,
    LOCAL_FILE,
    LOCAL_HOST,
    NEW_TOKEN,
    OLD_TOKEN,
    OTHER_TOKEN,
    SERVER,
    SERVER_FILE,
    fill,
    secrets_of,
)
from module_runner import run_module
from real_readers import Answers, RealReaders, real_readers

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from cave_server import CaveServer

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="module")
def readers(caveclient_python: Callable[..., Path]) -> Iterator[RealReaders]:
    """The real programs."""
    with real_readers(caveclient_python) as found:
        yield found


def saved(home: Path, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    arguments = {"token": NEW_TOKEN, "datastacks": ["minnie65_public"], "validate": False, **options}
    outcome = run_module("saved_token", arguments, home, environment=environment)
    assert outcome.ok, outcome.message
    found: dict[str, Any] = outcome.result["users"][0]
    return found


def all_send(token: str | None, host: str = HOST) -> Answers:
    """What every reader says when all of them send one token."""
    return {
        **{f"caveclient {version} {host}": token for version in ("8.2.1", "5.31.0", "5.4.0")},
        f"cloud-volume {LOCAL_HOST}": token,
        f"cloud-files {LOCAL_HOST}": token,
        f"cloud-files {host}": token,
    }


OLD = {"token": OLD_TOKEN}
STARTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "legacy-file-alone": {LEGACY_FILE: OLD},
    "stale-server-file": {SERVER_FILE: OLD, DEFAULT_FILE: {"token": NEW_TOKEN}},
    "stale-local-server-file": {LOCAL_FILE: OLD, SERVER_FILE: {"token": NEW_TOKEN}, DEFAULT_FILE: {"token": NEW_TOKEN}},
    "extra-keys-without-a-server-file": {DEFAULT_FILE: {**OLD, "brain_and_nerve_cord": OTHER_TOKEN}},
    "every-file-another-token": {
        SERVER_FILE: OLD,
        LOCAL_FILE: {"token": OTHER_TOKEN},
        DEFAULT_FILE: {"token": OLD_TOKEN[::-1]},
        LEGACY_FILE: {"token": OTHER_TOKEN[::-1]},
    },
    "server-file-without-a-token": {SERVER_FILE: {}, LOCAL_FILE: {}, DEFAULT_FILE: OLD},
}


@pytest.mark.parametrize("files", STARTS.values(), ids=STARTS)
def test_from_every_start_all_readers_send_the_new_token(
    files: dict[str, Any], readers: RealReaders, tmp_path: Path
) -> None:
    fill(tmp_path, files)
    before = readers.ask(tmp_path, SERVER, LOCAL_HOST)
    assert before != all_send(NEW_TOKEN)
    result = saved(tmp_path)
    assert readers.ask(tmp_path, SERVER, LOCAL_HOST) == all_send(NEW_TOKEN)
    assert set(result["readers"].values()) == {fingerprint(NEW_TOKEN)}
    previous = before[f"caveclient 8.2.1 {HOST}"]
    assert result["previous_fingerprint"] == (fingerprint(previous) if previous else None)
    if "brain_and_nerve_cord" in str(files):
        for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE):
            assert json.loads((secrets_of(tmp_path) / name).read_text())["brain_and_nerve_cord"] == OTHER_TOKEN


def test_from_the_leftovers_of_a_caveclient_that_wrote_on_every_use(
    readers: RealReaders, caveclient_python: Callable[..., Path], cave: CaveServer, tmp_path: Path
) -> None:
    old = cave.add_person("alice", permissions=["minnie65_public"], accepted_tos=True).token
    cave.serve("minnie65_public", f"https://{LOCAL_HOST}")
    program = (
        "from caveclient import CAVEclient; import sys; "
        "CAVEclient('minnie65_public', server_address=sys.argv[1], auth_token=sys.argv[2])"
    )
    done = subprocess.run(
        [caveclient_python("5.31.0"), "-c", program, cave.url, old],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "BROWSER": "/bin/true"},
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    host = cave.url.partition("://")[2]
    directory = secrets_of(tmp_path)
    leftovers = {f"{host}-cave-secret.json", LOCAL_FILE}
    assert leftovers <= {path.name for path in directory.iterdir()}
    assert {(directory / name).stat().st_mode & 0o777 for name in leftovers} == {0o644}
    assert readers.ask(tmp_path, cave.url, LOCAL_HOST)[f"cloud-volume {LOCAL_HOST}"] == old

    new = cave.make_token("alice")
    result = saved(tmp_path, token=new, server=cave.url, validate=True)
    assert result["access"]["verdict"] == "ok"
    assert readers.ask(tmp_path, cave.url, LOCAL_HOST) == all_send(new, host)
    assert {path.stat().st_mode & 0o777 for path in directory.glob("*-secret.json")} == {0o600}


def test_with_cloud_volume_dir_in_use(readers: RealReaders, tmp_path: Path) -> None:
    elsewhere = {"CLOUD_VOLUME_DIR": str(tmp_path / "data")}
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    (tmp_path / "data" / "secrets" / DEFAULT_FILE).write_text(json.dumps(OLD))
    fill(tmp_path, {DEFAULT_FILE: OLD})
    saved(tmp_path, environment=elsewhere)
    assert readers.ask(tmp_path, SERVER, LOCAL_HOST, **elsewhere) == all_send(NEW_TOKEN)
    assert readers.ask(tmp_path, SERVER, LOCAL_HOST) == all_send(NEW_TOKEN), "where the variable is not set as well"


def test_after_absent_no_reader_sends_anything(readers: RealReaders, tmp_path: Path) -> None:
    fill(tmp_path, dict.fromkeys((SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, LEGACY_FILE), OLD))
    assert readers.ask(tmp_path, SERVER, LOCAL_HOST) == all_send(OLD_TOKEN)
    saved(tmp_path, state="absent")
    assert readers.ask(tmp_path, SERVER, LOCAL_HOST) == all_send(None)


CONTENTS = ['{"token": "a-token"}', '{"token": "b-token"}', '{"token": ""}', '{"token": null}', "{}", '{"other": "x"}']
# Without the file that is just `null`: caveclient stumbles over it, the others send nothing.
BROKEN = ["", '{"token": "a-', '\ufeff{"token": "a-token"}', "[]", '"a-token"', "{} {}", '{"token": "é"}']


def _fill_at_random(home: Path, chance: random.Random) -> dict[str, str]:
    """Put secrets files of every kind into every place; return the environment that goes with it."""
    places = [secrets_of(home), home / "data" / "secrets", home / ".neuroglancer" / "secrets"]
    places.append(home / ".cloudfiles" / "secrets")
    for place in places:
        place.mkdir(parents=True)
        for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, LEGACY_FILE):
            path = place / name
            match chance.randrange(12):
                case 0 | 1 | 2 | 3:
                    path.write_text(chance.choice(CONTENTS))
                case 4:
                    path.write_text(chance.choice(BROKEN))
                case 5:
                    path.mkdir()
                case 6:
                    path.symlink_to(chance.choice(["nowhere", DEFAULT_FILE, name, f"../../data/secrets/{name}"]))
    return {"CLOUD_VOLUME_DIR": str(home / "data")} if chance.randrange(2) else {}


@pytest.mark.parametrize("seed", range(60))
def test_what_is_said_about_the_readers_is_true(seed: int, readers: RealReaders, tmp_path: Path) -> None:
    environment = _fill_at_random(tmp_path, random.Random(seed))  # noqa: S311 (a test's dice)
    where = _readers.places(str(tmp_path), environment.get("CLOUD_VOLUME_DIR", ""))
    listing = _directory.listing(where)
    told: Answers = {}
    for reading in _readers.read_by_all(listing, where, HOST, [LOCAL_HOST]):
        names = ["8.2.1 ", "5.31.0 ", "5.4.0 "] if reading.reader == "caveclient" else [""]
        told.update(
            {f"{reading.reader} {name}{reading.host}": "raises" if reading.problem else reading.token for name in names}
        )
    found = readers.ask(tmp_path, SERVER, LOCAL_HOST, **environment)
    assert told == {reader: "raises" if isinstance(token, dict) else token for reader, token in found.items()}
