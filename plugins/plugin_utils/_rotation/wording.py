# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say of many hosts what there is to say: all of them, and what is the same only once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import natural_key
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Blocker

SHORTEST_ROW = 4
"""Hosts that are numbered through are told as a row from here on: ws1 to ws4."""


def names(items: Iterable[str]) -> str:
    """Return names in a row, without end: whoever waits has to know for whom."""
    return ", ".join(items)


def hosts_named(hosts: Iterable[str]) -> str:
    """Return the names of hosts. None is left out: those that are numbered through are told by the first and last."""
    rows: list[list[str]] = []
    for host in sorted(dict.fromkeys(hosts), key=natural_key):
        if rows and _next(rows[-1][-1]) == host:
            rows[-1].append(host)
        else:
            rows.append([host])
    return names(names(row) if len(row) < SHORTEST_ROW else f"{row[0]} to {row[-1]}" for row in rows)


def with_reasons(found: Iterable[Blocker]) -> str:
    """Return what is said of hosts, as a part of a sentence; see ``grouped``."""
    of_hosts: dict[str, list[str]] = {}
    for hosts, reason in grouped(found):
        of_hosts.setdefault(hosts, []).append(reason.rstrip("."))
    return "; ".join(
        text for hosts, said in of_hosts.items() for text in ([f"{hosts} ({'; '.join(said)})"] if hosts else said)
    )


def grouped(found: Iterable[Blocker]) -> list[tuple[str, str]]:
    """Return hosts, and what is said of them. What is the same but for their names and addresses is said once."""
    groups: dict[tuple[bool, str], dict[Blocker, None]] = {}
    found = list(found)
    of_users = {(item.host, item.reason.partition(": ")[2]) for item in found}
    for item in found:
        if item not in of_users:  # it is said of one of its users already
            groups.setdefault((bool(item.host), _general(item)), {})[item] = None
    said = []
    for (of_hosts, general), items in groups.items():
        reasons = {item.reason for item in items}
        reason = reasons.pop() if len(reasons) == 1 else general
        said.append((hosts_named(item.host for item in items) if of_hosts else "", reason))
    return said


def _general(item: Blocker) -> str:
    """Return a reason without what belongs to its host alone."""
    if not item.host:
        return item.reason
    text = re.sub(rf"(?<![\w-]){re.escape(item.host)}(?![\w-])", "...", item.reason)
    return re.sub(r"\bhost \S+ port\b", "host ... port", text)


def _next(host: str) -> str:
    """Return the name of the host that follows by its number; an empty string for one without a number.

    The number is the last one in the host's own name, before the domain; of an address, the last one of all.
    """
    label, dot, domain = host.partition(".")
    label, rest = (host, "") if label.isdigit() else (label, dot + domain)
    found = re.fullmatch(r"(.*?)([0-9]{1,18})([^0-9]*)", label)
    return f"{found[1]}{str(int(found[2]) + 1).zfill(len(found[2]))}{found[3]}{rest}" if found else ""
