# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Server addresses and datastacks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    KNOWN_LOCAL_SERVERS,
    Datastack,
    host_of,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request


@pytest.mark.parametrize(
    ("value", "address", "host"),
    [
        ("https://global.daf-apis.com", "https://global.daf-apis.com", "global.daf-apis.com"),
        (" https://global.daf-apis.com/ ", "https://global.daf-apis.com", "global.daf-apis.com"),
        ("https://Global.Daf-APIs.com", "https://Global.Daf-APIs.com", "Global.Daf-APIs.com"),
        ("http://127.0.0.1:18443", "http://127.0.0.1:18443", "127.0.0.1:18443"),
        ("https://[::1]:8443", "https://[::1]:8443", "[::1]:8443"),
        ("https://localhost:65535", "https://localhost:65535", "localhost:65535"),
    ],
)
def test_an_address_has_one_form_and_keeps_its_letter_case(value: str, address: str, host: str) -> None:
    assert server_address(value) == address
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("global.daf-apis.com", "Did you mean https://global.daf-apis.com?"),
        ("", "no https:// in front"),
        (None, "no https:// in front"),
        (443, "no https:// in front"),
        ("ftp://global.daf-apis.com", "expected https://"),
        ("file:///etc/passwd", "expected https://"),
        ("https://", "not of the form"),
        ("https://global.daf-apis.com/auth", "not of the form"),
        ("https://alice@global.daf-apis.com", "not of the form"),
        ("https://global.daf-apis.com?x", "not of the form"),
        ("https://global.daf-apis.com:0", "not of the form"),
        ("http://global.daf-apis.com", "send the token unencrypted. Use https://global.daf-apis.com."),
        ("http://Minnie.microns-daf.com/", "Use https://Minnie.microns-daf.com."),
        ("http://global.daf-apis.com:80", "Use https://global.daf-apis.com."),
        ("http://GLOBAL.daf-apis.com:8080", "Use https://GLOBAL.daf-apis.com."),
        ("https://global.daf-apis.com:65536", "not of the form"),
        ("https://..", "not of the form"),
        ("https://../../etc", "not of the form"),
        ("https://a b", "not of the form"),
        ("https://a\nb", "not of the form"),
        ("https://a\x1b[31m", "not of the form"),
        ("https://$(id)", "not of the form"),
        ("https://é.example.org", "beyond ASCII). Did you mean https://xn--9ca.example.org?"),
        ("https://\uff43ave.example.org\u200b", "Did you mean https://cave.example.org?"),
        ("HTTPS://cave.example.org", "expected https://. Did you mean https://cave.example.org?"),
        ("middleauth+https://cave.example.org", "Did you mean https://cave.example.org?"),
        ("graphene://https://cave.example.org/segmentation/table/x", "Did you mean https://cave.example.org?"),
        ("https://https://cave.example.org:8443", "Did you mean https://cave.example.org:8443?"),
        ("https:/cave.example.org", "no https:// in front. Did you mean https://cave.example.org?"),
        ("//cave.example.org", "Did you mean https://cave.example.org?"),
        ("cave.example.org/info/", "Did you mean https://cave.example.org?"),
        ("https://cave.example.org//", "Did you mean https://cave.example.org?"),
        ("https://cave.example.org.", "Did you mean https://cave.example.org?"),
        ("http://127.0.0.1:18443/info", "Did you mean http://127.0.0.1:18443?"),
        ("https://" + "a" * 201, "not of the form"),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(value: object, reason: str) -> None:
    with pytest.raises(CaveError) as caught:
        server_address(value)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "https://alice:secret@cave.example.org",
        "https://alice:sec@ret/secret@cave.example.org/",
        "alice:secret@cave.example.org",
        "ftp://alice:secret@cave.example.org",
        "https://cave.example.org/?middle_auth_token=5ec2e70123456789abcdef0123456789",
        ["https://alice:secret@cave.example.org"],
    ],
)
def test_a_password_or_a_token_in_an_address_is_not_shown(value: object) -> None:
    with pytest.raises(CaveError) as caught:
        server_address(value)
    assert "secret" not in caught.value.message
    assert "5ec2e7" not in caught.value.message
    assert "cave.example.org" in caught.value.message


@given(st.text(max_size=60))
def test_a_host_is_always_one_harmless_part_of_a_file_name(text: str) -> None:
    try:
        host = host_of(server_address(f"https://{text}"))
    except CaveError:
        return
    assert "/" not in host
    assert host not in ("", ".", "..")
    assert host.isascii()
    assert host.isprintable()


def test_datastacks_are_names_or_mappings() -> None:
    value = ["minnie65_public", {"name": "mine"}, {"name": "ours", "local_server": "https://local.example.org/"}]
    assert parse_datastacks(value, DEFAULT_SERVER) == [
        Datastack("minnie65_public", "https://minnie.microns-daf.com"),
        Datastack("mine", ""),
        Datastack("ours", "https://local.example.org"),
    ]


def test_a_local_server_that_is_named_overrides_the_known_one() -> None:
    value = [{"name": "minnie65_public", "local_server": "https://elsewhere.example.org"}]
    assert parse_datastacks(value, DEFAULT_SERVER) == [Datastack("minnie65_public", "https://elsewhere.example.org")]


@pytest.mark.parametrize("server", ["https://GLOBAL.daf-apis.com", "https://global.daf-apis.com:443"])
def test_local_servers_are_known_however_their_auth_server_is_typed(server: str) -> None:
    assert parse_datastacks(["minnie65_public"], server) == [
        Datastack("minnie65_public", "https://minnie.microns-daf.com")
    ]
    request = Request(server, [], "token", "t")
    assert "minnie.microns-daf.com-cave-secret.json" in request.family()


def test_local_servers_are_known_for_their_own_auth_server_alone() -> None:
    assert parse_datastacks(["minnie65_public"], "https://other.example.org") == [Datastack("minnie65_public", "")]


@pytest.mark.parametrize("item", [7, None, [], {}, {"name": 7}, {"name": "x", "server": "y"}, "", "a b", "../x"])
def test_what_is_no_datastack_is_refused(item: object) -> None:
    with pytest.raises(CaveError):
        parse_datastacks([item], DEFAULT_SERVER)


def test_every_deployment_that_is_known_is_well_formed() -> None:
    for server, datastacks in KNOWN_LOCAL_SERVERS.items():
        assert server_address(server) == server
        assert parse_datastacks(datastacks, server) == [Datastack(*pair) for pair in datastacks.items()]
