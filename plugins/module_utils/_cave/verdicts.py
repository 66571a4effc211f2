# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a CAVE server answers to what a person has to know and do.

Pure functions: an answer, a failure or an exception goes in, a Verdict comes out. What a server sends is shown to
people only after ``clean_text``; addresses that it names are passed on only when they lead back to it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Iterable, NamedTuple
from urllib.parse import quote, urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint, mask
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

VERDICTS = (
    "ok",
    "no_token",
    "malformed_file",
    "invalid_token",
    "missing_tos",
    "missing_permission",
    "unknown_datastack",
    "not_a_cave_server",
    "unreachable",
    "tls_error",
    "rate_limited",
    "server_error",
    "client_error",
)
"""All verdicts there are."""

SEVERITY = (
    # Nothing works for this person,
    "malformed_file",
    "no_token",
    "invalid_token",
    # nothing works from this host,
    "not_a_cave_server",
    "tls_error",
    "unreachable",
    # one datastack is closed,
    "missing_permission",
    "missing_tos",
    "unknown_datastack",
    # it could not be found out,
    "client_error",
    "server_error",
    "rate_limited",
    "ok",
)
"""All verdicts, the worst first."""

TRANSIENT = frozenset(("unreachable", "rate_limited", "server_error"))
"""Verdicts that say nothing about the token: the same question may be answered well a minute later."""

_SHOWN = 200  # characters of a server's text, at most
_REASONED = 4000  # characters of an exception's text in which a reason is looked for
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]")


class Person(NamedTuple):
    """Whose token it is, as the auth server says."""

    id: int
    name: str
    email: str


class Verdict(NamedTuple):
    """Whether access works, and if not, what was found and what a person can do about it."""

    verdict: str
    message: str
    remedy: str = ""
    server: str = ""
    datastack: str = ""
    url: str = ""
    person: Person | None = None
    fingerprint: str = ""
    local_server: str = ""

    @property
    def ok(self) -> bool:
        """Whether access works."""
        return self.verdict == "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a module's result, without what is empty."""
        result: dict[str, Any] = {key: value for key, value in self._asdict().items() if value not in ("", None)}
        if self.person is not None:
            result["person"] = self.person._asdict()
        return result


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the worst verdict (the first one of its kind), or None when there are none."""
    return min(verdicts, key=lambda verdict: SEVERITY.index(verdict.verdict), default=None)


# Addresses -----------------------------------------------------------------------------------------------------------


def token_page(server: str) -> str:
    """Return the address of the page where a person sees and makes tokens."""
    return f"{server}/sticky_auth/settings/tokens"


def user_cache_url(server: str) -> str:
    """Return the address that tells everything about a token in one request (cave-facts of middle_auth, user/cache)."""
    return f"{server}/auth/api/v1/user/cache"


def datastack_url(server: str, datastack: str) -> str:
    """Return the address of a datastack's full record in the info service."""
    return f"{server}/info/api/v2/datastack/full/{quote(datastack, safe='')}"


def tos_form_url(server: str, tos_id: object, offered: object = None) -> str:
    """Return the address of the form that accepts terms of service.

    Args:
        server: address of the server that asks for it.
        tos_id: number of the terms; anything else is not used.
        offered: the address that the server's answer names. It is taken only when it leads to the same host as
            ``server`` and doesn't step down from https: a person is going to click on it.

    Returns:
        The offered address, else one made from the number, else the server's address.
    """
    if isinstance(offered, str) and len(offered) <= 500 and _leads_back(offered, server):
        return offered
    if isinstance(tos_id, int) and not isinstance(tos_id, bool):
        return f"{server}/sticky_auth/api/v1/tos/{tos_id:d}/accept"
    return server


def _leads_back(url: str, server: str) -> bool:
    if not url.isascii() or not url.isprintable() or set(url) & set(" \"'<>\\^`{|}"):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    schemes = ("https",) if server.startswith("https:") else ("https", "http")
    return parts.scheme in schemes and parts.netloc.lower() == host_of(server).lower()


# Text that comes from elsewhere --------------------------------------------------------------------------------------


