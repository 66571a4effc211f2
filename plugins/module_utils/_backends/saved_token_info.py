# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``saved_token_info`` does: look at users' secrets files, each in a process that is that user."""

from __future__ import annotations

import contextlib
import os
import os.path
import pwd
from functools import partial
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import bundle_check
from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import replacing_netrc
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    host_of,
    is_unconfirmed,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint, mask
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import problems as _problems
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.accounts import (
    FIRST_USER_ID,
    accounts_on_host,
    is_without_account,
    without_account,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import (
    Options,
    TokenQuery,
    UserFiles,
    inspect_each,
    verdict_without_asking,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import Problem
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import by_key

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question

_PATIENCE = 30
"""Seconds for one user's files."""
_GOOD = ("ok", "missing_tos", "missing_permission", "unknown_datastack")
"""Verdicts on a token that the server knows."""
_SHORTEST_TOKEN = 16
_CANNOT_BE_READ = ("unreadable", "too_large", "not_a_file")
"""Problems of a file that leave open which tokens are in it."""


class _Item(NamedTuple):
    """A user and a server to look at, and what is told of them."""

    number: int
    user: str
    query: TokenQuery
    result: dict[str, Any]


class _Found(NamedTuple):
    """What was found for an item, and is not told as it is."""

    sent: Reading
    """What caveclient sends."""
    others: list[Any]
    """Other tokens that may be the good one, each with its problem now, and as it is if that one is good."""
    bundles: list[Any]
    """The user's own CA certificates, each with the problem that there is if they do not vouch for the server."""
    home: str
    """The user's, with a slash at its end; empty where it is somebody else's."""


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the host would send for each user, and what is wrong.

    Raises:
        CaveError: the parameters are wrong. A problem on the host is never a reason.
    """
    options = Options(params["secrets_dir"], params["cloud_volume_dir"], _mode(params["mode"]), params["path"])
    usual = not (params["secrets_dir"] or params["cloud_volume_dir"])
    found_accounts = accounts_on_host(params["homes"] or [], usual_places=usual) if params["users"] is None else {}
    items = _items(params, found_accounts)
    accounts = {**_users.find_users(item.user for item in items if item.user not in found_accounts), **found_accounts}
    trusted = bundle_check.trusted(params["ca_path"]) if params["validate"] else None
    found = _look(items, accounts, options, trusted)
    if params["users"] is None:
        items = [item for item in items if _has_something(item, accounts[item.user], found[item.number])]
    addresses = {}
    if params["validate"] or params["addresses"]:
        answers = _ask(items, found, params)
        items, learned = _with_local_servers(items, answers, params)
        if learned:  # more files are known to hold tokens of the server
            found = _look(items, accounts, options, trusted)
        _note_answers(items, found, answers, params)
        looked_at = [(item.result, found[item.number]) for item in items]
        named = [(result, known.bundles) for result, known in looked_at if isinstance(known, _Found)]
        bundle_check.note_distrust(named, params["timeout"])
        stacks = [verdict for _question, access in answers.values() for verdict in access.datastacks]
        addresses = {"addresses": _addresses(items, stacks, params)} if params["addresses"] else {}
    users = [item.result for item in items]
    count = sum(len(user.get("problems", [])) for user in users)
    return {"changed": False, "users": users, "problems": count, **addresses}


def _look(
    items: Sequence[_Item],
    accounts: Mapping[str, pwd.struct_passwd | CaveError],
    options: Options,
    trusted: str | None,
) -> dict[int, _Found | CaveError]:
    """Note in each item's result what its user's files are, and return the rest, or an error, by the item's number."""
    queries: dict[str, list[TokenQuery]] = {item.user: [] for item in items}
    for item in items:
        queries[item.user].append(item.query)
    looked_at = {name: accounts[name] for name in queries}
    outcomes = inspect_each(looked_at, options, partial(_results, queries, trusted), _PATIENCE)
    found: dict[int, _Found | CaveError] = {}
    for item in items:
        outcome = outcomes[item.user]
        if isinstance(outcome, CaveError):
            _fail(item, outcome)
            found[item.number] = outcome
            continue
        result, reading, others, bundles = outcome["results"].pop(0)
        item.result.update(result)
        if is_without_account(item.user, accounts[item.user]):
            item.result.update(has_account=False, msg=without_account(item.user))
        found[item.number] = _Found(Reading(*reading), others, bundles, outcome["home"])
    return found


def _items(params: Mapping[str, Any], found: Iterable[str]) -> list[_Item]:
    """Return whom to look at, for which server: as expected, or where nothing is, for the server of the task."""
    expected: dict[tuple[str, str, str], TokenQuery] = {}
    for item in by_key(params["expected"] or []):
        query = _query(item, params)
        expected[(item["user"], query.server, query.key)] = query
    names = params["users"]
    if names is None:
        names = [*found, *(user for user, _server, _key in expected)]
    items: list[_Item] = []
    for name in dict.fromkeys(names):
        mine = [query for (user, _server, _key), query in expected.items() if user == name]
        for query in mine or [_query({}, params)]:
            items.append(_Item(len(items), name, query, {"user": name, "server": query.server}))
    return items


def _query(item: Mapping[str, Any], params: Mapping[str, Any]) -> TokenQuery:
    server = server_address(item.get("server") or params["server"])
    stacks = item.get("datastacks")
    if stacks is None:
        stacks = params["datastacks"] if server == server_address(params["server"]) else []
    return TokenQuery(
        server,
        parse_datastacks(stacks, server),
        item.get("key") or params["key"],
        is_managed=bool(item),
        expected=clean_token(item["token"]) if item.get("token") is not None else None,
        is_absent=item.get("state") == "absent",
    )


def _mode(value: object) -> int:
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise CaveError(f"The mode {value!r} is not an octal number. Use '0600', in quotes.") from None
    return mode & 0o660


def _fail(item: _Item, error: CaveError) -> None:
    """Say why nothing is known of a user. Who has no account here has no token here, which is no failure.

    Nor is it one to have no home, unless a token is due there.
    """
    is_unknown, is_homeless = "unknown_user" in error.details, "no_home" in error.details
    message = mask(error.message, [item.query.expected or ""])
    item.result.update(has_account=not is_unknown and not is_homeless, msg=message)
    if is_unknown or (is_homeless and (item.query.is_absent or not item.query.is_managed)):
        nothing: dict[str, list[Any]] = {"readers": [], "files": [], "unread": [], "problems": []}
        item.result.update(nothing, fingerprint=None, agree=True, **_comparison(item.query, None))
    else:
        item.result["failed"] = True


def _has_something(item: _Item, account: pwd.struct_passwd | CaveError, found: _Found | CaveError) -> bool:
    """Return whether an account that nobody named has anything to do with CAVE, or may have."""
    result = item.result
    if item.query.is_managed:
        return True
    if isinstance(found, CaveError):
        is_person = isinstance(account, CaveError) or account.pw_uid >= FIRST_USER_ID
        return bool(result.get("failed")) and (is_person or "hangs" in found.details)
    # Several accounts of the system have one home, or none; what is wrong there is not theirs.
    home = found.home
    return bool(result["files"] or (home and any(problem["path"].startswith(home) for problem in result["problems"])))


# In a process that is the user ----------------------------------------------------------------------------------------


def _results(queries: Mapping[str, list[TokenQuery]], trusted: str | None, files: UserFiles) -> dict[str, Any]:
    """Return what was found of one user.

    Returns:
        ``results``: for each query the module's result, what caveclient sends, and the last of ``_Found``. ``home``: of
        the user, with a slash at its end; empty where it is somebody else's.
    """
    mine = queries[files.user]
    results = []
    shared = _problems.file_problems(files, mine)
    found = list(_files_found(files))
    unread = [*files.closed, *(file["path"] for file in found if file["problem"] in _CANNOT_BE_READ)]
    for query in mine:
        host = host_of(query.server)
        readings = _readers.read_by_all(files.listing, files.where, host, query.compared_hosts, query.key)
        files = files._replace(netrc=replacing_netrc(files.home, query.own_hosts, os.environ, files.named_netrc))
        problems = [*_problems.token_problems(files, query, readings), *shared]
        problems = _problems.on_read_only_mounts(files, problems)
        shared = []  # told once
        result = {
            "has_account": True,
            "fingerprint": readings[0].fingerprint,
            "agree": len({reading.fingerprint for reading in readings}) == 1,
            "readers": [_reader(reading) for reading in readings],
            "files": found,
            "unread": unread,
            "problems": [problem._asdict() for problem in _problems.in_order(problems)],
            **_comparison(query, readings[0].token),
        }
        others = _others(files, query, readings[0], problems)
        results.append((result, readings[0], others, bundle_check.usable_bundles(files, query.server, trusted)))
    return {"results": results, "home": f"{files.home}/" if _owns(files.home) else ""}


def _others(files: UserFiles, query: TokenQuery, reading: Reading, problems: Iterable[Problem]) -> list[Any]:
    """Return the other tokens that may be the good one: each with its problem now, and as it is if it is good."""
    found = []
    for problem in problems:
        entry = files.listing.get(problem.path)
        token = entry.get(query.key) if entry is not None else None
        if problem.code in ("legacy_name", "shadowed", "stale") and isinstance(token, str) and token != reading.token:
            kept = _problems.good_token_kept(problem, files, query, reading)
            found.append((token, problem._asdict(), kept._asdict()))
    return found if query.expected is None else []  # the vault decides


def _owns(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(path).st_uid == os.geteuid()
    return False


def _reader(reading: Reading) -> dict[str, Any]:
    values = {name: getattr(reading, name) for name in ("reader", "host", "path", "problem")}
    return {**values, "fingerprint": reading.fingerprint}


def _comparison(query: TokenQuery, current: object) -> dict[str, Any]:
    if query.is_absent:
        return {"expected": {"fingerprint": None, "matches": current is None}}
    if query.expected is None:
        return {}
    return {"expected": {"fingerprint": fingerprint(query.expected), "matches": current == query.expected}}


def _files_found(files: UserFiles) -> Iterator[dict[str, Any]]:
    """Yield every file that holds, or may hold, a token: in all places where programs of the user look."""
    owners = {place.path: (place.mode, place.uid) for place in files.places if place.kind == "file"}
    entries = {**files.copies, **files.listing}
    status = {path: (entry.mode, entry.uid) for path, entry in entries.items()}
    for path, (mode, uid) in sorted({**status, **owners}.items()):
        entry = entries.get(path)
        is_secret = os.path.basename(path) != _files.SERVER_MAP
        values = _files.values(entry.text) if entry is not None and entry.text is not None and is_secret else {}
        yield {
            "path": path,
            "mode": f"{mode:04o}",
            "owner": _name_of(uid),
            "problem": entry.problem if entry is not None else "symlink",
            "fingerprints": {
                key: Reading("", "", path, value).fingerprint
                for key, value in values.items()
                if path not in files.copies or _is_token(value)
            },
        }


def _is_token(value: object) -> bool:
    with contextlib.suppress(CaveError):
        return len(clean_token(value)) >= _SHORTEST_TOKEN
    return False


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# The server -----------------------------------------------------------------------------------------------------------


def _ask(
    items: Iterable[_Item], found: Mapping[int, _Found | CaveError], params: Mapping[str, Any]
) -> dict[int, tuple[Question, Access]]:
    """Return what the servers say about each distinct token that is sent, by the item's number."""
    # HTTP is imported only where it is needed: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove

    questions = {}
    for item in items:
        query = item.query
        looked_at = found[item.number]
        if isinstance(looked_at, CaveError):
            continue
        sent = looked_at.sent
        verdict = verdict_without_asking(sent, query.server, item.user, query.key)
        if verdict is None:
            questions[item.number] = Question(query.server, str(sent.token), query.names)
        # To have no token is wrong only where one is due.
        elif verdict.verdict != "no_token" or (query.is_managed and not query.is_absent):
            item.result["access"] = verdict.as_dict()
    answers = prove(questions.values(), **_limits(params), records=params["addresses"])
    return {number: (question, answers[question]) for number, question in questions.items()}


def _with_local_servers(
    items: list[_Item], answers: Mapping[int, tuple[Question, Access]], params: Mapping[str, Any]
) -> tuple[list[_Item], bool]:
    """Return the items with the local servers that the records of their datastacks name, and whether that is news."""
    accepted = {
        number: question.token for number, (question, access) in answers.items() if access.overall.verdict in _GOOD
    }
    asked = [
        (item.query.server, item.query.datastacks, accepted[item.number]) for item in items if item.number in accepted
    ]
    if not any(is_unconfirmed(server, stack) for server, stacks, _token in asked for stack in stacks):
        return items, False
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.local_servers import (
        learn_local_servers,
        told_by,
        unsure,
        with_local_servers,
    )

    # Where addresses were asked for, the records have been read.
    records = told_by(answers.values()) if params["addresses"] else {}
    learned = records or learn_local_servers(unsure(asked), **_limits(params))
    completed = []
    for item in items:
        query = item.query
        if query.server in learned:
            item.result["local_servers"] = learned[query.server]
        datastacks = with_local_servers(query.server, query.datastacks, learned)
        completed.append(item._replace(query=query._replace(datastacks=datastacks)))
    return completed, any(now.query != item.query for now, item in zip(completed, items))


def _note_answers(
    items: Iterable[_Item],
    found: Mapping[int, _Found | CaveError],
    answers: Mapping[int, tuple[Question, Access]],
    params: Mapping[str, Any],
) -> None:
    """Note what the servers say. Where a dead token is sent, a good one that lies there as well has to stay."""
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import prove

    others = {}
    for item in items:
        looked_at = found[item.number]
        if item.number in answers and not isinstance(looked_at, CaveError):
            question, access = answers[item.number]
            item.result["access"] = access.overall.as_dict()
            if access.overall.verdict == "invalid_token":
                others[item.number] = [
                    (question._replace(token=token), problem, kept) for token, problem, kept in looked_at.others
                ]
    second = prove((question for some in others.values() for question, _problem, _kept in some), **_limits(params))
    for item in items:
        for question, problem, kept in others.get(item.number, ()):
            if second[question].overall.verdict in _GOOD:
                item.result["problems"] = [kept if one == problem else one for one in item.result["problems"]]


def _addresses(items: list[_Item], stacks: Iterable[Verdict], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return which hosts and ports the users' datastacks need, and whether this host reaches them.

    What no record tells, as nobody has a token that works, is what is known of the public deployments.
    """
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.addresses import reached

    queries = [item.query for item in items] or [_query({}, params)]
    known = [(stack.local_server, stack.name) for query in queries for stack in query.datastacks]
    told = {verdict.datastack: verdict.addresses for verdict in stacks if verdict.addresses}
    wanted = [("auth", query.server) for query in queries]
    wanted += [address for found in told.values() for address in found]
    wanted += [("services", server) for server, name in known if server and name not in told]
    return reached(wanted, params["timeout"], params["ca_path"])


def _limits(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in ("timeout", "retries", "ca_path")}
