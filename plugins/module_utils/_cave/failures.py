# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a request had no answer: from an exception to its kind, and the reason in words."""

from __future__ import annotations

import http.client
import re
import socket
import ssl

from ansible_collections.connectomics.cave.plugins.module_utils._cave import http as _http
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import (
    BundleError,
    HttpError,
    TooLargeError,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import ProxyError, proxy_for
from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import named_bundle

THROUGH_PROXY = "through the proxy"
"""What is in a reason where the way leads through a proxy of the environment."""
_NO_TUNNEL = re.compile(r"Tunnel connection failed: (\d+)")
"""What http.client says when a proxy does not let a connection through, with the proxy's status."""
_WHO_ARE_YOU = "407"
"""Status of a proxy that wants to know who asks."""


def failure(
    error: BaseException, url: str, stage: str, timeout: float, max_bytes: int, ca_path: str | None
) -> HttpError:
    """Sort an exception of urllib, http.client, ssl or the socket into a kind with a reason."""
    kind, reason = _kind_and_reason(error, url, stage, timeout, max_bytes, ca_path)
    return HttpError(kind, url, reason)


def _kind_and_reason(
    error: BaseException, url: str, stage: str, timeout: float, max_bytes: int, ca_path: str | None
) -> tuple[str, str]:
    proxy = proxy_for(url)
    through = f" ({THROUGH_PROXY} {proxy})" if proxy else ""
    if isinstance(error, BundleError):
        return "ca", f"the CA certificates in {named_bundle(ca_path)} cannot be used: {_os_text(error.args[0])}"
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = named_bundle(ca_path) if re.search("issuer|self.signed", error.verify_message) else ""
        against = f" (by the CA certificates in {trusted})" if trusted else ""
        return "tls", f"the server's certificate is not trusted: {error.verify_message}{against}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "tls", f"the connection broke off while TLS was agreed on{through}"
    if isinstance(error, ssl.SSLError):
        return "tls", f"no TLS connection: {error.reason or 'the server broke off the handshake'}"
    if isinstance(error, socket.timeout):
        if stage == "connect":
            timeout = min(timeout, _http.CONNECT_TIMEOUT)
        return "timeout", _timeout_text(stage, timeout) + through
    if isinstance(error, socket.gaierror):
        return "dns", f"the name{through and ' of the proxy'} cannot be resolved: {error.strerror}{through}"
    if isinstance(error, UnicodeError):
        return "bad_url", "the host name is not a valid one"
    if isinstance(error, ConnectionRefusedError):
        return "refused", f"connection refused{through}"
    if isinstance(error, http.client.InvalidURL):
        return "bad_url", "this is not a valid address"
    if isinstance(error, TooLargeError):
        return "too_large", f"the answer is larger than {max_bytes} bytes"
    if isinstance(error, (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)):
        return "cut", f"the connection broke off before the answer was complete{through}"
    if isinstance(error, http.client.HTTPException):
        return "bad_answer", f"the answer is not HTTP ({type(error).__name__}){through}"
    if isinstance(error, ProxyError):
        return "proxy", str(error)
    if isinstance(error, OSError):
        if proxy and (refused := _NO_TUNNEL.match(str(error))):
            if refused[1] == _WHO_ARE_YOU:
                return "proxy", f"the proxy {proxy} wants a user name and password"
            return "proxy", f"the proxy {proxy} does not let the connection through (status {refused[1]})"
        return "unreachable", f"{_os_text(error)}{through}"
    return "bad_request", f"the request cannot be sent ({type(error).__name__})"


def _os_text(error: BaseException) -> str:
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "no file has such a name"
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__


def _timeout_text(stage: str, timeout: float) -> str:
    what = "no connection" if stage == "connect" else "no complete answer"
    return f"{what} within {round(timeout, 1):g} s"
