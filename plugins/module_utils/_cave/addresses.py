# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts and ports a datastack needs, as its record tells, and which of them this host reaches."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import HttpError, request
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_and_port
from ansible_collections.connectomics.cave.plugins.module_utils._cave.side_by_side import side_by_side
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text

_BUCKETS = {"gs": "https://storage.googleapis.com", "s3": "https://{}.s3.amazonaws.com"}
"""Where the buckets of a scheme are served."""
_PLACE = re.compile(r"(gs|s3|https?)://([A-Za-z0-9.:\[\]-]+)")
_POSSIBLE = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_AT_ONCE = 8


def addresses_in(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what a datastack's record leads to: what it is for, and its address without a path."""
    volume = record.get("aligned_volume")
    named = {
        "services": record.get("local_server"),
        "segmentation": record.get("segmentation_source"),
        "viewer": record.get("viewer_site"),
        "images": volume.get("image_source") if isinstance(volume, dict) else None,
        "skeletons": record.get("skeleton_source"),
    }
    return tuple((purpose, address) for purpose, value in named.items() for address in _address_in(value))


def _address_in(value: object) -> Iterator[str]:
    """Yield the address in a value of a record, where it has a possible one."""
    place = _PLACE.search(value) if isinstance(value, str) else None
    if place is not None:
        scheme, host = place.groups()
        address = _BUCKETS[scheme].format(host) if scheme in _BUCKETS else f"{scheme}://{host}"
        possible = _POSSIBLE.fullmatch(address)
        if possible and 0 < int(possible["port"] or 1) < 65536:
            yield address


def reached(wanted: Iterable[tuple[str, str]], timeout: float, ca_path: str | None) -> list[dict[str, Any]]:
    """Return whether this host reaches each address, through its proxy where it has one; no token is sent.

    Args:
        wanted: what each address is for, and the address, in any order.
        timeout: seconds for each.
        ca_path: bundle of certificates to trust.

    Returns:
        For each host and port: ``address``, ``purposes``, ``reached``, and the ``reason`` where it is not.
    """
    purposes: dict[str, list[str]] = {}
    for purpose, address in wanted:
        known = purposes.setdefault(address, [])
        if purpose not in known:
            known.append(purpose)
    reasons = side_by_side(purposes, lambda address: _reason(address, timeout, ca_path), _AT_ONCE)
    return [
        {
            "address": host_and_port(address),
            "purposes": named,
            "reached": not reasons[address],
            "reason": reasons[address],
        }
        for address, named in purposes.items()
    ]


def _reason(address: str, timeout: float, ca_path: str | None) -> str:
    try:
        request("HEAD", f"{address}/", timeout=timeout, ca_path=ca_path)
    except HttpError as error:
        return clean_text(error.reason)
    return ""  # any answer will do: it came from there
