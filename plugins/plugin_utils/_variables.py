# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of users: which this collection reads, and what is wrong with those of a host."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from jinja2 import UndefinedError

from ansible_collections.connectomics.cave.plugins.module_utils._similar import choice_of, similar
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import given, is_omission, is_omitted

_COLLECTION = Path(__file__).parents[2]
_VARIABLE = re.compile(r"(?<![A-Za-z0-9_])caveclient_[a-z0-9_]*[a-z0-9]")
_PREFIX = "caveclient_"
_OTHER_OPTIONS: dict[str, dict[str, Any]] = {
    "caveclient_become": {"type": "bool", "default": True},
    "caveclient_hosts": {"type": "list", "elements": "str"},
    "caveclient_wait": {"type": "raw"},
    "caveclient_report": {"type": "path"},
    "caveclient_reports": {"type": "list", "elements": "path"},
    "caveclient_junit": {"type": "path"},
    "caveclient_pending_ok": {"type": "bool", "default": False},
    "caveclient_audit_strict": {"type": "bool", "default": False},
    "caveclient_audit_users": {"type": "list", "elements": "str"},
    "caveclient_audit_validate": {"type": "bool", "default": True},
    "caveclient_audit_firewall": {"type": "bool", "default": False},
    "caveclient_homes": {"type": "list", "elements": "str"},
    "caveclient_rotate_users": {"type": "list", "elements": "str"},
    "caveclient_rotate_canary": {"type": "list", "elements": "str"},
    "caveclient_rotate_give_up": {"type": "list", "elements": "str"},
    "caveclient_rotate_old": {"type": "list", "elements": "str"},
    "caveclient_rotate_vault_file": {"type": "list", "elements": "path"},
    "caveclient_rotate_pending": {"type": "path"},
    "caveclient_rotate_strategy": {"type": "str", "choices": ["cutover", "overlap"], "default": "cutover"},
    "caveclient_rotate_name": {"type": "str"},
    "caveclient_rotate_store_tasks": {"type": "path"},
    "caveclient_rotate_revoke": {
        "type": "str",
        "choices": ["when_unused", "even_if_used", "never"],
        "default": "when_unused",
    },
    "caveclient_rotate_grace": {"type": "float", "default": 310},
    "caveclient_rotate_ca_path": {"type": "path"},
    "caveclient_rotate_anyway": {"type": "bool", "default": False},
    "caveclient_rotate_other_person": {"type": "bool", "default": False},
    "caveclient_decommission_users": {"type": "list", "elements": "str"},
    "caveclient_decommission_found": {"type": "bool", "default": False},
    "caveclient_decommission_environment": {"type": "bool", "default": False},
    "caveclient_decommission_everywhere": {"type": "bool", "default": False},
    "caveclient_decommission_force": {"type": "bool", "default": False},
    "caveclient_decommission_revoke": {"type": "bool", "default": False},
    "caveclient_decommission_ca_path": {"type": "path"},
    "caveclient_enroll_user": {"type": "str"},
    "caveclient_enroll_vault": {"type": "path"},
    "caveclient_enroll_secret": {"type": "str"},
    "caveclient_enroll_variable": {"type": "str"},
    "caveclient_enroll_key": {"type": "str"},
    "caveclient_enroll_vault_id": {"type": "str"},
    "caveclient_enroll_format": {"type": "str", "choices": ["inline", "file"], "default": "inline"},
    "caveclient_enroll_new": {"type": "bool"},
    "caveclient_enroll_open_pages": {"type": "bool", "default": True},
    "caveclient_enroll_ca_path": {"type": "path"},
}
"""What playbooks read besides the role's variables, where it is this that has to say what is wrong with it."""
_DAY = 86400
_LIMITS = {
    "caveclient_timeout": (1, _DAY),
    "caveclient_task_timeout": (0, _DAY),
    "caveclient_retries": (0, 1000),
    "caveclient_rate": (0, 1_000_000),
    "caveclient_keep": (0, 1000),
}
_KINDS = {
    ("str", "str"): "text",
    ("path", "path"): "a path",
    ("bool", "bool"): "true or false",
    ("int", "int"): "a whole number",
    ("float", "float"): "a number",
    ("str", "list"): "a list of texts",
    ("path", "list"): "a list of paths",
    ("dict", "list"): "a list of mappings",
    ("raw", "list"): "a list",
}
_LONGEST_SHOWN = 20


