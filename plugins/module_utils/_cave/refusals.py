# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said where a request had no answer, or another one than was hoped for: pure functions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    clean_values,
    permitted_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.failures import THROUGH_PROXY
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.retries import retry_after
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    KNOWN_LOCAL_SERVERS,
    host_of,
    known_local_servers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import VARIABLES
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    clean_text,
    permission_verdict,
    token_page,
    tos_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system

_LONGEST_REASON = 1000
"""Characters: it may name a file."""

# Failures ------------------------------------------------------------------------------------------------------------


def failure_verdict(failure: HttpError, server: str) -> Verdict:
    """Return the verdict on a request that had no usable answer."""
    host = host_of(server)
    reason = clean_text(failure.reason, limit=_LONGEST_REASON)
    message = f"Cannot ask {server}: {reason}."
    if failure.kind in ("tls", "ca"):
        return Verdict("tls_error", f"No trusted connection to {server}: {reason}.", _tls_remedy(reason), server)
    if failure.kind in ("too_large", "bad_answer"):
        message = f"{server} does not answer like a CAVE server: {reason}."
        return Verdict("not_a_cave_server", message, not_cave_remedy(server), server)
    if failure.kind in ("bad_request", "bad_url"):
        return Verdict("client_error", message, "Correct the server address or the token.", server)
    if failure.kind == "proxy" or (failure.kind != "cut" and THROUGH_PROXY in reason):
        remedy = f"Check https_proxy, http_proxy and no_proxy in the environment of the task: {host} is asked that way."
    elif failure.kind == "dns":
        remedy = f"Check the spelling of the server's name and the host's name service: getent hosts {_name(host)}"
    elif failure.kind == "cut":
        remedy = f"Try again; if the error persists, look for a firewall or proxy between this host and {host}."
    else:
        remedy = f"Check that this host reaches it (firewall; proxy: set https_proxy): curl -sS {server}/auth/version"
    return Verdict("unreachable", message, remedy, server)


def _name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or host


def _tls_remedy(reason: str) -> str:
    text = reason.lower()
    if "expired" in text or "not yet valid" in text:
        clock = this_system().check_clock()
        return f"Check this host's clock; if it is right, the server's certificate has to be renewed: {clock}"
    if "mismatch" in text or "not valid for" in text:
        return (
            "The certificate is for another name: check the server address, and whether a login page of the network "
            "answers in its place."
        )
    if "wrong_version_number" in text or "record_layer" in text:
        return "The server does not speak TLS on this port: check the server address, its port and http:// or https://."
    if "unsupported_protocol" in text or "protocol_version" in text:
        return "The server offers only a TLS version older than 1.2: it has to be updated."
    if "broke off" in text:
        return (
            "Try again; if the error persists, ask the network's administrator whether a firewall or proxy cuts the "
            "connection, and the server's operator whether it offers TLS 1.2 or later."
        )
    if "certificate_required" in text or "handshake_failure" in text:
        return (
            "What answers there wants a certificate of this host, or a kind of TLS that it has not: check the server "
            "address, and ask the network's administrator."
        )
    named = next((variable for variable in VARIABLES if f"({variable})" in reason), "")
    if "cannot be used" in text:
        correct = f"Correct or unset {named} in the environment of the task, or give" if named else "Give"
        return f"{correct} ca_path a readable PEM file with the CA certificates that signed the server's certificate."
    if "by the ca certificates in" in text:
        others = f", name its certificate with ca_path, or unset {named} in the environment of the task"
        return (
            "Only what is in that file is trusted: add the CA of the server (or of a proxy on the way) to it"
            f"{others if named else ''}."
        )
    return (
        "If the server (or a proxy on the way) uses a private CA, name its certificate with ca_path, "
        f"or install it in the system's store: {this_system().trust_authority()}"
    )


def not_cave_remedy(server: str) -> str:
    auth = next((auth for auth, stacks in KNOWN_LOCAL_SERVERS.items() if server.lower() in stacks.values()), "")
    if auth and not known_local_servers(server):
        return f"{server} has the services of datastacks alone: use their auth server, {auth}, as the server address."
    return (
        f"Check the server address: {server}/auth/version has to answer with a version. "
        "A login page of the network, or a proxy, may answer in its place."
    )


# Answers -------------------------------------------------------------------------------------------------------------


_TOO_SLOW, _LOG_IN_FIRST = 408, 511
"""A server gave up waiting for the request; a network wants a log-in before it lets anything through."""
_CHALLENGE = re.compile(r'Bearer realm="[^"]*/(sticky_)?auth/')
"""How CAVE's WWW-Authenticate begins: older services say no more than this in a form that programs can read."""


