# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of connectomics.cave.fleet_report; its documentation is in the module of the same name."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._private_files import require_plain_file
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import command as _command
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import model as _model
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import text as _text
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.addresses import address_sentences
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.colleagues import (
    is_of_one_token,
    other_accounts,
    shared_tokens,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.files import Files, nothing_ran
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.printing import print_lines
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.scope import (
    collection_version,
    outside_inventory,
    true_of_all,
    why_no_host,
    why_no_task,
    without_account,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.services import note_since
from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import settings_of_run, unknown_variables

display = Display()

ARGUMENTS = {
    "run": {"type": "dict"},
    "title": {"type": "str"},
    "hosts": {"type": "list", "elements": "str"},
    "results": {"type": "list", "elements": "str", "default": ["__caveclient_result"]},
    "refused": {"type": "str"},
    "found": {"type": "dict", "default": {}},
    "merge": {"type": "list", "elements": "path"},
    "notes": {"type": "list", "elements": "str", "default": []},
    "unfinished": {"type": "list", "elements": "str", "default": []},
    "dest": {"type": "path"},
    "junit": {"type": "path"},
    "pending": {"type": "path"},
    "fail": {"type": "bool", "default": True},
    "print_later": {"type": "bool", "default": False},
    "pending_ok": {"type": "bool", "default": False},
    "strict": {"type": "bool", "default": False},
    "require_users": {"type": "bool", "default": False},
}

SETTINGS = {
    "report": "dest",
    "reports": "merge",
    "junit": "junit",
    "pending_ok": "pending_ok",
    "audit_strict": "strict",
}
"""The variables of the playbooks, without ``caveclient_`` in front, that are options."""
_ROTATION = "rotate"
OTHER_TAGS = "Choose other tags."
_LARGEST_FILE = 256 * 1024 * 1024  # bytes of a report to merge; one of 500 hosts with 50 users has about 15 million


class ActionModule(CaveAction):
    """Prints and writes the report of a run."""

    spec = ARGUMENTS
    quotes = frozenset({"found", "notes", "refused", "unfinished"})
    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True  # once for the whole play, whatever run_once says
    _requires_connection = False
    _supports_check_mode = True

    _wrong: Sequence[str] = ()
    """What is wrong with the variables of the run. None of that loses the report."""

    def with_settings(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Add the variables that the run, or a task's ``__caveclient_settings``, names."""
        run = args.get("run") or {}
        if not isinstance(run, Mapping):
            return super().with_settings(args, task_vars)  # which the argument spec refuses
        names = run.get("settings") or task_vars.get("__caveclient_settings") or ()
        if names:
            first = [*(run.get("hosts") or self._chosen(run, task_vars)), task_vars["inventory_hostname"]][0]
            values, self._wrong = settings_of_run(names, task_vars, first, self._templar.template)
            args = {**args, **{SETTINGS[name]: value for name, value in values.items() if name in SETTINGS}}
        return super().with_settings(args, task_vars)

    def _chosen(self, run: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[str]:
        """Return the hosts that a run takes which has refused to."""
        lookup: Any = lookup_loader.get("connectomics.cave.fleet_hosts", self._loader, self._templar)
        hosts: list[str] = lookup.run([run.get("pattern")], task_vars, with_tokens=bool(run.get("with_tokens")))
        return hosts

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            ARGUMENTS,
            mutually_exclusive=[("merge", "hosts", "run")],
            required_one_of=[("title", "merge", "run")],
        )
        try:
            _require_shape(options)
            return {**result, **self._report(options, task_vars or {})}
        except CaveError as error:
            return {**result, **error.details, "failed": True, "msg": error.message}

    def _report(self, options: dict[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        check_mode = bool(self._task.check_mode)
        known = variables["groups"]["all"]
        if options["merge"] is None:
            report = self._collected(options, variables, check_mode)
            reported = [host["name"] for host in report["hosts"]]
            gone = _without_tokens(reported, options["run"] or {}, variables)
            known = [host for host in known if host not in gone]  # nothing can be pending there any more
        else:
            known = ()
            report = self._merged(options, variables)
        rotation = report["title"] == _ROTATION
        files = Files(options, rotation)
        report["notes"] += [] if rotation or check_mode else files.left_of_rotation()
        if options["merge"] is None:
            is_written = not check_mode and not nothing_ran(report)
            _complete(report, files.pending if is_written else "", options["run"] or {}, variables)
        if not check_mode:
            report["unfinished"] += files.write(report, known)
        again = report["run"]["again"] if report["run"] else ""
        lines = _text.table(report, display.columns or 79, page=files.page, again=again)
        states = ["failed"]
        states += [] if options["pending_ok"] else ["pending"]
        states += ["warning"] if options["strict"] else []
        not_done = {host["name"]: _text.why_not_done(host) for host in report["hosts"] if host["state"] in states}
        outcome = _outcome(not_done, report["unfinished"], variables["ansible_play_hosts_all"])
        if options["print_later"]:
            outcome["lines"] = [line._asdict() for line in lines]
        else:
            print_lines(lines)
        if options["fail"] and (not_done or report["unfinished"]):
            message = _text.failure_message(report, states, pending=files.pending)
            # The rest of the result would drown the message: Ansible prints all of it with a failure.
            return {"changed": False, "failed": True, "msg": message}
        return {
            "changed": False,
            "msg": _text.summary(report),
            "counts": report["counts"],
            "files": files.named(report),
            "failed_hosts": _model.hosts_in(report, "failed"),
            "pending_hosts": _model.hosts_in(report, "pending"),
            "ansible_facts": {"cave_report": outcome},
        }

    def _own_tokens(self, variables: Mapping[str, Any]) -> list[str]:
        return _tokens(lambda: self._templar.template(variables.get("caveclient_tokens")))

    def _merged(self, options: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        if not options["merge"]:
            raise CaveError(
                " ".join(self._wrong)
                or "There is no report to merge. Name the folders of the runs, or their report.json: "
                "-e caveclient_reports=reports/1,reports/2 -e caveclient_report=reports/all"
            )
        clean = Cleaner(self._own_tokens(variables))
        report = _model.merge_reports([_load(Path(path), clean) for path in options["merge"]], options["title"] or "")
        # A token may have several users of whom each report has one alone.
        shared = shared_tokens(report, partial(_owners, variables["hostvars"]))
        report["notes"] = [
            *map(clean.sentence, shared),
            *[note for note in report["notes"] if not is_of_one_token(note)],
        ]
        report["unfinished"] = [*true_of_all(report["unfinished"], report["hosts"]), *self._wrong]
        return report

    def _collected(self, options: Mapping[str, Any], variables: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
        hostvars = variables["hostvars"]
        run = options["run"] or {"title": options["title"], "results": options["results"]}
        if not run["title"]:
            raise CaveError(
                "There is no report, as the play that prepares it did not run: --start-at-task or --step left it out. "
                "To run a part of a playbook, name tags: --list-tags shows those that there are."
            )
        # The raw variables: a result is data, and a template in a host's message must stay one.
        results, names = {}, set(variables)
        tokens = set(self._own_tokens(variables))
        hosts = options["hosts"] or run.get("hosts", variables["ansible_play_hosts_all"])
        refused, notes = options["refused"], options["notes"]
        if self._wrong and not hosts:
            refused, notes = refused or " ".join(self._wrong), []
        unfinished = [*options["unfinished"], *self._wrong]
        hosts = [] if refused else hosts  # none of them was touched
        for host in dict.fromkeys([*hosts, *options["found"]]):
            own = hostvars.raw_get(host) if host in hostvars else {}
            names.update(own)
            results[host] = options["found"].get(host) or [own.get(name) or None for name in run["results"]]
            if any(isinstance(found, Mapping) and found.get("failed") for found in results[host]):
                tokens.update(_tokens(partial(_templated, hostvars, host)))
        # Where no host has tokens, the name of that variable may be what is misspelt.
        for host in variables["ansible_play_hosts_all"] if not (results or refused) else ():
            names.update(hostvars.raw_get(host) if host in hostvars else {})
        clean = Cleaner(tokens)
        report = _model.build_report(
            run["title"],
            results,
            time=datetime.now(tz=timezone.utc),
            clean=clean,
            check_mode=check_mode,
            notes=[
                *_expiring(results),
                *notes,
                *unknown_variables(names),
                *([] if refused else _left_alone(results, run, variables)),
            ],
            unfinished=[f"Refused, and nothing was done. {refused}"] if refused else unfinished,
        )
        if refused:
            return report
        # Which tokens several users have, a rotation says itself.
        shared = [] if run["title"] == _ROTATION else shared_tokens(report, partial(_owners, hostvars))
        report["notes"][:0] = map(clean.sentence, [*shared, *other_accounts(results)])
        if options["dest"]:
            with contextlib.suppress(CaveError):  # there is none, or it is no report
                note_since(report, _load(Path(options["dest"]), clean))
        somewhere, nowhere = without_account(_accounts(results))
        report["notes"] += [clean.text(sentence) for sentence in somewhere]
        report["unfinished"] += [clean.text(sentence) for sentence in nowhere]
        through, blocked = address_sentences(results)
        report["notes"] += [clean.text(sentence) for sentence in through]
        report["unfinished"] += [clean.text(sentence) for sentence in blocked]
        report["notes"] += _asked_nobody(report) if options["require_users"] else []
        report["unfinished"] += map(clean.sentence, _nothing_done(report, results, run, options, variables))
        return report


def _require_shape(options: Mapping[str, Any]) -> None:
    """Raise CaveError where ``run`` or ``found`` holds something else than plays and tasks put there."""
    run = options["run"]
    if run is not None:
        lists = [run.get("results"), *[run[name] for name in ("hosts", "tags", "settings") if name in run]]
        are_lists = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
        if not isinstance(run.get("title"), str) or (run["title"] and not are_lists):
            raise CaveError("run must be what plays/begin.yml recorded, with title, results and hosts.")
    if not all(isinstance(found, list) for found in options["found"].values()):
        raise CaveError("found must be a mapping of hosts, each with a list of results.")


def _complete(report: dict[str, Any], pending: str, run: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
    """Add to a report how its run was made, and to the commands that it names the options of that run."""
    clean, parts = Cleaner(), _command.split(sys.argv)
    not_done = _model.hosts_in(report, "failed", "pending")
    if all(host["problem"] and host["problem"]["remedy"] == OTHER_TAGS for host in report["hosts"]):
        not_done = []  # the same command would do nothing again
    began = run.get("began")
    report["run"] = {
        "command": _command.as_typed(parts, clean),
        "again": _command.with_limit(parts, f"@{pending}" if pending else _command.pattern_of(not_done), clean)
        if not_done
        else "",
        "inventory": [clean.text(str(source)) for source in variables.get("ansible_inventory_sources", ())],
        "seconds": round(max(0.0, time.time() - float(began)), 1) if began else None,
        "versions": {
            "connectomics.cave": collection_version(),
            "ansible-core": clean.text(variables["ansible_version"]["full"]),
        },
    }
    options = _command.lasting_options(parts, clean)
    for name in ("notes", "unfinished"):
        report[name] = [_command.completed(sentence, options) for sentence in report[name]]
    for host in report["hosts"]:
        entries = [entry for user in host["users"] for entry in (user, *user["datastacks"], *user["problems"])]
        for entry in [*entries, *([host["problem"]] if host["problem"] else [])]:
            entry["remedy"] = _command.completed(entry["remedy"], options)
            if len(variables["groups"]["all"]) > 1:
                entry["remedy"] = _command.for_hosts(entry["remedy"], [host["name"]])


def _left_alone(results: Collection[str], run: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    """Return a note on the hosts without tokens, which a run that was not told which hosts to take leaves alone."""
    others = _without_tokens(results, run, variables)
    return [f"Left alone, without caveclient_tokens: {_text.shortened(others, 8)}."] if others else []


def _without_tokens(reported: Collection[str], run: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    if run.get("pattern") or not run.get("with_tokens"):
        return []
    others = [host for host in variables["ansible_play_hosts_all"] if host not in reported]
    return sorted(set(others) & set(variables["groups"]["all"]), key=_model.natural_key)


def _accounts(results: Mapping[str, list[Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield which users have an account on which host, where a module said so of a user who was named."""
    for host, found in results.items():
        for result in found:
            for entry in result.get("users") or [] if isinstance(result, Mapping) else []:
                if isinstance(entry, Mapping) and isinstance(entry.get("has_account"), bool):
                    user = str(entry.get("user"))
                    if not user.isdigit():  # the number of an owner of files is no name that somebody typed
                        yield host, user, entry["has_account"]


def _expiring(results: Mapping[str, list[Any]]) -> list[str]:
    """Return what the hosts' tasks found of tokens that end by themselves."""
    found = [result for many in results.values() for result in many if isinstance(result, Mapping)]
    return [str(sentence) for result in found for sentence in result.get("expiring") or ()]


def _asked_nobody(report: Mapping[str, Any]) -> list[str]:
    """Return a note on the hosts that are fine only since nobody on them has a token."""
    hosts = [host["name"] for host in report["hosts"] if host["state"] == "ok" and not host["users"]]
    asked = report["counts"]["users"]["total"]
    return [f"Nobody was asked about on {_text.shortened(hosts, 8)}."] if hosts and asked else []


def _nothing_done(
    report: Mapping[str, Any],
    results: Mapping[str, list[Any]],
    run: Mapping[str, Any],
    options: Mapping[str, Any],
    variables: Mapping[str, Any],
) -> list[str]:
    """Return why nothing was done, or not all that was asked for, though no host failed; empty when all was."""
    limit = str(variables.get("ansible_limit") or "")
    if not results:
        sources = [str(source) for source in variables.get("ansible_inventory_sources") or ()]
        return [why_no_host(str(run.get("pattern") or ""), variables["groups"], limit, sources)]
    if unknown := outside_inventory(limit, variables["groups"]):
        return unknown
    if not any(any(found) for found in results.values()):
        tags = why_no_task(
            variables.get("ansible_run_tags", ["all"]),
            variables.get("ansible_skip_tags", []),
            run.get("tags", []),
        )
        if tags:
            for host in report["hosts"]:
                host["problem"]["remedy"] = OTHER_TAGS
            return [tags]
    counts = report["counts"]
    if options["require_users"] and not counts["users"]["total"] and not counts["hosts"]["failed"]:
        if counts["hosts"]["pending"]:
            return ["Nothing is proven: no host with users was reached."] if options["pending_ok"] else []
        return ["Nothing is proven: no host has a user with a token. Name users and tokens in caveclient_tokens."]
    return []


def _outcome(not_done: Mapping[str, str], unfinished: Sequence[str], hosts: Sequence[str]) -> dict[str, Any]:
    """Return what the play that fails hosts has to know: which, why, and which hosts it takes besides.

    What is unfinished, and not since one of these hosts is not done, fails the controller, localhost. A play ends the
    run when all of its hosts fail, so another one of the play's ``hosts`` is in it.
    """
    fail = dict(not_done)
    own = [sentence for sentence in unfinished if not any(_is_named(host, sentence) for host in not_done)]
    if own:
        fail["localhost"] = " ".join([*own, *([fail["localhost"]] if "localhost" in fail else [])])
    return {"not_done": fail, "hosts": [*fail, *[host for host in hosts if host not in fail][:1]]}


def _is_named(host: str, sentence: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", sentence) is not None


def _owners(hostvars: Any, host: str, user: str) -> set[str]:
    """Return the accounts that a host's entries for a user name in ``person``, in lower case.

    An entry that can be read as it is costs nothing; where it cannot be read at all, it names none.
    """
    if host not in hostvars:  # a report of another inventory
        return set()
    entries = hostvars.raw_get(host).get("caveclient_tokens")
    try:
        if not _is_plain(entries):
            entries = _templated(hostvars, host)
        return {
            str(entry["person"]).strip().lower()
            for entry in entries or ()
            if isinstance(entry, Mapping) and entry.get("user") == user and entry.get("person")
        }
    except (AnsibleError, TypeError):
        return set()


def _is_plain(entries: Any) -> bool:
    """Return whether users and persons stand in entries as they are."""
    return isinstance(entries, list) and all(
        isinstance(entry, Mapping) and "{" not in f"{entry.get('user')}{entry.get('person')}" for entry in entries
    )


def _templated(hostvars: Mapping[str, Any], host: str) -> Any:
    return hostvars[host].get("caveclient_tokens")


def _tokens(read: Callable[[], Any]) -> list[str]:
    """Return the tokens in a host's ``caveclient_tokens``, to mask them should one turn up in a message.

    An entry of the wrong shape is the likeliest to be shown in a message: a bare string counts as a token, too.
    """
    try:
        entries = read()
        found = [entry.get("token") if isinstance(entry, Mapping) else entry for entry in entries or []]
        return [str(token) for token in found if isinstance(token, (str, int)) and not isinstance(token, bool)]
    except (AnsibleError, TypeError) as error:
        # Without the vault's password there is no token to mask either.
        display.vvv(f"The tokens in caveclient_tokens cannot be read: {type(error).__name__}")
        return []


def _load(path: Path, clean: Cleaner) -> dict[str, Any]:
    """Return the report in a file, or in the folder that a run was told to write to."""
    if path.is_dir():
        path = path / "report.json"
    require_plain_file(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise CaveError(f"{path} is too large for a report of this collection. Give the report.json of a run.")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise CaveError(f"{path} cannot be read: {error.strerror}. Give the report.json of a run.") from error
    except (ValueError, RecursionError) as error:
        raise CaveError(f"{path} is not JSON. Give the report.json of a run.") from error
    return _model.read_report(data, str(path), clean)
