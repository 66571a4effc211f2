# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``verify_access`` found for each user, and how it is said."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._backends.services_check import Looked, Proof
from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import NetrcFile
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    SEVERITY,
    Verdict,
    clean_text,
    netrc_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import HostUser
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading
from ansible_collections.connectomics.cave.plugins.module_utils._users import shown

_NAMES_SHOWN = 8
_SAVE = "ansible-playbook connectomics.cave.provision --tags token"


class Limits(NamedTuple):
    """How long and how often to ask, and whom to trust."""

    timeout: int
    retries: int
    ca_path: str | None


class Finding(NamedTuple):
    """What was found for one user: the overall verdict, one for each datastack, and what the readers send."""

    user: str | None
    overall: Verdict
    datastacks: tuple[Verdict, ...] = ()
    sent: tuple[Reading, ...] = ()
    client_version: str = ""
    proof: Proof | None = None
    """The token, where the auth server accepts it."""
    looked: Looked = Looked()

    def as_dict(self) -> dict[str, Any]:
        """Return one user's part of the module's result. No token is in it."""
        result: dict[str, Any] = {"user": self.user, **self.overall.as_dict()}
        result["datastacks"] = [verdict.as_dict() for verdict in self.datastacks]
        if self.sent:
            result["path"] = self.sent[0].path
            result["fingerprint"] = self.sent[0].fingerprint
            result["readers"] = {f"{item.reader} {item.host}": item.fingerprint for item in self.sent}
        if self.looked.services:
            result["services"] = [verdict.as_dict() for verdict in self.looked.services]
        if self.looked.token_kind:
            result["token_kind"] = self.looked.token_kind
        if self.client_version:
            result["client_version"] = self.client_version
        return result


def by_netrc(verdict: Verdict, server: str, host: str, netrc: NetrcFile) -> Verdict:
    """Return the verdict in the place of another one, where a netrc file keeps the token from being sent."""
    return netrc_verdict(server, clean_text(netrc.path), host if netrc.is_text else "")._replace(
        person=verdict.person, fingerprint=verdict.fingerprint
    )


def severity(verdict: Verdict) -> int:
    """Return the place of a verdict among all, the worst first."""
    return SEVERITY.index(verdict.verdict)


def leads_to(address: str, server: str) -> bool:
    """Return whether an address of the server map is that of a server."""
    return address.rstrip("/") == server


def with_notes(verdict: Verdict, user: HostUser, sent: list[Reading], elsewhere: Iterable[str], server: str) -> Verdict:
    """Add to a verdict what is wrong besides: readers with other tokens, datastacks that lead to another server.

    What to do about that comes after the verdict's own remedy; not after one that ends in a command, which sends a new
    token to all readers, or has to work before anything can be saved.
    """
    names = list(elsewhere)
    notes, aims, module = [verdict.message], [], "the module saved_token"
    first, *others = sent
    differing = [item for item in others if first.token and item.token != first.token]
    if differing:
        notes.append(f"caveclient sends {first}, but {', '.join(_sends(item) for item in differing)}.")
        aims.append("all of them send it")
    for name in names:
        used = clean_text(user.server_of(name))
        why = "its server map says so" if name in user.server_map else "no server map of this user says otherwise"
        notes.append(f"Without a server address, caveclient asks {used} for {name}, not {server}: {why}.")
    if names:
        aims.append(f"caveclient asks {server} for {', '.join(names)}")
        module += f" with datastacks: [{', '.join(names)}]"
    remedy = verdict.remedy
    if aims and remedy[-1:] in ("", "."):  # else it ends in a command or an address
        again = f"Save the token again, so that {' and '.join(aims)} ({module}, or the playbook): {_SAVE}"
        remedy = f"{remedy} {again}".strip()
    return verdict._replace(message=" ".join(notes), remedy=remedy)


def _sends(sent: Reading) -> str:
    return f"{sent.reader} sends {sent} to {sent.host}"


def summary(findings: list[Finding]) -> dict[str, Any]:
    """Return the result of all users. Raises CaveError when somebody's access does not work."""
    overall = min((finding.overall for finding in findings), key=severity)
    users = [finding.as_dict() for finding in findings]
    result = {"changed": False, "verdict": overall.verdict, "users": users}
    if not overall.ok:
        raise CaveError(_complaint(findings), **result)
    return result


def _complaint(findings: list[Finding]) -> str:
    """Name everybody whose access doesn't work, the reason and the remedy; the worst first, each reason once."""
    complaints: dict[tuple[int, str, str, str], list[str]] = {}
    for finding in findings:
        worst = finding.overall
        # The overall verdict is one of those on the datastacks, with more in it.
        others = [
            item for item in finding.datastacks if (item.verdict, item.datastack) != (worst.verdict, worst.datastack)
        ]
        services = [
            item for item in finding.looked.services if (item.message, item.service) != (worst.message, worst.service)
        ]
        for verdict in [worst, *others, *services]:
            if not verdict.ok:
                reason = (severity(verdict), verdict.verdict, verdict.message, verdict.remedy)
                complaints.setdefault(reason, []).append(finding.user or "")
    texts = []
    for (_rank, name, message, remedy), named in sorted(complaints.items(), key=lambda item: item[0][0]):
        users = [shown(user) for user in dict.fromkeys(named) if user]
        more = f" and {len(users) - _NAMES_SHOWN} more" if len(users) > _NAMES_SHOWN else ""
        who = f"{', '.join(users[:_NAMES_SHOWN])}{more}: " if users else ""
        texts.append(f"{who}{name}. {message} What to do: {remedy}")
    locked_out = sum(not finding.overall.ok for finding in findings)
    count = f"CAVE access does not work for {locked_out} of {len(findings)} users. " if len(findings) > 1 else ""
    return count + " ".join(texts)
