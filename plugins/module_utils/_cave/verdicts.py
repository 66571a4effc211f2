# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: what is said of an access, and what a person can do about it.

What a server sends is shown to people only after ``clean_text``; addresses that it names are passed on only when they
lead back to it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_and_port, host_of
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import mask, mask_credentials, mask_token_like

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
    "service_blocked",
    "service_down",
    "incompatible_client",
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
    "service_blocked",
    # one datastack is closed,
    "missing_permission",
    "missing_tos",
    "unknown_datastack",
    # a part of it does not work,
    "service_down",
    "incompatible_client",
    # it could not be found out,
    "client_error",
    "server_error",
    "rate_limited",
    "ok",
)
"""All verdicts, the worst first."""

TRANSIENT = frozenset(("unreachable", "service_blocked", "service_down", "rate_limited", "server_error"))
"""Verdicts that say nothing about the token: the same question may have another answer a minute later."""

_SHOWN = 200  # characters of a server's text, at most
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]")


_NOT_SHOWN = ("table", "volume", "blocked", "refused", "addresses")


class Person(NamedTuple):
    """Whose token it is, as the auth server says."""

    id: int
    name: str
    email: str
    service_account: bool = False
    parent: int | None = None
    """The number of the account that a service account belongs to."""


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
    service: str = ""
    """The datastack's service that it is about, as caveclient names it; ``all``: all that were asked."""
    status: int | None = None
    """The HTTP status of a service's answer."""
    version: str = ""
    """The version that a service tells."""
    reason: str = ""
    """What a service does in the place of its work, or why it is not reached, in a few words."""
    with_token: bool = False
    """Whether a service was asked with the token."""
    table: str = ""
    """The chunkedgraph's name for the datastack; not shown."""
    volume: str = ""
    """The name of the datastack's aligned volume; not shown."""
    blocked: str = ""
    """Why no answer came, where that may be the network's doing; not shown."""
    addresses: tuple[tuple[str, str], ...] = ()
    """What the datastack's record leads to: what it is for, and its address; not shown."""
    refused: bool = False
    """Whether a service refused the token, so that the auth server has to be asked again; not shown."""

    @property
    def ok(self) -> bool:
        """Whether access works."""
        return self.verdict == "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a module's result, without what is empty."""
        result: dict[str, Any] = {
            key: value
            for key, value in self._asdict().items()
            if value not in ("", None, False, ()) and key not in _NOT_SHOWN
        }
        if self.person is not None:
            told = self.person._asdict().items()
            result["person"] = {key: value for key, value in told if value is not None and value is not False}
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
    return f"{server}/info/api/v2/datastack/full/{_quoted(datastack)}"


def dataset_url(server: str, namespace: str, name: str) -> str:
    """Return the address where anybody with a token learns to which dataset a service's table or volume belongs."""
    return f"{server}/auth/api/v1/service/{namespace}/table/{_quoted(name)}/dataset"


def _quoted(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.~-]*", name):
        return name
    from urllib.parse import quote  # here and below: few requests need it, and it takes a tenth of their time

    return quote(name, safe="")


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
    from urllib.parse import urlsplit

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
    What merely looks like a token is masked, too: an answer without a token may repeat one that was sent before.
    """
    raw = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    # Masked before it is cut (or half a token would be left), and again after the clean-up (which could join one).
    raw = mask(_ESCAPES.sub("", mask(raw[: 64 * limit + 65536], tokens)), tokens)
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in raw)
    shown = mask_token_like(mask_credentials(mask(" ".join(shown.split()), tokens)))
    return shown if len(shown) <= limit else shown[: limit - 3].rstrip() + "..."


# The verdicts that need no answer ----------------------------------------------------------------------------------


def tos_verdict(server: str, datastack: str, tos_id: object, tos_name: object, offered: object = None) -> Verdict:
    """Return the verdict on a person who owes terms of service."""
    form = tos_form_url(server, tos_id, offered)
    named = clean_text(tos_name, limit=80) if isinstance(tos_name, str) and tos_name else "terms of service"
    what = f"datastack {datastack} on {server}" if datastack else server
    return Verdict(
        "missing_tos",
        f"The terms of service of {what} ({named}) are not accepted yet.",
        "The person whose token it is has to log in and accept them (nobody else can; an 'Internal Server Error' "
        f"afterwards does no harm): {form}",
        server,
        datastack,
        form,
    )


def owed_by_parent(verdict: Verdict, person: Person) -> Verdict:
    """Return a verdict on terms of service with who can accept them: a service account's are those of its parent."""
    if verdict.verdict != "missing_tos" or not person.service_account:
        return verdict
    parent = "its parent account" if person.parent is None else f"its parent account, number {person.parent}"
    name = person.email or person.name or f"account {person.id}"
    return verdict._replace(
        message=f"{verdict.message} {name} is a service account: its terms are those of {parent}.",
        remedy=f"The person of the parent account has to log in and accept them (nobody else can): {verdict.url}",
    )


