# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rotation; the documentation is in the module of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from ansible.template import Templar
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import vault_secrets
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import hosts as _hosts
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import (
    Host,
    Lazily,
    VaultFiles,
    inventory_of,
    read_host,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    REVOKE,
    STRATEGIES,
    Request,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.revoke import revoke_taken_off
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import (
    NotSealedError,
    replaced_in_this_run,
    seal,
    seal_state,
    unseal_state,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import Settings, State

display = Display()

ARGUMENT_SPEC: dict[str, Any] = {
    "step": {
        "type": "str",
        "required": True,
        "choices": ["prove", "begin", "canary", "roll_out", "wait", "finish", "revoke"],
    },
    "state": {"type": "str", "no_log": True},
    "results": {"type": "dict", "default": {}},
    "stored": {"type": "list", "elements": "str", "default": []},
    "strategy": {"type": "str", "choices": list(STRATEGIES), "default": "cutover"},
    "name": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "str", "default": []},
    "canary": {"type": "list", "elements": "str", "default": []},
    "give_up": {"type": "list", "elements": "str", "default": []},
    "anyway": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "old": {"type": "list", "elements": "str", "default": []},
    "vault_file": {"type": "list", "elements": "path", "default": []},
    "vault_id": {"type": "str"},
    "store_tasks": {"type": "path"},
    "other_person": {"type": "bool", "default": False},
    "revoke": {"type": "str", "choices": list(REVOKE), "default": "when_unused"},
    "grace": {"type": "float", "default": 310.0},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "retries": {"type": "int", "default": 2},
}


class ActionModule(CaveAction):
    """Does one step, once for the whole play."""

    spec = ARGUMENT_SPEC
    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        step = _Step(options, task_vars or {}, self._loader, bool(self._task.check_mode))
        try:
            found = getattr(step, options["step"])()
        except NotSealedError:
            return {**result, "failed": True, "msg": "The state is not one that a step of this run returned."}
        except CaveError as error:
            return {**result, "failed": True, "msg": error.message, **error.details}
        # At -v, Ansible would print some hundred kilobytes of it.
        return {**result, "changed": False, "_ansible_verbose_override": True, **found}


class _Step:
    """The steps, with what they need of Ansible."""

    def __init__(self, options: dict[str, Any], variables: Mapping[str, Any], loader: Any, check: bool) -> None:
        self.options = options
        self.variables = variables
        self.loader = loader
        self.check = check
        self.hostvars = variables["hostvars"]
        if options["step"] not in ("prove", "revoke"):
            self.state: State = unseal_state(str(options["state"]))

    def registered(self, what: str, hosts: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what hosts' tasks registered under the name given for it. Not templated: a result is data."""
        name = self.options["results"].get(what)
        found = {host: self.hostvars.raw_get(host).get(name) for host in hosts if name and host in self.hostvars}
        return {host: result for host, result in found.items() if isinstance(result, Mapping) and result}

    def _entries(self, host: str) -> list[Any]:
        """Return the entries of a host, each of whose values is filled in by itself. Raises AnsibleError."""
        raw = self.hostvars.raw_get(host)
        templar = Templar(loader=self.loader, variables={**raw, "hostvars": self.hostvars})
        entries = raw["caveclient_tokens"]
        if not isinstance(entries, (list, tuple)):
            return cast("list[Any]", templar.template(entries))
        return [Lazily(entry, templar.template) if isinstance(entry, Mapping) else entry for entry in entries]

    def vault(self) -> VaultFiles:
        """Return the files with variables beside the inventory and the playbook."""
        folders: dict[str, None] = {}
        sources: dict[str, None] = {}
        for name in self.state.hosts:
            raw = self.hostvars.raw_get(name)
            folders.update({raw["inventory_dir"]: None} if raw.get("inventory_dir") else {})
            sources.update({raw["inventory_file"]: None} if raw.get("inventory_file") else {})
        for source in map(Path, map(str, self.variables.get("ansible_inventory_sources") or ())):
            folders[str(source if source.is_dir() else source.parent)] = None
        folders[self.loader.get_basedir()] = None
        return VaultFiles(
            folders,
            sources,
            self.options["vault_file"],
            vault_secrets(self.loader),
            self.options["vault_id"] or None,
            [*self.state.hosts, *self.variables["groups"]],
        )

    def _read_hosts(self) -> dict[str, Host]:
        """Return what the variables of all hosts that Ansible knows say."""
        names = [*self.variables["groups"]["all"], *self.variables["ansible_play_hosts_all"]]
        replaced = replaced_in_this_run()
        return {
            name: _renewed(read_host(name, self.hostvars[name], partial(self._entries, name)), replaced)
            for name in dict.fromkeys(names)
        }

    def _settings(self) -> Settings:
        options = self.options
        return Settings(
            options["timeout"], options["retries"], options["ca_path"] or None, options["grace"], self.check
        )

    # Before any host is contacted

    def prove(self) -> dict[str, Any]:
        """Gather who holds what, and ask the servers about the tokens."""
        run = list(self.variables["ansible_play_hosts_all"])
        hosts = self._read_hosts()
        options = self.options
        request = Request(
            hosts=tuple(run),
            strategy=options["strategy"],
            name=options["name"],
            users=frozenset(options["users"]),
            canary=tuple(options["canary"]),
            give_up=frozenset(options["give_up"]),
            anyway=options["anyway"],
            revoke=options["revoke"],
            old=frozenset(options["old"]),
            own_store=options["store_tasks"] is not None,
            other_person=options["other_person"],
        )
        store_tasks = _store_tasks(options["store_tasks"], self.loader, self.variables)
        self.state = State(hosts, request, self._settings())
        inventory = inventory_of(hosts.values())
        _decide.refuse_impossible(inventory, request)
        if options["vault_file"] and request.strategy == "overlap":
            for path in options["vault_file"]:
                if not Path(path).is_file():
                    raise CaveError(f"caveclient_rotate_vault_file names {path}, which is no file. Nothing was done.")
        _steps.ask_servers(self.state)
        rotations = _decide.decide(inventory, {}, self.state.accounts, request)
        meant = [item for item in rotations if item.action != "leave"]
        if not meant and not any(host.problems for host in hosts.values()):
            whom = f"for {', '.join(sorted(request.users))} " if request.users else ""
            raise CaveError(f"No host has a token {whom}in caveclient_tokens, so there is nothing to rotate.")
        dead = [item for item in meant if not self.state.accounts[item.source].accepted]
        work = {
            name: self._inspection(host, [item for item in meant if item not in dead]) for name, host in hosts.items()
        }
        return {
            "state": seal_state(self.state),
            "hosts": {name: what for name, what in work.items() if what},
            "store_tasks": store_tasks,
        }

    def _inspection(self, host: Host, rotations: list[Rotation]) -> dict[str, Any] | None:
        """Return what saved_token_info is to look at on a host; None when there is no need to look at it."""
        overlap = self.state.request.strategy == "overlap" or self.state.request.old
        entries = {entry for item in rotations for entry in item.entries}
        mine = [item for item in host.held if item.entry in entries]
        if not mine and not (overlap and rotations and host.name in self.state.request.hosts):
            return None
        expected = [
            {key: value for key, value in item.own.items() if key in ("user", "server", "datastacks", "key")}
            for item in mine
        ]
        found = {"expected": expected, "server": host.server, "datastacks": list(host.datastacks), **host.settings}
        # Before a token dies, every account of a host is looked at: it may lie with somebody else.
        return found if overlap else {**found, "users": list(dict.fromkeys(item.entry.user for item in mine))}

    # Make and store

    def begin(self) -> dict[str, Any]:
        """Decide, make the new tokens, and store them."""
        state = self.state
        results = self.registered("inspected", state.request.hosts)
        state.seen = {host: _hosts.seen_of(result) for host, result in results.items()}
        inventory = inventory_of(state.hosts.values(), state.refused)
        changed = _steps.begin(state, inventory, self.vault())
        first = [host for rotation in state.rotations for host in rotation.canaries]
        order = sorted(dict.fromkeys(first), key=first.count, reverse=True)
        return {
            "changed": changed,
            "state": seal_state(state),
            "rotations": [_shown(state, rotation) for rotation in state.rotations],
            "unstored": [_shown(state, item) for item in state.rotations if item.tokens in state.unstored],
            "ansible_facts": {"cave_rotation": {"canaries": order}},
        }

    # The hosts

    def _canaries(self) -> dict[str, Mapping[str, Any] | None]:
        hosts = {host for rotation in self.state.rotations for host in rotation.canaries}
        saved, verified = self.registered("canary", hosts), self.registered("verified", hosts)
        return {host: _hosts.merged([saved.get(host), verified.get(host)]) for host in hosts}

    def _saved(self) -> dict[str, Mapping[str, Any] | None]:
        canaries = self._canaries()
        saved = self.registered("saved", self.state.request.hosts)
        return {host: _hosts.merged([canaries.get(host), saved.get(host)]) for host in self.state.request.hosts}

    def canary(self) -> dict[str, Any]:
        """Return what the hosts of this batch get, of the tokens that no canary has yet."""
        _steps.note_stored(self.state, self.options["stored"], self._read_back)
        hosts = self.variables["ansible_play_hosts_all"]
        todo = self._todo(hosts, self._canaries(), first=True)
        batch = self.variables["ansible_play_batch"]
        return {"hosts": {host: what for host, what in todo.items() if host in batch}, "proven": not todo}

    def roll_out(self) -> dict[str, Any]:
        """Return what each host gets."""
        _steps.note_stored(self.state, self.options["stored"], self._read_back)
        hosts = self._todo(self.state.request.hosts, self._canaries())
        return {"hosts": hosts, "state": seal_state(self.state)}

    def _read_back(self, rotation: Rotation) -> set[str]:
        """Return which tokens the variables give now to the entries of a rotation, on the first host that has it."""
        name = rotation.hosts[0]
        host = read_host(name, self.hostvars[name], partial(self._entries, name))
        mine = {entry.number for entry in rotation.entries if entry.host == name}
        unreadable = {message for user, message in host.problems if user is None or user in rotation.users}
        return unreadable | {item.entry.token for item in host.held if item.entry.number in mine}

    def _todo(
        self, hosts: Iterable[str], results: Mapping[str, Mapping[str, Any] | None], first: bool = False
    ) -> dict[str, Any]:
        state = self.state
        stopped = _hosts.stopped(state, results)
        done = {item.tokens for item in state.rotations if _hosts.passed(state, item, results)[0]}
        found = {}
        for name in hosts:
            if not isinstance(state.seen.get(name), Seen):
                continue
            mine = [
                item
                for item in state.rotations
                if (name in item.canaries and (name in state.request.canary or item.tokens not in done))
                or (not first and not _hosts.has_it(item, name, results.get(name)))
            ]
            todo = _hosts.todo(state, state.hosts[name], {} if first else stopped, mine)
            if todo.entries:
                host = state.hosts[name]
                found[name] = {
                    "tokens": todo.entries,
                    "server": host.server,
                    "datastacks": list(host.datastacks),
                    **host.settings,
                }
        return found

    def wait(self) -> dict[str, Any]:
        """Wait for those who still use an old token, and return the hosts to look at once more."""
        state = self.state
        ends = [rotation for rotation in state.rotations if not rotation.idle]
        if any(rotation.old for rotation in ends):
            _steps.wait(state, self._saved(), display.display)
        again = state.request.hosts if any(rotation.old for rotation in ends) and not self.check else ()
        outside = [
            host for host in state.hosts
            if host not in state.request.hosts and any(host in rotation.hosts for rotation in ends)
        ]  # fmt: skip
        if again:
            unknown = inventory_of(state.hosts.values()).unknown
            outside += [host for host in unknown if host not in (*state.request.hosts, *outside)]
        observers = list(state.request.hosts)[: len(outside)]
        return {
            "state": seal_state(state),
            "outside": {host: outside[number :: len(observers)] for number, host in enumerate(observers)},
            "ansible_facts": {"cave_rotation": {"again": list(again), "observers": observers}},
        }

    # The end

    def finish(self) -> dict[str, Any]:
        """Revoke what nobody needs any more, and say how it ended for every token and host."""
        state = self.state
        run = state.request.hosts
        results = self._canaries()
        registered = self.registered("saved", run)
        saved = self._saved()
        again = self.registered("again", run)
        if any(rotation.old for rotation in state.rotations):
            before = state.seen
            state.seen = {host: _hosts.seen_of(result) for host, result in again.items()}
            state.seen.update({host: what for host, what in before.items() if isinstance(what, str)})
        for result in self.registered("elsewhere", run).values():
            for item in result.get("results") or [result]:
                name = item.get("caveclient_other") if isinstance(item, Mapping) else None
                if isinstance(name, str):
                    state.seen[name] = _hosts.seen_of(item)
        _hosts.note_replaced(state, saved)
        revoked = _steps.finish(state, inventory_of(state.hosts.values(), state.refused), self.vault(), saved)
        told, unfinished = _steps.notes(state)
        stopped = _hosts.stopped(state, results)
        found = {
            host: what
            for host in state.hosts
            for what in [
                _hosts.found_on(state, host, saved.get(host), stopped, host in registered and host not in results)
            ]
            if what is not None
        }
        return {
            "changed": revoked,
            "ansible_facts": {"cave_rotation": {"notes": told, "unfinished": unfinished, "found": found}},
        }

    def revoke(self) -> dict[str, Any]:
        """Revoke the tokens that were taken off the hosts of the run."""
        request = Request(tuple(self.variables["ansible_play_hosts_all"]))
        state = State(self._read_hosts(), request, self._settings())
        removed = {host: _hosts.merged([result]) for host, result in self.registered("removed", request.hosts).items()}
        done = revoke_taken_off(state, frozenset(self.options["users"]), removed, self.options["force"])
        facts = {"notes": done.notes, "unfinished": done.unfinished, "revoked": done.tokens}
        return {"changed": bool(done.tokens), "ansible_facts": {"cave_rotation": facts}}


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
    return host._replace(held=tuple(held))


def _store_tasks(path: str | None, loader: Any, variables: Mapping[str, Any]) -> str:
    """Return where the file with the user's own tasks is: by the inventory or the playbook, or in this folder."""
    if path is None:
        return ""
    folders = [variables.get("inventory_dir"), variables.get("playbook_dir"), loader.get_basedir(), Path.cwd()]
    found = [Path(str(folder)) / path for folder in folders if folder]
    real = next((item for item in found if item.is_file()), None)
    if real is None:
        where = ", ".join(dict.fromkeys(str(item.parent) for item in found))
        raise CaveError(
            f"caveclient_rotate_store_tasks names {path}, which is no file in {where}. Correct the path. "
            "Nothing was done."
        )
    return str(real.resolve())


def _shown(state: State, rotation: Rotation) -> dict[str, Any]:
    """Return a rotation as results have it; no token is in it but sealed ones."""
    value = state.values.get(rotation.new)
    return {
        "action": rotation.action,
        "users": list(rotation.users),
        "hosts": list(rotation.hosts),
        "server": state.servers.get(rotation.source, ""),
        "given": rotation.source,
        "new": rotation.new or None,
        "old": [item.token for item in rotation.old],
        "sealed": seal(value) if value is not None and rotation.tokens in state.unstored else "",
        "message": " ".join(state.stories.get(rotation.tokens, [])) or rotation.reason,
    }