def clean_text(text: object, tokens: Iterable[str] = (), limit: int = _SHOWN) -> str:
    """Return text of a server or program in a form that can be shown: one line, no control or invisible characters.

    Terminal escapes are dropped, white space is squeezed, tokens are masked, and it is cut after ``limit`` characters.
    """
    raw = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    # Masked before it is cut (or half a token would be left), and again after the clean-up (which could join one).
    raw = mask(_ESCAPES.sub("", mask(raw[: 64 * limit + 65536], tokens)), tokens)
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in raw)
    shown = mask(" ".join(shown.split()), tokens)
    return shown if len(shown) <= limit else shown[: limit - 3].rstrip() + "..."


def _person(record: dict[str, Any], token: str) -> Person | None:
    number = record.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return Person(number, clean_text(record.get("name") or "", [token]), clean_text(record.get("email") or "", [token]))


# Failures ------------------------------------------------------------------------------------------------------------


def failure_verdict(failure: HttpError, server: str) -> Verdict:
    """Return the verdict on a request that had no usable answer."""
    host = host_of(server)
    reason = clean_text(failure.reason)
    message = f"{server} cannot be asked: {reason}."
    if failure.kind in ("tls", "ca"):
        return Verdict("tls_error", f"No trusted connection to {server}: {reason}.", _tls_remedy(reason), server)
    if failure.kind in ("too_large", "bad_answer"):
        message = f"{server} does not answer like a CAVE server: {reason}."
        return Verdict("not_a_cave_server", message, _not_cave_remedy(server), server)
    if failure.kind in ("bad_request", "bad_url"):
        return Verdict("client_error", message, "Correct the server address or the token.", server)
    if failure.kind == "dns":
        remedy = f"Check the spelling of the server's name and the host's name service: getent hosts {_name(host)}"
    elif failure.kind == "proxy":
        remedy = "Check https_proxy, http_proxy and no_proxy in the environment of the task."
    elif failure.kind == "cut":
        remedy = f"Try again; if it stays so, look for a firewall or proxy between this host and {host}."
    else:
        remedy = f"Check that this host reaches it (firewall; proxy: set https_proxy): curl -sS {server}/auth/version"
    return Verdict("unreachable", message, remedy, server)


def _name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or host


def _tls_remedy(reason: str) -> str:
    text = reason.lower()
    if "expired" in text or "not yet valid" in text:
        return "Check this host's clock (timedatectl); if it is right, the server's certificate has to be renewed."
    if "mismatch" in text or "not valid for" in text:
        return "The certificate is for another name: check the server address."
    if "wrong_version_number" in text or "record_layer" in text:
        return "The server does not speak TLS on this port: check the server address, its port and http:// or https://."
    if "unsupported_protocol" in text or "protocol_version" in text:
        return "The server offers only a TLS version older than 1.2: it has to be updated."
    if "cannot be used" in text:
        return "Give ca_path a readable PEM file with the CA certificates that signed the server's certificate."
    return (
        "If the server (or a proxy on the way) uses a private CA, name its certificate with ca_path, "
        "or install it in the system's store (update-ca-certificates, update-ca-trust)."
    )


def _not_cave_remedy(server: str) -> str:
    return (
        f"Check the server address: {server}/auth/version has to answer with a version. "
        "A login page of the network, or a proxy, may answer in its place."
    )


# Answers -------------------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """The parts of the answer that decide, already of the types that they should have."""

    status: int
    error: str
    message: str
    data: dict[str, Any]


def _error_of(answer: Answer, token: str) -> _Found:
    try:
        content = answer.json() if answer.claims_json else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return _Found(answer.status, "", "", {})
    data = content.get("data")
    return _Found(
        answer.status,
        clean_text(content.get("error") or "", [token], 60),
        clean_text(content.get("message") or "", [token]),
        _clean_values(data, token),
    )


def _clean_values(data: object, token: str) -> dict[str, Any]:
    """Return a mapping of the server with its strings made fit to show; an address keeps all of its 500 characters."""
    if not isinstance(data, dict):
        return {}
    return {key: clean_text(value, [token], 500) if isinstance(value, str) else value for key, value in data.items()}


def _says(found: _Found) -> str:
    return f" (the server says: {found.message})" if found.message else ""


