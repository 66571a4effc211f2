# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user's secrets files have to be for a set of requests: a pure function of the files' contents.

All requests of a call are planned together, from the files as they were found: so their order makes no difference, and
a second run finds nothing to do.
"""

from __future__ import annotations

import json
import os.path
from typing import Collection, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER, host_of
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import json_edit as _json_edit
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request

Texts = Mapping[str, str]
"""Path -> content of each sound secrets file (and server map) in the directories."""

_DEFAULT_HOST = host_of(DEFAULT_SERVER)


class Share(NamedTuple):
    """What one request has to do with the files."""

    reasons: dict[str, str]
    """Path -> why the request has to do with the file; it may be one that does not exist and is not to."""
    changed: set[str]
    """Those in which the request changes something."""
    stale: dict[str, str]
    """Paths of files that hold a token which is replaced, and are left alone -> why."""
    replaced: set[str]
    """The tokens that lose their place; never to be shown."""


class Plan(NamedTuple):
    """What the files are to be, and why."""

    texts: dict[str, str]
    """Path -> content; a path that is not in it is not to exist."""
    shares: list[Share]
    """One for each request."""
    order: list[str]
    """The paths in the order in which they are to be written, so that a run that is killed can be completed.

    The files by which a replaced token is known come last.
    """


def plan(texts: Texts, directories: Sequence[str], requests: Sequence[Request], stale: str = "update") -> Plan:
    """Return what the requests make of the secrets files.

    Args:
        texts: the sound files of all directories.
        directories: the user's secrets directories; caveclient's comes first, and holds the server map.
        requests: what is asked for; none may exclude another (see ``conflicts``).
        stale: what to do with other files that hold a replaced token: ``update``, ``report`` or ``ignore``.
    """
    return _Planner(texts, directories, requests, stale).plan()


class _Server:
    """The requests for one auth server."""

    def __init__(self, host: str, requests: list[tuple[int, Request]]) -> None:
        self.host = host
        self.requests = requests
        self.own = {name: reason for _index, request in requests for name, reason in request.own_names().items()}
        self.family = {name for _index, request in requests for name in request.family()}
        self.tokens = {request.key: request.token for _index, request in requests}
        self.wanted = {request.token for _index, request in requests if request.token is not None}
        self.new_values: dict[str, str | None] = {}
        """Replaced token -> what takes its place wherever else it stands; None: nothing does."""

    def tokens_at(self, name: str) -> dict[str, str | None]:
        """Return the tokens that are to be in one of the server's own files, by key."""
        return {request.key: request.token for _index, request in self.requests if name in request.own_names()}

    def numbers(self, key: str) -> list[int]:
        """Return the numbers of the requests for one key."""
        return [index for index, request in self.requests if request.key == key]


