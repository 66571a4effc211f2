# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Save the tokens of a rotation on one host; the documentation is in the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.modules import saved_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import TokenAction, tokens_to_prove
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import vault_secrets
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import steps as _steps
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import Subject

OWN = ("tokens", "subjects", "looked", "saved", "stopped", "refused")


class ActionModule(TokenAction):
    """Puts the new tokens in the place of the old ones, and runs saved_token on the host."""

    module = saved_token

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result, which is that of saved_token."""
        super(TokenAction, self).run(tmp, task_vars)
        args = self._task.args
        subjects = [Subject.of(entry) for entry in args.get("subjects") or []]
        looked = args.get("looked") or {}
        if looked.get("unreachable"):
            # Asking it once more would make all others wait once more.
            return {"unreachable": True, "changed": False, "msg": str(looked.get("msg") or "It could not be reached.")}
        if args.get("stopped"):
            return {"failed": True, "changed": False, "msg": str(args["stopped"])}
        host = str((task_vars or {}).get("inventory_hostname"))
        variables = {
            "caveclient_tokens": args.get("tokens"),
            "caveclient_server": args.get("server"),
            "caveclient_datastacks": args.get("datastacks"),
        }
        try:
            holders = _steps.holders_of(host, variables)
        except CaveError as error:
            return {"failed": True, "changed": False, "msg": error.message}
        entries, others = self._entries(args.get("tokens") or [], holders, subjects)
        told = [*(looked.get("users") or ()), *((args.get("saved") or {}).get("users") or ())]
        proven = [_proof(entry, server, told) for entry, server in entries]
        # The server is everybody's: what it has said about a token on this host it is not asked again.
        tokens = [
            {**entry, "validate": False} if proof else entry
            for (entry, _server), proof in zip(entries, proven, strict=True)
        ]
        result = self._saved(tokens, task_vars) if tokens else {"changed": False, "users": []}
        for user, proof in zip(cast("list[dict[str, Any]]", result.get("users") or []), proven, strict=False):
            if proof:
                user.setdefault("access", proof)
        return _with(result, others)

    def _entries(
        self, given: Any, holders: list[_steps.Holder], subjects: list[Subject]
    ) -> tuple[list[tuple[dict[str, Any], str]], list[dict[str, Any]]]:
        """Return the entries for saved_token, each with its server, and the results of those who get nothing."""
        present = [entry for entry in given if entry.get("state") != "absent"]
        entries, others = [], []
        secrets = vault_secrets(self._loader)
        for entry, holder in zip(present, holders, strict=True):
            subject = next((item for item in subjects if item.holds(holder.server, _steps.named(holder))), None)
            if subject is not None and subject.action == "left_out":
                continue
            try:
                token = _steps.token_for(subject, holder, secrets)
            except CaveError as error:
                if self._task.args.get("refused") == "left_out":
                    continue
                access = subject.access if subject is not None and subject.refused else None
                others.append(
                    _outcome(holder, failed=True, msg=error.message, **({"access": access} if access else {}))
                )
                continue
            if token is None:
                others.append(_outcome(holder, changed=True))
            else:
                entries.append(({**entry, "token": token}, holder.server))
        return entries, others

    def _saved(self, entries: list[dict[str, Any]], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        args = {name: value for name, value in self._task.args.items() if name not in OWN}
        args["tokens"] = entries
        return self.run_on_host(args, task_vars)

    def requests(self, args: dict[str, Any]) -> int:
        """Return one for each token that is still to be proven."""
        return tokens_to_prove(args)


def _proof(entry: Mapping[str, Any], server: str, told: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the server has said about an entry's token on this host before; None unless that was good."""
    for found in told:
        access = found.get("access") or {}
        if (found.get("user"), found.get("server"), access.get("verdict")) == (
            entry.get("user"),
            server,
            "ok",
        ) and access.get("fingerprint") == fingerprint(entry["token"]):
            return dict(access)
    return None


def _outcome(holder: _steps.Holder, **found: Any) -> dict[str, Any]:
    return {"user": holder.user, "server": holder.server, "changed": False, "files": [], **found}


def _with(result: Mapping[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a result together with those of users for whom the module was not run."""
    both = {**result, "users": [*(result.get("users") or []), *others]}
    both["changed"] = bool(result.get("changed")) or any(item["changed"] for item in others)
    failed = [f"{item['user']}: {item['msg']}" for item in others if item.get("failed")]
    if failed:
        both["failed"] = True
        both["msg"] = " ".join([*([str(result["msg"])] if result.get("msg") else []), *failed])
    return both
