# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rotation; the documentation is in the module of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import vault_secrets
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import Seen, Subject

display = Display()

ARGUMENT_SPEC: dict[str, Any] = {
    "step": {"type": "str", "required": True, "choices": ["prove", "begin", "judge", "wait", "end"]},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "subjects": {"type": "list", "elements": "dict", "default": []},
    "marks": {"type": "list", "elements": "dict", "default": []},
    "canaries": {"type": "list", "elements": "list", "default": []},
    "strategy": {"type": "str", "choices": list(_decide.STRATEGIES), "default": "auto"},
    "name": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "str", "default": []},
    "canary": {"type": "list", "elements": "str", "default": []},
    "vault_file": {"type": "list", "elements": "path", "default": []},
    "vault_id": {"type": "str"},
    "own_store": {"type": "bool", "default": False},
    "other_person": {"type": "bool", "default": False},
    "revoke": {"type": "str", "choices": ["when_unused", "even_if_used", "never"], "default": "when_unused"},
    "grace": {"type": "float", "default": 310.0},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "retries": {"type": "int", "default": 2},
}
LOOKED, RELOOKED, ELSEWHERE = "__caveclient_looked", "__caveclient_relooked", "__caveclient_elsewhere"
CANARY, CANARY_VERIFIED, SAVED = "__caveclient_canary", "__caveclient_canary_verified", "__caveclient_saved"


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
        variables = task_vars or {}
        steps: dict[str, Callable[[_Step], dict[str, Any]]] = {
            "prove": _prove,
            "begin": _begin,
            "judge": _judge,
            "wait": _wait,
            "end": _end,
        }
        step = _Step(options, variables, vault_secrets(self._loader), bool(self._task.check_mode))
        try:
            return {**result, "changed": False, **steps[options["step"]](step)}
        except CaveError as error:
            return {**result, "failed": True, "msg": error.message, **error.details}


class _Step:
    """What a step knows: its options, the variables of all hosts, and what their tasks registered."""

    def __init__(
        self, options: Mapping[str, Any], variables: Mapping[str, Any], secrets: list[tuple[str, Any]], check: bool
    ) -> None:
        self.options = options
        self.secrets = secrets
        self.check = check
        self.subjects = [Subject.of(entry) for entry in options["subjects"]]
        self.play_hosts: list[str] = list(variables["ansible_play_hosts_all"])
        self._hostvars = variables["hostvars"]
        self.settings = _steps.Settings(
            strategy=options["strategy"],
            name=options["name"],
            users=frozenset(options["users"]),
            vault_files=tuple(options["vault_file"]),
            vault_id=options["vault_id"] or None,
            own_store=options["own_store"],
            other_person=options["other_person"],
            revoke=options["revoke"],
            grace=options["grace"],
            timeout=options["timeout"],
            retries=options["retries"],
            ca_path=options["ca_path"] or None,
            check=check,
        )

    def holders(self) -> tuple[list[_steps.Holder], dict[str, str]]:
        """Return everybody's entries on all hosts that are meant, and what keeps some from being read."""
        return _steps.gather(self.options["hosts"], lambda host: self._hostvars[host])

    def variable_files(self) -> list[str]:
        """Return the files in which the vault's variables are looked for."""
        if self.settings.vault_files:
            return list(self.settings.vault_files)
        folders = [self._hostvars[host].get("inventory_dir") for host in self.options["hosts"]]
        return _steps.variable_files(folder for folder in folders if folder)

    def registered(self, host: str, name: str) -> Mapping[str, Any]:
        """Return what a host's task registered. Not templated: a result is data."""
        found = self._hostvars.raw_get(host).get(name) if host in self._hostvars else None
        return found if isinstance(found, Mapping) else {}


def _unreachable(result: Mapping[str, Any]) -> bool:
    return result.get("unreachable") is True


def _users(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = result.get("users")
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, Sequence) else []


def _well(result: Mapping[str, Any]) -> bool:
    """Whether a task ran and did all that it was asked for."""
    return bool(result) and not any(result.get(flag) for flag in ("failed", "unreachable", "skipped"))


# The steps ------------------------------------------------------------------------------------------------------------


def _prove(step: _Step) -> dict[str, Any]:
    holders, problems = step.holders()
    subjects = _steps.prove(holders, step.settings)
    meant = [subject for subject in subjects if subject.action != "left_out"]
    if not meant:
        whom = f"for {', '.join(sorted(step.settings.users))} " if step.settings.users else ""
        why = " ".join(f"{host}: {message}" for host, message in list(problems.items())[:3])
        raise CaveError(f"No host has a token {whom}in caveclient_tokens, so there is nothing to rotate. {why}".strip())
    _stop_when_all_are_refused(meant)
    return {"subjects": [subject.as_dict() for subject in subjects]}


def _stop_when_all_are_refused(subjects: Iterable[Subject]) -> None:
    subjects = list(subjects)
    if all(subject.refused for subject in subjects):
        reasons = " ".join(f"{subject.name}: {subject.message}" for subject in subjects)
        raise CaveError(f"Nothing was rotated, and no host was changed. {reasons}")


def _begin(step: _Step) -> dict[str, Any]:
    holders, _problems = step.holders()
    before = [subject.as_dict() for subject in step.subjects]
    _steps.begin(step.subjects, holders, _looked(step), step.secrets, step.variable_files(), step.settings)
    _stop_when_all_are_refused(subject for subject in step.subjects if subject.action != "left_out")
    reached = [host for host in step.play_hosts if not _unreachable(step.registered(host, LOOKED))]
    troubled = {host: _trouble(step.registered(host, LOOKED)) for host in reached}
    rounds = _steps.canaries(step.subjects, reached, troubled, step.options["canary"])
    after = [subject.as_dict() for subject in step.subjects]
    made = any(subject.action == "made" or subject.places for subject in step.subjects)
    first = [host for attempt in rounds for host in attempt] or step.play_hosts[:1]
    return {"changed": made and before != after, "subjects": after, "canaries": rounds, "first": first}


