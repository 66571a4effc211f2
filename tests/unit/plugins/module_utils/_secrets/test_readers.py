# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which file each CAVE program takes: one table row for each sentence of its documentation or source."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import Entry
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import (
    Places,
    places,
    read_by_all,
    read_by_caveclient,
    read_by_cloud_files,
    read_by_cloud_volume,
)

HOME = "/home/alice"
USUAL = f"{HOME}/.cloudvolume/secrets"
HOST = "global.daf-apis.com"
LOCAL = "minnie.microns-daf.com"
WHERE = places(HOME)
ELSEWHERE = places(HOME, cloud_volume_dir="/data/cv", cloud_files_dir="/data/cf")


def sound(**members: Any) -> Entry:
    return Entry(0o600, 1000, 1000, True, json.dumps(members), None, "")


def bad(problem: str, is_file: bool = True) -> Entry:
    return Entry(0o600, 1000, 1000, is_file, None, problem, "is bad")


H_FILE = f"{USUAL}/{HOST}-cave-secret.json"
S_FILE = f"{USUAL}/{LOCAL}-cave-secret.json"
DEFAULT = f"{USUAL}/cave-secret.json"
LEGACY = f"{USUAL}/chunkedgraph-secret.json"


def test_where_the_readers_look_without_any_variable() -> None:
    assert WHERE == Places(
        USUAL,
        (USUAL, f"{HOME}/.neuroglancer/secrets", "/secrets"),
        (USUAL, "/", f"{HOME}/.cloudfiles/secrets"),
    )


def test_where_the_readers_look_with_their_variables() -> None:
    assert ELSEWHERE == Places(
        USUAL,
        ("/data/cv/secrets", f"{HOME}/.neuroglancer/secrets", "/secrets"),
        ("/data/cv/secrets", "/", "/data/cf/secrets"),
    )


def test_a_place_of_ones_own_stands_in_for_the_usual_one() -> None:
    where = places(HOME, secrets_dir="/srv/secrets")
    assert where.caveclient == where.cloud_volume[0] == where.cloud_files[0] == "/srv/secrets"


@pytest.mark.parametrize(
    ("files", "path", "token", "problem"),
    [
        pytest.param({}, None, None, None, id="nothing"),
        pytest.param({H_FILE: sound(token="h"), DEFAULT: sound(token="d")}, H_FILE, "h", None, id="server-file-first"),
        pytest.param({DEFAULT: sound(token="d"), LEGACY: sound(token="l")}, DEFAULT, "d", None, id="then-default"),
        pytest.param({LEGACY: sound(token="l")}, LEGACY, "l", None, id="then-legacy"),
        pytest.param(
            {H_FILE: sound(other="x"), DEFAULT: sound(token="d"), LEGACY: sound(token="l")},
            LEGACY,
            "l",
            None,
            id="a-server-file-without-token-leads-to-legacy-never-back-to-default",
        ),
        pytest.param({H_FILE: sound(), DEFAULT: sound(token="d")}, H_FILE, None, None, id="so-that-none-is-found"),
        pytest.param({H_FILE: sound(token=None), LEGACY: sound(token="l")}, LEGACY, "l", None, id="null-is-none"),
        pytest.param({H_FILE: sound(token=""), LEGACY: sound(token="l")}, H_FILE, "", None, id="empty-is-a-token"),
        pytest.param({S_FILE: sound(token="s")}, None, None, None, id="another-servers-file-is-nothing-to-it"),
        pytest.param(
            {H_FILE: bad("directory", is_file=False), DEFAULT: sound(token="d")}, DEFAULT, "d", None, id="directory"
        ),
        pytest.param({H_FILE: bad("not_json"), DEFAULT: sound(token="d")}, H_FILE, None, "not_json", id="malformed"),
        pytest.param({DEFAULT: bad("directory", is_file=False)}, DEFAULT, None, "directory", id="default-a-directory"),
        pytest.param({DEFAULT: sound(), LEGACY: bad("empty")}, LEGACY, None, "empty", id="legacy-malformed"),
        pytest.param({DEFAULT: sound(token="d"), LEGACY: bad("empty")}, DEFAULT, "d", None, id="legacy-not-reached"),
    ],
)
def test_caveclient(files: dict[str, Entry], path: str | None, token: str | None, problem: str | None) -> None:
    reading = read_by_caveclient(files, WHERE, HOST)
    assert (reading.path, reading.token, reading.problem) == (path, token, problem)