def permission_verdict(
    server: str, datastack: str, dataset: object, permission: object = None, services: str = ""
) -> Verdict:
    """Return the verdict on a person without permission; ``services`` need it where it is not the info service."""
    name = clean_text(dataset, limit=80) if isinstance(dataset, str) and dataset else datastack
    needed = clean_text(permission, limit=30) if isinstance(permission, str) and permission else "view"
    where = f" (datastack {datastack})" if datastack and datastack != name else ""
    what = f"dataset {name}" if name else "what was asked for"
    return Verdict(
        "missing_permission",
        f"The person whose token it is has no permission '{needed}' for {what}{where} on {server}"
        + (f" (needed by {services})." if services else "."),
        f"Ask the managers of {what} to give this person's account '{needed}'; the token is good.",
        server,
        datastack,
    )


def service_down_verdict(server: str, datastack: str, service: str, reason: str, status: int | None = None) -> Verdict:
    """Return the verdict on a service of a datastack that does not do its work.

    Args:
        server: the datastack's local server.
        datastack: its name.
        service: the service's name; ``all``: all that were asked.
        reason: what it does, to follow its name, as "answers 503".
        status: the HTTP status of its answer.
    """
    named = "Every service" if service == "all" else f"The service {service}"
    return Verdict(
        "service_down",
        f"{named} of {datastack} on {server} {reason}. Token and network work.",
        "CAVE itself has a problem: wait, then run this again. If the error persists, tell the server's operator.",
        server,
        datastack,
        service=service,
        status=status,
        reason=reason,
    )


def service_blocked_verdict(server: str, datastack: str, reason: str) -> Verdict:
    """Return the verdict on a datastack's local server that this host cannot reach; ``reason`` says how it failed."""
    place = host_and_port(server)
    return Verdict(
        "service_blocked",
        f"This host does not reach {place}, where the services of {datastack} are: {reason}. The auth server answers.",
        f"Ask whoever runs the firewall to let this host reach {place}; behind a proxy, set https_proxy.",
        server,
        datastack,
        service="all",
        reason=reason,
    )


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
        f"Repair or remove {path} by hand; or have it written anew, with the old content kept beside it (the module "
        "saved_token with on_malformed: replace, or the playbook): ansible-playbook connectomics.cave.provision "
        "--tags token -e caveclient_on_malformed=replace",
        server,
    )


def netrc_verdict(server: str, path: str, host: str) -> Verdict:
    """Return the verdict on a user whose netrc file keeps the token from being sent; no ``host``: it is not UTF-8."""
    what = "is not UTF-8 text: caveclient fails on it (UnicodeDecodeError) before it asks"
    remedy = f"Save {path} as UTF-8, or move it away."
    if host:
        what = (
            f"has an entry for {host}: caveclient sends its user name and password in the place of the token, and the "
            "server answers 400"
        )
        remedy = (
            f"Take the entry out of {path} (a line 'default' is one for every host), or name the hosts that it is for."
        )
    return Verdict("client_error", f"{path} {what}. The token is good.", remedy, server)


def client_error_verdict(error: CaveError, server: str) -> Verdict:
    """Return the verdict on what keeps this host from asking at all: the message says what, and then what to do."""
    message, _dot, remedy = error.message.partition(". ")
    return Verdict("client_error", f"{message.rstrip('.')}.", remedy, server)
