# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module needs of ``ansible.module_utils.basic`` once its arguments were checked on the controller.

Sent to hosts under that name (``plugin_utils/_fast_transport.py``): Ansible's own is some 10,000 lines with all that it
imports, and each start compiles them anew. What a module prints, logs and hides is the same.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Mapping, NoReturn

from ansible_collections.connectomics.cave.plugins.module_utils._masking import HIDDEN, masked, secrets_among

arguments = "{}"
"""The module's arguments as JSON, which the program that was sent sets before it runs the module."""


class AnsibleModule:
    """The part of Ansible's class of this name that the modules of this collection use.

    Args:
        argument_spec: as Ansible's; all but the paths in it has been applied already.
        supports_check_mode: always true.
        checked: what else was checked on the controller.
    """

    def __init__(self, argument_spec: Mapping[str, Any], *, supports_check_mode: bool = True, **checked: Any) -> None:
        del supports_check_mode, checked
        self.argument_spec = argument_spec
        self.no_log_values: set[str] = set()
        self.params: dict[str, Any] = {}
        self._load_params()
        told = {name: self.params.pop(name) for name in list(self.params) if name.startswith("_ansible_")}
        self.no_log_values.update(secrets_among(self.params, argument_spec))
        for name, option in argument_spec.items():
            if option.get("type") == "path" and self.params[name]:
                # Here and not on the controller: ~ and variables are the host's.
                self.params[name] = os.path.expanduser(os.path.expandvars(self.params[name]))
        self.check_mode = bool(told.get("_ansible_check_mode"))
        self.tmpdir = told.get("_ansible_tmpdir")
        self._shown = masked(
            {
                name: HIDDEN if argument_spec[name].get("no_log") and value is not None else value
                for name, value in self.params.items()
            },
            self.no_log_values,
        )
        if not told.get("_ansible_no_log"):
            self._log(told)

    def _load_params(self) -> None:
        self.params = json.loads(arguments)

    def _log(self, told: Mapping[str, Any]) -> None:
        """Leave in the system's log what Ansible leaves there of each of its modules."""
        try:
            import syslog
        except ImportError:  # a Python that was built without
            return
        facility = getattr(syslog, str(told.get("_ansible_syslog_facility")), syslog.LOG_USER)
        syslog.openlog(f"ansible-{told.get('_ansible_module_name')}", 0, facility)
        words = [str(told.get("_ansible_target_log_info") or ""), "Invoked with"]
        words += [f"{name}={value}" for name, value in self._shown.items()]
        syslog.syslog(syslog.LOG_INFO, " ".join(filter(None, words)).replace("\0", ""))

    def exit_json(self, **result: Any) -> NoReturn:
        """Print the result, and end."""
        self._end({"changed": False, **result}, 0)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """Print a failure, and end."""
        self._end({**result, "failed": True, "msg": msg}, 1)

    def _end(self, result: Mapping[str, Any], status: int) -> NoReturn:
        shown = masked(result, self.no_log_values)
        sys.stdout.write(f"\n{json.dumps({**shown, 'invocation': {'module_args': self._shown}})}\n")
        sys.stdout.flush()
        os._exit(status)  # nothing is left to do, and to take everything down takes a tenth of the time
