# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as lines for the terminal, and the sentences that the page shows as well."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.command import for_hosts, without_command
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import STATES, natural_key
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.services import (
    SERVICE_VERDICTS,
    service_troubles,
)

_HOSTS_NAMED, _USERS_NAMED, _GROUPS_SHOWN, _TOKENS_SHOWN = (
    8,
    4,
    12,
    3,
)  # in the table; the page and the pending file name them all


_CAVES = ("server_error", "rate_limited")
"""Verdicts that are no trouble of the lab's."""


class Line(NamedTuple):
    """A line of the table, and the state that its colour tells (empty: no colour)."""

    text: str
    state: str = ""


# What is wrong, grouped -----------------------------------------------------------------------------------------------


def problem_groups(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is wrong, the worst first: what is the same on several hosts is one group.

    Returns:
        Groups with ``state``, ``verdict``, ``message``, ``remedy``, ``url`` (of their first host), ``example`` (whose
        message it is, when the others' differ), and ``places``: ``host`` with ``users`` (none: the host as a whole).
    """
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for state, host, user, issue in _issues(report):
        own_names = [name for name in (host, user) if name]
        remedy = for_hosts(issue["remedy"], ())
        key = (state, issue["verdict"], _without(remedy, own_names), issue.get("url") or "")
        group = groups.setdefault(
            key,
            {
                "state": state,
                "verdict": issue["verdict"],
                "message": issue["message"],
                "remedy": remedy,
                "is_for_some": remedy != issue["remedy"],
                "url": issue.get("url"),
                "example": "",
                "first": f"{host}, {user}" if user else host,
                "places": {},
            },
        )
        if (issue["message"], remedy) != (group["message"], group["remedy"]):
            group["example"] = group["first"]
        users = group["places"].setdefault(host, [])
        if user and user not in users:
            users.append(user)
    for group in groups.values():
        del group["first"]
        if group.pop("is_for_some") and len(group["places"]) <= _HOSTS_NAMED:
            group["remedy"] = for_hosts(group["remedy"], group["places"])
        group["places"] = [{"host": host, "users": users} for host, users in group["places"].items()]
    return service_troubles(report) + sorted(
        groups.values(), key=lambda group: (STATES.index(group["state"]), -len(group["places"]), group["verdict"])
    )


def _issues(report: Mapping[str, Any]) -> Iterable[tuple[str, str, str, Mapping[str, Any]]]:
    """Yield all that is wrong: state, host, user (or an empty string), and verdict, message, remedy, url."""
    for host in report["hosts"]:
        if host["problem"]:
            yield "failed" if host["problem"]["verdict"] == "error" else "pending", host["name"], "", host["problem"]
        for user in host["users"]:
            if user["state"] == "failed" and not (user["verdict"] in SERVICE_VERDICTS and user.get("services")):
                yield "failed", host["name"], user["user"], user
            for problem in user["problems"]:
                yield "warning", host["name"], user["user"], {**problem, "verdict": problem["code"]}


def _without(text: str, names: Iterable[str]) -> str:
    """Return text without what differs from place to place: host, user and fingerprints."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "*", text)
    return re.sub(r"\b[0-9a-f]{8}\b", "*", text)


# Sentences ------------------------------------------------------------------------------------------------------------


def number(count: int, noun: str) -> str:
    """Return a number with its noun: 1 user, 2 users."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summary(report: Mapping[str, Any]) -> str:
    """Return the line of counts: 27 workstations ok, 2 failed, 1 pending; 84 users."""
    hosts, users = report["counts"]["hosts"], report["counts"]["users"]
    if not hosts["total"]:
        return "Nothing was done on any workstation."
    good = f"{number(hosts['ok'], 'workstation')} ok"
    changes = [host["changed"] for host in report["hosts"] if host["state"] == "ok"]
    if any(changes):
        same = f", {changes.count(False)} unchanged" if False in changes else ""
        good += f" ({changes.count(True)} {'would be updated' if report['check_mode'] else 'updated'}{same})"
    parts = [good]
    if hosts["warning"]:
        parts.append(f"{hosts['warning']} with a warning")
    parts += [f"{hosts[state]} {state}" for state in ("failed", "pending") if hosts[state]]
    return ", ".join(parts) + f"; {number(users['total'], 'user')}{_unproven(report)}"


def _unproven(report: Mapping[str, Any]) -> str:
    """Return, in brackets, how many of the working tokens were not proven."""
    if report["title"] == "rotate":  # it asks about every token before it contacts a host
        return ""
    proven = [
        user["verdict"] != "not_checked"
        for host in report["hosts"]
        for user in host["users"]
        if user["fingerprint"] and user["state"] != "failed"
    ]
    if not proven or all(proven):
        return ""
    return (
        f" (the server was not asked about {number(proven.count(False), 'token')})"
        if any(proven)
        else (" (the server was not asked)")
    )


def shortened(names: Sequence[str], most: int) -> str:
    """Return names with commas, and the number of those that are too many to name."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return ", ".join(names[:most]) + f" and {len(names) - most} more"


def _places(group: Mapping[str, Any]) -> str:
    named = [
        f"{place['host']} ({shortened(place['users'], _USERS_NAMED)})" if place["users"] else place["host"]
        for place in group["places"]
    ]
    return shortened(named, _HOSTS_NAMED)


def token_sentences(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return who has more than one token in the fleet, which, where, and whether the server takes it.

    Returns:
        For each such person and server: ``user``, ``server`` and ``tokens``, the most common first: ``fingerprint``,
        ``accepted`` (None: not asked) and ``hosts``.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    accepted = {(entry["server"], entry["fingerprint"]): entry["accepted"] for entry in report["fingerprints"]}
    for host in report["hosts"]:
        for user in host["users"]:
            sent = {reader["fingerprint"] for reader in user["readers"]} | {user["fingerprint"]}
            tokens = found.setdefault((user["user"], user["server"] or ""), [])
            for value in sorted(sent - {None}):
                known = next((token for token in tokens if token["fingerprint"] == value), None)
                if known is None:
                    known = {"fingerprint": value, "accepted": accepted[(user["server"], value)], "hosts": []}
                    tokens.append(known)
                known["hosts"].append(host["name"])
    return [
        {"user": user, "server": server, "tokens": sorted(tokens, key=lambda token: -len(token["hosts"]))}
        for (user, server), tokens in sorted(found.items(), key=lambda item: (natural_key(item[0][0]), item[0][1]))
        if len(tokens) > 1
    ]


def _token_sentence(entry: Mapping[str, Any]) -> str:
    """Return: alice: 27 workstations send 3fa9c2d1; 2 send 81b0e7aa, which the server refuses (ws07, ws12)."""
    parts = []
    for index, token in enumerate(entry["tokens"]):
        count = len(token["hosts"])
        who = number(count, "workstation") if index == 0 else str(count)
        part = f"{who} {'sends' if count == 1 else 'send'} {token['fingerprint']}"
        if token["accepted"] is False:
            part += ", which the server refuses"
        if index:
            part += f" ({shortened(token['hosts'], _HOSTS_NAMED)})"
        parts.append(part)
    at = f" at {entry['server']}" if entry["server"] else ""
    return f"{entry['user']}{at}: {'; '.join(parts)}"


# The terminal ---------------------------------------------------------------------------------------------------------


def table(report: Mapping[str, Any], width: int, *, page: str = "", again: str = "") -> list[Line]:
    """Return the end of a run in a few lines: what is wrong first, then the counts.

    Args:
        report: the report.
        width: of the terminal, in characters.
        page: path of the report for people, or empty.
        again: the command for the hosts that are not done, or empty.
    """
    width = max(40, min(width, 120))
    lines = [
        Line(text, "failed")
        for sentence in report["unfinished"]
        for text in _wrapped(sentence, width, "FAILED   ", " " * 9)
    ]
    groups = problem_groups(report)
    for group in groups[:_GROUPS_SHOWN]:
        whose = "CAVE: " if group["verdict"] in _CAVES else ""
        head = f"{group['state'].upper():<8} {whose}{group['verdict']}: {_places(group)}"
        message = f"({group['example']}) {group['message']}" if group["example"] else group["message"]
        if group.get("is_sentence"):
            head, message = f"{group['state'].upper():<8} {message}", ""
        lines += [Line(text, group["state"]) for text in _wrapped(head, width, "", " " * 9)]
        lines += [Line(text) for text in _wrapped(message, width, " " * 9, " " * 9)]
        lines += [Line(text) for text in _remedy(group["remedy"], width)]
        if group["url"] and group["url"] not in group["message"] + group["remedy"]:
            lines.append(Line(" " * 9 + group["url"]))  # never wrapped: it is clicked or copied
    if len(groups) > _GROUPS_SHOWN:
        more = number(len(groups) - _GROUPS_SHOWN, "more kind") + " of problem"
        lines += [Line(text) for text in _wrapped(f"... and {more}", width, " " * 9, " " * 9)]
    tokens = token_sentences(report)
    for entry in tokens[:_TOKENS_SHOWN]:
        refused = any(token["accepted"] is False for token in entry["tokens"])
        text = _wrapped(_token_sentence(entry), width, "TOKENS   ", " " * 9)
        lines += [Line(part, "failed" if refused else "") for part in text]
    if len(tokens) > _TOKENS_SHOWN:
        more = f"... and {len(tokens) - _TOKENS_SHOWN} more people with several tokens"
        lines += [Line(text) for text in _wrapped(more, width, " " * 9, " " * 9)]
    for note in report["notes"]:
        lines += [Line(text) for text in _wrapped(note, width, "NOTE     ", " " * 9)]
    mode = "Check mode, nothing was changed: " if report["check_mode"] else ""
    lines += [Line(text, worst_state(report)) for text in _wrapped(mode + summary(report), width, "", "")]
    if page:
        lines.append(Line(f"Report: {page}"))
    if again:
        lines.append(Line(f"Again for what is not done: {again}"))  # never wrapped: it is copied
    return lines


def _remedy(text: str, width: int) -> list[str]:
    """Return what to do in lines. The command at its end is never wrapped: it is copied."""
    arrow, rest = " " * 6 + "-> ", " " * 9
    prose, command = without_command(text)
    if not command or len(arrow + text) <= width:
        return _wrapped(text, width, arrow, rest)
    return [*_wrapped(prose, width, arrow, rest), f"{rest if prose else arrow}{command}"]


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    """Return text in lines. Words are kept whole: paths and addresses are copied from the terminal."""
    if not text:
        return []
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def worst_state(report: Mapping[str, Any]) -> str:
    """Return the state of the run as a whole: that of its worst host, or failed when something else is unfinished."""
    hosts = report["counts"]["hosts"]
    return "failed" if report["unfinished"] else next((state for state in STATES if hosts[state]), "ok")


def why_not_done(host: Mapping[str, Any]) -> str:
    """Return why a host is not fine, in a few words: failed: alice: invalid_token."""
    causes = [f"{user['user']}: {user['verdict']}" for user in host["users"] if user["state"] == "failed"]
    causes += [host["problem"]["verdict"]] if host["problem"] else []
    if not causes:
        codes = {item["code"] for user in host["users"] for item in user["problems"]}
        causes = sorted(codes)
    return f"{host['state']}: {shortened(causes, _USERS_NAMED)}"


def failure_message(
    report: Mapping[str, Any], states: Collection[str] = ("failed", "pending"), *, pending: str = ""
) -> str:
    """Return why a run is not a success, in one paragraph: which hosts are in one of ``states``, and what to do."""
    sentences = list(report["unfinished"])
    named = [f"{host['name']} ({why_not_done(host)})" for host in report["hosts"] if host["state"] in states]
    if named:
        again = f"run again with --limit @{pending}." if pending else "run again for these."
        total = number(report["counts"]["hosts"]["total"], "workstation")
        sentences += [
            f"{len(named)} of {total} not done: {shortened(named, _HOSTS_NAMED)}.",
            f"Do what the lines with -> above say, then {again}",
        ]
    return " ".join(sentences)
