# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose trouble it is when the services of a datastack don't work: what is the same on many hosts is one sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SERVICE_VERDICTS = ("service_down", "service_blocked", "tls_error")
"""Verdicts that are told by these sentences, and not user by user, where they are on services."""
_AT_THE_SERVER = {
    "service_blocked": (
        "BLOCKED",
        "not",
        "Ask whoever runs the firewall.",
        "Ask whoever runs the firewall whether the lab may reach {place}; or CAVE is down.",
    ),
    "tls_error": (
        "NOT TRUSTED",
        "served",
        "Check on these hosts: does a proxy answer in its place, is the clock right, is a CA missing?",
        "If a proxy answers in its place, give its certificate authority as caveclient_ca_path; else wait for CAVE.",
    ),
}
"""How the sentence on a server that cannot be used begins and ends, and the remedies for some hosts, and for all."""

_TIME_LEFT = re.compile(r"\bwithin [0-9.]+ s\b")
"""What was left of the time for all questions, which differs from host to host."""
_PLURAL = re.compile(r"^(?P<verb>answer|refuse)s\b")


class _Look(NamedTuple):
    """What one host found of a service."""

    host: str
    user: str
    item: Mapping[str, Any]


def service_troubles(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the troubles of services, each in one sentence, those that concern most hosts first.

    Returns:
        Groups as those of ``problem_groups``, with the sentence as ``message``.
    """
    looks = [
        _Look(host["name"], user["user"], {**item, "reason": _TIME_LEFT.sub("in time", item["reason"])})
        for host in report["hosts"]
        for user in host["users"]
        for item in user.get("services") or ()
    ]
    groups: dict[tuple[Any, ...], list[_Look]] = {}
    for look in looks:
        item = look.item
        if item["verdict"] in _AT_THE_SERVER:
            groups.setdefault((item["verdict"], item["server"], item["reason"]), []).append(look)
        elif item["verdict"] == "service_down":
            key = (item["datastack"], item["server"], item["reason"], item["with_token"], item["service"])
            groups.setdefault(("service_down", *key), []).append(look)
    blocked = [_at_the_server(found, looks) for key, found in groups.items() if key[0] in _AT_THE_SERVER]
    down = [_down(found, looks) for found in _alike(groups)]
    return sorted(blocked + down, key=lambda group: (-len(group["places"]), group["message"]))


def note_since(report: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Write into a report since when each service is in trouble, as the report of the run before it knows."""
    known: dict[tuple[Any, ...], str] = {}
    for item in _in_trouble(earlier):
        since = item.get("since") or earlier["time"]
        if since:
            known[_same(item)] = min(since, known.get(_same(item), since))
    for item in _in_trouble(report):
        item["since"] = known.get(_same(item))


def _in_trouble(report: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    users = [user for host in report["hosts"] for user in host["users"]]
    return [item for user in users for item in user.get("services") or () if item["verdict"] in SERVICE_VERDICTS]


def _same(item: Mapping[str, Any]) -> tuple[Any, ...]:
    return item["verdict"], item["server"], item["datastack"], item["service"]


def _since(found: Iterable[_Look]) -> str:
    """Return since when it is so, in the words that follow a sentence; empty where nobody knows."""
    times = [look.item["since"] for look in found if look.item.get("since")]
    return f" since {min(times)[:10]} {min(times)[11:16]} UTC" if times else ""


def _alike(groups: Mapping[tuple[Any, ...], list[_Look]]) -> Iterable[list[_Look]]:
    """Return what services do from the same hosts and in the same way as one."""
    joined: dict[tuple[Any, ...], list[_Look]] = {}
    for key, found in groups.items():
        if key[0] == "service_down":
            joined.setdefault((*key[:-1], tuple(sorted({look.host for look in found}))), []).extend(found)
    return joined.values()


def _down(found: Sequence[_Look], looks: Sequence[_Look]) -> dict[str, Any]:
    first = found[0].item
    services = dict.fromkeys(look.item["service"] for look in found)
    hosts = _hosts(found)
    asked = _hosts(
        look
        for look in looks
        if (look.item["datastack"], look.item["server"]) == (first["datastack"], first["server"])
        and (look.item["with_token"] or not first["with_token"])
    )
    *most, last = services
    named = "every service" if last == "all" else f"{', '.join(most)} and {last}" if most else last
    where = (
        f"from {_all_or_some(hosts, asked)}"
        if not first["with_token"]
        else f"when asked with a token (from {_some(hosts)})"
    )
    reason = _PLURAL.sub(r"\g<verb>", first["reason"]) if len(services) > 1 else first["reason"]
    message = f"CAVE: {named} of {first['datastack']} {reason} {where}{_since(found)}"
    if len(hosts) == len(asked):
        return _group("service_down", f"{message}: tokens and network work.", "Nothing to do but wait.", found)
    message += f"; {_others(asked, hosts)} served."
    return _group("service_down", message, "Run verify again; if the error persists, look at these hosts.", found)


def _at_the_server(found: Sequence[_Look], looks: Sequence[_Look]) -> dict[str, Any]:
    first = found[0].item
    title, others, for_some, for_all = _AT_THE_SERVER[first["verdict"]]
    hosts = _hosts(found)
    parts = urlsplit(first["server"])
    place = f"{parts.hostname}:{parts.port or (80 if parts.scheme == 'http' else 443)}"
    asked = _hosts(look for look in looks if look.item["server"] == first["server"])
    message = f"{title} on {_all_or_some(hosts, asked)}{_since(found)}: {place}: {first['reason']}"
    if len(hosts) == len(asked):
        return _group(first["verdict"], f"{message}.", for_all.format(place=place), found)
    return _group(first["verdict"], f"{message}; {_others(asked, hosts)} {others}.", for_some, found)


def _hosts(looks: Iterable[_Look]) -> list[str]:
    return list(dict.fromkeys(look.host for look in looks))


def _all_or_some(hosts: Sequence[str], asked: Collection[str]) -> str:
    return f"all {len(hosts)} hosts" if len(hosts) == len(asked) > 1 else _some(hosts)


def _others(asked: Collection[str], hosts: Collection[str]) -> str:
    count = len(asked) - len(hosts)
    return "1 other is" if count == 1 else f"{count} others are"


def _some(hosts: Sequence[str], most: int = 4) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more


def _group(verdict: str, message: str, remedy: str, found: Iterable[_Look]) -> dict[str, Any]:
    places: dict[str, list[str]] = {}
    for look in found:
        users = places.setdefault(look.host, [])
        if look.user not in users:
            users.append(look.user)
    return {
        "state": "failed",
        "verdict": verdict,
        "message": message,
        "remedy": remedy,
        "url": None,
        "example": "",
        "is_sentence": True,
        "places": [{"host": host, "users": users} for host, users in places.items()],
    }
