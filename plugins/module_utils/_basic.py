# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for ``ansible.module_utils.basic`` on a host when the arguments were checked on the controller.

Only the fast way uses it (``plugin_utils/_fast_transport.py``). What a module prints, logs and hides is the same.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Mapping, NoReturn

from ansible_collections.connectomics.cave.plugins.module_utils._masking import HIDDEN, masked, secrets_among

arguments = "{}"
"""The module's arguments as JSON; the program that was sent sets it, and the name, before it runs the module."""
name = ""


class AnsibleModule:
    """The part of Ansible's class that ``_module.Module`` names, and what ``CaveModule`` adds to.

    Of the argument spec, all but the paths in it has been applied already.
    """

    def __init__(self, argument_spec: Mapping[str, Any], *, supports_check_mode: bool = True, **checked: Any) -> None:
        del supports_check_mode, checked
        self.argument_spec = argument_spec
        self.no_log_values: set[str] = set()
        self.params: dict[str, Any] = {}
        self._load_params()
        told = {key: self.params.pop(key) for key in list(self.params) if key.startswith("_ansible_")}
        self.no_log_values.update(secrets_among(self.params, argument_spec))
        for key, option in argument_spec.items():
            if option.get("type") == "path" and self.params[key]:
                # Here and not on the controller: ~ and variables are the host's.
                self.params[key] = os.path.expanduser(os.path.expandvars(self.params[key]))
        self.check_mode = bool(told.get("_ansible_check_mode"))
        self.tmpdir: str | None = told.get("_ansible_tmpdir")
        secret = {key for key, value in self.params.items() if argument_spec[key].get("no_log") and value is not None}
        self._shown = masked({**self.params, **dict.fromkeys(secret, HIDDEN)}, self.no_log_values)
        self._shows_arguments = told.get("_ansible_inject_invocation", True)  # before ansible-core 2.21, always
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
        syslog.openlog(f"ansible-{name}", 0, facility)
        words = [str(told.get("_ansible_target_log_info") or ""), "Invoked with"]
        words += [f"{key}={value}" for key, value in self._shown.items()]
        syslog.syslog(syslog.LOG_INFO, " ".join(filter(None, words)).replace("\0", ""))

    def exit_json(self, **kwargs: Any) -> NoReturn:
        """Print the result, and end."""
        self._end({"changed": False, **kwargs}, 0)

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """Print a failure, and end."""
        self._end({**kwargs, "failed": True, "msg": msg}, 1)

    def _end(self, result: Mapping[str, Any], status: int) -> NoReturn:
        shown = masked(result, self.no_log_values)
        invocation = {"invocation": {"module_args": self._shown}} if self._shows_arguments else {}
        sys.stdout.write(f"\n{json.dumps({**shown, **invocation})}\n")
        sys.stdout.flush()
        os._exit(status)  # nothing is left to do, and to take everything down takes a tenth of the time
