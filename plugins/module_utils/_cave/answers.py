# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a CAVE server answers to a verdict: pure functions. What is said of a refusal is in ``refusals``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.addresses import addresses_in
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Person,
    Verdict,
    clean_text,
    tos_verdict,
)


def _person(record: dict[str, Any], token: str) -> Person | None:
    number = record.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    parent = record.get("parent_id")
    return Person(
        number,
        clean_text(record.get("name") or "", [token]),
        clean_text(record.get("email") or "", [token]),
        record.get("service_account") is True,
        parent if isinstance(parent, int) and not isinstance(parent, bool) else None,
    )


def clean_values(data: object, token: str) -> dict[str, Any]:
    """Return a mapping of the server with its strings made fit to show; an address keeps all of its 500 characters."""
    if not isinstance(data, dict):
        return {}
    return {key: clean_text(value, [token], 500) if isinstance(value, str) else value for key, value in data.items()}


def _record(answer: Answer) -> dict[str, Any] | None:
    if answer.status != 200 or not answer.claims_json:
        return None
    try:
        content = answer.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def datastack_verdict(answer: Answer, server: str, datastack: str, token: str) -> Verdict:
    """Return the verdict on an answer of the info service to ``datastack/full/NAME``."""
    record = _record(answer)
    if record is not None and ("aligned_volume" in record or "segmentation_source" in record):
        volume = record.get("aligned_volume")
        segmentation = _plain(record.get("segmentation_source"), token).rstrip("/")
        return Verdict(
            "ok",
            f"{server} gives access to datastack {datastack}.",
            "",
            server,
            datastack,
            local_server=_plain(record.get("local_server"), token),
            table=segmentation.rpartition("/")[2] if segmentation.startswith("graphene://") else "",
            volume=_plain(volume.get("name") if isinstance(volume, dict) else "", token),
            # A server that echoes the token does not get it passed on.
            addresses=tuple(item for item in addresses_in(record) if not token or token not in item[1]),
        )
    # Here and below: few requests are refused, and to compile what is said of these takes a fifth of a request's time.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import no_record_verdict

    return no_record_verdict(answer, server, datastack, token)


def _plain(value: object, token: str) -> str:
    """Return a string of a record as it is; empty when it is none, or could not be shown as it is."""
    return value if isinstance(value, str) and value == clean_text(value, [token]) else ""


class Account(NamedTuple):
    """What the auth server says about a token's owner: who it is, what is permitted now, which terms are owed."""

    person: Person
    permissions: dict[str, Any]
    missing_tos: list[dict[str, Any]]

    def can_view(self, dataset: str) -> bool:
        """Whether the person may see a dataset now."""
        names = self.permissions.get(dataset)
        return isinstance(names, list) and "view" in names

    def owed_for(self, dataset: str) -> dict[str, Any] | None:
        """Return the terms of service that are owed for a dataset, as the server lists them."""
        return next((item for item in self.missing_tos if item.get("dataset_name") == dataset), None)


def account_of(answer: Answer, server: str, token: str) -> Account | Verdict:
    """Return what ``user/cache`` tells, or the verdict when it doesn't tell it."""
    record = _record(answer)
    person = _person(record, token) if record is not None else None
    if record is None or person is None or "permissions_v2" not in record:
        from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import refusal_verdict

        return refusal_verdict(answer, server, token, "a person, as JSON")
    permissions = record.get("permissions_v2")
    owed = record.get("missing_tos")
    return Account(
        person,
        permissions if isinstance(permissions, dict) else {},
        [clean_values(item, token) for item in owed if isinstance(item, dict)] if isinstance(owed, list) else [],
    )


def account_verdict(account: Account, server: str) -> Verdict:
    """Return the verdict on a token that the auth server knows, without a look at any datastack."""
    name = account.person.email or account.person.name or f"person {account.person.id}"
    whose = f"service account {name}" if account.person.service_account else name
    return Verdict("ok", f"{server} accepts the token of {whose}.", "", server, person=account.person)


def permitted_verdict(account: Account, server: str, datastack: str, dataset: str = "") -> Verdict | None:
    """Return the verdict on one datastack as far as ``user/cache`` decides it.

    None means that the permissions don't name it: a datastack may be in a ``dataset`` of another name, which only the
    info service and the auth server's mapping know.
    """
    dataset = dataset or datastack
    if account.can_view(dataset):
        return Verdict("ok", f"{server} gives access to datastack {datastack}.", "", server, datastack)
    owed = account.owed_for(dataset)
    return tos_verdict(server, datastack, owed.get("tos_id"), owed.get("tos_name")) if owed else None
