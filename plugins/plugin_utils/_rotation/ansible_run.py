# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a step of a rotation takes from Ansible: the variables of all hosts, results of tasks, files of the vault."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from ansible import context
from ansible.errors import AnsibleError
from ansible.template import Templar

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    plain_string,
    set_by_play,
    vault_secrets,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import (
    Held,
    Host,
    Lazily,
    contradictions,
    read_host,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.kept import KeptTokens
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import replaced_in_this_run
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import Place, holding_another
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import VariablePath

_OTHER = "other" * 8
"""Stands for another token when it is tried what follows a variable."""


class AnsibleRun:
    """A run of Ansible, as one of its tasks sees it.

    Attributes:
        hosts: of the play, in order.
        variables: of the task.

    Args:
        variables: see above.
        loader: what Ansible hands to a plugin.
        play: the one of the task.
    """

    def __init__(self, variables: Mapping[str, Any], loader: Any, play: Any = None) -> None:
        self.variables = variables
        self.hosts: list[str] = list(variables["ansible_play_hosts_all"])
        self._hostvars = variables["hostvars"]
        self._loader = loader
        self._known: dict[str, Mapping[str, Any]] = {}
        self._of_play = set_by_play(variables, play.get_vars() if play else ())

    def _raw(self, host: str) -> Mapping[str, Any]:
        """Return the variables of a host as they are. Ansible puts them together anew whenever it is asked."""
        if host not in self._known:
            self._known[host] = {**self._hostvars.raw_get(host), **self._of_play}
        return self._known[host]

    def registered(self, name: str | None, hosts: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what hosts' tasks registered under a name. Not templated: a result is data."""
        found = {host: self._raw(host).get(name) for host in hosts if name and host in self._hostvars}
        return {host: result for host, result in found.items() if isinstance(result, Mapping) and result}

    def _entries(self, host: str) -> list[Any]:
        """Return the entries of a host, each of whose values is filled in by itself. Raises AnsibleError."""
        entries, fill_in = self._raw(host)["caveclient_tokens"], self._templar(host).template
        if not isinstance(entries, (list, tuple)):
            return cast("list[Any]", fill_in(entries))
        return [Lazily(entry, fill_in) if isinstance(entry, Mapping) else entry for entry in entries]

    def _templar(self, host: str) -> Templar:
        return Templar(loader=self._loader, variables={**self._raw(host), "hostvars": self._hostvars})

    def keeps_its_token(self, item: Held, variables: Iterable[VariablePath], stored: Iterable[Place]) -> bool:
        """Return whether an entry gives its token whatever is in these variables, and in the places of stores.

        What comes from another host's variables cannot be told from that, and counts as one that follows.
        """
        raw = self._raw(item.entry.host)
        changed: dict[str, Any] = {}
        for name, *keys in variables:
            value = changed.get(name, raw.get(name))
            if not keys and value is not None and not _is_template(value):
                changed[name] = _OTHER
            elif keys and isinstance(value, Mapping) and keys[0] in value and not _is_template(value[keys[0]]):
                changed[name] = {**value, keys[0]: _OTHER}
        templar = Templar(loader=self._loader, variables={**raw, **changed, "hostvars": {}})
        try:
            with holding_another(stored, _OTHER):
                entries = templar.template(raw["caveclient_tokens"])
                return clean_token(plain_string(entries[item.entry.number]["token"], "The token")) == item.token
        except (AnsibleError, CaveError, LookupError, TypeError):
            return False

    def vault(
        self,
        hosts: Iterable[str],
        named: list[str],
        vault_id: str | None,
        stored: Iterable[tuple[Place, str]],
        check: bool,
    ) -> KeptTokens:
        """Return the files with variables beside the inventory of ``hosts`` and the playbook; see ``KeptTokens``."""
        hosts = list(hosts)
        folders: dict[str, None] = {}
        sources: dict[str, None] = {}
        for name in hosts:
            raw = self._raw(name)
            folders.update({raw["inventory_dir"]: None} if raw.get("inventory_dir") else {})
            sources.update({raw["inventory_file"]: None} if raw.get("inventory_file") else {})
        for source in map(Path, map(str, self.variables.get("ansible_inventory_sources") or ())):
            folders[str(source if source.is_dir() else source.parent)] = None
            sources.update(dict.fromkeys(inventory_files(source)))
        folders[self._loader.get_basedir()] = None
        given = [str(text) for text in context.CLIARGS.get("extra_vars", ())]
        sources.update((self._loader.path_dwim(text[1:]), None) for text in given if text.startswith("@"))
        return KeptTokens(
            stored,
            check,
            folders,
            sources,
            named,
            vault_secrets(self._loader),
            vault_id,
            [*hosts, *self.variables["groups"]],
            [text for text in given if not text.startswith("@")],
        )

    def read_hosts(self) -> dict[str, Host]:
        """Return what the variables of all hosts that Ansible knows say."""
        names = [*self.variables["groups"]["all"], *self.hosts]
        replaced = replaced_in_this_run()
        return {name: _renewed(self.read_host(name), replaced) for name in dict.fromkeys(names)}

    def read_host(self, name: str) -> Host:
        """Return what the variables of a host say now."""
        self._known.pop(name, None)
        # What the play sets (vars of import_playbook), Ansible's hostvars do not have.
        own = Lazily(self._raw(name), self._templar(name).template) if self._of_play else self._hostvars[name]
        return read_host(name, own, partial(self._entries, name))

    def file(self, option: str, path: str) -> str:
        """Return where a file is that an option names: by the inventory or the playbook, or in this folder."""
        folders = [
            self.variables.get("inventory_dir"),
            self.variables.get("playbook_dir"),
            self._loader.get_basedir(),
            Path.cwd(),
        ]
        found = [Path(str(folder)) / path for folder in folders if folder]
        real = next((item for item in found if item.is_file()), None)
        if real is None:
            where = ", ".join(dict.fromkeys(str(item.parent) for item in found))
            raise CaveError(f"{option} names {path}, which is no file in {where}. Correct the path.")
        return str(real.resolve())

    def tasks(self, option: str, path: str | None) -> str:
        """Return where a file of tasks is that an option names; empty where it names none."""
        if path is None:
            return ""
        real = self.file(option, path)
        try:
            found = self._loader.load_from_file(real)
        except AnsibleError as error:
            raise CaveError(f"{option} names {real}, which cannot be read: {error.message}") from None
        if not isinstance(found, list) or not found:
            raise CaveError(f"{option} names {real}, which is no list of tasks. Correct it.")
        if any(not isinstance(task, Mapping) or "hosts" in task for task in found):
            raise CaveError(f"{option} names {real}, which has something else than tasks in its list. Correct it.")
        return real


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def inventory_files(source: Path) -> list[str]:
    """Return the files of an inventory, without those of variables, which lie beside it."""
    if not source.is_dir():
        return [str(source)]
    found = []
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in ("group_vars", "host_vars") and not name.startswith(".")]
        found += [str(Path(folder, name)) for name in files]
    return sorted(found)


def _renewed(host: Host, replaced: Mapping[str, str]) -> Host:
    """Return a host's entries with the tokens that this run has replaced already."""
    if not replaced:
        return host
    held = []
    for item in host.held:
        token = item.token
        while token in replaced:
            token = replaced[token]
        held.append(item._replace(token=token, entry=item.entry._replace(token=fingerprint(token))))
    return host._replace(held=tuple(held), refused=contradictions(held))