def _common_verdict(answer: Answer, server: str, token: str) -> Verdict | None:
    """Return the verdict on answers that mean the same wherever they come from, or None."""
    status = answer.status
    found = _error_of(answer, token)
    named = fingerprint(token) if token else ""
    if 300 <= status < 400:
        return _redirect_verdict(answer, server, token)
    if status == 401 and found.error == "no_token" and token:
        message = f"{server} did not receive the token {named} that was sent."
        return Verdict(
            "no_token", message, "A proxy on the way may drop the Authorization header: ask its administrator.", server
        )
    if status == 401:
        message = f"{server} does not accept the token {named}: it was replaced, revoked, or is of another server."
        remedy = (
            f"Take the current token from {token_page(server)}, put it into the vault, and send it to every host: "
            "ansible-playbook connectomics.cave.provision"
        )
        return Verdict("invalid_token", message, remedy, server, url=token_page(server))
    if status == 407:
        message = f"{server} cannot be asked: the proxy wants a user name and password."
        return Verdict(
            "unreachable", message, "Check http_proxy and https_proxy in the environment of the task.", server
        )
    if status == 429:
        wait = clean_text(answer.headers.get("retry-after", ""), limit=40)
        message = f"{server} is asked too often" + (f"; it wants a pause of {wait} s." if wait.isdigit() else ".")
        return Verdict(
            "rate_limited", message, "Run it again later, or with fewer hosts at a time (serial, forks).", server
        )
    if status >= 500:
        message = f"{server} has trouble of its own: status {status}{_says(found)}."
        return Verdict(
            "server_error", message, "Run it again later; if it stays so, tell the server's operator.", server
        )
    if found.error == "missing_tos":
        return tos_verdict(
            server, "", found.data.get("tos_id"), found.data.get("tos_name"), found.data.get("tos_form_url")
        )
    if found.error == "missing_permission":
        return permission_verdict(server, "", found.data.get("auth_dataset"), found.data.get("required_permission"))
    if status in (400, 403) and answer.claims_json:
        message = f"{server} refuses the question: status {status} {found.error}{_says(found)}."
        return Verdict("client_error", message, _report_remedy(), server)
    return None


def _report_remedy() -> str:
    return "This collection does not know that answer: please report it, with this message."


def _redirect_verdict(answer: Answer, server: str, token: str) -> Verdict:
    place = clean_text(answer.headers.get("location", ""), [token])
    message = f"{server} sends the question elsewhere: status {answer.status}, to {place or 'no address'}."
    if server.startswith("http:") and place.lower().startswith(f"https://{host_of(server)}".lower()):
        return Verdict("not_a_cave_server", message, f"Use https://{host_of(server)} as the server address.", server)
    return Verdict("not_a_cave_server", message, _not_cave_remedy(server), server)


def _not_cave(answer: Answer, server: str, expected: str) -> Verdict:
    if answer.status == 200 and answer.claims_json and not _is_json(answer):
        message = f"The answer of {server} is broken off: {len(answer.body)} bytes that are not complete JSON."
        return Verdict("server_error", message, "Run it again; if it stays so, tell the server's operator.", server)
    kind = clean_text(answer.headers.get("content-type", ""), limit=60) or "no content type"
    packed = clean_text(answer.headers.get("content-encoding", ""), limit=30)
    what = "a web page" if answer.content_type == "text/html" else kind + (f", packed as {packed}" if packed else "")
    message = f"{server} does not answer like a CAVE server: status {answer.status}, {what}; expected {expected}."
    return Verdict("not_a_cave_server", message, _not_cave_remedy(server), server)


def refusal_verdict(answer: Answer, server: str, token: str, expected: str) -> Verdict:
    """Return the verdict on an answer that is not the one expected; ``expected`` says which one was."""
    return _common_verdict(answer, server, token) or _not_cave(answer, server, expected)


def _is_json(answer: Answer) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


