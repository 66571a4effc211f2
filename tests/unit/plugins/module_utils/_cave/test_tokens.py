# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be a token, and how one is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import (
    MAX_TOKEN_LENGTH,
    clean_token,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

BEARER = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=-"


@pytest.mark.parametrize(
    "token",
    [
        "0123456789abcdef0123456789abcdef",
        "12345678901234567890123456789012",
        "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE=",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_~",
        "a" * MAX_TOKEN_LENGTH,
    ],
    ids=["hexadecimal", "digits-alone", "base64", "jwt", "longest"],
)
def test_tokens_of_every_known_server_are_taken(token: str) -> None:
    assert clean_token(token) == token


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", "\u00a0", "  \n"])
def test_surrounding_white_space_is_dropped(space: str) -> None:
    assert clean_token(f"{space}0123456789abcdef{space}") == "0123456789abcdef"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is empty"),
        ("", "is empty"),
        (" \n", "is empty"),
        (12345678901234567890, "quotes"),
        (1.5e22, "quotes"),
        ("1.5e+22", "quotes"),
        ("1e+22", "quotes"),
        ("12.75", "quotes"),
        (True, "quotes"),
        ({"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n6162"}, "not decrypted"),
        ("$ANSIBLE_VAULT;1.1;AES256\n61626364", "not decrypted"),
        ({"token": "0123456789abcdef"}, "a dict"),
        (["0123456789abcdef"], "a list"),
        ("YOUR_TOKEN_HERE", "placeholder"),
        ("your-token", "placeholder"),
        ("PASTE_YOUR_TOKEN_HERE", "placeholder"),
        ("<token>", "character"),
        ("changeme", "placeholder"),
        ("xxxx", "placeholder"),
        ("None", "placeholder"),
        ("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "placeholder"),
        ("{{ vault_token }}", "template"),
        ("'0123456789abcdef'", "quotation marks"),
        ('"0123456789abcdef"', "quotation marks"),
        ("ENC[AES256_GCM,data:p673w==,iv:YY=,aad:UQ=,tag:A=,type:str]", "as SOPS encrypts it"),
        ("Bearer 0123456789abcdef", "begins with 'Bearer'"),
        ("Authorization: Bearer 0123456789abcdef", "begins with 'Bearer'"),
        ('{"token": "0123456789abcdef"}', "content of a secrets file"),
        ("01234567 89abcdef", "white space inside"),
        ("01234567\n89abcdef", "white space inside"),
        ("01234567\u200889abcdef", "white space inside"),
        ("01234567\x0089abcdef", "character"),
        ("01234567\x1b[31m", "character"),
        ("01234567\u200b", "character"),
        ("\ufeff0123456789abcdef", "character"),
        ("0123456789abcdéf", "character"),
        ("\ud80001234567", "character"),
        ("a" * 10240, "10240 characters"),
    ],
)
def test_what_cannot_be_a_token_is_refused_with_the_reason_and_without_the_value(value: object, reason: str) -> None:
    with pytest.raises(CaveError) as caught:
        clean_token(value)
    assert reason in caught.value.message
    assert caught.value.message.startswith("The token ")
    told = caught.value.message + repr(caught.value.details)
    assert "0123456789abcdef" not in told
    assert "aaaaaaaa" not in told
    assert "01234567" not in told
    assert "12345678901234567890" not in told


@given(st.text(max_size=80))
def test_whatever_is_taken_fits_into_a_header(text: str) -> None:
    try:
        token = clean_token(text)
    except CaveError:
        return
    assert token == text.strip()
    assert set(token) <= set(BEARER)
    assert clean_token(token) == token
