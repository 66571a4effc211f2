# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``saved_token_info`` does: look at users' secrets files, each in a process that is that user."""

from __future__ import annotations

import contextlib
import glob
import os
import os.path
import pwd
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    host_of,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token, fingerprint, mask
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import locations as _locations
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import problems as _problems
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import Asked, Found, Place

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict

_PATIENCE = 30
"""Seconds for one user's files."""
_SITE_PACKAGES = (
    ".local/lib/python3.*/site-packages",
    "*conda3/lib/python3.*/site-packages",
    "*conda3/envs/*/lib/python3.*/site-packages",
    "*forge/lib/python3.*/site-packages",
    "*forge/envs/*/lib/python3.*/site-packages",
    "*forge3/lib/python3.*/site-packages",
    "*forge3/envs/*/lib/python3.*/site-packages",
    ".conda/envs/*/lib/python3.*/site-packages",
    ".virtualenvs/*/lib/python3.*/site-packages",
    ".venv/lib/python3.*/site-packages",
)
"""Where people's own Pythons keep caveclient, below their homes."""
_USED = ("file", "token", "home")
"""What of a look is for this process alone."""


class _Entry(NamedTuple):
    """A user and a server to be asked about, and what is found."""

    user: str
    asked: Asked
    result: dict[str, Any]


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the host would send for each user, and what is wrong.

    Raises:
        CaveError: the parameters are wrong. A problem on the host is never a reason.
    """
    entries = _entries(params)
    jobs, owners = [], []
    for name in dict.fromkeys(entry.user for entry in entries):
        mine = [entry for entry in entries if entry.user == name]
        try:
            user = _users.find_user(name)
            home = Home.of(user, params["secrets_dir"], params["cloud_volume_dir"], mode=_mode(params["mode"]))
        except CaveError as error:
            _fail(mine, error)
            continue
        by_root = os.geteuid() == 0 and user.pw_uid != 0
        look = partial(_look, home, [entry.asked for entry in mine], by_root, params["path"])
        jobs.append(_users.Job(user, look))
        owners.append(mine)
    looks: dict[int, dict[str, Any]] = {}
    for mine, outcome in zip(owners, _users.run_each_as(jobs, _PATIENCE)):
        if isinstance(outcome, CaveError):
            _fail(mine, outcome)
            continue
        for entry, found in zip(mine, outcome):
            looks[id(entry.result)] = {name: found.pop(name) for name in _USED}
            entry.result.update(found)
    if params["users"] is None:
        entries = [entry for entry in entries if _has_something(entry, looks.get(id(entry.result), {}))]
    if params["validate"]:
        _ask(entries, looks, params)
    users = [entry.result for entry in entries]
    return {"changed": False, "users": users, "problems": sum(len(user.get("problems", [])) for user in users)}


def _entries(params: Mapping[str, Any]) -> list[_Entry]:
    """Return whom to look at, for which server: as expected, or where nothing is, for the server of the task."""
    expected: dict[tuple[str, str, str], Asked] = {}
    for item in params["expected"] or []:
        asked = _asked(item, params)
        expected[(item["user"], asked.server, asked.key)] = asked
    names = params["users"]
    if names is None:
        names = [*_accounts(), *(user for user, _server, _key in expected)]
    entries = []
    for name in dict.fromkeys(names):
        mine = [asked for (user, _server, _key), asked in expected.items() if user == name]
        entries += [
            _Entry(name, asked, {"user": name, "server": asked.server}) for asked in mine or [_asked({}, params)]
        ]
    return entries


def _asked(item: Mapping[str, Any], params: Mapping[str, Any]) -> Asked:
    server = server_address(item.get("server") or params["server"])
    stacks = item.get("datastacks")
    if stacks is None:
        stacks = params["datastacks"] if server == server_address(params["server"]) else []
    return Asked(
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


def _fail(entries: list[_Entry], error: CaveError) -> None:
    for entry in entries:
        if entry.asked.is_absent and "unknown_user" in error.details:
            nothing: dict[str, list[Any]] = {"readers": [], "files": [], "problems": []}
            entry.result.update(nothing, fingerprint=None, agree=True, **_comparison(entry.asked, None))
            continue
        entry.result.update(failed=True, msg=mask(error.message, [entry.asked.expected or ""]))


def _accounts() -> list[str]:
    """Return the names of the accounts that may have secrets files: all for root, else one's own."""
    if os.geteuid() != 0:
        return [_users.current_user().pw_name]
    accounts = pwd.getpwall()
    names = [account.pw_name for account in accounts]
    # Accounts of a directory service are often not listed, but who has a home beside the others' has an account.
    for folder in dict.fromkeys(["/home", *(os.path.dirname(user.pw_dir) for user in accounts if user.pw_uid >= 1000)]):
        with contextlib.suppress(OSError):
            for home in os.scandir(folder):
                with contextlib.suppress(OSError, KeyError):
                    names.append(pwd.getpwuid(home.stat(follow_symlinks=False).st_uid).pw_name)
    return list(dict.fromkeys(names))