class Found(NamedTuple):
    """The parts of the answer that decide, already of the types that they should have."""

    status: int
    error: str
    message: str
    data: dict[str, Any]


def error_of(answer: Answer, token: str) -> Found:
    """Return the parts of an answer that decide, fit to be shown."""
    try:
        content = answer.json() if answer.claims_json else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Found(answer.status, "", "", {})
    data = content.get("data")
    return Found(
        answer.status,
        clean_text(content.get("error") or "", [token], 60),
        clean_text(content.get("message") or "", [token]),
        clean_values(data, token),
    )


def _says(found: Found) -> str:
    return f" (the server says: {found.message})" if found.message else ""


def _common_verdict(answer: Answer, server: str, token: str) -> Verdict | None:
    """Return the verdict on answers that mean the same wherever they come from, or None."""
    status = answer.status
    found = error_of(answer, token)
    named = fingerprint(token) if token else ""
    if 300 <= status < 400:
        return _redirect_verdict(answer, server, token)
    refusal = _refusal_of(answer, found) if status == 401 else ""
    if refusal == "no_token" and token:
        message = f"{server} did not receive the token {named} that was sent."
        return Verdict(
            "no_token", message, "A proxy on the way may drop the Authorization header: ask its administrator.", server
        )
    if refusal:
        message = f"{server} does not accept the token {named}: it was replaced, revoked, or is of another server."
        remedy = (
            f"Take the current token from {token_page(server)}, put it into the vault, and send it to every host: "
            "ansible-playbook connectomics.cave.rotate"
        )
        return Verdict("invalid_token", message, remedy, server, url=token_page(server))
    if status == 407:
        message = f"Cannot ask {server}: the proxy wants a user name and password."
        return Verdict(
            "unreachable", message, "Check http_proxy and https_proxy in the environment of the task.", server
        )
    if status == 429:
        wait = retry_after(answer.headers.get("retry-after", ""))
        message = f"{server}: rate limit reached" + (f"; retry in {wait:.0f} s." if wait is not None else ".")
        return Verdict(
            "rate_limited", message, "Run it again later, or with fewer hosts at a time (serial, forks).", server
        )
    if (status >= 500 and status != _LOG_IN_FIRST) or status == _TOO_SLOW:
        message = f"{server} has an internal problem: status {status}{_says(found)}."
        return Verdict(
            "server_error", message, "Run it again later; if the error persists, tell the server's operator.", server
        )
    if found.error == "missing_tos":
        return tos_verdict(
            server, "", found.data.get("tos_id"), found.data.get("tos_name"), found.data.get("tos_form_url")
        )
    if found.error == "missing_permission":
        return permission_verdict(server, "", found.data.get("auth_dataset"), found.data.get("required_permission"))
    if status in (400, 401, 403) and answer.claims_json and not _is_of_a_gateway(answer):
        error = f" {found.error}" if found.error else ""
        message = f"{server} refuses the request: status {status}{error}{_says(found)}."
        return Verdict("client_error", message, report_remedy(), server)
    return None


def _refusal_of(answer: Answer, found: Found) -> str:
    """Return what a 401 says of the token, ``no_token`` or ``invalid_token``; empty when it is not CAVE's word.

    A proxy or a login page of the network answers 401 as well, and knows nothing of tokens.
    """
    if _is_of_a_gateway(answer):
        return ""
    if found.error in ("no_token", "invalid_token"):
        return found.error
    challenge = answer.headers.get("www-authenticate", "")
    if not challenge:
        return ""
    return "invalid_token" if 'error="invalid_token"' in challenge else "no_token"


def _is_of_a_gateway(answer: Answer) -> bool:
    """Return whether an answer asks for a log-in that is not CAVE's; OAuth gateways use the same words as CAVE."""
    challenge = answer.headers.get("www-authenticate", "")
    return bool(challenge) and not _CHALLENGE.search(challenge)


def report_remedy() -> str:
    return "This collection does not know that answer. Please report it, with this message."


def _redirect_verdict(answer: Answer, server: str, token: str) -> Verdict:
    place = clean_text(answer.headers.get("location", ""), [token])
    message = f"{server} redirects the request (status {answer.status}) to {place or 'no address'}."
    if server.startswith("http:") and place.lower().startswith(f"https://{host_of(server)}".lower()):
        return Verdict("not_a_cave_server", message, f"Use https://{host_of(server)} as the server address.", server)
    return Verdict("not_a_cave_server", message, not_cave_remedy(server), server)


