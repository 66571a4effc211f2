# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run found on every host, as one report: the data behind the table, the page and the files.

A report is plain JSON of the shape that ``report.schema.json`` (beside this file) describes. It is made from the
results that Ansible registered (`build_report`), from a file of an earlier run (`read_report`) or from several reports
(`merge_reports`). Hosts are not trusted: whatever they sent passes through `Cleaner` before it enters a report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import (
    TIME,
    VERDICT,
    Cleaner,
    boolean,
    mapping,
    mappings,
    matching,
    scalar,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.remedies import (
    REMEDY_ERROR,
    REMEDY_NOT_RUN,
    REMEDY_UNREACHABLE,
    host_remedy,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.users import join_users, user_entry

VERSION = 1
"""Of the report's shape. It grows when a reader of the old shape would go wrong."""

STATES = ("failed", "pending", "warning", "ok")
"""The worst first. failed: somebody is locked out, or a task failed. pending: the host could not be asked.
warning: it works, but something is wrong with the files. ok: nothing is wrong."""

HOST_VERDICTS = ("host_unreachable", "not_run", "error")
"""What can be wrong with a host as a whole: it could not be reached, no task was run on it, a task failed."""

# A verdict's token is known to the server, whatever else is missing.
_ACCEPTED = frozenset(("ok", "missing_tos", "missing_permission", "unknown_datastack"))

# Around a message: the first two since ansible-core 2.19, the others until then.
_WRAPPING = re.compile(
    r"^.*The (lookup|filter) plugin 'connectomics\.cave\.\w+' failed: "
    r"|^((Task|Action|Module) failed: )+"
    r"|^.*Error was a <class '[\w.]+'>, original message: "
    r"|The error appears to be in '.*",
    re.DOTALL,
)


def unwrapped(message: str) -> str:
    """Return what a message of Ansible says, without what it puts around it."""
    return _WRAPPING.sub("", message)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ws2 before ws10."""
    return [
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in re.split(r"([0-9]{1,18})", name)
        if part
    ]


# From results to a host's entry ---------------------------------------------------------------------------------------


def _host_problem(verdict: str, result: Mapping[str, Any], clean: Cleaner, default_remedy: str) -> dict[str, Any]:
    """Return what is wrong with a host as a whole."""
    message = clean.text(unwrapped(scalar(result.get("msg"))))
    # A module that could not start says why on its standard error, in the last line.
    last_lines = scalar(result.get("module_stderr")).strip().splitlines()[-1:]
    if last_lines and not last_lines[0].startswith("Shared connection to"):
        message = clean.text(f"{message.rstrip('.')}: {clean.text(last_lines[0])}")
    task = clean.name(result.get("task"))
    if task and message:
        message = clean.text(f"{task}: {message}")
    remedy = clean.text(result.get("remedy")) or host_remedy(message) or default_remedy
    return {"verdict": verdict, "message": message or "It gave no message.", "remedy": remedy}


def _flat(results: Iterable[object]) -> list[Mapping[str, Any]]:
    """Return the results of tasks, a loop's one by one."""
    flat: list[Mapping[str, Any]] = []
    for result in results:
        if isinstance(result, Mapping):
            items = mappings(result.get("results"))
            flat.extend(items or [result])
    return flat


def _host(name: str, results: Iterable[object], time: str, clean: Cleaner) -> dict[str, Any]:
    """Return the entry of a host from what its tasks registered, in the order of the tasks."""
    users: dict[tuple[str, str | None], dict[str, Any]] = {}
    problem = None
    changed = None
    ran = False
    for result in _flat(results):
        ran = True
        if result.get("unreachable") is True:
            problem = problem or _host_problem("host_unreachable", result, clean, REMEDY_UNREACHABLE)
            continue
        if result.get("skipped") is True:
            continue
        if boolean(result.get("changed")) is not None:
            changed = bool(changed or result["changed"])
        found = [user_entry(entry, clean) for entry in mappings(result.get("users"))]
        for entry in found:
            key = (entry["user"], entry["server"])
            users[key] = join_users(users[key], entry) if key in users else entry
        if result.get("failed") is True and not any(entry["state"] == "failed" for entry in found):
            problem = _host_problem("error", result, clean, REMEDY_ERROR)
    if not ran:
        problem = _host_problem("not_run", {"msg": "No task ran on it."}, clean, REMEDY_NOT_RUN)
    return _finished_host(name, changed, time, problem, list(users.values()))


def _finished_host(
    name: str, changed: bool | None, time: str, problem: dict[str, Any] | None, users: list[dict[str, Any]]
) -> dict[str, Any]:
    states = [user["state"] for user in users]
    if problem is not None:
        states.append("failed" if problem["verdict"] == "error" else "pending")
    return {
        "name": name,
        "state": min(states, key=STATES.index, default="ok"),
        "changed": changed,
        "time": time,
        "problem": problem,
        "users": sorted(users, key=lambda user: (natural_key(user["user"]), user["server"] or "")),
    }


# The whole report -----------------------------------------------------------------------------------------------------


def build_report(
    title: str,
    results: Mapping[str, Sequence[object]],
    *,
    time: datetime,
    clean: Cleaner,
    check_mode: bool = False,
    notes: Iterable[str] = (),
    unfinished: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the report of a run.

    Args:
        title: of the playbook: verify.
        results: for each host of the run the results that its tasks registered, in the order of the tasks. No result
            (or None in place of one) means that the task was not reached.
        time: of the run's end, with a time zone.
        clean: what every text of a host passes through.
        check_mode: whether it is a prediction.
        notes: sentences about the run as a whole.
        unfinished: sentences on what keeps the run from being a success, besides its hosts.
    """
    stamp = utc(time)
    hosts = [_host(clean.name(name), found, stamp, clean) for name, found in results.items()]
    return {
        **_finished(clean.name(title), check_mode, [clean.sentence(note) for note in notes], hosts),
        "unfinished": [clean.sentence(sentence) for sentence in unfinished],
    }


def utc(time: datetime) -> str:
    """Return a time as the report writes it: 2026-11-22T12:55:55Z."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _finished(title: str, check_mode: bool, notes: list[str], hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the report with all that follows from its hosts, in one order whatever order they came in."""
    hosts = sorted(hosts, key=lambda host: natural_key(host["name"]))
    return {
        "version": VERSION,
        "title": title,
        "time": max((host["time"] for host in hosts), default=None),
        "check_mode": check_mode,
        "notes": notes,
        "unfinished": [],
        "run": None,
        "counts": _counts(hosts),
        "hosts": hosts,
        "fingerprints": _fingerprints(hosts),
    }


def _counts(hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts: dict[str, int] = {}
    users: dict[str, str] = {}
    for host in hosts:
        for user in host["users"]:
            verdicts[user["verdict"]] = verdicts.get(user["verdict"], 0) + 1
            users[user["user"]] = min(users.get(user["user"], "ok"), user["state"], key=STATES.index)
    states = [host["state"] for host in hosts]
    return {
        "hosts": {
            "total": len(hosts),
            **{state: states.count(state) for state in STATES},
            "changed": sum(host["changed"] is True for host in hosts),
        },
        "users": {"total": len(users), **{state: list(users.values()).count(state) for state in STATES}},
        "verdicts": dict(sorted(verdicts.items())),
    }


def _fingerprints(hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return which token (by fingerprint) is sent to which server, by whom, from where."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for host in hosts:
        for user in host["users"]:
            sent = {reader["fingerprint"] for reader in user["readers"] if reader["fingerprint"]}
            for value in sorted(sent | ({user["fingerprint"]} - {None})):
                entry = found.setdefault(
                    (user["server"] or "", value),
                    {"server": user["server"], "fingerprint": value, "accepted": None, "users": [], "hosts": []},
                )
                for key, name in (("users", user["user"]), ("hosts", host["name"])):
                    if name not in entry[key]:
                        entry[key].append(name)
                if value == user["fingerprint"] and user["verdict"] == "invalid_token":
                    # One refusal outweighs every proof: a token dies once, and an earlier answer was true in its time.
                    entry["accepted"] = False
                elif value == user["fingerprint"] and user["verdict"] in _ACCEPTED and entry["accepted"] is None:
                    entry["accepted"] = True
    for entry in found.values():
        entry["users"].sort(key=natural_key)
    return sorted(
        found.values(),
        key=lambda entry: (
            entry["accepted"] is not False,
            entry["server"] or "",
            -len(entry["hosts"]),
            entry["fingerprint"],
        ),
    )


def read_report(data: object, source: str, clean: Cleaner) -> dict[str, Any]:
    """Return the report that a file of an earlier run holds.

    Args:
        data: the parsed JSON. Every text of it is cleaned again: a file may come from anywhere.
        source: the file's path, for messages.
        clean: what every text passes through.

    Raises:
        CaveError: it is no report, or one of a newer release.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("version"), int) or "hosts" not in data:
        raise CaveError(f"{source} is not a report of this collection. Give the report.json of a run.")
    if data["version"] != VERSION:
        raise CaveError(
            f"{source} is a report of version {data['version']}; this release reads version {VERSION}. "
            "Merge it with the release of connectomics.cave that wrote it, or a later one."
        )
    hosts = []
    for item in data["hosts"] if isinstance(data["hosts"], list) else [None]:
        host = mapping(item) or {}
        name, time = clean.name(host.get("name")), matching(TIME, host.get("time"))
        if not name or time is None:
            raise CaveError(f"{source} is damaged: a host in it has no name or no time. Run the playbook again.")
        if not isinstance(host.get("users"), list) or len(mappings(host["users"])) != len(host["users"]):
            raise CaveError(f"{source} is damaged: {name} has no list of users. Run the playbook again.")
        problem = None
        if found := host.get("problem"):
            found = mapping(found) or {}
            problem = {
                "verdict": scalar(found.get("verdict")) if found.get("verdict") in HOST_VERDICTS else "error",
                "message": clean.text(found.get("message")),
                "remedy": clean.text(found.get("remedy")),
            }
        entries = [
            entry if matching(VERDICT, entry.get("verdict")) else {**entry, "verdict": "error"}
            for entry in host["users"]
        ]
        users = [user_entry(entry, clean) for entry in entries]
        hosts.append(_finished_host(name, boolean(host.get("changed")), time, problem, users))
    title, check_mode = clean.name(data.get("title")), data.get("check_mode") is True
    is_readable = isinstance(data.get("unfinished", []), list)  # what is left out would count as done
    unfinished = _sentences(data.get("unfinished"), clean)
    if not (title and is_readable and (hosts or unfinished)):
        raise CaveError(f"{source} is damaged: it has no title, or says of no host how it is. Run the playbook again.")
    return {**_finished(title, check_mode, _sentences(data.get("notes"), clean), hosts), "unfinished": unfinished}


def _sentences(value: object, clean: Cleaner) -> list[str]:
    return [clean.sentence(sentence) for sentence in value] if isinstance(value, list) else []


def merge_reports(reports: Sequence[Mapping[str, Any]], title: str = "") -> dict[str, Any]:
    """Return one report of several: of the slices of a fleet, or of a run and its repetition for the pending hosts.

    A host that is in several is taken from the latest; at the same time, from the one given last. The result does not
    depend on how the hosts were spread: it equals the report of one run over all of them. What is unfinished of a run
    is so until it has been repeated.

    Args:
        reports: at least one.
        title: of the result; empty: the reports' own.

    Raises:
        CaveError: they are of different playbooks and no title is given.
    """
    titles = sorted({report["title"] for report in reports})
    if not title and len(titles) != 1:
        raise CaveError(
            f"These are reports of different playbooks: {', '.join(titles)}. "
            "Merge reports of one kind, or give the merged one a title."
        )
    hosts: dict[str, dict[str, Any]] = {}
    for report in reports:
        for host in report["hosts"]:
            if host["name"] not in hosts or host["time"] >= hosts[host["name"]]["time"]:
                hosts[host["name"]] = host
    notes = list(dict.fromkeys(note for report in reports for note in report["notes"]))
    merged = _finished(title or titles[0], any(report["check_mode"] for report in reports), notes, list(hosts.values()))
    left = [report for report in reports if not _was_repeated(report, hosts)]
    return {
        **merged,
        "unfinished": list(dict.fromkeys(sentence for report in left for sentence in report["unfinished"])),
    }


def _was_repeated(report: Mapping[str, Any], latest: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether later reports are about the hosts that were not done in this one; about all, where all were.

    No report repeats one without hosts, as of a run that was refused: which hosts that was for is not known.
    """
    waiting = [host for host in report["hosts"] if host["state"] in ("failed", "pending")] or report["hosts"]
    return bool(waiting) and all(latest[host["name"]] is not host for host in waiting)


def hosts_in(report: Mapping[str, Any], *states: str) -> list[str]:
    """Return the names of the hosts that are in one of ``states``."""
    return [host["name"] for host in report["hosts"] if host["state"] in states]


def to_json(report: Mapping[str, Any]) -> bytes:
    """Return the report as the text of a file."""
    pieces = json.JSONEncoder(indent=2).iterencode(report)
    text = b"".join("".join(some).encode("ascii") for some in iter(lambda: list(islice(pieces, 10_000)), []))
    return text + b"\n"  # json.dumps would hold millions of pieces at once
