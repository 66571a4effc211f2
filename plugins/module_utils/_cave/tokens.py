# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens: what can be one, how to name one without showing it."""

from __future__ import annotations

import re

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

MAX_TOKEN_LENGTH = 4096
"""Characters. The longest token that a CAVE server is known to make has 44; HTTP servers refuse headers over 8 KiB."""

# RFC 6750, section 2.1: the characters of a bearer token. Anything else breaks the header, or was never a token.
_BEARER_CHARACTERS = re.compile(r"[A-Za-z0-9._~+/=-]+")
_PLACEHOLDER = re.compile(
    r"""(paste|your|my)[a-z_.-]*token([_.-]?here)?   # YOUR_TOKEN_HERE and kin
    | token([_.-]?here)? | secret | password | placeholder | example
    | change[_.-]?me | replace[_.-]?me | todo | tbd | fixme
    | none | null | nil | undefined | true | false | yes | no | nan | inf | omit
    | x{3,} | \.{3,} | _+ | -+
    | value_specified_in_no_log_parameter""",
    re.IGNORECASE | re.VERBOSE,
)
_PRINTED_FLOAT = re.compile(r"\d+\.\d+|\d(\.\d+)?e[+-]\d+")


def clean_token(value: object) -> str:
    """Return the token that ``value`` holds, without surrounding white space.

    Args:
        value: what the user gave; of any type, because YAML and templates hand on what they read.

    Returns:
        The token: 1 to ``MAX_TOKEN_LENGTH`` characters of RFC 6750's bearer alphabet.

    Raises:
        CaveError: the value cannot be a token. The message says why and never shows the value.
    """
    if value is None:
        raise CaveError("The token is empty. Give the token that the server's token page shows.")
    if isinstance(value, bool):
        raise CaveError("The token is a YAML boolean, not a string. Put the token in quotes.")
    if isinstance(value, (int, float)):
        raise CaveError("The token is a number: YAML read it as one, which loses characters. Put the token in quotes.")
    if isinstance(value, dict) and "__ansible_vault" in value:
        raise CaveError("The token is a vault string that was not decrypted. Give the vault password of this string.")
    if not isinstance(value, str):
        raise CaveError(f"The token is a {type(value).__name__}, not a string.")
    token = value.strip()
    if not token:
        raise CaveError("The token is empty. Give the token that the server's token page shows.")
    if token.startswith("$ANSIBLE_VAULT"):
        raise CaveError(
            "The token is a vault string that was not decrypted. Mark it with !vault, and give the vault password."
        )
    if len(token) > MAX_TOKEN_LENGTH:
        raise CaveError(
            f"The token has {len(token)} characters; no token has more than {MAX_TOKEN_LENGTH}. "
            "Is it the content of a whole file?"
        )
    if "{{" in token or "{%" in token:
        raise CaveError("The token is a template that was not filled in. Check the variable's quotes and its name.")
    if token[0] in "\"'" or token[-1] in "\"'":
        raise CaveError("The token has quotation marks in its value. Give the characters between them alone.")
    if token.startswith("ENC["):
        raise CaveError(
            "The token is as SOPS encrypts it. Read it with lookup('connectomics.cave.stored_token', 'FILE#KEY'), "
            "and set caveclient_store to sops."
        )
    if re.match(r"(authorization:\s*)?bearer\s", token, re.IGNORECASE):
        raise CaveError("The token begins with 'Bearer', as in an HTTP header. Give what follows it alone.")
    if token[0] == "{":
        raise CaveError('The token is the content of a secrets file. Give the characters behind "token" alone.')
    if re.search(r"\s", token):
        raise CaveError("The token has white space inside. Give one token, on one line.")
    if not _BEARER_CHARACTERS.fullmatch(token):
        raise CaveError(
            "The token has a character that no bearer token has (allowed: letters, digits and . _ ~ + / = -). "
            "Copy it again from the server's token page."
        )
    if _PLACEHOLDER.fullmatch(token):
        raise CaveError("The token is a placeholder from an example. Put the real token in its place.")
    if _PRINTED_FLOAT.fullmatch(token):
        raise CaveError("The token is a number: YAML read it as one, which loses characters. Put the token in quotes.")
    return token
