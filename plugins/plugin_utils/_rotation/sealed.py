# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand tokens from one task of a run to a later one, through results that anybody may read.

Ansible prints what a task returns, so a token must not be in it. Here it is encrypted with a key that exists in the
memory of this run alone: the controller's process makes it when it loads the plugin, and the processes that run the
tasks are copies of that one. Nobody can open it afterwards, not even somebody with the log and all passwords.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import plain_string

_KEY = base64.urlsafe_b64encode(os.urandom(32))
_REPLACED = "cave-replaced"


class NotSealedError(Exception):
    """A text was not sealed by this run."""


class _Box:
    """Encrypts with the key of this run."""

    def __init__(self) -> None:
        # Ansible needs this package itself; its sanity tests import plugins without it.
        from cryptography import fernet

        self._fernet = fernet.Fernet(_KEY)
        self._refusal = fernet.InvalidToken

    def encrypt(self, content: bytes) -> bytes:
        """Return the content, closed."""
        return self._fernet.encrypt(content)

    def decrypt(self, closed: bytes) -> bytes:
        """Return what ``encrypt`` was given. Raises NotSealedError for what this run has not closed."""
        try:
            return self._fernet.decrypt(closed)
        except self._refusal:
            raise NotSealedError from None


@functools.cache
def _box() -> _Box:
    return _Box()


with contextlib.suppress(ImportError):
    _box()  # in the process that Ansible's workers, one for each host, are copies of


def seal(token: str) -> str:
    """Return a text that only this run can open."""
    return _box().encrypt(token.encode()).decode("ascii")


def unseal(text: str) -> str | None:
    """Return the token that ``seal`` was given; None when it was in another run (or a process that is no copy)."""
    try:
        return _box().decrypt(text.encode()).decode()
    except NotSealedError:
        return None


def opened(item: Any) -> Any:
    """Return the token that was sealed; for a mapping with ``sealed``, the mapping with ``token`` in its place.

    Raises NotSealedError for what another run has sealed.
    """
    if isinstance(item, Mapping):
        rest = {str(key): value for key, value in item.items() if key != "sealed"}
        return {**rest, "token": opened(item["sealed"])}
    token = unseal(str(item))
    if token is None:
        raise NotSealedError
    return token


def seal_state(state: Any) -> str:
    """Return what a step knows, for the next one."""
    return _box().encrypt(zlib.compress(pickle.dumps(state), 1)).decode("ascii")


def unseal_state(text: str) -> Any:
    """Return what ``seal_state`` was given. Raises NotSealedError for what this run has not sealed."""
    return pickle.loads(zlib.decompress(_box().decrypt(text.encode())))  # noqa: S301 (only this process can have sealed it)


# Variables that are older than the tokens in the vault ----------------------------------------------------------------


def remember(old: str, new: str) -> None:
    """Note that a token was replaced: Ansible goes on with the variables that it read when the run began."""
    handle = os.open(_replaced_file(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"{seal(old)} {seal(new)}\n")


def replaced_in_this_run() -> dict[str, str]:
    """Return the tokens that took the place of others in this run."""
    with contextlib.suppress(FileNotFoundError):
        lines = _replaced_file().read_text(encoding="ascii").splitlines()
        pairs = [[unseal(part) for part in line.split()] for line in lines]
        return {old: new for old, new in pairs if old and new and old != new}
    return {}


def with_renewed_tokens(args: dict[str, Any], option: str) -> dict[str, Any]:
    """Return a task's arguments with the tokens that took the place of others in this run."""
    entries: Any = args.get(option)
    renewed = replaced_in_this_run() if isinstance(entries, (list, tuple)) else {}
    if not renewed:
        return args
    return {**args, option: [_renewed(entry, renewed) if isinstance(entry, Mapping) else entry for entry in entries]}


def _renewed(entry: Mapping[str, Any], renewed: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        token = clean_token(plain_string(entry.get("token"), "The token"))
    except (CaveError, AnsibleError):
        return entry
    while token in renewed:
        token = renewed[token]
    return {**entry, "token": token}


def _replaced_file() -> Path:
    # The folder is that of the run, whose end removes it.
    return Path(str(constants.DEFAULT_LOCAL_TMP), _REPLACED)
