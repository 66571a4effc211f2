# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A token that may be a colleague's: one that several users have, or that is of another account than the last one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import mappings
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import natural_key
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import hosts_named

Owners = Callable[[str, str], Set[str]]
"""Returns the accounts that a host's entries for a user name in ``person``, in lower case."""


def one_token(places: Iterable[tuple[str, str]], token: str, account: str) -> str:
    """Return what to say of a token (its fingerprint) that several users have.

    Args:
        places: user and host.
        account: whose token it is; empty where that is not known.
    """
    hosts: dict[str, list[str]] = {}
    for user, host in places:
        hosts.setdefault(user, []).append(host)
    who = " and ".join(f"{user} ({hosts_named(hosts[user])})" for user in sorted(hosts, key=natural_key))
    return (
        f"{who} have one token, {token}, which is that of {account or 'one person'}. "
        "Give each their own, or name the account in person."
    )


def is_of_one_token(note: str) -> bool:
    """Return whether a note is one of those on a token that several users have."""
    return re.search(r" have one token, [0-9a-f]{8}, which is that of ", note) is not None


def shared_tokens(report: Mapping[str, Any], owners: Owners) -> list[str]:
    """Return a note on each token that several users of a report have, unless all their entries say whose it is.

    ``owners`` is asked only about these.
    """
    # What a server calls itself does not count: the same value is the same token.
    places: dict[str, list[tuple[str, str]]] = {}
    persons: dict[str, Mapping[str, Any]] = {}
    for host in report["hosts"]:
        for user in host["users"]:
            if user["fingerprint"] is not None:
                places.setdefault(user["fingerprint"], []).append((user["user"], host["name"]))
                persons.setdefault(user["fingerprint"], user["person"] or {})
                persons[user["fingerprint"]] = persons[user["fingerprint"]] or user["person"] or {}
    notes = []
    for token in sorted(places):
        if len({user for user, _host in places[token]}) > 1:
            person = persons[token]
            names = {person[key].lower() for key in ("email", "name") if person.get(key)}
            if not all(_is_said(owners(host, user), names) for user, host in places[token]):
                notes.append(one_token(places[token], token, person.get("name") or person.get("email") or ""))
    return notes


def _is_said(owners: Set[str], names: Set[str]) -> bool:
    """Return whether an entry says whose a token is. Where no server told, what the entry says has to do."""
    return bool(owners) and (not names or bool(names & owners))


def other_accounts(results: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return a note on each token that is of another account than the one that it replaced on a host."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for host, many in results.items():
        for result in many:
            for entry in mappings(result.get("users")) if isinstance(result, Mapping) else ():
                before, account = entry.get("previous_account"), entry.get("account")
                if before and account and before != account:
                    found.setdefault((str(entry.get("user")), str(account), str(before)), []).append(host)
    return [
        f"The token of {user} is that of {account}; the one that it replaced on {hosts_named(hosts)} was that of "
        f"{before}. Is it a colleague's?"
        for (user, account, before), hosts in sorted(found.items())
    ]
