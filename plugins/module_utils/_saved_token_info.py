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
from typing import Any, Iterator, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils import _readers, _secrets, _store, _users
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._home import Home
from ansible_collections.connectomics.cave.plugins.module_utils._problems import Asked, Found, Place, find_problems
from ansible_collections.connectomics.cave.plugins.module_utils._servers import parse_datastacks, server_address
from ansible_collections.connectomics.cave.plugins.module_utils._tokens import clean_token, fingerprint, mask

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
)
"""Where people's own Pythons keep caveclient, below their homes."""


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the host would send for each user, and what is wrong.

    Raises:
        CaveError: the parameters are wrong. A problem on the host is never a reason.
    """
    server = server_address(params["server"])
    datastacks = parse_datastacks(params["datastacks"], server)
    expected = {user: clean_token(token) for user, token in (params["expected"] or {}).items()}
    results: dict[str, dict[str, Any]] = {}
    jobs = []
    for name in params["users"] if params["users"] is not None else _users_with_secrets(params["secrets_dir"] or ""):
        results[name] = {"user": name, "server": server}
        try:
            user = _users.find_user(name)
        except CaveError as error:
            results[name].update(failed=True, msg=error.message)
            continue
        asked = Asked(server, datastacks, params["key"], expected.get(name))
        home = Home.of(user, params["secrets_dir"], params["cloud_volume_dir"])
        jobs.append((name, _users.Job(user, partial(_look, home, asked, params["path"], params["validate"]))))
    tokens: dict[str, str] = {}
    for (name, _job), outcome in zip(jobs, _users.run_each_as([job for _name, job in jobs], _PATIENCE)):
        if isinstance(outcome, CaveError):
            results[name].update(failed=True, msg=mask(outcome.message, expected.values()))
            continue
        token = outcome.pop("token", None)
        if token is not None:
            tokens[name] = token
        results[name].update(outcome)
    if params["validate"]:
        _ask(results, tokens, server, [stack.name for stack in datastacks], params)
    users = list(results.values())
    return {"changed": False, "users": users, "problems": sum(len(user.get("problems", [])) for user in users)}


def _users_with_secrets(secrets_dir: str) -> list[str]:
    """Return the names of the accounts that may have secrets files: all for root, else one's own."""
    if os.geteuid() != 0:
        return [_users.current_user().pw_name]
    names = []
    for user in pwd.getpwall():
        try:
            os.stat(Home.of(_users.find_user(user.pw_name), secrets_dir, "").places().caveclient)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # a home that root may not look into: its user may
        names.append(user.pw_name)
    return list(dict.fromkeys(names))


def _look(home: Home, asked: Asked, managed: str, want_token: bool) -> dict[str, Any]:
    """Look at one user's files; to be called in a process that is that user."""
    where = home.places()
    listing = _store.listing(where)
    readings = _readers.read_by_all(listing, where, _host(asked.server), asked.local_hosts, asked.key)
    places = list(_places(where, listing))
    found = Found(home.name, home.uid, where, listing, places, _installed(home.path, managed), managed)
    current = readings[0].token
    result: dict[str, Any] = {
        "fingerprint": _name(current),
        "agree": len({_name(reading.token) for reading in readings}) == 1,
        "readers": [
            {
                "reader": reading.reader,
                "host": reading.host,
                "path": reading.path,
                "fingerprint": _name(reading.token),
                "problem": reading.problem,
            }
            for reading in readings
        ],
        "files": [_file(place, listing.get(place.path)) for place in places if not place.is_directory],
        "problems": [problem._asdict() for problem in find_problems(found, asked, readings)],
    }
    if asked.expected is not None:
        result["expected"] = {"fingerprint": _name(asked.expected), "matches": current == asked.expected}
    if want_token:
        with contextlib.suppress(CaveError):
            result["token"] = clean_token(current)
    return result


def _host(server: str) -> str:
    return server.partition("://")[2]


def _places(where: _readers.Places, listing: Mapping[str, _secrets.Entry]) -> Iterator[Place]:
    own = dict.fromkeys((where.caveclient, where.cloud_volume[0]))
    paths = [*own, *(path for path in sorted(listing) if os.path.dirname(path) in own)]
    for directory in own:
        # Links that lead nowhere are not in the listing: to the readers they do not exist.
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(directory)):
                path = os.path.join(directory, name)
                if path not in listing and (_secrets.is_secrets_file(name) or name == _secrets.SERVER_MAP):
                    paths.append(path)
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            yield Place(path, stat.S_IMODE(status.st_mode), status.st_uid, is_link, os.path.isdir(path) and path in own)


def _file(place: Place, entry: _secrets.Entry | None) -> dict[str, Any]:
    try:
        owner = pwd.getpwuid(place.uid).pw_name
    except KeyError:
        owner = str(place.uid)
    secret = os.path.basename(place.path) != _secrets.SERVER_MAP
    keys = _secrets.values(entry.text) if entry is not None and entry.text is not None and secret else {}
    return {
        "path": place.path,
        "mode": f"{place.mode:04o}",
        "owner": owner,
        "problem": entry.problem if entry is not None else "symlink",
        "keys": {key: _name(value) for key, value in keys.items()},
    }


def _installed(home: str, managed: str) -> dict[str, str]:
    """Return the versions of caveclient in the managed environment and in the user's own Pythons."""
    patterns = [os.path.join(managed, "current", "lib", "python3.*", "site-packages")]
    patterns += [os.path.join(glob.escape(home), pattern) for pattern in _SITE_PACKAGES]
    found = {}
    for pattern in patterns:
        for path in glob.glob(os.path.join(pattern, "caveclient-*.dist-info")):
            found[os.path.dirname(path)] = os.path.basename(path)[len("caveclient-") : -len(".dist-info")]
    return found


def _ask(
    results: dict[str, dict[str, Any]],
    tokens: Mapping[str, str],
    server: str,
    datastacks: list[str],
    params: Mapping[str, Any],
) -> None:
    """Ask the server about each distinct token."""
    # HTTP is imported only where it is needed: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._access import Question, prove_all

    questions = {name: Question(server, token, tuple(datastacks)) for name, token in tokens.items()}
    verdicts = prove_all(
        questions.values(), timeout=params["timeout"], retries=params["retries"], ca_path=params["ca_path"]
    )
    for name, question in questions.items():
        results[name]["access"] = verdicts[question].as_dict()


def _name(token: Any) -> str | None:
    return fingerprint(token) if isinstance(token, str) and token else None
