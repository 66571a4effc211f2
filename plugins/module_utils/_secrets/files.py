# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets files: their names, what can be wrong with one, and what is in it. No file system here."""

from __future__ import annotations

import json
import os.path
import re
from typing import Any, Collection, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets import json_edit as _json_edit

DEFAULT_FILE = "cave-secret.json"
LEGACY_FILE = "chunkedgraph-secret.json"
SERVER_MAP = "cave_datastack_to_server_map.json"
QUARANTINE = ".malformed-"
"""What stands between a malformed file's name and a number, once the file was set aside."""
MAX_BYTES = 65536
"""A secrets file holds a handful of tokens; what is larger is not one, and is not read."""

_NAMED_FOR = re.compile(r"\.?(?P<host>.+)-cave-secret\.json")

_DEFAULT_PORT = re.compile(r":(443|80)$")

PROBLEMS = {
    "empty": "is empty",
    "too_large": f"is larger than {MAX_BYTES // 1024} KiB",
    "bom": "begins with a byte order mark, which the JSON readers refuse",
    "not_utf8": "is not UTF-8 text",
    "not_json": "is not JSON",
    "not_an_object": "is JSON, but not an object such as {}",
    "directory": "is a directory",
    "symlink": "is a symbolic link",
    "not_a_file": "is not a regular file",
    "unreadable": "cannot be read by its user",
}
"""What can be wrong with a secrets file: the code, and how to say it after the file's name."""


class Malformed(Exception):  # noqa: N818 (one word for it everywhere)
    """A secrets file that no reader can use; ``code`` is one of ``PROBLEMS``."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(PROBLEMS[code] + (f" ({detail})" if detail else ""))
        self.code = code


class Entry(NamedTuple):
    """What stands under a name in a secrets directory."""

    mode: int
    """Permission bits."""
    uid: int
    gid: int
    is_file: bool
    """A regular file, or a link to one: what ``os.path.isfile`` says."""
    text: str | None
    """The content, where it is a sound secrets file."""
    problem: str | None
    """A code of PROBLEMS otherwise."""
    detail: str
    """The problem in words, for a message that names the file first."""

    def get(self, key: str) -> Any:
        """Return what a reader finds under ``key``: the last one of a repeated key, None without one."""
        return values(self.text).get(key) if self.text is not None else None


def server_file(host: str) -> str:
    """Return the name of the secrets file of one server, for its host and port as they are typed."""
    return f"{host}-{DEFAULT_FILE}"


def is_server_file(name: str) -> bool:
    """Return whether a name is that of a server's own secrets file."""
    return name.endswith("-" + DEFAULT_FILE)


def is_secrets_file(name: str) -> bool:
    """Return whether a name is that of a secrets file that some CAVE reader may take."""
    return name in (DEFAULT_FILE, LEGACY_FILE) or is_server_file(name)


def parse(raw: bytes) -> str:
    """Return the text of a secrets file.

    Raises:
        Malformed: no reader can use it.
    """
    if len(raw) > MAX_BYTES:
        raise Malformed("too_large")
    if not raw.strip():
        raise Malformed("empty")
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Malformed("bom")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not_utf8", f"at byte {error.start}") from None
    try:
        _json_edit.members(text)
    except _json_edit.NotAnObject:
        raise Malformed("not_an_object") from None
    except json.JSONDecodeError as error:  # its own message may quote what is in the file
        raise Malformed("not_json", f"at line {error.lineno} column {error.colno}") from None
    return text


def values(text: str) -> dict[str, Any]:
    """Return what a JSON reader makes of a sound secrets file."""
    return {member.key: member.value for member in _json_edit.members(text)}


def tokens_in(text: str) -> dict[str, str]:
    """Return the strings in a secrets file, by key: of a repeated key the last one, which is what readers take."""
    return {
        member.key: member.value
        for member in _json_edit.members(text)
        if isinstance(member.value, str) and text[member.value_start] == '"'
    }


def named_for(name: str) -> str:
    """Return the host that a secrets file, or a copy of one, is named for; empty for one of all servers.

    A word without a dot or a port is a person's own (``old-cave-secret.json``), unless a request is about that host.
    """
    host = before_the_name(name)
    return host if "." in host or ":" in host or host == "localhost" else ""


def canonical(path: str) -> str:
    """Return the name of a server's file, or of any other, in the one form in which two are compared.

    Servers don't mind letter case or their usual port, but people type them, and caveclient names files as they do.
    """
    name = os.path.basename(path)
    host = _DEFAULT_PORT.sub("", before_the_name(name).lower())
    return server_file(host) if host else name


def before_the_name(name: str) -> str:
    """Return what stands before the usual name in that of a server's file, or of a copy of one; empty without."""
    match = _NAMED_FOR.match(name)
    return match.group("host") if match else ""


def is_named_for_a_server(path: str) -> bool:
    """Return whether a file is one server's own, by its name."""
    name = os.path.basename(path)
    return is_server_file(name) and bool(named_for(name))


def hidden_keys(texts: Mapping[str, str], path: str, names: Collection[str]) -> dict[str, Any]:
    """Return the keys that a server's file hides, with their values in the file that was taken before it.

    It has them not, or with another value. Tokens in the file of another server are that server's, and not hidden here.

    Args:
        texts: path -> content of the sound files of all directories.
        path: of the server's file, which exists.
        names: canonical names of the files that hold tokens of the same auth server.
    """
    shadowed = texts.get(os.path.join(os.path.dirname(path), DEFAULT_FILE))
    if shadowed is None or path not in texts:
        return {}
    own = values(texts[path])
    hidden = {key: value for key, value in values(shadowed).items() if value not in (None, own.get(key))}
    others = {
        value
        for other, text in texts.items()
        if hidden and is_named_for_a_server(other) and canonical(other) not in names
        for value in tokens_in(text).values()
    }
    return {key: value for key, value in hidden.items() if not (isinstance(value, str) and value in others)}