class _Planner:
    def __init__(self, texts: Texts, directories: Sequence[str], requests: Sequence[Request], stale: str) -> None:
        self.before = texts
        self.after = dict(texts)
        self.tokens = {path: _files.tokens_in(text) for path, text in texts.items()}
        self.directories = directories
        self.requests = requests
        self.stale = stale
        self.shares = [Share({}, set(), {}, set()) for _request in requests]
        by_host: dict[str, list[tuple[int, Request]]] = {}
        for index, request in enumerate(requests):
            by_host.setdefault(request.host, []).append((index, request))
        servers = [_Server(host, mine) for host, mine in by_host.items()]
        # Where nothing else decides, the server that caveclient takes when none is named comes first.
        self.servers = sorted(servers, key=lambda server: (server.host != _DEFAULT_HOST, server.host))
        self.keys = sorted({request.key for request in requests}, key=lambda key: (key != "token", key))
        self.defaults = [os.path.join(directory, _files.DEFAULT_FILE) for directory in directories]
        self.owners: dict[str, dict[str, _Server]] = {}
        """Default file -> key -> the server whose token it is to hold. No server: it is that of one not asked about."""
        self.elsewhere: list[str] = []

    def plan(self) -> Plan:
        for path in self.defaults:
            owners = {key: self._owner(path, key) for key in self.keys}
            self.owners[path] = {key: owner for key, owner in owners.items() if owner is not None}
        for server in self.servers:
            self._look_for_replaced(server)
        for path in self.defaults:
            self._settle_vacant(path)
            self._set_default(path)
        own = self._set_own_files()
        self._replace_elsewhere()
        self._add_shadowed_keys(own)
        for directory in self.directories:
            self._empty_legacy(os.path.join(directory, _files.LEGACY_FILE))
        self._map_datastacks(os.path.join(self.directories[0], _files.SERVER_MAP))
        for path, text in list(self.after.items()):
            if path in self.before and text != self.before[path] and not _json_edit.members(text):
                del self.after[path]  # what was taken out was all that there was
        if self.stale != "ignore":
            self._look_for_stale()
        return Plan(self.after, self.shares, self._order())

    # Which token is whose ---------------------------------------------------------------------------------------------

    def _owner(self, path: str, key: str) -> _Server | None:
        """Return the server whose token a default file is to hold under a key; None: it stays another server's.

        It remains with the server whose token it holds, which that server's files prove.
        """
        value = self.tokens.get(path, {}).get(key) or None
        holders = self._holders(value, key)
        candidates = [server for server in self.servers if key in server.tokens]
        requested = [server for server in candidates if value is not None and server.tokens[key] == value]
        holding = [server for server in candidates if server.family & holders]
        if holders and not requested and not holding:
            return None
        kept = [server for server in candidates if server.tokens[key] is not None]
        # The files say whose it was, also where another server is to have that token now. Of several that hold it, as
        # a local server's file is that of both, it is the one's that asks for it: so a second run finds the same.
        proven = sorted((server for server in holding if server in kept), key=lambda server: server not in requested)
        order = [*proven, *requested, *kept, *holding, *candidates]
        return order[0] if order else None

    def _holders(self, token: str | None, key: str) -> set[str]:
        """Return the canonical names of the servers' files that hold a token under a key."""
        return {
            _files.canonical(path)
            for path, values in self.tokens.items()
            if token is not None and _files.is_named_for_a_server(path) and values.get(key) == token
        }

    def _look_for_replaced(self, server: _Server) -> None:
        # A token that is only in the files of all is another server's where it is asked for there.
        wanted = {token for other in self.servers for token in other.wanted}
        for key in self.keys:
            numbers = server.numbers(key)
            old: set[str | None] = set()
            for directory, default in zip(self.directories, self.defaults) if numbers else ():
                own = [name for name in server.own if key in server.tokens_at(name)]
                old |= {self.tokens.get(os.path.join(directory, name), {}).get(key) for name in own}
                legacy = self.tokens.get(os.path.join(directory, _files.LEGACY_FILE), {}).get(key)
                # caveclient falls back on the legacy file, whosever the token for all servers is.
                shared = {legacy} if server.tokens[key] is None else set()
                if self.owners[default].get(key) is server:
                    shared.add(self.tokens.get(default, {}).get(key) or legacy)
                shared -= wanted
                holders = {token: self._holders(token, key) for token in shared}
                old |= {token for token in shared if not holders[token] or server.family & holders[token]}
            for token in old:
                if token and token not in server.wanted:
                    server.new_values.setdefault(token, server.tokens[key])
                    for index in numbers:
                        self.shares[index].replaced.add(token)

    def _settle_vacant(self, path: str) -> None:
        """Give away what a default file holds for a server that nobody asked about, where that server loses it."""
        new_values = self._new_values(self.servers)
        for key in self.keys:
            token = self.tokens[path][key] if key not in self.owners[path] else None
            if token is not None and (token in new_values or self._loses_all_holders(token, key)):
                candidates = [server for server in self.servers if key in server.tokens]
                kept = [server for server in candidates if server.tokens[key] is not None]
                self.owners[path][key] = (kept or candidates)[0]

    def _loses_all_holders(self, token: str, key: str) -> bool:
        """Return whether no server's file that holds a token under a key holds it in the end."""
        for path, values in self.tokens.items():
            name = os.path.basename(path)
            if not _files.is_named_for_a_server(path) or values.get(key) != token:
                continue
            asked = self._tokens_at(name)
            is_replaced = (asked or self.stale == "update") and token in self._new_values(self._belonging(name))
            if asked[key] == token if key in asked else not is_replaced:
                return False
        return True

    def _new_values(self, servers: Sequence[_Server]) -> dict[str, str | None]:
        """Return what takes the place of replaced tokens in a file that belongs to these servers and to no other."""
        wanted = {token for server in servers for token in server.wanted}
        merged: dict[str, str | None] = {}
        for server in servers:
            for old, new in server.new_values.items():
                if old not in wanted:
                    merged.setdefault(old, new)
        return merged

    def _belonging(self, name: str) -> list[_Server]:
        """Return the servers to which a file belongs: whose it is by its name, or all where it is for all."""
        server_file = _files.server_file(_files.before_the_name(name))
        own = [server for server in self.servers if server_file in server.own]
        family = [server for server in self.servers if _files.canonical(server_file) in server.family]
        return own or family or ([] if _files.named_for(name) else self.servers)

    # What is written --------------------------------------------------------------------------------------------------

    def _set_default(self, path: str) -> None:
        owners = self.owners[path]
        for key, owner in owners.items():
            for index in owner.numbers(key):
                self.shares[index].reasons[path] = "taken for every server without a file of its own"
        text = self.before.get(path)
        if text is None:
            if all(owner.tokens[key] is None for key, owner in owners.items()):
                return
            text = self.before.get(os.path.join(os.path.dirname(path), _files.LEGACY_FILE), "{}\n")
        self._write(path, text, self.servers, {key: owner.tokens[key] for key, owner in owners.items()})

    def _set_own_files(self) -> list[str]:
        """Set those files of the servers alone that exist; return the paths of all."""
        names = dict.fromkeys(name for server in self.servers for name in server.own)
        paths = [os.path.join(directory, name) for directory in self.directories for name in names]
        for path in paths:
            name = os.path.basename(path)
            for share, request in zip(self.shares, self.requests):
                if name in request.own_names():
                    share.reasons[path] = request.own_names()[name]
            if path in self.before:
                self._write(path, self.before[path], self._belonging(name), self._tokens_at(name))
        return paths

    def _add_shadowed_keys(self, own: list[str]) -> None:
        """Make the servers' files that are missing, and complete the others, once it is clear whose which token is."""
        after = dict(self.after)
        for path in own:
            if any(token is not None for token in self._tokens_at(os.path.basename(path)).values()):
                self._add_shadowed(path, after)

    def _tokens_at(self, name: str) -> dict[str, str | None]:
        return {key: token for server in self.servers for key, token in server.tokens_at(name).items()}

    def _add_shadowed(self, path: str, texts: Texts) -> None:
        """Let a server's file hold the further keys of the default file, which is not taken for the server any more."""
        name = os.path.basename(path)
        servers, tokens = self._belonging(name), self._tokens_at(name)
        default = os.path.join(os.path.dirname(path), _files.DEFAULT_FILE)
        shadowed = texts.get(default, "{}\n")
        others = {key for key, owner in self.owners[default].items() if owner not in servers}
        # In a file of a server's family, a key that is asked for holds what was asked for, or nothing of another's.
        others.update(tokens, *(server.tokens for server in self.servers if _files.canonical(name) in server.family))
        if path not in texts:
            kept = {key: token for server in servers for key, token in server.tokens.items() if token is not None}
            for key in others:
                shadowed = _json_edit.remove_member(shadowed, key)
            self._write(path, shadowed, servers, {**kept, **tokens})
            return
        hidden = _files.hidden_keys(texts, path, {name for server in servers for name in server.family})
        missing = hidden.keys() - others - _files.values(texts[path]).keys()
        if missing:
            self.after[path] = _json_edit.add_members(self.after[path], shadowed, missing)
            for share in self.shares:
                if path in share.reasons:
                    share.reasons[path] += f"; lacked {_quoted(missing)} of {_files.DEFAULT_FILE}"
                    share.changed.add(path)

    def _write(self, path: str, text: str, servers: Sequence[_Server], tokens: Mapping[str, str | None]) -> None:
        """Give a file its content.

        Args:
            path: of the file.
            text: its content so far, or that with which it begins.
            servers: to which it belongs.
            tokens: key -> what it is to hold there; None: nothing.
        """
        new_values = self._new_values(servers)
        result = text
        if new_values:
            held = _files.tokens_in(text)
            requested = {key: token for server in servers for key, token in server.tokens.items()}
            also = {key: new_values[held[key]] for key in requested.keys() - tokens if held.get(key) in new_values}
            if _files.before_the_name(os.path.basename(path)):
                # Under a key that is asked for, all files of a server hold what was asked for.
                also = {key: requested[key] for key in also}
            result = _json_edit.replace_values(text, new_values, {**tokens, **also})
            for key in also:
                result = _set(result, key, also[key])
            if result != text:
                self._note_copies(path, text, servers, tokens)
        for key, token in tokens.items():
            changed = _set(result, key, token)
            if changed != result:
                for server in servers:
                    for index in server.numbers(key):
                        if path in self.shares[index].reasons:
                            self.shares[index].changed.add(path)
                result = changed
        self.after[path] = result
        for share, request in zip(self.shares, self.requests) if path not in self.before else ():
            if path in share.reasons and request.token is not None:
                share.changed.add(path)

    def _note_copies(self, path: str, text: str, servers: Iterable[_Server], besides: Collection[str] = ()) -> None:
        """Note a file for the requests whose replaced tokens it held, under other keys than those asked for."""
        held = [(member.key, member.value) for member in _json_edit.members(text) if isinstance(member.value, str)]
        for server in servers:
            for index, request in server.requests:
                share = self.shares[index]
                keys = {key for key, token in held if token in share.replaced and key not in besides}
                if not keys:
                    continue
                verb = "removed" if request.token is None else "replaced"
                reason = f"held the token that was {verb} under {_quoted(keys)}"
                share.reasons[path] = f"{share.reasons[path]}; {reason}" if path in share.reasons else reason
                share.changed.add(path)

    def _replace_elsewhere(self) -> None:
        """Replace tokens by value in the other files of these servers, and in those of all."""
        done = {*self.defaults, *(path for share in self.shares for path in share.reasons)}
        for path, text in self.before.items():
            name = os.path.basename(path)
            if self.stale != "update" or path in done or name == _files.SERVER_MAP or not name.endswith(".json"):
                continue
            self._write(path, text, self._belonging(name), {})
            if self.after[path] != text:
                self.elsewhere.append(path)

    def _empty_legacy(self, path: str) -> None:
        """Take what is to be absent out of the legacy file, where caveclient looks when no other file has a token."""
        for key in self.keys if path in self.after else ():
            token = _files.tokens_in(self.after[path]).get(key)
            absent = [server for server in self.servers if server.tokens.get(key, "") is None]
            family = {name for server in absent for name in server.family}
            if token is None or not absent or self._is_held(token, key, family):
                continue
            self.after[path] = _json_edit.remove_member(self.after[path], key)
            self.elsewhere.append(path)
            for index in absent[0].numbers(key):
                share = self.shares[index]
                share.reasons.setdefault(path, "taken by caveclient where no other file has a token")
                share.changed.add(path)
                share.replaced.update({token} - {""})

    def _is_held(self, token: str, key: str, besides: Collection[str]) -> bool:
        """Return whether a server's file, besides some by name, holds a token under a key in the end."""
        return any(
            _files.is_named_for_a_server(path)
            and _files.canonical(path) not in besides
            and _files.tokens_in(text).get(key) == token
            for path, text in self.after.items()
        )

    def _map_datastacks(self, path: str) -> None:
        """Let the server map send each datastack to its server, or forget it when nothing is left for the server."""
        for share, request in zip(self.shares, self.requests):
            server_file = os.path.join(os.path.dirname(path), _files.server_file(request.host))
            is_known = bool(_json_edit.members(self.after.get(server_file, "{}")))
            for stack in request.datastacks:
                text = self.after.get(path)
                if request.token is not None:
                    changed = _json_edit.set_member(text or "{}\n", stack.name, request.server)
                elif text is None:
                    continue
                elif _files.tokens_in(text).get(stack.name) == request.server and not is_known:
                    changed = _json_edit.remove_member(text, stack.name)
                else:
                    changed = text
                share.reasons[path] = "tells caveclient the server of a datastack"
                if changed != text:
                    share.changed.add(path)
                    self.after[path] = changed

    # What is told -----------------------------------------------------------------------------------------------------

    def _look_for_stale(self) -> None:
        """Note the files that hold a replaced token in the end, because they are another server's, or not to change."""
        wanted = {token for server in self.servers for token in server.wanted}
        for path, text in self.after.items():
            for server in self.servers:
                for index, _request in server.requests:
                    share = self.shares[index]
                    if path in share.changed or not any(f'"{token}"' in text for token in share.replaced - wanted):
                        continue
                    name = os.path.basename(path)
                    is_other = server not in self._belonging(name)
                    owner = f", which is a file of {_files.named_for(name)}" if is_other else ""
                    share.stale[path] = f"holds the token that was {'replaced'}{owner}"

    def _order(self) -> list[str]:
        """Return the paths in the order in which they are to be written.

        What holds copies comes first: once the servers' own files are written, nothing tells which token was replaced.
        """
        names = dict.fromkeys(name for server in self.servers for name in server.own)
        own = [os.path.join(directory, name) for directory in self.directories for name in names]
        server_map = os.path.join(self.directories[0], _files.SERVER_MAP)
        order = dict.fromkeys([*self.elsewhere, *self.defaults, *own, server_map])
        return [path for path in order if path in self.before or path in self.after]


def _set(text: str, key: str, token: str | None) -> str:
    return _json_edit.remove_member(text, key) if token is None else _json_edit.set_member(text, key, token)


def _quoted(keys: Collection[str]) -> str:
    return ", ".join(json.dumps(key) for key in sorted(keys))
