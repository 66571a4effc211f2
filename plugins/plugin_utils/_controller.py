# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plugins on the controller need of Ansible, alike on all versions of ansible-core that are supported."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unforeseen

_ENCRYPTED_STRINGS = ("EncryptedString", "AnsibleVaultEncryptedUnicode")
"""Ansible's types for a vault string that is decrypted on use (ansible-core 2.19 and later, and before)."""


LIKE_A_TOKEN = re.compile(r"[0-9A-Fa-f]{32}|[A-Za-z0-9+/=_-]{40,}")
"""What looks so much like a token that it is hidden wherever it stands."""

_HIDDEN = "********"
_HARMLESS = frozenset(
    [
        "action", "ca_path", "check", "cloud_volume_dir", "datastacks", "dest", "extras", "fail", "format", "grace",
        "group", "hosts", "installer", "interpreter", "junit", "keep", "key", "local_server", "method", "mode",
        "name", "on_malformed", "path", "pending", "pending_ok", "python", "rate", "results", "retries",
        "secrets_dir", "server", "stale", "state", "step", "strategy", "timeout", "title", "user", "users",
        "validate", "vault_file", "vault_id", "version"
    ]
)  # fmt: skip
"""Options in which no token belongs."""


def protected(run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make the ``run`` of an action plugin show no token but in what it returns on purpose.

    Ansible hands a task's arguments to every callback plugin once the task is over, and some of these send them to a
    log server or a database. And it prints the message of an error that nobody thought of, which may quote a token.
    """

    @functools.wraps(run)
    def protecting(self: Any, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # With retries, a task is run again with what is left in its arguments.
        self._given = given = getattr(self, "_given", self._task.args)
        self._task.args = given
        try:
            return run(self, tmp, task_vars)
        except AnsibleError:
            raise
        except Exception as error:  # noqa: BLE001 (see above)
            message = unforeseen(error)
        finally:
            self._task.args = shown_arguments(given)
        return {"failed": True, "changed": False, "msg": message}

    return protecting


def shown_arguments(args: Any) -> dict[str, Any]:
    """Return a task's arguments without what is a token or could be one."""
    return {
        str(name): value
        if value is None
        or isinstance(value, bool)
        or (name in _HARMLESS and (isinstance(value, (int, float)) or _is_harmless(value)))
        else _HIDDEN
        for name, value in args.items()
    }


def _is_harmless(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, str) and _is_harmless(item) for item in value)
    return isinstance(value, str) and not any(map(LIKE_A_TOKEN.fullmatch, value.split()))


class _Unshown(str):
    """A string that is itself everywhere but in the representation of what holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{_HIDDEN}'"


def without_shown_tokens(value: Any, name: object = None) -> Any:
    """Return a task's arguments such that printing them shows no token, and nothing that could be one.

    With ANSIBLE_DEBUG, Ansible prints a module's arguments before the module has had a chance to mask any, and after
    it has refused them because one is misspelt.
    """
    if isinstance(value, dict):
        return {key: without_shown_tokens(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_shown_tokens(item, name) for item in value]
    if isinstance(value, str) or type(value).__name__ in _ENCRYPTED_STRINGS:
        plain = plain_string(value, "The token")
        return plain if name in _HARMLESS and _is_harmless(plain) else _Unshown(plain)
    return value


def vault_secrets(loader: Any) -> list[tuple[str, Any]]:
    """Return the vault ids and secrets that this run was started with; empty when it was started without any.

    ``loader`` is what Ansible hands to a plugin. There is no public way to them in any version.
    """
    return list(loader._vault.secrets or [])


def plain_string(value: object, what: str) -> str:
    """Return a templated value as a plain ``str``, without the tags and the lazy decryption that Ansible adds.

    Raises CaveError when it isn't a string; ``what`` names it in the message, which never shows it.
    """
    if isinstance(value, str):
        return "".join(value)
    if type(value).__name__ in _ENCRYPTED_STRINGS:
        return "".join(str(value))
    if isinstance(value, (bool, int, float)):
        kind = "a boolean" if isinstance(value, bool) else "a number"
        raise CaveError(f"{what} is not a string: YAML read it as {kind}. Put it in quotes.")
    raise CaveError(f"{what} is not a string.")