@cache
def known_variables() -> frozenset[str]:
    """Return the variables of users that the role, the playbooks and the plugins of this collection read."""
    sources = [*(_COLLECTION / "roles").rglob("argument_specs.yml"), *(_COLLECTION / "playbooks").rglob("*.yml")]
    found = {name for path in sources for name in _VARIABLE.findall(path.read_text(encoding="utf-8"))}
    return frozenset(found | set(_OTHER_OPTIONS))


known_variables()  # in the process that Ansible's workers, one for each host, are copies of


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a sentence for each unknown variable whose name looks like one of this collection.

    That is each one that begins with ``caveclient_``, and one whose beginning is nearly that (``cavclient_tokens``)
    when the whole name is nearly a known one.
    """
    suspects = {name for name in names if name.startswith(_PREFIX) or _begins_nearly_so(name)}
    sentences = []
    for name in sorted(suspects - known_variables() if suspects else ()):
        known = sorted(known_variables())
        # caveclient_users for caveclient_audit_users, caveclient_server_address for caveclient_server
        longer = [other for other in known if other.endswith(f"_{name[len(_PREFIX) :]}")]
        shorter = [other for other in known if name.startswith(f"{other}_")]
        apart = 0.3 if name.startswith(_PREFIX) else 0.15
        question = choice_of(longer or shorter[-1:] or similar(name, known, apart))
        if question or name.startswith(_PREFIX):
            hint = question.replace(" D", ": d", 1) or "."
            sentences.append(f"{name} is no variable of this collection{hint}")
    return sentences


def _begins_nearly_so(name: str) -> bool:
    # Hundreds of names are asked about for every task of every host, and few of them pass this.
    if "c" not in name[:2].lower() or "_" not in name:
        return False
    return bool(similar(name[: len(_PREFIX)], [_PREFIX], apart=0.2))


@cache
def role_options() -> dict[str, Any]:
    """Return the options of the role, as an argument spec."""
    path = _COLLECTION / "roles" / "caveclient" / "meta" / "argument_specs.yml"
    options: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
    return options


def wrong_variables(
    variables: Mapping[str, Any], template: Callable[[Any], Any], names: Iterable[str] | None = None
) -> str:
    """Return what is wrong with a host's variables, which Ansible would say in a task of its own for each host.

    Args:
        variables: those of the host, as they are.
        template: fills one in.
        names: without ``caveclient_`` in front; None: those of the role, and whether to become root.

    Raises:
        AnsibleError: a variable cannot be filled in.
    """
    wanted = [*role_options(), "caveclient_become"] if names is None else [_PREFIX + name for name in names]
    complaints = []
    for name in wanted:
        if name in variables:
            try:
                complaints.append(_complaint(name, template(variables[name])))
            except AnsibleError as error:
                if not is_omission(error):
                    raise AnsibleError(f"{name} cannot be filled in: {error}") from error
    return "\n".join(filter(None, complaints))


def settings_of_run(
    names: Iterable[str], variables: Mapping[str, Any], host: str, template: Callable[[Any], Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the variables that a run reads once for all its hosts, by name, and a sentence for each that is wrong.

    The settings of a fleet may be those of a group that localhost is not in, or those of a site's import_playbook,
    which ``hostvars`` do not have. All variables of a host at once would be decrypted by ansible-core before 2.19, and
    need the vault's password.

    Args:
        names: without ``caveclient_`` in front.
        variables: of the task.
        host: the first of the hosts; empty where there is none.
        template: fills a variable of the task in.
    """
    hostvars: Any = variables["hostvars"]
    own = hostvars.raw_get(host) if host in hostvars else {}
    found, complaints = {}, []
    for name in names:
        variable = _PREFIX + name
        if variable not in own and variable not in variables:
            continue
        read = partial(hostvars[host].get, variable) if variable in own else partial(template, variables.get(variable))
        try:
            value = read()
            if isinstance(value, str) and "{{" in value:  # hostvars leave it as it is, before ansible-core 2.19
                value = template(value)
            complaint = _complaint(variable, value)
        except (AnsibleError, UndefinedError) as error:  # the second when it is used, where a lookup asks
            if not is_omission(error):
                complaints.append(f"{variable} cannot be filled in: {error}")
            continue
        if complaint:
            complaints.append(complaint)
        elif value is not None and not is_omitted(value):
            found[name] = value
    return found, complaints


