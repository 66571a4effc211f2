# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Set a variable in an ansible-vault file: the part of vault_variable that runs, on the controller."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import plain_string, vault_secrets
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import (
    Change,
    remove_variable,
    set_variable,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import label

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "key": {"type": "str"},
    # Raw, because the message about a wrong type shows the value.
    "value": {"type": "raw", "no_log": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "vault_id": {"type": "str"},
    "format": {"type": "str", "choices": ["inline", "file"], "default": "inline"},
    "mode": {"type": "raw"},
}


class ActionModule(CaveAction):
    """Runs in the process of the controller, since that holds the vault secrets; no host is contacted."""

    spec = ARGUMENT_SPEC
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec=ARGUMENT_SPEC, required_if=[("state", "present", ("value",))]
        )
        try:
            change = self._change(options)
        except CaveError as error:
            return {**result, "failed": True, "msg": error.message, **error.details}
        name = label(_variable(options))
        result.update(change._asdict(), name=name)
        if change.was_plain:
            result["warnings"] = [
                f"{change.path}: {name} stood there in clear. Whoever could read the file has its value."
            ]
        if self._task.diff:
            result["diff"] = [_diff(name, change)]
        return result

    def _change(self, options: dict[str, Any]) -> Change:
        check, mode = bool(self._task.check_mode), _mode(options["mode"])
        secrets = vault_secrets(self._loader)
        path, variable = options["path"], _variable(options)
        if options["state"] == "absent":
            return remove_variable(path, variable, secrets, mode=mode, check=check)
        return set_variable(
            path,
            variable,
            plain_string(options["value"], f"The value for {label(variable)}"),
            secrets,
            vault_id=options["vault_id"],
            new_format=options["format"],
            mode=mode,
            check=check,
        )


def _variable(options: dict[str, Any]) -> tuple[str, ...]:
    return (options["name"],) if options["key"] is None else (options["name"], options["key"])


def _mode(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise CaveError(f"The mode {value!r} is not an octal number like '0600'.") from None


def _diff(name: str, change: Change) -> dict[str, str]:
    def side(value: str | None) -> str:
        return "" if value is None else f"{name}: {value}\n"

    before = None if change.previous_fingerprint is None else f"token {change.previous_fingerprint}"
    after = None if change.fingerprint is None else f"token {change.fingerprint}"
    if change.was_plain:
        before = f"{before}, in clear"
    return {"before_header": change.path, "after_header": change.path, "before": side(before), "after": side(after)}
