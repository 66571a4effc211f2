# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is secret among arguments and in text is hidden and, in the wrong place, refused; the rest is readable."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import secrets as random_secrets
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._masking import (
    HIDDEN,
    fingerprint,
    looks_like_a_token,
    mask,
    mask_credentials,
    masked,
    misplaced_secret,
    secrets_among,
    shown_arguments,
    strings_out_of_place,
)

SECRET = "0123456789abcdef0123456789abcdef"
BASE64 = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="
SPEC: dict[str, Any] = {
    "user": {"type": "str"},
    "users": {"type": "list", "elements": "str"},
    "people": {"type": "list", "elements": "raw"},
    "token": {"type": "raw", "no_log": True},
    "index_url": {"type": "str", "no_log": True},
    "rate": {"type": "float"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "validate": {"type": "bool"},
    "place": {"type": "dict", "options": {"path": {"type": "str"}}},
    "tokens": {
        "type": "list",
        "elements": "dict",
        "options": {"user": {"type": "str"}, "token": {"type": "raw", "no_log": True}},
    },
}
MODULES = ("saved_token", "saved_token_info", "verify_access", "server_token", "server_token_info", "caveclient")
OPTIONS = [
    (module, option)
    for module in MODULES
    for option, how in importlib.import_module(f"ansible_collections.connectomics.cave.plugins.modules.{module}")
    .ARGUMENTS["argument_spec"]
    .items()
    if not how.get("no_log")
]


def spec_of(module: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module(
        f"ansible_collections.connectomics.cave.plugins.modules.{module}"
    ).ARGUMENTS["argument_spec"]
    return found


@pytest.mark.parametrize("token", [12345678901234567890, BASE64])
def test_a_token_of_any_form_is_hidden(token: object) -> None:
    assert strings_out_of_place({"tokens": [{"tokne": token}]}, SPEC) == {str(token)}


@pytest.mark.parametrize(
    "params",
    [
        {"user": "a-rather-long-name", "token": SECRET},
        {"tokens": [{"user": "a-rather-long-name", "token": SECRET}]},
        {"tokens": None, "place": None},
        {"place": {"path": "/a/rather/long/path"}},
        {"tokens": []},
        {"_ansible_remote_tmp": "/a/rather/long/path"},
        {"chekc": True, "stat": "present", "n": 7},
        {"state": "presnt", "rate": "soon", "validate": "maybe"},
    ],
)
def test_what_stands_in_its_place_or_is_short_stays_readable(params: dict[str, Any]) -> None:
    assert strings_out_of_place(params, SPEC) == set()
    assert misplaced_secret(params, SPEC) == ""


@pytest.mark.parametrize(("module", "option"), OPTIONS)
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"  {SECRET}\n",
        int("1" * 32),
        BASE64,
        [SECRET],
        [{"user": "alice", "token": SECRET}],
        {"alice": SECRET},
        {SECRET: "alice"},
        f"user=alice token={SECRET}",
        f'[{{"token": "{SECRET}"}}]',
    ],
)
def test_a_token_in_an_option_that_is_not_for_tokens_is_refused_and_not_shown(
    module: str, option: str, value: Any
) -> None:
    spec = spec_of(module)
    takes_mappings = spec[option]["type"] == "list" and bool(spec[option].get("options"))
    holds_tokens = takes_mappings and isinstance(value, list) and isinstance(value[0], dict)
    complaint = misplaced_secret({option: value}, spec)
    assert bool(complaint) is not holds_tokens
    assert complaint.startswith(option) or not complaint
    for shown in (complaint, json.dumps(shown_arguments({option: value}, spec))):
        assert not [word for word in (SECRET, "1" * 32, BASE64) if word in shown]


@pytest.mark.parametrize(
    "params",
    [
        {"server": "https://alice:hunter2@cave.example.org"},
        {"server": "https://hunter2@cave.example.org"},
        {"tokens": [{"token": SECRET, "server": "https://alice:hunter2@cave.example.org"}]},
        {"datastacks": [{"name": "mouse", "local_server": "https://alice:hunter2@local.example.org"}]},
    ],
)
def test_a_password_in_the_address_of_a_server_is_refused_and_not_shown(params: dict[str, Any]) -> None:
    complaint = misplaced_secret(params, spec_of("saved_token"))
    assert "has a user name or password in a URL" in complaint
    assert "hunter2" not in complaint


@given(st.sampled_from(OPTIONS), st.integers(min_value=16, max_value=64), st.booleans())
def test_whatever_token_a_server_makes_is_refused_in_any_option(
    place: tuple[str, str], size: int, is_hex: bool
) -> None:
    module, option = place
    raw = random_secrets.token_bytes(16 if is_hex else max(size, 32))
    token = raw.hex() if is_hex else base64.b64encode(raw).decode()
    assume(token[0] != "/" or token[-1] == "=")  # else it may be a path
    assert misplaced_secret({option: token}, spec_of(module))


@pytest.mark.parametrize(
    "text",
    [
        "minnie65_public",
        "https://global.daf-apis.com",
        "/srv/projects/connectomics/shared/CAVE2026/secrets/of/everybody",
        "~/.cloudvolume/secrets/and/a/very/long/path/below/it/2026",
        "vault_cave_token_of_the_whole_laboratory_for_connectomics",
        "Rotated_2026-11-26_by_the_controller_of_the_laboratory_01",
        "git+https://github.com/CAVEconnectome/CAVEclient@0123456789abcdef0123456789abcdef01234567",
        "numpy==2.1.0 --hash=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "550e8400-e29b-41d4-a716-446655440000",
        "3fa9c2d1",
    ],
)
def test_what_is_no_token_is_not_taken_for_one(text: str) -> None:
    assert not looks_like_a_token(text)
    assert shown_arguments({"user": text}, SPEC) == {"user": text}