def _complaint(name: str, value: Any) -> str:
    """Return what is wrong with a variable; empty where nothing is."""
    if is_omitted(value):
        return ""
    option = _OTHER_OPTIONS.get(name) or role_options().get(name) or {"type": "raw"}
    kind = option["type"]
    if name == "caveclient_wait":
        is_time = re.fullmatch(r"[0-9]{1,6}[hms]?", str(value))
        return "" if is_time else f"{name} is no time to wait: {_shown(value)}. Write 30m, 2h, 90s, or 90 for seconds."
    if value is None:
        # Text and paths are empty without one, as are those without a default.
        if "default" not in option or (kind in ("str", "path", "raw") and "choices" not in option):
            return ""
        default = json.dumps(option["default"])
        return f"{name} has no value. Give it one, or leave it out: the default is {default}."
    if name == "caveclient_hosts" and not split_host_pattern(value):
        return f"{name} names no host. Name hosts or groups, or leave it out."
    errors = ArgumentSpecValidator({name: option}).validate({name: value}).error_messages
    limits = _LIMITS.get(name)
    is_other = kind in ("str", "path", "int", "float") and isinstance(value, (bool, list, tuple, Mapping))
    items = enumerate(value, 1) if kind == "list" and isinstance(value, (list, tuple)) else ()
    wrong = [f"its item {number} is {_shown(item)}" for number, item in items if _is_wrong(item, option)]
    if is_other or (errors and "choices" not in option):
        wrong.append(f"is {_shown(value)}")
    if wrong:
        return f"{name} must be {_KINDS[option.get('elements') or kind, kind]}, and {wrong[0]}."
    if errors:
        return f"value of {name} must be one of: {', '.join(option['choices'])}, and is {_shown(value)}."
    if name == "caveclient_tokens":
        return next(filter(None, (wrong_entry(entry, number) for number, entry in enumerate(value, 1))), "")
    if limits and not limits[0] <= float(value) <= limits[1]:
        return f"{name} must be from {limits[0]} to {limits[1]}, and is {_shown(value)}."
    return ""


def _is_wrong(item: Any, option: Mapping[str, Any]) -> bool:
    """Return whether an item of a list cannot be one. Ansible makes text of all, of null and lists, too."""
    kind = option.get("elements", "raw")
    if kind == "raw":
        return False
    if item is None or (kind in ("str", "path") and isinstance(item, (list, tuple, Mapping))):
        return True
    return bool(ArgumentSpecValidator({"item": {"type": kind}}).validate({"item": item}).error_messages)


def wrong_entry(entry: Any, number: int, variable: str = "caveclient_tokens") -> str:
    """Return what is wrong with the form of a user's entry, without its values; empty where nothing is.

    The token is not filled in. Without a user it would go to the account that a task runs as, which is mostly root.

    Args:
        entry: with user and token.
        number: its place in the list, from 1.
        variable: the list.

    Raises:
        AnsibleError: its user or its state cannot be filled in.
    """
    place = f"Entry {number} of {variable}"
    if not isinstance(entry, Mapping):
        return f"{place} is not a mapping with user and token."
    user, state = (given(partial(entry.get, name)) for name in ("user", "state"))
    if user is None or (isinstance(user, str) and not user.strip()):
        return f"{place} names no user."
    if not isinstance(user, str):
        return f"{place} has a user that is not text. Put the name in quotes."
    return "" if state in (None, "present", "absent") else f"{place} has a state other than present and absent."


def _shown(value: Any) -> str:
    """Return a value for a message; a long one may be a secret in the wrong place."""
    if isinstance(value, (list, tuple, Mapping)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if not isinstance(value, str):
        return json.dumps(value, default=str)[:_LONGEST_SHOWN]
    return "another text" if len(value) > _LONGEST_SHOWN else f"'{value}'"
