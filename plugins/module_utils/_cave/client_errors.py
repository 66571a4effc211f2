# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From how the real caveclient ended to a verdict: pure functions."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import datastack_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import (
    failure_verdict,
    not_cave_remedy,
    not_cave_verdict,
    report_remedy,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    clean_text,
    no_token_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._ends import AFTER_A_SIGNAL


class ClientOutcome(NamedTuple):
    """How ``CAVEclient(datastack)`` ended in a process of its own.

    ``names`` are the exception's class and its ancestors, with modules, the class itself first; empty when there is
    none. ``answer`` is the HTTP answer that made it fail, where there was one; ``redirected`` whether a redirect led
    there. ``server`` is the address that caveclient used, as far as it got.
    """

    server: str
    names: tuple[str, ...] = ()
    text: str = ""
    answer: Answer | None = None
    redirected: bool = False
    local_server: str = ""


_REASONED = 4000  # characters of an exception's text in which a reason is looked for
_FAILURES = (
    ("tls", {"SSLError", "SSLCertVerificationError"}),
    ("too_large", {"MemoryError", "OverflowError"}),
    ("proxy", {"ProxyError", "InvalidProxyURL", "ProxySchemeUnknown"}),
    ("timeout", {"Timeout", "ConnectTimeout", "ReadTimeout", "TimeoutError", "TimeoutExpired"}),
    ("cut", {"ConnectionError", "RetryError", "ChunkedEncodingError"}),
)
"""Which of the failures of HTTP the exceptions of requests are; the first one that fits counts."""
_NOT_RUN = (("builtins.OSError",), ("builtins.ChildProcessError",))
"""What ``client`` calls a Python that does not start, or ends before it says a word."""
_ENDED_BY_A_SIGNAL = ("subprocess.CalledProcessError",)
_HTTP_ERROR_TEXT = re.compile(
    r"\s*(?P<status>[1-5][0-9]{2}) (?:Client|Server) Error: .*? for url: (?P<url>\S+)", re.DOTALL
)


def client_verdict(outcome: ClientOutcome, server: str, datastack: str, token: str) -> Verdict:
    """Return the verdict on an outcome of the real caveclient.

    ``server`` is the address that was used, ``token`` the one that was sent ("" when there was none).
    """
    names = {name.rpartition(".")[2] for name in outcome.names}
    text = clean_text(outcome.text, [token] if token else [], _REASONED)
    if not outcome.names:
        message = f"CAVEclient('{datastack}') works, with {server}."
        return Verdict("ok", message, "", server, datastack, local_server=outcome.local_server)
    if outcome.answer is not None and outcome.answer.status >= 400:
        return datastack_verdict(outcome.answer, server, datastack, token)
    http_error = _HTTP_ERROR_TEXT.match(outcome.text) if "HTTPError" in names else None
    if http_error:
        body = _quoted_body(outcome.text)
        kind = {"content-type": "application/json"} if body.startswith(b"{") else {}
        answer = Answer(int(http_error["status"]), kind, body, http_error["url"])
        return datastack_verdict(answer, server, datastack, token)
    return _client_failure(names, text, outcome, server, datastack, token)._replace(datastack=datastack)


def _quoted_body(text: str) -> bytes:
    """Return the answer's body that caveclient quotes at the end of its message; empty without one."""
    quoted = re.search(r"content: ?(b'.*'|b\".*\")\s*$", text, re.DOTALL)
    try:
        body = ast.literal_eval(quoted[1]) if quoted else b""
    except (ValueError, SyntaxError):
        return b""
    return body if isinstance(body, bytes) else b""


def _failure_kind(names: set[str], text: str) -> str:
    """Return the HttpError's kind that an exception of requests, or of the process, amounts to; empty without one."""
    kind = next((kind for kind, classes in _FAILURES if names & classes), "")
    if "InvalidSchema" in names and "SOCKS" in text:
        return "proxy"
    if kind == "cut":
        reason = _reason_in(text)
        return "dns" if "resolved" in reason else "refused" if "refused" in reason else "cut"
    return kind


def _client_failure(
    names: set[str], text: str, outcome: ClientOutcome, server: str, datastack: str, token: str
) -> Verdict:
    said = f"CAVEclient('{datastack}') failed: {clean_text(text or outcome.names[0]).rstrip('.')}."
    if "AuthException" in names and not token:
        return no_token_verdict(server, "the user", "caveclient found none")
    kind = _failure_kind(names, text)
    if kind:
        return failure_verdict(HttpError(kind, server, _reason_in(text) or "no answer in time"), server)
    if outcome.redirected or "TooManyRedirects" in names or "AuthException" in names:
        message = f"{server} sends caveclient elsewhere, to a login page: {clean_text(text)}"
        return Verdict("not_a_cave_server", message, not_cave_remedy(server), server)
    if outcome.answer is not None:
        return not_cave_verdict(outcome.answer, server, "the record of a datastack, as JSON")
    if "JSONDecodeError" in names:
        message = f"{server} does not answer like a CAVE server: caveclient found no JSON in the answer."
        return Verdict("not_a_cave_server", message, not_cave_remedy(server), server)
    if names & {"InvalidSchema", "MissingSchema", "InvalidURL"}:
        remedy = (
            "Have the server map written anew (the module saved_token with this datastack, or the playbook): "
            "ansible-playbook connectomics.cave.provision --tags token"
        )
        return Verdict("client_error", said, remedy, server)
    if outcome.names == _ENDED_BY_A_SIGNAL:
        return Verdict("client_error", said, AFTER_A_SIGNAL, server)
    if names & {"ImportError", "ModuleNotFoundError"} or outcome.names in _NOT_RUN:
        remedy = "Install caveclient anew: ansible-playbook connectomics.cave.provision"
        return Verdict("client_error", said, remedy, server)
    return Verdict("client_error", said, report_remedy(), server)


_REASONS = (
    (r"(the CA certificates cannot be used .*)", "{}"),
    (r"(UNEXPECTED_EOF)", "the connection broke off while TLS was agreed on"),
    (r"certificate verify failed: ([^()]*[^() ])", "the server's certificate is not trusted: {}"),
    (r"\[SSL: (\w+)\]", "no TLS connection: {}"),
    (r"(Failed to resolve|Name or service not known|name resolution)", "the name cannot be resolved"),
    (
        r"(RemoteDisconnected|Connection reset|IncompleteRead)",
        "the connection broke off before the answer was complete",
    ),
    (r"\[Errno -?[0-9]+\] ([A-Za-z ]*[A-Za-z])", "{}"),
    (r"(timed out)", "no answer in time"),
    (r"Caused by (.*)", "{}"),
)
"""What to look for in the text of an exception of requests, the most telling first, and how to say it."""


def _reason_in(text: str) -> str:
    """Return the innermost reason of an exception of requests, which wraps those of urllib3, ssl and the socket."""
    for pattern, words in _REASONS:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            reason = words.format(found[1])
            return clean_text(reason[0].lower() + reason[1:], limit=400)
    return clean_text(text, limit=160)
