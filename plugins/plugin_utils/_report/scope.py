# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run was asked to do, and why it did nothing."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ansible.inventory.manager import split_host_pattern

from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import shortened

_COLLECTION = Path(__file__).parents[3]
_USUAL = "/etc/ansible/hosts"
"""The inventory where nobody names one; it may be there, and empty."""
HERE = ("localhost", "127.0.0.1", "::1")
"""Hosts that need no inventory."""
_NOWHERE = "{} has no account on any of these hosts."
_MAYBE_NO_ACCOUNT = ("no_account", "not_saved", "not_read")
"""Verdicts on users who may have none on a host."""
_SOME_OF_IT = re.compile(r"(?<=.)\[(-?\d+|\d+[:-]\d*)\]$")
"""Which of the hosts that match: ``lab[0]``, ``lab[1:3]``."""


def unknown_names(pattern: str, groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return the parts of a pattern for hosts that fit no host and no group of the inventory.

    Ansible ignores them, so that a misspelt name among others, or behind ``!``, would look like success.
    """
    known = {*groups, *groups.get("all", ()), *HERE}
    return [part for part in split_host_pattern(pattern) if part and not any(map(_matcher(part.lstrip("!&")), known))]


def _matcher(part: str) -> Callable[[str], object]:
    if part.startswith("~"):
        return re.compile(part[1:]).match
    return re.compile(fnmatch.translate(_SOME_OF_IT.sub("", part))).match


def why_no_host(pattern: str, groups: Mapping[str, Collection[str]], limit: str, sources: Sequence[str] = ()) -> str:
    """Return why a run has no host, and what to do.

    Args:
        pattern: which hosts it was to work on (``caveclient_hosts``); empty: those that have tokens.
        groups: of the inventory, with the names of their hosts.
        limit: of the run (``--limit``); empty: none.
        sources: of the inventory.
    """
    known = set(groups.get("all", ()))
    if not known:
        found = next((source for source in sources if source != _USUAL and Path(source).exists()), "")
        if found:
            return (
                f"The inventory has no hosts: {found} names none, or cannot be read. Name them there; or name another "
                "inventory: -i hosts.yml"
            )
        return (
            "The inventory has no hosts. Name one: -i hosts.yml; or run this in the lab's folder, whose ansible.cfg "
            "names it."
        )
    within = f" within --limit {limit}" if limit else ""
    if not pattern:
        return (
            f"No host{within} has caveclient_tokens. Give the hosts their users and tokens in group_vars or host_vars, "
            "or name the hosts: -e caveclient_hosts=all"
        )
    unknown = unknown_names(pattern, groups)
    if unknown and unknown != [pattern]:
        return _unknown(f"caveclient_hosts={pattern}", unknown[0], groups)
    return f"caveclient_hosts={pattern} matches no host{within}.{_instead(pattern, groups)}"


def outside_inventory(limit: str, groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return a sentence for each name in ``--limit`` that the inventory does not have, whose hosts the run leaves out.

    What is in a file (``@FILE``) was not typed for this run, and what is to be left out is left out.
    """
    unknown = [name for name in unknown_names(limit, groups) if not name.startswith(("@", "!"))]
    return [_unknown(f"--limit {limit}", name, groups) for name in unknown]


def _unknown(given: str, name: str, groups: Mapping[str, Collection[str]]) -> str:
    name = name.lstrip("!&")
    return f"{given}: {name} is no host or group of the inventory.{_instead(name, groups)}"


def _instead(name: str, groups: Mapping[str, Collection[str]]) -> str:
    known = sorted({*groups, *groups.get("all", ())})
    return did_you_mean(name, known) or " ansible-inventory --graph shows the hosts and groups there are."


def why_no_task(wanted: Sequence[str], skipped: Sequence[str], known: Collection[str]) -> str:
    """Return why tags left a run without a task; empty when they are not the reason.

    Args:
        wanted: the tags that were asked for; ``all`` is Ansible's word for no choice.
        skipped: the tags that were to be left out.
        known: the tags that the playbook has.
    """
    named = [f"--tags {','.join(wanted)}"] if list(wanted) != ["all"] else []
    named += [f"--skip-tags {','.join(skipped)}"] if skipped else []
    if not named:
        return ""
    there = f"This playbook's tags: {', '.join(sorted(known))}." if known else "This playbook has no tags."
    return f"No task ran: {' '.join(named)} leaves none. {there}"


def without_account(entries: Iterable[tuple[str, str, bool]]) -> tuple[list[str], list[str]]:
    """Return sentences on people who have no account on some of the hosts, and on those who have none anywhere.

    ``entries`` are host, user and whether that user has an account there.
    """
    found: dict[str, dict[bool, list[str]]] = {}
    for host, user, has_account in entries:
        found.setdefault(user, {True: [], False: []})[has_account].append(host)
    somewhere = [
        f"{user} has no account on {shortened(hosts[False], 8)}."
        for user, hosts in found.items()
        if all(hosts.values())
    ]
    nowhere = [_NOWHERE.format(user) for user, hosts in found.items() if not hosts[True]]
    return somewhere, nowhere


def true_of_all(sentences: Iterable[str], hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what is unfinished of merged reports without what was true of one's hosts alone.

    Args:
        sentences: of each.
        hosts: of all of them.
    """
    users = [user for host in hosts for user in host["users"]]
    there = {_NOWHERE.format(user["user"]) for user in users if user["verdict"] not in _MAYBE_NO_ACCOUNT}
    return [sentence for sentence in sentences if sentence not in there]


@cache
def collection_version() -> str:
    """Return the version of this collection: of a checkout, or as it was installed."""
    for name, pattern in (("MANIFEST.json", r'"version": "([^"]+)"'), ("galaxy.yml", r"(?m)^version: (\S+)")):
        path = _COLLECTION / name
        if path.exists() and (found := re.search(pattern, path.read_text(encoding="utf-8"))):
            return found[1]
    return "unknown"