def not_cave_verdict(answer: Answer, server: str, expected: str) -> Verdict:
    if answer.status == 200 and answer.claims_json and not _is_json(answer):
        message = f"The answer from {server} is incomplete JSON (bytes received: {len(answer.body)})."
        return Verdict(
            "server_error", message, "Run it again; if the error persists, tell the server's operator.", server
        )
    kind = clean_text(answer.headers.get("content-type", ""), limit=60) or "no content type"
    packed = clean_text(answer.headers.get("content-encoding", ""), limit=30)
    what = "a web page" if answer.content_type == "text/html" else kind + (f", packed as {packed}" if packed else "")
    message = f"{server} does not answer like a CAVE server: status {answer.status}, {what}; expected {expected}."
    return Verdict("not_a_cave_server", message, not_cave_remedy(server), server)


def refusal_verdict(answer: Answer, server: str, token: str, expected: str) -> Verdict:
    """Return the verdict on an answer that is not the one expected; ``expected`` says which one was."""
    return _common_verdict(answer, server, token) or not_cave_verdict(answer, server, expected)


def _is_json(answer: Answer) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


def no_record_verdict(answer: Answer, server: str, datastack: str, token: str) -> Verdict:
    """Return the verdict on an answer of the info service that is not the record of a datastack."""
    found = error_of(answer, token)
    if found.error == "invalid_table_id" or (answer.status == 404 and answer.claims_json):
        where = "knows no datastack" if answer.status != 404 else "has no record of a datastack"
        message = f"{server} {where} {datastack}{_says(found)}."
        remedy = "Check the spelling of the datastack's name, and that this is the server of that datastack."
        remedy = f"{did_you_mean(datastack, known_local_servers(server))} {remedy}".strip()
        return Verdict("unknown_datastack", message, remedy, server, datastack)
    if found.error == "missing_tos":
        data = found.data
        return tos_verdict(server, datastack, data.get("tos_id"), data.get("tos_name"), data.get("tos_form_url"))
    if found.error == "missing_permission":
        return permission_verdict(
            server, datastack, found.data.get("auth_dataset"), found.data.get("required_permission")
        )
    return refusal_verdict(answer, server, token, "the record of a datastack, as JSON")._replace(datastack=datastack)


def unknown_datastack_verdict(
    said: Verdict, account: Account, server: str, datastack: str, mapping: Answer | None
) -> Verdict:
    """Return the verdict on a datastack that the info service says it doesn't know.

    It says so of every datastack while its own token is dead, so the auth server has the last word.

    Args:
        said: the verdict on the info service's answer.
        account: what the auth server permits.
        server: address of the auth server.
        datastack: its name.
        mapping: the auth server's answer to ``dataset_url``; None when there is none.
    """
    mapped = mapped_dataset(mapping) if mapping is not None else None
    permitted = permitted_verdict(account, server, datastack, mapped or "")
    if permitted is None:
        return permission_verdict(server, datastack, mapped) if mapped else said
    if not permitted.ok:
        return permitted
    return Verdict(
        "server_error",
        f"The info service of {server} says that it does not know datastack {datastack}, and the auth server knows it. "
        "The token is good.",
        "Run it again in five minutes. If the error persists, tell the server's operator: the info service's own token "
        "may be dead.",
        server,
        datastack,
    )


def refused_by_info_verdict(server: str, datastack: str) -> Verdict:
    """Return the verdict on a token that the info service refuses and the auth server accepts."""
    return Verdict(
        "server_error",
        f"The info service of {server} refuses a token that the auth server accepts, so that datastack {datastack} "
        "cannot be opened. The token is good.",
        "Run it again in five minutes: it caches answers for that long. If the error persists, tell the server's "
        "operator.",
        server,
        datastack,
    )


def silent_info_verdict(said: Verdict) -> Verdict:
    """Return the verdict on an info service that does not do its work, while the auth server beside it does.

    Then neither the network nor the address is to blame.

    Args:
        said: the verdict on the info service's answer, or on what came in its place.
    """
    return said._replace(
        verdict="server_error",
        message=f"The info service of {said.server} does not work, and the auth server does. {said.message} "
        "Token and network work.",
        remedy="Run it again later; if the error persists, tell the server's operator.",
    )


def mapped_dataset(mapping: Answer) -> str | None:
    """Return the dataset that a mapping names, None when it names none."""
    try:
        name = mapping.json() if mapping.status == 200 and mapping.claims_json else None
    except ValueError:
        return None
    return clean_text(name, limit=80) if isinstance(name, str) and name else None