def _has_something(entry: _Entry, look: Mapping[str, Any]) -> bool:
    """Tell whether an account that nobody named has anything to do with CAVE."""
    result = entry.result
    if entry.asked.is_managed:
        return True
    if result.get("failed"):
        return _users.find_user(entry.user).pw_uid >= 1000
    # Several accounts of the system have one home, or none; what is wrong there is not theirs.
    home = look.get("home")
    return bool(result["files"] or (home and any(problem["path"].startswith(home) for problem in result["problems"])))


# In a process that is the user ----------------------------------------------------------------------------------------


def _look(home: Home, questions: list[Asked], by_root: bool, managed: str) -> list[dict[str, Any]]:
    """Look at one user's files; to be called in a process that is that user.

    Returns:
        A result for each question, with the ``token`` that caveclient sends, the ``file`` on which it fails, and the
        ``home`` where that is the user's own.
    """
    where = home.places()
    listing = _directory.listing(where)
    places = list(_places(home, where, listing))
    found = Found(
        home.name,
        home.uid,
        home.path,
        by_root,
        where,
        listing,
        places,
        _installed(home.path, managed),
        managed,
        home.mode,
        "" if home.cloud_volume_dir is not None else _locations.cloud_volume_dir_from(home.path, os.environ)[1],
    )
    results = []
    shared = _problems.file_problems(found, questions)
    for asked in questions:
        readings = _readers.read_by_all(listing, where, host_of(asked.server), asked.local_hosts, asked.key)
        problems = [*_problems.token_problems(found, asked, readings), *shared]
        shared = []  # said once is enough
        results.append(
            {
                "fingerprint": _name(readings[0].token),
                "agree": len({_name(reading.token) for reading in readings}) == 1,
                "readers": [_reading(reading) for reading in readings],
                "files": [_file_found(place, listing.get(place.path)) for place in places if place.kind == "file"],
                "problems": [problem._asdict() for problem in _problems.in_order(problems)],
                **_comparison(asked, readings[0].token),
                "token": readings[0].token,
                "file": _broken_file(readings[0], listing),
                "home": f"{home.path}/" if _owns(home.path) else "",
            }
        )
    return results


