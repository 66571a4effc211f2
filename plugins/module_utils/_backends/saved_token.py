# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``saved_token`` does: prove the tokens, then let every user's own process write them."""

from __future__ import annotations

import grp
from functools import partial
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks, server_address
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token, mask
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Wish
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.writer import save

_ENTRY_DEFAULTS = ("user", "server", "key", "state", "datastacks")


class _Entry(NamedTuple):
    """One item of ``tokens``, as it came in, and what has become of it."""

    user: str
    wish: Wish | None
    result: dict[str, Any]
    to_prove: bool = False


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what the module's parameters ask for.

    Returns:
        ``changed``, ``users`` (one result an entry, in order), and ``diff``.

    Raises:
        CaveError: something failed for at least one user; ``details`` has what was done for the others.
    """
    mode, group = _mode_and_group(params)
    entries = [_entry(item, params) for item in _items(params)]
    _refuse_contradictions(entries)
    if any(entry.to_prove for entry in entries):
        _prove(entries, params)
    jobs, owners = [], []
    for name, mine in _by_user(entries).items():
        try:
            user = _users.find_user(name)
            home = Home.of(
                user,
                params["secrets_dir"],
                params["cloud_volume_dir"],
                mode=mode,
                group=group,
                on_malformed=params["on_malformed"],
            )
        except CaveError as error:
            # Who has no account has no token here: where none should be, that is as it should be.
            is_well = "unknown_user" in error.details
            _fail([entry for entry in mine if not is_well or entry.wish is None or entry.wish.token], error)
            continue
        wishes = [entry.wish for entry in mine if entry.wish is not None]
        jobs.append(_users.Job(user, partial(save, home, wishes, check_mode)))
        owners.append(mine)
    for mine, outcome in zip(owners, _users.run_each_as(jobs)):
        if isinstance(outcome, CaveError):
            _fail(mine, outcome)
        else:
            for entry, result in zip(mine, outcome):
                entry.result.update(result)
    return _summary(entries)


def _items(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    if params["tokens"] is None:
        return [{"token": params["token"]}]
    if params["token"] is not None:
        raise CaveError("Found both tokens and token. Give one of them.")
    return list(params["tokens"])


def _entry(item: Mapping[str, Any], params: Mapping[str, Any]) -> _Entry:
    """Return an item with the defaults filled in. What is wrong with it becomes its result, and stops no other."""
    values: dict[str, Any] = {
        name: item[name] if item.get(name) is not None else params[name] for name in _ENTRY_DEFAULTS
    }
    user = values["user"] or _users.current_user().pw_name
    result: dict[str, Any] = {"user": user, "server": values["server"], "changed": False, "files": []}
    try:
        server = server_address(values["server"])
        if item.get("datastacks") is None and server != server_address(params["server"]):
            values["datastacks"] = []
        key = values["key"]
        if not key.strip() or not key.isprintable():
            raise CaveError(f"The key {key!r} is not a name for a token in a secrets file. The usual one is 'token'.")
        token = clean_token(item.get("token")) if values["state"] == "present" else None
        datastacks = parse_datastacks(values["datastacks"], server)
        to_prove = params["validate"] if item.get("validate") is None else item["validate"]
        return _Entry(user, Wish(server, datastacks, key, token, params["stale"]), result, to_prove)
    except CaveError as error:
        entry = _Entry(user, None, result)
        _fail([entry], error)
        return entry


def _refuse_contradictions(entries: list[_Entry]) -> None:
    """Fail entries that want different tokens in the same place: each run would undo what the last one did."""
    places: dict[tuple[str, str, str], list[_Entry]] = {}
    for entry in entries:
        if entry.wish is not None:
            places.setdefault((entry.user, entry.wish.server, entry.wish.key), []).append(entry)
    for (user, server, key), rivals in places.items():
        if len({entry.wish.token for entry in rivals if entry.wish is not None}) > 1:
            where = f"{key!r} of {_users.shown(user)} for {server}"
            _fail(rivals, CaveError(f"Found {len(rivals)} entries that contradict each other for {where}. Keep one."))


def _by_user(entries: list[_Entry]) -> dict[str, list[_Entry]]:
    """Return the entries that can go on, by user."""
    found: dict[str, list[_Entry]] = {}
    for entry in entries:
        if not entry.result.get("failed"):
            found.setdefault(entry.user, []).append(entry)
    return found


def _prove(entries: list[_Entry], params: Mapping[str, Any]) -> None:
    """Ask each server about each token before anything is written."""
    # HTTP is imported only where it is needed: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove

    questions = {
        index: Question(entry.wish.server, entry.wish.token, tuple(stack.name for stack in entry.wish.datastacks))
        for index, entry in enumerate(entries)
        if entry.to_prove and entry.wish is not None and entry.wish.token is not None and not entry.result.get("failed")
    }
    answers = prove(questions.values(), timeout=params["timeout"], retries=params["retries"], ca_path=params["ca_path"])
    for index, question in questions.items():
        verdict = answers[question].overall
        entries[index].result["access"] = verdict.as_dict()
        if not verdict.ok:
            message = f"{verdict.message} Nothing was written. {verdict.remedy}"
            if verdict.verdict in ("unreachable", "tls_error"):
                message += " To write without asking the server, as for an image build, set validate: false."
            _fail([entries[index]], CaveError(message.strip()))


def _fail(entries: list[_Entry], error: CaveError) -> None:
    for entry in entries:
        token = entry.wish.token if entry.wish is not None else None
        entry.result.update(failed=True, msg=mask(error.message, [token or ""]))


def _mode_and_group(params: Mapping[str, Any]) -> tuple[int, int | None]:
    try:
        mode = params["mode"] if isinstance(params["mode"], int) else int(str(params["mode"]), 8)
    except ValueError:
        raise CaveError(f"The mode {params['mode']!r} is not an octal number. Use '0600', in quotes.") from None
    group = None
    if params["group"] is not None:
        try:
            group = grp.getgrnam(params["group"]).gr_gid
        except KeyError:
            raise CaveError(f"This host has no group {params['group']!r}. Create it, or correct the name.") from None
    if mode & ~0o660:
        raise CaveError(
            f"The mode {mode:04o} (octal) lets everybody in, or is not that of a file. Use '0600', in quotes."
        )
    if mode & 0o070 and group is None:
        raise CaveError(f"The mode {mode:04o} lets a group in, but no group is given. Name the group, or use 0600.")
    if mode & 0o600 != 0o600:
        raise CaveError(f"With the mode {mode:04o} its own user could not read and change the file. Use 0600.")
    return mode, group


def _summary(entries: list[_Entry]) -> dict[str, Any]:
    results = [entry.result for entry in entries]
    diff = [
        {"before_header": header, "after_header": header, **result.pop("diff")}
        for result in results
        for header in [f"{result['user']}, {result['server']}"]
        if "diff" in result
    ]
    summary = {"changed": any(result["changed"] for result in results), "users": results, "diff": diff}
    failed = [result for result in results if result.get("failed")]
    if failed:
        count = "" if len(results) == 1 else f"{len(failed)} of {len(results)} tokens are not in place. "
        message = count + " ".join(f"{_users.shown(result['user'])}: {result['msg']}" for result in failed)
        raise CaveError(message, **summary)
    return summary
