# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from cave_answers import INVALID, MISSING_PERMISSION, MISSING_TOS, SERVER, STACK, TOKEN, UNKNOWN, answer, page

from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_errors import ClientOutcome, client_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer


def outcome(*names: str, text: str = "", given: Answer | None = None, redirected: bool = False) -> ClientOutcome:
    return ClientOutcome(SERVER, names, text, given, redirected)


HTTP_ERROR = ("requests.exceptions.HTTPError", "requests.exceptions.RequestException", "builtins.OSError")
CONNECTION = ("requests.exceptions.ConnectionError", "requests.exceptions.RequestException", "builtins.OSError")
SSL = ("requests.exceptions.SSLError", *CONNECTION)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (outcome(), "ok"),
        (outcome("caveclient.base.AuthException", text="You have not setup a token to access"), "not_a_cave_server"),
        (outcome(*HTTP_ERROR, text="401 ...", given=answer(401, INVALID)), "invalid_token"),
        (outcome(*HTTP_ERROR, text="403 ...", given=answer(403, MISSING_TOS)), "missing_tos"),
        (outcome(*HTTP_ERROR, text="403 ...", given=answer(403, MISSING_PERMISSION)), "missing_permission"),
        (outcome(*HTTP_ERROR, text="400 ...", given=answer(400, UNKNOWN)), "unknown_datastack"),
        (outcome(*HTTP_ERROR, text="429 ...", given=answer(429, {})), "rate_limited"),
        (outcome(*HTTP_ERROR, text="502 ...", given=page(502)), "server_error"),
        (outcome(*HTTP_ERROR, text="404 ...", given=page(404)), "not_a_cave_server"),
        (
            outcome(*HTTP_ERROR, text=f"401 Client Error: UNAUTHORIZED for url: {SERVER}/info content: b'{{}}'"),
            "client_error",
        ),
        (
            outcome(
                *HTTP_ERROR,
                text=f"401 Client Error: X for url: {SERVER}/info content: {json.dumps(INVALID).encode()!r}",
            ),
            "invalid_token",
        ),
        (
            outcome(*HTTP_ERROR, text=f"401 Client Error: X for url: {SERVER}/info content: b'<html>Log in</html>'"),
            "not_a_cave_server",
        ),
        (outcome(*HTTP_ERROR, text=f"503 Server Error: x for url: {SERVER}/info content:b''"), "server_error"),
        (outcome("simplejson.errors.JSONDecodeError", "json.decoder.JSONDecodeError", text="x"), "not_a_cave_server"),
        (outcome("requests.exceptions.JSONDecodeError", text="x", given=page(200)), "not_a_cave_server"),
        (outcome("requests.exceptions.JSONDecodeError", given=answer(200, b'{"a')), "server_error"),
        (outcome("builtins.KeyError", text="'aligned_volume'", given=answer(200, {})), "not_a_cave_server"),
        (
            outcome(*SSL, text="HTTPSConnectionPool: (Caused by SSLError(SSLCertVerificationError(1, 'x')))"),
            "tls_error",
        ),
        (outcome(*CONNECTION, text="NewConnectionError('x: [Errno 111] Connection refused')"), "unreachable"),
        (outcome(*CONNECTION, text="NameResolutionError('Failed to resolve x')"), "unreachable"),
        (outcome("requests.exceptions.ProxyError", *CONNECTION, text="x"), "unreachable"),
        (outcome("requests.exceptions.InvalidProxyURL", "requests.exceptions.InvalidURL", text="x"), "unreachable"),
        (outcome("requests.exceptions.InvalidSchema", text="Missing dependencies for SOCKS support."), "unreachable"),
        (outcome("requests.exceptions.ReadTimeout", text="x"), "unreachable"),
        (outcome("requests.exceptions.TooManyRedirects", text="Exceeded 30 redirects."), "not_a_cave_server"),
        (outcome("requests.exceptions.InvalidSchema", text="No connection adapters"), "client_error"),
        (outcome("requests.exceptions.InvalidHeader", text="Invalid leading whitespace"), "client_error"),
        (outcome("builtins.ModuleNotFoundError", "builtins.ImportError", text="No module named 'x'"), "client_error"),
        (outcome("builtins.PermissionError", "builtins.OSError", text="[Errno 13]"), "client_error"),
        (outcome("builtins.OSError", text="/opt/x/bin/python cannot be run: Exec format error"), "client_error"),
    ],
)
def test_an_outcome_of_the_real_client(given: ClientOutcome, verdict: str) -> None:
    found = client_verdict(given, SERVER, STACK, TOKEN)
    assert found.verdict == verdict
    assert found.datastack == STACK
    assert found.ok or found.remedy


@pytest.mark.parametrize(
    ("names", "text", "said"),
    [
        (
            CONNECTION,
            "HTTPSConnectionPool(host='global.daf-apis.com', port=443): Max retries exceeded with url: /info/version "
            "(Caused by NameResolutionError(\"HTTPSConnection(host='global.daf-apis.com', port=443): Failed to resolve "
            "'global.daf-apis.com' ([Errno -2] Name or service not known)\"))",
            "the name cannot be resolved",
        ),
        (
            CONNECTION,
            "HTTPConnectionPool(host='127.0.0.1', port=1): Max retries exceeded with url: /info/version (Caused by "
            "NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7f>: Failed to establish a new "
            "connection: [Errno 111] Connection refused'))",
            "connection refused",
        ),
        (
            CONNECTION,
            "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
            "broke off",
        ),
        (
            SSL,
            "HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /info/version (Caused by SSLError("
            "SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get "
            "local issuer certificate (_ssl.c:1006)')))",
            "the server's certificate is not trusted: unable to get local issuer certificate",
        ),
        (
            ("ssl.SSLError",),
            "the CA certificates cannot be used (Permission denied): /srv/ca.pem",
            "to https://global.daf-apis.com: the CA certificates cannot be used (Permission denied): /srv/ca.pem.",
        ),
        (SSL, "(Caused by SSLError(SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong (_ssl.c:1)')))", "WRONG_VERSION"),
        (
            SSL,
            "(Caused by SSLError(SSLEOFError(8, '[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of')))",
            "broke off while TLS was agreed on",
        ),
        (("requests.exceptions.ReadTimeout",), "HTTPConnectionPool(...): Read timed out. (read timeout=5)", "in time"),
        (("builtins.OverflowError",), "the answer is larger than 16 bytes", "larger than 16 bytes"),
        (("subprocess.TimeoutExpired",), "CAVEclient had not ended after 4 s", "had not ended after 4 s"),
    ],
)
def test_the_reason_is_found_inside_what_the_real_client_says(names: tuple[str, ...], text: str, said: str) -> None:
    message = client_verdict(outcome(*names, text=text), SERVER, STACK, TOKEN).message
    assert said in message
    assert "Max retries" not in message


def test_the_real_client_without_a_token_has_no_token() -> None:
    given = outcome("caveclient.base.AuthException", text="You have not setup a token to access", redirected=True)
    assert client_verdict(given, SERVER, STACK, "").verdict == "no_token"


def test_what_the_real_client_says_is_cleaned_and_masked() -> None:
    given = outcome("requests.exceptions.InvalidHeader", text=f"\x1b[31mInvalid header 'Bearer {TOKEN}\\n'")
    found = client_verdict(given, SERVER, STACK, TOKEN)
    assert TOKEN not in str(found)
    assert "\x1b" not in found.message
    assert "Invalid header" in found.message
