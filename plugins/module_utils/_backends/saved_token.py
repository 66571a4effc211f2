# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``saved_token`` does: prove the tokens, then let every user's own process write them."""

from __future__ import annotations

import contextlib
import grp
import os.path
import pwd
from collections import Counter
from functools import partial
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    Datastack,
    is_unconfirmed,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint, mask
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request, by_key, conflicts
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.writer import save

_ENTRY_DEFAULTS = ("user", "server", "key", "state", "datastacks", "person")


class _Entry(NamedTuple):
    """One item of ``tokens``, as it came in, and what has become of it."""

    number: int
    user: str
    request: Request | None
    """None: it makes no sense, as ``result`` says."""
    result: dict[str, Any]
    to_prove: bool = False
    person: str = ""
    """The account that the token has to be of; empty: any."""

    @property
    def failed(self) -> bool:
        """Whether nothing more is to be done for it."""
        return bool(self.result.get("failed"))

    @property
    def token(self) -> str | None:
        """The token to be saved."""
        return self.request.token if self.request is not None else None

    @property
    def server(self) -> str:
        """The address of the auth server; empty where the entry makes no sense."""
        return self.request.server if self.request is not None else ""

    @property
    def datastacks(self) -> list[Datastack]:
        """The datastacks of the server."""
        return self.request.datastacks if self.request is not None else []


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what the module's parameters ask for.

    Returns:
        ``changed``, ``users`` (one result an entry, in order) and ``diff``.

    Raises:
        CaveError: something failed for at least one user; ``details`` has what was done for the others.
    """
    mode, group = _mode_and_group(params)
    entries = [_entry(number, item, params) for number, item in enumerate(_items(params), start=1)]
    _refuse_contradictions(entries, params)
    if any(entry.to_prove for entry in entries):
        entries = _prove(entries, params)
    home_of = partial(
        Home.of,
        secrets_dir=params["secrets_dir"],
        cloud_volume_dir=params["cloud_volume_dir"],
        mode=mode,
        group=group,
        on_malformed=params["on_malformed"],
    )
    entries = _learn_for_removals(entries, home_of, params)
    replaced: dict[int, str] = {}
    for entry, result in _save(entries, home_of, params["stale"], check_mode):
        previous = result.pop("previous_token", None)
        entry.result.update(result)
        if entry.to_prove and entry.token and previous not in (None, entry.token):
            replaced[entry.number] = previous
    if replaced:
        _compare_accounts(entries, replaced, params)
    _note_shared_tokens(entries)
    return _summary(entries)


def _save(
    entries: Iterable[_Entry], home_of: Callable[..., Home], stale: str, check_mode: bool
) -> Iterator[tuple[_Entry, dict[str, Any]]]:
    """Let each user's own process do what the entries ask for; yield the result of each that did not fail."""
    jobs, owners = [], []
    # Those of two names for one account too: apart, each would be planned without the other.
    for mine in _by_files(entries):
        try:
            user = _users.find_user(mine[0].user)
            home = home_of(user)
        except CaveError as error:
            # Who has no account has no token here: where none should be, all is as it should be.
            is_fine = "unknown_user" in error.details
            _fail([entry for entry in mine if not is_fine or entry.token], error)
            continue
        requests = [entry.request for entry in mine if entry.request is not None]
        jobs.append(_users.Job(user, partial(save, home, requests, stale, check_mode)))
        owners.append(mine)
    for mine, outcome in zip(owners, _users.run_each_as(jobs)):
        if isinstance(outcome, CaveError):
            _fail(mine, outcome)
            continue
        for entry, result in zip(mine, outcome):
            if result.get("failed"):
                _fail([entry], CaveError(result["msg"]))
            else:
                yield entry, result


