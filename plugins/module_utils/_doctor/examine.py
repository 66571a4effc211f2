# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the doctor finds out: the same functions that ``saved_token_info`` and ``verify_access`` run, for one person."""

from __future__ import annotations

import os
import socket
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import saved_token_info
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import session
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import Options, TokenQuery, read_users

_FOR_FILES = 10
"""Seconds for reading the person's own files."""


class Question(NamedTuple):
    """What is asked: which server and datastacks, where environments are, and how long a server may take (seconds)."""

    server: str
    datastacks: list[Any]
    path: str
    timeout: int = 20


class Examination(NamedTuple):
    """What was found. No token is in it."""

    host: str
    user: str
    home: str
    server: str
    files: Mapping[str, Any]
    """As ``saved_token_info`` returns it for a user."""
    access: Mapping[str, Any] | None
    """As ``verify_access`` returns it for a user; None: no server was asked."""
    session: list[str]
    """What in this session changes the answer."""

    def as_dict(self) -> dict[str, Any]:
        """Return it in the shape that a user has in report.json, with the rest beside it."""
        found = {**self.files, **({"access": self.access} if self.access is not None else {})}
        return {"host": self.host, "users": [found], "session": self.session}


def examine(question: Question, offline: bool) -> Examination:
    """Return what is found for the person who runs this.

    Args:
        question: what is asked.
        offline: ask no server.

    Raises:
        CaveError: there is no account for this process, or a name or address is impossible.
    """
    me = _users.current_user()
    files = saved_token_info.run(_info_params(me.pw_name, question))["users"][0]
    access = None if offline else _access(me.pw_name, question)
    if access is not None and access["verdict"] == "invalid_token":
        # Another token that lies there may be the good one.
        files = saved_token_info.run({**_info_params(me.pw_name, question), "validate": True})["users"][0]
    managed = os.path.join(question.path, "current")
    managed = managed if os.path.isdir(managed) else ""
    notes = session.notes(os.environ, me.pw_dir, session.kernel_python(os.getppid()), managed)
    home = f"/{me.pw_dir.strip('/')}"
    return Examination(socket.gethostname(), me.pw_name, home, question.server, files, access, notes)


def token_sent(user: str, question: Question) -> str | None:
    """Return the token that caveclient sends to the server, None without one. It is for requests, not for people."""
    query = TokenQuery(question.server, parse_datastacks(question.datastacks, question.server))
    found = read_users([(query, [user])], Options(cloud_volume_dir=_cloud_volume_dir()), _FOR_FILES)[0][0]
    readings = next(iter(found.readings.values()), [])
    token = readings[0].token if readings else None
    return token if isinstance(token, str) and token else None


def _access(user: str, question: Question) -> Mapping[str, Any]:
    # HTTP is imported only where it is needed: it takes longer than all the rest of the program.
    from ansible_collections.connectomics.cave.plugins.module_utils._backends import verify_access

    try:
        found: Mapping[str, Any] = verify_access.run(_access_params(user, question))
    except CaveError as error:
        if "users" not in error.details:
            raise
        found = error.details
    user_found: Mapping[str, Any] = found["users"][0]
    return user_found


def _cloud_volume_dir() -> str | None:
    """Return the variable of this session; None without it: then the person's startup files say what others have."""
    return os.environ.get("CLOUD_VOLUME_DIR") or None


def _info_params(user: str, question: Question) -> dict[str, Any]:
    return {
        **_shared_params(user, question),
        "expected": None,
        "homes": None,
        "mode": "0600",
        "validate": False,
        "addresses": False,
    }


def _access_params(user: str, question: Question) -> dict[str, Any]:
    return {**_shared_params(user, question), "token": None, "method": "api", "interpreter": None, "services": ["full"]}


def _shared_params(user: str, question: Question) -> dict[str, Any]:
    return {
        "users": [user],
        "server": question.server,
        "datastacks": question.datastacks,
        "key": "token",
        "secrets_dir": None,
        "cloud_volume_dir": _cloud_volume_dir(),
        "path": question.path,
        "timeout": question.timeout,
        "retries": 1,
        "ca_path": None,
    }
