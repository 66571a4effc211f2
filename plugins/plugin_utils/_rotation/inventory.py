# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds which token by the variables, on every host that Ansible knows, and where the vault keeps them.

The variables are templated once a run; what the hosts' tasks need of them is in a ``Host``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    Datastack,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import requests as _requests
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import given, is_omitted, plain_string
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import (
    Profile,
    chosen,
    with_datastacks,
    with_keys,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Entry, Inventory
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import told_by_store
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import file as _file
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import VariablePath, label

SETTINGS = (
    *("secrets_dir", "cloud_volume_dir", "mode", "group", "stale", "on_malformed"),
    *("ca_path", "timeout", "retries", "rate", "path", "interpreter", "verify"),
)
"""The variables of a host (``caveclient_`` in front) that its tasks take."""
DEFAULT_DATASTACKS = ("minnie65_public",)

_UNREADABLE = "it cannot be read ({}): a variable is not defined, or the vault's password is missing or wrong."


def _unreadable(error: AnsibleError) -> str:
    """Return why a template gave nothing. Ansible's own message may quote a template or a value."""
    return told_by_store(error) or _UNREADABLE.format(type(error).__name__)


class Held(NamedTuple):
    """An entry of ``caveclient_tokens`` as a host's variables have it: what is its own, and the token."""

    entry: Entry
    own: dict[str, Any]
    datastacks: tuple[str, ...]
    token: str

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"<{self.entry.user} on {self.entry.host}: {self.entry.token}>"


class Host(NamedTuple):
    """A host's variables.

    Attributes:
        problems: of which users (None: of all) entries cannot be read, and why.
        refused: entries that could not be saved, and why.
    """

    name: str
    server: str = DEFAULT_SERVER
    datastacks: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = {}
    profile: Profile | None = None
    held: tuple[Held, ...] = ()
    problems: tuple[tuple[str | None, str], ...] = ()
    refused: Mapping[Entry, str] = {}

    @property
    def users(self) -> list[str]:
        """The accounts that have an entry, or one that cannot be read."""
        names = [item.entry.user for item in self.held] + [user for user, _message in self.problems if user]
        return list(dict.fromkeys(names))


def read_host(name: str, variables: Mapping[str, Any], entry_by_entry: Callable[[], Sequence[Any]]) -> Host:
    """Return what the variables of a host say. What is wrong with them is in its problems; no token is ever shown.

    ``entry_by_entry`` returns the entries of ``caveclient_tokens`` each filled in for itself, and is called when they
    cannot be filled in together.
    """

    def value_of(option: str) -> Any:
        return _plain(given(partial(variables.get, f"caveclient_{option}")))

    try:
        settings = {option: value_of(option) for option in SETTINGS}
        settings = {option: value for option, value in settings.items() if value is not None}
        server = server_address(value_of("server") or DEFAULT_SERVER)
        stacks = value_of("datastacks")
        profiles = value_of("profiles")
        profile = chosen(profiles) if profiles else None
        stacks = DEFAULT_DATASTACKS if stacks is None else stacks
        stacks = tuple(with_datastacks(stacks, profile) if profile else stacks)
        try:
            entries = given(partial(variables.get, "caveclient_tokens"))
        except AnsibleError:
            entries = entry_by_entry()
        if isinstance(entries, (str, Mapping)):
            raise CaveError("caveclient_tokens is not a list of mappings with user and token.")
    except AnsibleError as error:
        return Host(name, problems=((None, f"its variables: {_unreadable(error)}"),))
    except (CaveError, TypeError) as error:
        message = error.message if isinstance(error, CaveError) else "its variables have a list where none can be."
        return Host(name, problems=((None, message),))
    host = Host(name, server, stacks, settings, profile)
    held: list[Held] = []
    problems: list[tuple[str | None, str]] = []
    entries = entries or ()
    for number in range(len(entries)):
        found = _read_entry(host, number, entries)
        if isinstance(found, list):
            held += found
        else:
            problems.append(found)
    return host._replace(held=tuple(held), problems=tuple(problems), refused=contradictions(held))


def _read_entry(host: Host, number: int, entries: Sequence[Any]) -> list[Held] | tuple[str | None, str]:
    """Return an entry, once for each of its keys; or whose it is, and what is wrong with it."""
    user = None
    try:
        item = entries[number]
        if not isinstance(item, Mapping):
            raise CaveError("it is not a mapping with user and token.")
        user = str(_plain(given(partial(item.get, "user"))) or "") or None
        own = {str(key): _plain(given(partial(item.get, key))) for key in item if key != "token"}
        own = {key: value for key, value in own.items() if value is not None}
        if user is None:
            raise CaveError("it names no user.")
        server = server_address(own.get("server") or host.server)
        stacks = own.get("datastacks")
        stacks = (host.datastacks if server == host.server else ()) if stacks is None else stacks
        names = tuple(stack.name for stack in parse_datastacks(stacks, server))
        absent = own.get("state") == "absent"
        value = given(partial(item.get, "token"))
        if absent and value is None:
            return []
        each = _requests.by_key([with_keys(own, host.profile, host.server) if host.profile else own])
        token = clean_token(None if value is None else plain_string(value, "The token"))
    except AnsibleError as error:
        return user, f"entry {number + 1} of caveclient_tokens: {_unreadable(error)}"
    except (CaveError, TypeError) as error:
        message = error.message if isinstance(error, CaveError) else "it has a list where none can be."
        return user, f"entry {number + 1} of caveclient_tokens: {message[0].lower()}{message[1:]}"
    return [
        Held(
            Entry(host.name, number, user, server, str(one.get("key") or "token"), fingerprint(token), absent),
            *(one, names, token),
        )
        for one in each
    ]


def contradictions(held: Sequence[Held]) -> dict[Entry, str]:
    """Return the entries that saved_token would refuse, as each other one says something else."""
    found = {}
    for user in dict.fromkeys(item.entry.user for item in held):
        mine = [item for item in held if item.entry.user == user]
        asked = [
            _requests.Request(
                item.entry.server,
                [Datastack(name, "") for name in item.datastacks],
                item.entry.key,
                None if item.entry.absent else item.token,
            )
            for item in mine
        ]
        for first, second, what in _requests.conflicts(asked):
            numbers = " and ".join(str(mine[index].entry.number + 1) for index in (first, second))
            message = (
                f"Entries {numbers} of its caveclient_tokens contradict each other about {what}. Keep one of them."
            )
            found.update(dict.fromkeys((mine[first].entry, mine[second].entry), message))
    return found


def _plain(value: Any) -> Any:
    """Return a value without what Ansible adds; None where a template left it out (before ansible-core 2.19)."""
    if isinstance(value, str):
        return None if is_omitted(value) else "".join(value)
    if isinstance(value, Mapping):
        found = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Lazily(Mapping[str, Any]):
    """A mapping whose values are filled in when they are asked for."""

    def __init__(self, raw: Mapping[str, Any], fill_in: Callable[[Any], Any]) -> None:
        self._raw = raw
        self._fill_in = fill_in

    def __getitem__(self, key: str) -> Any:
        """Return a value. Raises AnsibleError."""
        return self._fill_in(self._raw[key])

    def __iter__(self) -> Iterator[str]:
        """Return the keys."""
        return iter(self._raw)

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._raw)