def _items(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    if params["tokens"] is None:
        return [{"token": params["token"]}]
    if params["token"] is not None:
        raise CaveError("Found both tokens and token. Give one of them.")
    return by_key(params["tokens"])


def _entry(number: int, item: Mapping[str, Any], params: Mapping[str, Any]) -> _Entry:
    """Return an item with the defaults filled in. What is wrong with it becomes its result, and stops no other."""
    values: dict[str, Any] = {
        name: item[name] if item.get(name) is not None else params[name] for name in _ENTRY_DEFAULTS
    }
    user = _users.current_user().pw_name if values["user"] is None else values["user"]
    result: dict[str, Any] = {name: values[name] for name in ("server", "key")}
    result.update(user=user, changed=False, files=[])
    try:
        if not user:
            raise CaveError("The user's name is empty. Leave user out for the user that the task runs as.")
        server = server_address(values["server"])
        if item.get("datastacks") is None and server != server_address(params["server"]):
            values["datastacks"] = []
        key = values["key"]
        if not key.strip() or not key.isprintable():
            raise CaveError(f"The key {key!r} is not a name for a token in a secrets file. The usual one is 'token'.")
        token = clean_token(item.get("token")) if values["state"] == "present" else None
        datastacks = parse_datastacks(values["datastacks"], server)
        to_prove = params["validate"] if item.get("validate") is None else item["validate"]
        person = (values["person"] or "").strip()
        if person and token is not None and not to_prove:
            raise CaveError(
                f"Only the server knows whether the token is of {person}. Set validate: true, or leave out person."
            )
        return _Entry(number, user, Request(server, datastacks, key, token), result, to_prove, person)
    except CaveError as error:
        entry = _Entry(number, user, None, result)
        _fail([entry], error)
        return entry


def _refuse_contradictions(entries: list[_Entry], params: Mapping[str, Any]) -> None:
    """Fail entries for the same files that exclude each other: each run would undo what the last one did."""
    place = params["secrets_dir"] or ""
    everybodys = "" if place.startswith("~") else place
    for mine in _by_files(entries, everybodys):
        rivals: dict[str, set[int]] = {}
        requests = [entry.request for entry in mine if entry.request is not None]
        for first, second, what in conflicts(requests):
            rivals.setdefault(what, set()).update((first, second))
        for what, indices in rivals.items():
            found = [mine[index] for index in sorted(indices)]
            *others, last = [str(entry.number) for entry in found]
            numbers = f"{', '.join(others)} and {last}"
            names = list(dict.fromkeys(_users.shown(entry.user) for entry in found))
            why = f"share {everybodys}" if everybodys else "are one user id with one home"
            shared = f" {' and '.join(names)} {why}." if len(names) > 1 else ""
            error = CaveError(
                f"Entries {numbers} of tokens contradict each other about {what}.{shared} Keep one of them."
            )
            _fail([entry for entry in found if not entry.failed], error)


def _by_user(entries: Iterable[_Entry]) -> dict[str, list[_Entry]]:
    """Return the entries that can go on, by user."""
    found: dict[str, list[_Entry]] = {}
    for entry in entries:
        if not entry.failed:
            found.setdefault(entry.user, []).append(entry)
    return found


def _by_files(entries: Iterable[_Entry], everybodys: str = "") -> list[list[_Entry]]:
    """Return the entries that can go on, those of accounts with one user id and one home together.

    Where one folder is named for all (``everybodys``), they are together as well.
    """
    found: dict[tuple[object, str], list[_Entry]] = {}
    by_user = _by_user(entries)
    accounts = _users.find_users(by_user) if len(by_user) > 1 else {}
    ids = Counter(account.pw_uid for account in accounts.values() if not isinstance(account, CaveError))
    for name, mine in by_user.items():
        account = accounts.get(name)
        owner: tuple[object, str] = (name, "")
        if isinstance(account, pwd.struct_passwd):
            home = _real_home(account) if ids[account.pw_uid] > 1 else account.pw_dir
            owner = (None, everybodys) if everybodys else (account.pw_uid, os.path.normpath(home))
        found.setdefault(owner, []).extend(mine)
    return list(found.values())


def _real_home(account: pwd.struct_passwd) -> str:
    """Return where the way to a home leads, asked by its user: it may hang."""
    with contextlib.suppress(CaveError):
        return str(_users.run_as(account, partial(os.path.realpath, account.pw_dir)))
    return account.pw_dir


# The server -----------------------------------------------------------------------------------------------------------


def _prove(entries: list[_Entry], params: Mapping[str, Any]) -> list[_Entry]:
    """Ask each server about each token before anything is written.

    Returns:
        The entries, with the local servers that the servers' own records name.
    """
    # HTTP is imported only where it is needed: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove

    asked = {}
    for entry in entries:
        if entry.to_prove and entry.request is not None and entry.token is not None and not entry.failed:
            names = tuple(stack.name for stack in entry.request.datastacks)
            asked[entry.number] = Question(entry.request.server, entry.token, names)
    answers = prove(asked.values(), **_limits(params))
    for entry in entries:
        verdict = answers[asked[entry.number]].overall if entry.number in asked else None
        if verdict is None:
            continue
        entry.result["access"] = verdict.as_dict()
        account = verdict.person.email or verdict.person.name if verdict.person is not None else ""
        if account:
            entry.result["account"] = account
        if not verdict.ok:
            message = f"{verdict.message} Nothing was written. {verdict.remedy}"
            if verdict.verdict in ("unreachable", "tls_error"):
                message += " To write without asking the server, as for an image build, set validate: false."
            _fail([entry], CaveError(message.strip()))
        elif entry.person and entry.person.lower() != account.lower():
            message = f"The token is of {account or 'an account without a name'}, not of {entry.person}."
            remedy = f"Give the token of {entry.person}, or correct person."
            _fail([entry], CaveError(f"{message} Nothing was written. {remedy}"))
    accepted = {entry.number: entry.token for entry in entries if entry.number in asked and not entry.failed}
    return _with_local_servers(entries, {number: token for number, token in accepted.items() if token}, params)


def _learn_for_removals(entries: list[_Entry], home_of: Callable[..., Home], params: Mapping[str, Any]) -> list[_Entry]:
    """Learn which files hold the tokens that are to be removed, where such a token is in a file of an unknown server.

    Afterwards nobody can ask any more: the token itself is what the record is asked with.
    """
    removals = [entry for entry in entries if entry.to_prove and entry.request and not entry.failed and not entry.token]
    doubtful = [entry for entry in removals if any(is_unconfirmed(entry.server, stack) for stack in entry.datastacks)]
    tokens = {}
    for entry, result in _save([entry._replace(result={}) for entry in doubtful], home_of, params["stale"], True):
        if result["previous_token"] and any(item["action"] == "stale" for item in result["files"]):
            tokens[entry.number] = result["previous_token"]
    return _with_local_servers(entries, tokens, params)


def _with_local_servers(entries: list[_Entry], tokens: Mapping[int, str], params: Mapping[str, Any]) -> list[_Entry]:
    """Return the entries with the local servers of their datastacks, as far as these tokens, by entry, can tell."""
    holders = [entry for entry in entries if entry.number in tokens]
    if not any(is_unconfirmed(entry.server, stack) for entry in holders for stack in entry.datastacks):
        return entries
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.local_servers import (
        learn_local_servers,
        unsure,
        with_local_servers,
    )

    asked = [(entry.server, entry.datastacks, tokens[entry.number]) for entry in holders]
    learned = learn_local_servers(unsure(asked), **_limits(params))
    completed = []
    for entry in entries:
        request = entry.request
        if request is not None:
            datastacks = with_local_servers(request.server, request.datastacks, learned)
            request = request._replace(datastacks=datastacks)
            if request.server in learned:
                entry.result["local_servers"] = learned[request.server]
        completed.append(entry._replace(request=request))
    _refuse_contradictions(completed, params)
    return completed


def _limits(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in ("timeout", "retries", "ca_path")}


def _compare_accounts(entries: list[_Entry], replaced: Mapping[int, str], params: Mapping[str, Any]) -> None:
    """Warn where a token is of another account than the one that it replaced, as far as the server knows that one.

    Whoever names the ``person`` has said whose it is to be; then the old token is not used once more.
    """
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove

    asked = {
        entry.number: Question(entry.request.server, replaced[entry.number])
        for entry in entries
        if entry.number in replaced and entry.request is not None and not entry.person
    }
    answers = prove(asked.values(), **_limits(params))
    for entry in entries:
        person = answers[asked[entry.number]].overall.person if entry.number in asked else None
        previous = person.email or person.name if person is not None else ""
        account = entry.result.get("account", "")
        if entry.number in asked:
            entry.result["previous_account"] = previous or None
        if previous and account and previous != account:
            _warn(
                entry,
                f"The token of {_users.shown(entry.user)} for {entry.result['server']} is of {account}; "
                f"the one that it replaced was of {previous}. Is it a colleague's?",
            )


def _note_shared_tokens(entries: list[_Entry]) -> None:
    """Warn where one token is saved for two users, unless both entries say whose it is."""
    users: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries:
        if entry.request is not None and entry.token is not None:
            users.setdefault((entry.request.server, entry.token), []).append(entry)
    for (server, token), holders in users.items():
        names = list(dict.fromkeys(_users.shown(entry.user) for entry in holders))
        if len(names) > 1 and not all(entry.person for entry in holders):
            account = next((entry.result["account"] for entry in holders if "account" in entry.result), "")
            whose = f", which is of {account}" if account else ""
            for entry in holders:
                message = f"{' and '.join(names)} have one token for {server} ({fingerprint(token)}{whose})."
                _warn(entry, f"{message} Give each their own, or name the account in person.")


def _warn(entry: _Entry, message: str) -> None:
    entry.result.setdefault("warnings", []).append(message)


def _fail(entries: Iterable[_Entry], error: CaveError) -> None:
    for entry in entries:
        entry.result.update(failed=True, msg=mask(error.message, [entry.token or ""]))


def _mode_and_group(params: Mapping[str, Any]) -> tuple[int, int | None]:
    try:
        mode = params["mode"] if isinstance(params["mode"], int) else int(str(params["mode"]), 8)
    except ValueError:
        raise CaveError(f"The mode {params['mode']!r} is not an octal number. Use '0600', in quotes.") from None
    group = None
    if params["group"] is not None:
        try:
            group = grp.getgrnam(params["group"]).gr_gid
        except (KeyError, ValueError):
            raise CaveError(f"This host has no group {params['group']!r}. Create it, or correct the name.") from None
    if mode & ~0o660:
        raise CaveError(
            f"The mode {mode:04o} (octal) lets others read the file, or is no file mode. Use '0600', in quotes."
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
    summary: dict[str, Any] = {"changed": any(result["changed"] for result in results), "users": results, "diff": diff}
    failed = [result for result in results if result.get("failed")]
    if failed:
        count = "" if len(results) == 1 else f"{len(failed)} of {len(results)} tokens are not in place. "
        message = count + " ".join(f"{_users.shown(result['user'])}: {result['msg']}" for result in failed)
        raise CaveError(message, **summary)
    return summary