@pytest.mark.parametrize(
    "text",
    [
        *("alice:{}", "alice@{}", "<{}>", "`{}`", "{}.", "{}!", "a|{}", "\u200b{}", "\ufeff{}", " {}\n"),
        *("https://cave.example.org/?token={}&x=1", "${}", "*{}*", "{}\\n"),
    ],
)
def test_a_token_is_found_with_whatever_was_typed_or_copied_around_it(text: str) -> None:
    for token in (SECRET, SECRET.upper()):
        complaint = misplaced_secret({"users": [text.format(token)]}, SPEC)
        assert complaint == "users[1] looks like a token. Is the token in the wrong place?"


@pytest.mark.parametrize(
    "text", [f"/srv/{SECRET}", f"~/{SECRET}.json", f"cache_{SECRET}", f"{SECRET}-1.whl", f"lab-{SECRET}", f"{SECRET}/a"]
)
def test_a_digest_in_a_name_is_no_token(text: str) -> None:
    assert not looks_like_a_token(text)


@pytest.mark.parametrize("option", ["find_links", "packages", "constraints", "version", "extras", "python", "path"])
def test_a_password_in_the_address_of_packages_is_refused_and_not_shown(option: str) -> None:
    address = "https://lab:p@ssw0rd@pypi.lab.example/simple"
    is_list = spec_of("caveclient")[option]["type"] == "list"
    given = {option: [f"x @ {address}"] if is_list else address}
    complaint = misplaced_secret(given, spec_of("caveclient"))
    assert "has a user name or password in a URL, and would be seen in logs" in complaint
    assert "ssw0rd" not in complaint + json.dumps(shown_arguments(given, spec_of("caveclient")))


def test_a_key_that_is_a_token_is_hidden() -> None:
    assert SECRET not in json.dumps(shown_arguments({"people": [{SECRET: "alice"}], SECRET: 1}, SPEC))
    assert misplaced_secret({SECRET: "x"}, SPEC) == (
        "The name of an option looks like a token. Is the token in the wrong place?"
    )


@pytest.mark.parametrize(
    "params", [{"user": "a\ud800"}, {"tokens": [{"token": "\udc80"}]}, {"people": [{"a\udfff": 1}]}]
)
def test_half_of_a_surrogate_pair_is_named(params: dict[str, Any]) -> None:
    assert "not valid Unicode" in misplaced_secret(params, SPEC)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(SPEC)), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SPEC, "tokne"]), JSON, max_size=4))
def test_whatever_the_arguments_are_no_token_is_shown(params: dict[str, Any]) -> None:
    assert SECRET not in json.dumps(shown_arguments(params, SPEC))
    assert SECRET not in misplaced_secret(params, SPEC)


def test_what_is_shown_still_says_what_a_task_was_about() -> None:
    params = {"user": "alice", "validate": True, "rate": 0.5, "tokens": [{"user": "bob", "token": SECRET}]}
    assert shown_arguments(params, SPEC) == {**params, "tokens": [{"user": "bob", "token": "********"}]}


def test_secrets_are_those_of_the_options_that_say_so() -> None:
    params = {
        "user": "alice",
        "tokens": [{"user": "bob", "token": BASE64}],
        "token": [SECRET, 12345678, True, None, ""],
    }
    assert secrets_among(params, SPEC) == {SECRET, "12345678", BASE64}
    assert secrets_among({"tokens": SECRET}, SPEC) == set()


@pytest.mark.parametrize("value", [7, 7.5, True, None, "a text", ["a", {"b": ("c",)}]])
def test_what_holds_no_secret_stays_as_it_is(value: object) -> None:
    assert json.dumps(masked(value, {SECRET})) == json.dumps(value)
    assert masked(value, set()) is value


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert masked("x abcdefgh y", {"abc", "abcdefgh"}) == "x ******** y"
    assert masked(12345678, {"12345678"}) == HIDDEN


def test_a_fingerprint_is_the_beginning_of_the_sha256() -> None:
    assert fingerprint("0123456789abcdef") == hashlib.sha256(b"0123456789abcdef").hexdigest()[:8]


def test_a_fingerprint_is_made_of_whatever_a_file_holds() -> None:
    assert len(fingerprint("\ud800é")) == 8


def test_masking_replaces_every_token_the_longest_first() -> None:
    short, long = "0123456789abcdef", "0123456789abcdef0123"
    text = mask(f"{long} {short} and {short}", [short, long, ""])
    assert text == f"<token {fingerprint(long)}> <token {fingerprint(short)}> and <token {fingerprint(short)}>"


@pytest.mark.parametrize("password", ["pw", "p@ss", "p@s@s", "p/w", "p@s/s", "p#w?", "'p\"w'", ":p:w"])
def test_a_password_in_a_url_is_hidden_whole(password: str) -> None:
    text = mask_credentials(f"Looking in https://lab:{password}@pypi.lab.example/simple, and no further")
    assert text == "Looking in https://********@pypi.lab.example/simple, and no further"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://token@lab.example/x", "https://********@lab.example/x"),
        ("git+ssh://git@lab.example/x", "git+ssh://********@lab.example/x"),
        ("https://lab.example/a@b", "https://lab.example/a@b"),
        ("https://lab.example:8080/a@b", "https://lab.example:8080/a@b"),
        ("mail me@lab.example", "mail me@lab.example"),
    ],
)
def test_a_url_without_a_password_stays_readable(text: str, shown: str) -> None:
    assert mask_credentials(text) == shown
