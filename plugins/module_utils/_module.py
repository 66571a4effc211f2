# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An Ansible module that shows no token, also when the token stands in the wrong place."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, Mapping

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unforeseen
from ansible_collections.connectomics.cave.plugins.module_utils._masking import strings_in
from ansible_collections.connectomics.cave.plugins.module_utils._text import readable

# Shorter strings are no tokens, and to hide them would make messages unreadable.
_MAY_BE_A_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{8,}=*")


class CaveModule(AnsibleModule):
    """Like ``AnsibleModule``, but hides what stands where its options have no place for it.

    ``AnsibleModule`` refuses a misspelt option before it knows what is secret, and prints all options along with that.
    """

    def _load_params(self) -> None:
        super()._load_params()
        self.no_log_values.update(strings_out_of_place(self.params, self.argument_spec))


def answer(module: AnsibleModule, work: Callable[[], Mapping[str, Any]]) -> None:
    """Do a module's work, and end the module with what came of it.

    Args:
        module: the module.
        work: returns the result, or raises a CaveError.
    """
    failed = True
    try:
        result, failed = dict(work()), False
    except CaveError as error:
        result = {**error.details, "msg": error.message}
    except Exception as error:  # noqa: BLE001 (Ansible would print its message, and that may quote a token)
        result = {"msg": unforeseen(error)}
    result = readable(result)
    # Not while the error is being handled: with a high verbosity Ansible would print it, and all that led to it.
    if failed:
        module.fail_json(**result)
    module.exit_json(**result)


def strings_out_of_place(params: Mapping[str, Any], spec: Mapping[str, Any]) -> set[str]:
    """Return the strings among a module's parameters for which its argument spec has no place."""
    # Parts of strings too, for AnsibleModule makes a mapping of a string that looks like one.
    return {part for text in _out_of_place(params, spec) for part in _MAY_BE_A_TOKEN.findall(text)}


def _out_of_place(value: Any, spec: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield from strings_in(value)
        return
    for name, inner in value.items():
        if name not in spec:
            if not str(name).startswith("_ansible_"):
                yield from strings_in(inner)
        elif spec[name].get("options") and inner is not None:
            for item in inner if isinstance(inner, list) else [inner]:
                is_expected = isinstance(inner, list) or spec[name]["type"] == "dict"
                yield from _out_of_place(item, spec[name]["options"] if is_expected else {})
