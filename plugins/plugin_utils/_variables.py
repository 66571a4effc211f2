# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of users: which this collection reads, and what is wrong with those of a host."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean, similar
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import is_omitted

_COLLECTION = Path(__file__).parents[2]
_VARIABLE = re.compile(r"(?<![A-Za-z0-9_])caveclient_[a-z0-9_]*[a-z0-9]")
_PREFIX = "caveclient_"


@cache
def known_variables() -> frozenset[str]:
    """Return the variables of users that the role, the playbooks and the plugins of this collection read."""
    sources = [*(_COLLECTION / "roles").rglob("argument_specs.yml"), *(_COLLECTION / "playbooks").rglob("*.yml")]
    return frozenset(name for path in sources for name in _VARIABLE.findall(path.read_text(encoding="utf-8")))


known_variables()  # in the process that Ansible's workers, one for each host, are copies of


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a sentence for each unknown variable whose name looks like one of this collection.

    That is each one that begins with ``caveclient_``, and one whose beginning is nearly that (``cavclient_tokens``)
    when the whole name is nearly a known one.
    """
    suspects = {name for name in names if name.startswith(_PREFIX) or _begins_nearly_so(name)}
    sentences = []
    for name in sorted(suspects - known_variables() if suspects else ()):
        question = did_you_mean(name, sorted(known_variables()), apart=0.3 if name.startswith(_PREFIX) else 0.15)
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


def wrong_variables(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> str:
    """Return what Ansible's own validation of the role's arguments would say, which is a task for each host by itself.

    Raises AnsibleError for a variable that cannot be filled in.
    """
    values = template({name: variables[name] for name in role_options() if name in variables})
    values = {name: value for name, value in values.items() if not is_omitted(value)}
    empty = [name for name in values if _lacks_value(values, name)]
    errors = [
        f"{name} has no value. Give it one, or leave it out: the default is "
        f"{json.dumps(role_options()[name]['default'])}."
        for name in empty
    ]
    rest = {name: value for name, value in values.items() if name not in empty}
    errors += ArgumentSpecValidator(role_options()).validate(rest).error_messages
    return "\n".join(["Validation of arguments failed:", *errors]) if errors else ""


def _lacks_value(values: Mapping[str, Any], name: str) -> bool:
    """Return whether a variable is null where a value is needed, which for text and paths it is not."""
    option = role_options()[name]
    if values[name] is not None or "default" not in option:
        return False
    return bool(ArgumentSpecValidator({name: option}).validate({name: None}).error_messages)
