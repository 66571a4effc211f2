# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way through a module: its arguments in, its result out, and no token in what is printed or logged."""

from __future__ import annotations

import atexit
import gc
import json
import sys
from typing import Any, Callable, Mapping, NoReturn, Protocol

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, require_limits, unexpected
from ansible_collections.connectomics.cave.plugins.module_utils._masking import misplaced_secret, strings_out_of_place
from ansible_collections.connectomics.cave.plugins.module_utils._text import readable

TRANSPORT = {"fast": {"type": "bool"}, "allow_remote_files": {"type": "bool"}}
"""Options that are for the action plugins alone."""


class Module(Protocol):
    """What the modules of this collection may use of ``AnsibleModule``: there is not more of it on the fast way."""

    params: dict[str, Any]
    check_mode: bool
    no_log_values: set[str]

    @property
    def tmpdir(self) -> str | None:
        """The folder for the task's temporary files."""

    def exit_json(self, **kwargs: Any) -> NoReturn:
        """Print the result, and end."""

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """Print a failure, and end."""


class CaveModule(AnsibleModule):
    """Like ``AnsibleModule``, but no token in the wrong place is printed or logged.

    ``AnsibleModule`` refuses a misspelt option before it knows what is secret, and prints all options along with that.
    """

    def _load_params(self) -> None:
        super()._load_params()
        complaint = misplaced_secret(self.params, self.argument_spec)
        if complaint:
            # Not by fail_json, which would log and print what is wrong.
            sys.stdout.write("\n" + json.dumps({"failed": True, "changed": False, "msg": complaint}) + "\n")
            raise SystemExit(1)
        self.no_log_values.update(strings_out_of_place(self.params, self.argument_spec))


def run_module(arguments: Mapping[str, Any], work: Callable[[Module], Mapping[str, Any]]) -> None:
    """Do a module's work, and end the module with what came of it.

    Args:
        arguments: what is checked of the arguments, as ``AnsibleModule`` takes it.
        work: returns the result, or raises a CaveError.
    """
    atexit.register(gc.freeze)  # else Python searches all that was imported for garbage once more before it ends
    module: Module = CaveModule(**arguments, supports_check_mode=True)
    failed = True
    try:
        require_limits(module.params["timeout"], module.params.get("retries") or 0)
        result, failed = dict(work(module)), False
    except CaveError as error:
        result = {**error.details, "msg": error.message}
    except Exception as error:  # noqa: BLE001 (Ansible would print its message, and that may quote a token)
        result = {"msg": unexpected(error)}
    # Not while the error is being handled: with a high verbosity Ansible would print it, and all that led to it.
    if failed:
        module.fail_json(**readable(result))
    module.exit_json(**readable(result))
