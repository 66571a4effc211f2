# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plugins on the controller need of Ansible, alike on all versions of ansible-core that are supported."""

from __future__ import annotations

from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

_ENCRYPTED_STRINGS = ("EncryptedString", "AnsibleVaultEncryptedUnicode")
"""Ansible's types for a vault string that is decrypted on use (ansible-core 2.19 and later, and before)."""


class _Unshown(str):
    """A string that is itself everywhere but in the representation of what holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


def without_shown_tokens(value: Any, name: object = None) -> Any:
    """Return a task's arguments with every ``token`` in them such that printing the arguments doesn't show it.

    With ANSIBLE_DEBUG, Ansible prints a module's arguments before the module has had a chance to mask any.
    """
    if isinstance(value, dict):
        return {key: without_shown_tokens(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_shown_tokens(item, name) for item in value]
    if name == "token" and (isinstance(value, str) or type(value).__name__ in _ENCRYPTED_STRINGS):
        return _Unshown(plain_string(value, "The token"))
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
