# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a firewall has to let through, and where it does not: a sentence for each address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import shortened

_HOSTS_NAMED = 8


def address_sentences(results: Mapping[str, list[Any]]) -> tuple[list[str], list[str]]:
    """Return what to let through (an address each), and what is blocked where.

    Args:
        results: what the modules returned, by host.
    """
    purposes: dict[str, dict[str, None]] = {}
    asked: dict[str, list[str]] = {}
    blocked: dict[tuple[str, str], list[str]] = {}
    for host, found in _found(results):
        address = str(found.get("address"))
        purposes.setdefault(address, {}).update(dict.fromkeys(map(str, found.get("purposes") or ())))
        asked.setdefault(address, []).append(host)
        if not found.get("reached"):
            blocked.setdefault((address, str(found.get("reason"))), []).append(host)
    open_to = {
        address: len(hosts) - sum(len(out) for (place, _why), out in blocked.items() if place == address)
        for address, hosts in asked.items()
    }
    through = [
        f"Let through: {address} ({', '.join(named)}); {open_to[address]} of {len(asked[address])} hosts reach it."
        for address, named in purposes.items()
    ]
    shut = [
        f"BLOCKED on {_on(hosts, len(asked[address]))}: {address} ({', '.join(purposes[address])}): {reason}. "
        "Ask whoever runs the firewall."
        for (address, reason), hosts in blocked.items()
    ]
    return through, shut


def _found(results: Mapping[str, list[Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for host, found in results.items():
        for result in found:
            for entry in (result.get("addresses") or ()) if isinstance(result, Mapping) else ():
                if isinstance(entry, Mapping):
                    yield host, entry


def _on(hosts: list[str], total: int) -> str:
    return f"all {total} hosts" if len(hosts) == total > 1 else shortened(hosts, _HOSTS_NAMED)
