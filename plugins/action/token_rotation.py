# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rotation; the documentation is in the module of the same name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, require_limits
from ansible_collections.connectomics.cave.plugins.module_utils._masking import masked, secrets_among
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._local_servers import learn
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import hosts as _hosts
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import story as _story
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.ansible_run import AnsibleRun
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.holders import taken_off
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import (
    Held,
    Host,
    VaultFiles,
    inventory_of,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    REVOKE,
    STRATEGIES,
    Entry,
    Known,
    Request,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.revoke import revoke_taken_off
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import (
    NotSealedError,
    seal,
    seal_state,
    unseal_state,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import Settings, State
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import places_read, read_afresh

display = Display()

ARGUMENT_SPEC: dict[str, Any] = {
    "step": {
        "type": "str",
        "required": True,
        "choices": ["prove", "rehearse", "begin", "canary", "roll_out", "wait", "finish", "choose", "revoke"],
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
    "everywhere": {"type": "bool", "default": False},
    "with_revocation": {"type": "bool", "default": False},
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

BEFORE_ANYTHING = ("prove", "begin", "choose")
"""Steps that can refuse what was asked for. No host is to blame for that: the play goes on to the report."""


class ActionModule(CaveAction):
    """Does one step, once for the whole play."""

    spec = ARGUMENT_SPEC
    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    _misplaced = ""

    def complaint(self, task_vars: Mapping[str, Any]) -> str:
        """Return what is wrong with the place of a value, unless that is a refusal like others."""
        found = super().complaint(task_vars)
        self._misplaced = found if self._task.args.get("step") in BEFORE_ANYTHING else ""
        return "" if self._misplaced else found

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        read_afresh()
        try:
            options = self._options()
            run = AnsibleRun(task_vars or {}, self._loader, self._task._parent._play)
            step = _Step(options, run, bool(self._task.check_mode))
            found = getattr(step, options["step"])()
        except NotSealedError:
            return {**result, "failed": True, "msg": "The state is not one that a step of this run returned."}
        except CaveError as error:
            if self._task.args.get("step") not in BEFORE_ANYTHING:
                return {**result, "failed": True, "msg": error.message, **error.details}
            found = {"refused": error.message, "ansible_facts": {"cave_rotation": {"refused": error.message}}}
        # At -v, Ansible would print some hundred kilobytes of it.
        return {**result, "changed": False, "_ansible_verbose_override": True, **found}

    def _options(self) -> dict[str, Any]:
        """Return the task's arguments. Raises CaveError for those of a step that can refuse them."""
        if self._misplaced:
            raise CaveError(self._misplaced)
        try:
            options: dict[str, Any] = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        except AnsibleActionFail as error:
            if self._task.args.get("step") not in BEFORE_ANYTHING:
                raise
            raise CaveError(str(masked(str(error), secrets_among(self._task.args, ARGUMENT_SPEC)))) from None
        return options


class _Step:
    """The steps, with what they need of Ansible."""

    def __init__(self, options: dict[str, Any], run: AnsibleRun, check: bool) -> None:
        self.options = options
        self.run = run
        self.check = check
        if options["step"] not in ("prove", "choose"):
            self.state: State = unseal_state(str(options["state"]))

    def registered(self, what: str, hosts: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what hosts' tasks registered under the name given for it."""
        return self.run.registered(self.options["results"].get(what), hosts)

    def vault(self) -> VaultFiles:
        """Return where tokens are kept: the files with variables beside the inventory and the playbook, and stores."""
        state, vault_id = self.state, self.options["vault_id"] or None
        return self.run.vault(state.hosts, self._vault_files(), vault_id, state.stored, check=self.check)

    def _vault_files(self) -> list[str]:
        named: list[str] = self.options["vault_file"]
        if self.state.request.strategy == "cutover":  # it stores nothing
            return named
        return [self.run.file("caveclient_rotate_vault_file", path) for path in named]

    def _settings(self) -> Settings:
        options = self.options
        require_limits(options["timeout"], options["retries"])
        if not (math.isfinite(options["grace"]) and options["grace"] >= 0):
            raise CaveError(
                f"caveclient_rotate_grace is {options['grace']:g}. Give seconds: 0 or more (310 by default)."
            )
        return Settings(
            options["timeout"], options["retries"], options["ca_path"] or None, options["grace"], self.check
        )

    # Before any host is contacted

    def prove(self) -> dict[str, Any]:
        """Gather who holds what, and ask the servers about the tokens."""
        hosts = self.run.read_hosts()
        options = self.options
        # -e gives a list as one text, with white space or nothing in it.
        for name in ("users", "canary", "give_up", "old"):
            options[name] = [text for text in map(str.strip, options[name]) if text]
        request = Request(
            hosts=tuple(self.run.hosts),
            strategy=options["strategy"],
            name=options["name"],
            users=frozenset(options["users"]),
            canary=tuple(options["canary"]),
            give_up=frozenset(options["give_up"]),
            anyway=options["anyway"],
            revoke=options["revoke"],
            old=frozenset(map(_decide.old_token, options["old"])),
            own_store=options["store_tasks"] is not None,
            other_person=options["other_person"],
        )
        self.state = State(hosts, request, self._settings(), stored=places_read())
        inventory = inventory_of(hosts.values())
        _decide.refuse_impossible(inventory, request)
        if request.strategy == "overlap":
            self._vault_files()
        _steps.ask_servers(self.state, need_lists=request.strategy == "overlap")
        alive = self._alive(self.state.known(inventory))
        learn(_hosts.given(self.state, alive), "tokens", options["ca_path"])
        work = {name: self._inspection(hosts[name], alive) for name in request.hosts}
        return {
            "state": seal_state(self.state),
            "hosts": {name: what for name, what in work.items() if what},
            "store_tasks": self.run.tasks("caveclient_rotate_store_tasks", options["store_tasks"]),
            "ansible_facts": {"cave_rotation": {"rehearsed": request.hosts if request.strategy == "overlap" else ()}},
        }

    def _alive(self, known: Known) -> list[Rotation]:
        """Return the rotations that were asked for, of tokens that the server accepts."""
        meant = [item for item in _decide.decide(known) if item.action != "leave"]
        if not meant:
            raise CaveError(_story.nothing_to_rotate(self.state))
        return [item for item in meant if known.accounts[item.source].accepted]

    def rehearse(self) -> dict[str, Any]:
        """Return what hosts are to predict before a token is made."""
        self.state.seen = self._inspected()
        known = self.state.known(inventory_of(self.state.hosts.values(), self.state.refused))
        alive = self._alive(known)
        return {"hosts": _hosts.rehearsals(self.state, alive, _decide.to_rehearse(alive, known))}

    def _inspected(self) -> dict[str, Seen | str]:
        """Return what was found on the hosts of the run, and for whom none of their tasks can be given a token."""
        hosts = self.state.request.hosts
        seen = self._looked("inspected", hosts)
        inspected, rehearsed = self.registered("inspected", hosts), self.registered("rehearsed", hosts)
        for name, found in seen.items():
            unsendable, result = inspected.get(name, {}).get("unsendable"), rehearsed.get(name, {"skipped": True})
            result = {"failed": True, "msg": unsendable} if unsendable and result.get("skipped") else result
            if isinstance(found, Seen) and not result.get("skipped"):
                seen[name] = _hosts.rehearsed(found, self.state.hosts[name].users, result)
        return seen

    def _inspection(self, host: Host, rotations: list[Rotation]) -> dict[str, Any] | None:
        """Return what saved_token_info is to look at on a host; None when there is no need to look at it."""
        overlap, run = self.state.request.strategy == "overlap" or self.state.request.old, self.state.request.hosts
        entries = {entry for item in rotations for entry in item.entries}
        mine = [item for item in host.held if item.entry in entries]
        if not mine and not (overlap and rotations and (host.held or host.problems or host.name in run)):
            return None
        found = _look(host, mine)
        # Before a token dies, every account of a host is looked at: it may lie with somebody else.
        return found if overlap else {**found, "users": list(dict.fromkeys(item.entry.user for item in mine))}

    # Make and store

    def begin(self) -> dict[str, Any]:
        """Decide, make the new tokens, and store them."""
        state = self.state
        state.seen = self._inspected()
        inventory, vault = inventory_of(state.hosts.values(), state.refused), self.vault()
        if state.request.strategy == "overlap" and not state.request.own_store:
            state.elsewhere = frozenset(self._from_elsewhere(vault))
        changed = _steps.begin(state, inventory, vault)
        first = [host for rotation in state.rotations for host in rotation.canaries]
        order = sorted(dict.fromkeys(first), key=first.count, reverse=True)
        return {
            "changed": changed,
            "state": seal_state(state),
            "rotations": [_shown(state, rotation) for rotation in state.rotations],
            "unstored": [_shown(state, item) for item in state.rotations if item.tokens in state.unstored],
            "ansible_facts": {"cave_rotation": {"canaries": order, "hosts": list(state.request.hosts)}},
        }

    def _from_elsewhere(self, vault: VaultFiles) -> Iterator[Entry]:
        """Yield the entries whose token comes from where no new one would be stored."""
        stored = [place for place, _token in self.state.stored]
        # Since the run began, another one may have stored a token that this one knows as well.
        variables = {variable for value in self.state.values.values() for _path, variable in vault.places(value)}
        for item in self.state.held():
            if not item.entry.absent and self.run.keeps_its_token(item, variables, stored):
                yield item.entry

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
        todo = self._todo(self.run.hosts, self._canaries(), first=True)
        batch = self.run.variables["ansible_play_batch"]
        return {"hosts": {host: what for host, what in todo.items() if host in batch}, "proven": not todo}

    def roll_out(self) -> dict[str, Any]:
        """Return what each host gets."""
        _steps.note_stored(self.state, self.options["stored"], self._read_back)
        return {"hosts": self._todo(self.state.request.hosts, self._canaries()), "state": seal_state(self.state)}

    def _read_back(self, rotation: Rotation) -> dict[str, set[str]]:
        """Return what the variables of each host give now to the entries of a rotation."""
        # Ansible has read files with variables when the run began: what follows one that holds the new token is stored.
        new = {variable for _path, variable in self.vault().places(self.state.values[rotation.new])}
        mine = {(entry.host, entry.number) for entry in rotation.entries if not entry.absent}
        found = {}
        for name in dict.fromkeys(host for host, _number in mine if host not in self.state.request.give_up):
            host, before = self.run.read_host(name), self.state.hosts[name].problems
            held = [item for item in host.held if (name, item.entry.number) in mine]
            found[name] = {item.entry.token for item in held if not new or self.run.keeps_its_token(item, new, ())}
            found[name] |= {text for user, text in {*host.problems} - {*before} if user in (None, *rotation.users)}
        return found

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
            mine += [] if first else _hosts.beside(state, name, mine)
            entries = _hosts.todo(state, state.hosts[name], {} if first else stopped, mine).entries
            if entries:
                found[name] = _hosts.saving(state.hosts[name], entries)
        return found

    def wait(self) -> dict[str, Any]:
        """Wait for those who still use an old token, and return the hosts to look at once more."""
        state = self.state
        ends = [rotation for rotation in state.rotations if not rotation.idle]
        old = any(rotation.old for rotation in ends)
        if old:
            _steps.wait(state, self._saved(), display.display)
        again = state.request.hosts if old and not self.check else ()
        fleet = _fleet(state) if old and (self.check or state.marks) else ()  # it may lie where no variable says so
        holders = [host for rotation in ends for host in rotation.hosts]
        return self._looks(again, {host: self._inspection(state.hosts[host], ends) for host in (*holders, *fleet)})

    def _looks(self, again: Iterable[str], work: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
        """Return for the next plays which hosts of the run are looked at again, and what for which ones besides."""
        run = list(self.state.request.hosts)
        outside = {host: options for host, options in work.items() if options and host not in run}
        self.state.outside = tuple(outside)
        facts = {"hosts": run, "again": list(again), "outside": outside}
        return {"state": seal_state(self.state), "ansible_facts": {"cave_rotation": facts}}

    def _looked(self, what: str, hosts: Iterable[str]) -> dict[str, Seen | str]:
        """Return what was found on hosts that were to be looked at."""
        found = self.registered(what, hosts)
        return {host: _hosts.seen_of(found.get(host)) for host in hosts}

    # The end

    def finish(self) -> dict[str, Any]:
        """Revoke what nobody needs any more, and say how it ended for every token and host."""
        state = self.state
        run = state.request.hosts
        results, registered, saved = self._canaries(), self.registered("saved", run), self._saved()
        if any(rotation.old for rotation in state.rotations) and not self.check:
            unseen = {host: what for host, what in state.seen.items() if isinstance(what, str)}
            state.seen = {**self._looked("again", run), **unseen}
        state.seen.update(self._looked("elsewhere", state.outside))
        _hosts.note_replaced(state, saved)
        revoked = _steps.finish(state, inventory_of(state.hosts.values(), state.refused), self.vault(), saved)
        stopped = _hosts.stopped(state, results)
        found = {
            host: what
            for host in state.hosts
            for what in [
                _hosts.found_on(state, host, saved.get(host), stopped, host in registered and host not in results)
            ]
            if what is not None
        }
        told, unfinished = _story.notes(state, found)
        return {
            "changed": revoked,
            "ansible_facts": {"cave_rotation": {"notes": told, "unfinished": unfinished, "found": found}},
        }

    # Decommission

    def choose(self) -> dict[str, Any]:
        """Return which hosts to look at before tokens are revoked; refuse to take everything off by mistake."""
        options = self.options
        if not options["users"] and not options["everywhere"]:
            raise CaveError(
                "This would take everybody's tokens off all hosts. Name the users "
                "(-e caveclient_decommission_users=mallory) or the hosts (--limit ws7); or confirm that all should go: "
                "-e caveclient_decommission_everywhere=true"
            )
        run = self.run.hosts
        if not options["with_revocation"]:
            return {"state": "", "hosts": {}, "ansible_facts": {"cave_rotation": {}}}
        request = Request(tuple(run), users=frozenset(options["users"]), own_store=True)
        self.state = state = State(self.run.read_hosts(), request, self._settings())
        _steps.ask_servers(state, need_lists=True)
        known = state.known(inventory_of(state.hosts.values()))
        going = taken_off(known)
        kin = {entry for rotation in going for entry in rotation.kin}
        work = {
            name: _look(host, [item for item in host.held if item.entry in kin]) for name, host in state.hosts.items()
        }
        return {"hosts": {host: work[host] for host in run}, **self._looks(run, {h: work[h] for h in _fleet(state)})}

    def revoke(self) -> dict[str, Any]:
        """Revoke the tokens that were taken off the hosts of the run."""
        state = self.state
        state.seen = {**self._looked("again", state.request.hosts), **self._looked("elsewhere", state.outside)}
        results = self.registered("removed", state.request.hosts)
        removed = {host: _hosts.merged([result]) for host, result in results.items()}
        done = revoke_taken_off(state, removed, self.options["force"])
        facts = {"notes": done.notes, "unfinished": done.unfinished, "revoked": done.tokens}
        return {"changed": bool(done.tokens), "ansible_facts": {"cave_rotation": facts}}


def _fleet(state: State) -> list[str]:
    """Return the hosts that have something to do with CAVE: those with an entry, or with one that cannot be read."""
    return [name for name, host in state.hosts.items() if host.held or host.problems]


def _look(host: Host, items: Iterable[Held]) -> dict[str, Any]:
    """Return what saved_token_info is to look at on a host: all accounts, and those of some entries in any case."""
    expected = [
        {key: value for key, value in item.own.items() if key in ("user", "server", "datastacks", "key")}
        for item in items
    ]
    return {"expected": expected, "server": host.server, "datastacks": list(host.datastacks), **host.settings}


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
