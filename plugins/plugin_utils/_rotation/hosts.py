# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each host gets, and what the results of its tasks mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._text import quoted
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import unwrapped
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import Host
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Blocker,
    Entry,
    Place,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import seal
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.wording import grouped, hosts_named

NOT_RUN = "no task ran on it, as Ansible leaves out hosts that failed in an earlier play"
"""What is known of a host without a result."""


def seen_of(result: Mapping[str, Any] | None) -> Seen | str:
    """Return what saved_token_info found on a host; a string when it could not look."""
    if not result:
        return NOT_RUN
    if result.get("unreachable") or (result.get("failed") and not result.get("users")) or result.get("skipped"):
        return _reason(result)
    places: dict[Place, None] = {}
    failed: dict[str, str] = {}
    persons = {}
    proven = set()
    trouble = 0
    for entry in _mappings(result.get("users")):
        user, server = str(entry.get("user")), str(entry.get("server"))
        trouble += len(entry.get("problems") or ())
        if entry.get("failed"):
            failed[user] = str(entry.get("msg") or "it could not be looked at")
            trouble += 100
        for path in entry.get("unread") or ():
            failed.setdefault(user, f"{path} cannot be read")
        for file in _mappings(entry.get("files")):
            for key, found in (file.get("fingerprints") or {}).items():
                if found:
                    places[Place(user, str(file.get("path")), str(key), str(found))] = None
        access = entry.get("access")
        if isinstance(access, Mapping):
            person = access.get("person")
            if isinstance(person, Mapping) and isinstance(person.get("id"), int):
                persons[user, server] = int(person["id"])
            if access.get("verdict") == "ok" and access.get("fingerprint"):
                proven.add((user, server, str(access["fingerprint"])))
            trouble += 100 * (access.get("verdict") in ("unreachable", "tls_error"))
    return Seen(tuple(places), failed, trouble, persons, frozenset(proven))


def _reason(result: Mapping[str, Any]) -> str:
    text = " ".join(unwrapped(str(result.get("msg") or "it was not reached")).split())
    said = str(result.get("module_stderr") or "").strip().splitlines()[-1:]
    if said and not said[0].startswith("Shared connection to"):
        text = f"{text.rstrip('.')}: {said[0].strip()}"
    return f"unreachable: {text}" if result.get("unreachable") and "unreachable" not in text.lower() else text


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


class Todo(NamedTuple):
    """What a host gets: entries for saved_token, and results for those who get nothing."""

    entries: list[dict[str, Any]]
    others: list[dict[str, Any]]


def todo(
    state: State, host: Host, stopped: Mapping[tuple[str, ...], str], only: Iterable[Rotation] | None = None
) -> Todo:
    """Return what a host gets, or is not to get.

    Args:
        state: what is known.
        host: the host.
        stopped: rotations whose roll-out has stopped, and why.
        only: the rotations to do; None: all.
    """
    found = state.seen.get(host.name)
    proven = found.proven if isinstance(found, Seen) else frozenset()
    chosen = {rotation.tokens for rotation in (state.rotations if only is None else only)}
    entries, others = [], []
    of_token = {entry: rotation for rotation in state.rotations for entry in rotation.entries}
    for item in host.held:
        rotation = of_token.get(item.entry)
        if rotation is None or rotation.action == "leave" or item.entry.absent or rotation.tokens not in chosen:
            continue
        reason = rotation.withheld.get(item.entry) or stopped.get(rotation.tokens, "")
        reason = rotation.reason if rotation.action == "refuse" else reason
        result = {"user": item.entry.user, "server": item.entry.server, "changed": False, "files": []}
        access = _refusal(state, rotation) if rotation.action == "refuse" else None
        if reason and _keeps_its_token(state, rotation, item.entry):
            others.append({**result, "fingerprint": rotation.source})
        elif reason:
            others.append({**result, "failed": True, "msg": reason, **({"access": access} if access else {})})
        else:
            own = {key: value for key, value in item.own.items() if key not in ("state", "token")}
            asked = (item.entry.user, item.entry.server, rotation.new) in proven and item.entry not in state.refused
            if not rotation.new or asked:
                own["validate"] = False  # the server was asked from there a moment ago, and whose it is before that
                own.pop("person", None)
            value = state.values[rotation.new] if rotation.new else _stand_in(rotation)
            entries.append({**own, "sealed": seal(value)})
    others += [
        {"user": user or "?", "server": host.server, "changed": False, "files": [], "failed": True, "msg": message}
        for user, message in host.problems
        if user is None or not state.request.users or user in state.request.users
    ]
    return Todo(entries, others)