def _record(answer: Answer) -> dict[str, Any] | None:
    if answer.status != 200 or not answer.claims_json:
        return None
    try:
        content = answer.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def tos_verdict(server: str, datastack: str, tos_id: object, tos_name: object, offered: object = None) -> Verdict:
    """Return the verdict on a person who owes terms of service."""
    form = tos_form_url(server, tos_id, offered)
    named = clean_text(tos_name, limit=80) if isinstance(tos_name, str) and tos_name else "terms of service"
    what = f"datastack {datastack} on {server}" if datastack else server
    return Verdict(
        "missing_tos",
        f"The terms of service of {what} ({named}) are not accepted yet.",
        f"The person whose token it is has to log in and accept them (nobody else can): {form}",
        server,
        datastack,
        form,
    )


def permission_verdict(server: str, datastack: str, dataset: object, permission: object = None) -> Verdict:
    """Return the verdict on a person without permission."""
    name = clean_text(dataset, limit=80) if isinstance(dataset, str) and dataset else datastack
    needed = clean_text(permission, limit=30) if isinstance(permission, str) and permission else "view"
    where = f" (datastack {datastack})" if datastack and datastack != name else ""
    return Verdict(
        "missing_permission",
        f"The person whose token it is has no permission '{needed}' for dataset {name}{where} on {server}.",
        f"Ask the managers of dataset {name} to give this person's account '{needed}'; the token is good.",
        server,
        datastack,
    )


def datastack_verdict(answer: Answer, server: str, datastack: str, token: str) -> Verdict:
    """Return the verdict on an answer of the info service to ``datastack/full/NAME``."""
    record = _record(answer)
    if record is not None and ("aligned_volume" in record or "segmentation_source" in record):
        local = record.get("local_server")
        local_server = local if isinstance(local, str) and local == clean_text(local, [token]) else ""
        message = f"{server} gives access to datastack {datastack}."
        return Verdict("ok", message, "", server, datastack, local_server=local_server)
    found = _error_of(answer, token)
    if found.error == "invalid_table_id" or (answer.status == 404 and answer.claims_json):
        where = "knows no datastack" if answer.status != 404 else "has no record of a datastack"
        message = f"{server} {where} {datastack}{_says(found)}."
        remedy = "Check the spelling of the datastack's name, and that this is the server of that datastack."
        return Verdict("unknown_datastack", message, remedy, server, datastack)
    if found.error == "missing_tos":
        data = found.data
        return tos_verdict(server, datastack, data.get("tos_id"), data.get("tos_name"), data.get("tos_form_url"))
    if found.error == "missing_permission":
        return permission_verdict(
            server, datastack, found.data.get("auth_dataset"), found.data.get("required_permission")
        )
    verdict = _common_verdict(answer, server, token) or _not_cave(answer, server, "the record of a datastack, as JSON")
    return verdict._replace(datastack=datastack)


class Account(NamedTuple):
    """What the auth server says about a token's owner: who it is, what is permitted now, which terms are owed."""

    person: Person
    permissions: dict[str, Any]
    missing_tos: list[dict[str, Any]]


def account_of(answer: Answer, server: str, token: str) -> Account | Verdict:
    """Return what ``user/cache`` tells, or the verdict when it doesn't tell it."""
    record = _record(answer)
    person = _person(record, token) if record is not None else None
    if record is None or person is None or "permissions_v2" not in record:
        return _common_verdict(answer, server, token) or _not_cave(answer, server, "a person, as JSON")
    permissions = record.get("permissions_v2")
    owed = record.get("missing_tos")
    return Account(
        person,
        permissions if isinstance(permissions, dict) else {},
        [_clean_values(item, token) for item in owed if isinstance(item, dict)] if isinstance(owed, list) else [],
    )


def account_verdict(account: Account, server: str) -> Verdict:
    """Return the verdict on a token that the auth server knows, without a look at any datastack."""
    name = account.person.email or account.person.name or f"person {account.person.id}"
    return Verdict("ok", f"{server} accepts the token of {name}.", "", server, person=account.person)


def permitted_verdict(account: Account, server: str, datastack: str) -> Verdict | None:
    """Return the verdict on one datastack as far as ``user/cache`` decides it.

    None means that the permissions don't name it: a datastack may be in a dataset of another name, so that only the
    info service knows.
    """
    if _can_view(account.permissions, datastack):
        return Verdict("ok", f"{server} gives access to datastack {datastack}.", "", server, datastack)
    for item in account.missing_tos:
        if item.get("dataset_name") == datastack:
            return tos_verdict(server, datastack, item.get("tos_id"), item.get("tos_name"))
    return None