def _looked(step: _Step) -> dict[tuple[str, str, str], _steps.Looked]:
    found = {}
    for host in step.play_hosts:
        for entry in _users(step.registered(host, LOOKED)):
            access = entry.get("access")
            person = access.get("person") if isinstance(access, Mapping) else None
            number = person.get("id") if isinstance(person, Mapping) else None
            found[host, str(entry.get("user")), str(entry.get("server"))] = _steps.Looked(
                str(entry.get("fingerprint") or ""), number if isinstance(number, int) else None
            )
    return found


def _trouble(result: Mapping[str, Any]) -> int:
    """Return how likely a host is to fail for reasons of its own."""
    if not _well(result):
        return 1000
    problems = sum(len(entry.get("problems") or ()) for entry in _users(result))
    accesses = [entry["access"] for entry in _users(result) if isinstance(entry.get("access"), Mapping)]
    cut_off = any(access.get("verdict") in ("unreachable", "tls_error") for access in accesses)
    return problems + 100 * cut_off


def _judge(step: _Step) -> dict[str, Any]:
    """Tell whether one of the attempts went well. Nothing is asked: what their tasks registered says it."""
    bad: dict[str, str] = {}
    for attempt in step.options["canaries"]:
        troubles = {host: _trouble_of_first(step, host) for host in attempt}
        if not any(troubles.values()):
            return {"passed": True}
        bad.update({host: trouble for host, trouble in troubles.items() if trouble})
    if not step.options["canaries"]:
        return {"passed": True}
    why = " ".join(f"{host}: {message}" for host, message in bad.items())
    return {
        "passed": False,
        "msg": f"Nothing was changed here, since the hosts that come first did not get well. {why}",
    }


def _trouble_of_first(step: _Step, host: str) -> str:
    """Return what keeps a host from being well, or an empty string."""
    for name in (CANARY, CANARY_VERIFIED):
        result = step.registered(host, name)
        if not _well(result) and not (name == CANARY_VERIFIED and step.check):
            return str(result.get("msg") or "It was not reached.")
    return ""


def _wait(step: _Step) -> dict[str, Any]:
    holders, _problems = step.holders()
    done = [subject for subject in step.subjects if not _undone(step, subject, holders)]
    marks = _steps.mark(done, step.settings)
    if marks and step.settings.grace:
        display.display(f"Every host has the new token. Waiting {step.settings.grace:g} s for uses of the old one.")
    _steps.wait(marks, step.settings)
    return {"ready": bool(marks), "marks": marks}


def _undone(step: _Step, subject: Subject, holders: Iterable[_steps.Holder]) -> list[str]:
    """Return the hosts of this run (with their users) on which a token was not saved and proven."""
    saved = {
        (host, str(entry.get("user")), str(entry.get("server"))): str(entry.get("msg") or "failed")
        if entry.get("failed")
        else ""
        for host in step.play_hosts
        for entry in _users(step.registered(host, SAVED))
    }
    undone = []
    for holder in holders:
        if holder.host in step.play_hosts and subject.holds(holder.server, _steps.named(holder)):
            trouble = saved.get((holder.host, holder.user, holder.server), "not reached")
            undone += [f"{holder.host} ({holder.user}: {trouble})"] if trouble else []
    return undone


def _end(step: _Step) -> dict[str, Any]:
    holders, problems = step.holders()
    seen = _seen(step)
    ended = []
    for subject in step.subjects:
        if subject.action == "left_out":
            continue
        missing = _undone(step, subject, holders)
        if not missing:
            wanted = [(item.host, item.user) for item in holders if subject.holds(item.server, _steps.named(item))]
            found = {(host, user): what for (host, user, server), what in seen.items() if server == subject.server}
            missing = _decide.still_without(subject, wanted, found)
        missing += [f"{host} ({message})" for host, message in problems.items()]
        ended.append(_steps.end(subject, missing, step.options["marks"], step.settings))
    return {
        "changed": any(item.revoked for item in ended),
        "notes": [item.note for item in ended],
        "finished": all(item.finished for item in ended),
        "unfinished": [item.note for item in ended if not item.finished],
    }


def _seen(step: _Step) -> dict[tuple[str, str, str], Seen]:
    """Return what every host sends now, also those that a limit leaves out and that others looked at."""
    found: dict[tuple[str, str, str], Seen] = {}
    for host in step.play_hosts:
        _add(found, host, step.registered(host, RELOOKED))
        others = step.registered(host, ELSEWHERE).get("results")
        for result in others if isinstance(others, Sequence) else ():
            if isinstance(result, Mapping):
                _add(found, str(result.get("__caveclient_other")), result)
    return found


def _add(found: dict[tuple[str, str, str], Seen], host: str, result: Mapping[str, Any]) -> None:
    for entry in _users(result):
        key = (host, str(entry.get("user")), str(entry.get("server")))
        readers = entry.get("readers")
        items = readers if isinstance(readers, Sequence) else ()
        sent = [item.get("fingerprint") for item in items if isinstance(item, Mapping)]
        problem = str(entry.get("msg") or "it could not be looked at") if entry.get("failed") else ""
        found[key] = Seen(frozenset([*sent, entry.get("fingerprint")]), problem)