def _stand_in(rotation: Rotation) -> str:
    """Return what stands for a token that was not made, in a prediction: what it would change is the same."""
    return hashlib.sha256(f"in the place of {rotation.source}".encode()).hexdigest()[:32]


def saving(host: Host, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what saved_token is to do on a host."""
    return {"tokens": list(entries), "server": host.server, "datastacks": list(host.datastacks), **host.settings}


def given(state: State, rotations: Iterable[Rotation]) -> Iterator[dict[str, Any]]:
    """Yield, for each host of the run, what saved_token would do there with the tokens that the variables give now."""
    entries = {entry for item in rotations for entry in item.entries if entry.token == item.source and not entry.absent}
    for host in map(state.hosts.__getitem__, state.request.hosts):
        yield saving(host, [{**item.own, "token": item.token} for item in host.held if item.entry in entries])


def rehearsals(state: State, rotations: Iterable[Rotation], hosts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what hosts are to predict before tokens are made for some rotations."""
    tried = replace(state, rotations=[replace(item, action="make", new="", withheld={}) for item in rotations])
    found = {name: todo(tried, state.hosts[name], {}).entries for name in hosts}
    return {name: saving(state.hosts[name], entries) for name, entries in found.items() if entries}


def rehearsed(found: Seen, users: Iterable[str], result: Mapping[str, Any]) -> Seen:
    """Return what was found on a host together with which of its users could not be given a token.

    ``result`` is the prediction of saved_token.
    """
    told = _mappings(result.get("users"))
    failed = {str(item.get("user")): str(item.get("msg")) for item in told if item.get("failed")}
    if not told and (result.get("failed") or result.get("unreachable")):
        failed = dict.fromkeys(users, _reason(result))
    failed, trouble = {**failed, **found.failed}, found.trouble + 100 * len(failed)
    return found._replace(failed=failed, trouble=trouble, rehearsed=True)


def _keeps_its_token(state: State, rotation: Rotation, entry: Entry) -> bool:
    """Whether a host has the token of the vault, which works, and only making another one was refused."""
    found = state.seen.get(entry.host)
    return (
        rotation.tokens in state.declined
        and state.accounts[rotation.source].accepted
        and isinstance(found, Seen)
        and (entry.user, entry.key, rotation.source) in {(place.user, place.key, place.token) for place in found.places}
    )


def _refusal(state: State, rotation: Rotation) -> dict[str, Any] | None:
    """Return the server's verdict on a token; the next one comes to the host by the command that was run."""
    access = state.accounts[rotation.source].access
    if access and access.get("verdict") == "invalid_token":
        remedy = f"Take the current token from {access['url']}, put it into the vault, then run again for this host."
        return {**access, "remedy": remedy}
    return dict(access) if access else None


def is_told(rotation: Rotation, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether the results for the report say on some host that the server refuses a rotation's token."""
    return rotation.action == "refuse" and any(
        item.get("failed") and item.get("access") and item.get("msg") == rotation.reason
        for host in rotation.hosts
        for result in found.get(host, ())
        for item in _mappings(result.get("users"))
    )


def merged(results: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return several results of saved_token and verify_access on a host as one; of each entry the last word counts."""
    found = [result for result in results if result and not result.get("skipped")]
    if not found:
        return None
    users = {
        (item.get("user"), item.get("server"), item.get("key")): dict(item)
        for result in found
        for item in _mappings(result.get("users"))
    }
    whole = {key: value for key, value in found[-1].items() if key in ("failed", "unreachable", "msg")}
    changed = any(result.get("changed") for result in found)
    for (user, server, key), item in users.items():
        item["changed"] = any(
            bool(other.get("changed"))
            for result in found
            for other in _mappings(result.get("users"))
            if (other.get("user"), other.get("server"), other.get("key")) == (user, server, key)
        )
    return {**whole, "changed": changed, "users": list(users.values())}


def trouble_of(entry: Entry, result: Mapping[str, Any] | None) -> str:
    """Return why an entry is not in place on its host according to saved_token, or an empty string."""
    if not result:
        return "not reached"
    users = [
        item
        for item in _mappings(result.get("users"))
        if (item.get("user"), item.get("server"), item.get("key") or entry.key) == (entry.user, entry.server, entry.key)
    ]
    if result.get("unreachable") or not users:
        return _reason(result) if result.get("unreachable") or result.get("failed") else "not reached"
    return next((str(item.get("msg") or "failed") for item in users if item.get("failed")), "")


def passed(
    state: State, rotation: Rotation, results: Mapping[str, Mapping[str, Any] | None]
) -> tuple[bool, dict[str, str]]:
    """Return whether the canaries have a rotation's token, and why some have not: all that the user named, or any.

    ``results`` are those of the hosts that were tried, as of ``merged``.
    """
    tried = [host for host in rotation.canaries if results.get(host)]
    named = set(rotation.canaries) & set(state.request.canary)
    # One that the user named, and that cannot be looked at, proves nothing.
    missing = {
        host: found for host in named for found in [state.seen.get(host, "not looked at")] if isinstance(found, str)
    }
    troubles = missing | {
        entry.host: why
        for entry in rotation.entries
        if entry.host in tried and not entry.absent and entry not in rotation.withheld
        for why in [trouble_of(entry, results[entry.host])]
        if why
    }
    if named:
        return not troubles and len(tried) == len(rotation.canaries), troubles
    return any(host not in troubles for host in tried), troubles


def has_it(rotation: Rotation, host: str, result: Mapping[str, Any] | None) -> bool:
    """Whether all entries of a rotation are in place on a host, according to saved_token."""
    mine = [entry for entry in rotation.entries if entry.host == host and not entry.absent]
    return bool(result) and all(not trouble_of(entry, result) for entry in mine)


def beside(state: State, host: str, rotations: Sequence[Rotation]) -> list[Rotation]:
    """Return the other rotations with a token for an account and key of a host that some rotations are about.

    Whether their servers' files are the same is known to saved_token, and only when it gets all of them at once.
    """

    def accounts(rotation: Rotation) -> set[tuple[str, str]]:
        return {(entry.user, entry.key) for entry in rotation.entries if entry.host == host and not entry.absent}

    mine = {account for rotation in rotations for account in accounts(rotation)}
    return [item for item in state.rotations if item not in rotations and not item.idle and accounts(item) & mine]


def stopped(state: State, results: Mapping[str, Mapping[str, Any] | None]) -> dict[tuple[str, ...], str]:
    """Return the rotations whose canaries failed, with what to tell the other hosts."""
    found = {}
    for rotation in state.rotations:
        good, troubles = passed(state, rotation, results)
        if good or rotation.idle or not rotation.canaries or not troubles:
            continue
        why = " ".join(f"{who}: {what}" for who, what in grouped(Blocker(*trouble) for trouble in troubles.items()))
        has = [host for host in rotation.canaries if results.get(host) and host not in troubles]
        where = f" {hosts_named(has)} has the token." if has else ""
        found[rotation.tokens] = (
            f"Rollout stopped: the canary host failed, and this host was left as it was. {why}{where}"
        )
    return found


def note_replaced(state: State, saved: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Note which tokens were replaced on the hosts."""
    of_entry = {entry: rotation for rotation in state.rotations for entry in rotation.entries}
    for entry, rotation in of_entry.items():
        for item in _mappings((saved.get(entry.host) or {}).get("users")):
            mine = (item.get("user"), item.get("server"), item.get("key") or entry.key)
            before = item.get("previous_fingerprint")
            same = mine == (entry.user, entry.server, entry.key)
            if same and item.get("changed") and before and before != rotation.new:
                state.replaced.setdefault(rotation.new, set()).add(str(before))


def not_done(
    state: State, rotation: Rotation, saved: Mapping[str, Mapping[str, Any] | None], in_run: bool = False
) -> list[Blocker]:
    """Return the holders who do not have the token; ``in_run``: of the hosts of this run alone."""
    found = []
    for entry in rotation.entries:
        if entry.absent or entry.host in state.request.give_up:
            continue
        if in_run and entry.host not in state.request.hosts:
            continue
        if entry.host in state.request.hosts:
            seen = state.seen.get(entry.host)
            why = trouble_of(entry, saved.get(entry.host))
            why = seen if why == "not reached" and isinstance(seen, str) else why
        else:
            seen = state.seen.get(entry.host, "not looked at")
            has = isinstance(seen, Seen) and any(
                (place.user, place.key, place.token) == (entry.user, entry.key, rotation.new) for place in seen.places
            )
            why = "" if has else seen if isinstance(seen, str) else f"outside of this run, without {rotation.new}"
        if why and not state.settings.check:
            found.append(Blocker(entry.host, f"{entry.user}: {why}"))
    return found


def predicted(state: State, rotation: Rotation, saved: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Seen | str]:
    """Return what would be on the hosts once those of the run have a rotation's token, as saved_token predicts."""
    found = dict(state.seen)
    for host in state.request.hosts:
        seen = found.get(host)
        if not isinstance(seen, Seen):
            continue
        told = [item for item in _mappings((saved.get(host) or {}).get("users")) if not item.get("failed")]
        replaced = {(item.get("user"), token) for item in told for token in item.get("previous_fingerprints") or ()}
        left = [place for place in seen.places if (place.user, place.token) not in replaced]
        new = [
            Place(entry.user, "", entry.key, rotation.new)
            for entry in rotation.entries
            if entry.host == host and not trouble_of(entry, saved.get(host))
        ]
        found[host] = seen._replace(places=(*left, *new))
    return found


def found_on(
    state: State,
    name: str,
    saved: Mapping[str, Any] | None,
    stopped: Mapping[tuple[str, ...], str],
    registered: bool,
) -> list[dict[str, Any]] | None:
    """Return the results for the report on a host; None where what its task registered says all of it.

    Args:
        state: what is known.
        name: of the host.
        saved: the results of its tasks as one.
        stopped: the rotations whose roll-out has stopped, and why.
        registered: whether ``saved`` is what one task registered.
    """
    host, seen = state.hosts[name], state.seen.get(name)
    mine = [
        item for item in state.rotations if item.action != "leave" and any(entry.host == name for entry in item.entries)
    ]
    if name not in state.request.hosts:
        return _found_outside(state, name, mine)
    others = todo(state, host, stopped).others
    blocked = state.blocked.get(name, [])
    if registered and saved and not others and not blocked:
        return None
    tried = any(
        not item.idle or (item.tokens in state.declined and state.accounts[item.source].accepted) for item in mine
    )
    if isinstance(seen, str) and not saved and tried:
        return [{_kind(seen): True, "changed": False, "msg": seen.removeprefix("unreachable: ")}]
    told = {(item.get("user"), item.get("server")) for item in _mappings((saved or {}).get("users"))}
    missing = [item for item in others if (item["user"], item["server"]) not in told]
    users = [*_mappings((saved or {}).get("users")), *missing]
    failed = any(item.get("failed") for item in users) or bool((saved or {}).get("failed"))
    changed = bool((saved or {}).get("changed")) or any(item["changed"] for item in missing)
    whole = {key: value for key, value in (saved or {}).items() if key in ("unreachable", "msg")}
    result = {**whole, "changed": changed, "users": users, **({"failed": True} if failed else {})}
    return [result, *([] if failed else _keeping_alive(blocked, seen))]


def _keeping_alive(reasons: Sequence[str], seen: Seen | str | None) -> list[dict[str, Any]]:
    """Return the result for the report of a host that has all it should have, and an old token, too."""
    message = f"The old token is kept alive for this host: {'; '.join(dict.fromkeys(reasons))}."
    result = {"failed": True, "changed": False, "msg": message, "remedy": _removal(reasons, seen)}
    return [result] if reasons else []


def _removal(reasons: Sequence[str], seen: Seen | str | None) -> str:
    """Return what to do about the files that hold an old token; empty where something else keeps it alive as well."""
    places = seen.places if isinstance(seen, Seen) else ()
    copies = [place for place in places if str(place) in reasons]
    if {str(place) for place in copies} != set(reasons):
        return ""
    others = {place.path for place in places if place not in copies}
    steps = [f"Take {place.key!r} out of {place.path}." for place in copies if place.path in others]
    removed = dict.fromkeys(quoted(place.path) for place in copies if place.path not in others)
    if not removed:
        return " ".join([*steps, "Then run again for this host."])
    return " ".join([*steps, f"Remove the copy on the host, then run again for this host: sudo rm {' '.join(removed)}"])


def _kind(seen: str) -> str:
    """Return what a result is called of a host that could not be looked at: what to do about it differs."""
    return "unreachable" if seen.startswith(("unreachable", "not looked at")) else "failed"


def _found_outside(state: State, name: str, rotations: Iterable[Rotation]) -> list[dict[str, Any]] | None:
    """Return the result for the report on a host that is not in this run, and holds one of its tokens."""
    seen = state.seen.get(name, "not looked at")
    rotations = [rotation for rotation in rotations if not rotation.idle]
    if name in state.request.give_up:
        return None
    if not rotations:
        return _keeping_alive(state.blocked.get(name, []), seen) or None
    if isinstance(seen, str):
        message = f"It is not in this run, and could not be looked at: {seen}"
        return [{_kind(seen): True, "changed": False, "msg": message}]
    users = []
    for entry, rotation in [(entry, item) for item in rotations for entry in item.entries]:
        if entry.host != name or entry.absent:
            continue
        result: dict[str, Any] = {"user": entry.user, "server": entry.server, "changed": False, "files": []}
        if Place(entry.user, "", entry.key, rotation.new) not in {place._replace(path="") for place in seen.places}:
            result.update(failed=True, msg=f"It does not have the token {rotation.new}, and is not in this run.")
        users.append({**result, "fingerprint": rotation.new})
    if any("failed" in item for item in users):
        return [{"changed": False, "users": users, "failed": True}]
    return [{"changed": False, "users": users}, *_keeping_alive(state.blocked.get(name, []), seen)]