def inventory_of(hosts: Iterable[Host], refused: Mapping[Entry, str] | None = None) -> Inventory:
    """Return what a decision has to know of the variables, without the vault."""
    hosts = list(hosts)
    unknown = {
        host.name: None if any(user is None for user, _message in host.problems) else
        frozenset(user for user, _message in host.problems if user)
        for host in hosts if host.problems
    }  # fmt: skip
    return Inventory(
        hosts=tuple(host.name for host in hosts),
        entries=tuple(item.entry for host in hosts for item in host.held),
        unknown=unknown,
        problems={host.name: " ".join(message for _user, message in host.problems) for host in hosts if host.problems},
        refused={**{entry: why for host in hosts for entry, why in host.refused.items()}, **(refused or {})},
    )


# The vault ------------------------------------------------------------------------------------------------------------


class VaultFiles:
    """The files with variables of a run, each decrypted once.

    Args:
        folders: of the inventories, and of the playbook, in which ``group_vars`` and ``host_vars`` are looked for.
        sources: the inventories themselves and the files of extra variables, which cannot be changed here, and may hold
            a token.
        given: extra variables as they stand in the command.
        named: the files that the user named; empty: all of them may be written.
        secrets: what the run was started with.
        vault_id: whose secret encrypts what is plain.
        names: of hosts and groups, after which files are named.
    """

    def __init__(
        self,
        folders: Iterable[str],
        sources: Iterable[str],
        named: Sequence[str],
        secrets: _file.VaultSecrets,
        vault_id: str | None = None,
        names: Iterable[str] = (),
        given: Iterable[str] = (),
    ) -> None:
        self.named = [os.path.realpath(path) for path in named]
        self._files = list(dict.fromkeys([*self.named, *map(os.path.realpath, variable_files(folders, names))]))
        self._sources = [path for path in dict.fromkeys(map(os.path.realpath, sources)) if Path(path).is_file()]
        self._secrets = secrets
        self._vault_id = vault_id
        self._given = list(given)
        self._read: dict[str, _file.Values] = {}
        self._left: dict[str, _file.Values] = {}  # as first read, or as this run has written it
        self._texts: dict[str, list[str]] = {}

    def places(self, token: str) -> list[tuple[str, VariablePath]]:
        """Return the files and variables that hold a token. Raises CaveError for a file that the user named."""
        return [
            (path, variable)
            for path in self._files
            for variable, value in self._values(path).variables.items()
            if value.strip() == token
        ]

    def writable(self, token: str) -> list[tuple[str, VariablePath]]:
        """Return those of the places that may be written."""
        return [place for place in self.places(token) if not self.named or place[0] in self.named]

    def fixed(self, token: str) -> list[str]:
        """Return the places that hold a token, and cannot be changed, each with the reason."""
        found = []
        for path, variable in self.places(token):
            if self.named and path not in self.named:
                found.append(
                    f"{label(variable)} in {path} holds {fingerprint(token)} too. Name that file as well in "
                    "caveclient_rotate_vault_file."
                )
                continue
            try:
                self._set(path, variable, "0" * 32, check=True)
            except CaveError as error:
                found.append(error.message)
        found += [
            f"{path} holds {fingerprint(token)} {where}, where it is not changed. Give the token a variable of its own "
            "there, and use that variable."
            for path in self._files
            for where in [self._out_of_reach(path, token)]
            if where
        ]
        found += [
            f"{path} holds {fingerprint(token)}, and inventories and files of extra variables are not changed here. "
            "Move the token into a file in group_vars or host_vars."
            for path in self._sources
            if path not in self._files and any(token in text for text in self._texts_of(path))
        ]
        if any(token in text for text in self._given):
            found.append(
                f"The command itself (-e) gives {fingerprint(token)}, and that wins over all files. Leave it out there."
            )
        return found

    def _out_of_reach(self, path: str, token: str) -> str:
        """Return how a file holds a token that is not the value of a variable; an empty string where it does not."""
        values = self._values(path)
        if any(token in value for value in values.others):
            return "in a list, deep in a mapping, under an anchor or in a variable that is set twice"
        longer = next((name for name, text in values.variables.items() if token in text and token != text.strip()), ())
        return f"in a longer text, {label(longer)}" if longer else ""

    def _texts_of(self, path: str) -> list[str]:
        if path not in self._texts:
            self._texts[path] = _file.texts(path, self._secrets)
        return self._texts[path]

    def still_holds(self, tokens: Iterable[str]) -> bool:
        """Return whether a place that may be written holds one of the tokens now, and nobody else has changed a file.

        Where another run is storing a token, what the variables said before is not who holds it.
        """
        self._read.clear()
        unchanged = all(self._values(path) == values for path, values in list(self._left.items()))
        return unchanged and any(self.writable(token) for token in tokens)

    def store(self, old: Iterable[str], new: str) -> list[dict[str, str]]:
        """Put ``new`` into all places of the tokens ``old``, read it back from there, and return these places.

        Raises:
            CaveError: it is not in one of them then.
        """
        self._read.clear()  # another run may have stored something since
        places = [place for token in old for place in self.writable(token)]
        for path, variable in places:
            self._set(path, variable, new)
            self._read.pop(path, None)
            self._left.pop(path, None)
            if _file.read_variable(path, variable, self._secrets) != new:
                raise CaveError(f"{path}: {label(variable)} does not hold what was stored in it.")
        return [{"path": path, "name": label(variable)} for path, variable in places or self.places(new)]

    def _set(self, path: str, variable: VariablePath, value: str, check: bool = False) -> None:
        _file.set_variable(path, variable, value, self._secrets, vault_id=self._vault_id, check=check)

    def _values(self, path: str) -> _file.Values:
        if path not in self._read:
            try:
                self._read[path] = _file.read_values(path, self._secrets)
            except CaveError:
                if path in self.named:
                    raise
                self._read[path] = _file.Values({}, [])
            self._left.setdefault(path, self._read[path])
        return self._read[path]


def variable_files(folders: Iterable[str], names: Iterable[str] = ()) -> list[str]:
    """Return the files of variables beside inventories and playbooks, links to folders followed as Ansible does.

    ``names`` are those of hosts and groups: a file of such a name counts, whatever its suffix looks like
    (``host_vars/ws1.lab.example.org``).
    """
    known = frozenset(names)
    return [path for folder in dict.fromkeys(folders) for kind in ("group_vars", "host_vars")
            for path in _files_below(Path(folder) / kind, known)]  # fmt: skip


def _files_below(folder: Path, names: frozenset[str]) -> Iterator[str]:
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        for path in sorted(Path(root, name) for name in files):
            fits = path.suffix in ("", ".yml", ".yaml", ".json") or (path.name in names and Path(root) == folder)
            if fits and not path.name.startswith(".") and not path.name.endswith("~") and path.is_file():
                yield str(path)