def test_caveclient_takes_any_key() -> None:
    files = {H_FILE: sound(token="h", banc="b")}
    assert read_by_caveclient(files, WHERE, HOST, "banc").token == "b"


def test_no_variable_moves_caveclient() -> None:
    files = {"/data/cv/secrets/cave-secret.json": sound(token="cv"), DEFAULT: sound(token="d")}
    assert read_by_caveclient(files, ELSEWHERE, HOST).token == "d"


@pytest.mark.parametrize(
    ("files", "path", "token", "problem"),
    [
        pytest.param({}, None, None, None, id="nothing"),
        pytest.param({S_FILE: sound(token="s"), DEFAULT: sound(token="d")}, S_FILE, "s", None, id="local-server-first"),
        pytest.param({DEFAULT: sound(token="d"), LEGACY: sound(token="l")}, DEFAULT, "d", None, id="then-default"),
        pytest.param({LEGACY: sound(token="l")}, LEGACY, "l", None, id="then-legacy"),
        pytest.param({S_FILE: sound(), DEFAULT: sound(token="d")}, S_FILE, None, None, id="no-falling-through"),
        pytest.param({H_FILE: sound(token="h")}, None, None, None, id="the-auth-servers-file-is-nothing-to-it"),
        pytest.param({S_FILE: bad("bom"), DEFAULT: sound(token="d")}, S_FILE, None, "bom", id="malformed"),
        pytest.param(
            {f"{HOME}/.neuroglancer/secrets/cave-secret.json": sound(token="n")},
            f"{HOME}/.neuroglancer/secrets/cave-secret.json",
            "n",
            None,
            id="the-older-place",
        ),
        pytest.param(
            {f"/secrets/{LOCAL}-cave-secret.json": sound(token="o"), DEFAULT: sound(token="d")},
            f"/secrets/{LOCAL}-cave-secret.json",
            "o",
            None,
            id="a-server-file-in-an-old-place-comes-before-the-default-one",
        ),
    ],
)
def test_cloud_volume(files: dict[str, Entry], path: str | None, token: str | None, problem: str | None) -> None:
    reading = read_by_cloud_volume(files, WHERE, LOCAL)
    assert (reading.path, reading.token, reading.problem) == (path, token, problem)


def test_cloud_volume_dir_moves_cloud_volume_and_cloud_files() -> None:
    files = {"/data/cv/secrets/cave-secret.json": sound(token="cv"), S_FILE: sound(token="s")}
    assert read_by_cloud_volume(files, ELSEWHERE, LOCAL).token == "cv"
    assert read_by_cloud_files(files, ELSEWHERE, LOCAL).token == "cv"


@pytest.mark.parametrize(
    ("files", "path", "token"),
    [
        pytest.param({}, None, None, id="nothing"),
        pytest.param({S_FILE: sound(token="s"), DEFAULT: sound(token="d")}, S_FILE, "s", id="server-file-first"),
        pytest.param({DEFAULT: sound(token="d")}, DEFAULT, "d", id="then-default"),
        pytest.param({LEGACY: sound(token="l")}, None, None, id="never-legacy"),
        pytest.param({"/cave-secret.json": sound(token="r")}, "/cave-secret.json", "r", id="the-root-directory"),
        pytest.param(
            {f"{HOME}/.cloudfiles/secrets/cave-secret.json": sound(token="f")},
            f"{HOME}/.cloudfiles/secrets/cave-secret.json",
            "f",
            id="its-own-place-last",
        ),
    ],
)
def test_cloud_files(files: dict[str, Entry], path: str | None, token: str | None) -> None:
    reading = read_by_cloud_files(files, WHERE, LOCAL)
    assert (reading.path, reading.token) == (path, token)


def test_every_reader_is_asked_about_every_server_that_it_talks_to() -> None:
    found = [(reading.reader, reading.host) for reading in read_by_all({}, WHERE, HOST, [LOCAL, LOCAL])]
    assert found == [
        ("caveclient", HOST),
        ("cloud-volume", LOCAL),
        ("cloud-files", LOCAL),
        ("cloud-files", HOST),
    ]


def test_without_a_local_server_the_auth_server_is_asked_about() -> None:
    found = [(reading.reader, reading.host) for reading in read_by_all({}, WHERE, HOST, [])]
    assert found == [("caveclient", HOST), ("cloud-volume", HOST), ("cloud-files", HOST)]


def test_under_another_key_only_caveclient_reads() -> None:
    assert [reading.reader for reading in read_by_all({}, WHERE, HOST, [LOCAL], "banc")] == ["caveclient"]
