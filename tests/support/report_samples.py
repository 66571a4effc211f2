# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pretend results of modules, and reports made of them, for the tests of reports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import build_report

SERVER = "https://global.daf-apis.com"
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = "<script>document.title='owned'</script>\x1b[31m\"'&\u202e{{ 7 * 7 }}"


def ok(user: str, fingerprint: str = "3fa9c2d1", **more: Any) -> dict[str, Any]:
    """Return a user's entry of verify_access: access works."""
    return {
        "user": user,
        "server": SERVER,
        "verdict": "ok",
        "message": "Access works.",
        "remedy": "",
        "fingerprint": fingerprint,
        "person": {"id": 3, "name": user.title(), "email": f"{user}@example.org"},
        "datastacks": [{"datastack": "minnie65_public", "verdict": "ok", "message": "Access works."}],
        **more,
    }


def refused(user: str, fingerprint: str = "81b0e7aa", **more: Any) -> dict[str, Any]:
    """Return a user's entry of verify_access: the server does not know the token."""
    return {
        "user": user,
        "server": SERVER,
        "verdict": "invalid_token",
        "message": f"{SERVER} refuses the token {fingerprint}: it was replaced or revoked.",
        "remedy": f"Put {user}'s present token into the vault, then run connectomics.cave.rotate.",
        "url": f"{SERVER}/sticky_auth/settings/tokens",
        "fingerprint": fingerprint,
        **more,
    }


def owes_terms(user: str, fingerprint: str = "52c07a90") -> dict[str, Any]:
    """Return a user's entry of verify_access: terms of service are not accepted yet."""
    form = f"{SERVER}/sticky_auth/api/v1/tos/2/accept"
    missing = {
        "verdict": "missing_tos",
        "message": "MICrONS Terms: the terms of service are not accepted.",
        "url": form,
    }
    return {
        "user": user,
        "server": SERVER,
        **missing,
        "remedy": f"{user} opens the form, reads the terms and accepts them.",
        "fingerprint": fingerprint,
        "datastacks": [{"datastack": "minnie65_public", **missing}],
    }


def result(*users: dict[str, Any], changed: bool = False) -> dict[str, Any]:
    """Return what a module registers for its users."""
    failed = any(user.get("failed") or user.get("verdict") not in ("ok", None) for user in users)
    return {"changed": changed, "failed": failed, "users": list(users)} | ({"msg": "Some failed."} if failed else {})


def unreachable(host: str) -> dict[str, Any]:
    """Return what Ansible registers for a host that is switched off."""
    message = f"Failed to connect to the host via ssh: ssh: connect to host {host} port 22: No route to host"
    return {"unreachable": True, "changed": False, "msg": message}


def report_of(results: dict[str, list[Any]], tokens: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Return the report of a run of verify, at noon."""
    return build_report("verify", results, **{"time": NOON, "clean": Cleaner(tokens), **more})


def fleet(hosts: int, users: int = 3) -> dict[str, list[Any]]:
    """Return the results of a fleet with a bit of everything, the more the larger it is.

    Args:
        hosts: at least 3. Every 10th refuses a token, every 15th is switched off, every 40th has terms owed.
        users: people in all; three of them work on each workstation.
    """
    people = ["alice", "bob", "carol", *(f"person{number:02}" for number in range(4, users + 1))][:users]
    results = {}
    for number in range(1, hosts + 1):
        host = f"ws{number:03}" if number % 50 else f"imaging-workstation-{number:03}.neuro.research.example.org"
        here = [people[(number + offset) % users] for offset in range(min(3, users))]
        prints = {user: f"{0x3FA9C2D1 + 7919 * people.index(user):08x}" for user in here}
        entries = [ok(user, prints[user]) for user in here]
        if number % 10 == 2:
            entries[0] = refused(here[0], f"{0x81B0E7AA + 7919 * people.index(here[0]):08x}")  # an old one of theirs
        if number % 40 == 3:
            entries[-1] = owes_terms(here[-1], prints[here[-1]])
        if number % 25 == 4:
            problem = {
                "code": "shadowed",
                "path": f"/home/{here[1]}/.cloudvolume/secrets/cave-secret.json",
                "message": "cloud-volume takes another file than caveclient, with another token.",
                "remedy": "Run connectomics.cave.provision with --tags token for this host.",
            }
            entries[1] = ok(here[1], prints[here[1]], problems=[problem])
        results[host] = [unreachable(host)] if number % 15 == 3 % hosts else [result(*entries, changed=number % 2 == 0)]
    return results
