# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entry of one user on one host: what the results of modules, or an earlier report, say of that user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import (
    FINGERPRINT,
    PATH_LENGTH,
    TIME,
    VERDICT,
    Cleaner,
    boolean,
    mapping,
    mappings,
    matching,
    scalar,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.remedies import REMEDY_ERROR, host_remedy

_FINE = ("ok", "not_checked", "no_account")
"""Verdicts on users for whom nothing is to be done."""


def _problem(entry: Mapping[str, Any], clean: Cleaner) -> dict[str, Any]:
    return {
        "code": matching(VERDICT, entry.get("code")) or "problem",
        "path": clean.text(entry.get("path"), PATH_LENGTH),
        "message": clean.text(entry.get("message")),
        "remedy": clean.text(entry.get("remedy")),
    }


def _datastack(entry: Mapping[str, Any], clean: Cleaner) -> dict[str, Any]:
    return {
        "datastack": clean.name(entry.get("datastack")),
        "verdict": matching(VERDICT, entry.get("verdict")) or "error",
        "message": clean.text(entry.get("message")),
        "remedy": clean.text(entry.get("remedy")),
        "url": clean.address(entry.get("url")),
    }


def _service(entry: Mapping[str, Any], clean: Cleaner) -> dict[str, Any]:
    return {
        "service": clean.name(entry.get("service")) or "all",
        "datastack": clean.name(entry.get("datastack")),
        "server": clean.address(entry.get("server")),
        "verdict": matching(VERDICT, entry.get("verdict")) or "error",
        "reason": clean.text(entry.get("reason")),
        "version": clean.name(entry.get("version")),
        "with_token": entry.get("with_token") is True,
        "since": matching(TIME, entry.get("since")),
    }


def _files(value: object, clean: Cleaner) -> list[dict[str, Any]]:
    """Return the files that were written or removed."""
    return [
        {
            "path": clean.text(item.get("path"), PATH_LENGTH),
            "action": clean.name(item.get("action")),
            "reason": clean.text(item.get("reason")),
        }
        for item in mappings(value)
        if item.get("action") not in (None, "unchanged")
    ]


def _person(value: object, clean: Cleaner) -> dict[str, Any] | None:
    if not isinstance(value, Mapping):
        return None
    number = value.get("id")
    return {
        "id": int(number) if isinstance(number, int) and not isinstance(number, bool) else None,
        "name": clean.name(value.get("name")),
        "email": clean.name(value.get("email")),
        "service_account": value.get("service_account") is True,
    }


def _readers(value: object, clean: Cleaner) -> list[dict[str, Any]]:
    """Return what each reader sends, from a list of entries, or a mapping of readers to entries or fingerprints."""
    if isinstance(value, Mapping):
        value = [
            {**(item if isinstance(item, Mapping) else {"fingerprint": item}), "reader": name}
            for name, item in value.items()
        ]
    return [
        {
            "reader": clean.name(f"{scalar(item.get('reader'))} {scalar(item.get('host'))}"),
            "path": clean.text(item.get("path"), PATH_LENGTH),
            "fingerprint": matching(FINGERPRINT, item.get("fingerprint")),
        }
        for item in mappings(value)
    ]


def user_entry(entry: Mapping[str, Any], clean: Cleaner) -> dict[str, Any]:
    """Return the entry of a user from one result: of verify_access, saved_token, saved_token_info, or of a report."""
    access = mapping(entry.get("access")) or entry
    verdict = matching(VERDICT, access.get("verdict")) or "not_checked"
    message, remedy = access.get("message"), access.get("remedy")
    failed = entry.get("failed") is True or entry.get("state") == "failed"
    if failed and verdict in ("ok", "not_checked"):
        # The token may be good; it's the work on the host that went wrong. Only what writes says whether it changed.
        verdict, message = "not_saved" if "changed" in entry else "not_read", entry.get("msg") or message
        remedy = entry.get("remedy") or host_remedy(scalar(message)) or REMEDY_ERROR
    elif verdict == "not_checked" and entry.get("has_account") is False:
        verdict, message = "no_account", entry.get("msg")
    problems = [_problem(item, clean) for item in mappings(entry.get("problems"))]
    state = "failed" if failed or verdict not in _FINE else "warning" if problems else "ok"
    datastacks = [_datastack(item, clean) for item in mappings(entry.get("datastacks"))]
    readers = _readers(entry.get("readers"), clean)
    sent = {reader["fingerprint"] for reader in readers if reader["fingerprint"]}
    return {
        "user": clean.name(entry.get("user")) or "?",
        "server": clean.address(entry.get("server") or access.get("server")),
        "state": state,
        "verdict": verdict,
        "message": clean.text(message),
        "remedy": clean.text(remedy),
        "url": clean.address(access.get("url")) or next((item["url"] for item in datastacks if item["url"]), None),
        "person": _person(access.get("person"), clean),
        "fingerprint": matching(FINGERPRINT, entry.get("fingerprint") or access.get("fingerprint"))
        or (sent.pop() if len(sent) == 1 else None),
        "previous_fingerprint": matching(FINGERPRINT, entry.get("previous_fingerprint")),
        "changed": boolean(entry.get("changed")),
        "datastacks": datastacks,
        "services": [_service(item, clean) for item in mappings(entry.get("services"))],
        "problems": problems,
        "readers": readers,
        "files": _files(entry.get("files"), clean),
    }


def _weight(user: Mapping[str, Any]) -> int:
    """Return how much an entry's verdict says: a failure most, then a proof, and nothing when nobody asked."""
    return 2 if user["state"] == "failed" else 0 if user["verdict"] == "not_checked" else 1


def join_users(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return one entry of two about the same user and server, ``second`` from the later task."""
    telling = first if _weight(first) > _weight(second) else second
    problems = first["problems"] + [item for item in second["problems"] if item not in first["problems"]]
    state = "warning" if problems and telling["state"] == "ok" else telling["state"]
    changes = [entry["changed"] for entry in (first, second) if entry["changed"] is not None]
    return {
        **telling,
        "state": state,
        "person": telling["person"] or first["person"] or second["person"],
        "fingerprint": telling["fingerprint"] or second["fingerprint"] or first["fingerprint"],
        "previous_fingerprint": first["previous_fingerprint"] or second["previous_fingerprint"],
        "changed": any(changes) if changes else None,
        "problems": problems,
        "readers": second["readers"] or first["readers"],
        "services": second["services"] or first["services"],
        "files": first["files"] + [item for item in second["files"] if item not in first["files"]],
    }