def _owns(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(path).st_uid == os.geteuid()
    return False


def _broken_file(reading: _readers.Reading, listing: _readers.Listing) -> list[str] | None:
    return [reading.path, listing[reading.path].detail] if reading.problem and reading.path else None


def _reading(reading: _readers.Reading) -> dict[str, Any]:
    values = {name: getattr(reading, name) for name in ("reader", "host", "path", "problem")}
    return {**values, "fingerprint": _name(reading.token)}


def _comparison(asked: Asked, current: object) -> dict[str, Any]:
    if asked.is_absent:
        return {"expected": {"fingerprint": None, "matches": current is None}}
    if asked.expected is None:
        return {}
    return {"expected": {"fingerprint": _name(asked.expected), "matches": current == asked.expected}}


def _places(home: Home, where: _readers.Places, listing: Mapping[str, _files.Entry]) -> Iterator[Place]:
    """Yield the user's own directories of secrets files, and what is in them."""
    directories = list(dict.fromkeys((where.caveclient, where.cloud_volume[0])))
    if not home.secrets_dir:
        yield from _directory_found(os.path.dirname(where.caveclient), "parent")
    for directory in directories:
        here = list(_directory_found(directory, "directory"))
        if home.secrets_dir and here and here[0].uid == 0:
            here = []  # a directory that root keeps for its users
        yield from here
        if directory != where.caveclient and here and here[0].uid != home.uid:
            continue
        names = [os.path.basename(path) for path in listing if os.path.dirname(path) == directory]
        # Links that lead nowhere are not in the listing: to the readers they do not exist.
        with contextlib.suppress(OSError):
            names += [name for name in os.listdir(directory) if _is_looked_at(name)]
        for name in sorted(set(names)):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                entry = listing.get(path)
                is_sound = entry is not None and entry.text is not None
                mode, is_link = stat.S_IMODE(status.st_mode), stat.S_ISLNK(status.st_mode)
                yield Place(path, "file", mode, status.st_uid, is_link, is_sound)


def _directory_found(path: str, kind: str) -> Iterator[Place]:
    with contextlib.suppress(OSError):
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        try:
            status = os.stat(path)
        except OSError:
            status = os.lstat(path)
        is_directory = stat.S_ISDIR(status.st_mode)
        is_sound = is_directory and os.access(path, os.R_OK | os.X_OK)
        kind = kind if is_directory or is_link else "obstacle"
        yield Place(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, is_link, is_sound)


def _is_looked_at(name: str) -> bool:
    return _files.is_secrets_file(name) or name == _files.SERVER_MAP


def _file_found(place: Place, entry: _files.Entry | None) -> dict[str, Any]:
    try:
        owner = pwd.getpwuid(place.uid).pw_name
    except KeyError:
        owner = str(place.uid)
    secret = os.path.basename(place.path) != _files.SERVER_MAP
    values = _files.values(entry.text) if entry is not None and entry.text is not None and secret else {}
    return {
        "path": place.path,
        "mode": f"{place.mode:04o}",
        "owner": owner,
        "problem": entry.problem if entry is not None else "symlink",
        "fingerprints": {key: _name(value) for key, value in values.items()},
    }


def _installed(home: str, managed: str) -> dict[str, str]:
    """Return the versions of caveclient in the managed environment and in the user's own Pythons."""
    patterns = [os.path.join(glob.escape(managed), "current", "lib", "python3.*", "site-packages")]
    patterns += [os.path.join(glob.escape(home), pattern) for pattern in _SITE_PACKAGES]
    found = {}
    for pattern in patterns:
        for path in glob.glob(os.path.join(pattern, "caveclient-*.dist-info")):
            found[os.path.dirname(path)] = os.path.basename(path)[len("caveclient-") : -len(".dist-info")]
    return found


# The server -----------------------------------------------------------------------------------------------------------


def _ask(entries: list[_Entry], looks: Mapping[int, Mapping[str, Any]], params: Mapping[str, Any]) -> None:
    """Ask the servers about each distinct token."""
    # HTTP is imported only where it is needed: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove

    questions = {}
    for index, entry in enumerate(entries):
        if id(entry.result) not in looks:
            continue
        verdict = _verdict_without_asking(entry, looks[id(entry.result)])
        if verdict is not None:
            entry.result["access"] = verdict.as_dict()
            continue
        with contextlib.suppress(CaveError):
            token = clean_token(looks[id(entry.result)]["token"])
            questions[index] = Question(
                entry.asked.server, token, tuple(stack.name for stack in entry.asked.datastacks)
            )
    answers = prove(questions.values(), timeout=params["timeout"], retries=params["retries"], ca_path=params["ca_path"])
    for index, question in questions.items():
        entries[index].result["access"] = answers[question].overall.as_dict()


def _verdict_without_asking(entry: _Entry, look: Mapping[str, Any]) -> Verdict | None:
    """Return why the user has no access whatever the server says. To have no token is wrong only where one is due."""
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
        malformed_file_verdict,
        no_token_verdict,
    )

    asked, token = entry.asked, look["token"]
    if look["file"]:
        path, detail = look["file"]
        return malformed_file_verdict(asked.server, path, f"it {detail}")
    if token in (None, ""):
        due = asked.is_managed and not asked.is_absent
        return no_token_verdict(asked.server, entry.user, "no secrets file has one") if due else None
    try:
        clean_token(token)
    except CaveError as error:
        path = entry.result["readers"][0]["path"]
        return malformed_file_verdict(asked.server, path, f"under {asked.key!r}: {error.message.split('. ')[0]}")
    return None


def _name(token: Any) -> str | None:
    return fingerprint(token) if isinstance(token, str) and token else None
