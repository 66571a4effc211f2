# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which secrets files must change so that every reader sends one token: a pure function of the files' contents."""

from __future__ import annotations

import os.path
from typing import Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    KNOWN_LOCAL_SERVERS,
    Datastack,
    host_of,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import json_edit as _json_edit

Texts = Mapping[str, str]
"""Path -> content of each sound secrets file (and server map) in the directories."""


class Wish(NamedTuple):
    """What one entry of ``saved_token`` asks for."""

    server: str
    datastacks: list[Datastack]
    key: str
    token: str | None
    """None: the token shall be absent."""
    stale: str
    """``update``, ``report`` or ``ignore``."""

    @property
    def host(self) -> str:
        """Host and port of the auth server."""
        return host_of(self.server)

    @property
    def local_hosts(self) -> list[str]:
        """Hosts and ports of the datastacks' local servers, each once."""
        return list(dict.fromkeys(host_of(stack.local_server) for stack in self.datastacks if stack.local_server))

    def own_names(self) -> dict[str, str]:
        """Return the names of the secrets files of these servers alone, with the reason for each."""
        names = {_files.server_file(self.host): f"caveclient takes it for {self.host}"}
        for host in self.local_hosts:
            names.setdefault(_files.server_file(host), f"cloud-volume and cloud-files take it for {host}")
        return names

    def family(self) -> set[str]:
        """Return the names of the secrets files that hold tokens of this auth server, as far as is known."""
        known = KNOWN_LOCAL_SERVERS.get(self.server, {}).values()
        return set(self.own_names()) | {_files.server_file(host_of(address)) for address in known}


class Plan(NamedTuple):
    """What the files shall be, and why."""

    texts: dict[str, str]
    """Path -> content; a path that is not in it shall not exist."""
    reasons: dict[str, str]
    """Path -> why the file has to do with the wish, in the order in which they are to be written.

    Those outside the set come first: once the set is written, nothing tells any more which token was replaced.
    """
    stale: list[str]
    """Paths outside the set that hold the replaced token and were left alone."""
    replaced: set[str]
    """The token values that lose their place; never to be shown."""


def plan(texts: Texts, directories: list[str], wish: Wish) -> Plan:
    """Return what one wish makes of the secrets files.

    Args:
        texts: the sound files of all directories.
        directories: the user's secrets directories; caveclient's comes first, and holds the server map.
        wish: what is asked for.
    """
    replaced = _replaced_tokens(texts, directories, wish)
    reasons = {}
    for directory in directories:
        reasons.update({os.path.join(directory, name): reason for name, reason in wish.own_names().items()})
        default = os.path.join(directory, _files.DEFAULT_FILE)
        if not _is_claimed(texts, directory, wish):
            reasons[default] = "taken for every server without a file of its own"
        legacy = os.path.join(directory, _files.LEGACY_FILE)
        if wish.token is None and default in reasons and legacy in texts:
            reasons[legacy] = "taken by caveclient where no other file has a token"

    result = dict(texts)
    for path in reasons:
        if wish.token is not None:
            result[path] = _json_edit.set_member(result.get(path) or _shadowed(texts, path), wish.key, wish.token)
        elif path in result:
            _remove(result, path, wish.key)

    stale: list[str] = []
    elsewhere = {}
    for path, text in texts.items():
        if path in reasons or not path.endswith(".json") or wish.stale == "ignore":
            continue
        if _token_in(text, wish.key) in replaced:
            elsewhere[path] = "held the token that was replaced" if wish.token else "held the same token"
            if wish.stale == "report":
                stale.append(path)
            elif wish.token is not None:
                result[path] = _json_edit.set_member(text, wish.key, wish.token)
            else:
                _remove(result, path, wish.key)
    _map_datastacks(result, reasons, os.path.join(directories[0], _files.SERVER_MAP), wish)
    return Plan(result, {**elsewhere, **reasons}, stale, replaced)


def _token_in(text: str | None, key: str) -> str | None:
    """Return the token under a key. What is no string is no token, whatever it is."""
    value = _files.values(text).get(key) if text is not None else None
    return value if isinstance(value, str) else None


def _token_at(texts: Texts, directory: str, name: str, key: str) -> str | None:
    return _token_in(texts.get(os.path.join(directory, name)), key)


def _is_claimed(texts: Texts, directory: str, wish: Wish) -> bool:
    """Tell whether cave-secret.json holds the token of some other server, which its server file proves."""
    token = _token_at(texts, directory, _files.DEFAULT_FILE, wish.key)
    if token is None or token == wish.token:
        return False
    holders = {
        os.path.basename(path)
        for path, text in texts.items()
        if os.path.dirname(path) == directory
        and _files.is_server_file(os.path.basename(path))
        and _token_in(text, wish.key) == token
    }
    return bool(holders) and not holders & wish.family()


def _replaced_tokens(texts: Texts, directories: list[str], wish: Wish) -> set[str]:
    found: set[str | None] = set()
    for directory in directories:
        found |= {_token_at(texts, directory, name, wish.key) for name in wish.own_names()}
        if not _is_claimed(texts, directory, wish):
            default = _token_at(texts, directory, _files.DEFAULT_FILE, wish.key)
            legacy = _token_at(texts, directory, _files.LEGACY_FILE, wish.key)
            found |= {default if default is not None else legacy}
    return {token for token in found if token and token != wish.token}


def _shadowed(texts: Texts, path: str) -> str:
    """Return the content that a new file begins with: that of the file which its readers took so far.

    So the further keys that people keep there stay within reach.
    """
    directory = os.path.dirname(path)
    for name in (_files.DEFAULT_FILE, _files.LEGACY_FILE):
        text = texts.get(os.path.join(directory, name))
        if text is not None and os.path.basename(path) != name:
            return text
    return "{}\n"


def _remove(result: dict[str, str], path: str, key: str) -> None:
    rest = _json_edit.remove_member(result[path], key)
    if _json_edit.members(rest) or rest == result[path]:
        result[path] = rest
    else:
        del result[path]


def _map_datastacks(result: dict[str, str], reasons: dict[str, str], path: str, wish: Wish) -> None:
    """Let the server map send each datastack to its server, or forget it when nothing is left for the server."""
    directory = os.path.dirname(path)
    is_known = os.path.join(directory, _files.server_file(wish.host)) in result
    for stack in wish.datastacks:
        reasons[path] = "tells caveclient the server of a datastack"
        mapped = _files.values(result[path]).get(stack.name) if path in result else None
        if wish.token is not None:
            result[path] = _json_edit.set_member(result.get(path, "{}\n"), stack.name, wish.server)
        elif mapped == wish.server and not is_known:
            _remove(result, path, stack.name)
