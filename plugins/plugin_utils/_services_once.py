# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the services of a datastack say to a person, asked once in a fleet and not from every host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import SEVERITY


def questions_left(
    result: Mapping[str, Any], users: Iterable[Any], claim: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Return the users, with their datastacks, whose services this host is the first to ask for.

    Args:
        result: of verify_access, without the services' word on persons.
        users: the task's option of that name.
        claim: returns whether nobody has claimed a name before.
    """
    holders = [{"user": item} if isinstance(item, str) else dict(item) for item in users]
    left = []
    for found in result.get("users") or ():
        names = [
            stack["datastack"]
            for stack in found.get("datastacks") or ()
            if stack["verdict"] == "ok"
            and _is_reached(found, stack["datastack"])
            and claim(f"{found['server']} {found['fingerprint']} {stack['datastack']}")
        ]
        holder = next((item for item in holders if _is_holder(item, found)), None)
        if names and holder is not None:
            left.append({**holder, "server": found["server"], "datastacks": names})
    return left


def _is_holder(holder: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    server = str(holder.get("server") or found["server"]).rstrip("/")
    return bool(holder.get("user") == found["user"] and server == found["server"])


def _is_reached(found: Mapping[str, Any], datastack: str) -> bool:
    """Return whether this host may ask on: some service of the datastack has answered to it."""
    return not any(
        item["datastack"] == datastack and item.get("service") == "all" and item["verdict"] != "ok"
        for item in found.get("services") or ()
    )


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of verify_access with what the services said to persons in it."""
    users = [dict(user) for user in first["users"]]
    for user in users:
        for found in second.get("users") or ():
            if (user["user"], user["server"]) == (found["user"], found["server"]):
                user.update(_merged_user(user, found))
    worst = min((user["verdict"] for user in users), key=SEVERITY.index)
    messages = dict.fromkeys(str(part["msg"]) for part in (first, second) if part.get("failed") and part.get("msg"))
    is_unasked = bool(second.get("failed")) and not second.get("users")
    result = {**first, "users": users, "verdict": worst, "failed": worst != "ok" or is_unasked}
    return {**result, "msg": " ".join(messages)} if messages else result


def _merged_user(user: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    services = {(item["datastack"], item.get("service")): item for item in user.get("services") or ()}
    for item in found.get("services") or ():
        known = services.get((item["datastack"], item.get("service")), {})
        if known.get("verdict", "ok") == "ok":  # what does not work without a token is not news with one
            services[item["datastack"], item.get("service")] = {**known, **item} if item["verdict"] == "ok" else item
    news: dict[str, Any] = {"services": list(services.values())}
    if "token_kind" in found:
        news["token_kind"] = found["token_kind"]
    if SEVERITY.index(found["verdict"]) < SEVERITY.index(user["verdict"]) or found.get("token_kind") == "expiring":
        about = ("verdict", "message", "remedy", "url", "datastack", "service", "status")
        news.update({name: found[name] for name in about if name in found})
    return news
