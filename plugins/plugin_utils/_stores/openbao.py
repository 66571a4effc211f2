# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OpenBao and HashiCorp Vault, version 2 of their key-value engine: through the lookups of community.hashi_vault.

That collection knows all ways to authenticate. A lookup runs in this process, so a token goes from memory to the
server's HTTP interface.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ansible.plugins.loader import lookup_loader

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import harmless
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Name, Secret, Store

KEY = "token"
"""The key of a secret that holds the token, unless another one is named."""


class OpenBao(Store):
    """A server with secrets of several keys, each write of which names the version that it replaces."""

    options = ("mount",)

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        super().__init__(settings, folder)
        self._mount = str(settings.get("mount") or "secret").strip("/")
        self._connection = {name: value for name, value in settings.items() if name not in self.options}
        known = ("ANSIBLE_HASHI_VAULT_ADDR", "VAULT_ADDR")
        url = settings.get("url") or next(filter(None, map(os.environ.get, known)), "the default address")
        self.label = f"OpenBao at {url} (mount {self._mount})"

    def known_options(self) -> Collection[str]:
        """Return the settings of this store, and those of the collection that reaches it."""
        return (*self.options, *sorted({*_lookup("vault_read").option_definitions} - {"_terms"}))

    def name(self, text: str) -> Name:
        """Return what names a token."""
        name = super().name(text)
        return name._replace(path=name.path.strip("/"), key=name.key or KEY)

    def fetch(self, path: str) -> Secret | None:
        """Return a secret; None where there is none."""
        try:
            found = self._ask("vault_read", f"{self._mount}/data/{path}", "read")["data"]
        except _NotThereError:
            return None
        if not isinstance(found, Mapping) or not isinstance(found.get("metadata"), Mapping):
            raise CaveError(
                f"the mount {self._mount} is not version 2 of the key-value engine. Turn it into that "
                f"(bao kv enable-versioning {self._mount}), or name another mount."
            )
        return Secret(dict(found["data"]), found["metadata"]["version"])

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Write a secret, unless somebody else has done so since it was read."""
        version = old.version if old else self._last_version(path)
        data = {"data": content, "options": {"cas": version}}
        self._ask("vault_write", f"{self._mount}/data/{path}", "create and update", data=data)

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Ask the server what the one who asks may do."""
        del content, check
        full, needed = f"{self._mount}/data/{path}", "update" if old else "create"
        answer = self._ask("vault_write", "sys/capabilities-self", "update", data={"paths": [full]})
        allowed = (answer.get("data") or answer).get(full) or ()
        if not {"root", needed} & set(allowed):
            raise CaveError(
                f"the policy allows {', '.join(allowed) or 'nothing'} on {full}, and not {needed}. "
                f'Add it to the policy: path "{full}" {{ capabilities = ["read", "create", "update"] }}'
            )

    def _last_version(self, path: str) -> int:
        """Return the version of a secret that was deleted; 0 where there never was one, or nobody may know."""
        try:
            return int(self._ask("vault_read", f"{self._mount}/metadata/{path}", "read")["data"]["current_version"])
        except CaveError:
            return 0

    def _with(self, content: Any, name: Name, token: str) -> Any:
        return super()._with({} if content is None else content, name, token)

    def _ask(self, lookup: str, path: str, capability: str, **options: Any) -> Any:
        try:
            return _lookup(lookup).run([path], variables={}, **{**self._connection, **options})[0]
        except Exception as error:  # noqa: BLE001 (each way to authenticate has errors of its own)
            raise _explained(error, path, capability) from None


class _NotThereError(CaveError):
    """There is no such secret."""


def _lookup(name: str) -> Any:
    found = lookup_loader.get(f"community.hashi_vault.{name}")
    if found is None:
        raise CaveError(
            "the collection community.hashi_vault is not installed. "
            "Install it: ansible-galaxy collection install community.hashi_vault"
        )
    return found


def _explained(error: BaseException, path: str, capability: str) -> CaveError:
    """Return why the server gave no answer, and what to do."""
    chain = list(_causes(error))
    kinds = {kind.__name__ for item in chain for kind in type(item).__mro__}
    text = " ".join(map(str, chain))
    if "seem to exist" in text or "InvalidPath" in kinds:
        return _NotThereError("there is no such secret.")
    if "Forbidden" in kinds or "Forbidden" in text or "permission denied" in text:
        return CaveError(
            "permission denied. Either what you authenticate with (VAULT_TOKEN, or auth_method in caveclient_store) is "
            f"wrong or has expired, or its policy does not allow {capability} on {path}."
        )
    if "VaultDown" in kinds:
        return CaveError("the server is sealed or standing by. Unseal it (bao operator unseal), then run again.")
    if "RequestException" in kinds:
        return CaveError(
            "the server does not answer. Start it, or correct its address (VAULT_ADDR, or url in caveclient_store)."
        )
    if "check-and-set" in text:
        return CaveError("somebody else has changed it in the meantime, or it was deleted. Look at it, then run again.")
    if "hvac" in text and "import" in text:
        return CaveError("hvac is missing. Install it into Ansible's Python: pip install hvac")
    return CaveError(f"{type(error).__name__}: {harmless(str(error))}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