def _can_view(permissions: dict[str, Any], dataset: str) -> bool:
    names = permissions.get(dataset)
    return isinstance(names, list) and "view" in names


# What keeps a host from asking at all --------------------------------------------------------------------------------


def no_token_verdict(server: str, user: str, place: str) -> Verdict:
    """Return the verdict on a user without a token for a server. ``place`` says where it was looked for."""
    return Verdict(
        "no_token",
        f"{user} has no token for {server}: {place}.",
        f"Put the person's token ({token_page(server)}) into the vault and send it to this host: "
        "ansible-playbook connectomics.cave.provision",
        server,
        url=token_page(server),
    )


def malformed_file_verdict(server: str, path: str, reason: str) -> Verdict:
    """Return the verdict on a secrets file that caveclient would stumble over."""
    return Verdict(
        "malformed_file",
        f"The secrets file {path} cannot be used: {clean_text(reason).rstrip('.')}.",
        f"Repair or remove {path} by hand, or let connectomics.cave.saved_token write it anew with "
        "on_malformed: replace (the old content is kept beside it).",
        server,
    )


def client_error_verdict(error: CaveError, server: str) -> Verdict:
    """Return the verdict on what keeps this host from asking at all: the message says what, and then what to do."""
    message, _dot, remedy = error.message.partition(". ")
    return Verdict("client_error", f"{message.rstrip('.')}.", remedy, server)


# The real caveclient -------------------------------------------------------------------------------------------------


class ClientOutcome(NamedTuple):
    """How ``CAVEclient(datastack)`` ended in a process of its own.

    ``names`` are the exception's class and its ancestors, with modules, the class itself first; empty when it ended
    well. ``answer`` is the HTTP answer that made it fail, where there was one; ``redirected`` whether a redirect led
    there. ``server`` is the address that caveclient used, as far as it got.
    """

    server: str
    names: tuple[str, ...] = ()
    text: str = ""
    answer: Answer | None = None
    redirected: bool = False
    local_server: str = ""


_FAILURES = (
    ("tls", {"SSLError", "SSLCertVerificationError"}),
    ("too_large", {"MemoryError", "OverflowError"}),
    ("proxy", {"ProxyError"}),
    ("timeout", {"Timeout", "ConnectTimeout", "ReadTimeout", "TimeoutError", "TimeoutExpired"}),
    ("cut", {"ConnectionError", "RetryError", "ChunkedEncodingError"}),
)
"""Which of the failures of HTTP the exceptions of requests are; the first one that fits counts."""
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
        answer = Answer(int(http_error["status"]), {}, b"", http_error["url"])
        return datastack_verdict(answer, server, datastack, token)
    return _client_failure(names, text, outcome, server, datastack, token)._replace(datastack=datastack)


def _failure_kind(names: set[str], text: str) -> str:
    """Return the HttpError's kind that an exception of requests, or of the process, amounts to; empty without one."""
    kind = next((kind for kind, classes in _FAILURES if names & classes), "")
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
        return Verdict("not_a_cave_server", message, _not_cave_remedy(server), server)
    if outcome.answer is not None:
        return _not_cave(outcome.answer, server, "the record of a datastack, as JSON")
    if "JSONDecodeError" in names:
        message = f"{server} does not answer like a CAVE server: caveclient found no JSON in the answer."
        return Verdict("not_a_cave_server", message, _not_cave_remedy(server), server)
    if names & {"InvalidSchema", "MissingSchema", "InvalidURL"}:
        remedy = "Correct the address in the server map: connectomics.cave.saved_token with this datastack writes it."
        return Verdict("client_error", said, remedy, server)
    if names & {"ImportError", "ModuleNotFoundError"}:
        remedy = "Install caveclient anew: ansible-playbook connectomics.cave.provision"
        return Verdict("client_error", said, remedy, server)
    return Verdict("client_error", said, _report_remedy(), server)


_REASONS = (
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
            return clean_text(reason[0].lower() + reason[1:], limit=160)
    return clean_text(text, limit=160)
