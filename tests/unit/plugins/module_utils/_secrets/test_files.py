# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets files: their names, and what can be wrong with one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import (
    MAX_BYTES,
    PROBLEMS,
    Entry,
    Malformed,
    is_secrets_file,
    is_server_file,
    parse,
    server_file,
    values,
)


def test_the_file_of_a_server_is_named_after_host_and_port_as_typed() -> None:
    assert server_file("127.0.0.1:18443") == "127.0.0.1:18443-cave-secret.json"
    assert server_file("Global.Daf-APIs.com") == "Global.Daf-APIs.com-cave-secret.json"


@pytest.mark.parametrize(
    ("name", "server", "secrets"),
    [
        ("cave-secret.json", False, True),
        ("chunkedgraph-secret.json", False, True),
        ("global.daf-apis.com-cave-secret.json", True, True),
        ("cave_datastack_to_server_map.json", False, False),
        ("google-secret.json", False, False),
        ("cave-secret.json.bak", False, False),
        ("cave-secret.json.malformed-1", False, False),
    ],
)
def test_names_of_secrets_files_are_told_from_others(name: str, server: bool, secrets: bool) -> None:
    assert is_server_file(name) == server
    assert is_secrets_file(name) == secrets


@pytest.mark.parametrize(
    ("raw", "code", "detail"),
    [
        (b"", "empty", "is empty"),
        (b" \n\t", "empty", "is empty"),
        (b'\xef\xbb\xbf{"token": "x"}', "bom", "byte order mark"),
        ('{"token": "x"}'.encode("utf-16"), "bom", "byte order mark"),
        (b'{"token": "\xff"}', "not_utf8", "not UTF-8 text (at byte 11)"),
        (b'{"token": "0123', "not_json", "not JSON (at line 1 column 11)"),
        (b'{"token":\n "x",\n}', "not_json", "(at line 3 column 1)"),
        (b'// mine\n{"token": "x"}', "not_json", "(at line 1 column 1)"),
        (b"token: x", "not_json", "not JSON"),
        (b"\x00\x00", "not_json", "not JSON"),
        (b'["x"]', "not_an_object", "not an object"),
        (b'"x"', "not_an_object", "not an object"),
        (b"null", "not_an_object", "not an object"),
        (b"7", "not_an_object", "not an object"),
        (b'{"a":' + b"[" * 50000, "not_json", "not JSON"),
        (b"{" + b" " * MAX_BYTES + b"}", "too_large", "larger than 64 KiB"),
    ],
)
def test_a_malformed_file_is_refused_with_what_is_wrong_where(raw: bytes, code: str, detail: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(raw)
    assert caught.value.code == code
    assert detail in str(caught.value)


def test_the_largest_file_is_taken() -> None:
    raw = b"{" + b" " * (MAX_BYTES - 2) + b"}"
    assert parse(raw) == raw.decode()


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":, \ufeffnulx1', max_size=40).map(str.encode))
def test_whatever_is_taken_is_an_object_for_the_readers_as_well_and_kept(raw: bytes) -> None:
    try:
        text = parse(raw)
    except Malformed as error:
        assert error.code in PROBLEMS
        return
    assert text.encode() == raw
    assert isinstance(json.loads(raw.decode()), dict)


@given(st.binary(min_size=8, max_size=40))
def test_what_is_said_about_a_file_shows_nothing_of_it(raw: bytes) -> None:
    raw = b"0123456789abcdef" + raw
    with pytest.raises(Malformed) as caught:
        parse(raw)
    assert "0123456" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_values_are_those_of_a_json_reader_the_last_of_a_repeated_key() -> None:
    assert values('{"token": "1", "n": 7, "t": true, "token": "2"}') == {"token": "2", "n": "7", "t": True}


def test_an_entry_without_sound_text_has_no_values() -> None:
    assert Entry(0o600, 0, 0, True, '{"token": "x"}', None, "").get("token") == "x"
    assert Entry(0o600, 0, 0, True, '{"token": "x"}', None, "").get("other") is None
    assert Entry(0o600, 0, 0, True, None, "empty", "is empty").get("token") is None
