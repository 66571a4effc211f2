# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host's saved_token module run when it is the host's turn to ask the server, and notice tokens that expire."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER, server_address
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import (
    EXPIRING,
    TokenApi,
    expiring_message,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.modules import saved_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction, tokens_to_prove
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import given, plain_string
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import claim
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import opened, with_renewed_tokens

display = Display()
PATIENCE = 10
"""Seconds that the server gets to say whether a token expires: the answer is worth a warning and no failure."""


class ActionModule(TokenAction):
    """See plugins/modules/saved_token.py for the options."""

    module = saved_token
    entries = "tokens"
    _of_rotation = False  # its report says what there is to say of a token

    def with_settings(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's arguments; in tokens that a rotation hands over, what it has sealed is opened."""
        completed = super().with_settings(args, task_vars)
        if "tokens" not in completed and "__caveclient_variables" in task_vars:
            completed["tokens"] = []  # the role gives a list, unless a template has left that out
        entries = completed["tokens"] if "tokens" not in args and isinstance(completed.get("tokens"), list) else []
        self._of_rotation = any(isinstance(entry, Mapping) and "sealed" in entry for entry in entries)
        if self._of_rotation:
            completed["tokens"] = [opened(entry) for entry in entries]
        return completed

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the tokens that a rotation has made in this run."""
        return with_renewed_tokens(args, "tokens")

    def asks(self, args: Mapping[str, Any]) -> bool:
        """Return whether any token is proven."""
        return tokens_to_prove(args) > 0

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each token that is proven."""
        return tokens_to_prove(args)

    def run_on_host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module, and warn of what looks wrong about whose token it is, or leave that to a playbook's report.

        For the report, add whose tokens expire by themselves.
        """
        result = super().run_on_host(args, task_vars)
        variables = task_vars or {}
        if self._of_rotation:
            return result
        if not variables.get("__caveclient_note_tokens"):
            told = [text for user in result.get("users") or () for text in user.get("warnings") or ()]
            return {**result, "warnings": [*result.get("warnings", ()), *dict.fromkeys(told)]} if told else result
        if not isinstance(args.get("tokens"), (list, tuple)):
            return result
        proven = {
            (user.get("user"), user.get("fingerprint"))
            for user in result.get("users") or ()
            if (user.get("access") or {}).get("verdict") == "ok"
        }
        found = [text for entry in args["tokens"] for text in self._expiring(entry, args, proven, variables)]
        return {**result, "expiring": found} if found else result

    def _expiring(
        self, entry: Any, args: Mapping[str, Any], proven: Collection[tuple[Any, Any]], variables: Mapping[str, Any]
    ) -> list[str]:
        """Return a sentence when the token of an entry expires by itself; each token is asked about once a run."""
        names = ("caveclient_rotate_ca_path", "caveclient_ca_path")
        bundles = [given(partial(self._templar.template, variables.get(name))) for name in names]
        # The hosts' bundle may lie elsewhere than the controller's.
        ca_path = next((str(path) for path in bundles if path and Path(str(path)).is_file()), None)
        try:
            token = clean_token(plain_string(entry.get("token"), "The token"))
            if (entry.get("user"), fingerprint(token)) not in proven or not claim("kind", fingerprint(token)):
                return []
            server = server_address(entry.get("server") or args.get("server") or DEFAULT_SERVER)
            kind = TokenApi(server, token, timeout=PATIENCE, retries=0, ca_path=ca_path).kind().kind
        except (AttributeError, CaveError, AnsibleError) as error:
            display.vvv(f"Whether a token expires could not be asked: {type(error).__name__}")
            return []
        return [f"{entry['user']}: {expiring_message(server, token)}"] if kind == EXPIRING else []
