# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where enroll keeps one person's token: a variable of a vault file, or a secret of a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import Place, write_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.access import real_path
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import (
    read_variable,
    read_variables,
    set_variable,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import label

_UNLIKELY = "check" * 8
"""Stands for the token when it is tried whether a vault file can be written at all."""


class Keeper(Protocol):
    """Keeps a token.

    Attributes:
        name: of the token there.
        path: where that is.
        secured: how it is kept from others, as the end of a sentence.
        is_new: whether it comes into being with the token.
        template: the expression with which a variable reads the token.
    """

    name: str
    path: str
    secured: str
    is_new: bool
    template: str

    def read(self) -> str | None:
        """Return the token that is there; None without one. Raises CaveError."""

    def require_writable(self) -> None:
        """Raise CaveError when no token can be stored."""

    def write(self, token: str) -> bool:
        """Store a token, and return whether that changed anything. Raises CaveError."""

    def holder_of(self, token: str) -> str:
        """Return the name of another place beside this one that has a token; an empty string where none is known."""


class VaultVariable:
    """A variable of a vault file.

    Args:
        path: the file.
        variable: the name of the variable, and a key where it is a mapping.
        secrets: the vault ids and passwords of the run.
        vault_id: whose password encrypts something new.
        new_format: how a new file is encrypted.
        beside: other files of variables, in which the token may be already.
    """

    def __init__(
        self,
        path: str,
        variable: tuple[str, ...],
        secrets: Sequence[tuple[str, Any]],
        vault_id: str | None,
        new_format: str,
        beside: Iterable[str] = (),
    ) -> None:
        self._beside = beside
        self._variable = variable
        self._secrets = secrets
        self._vault_id = vault_id
        self._format = new_format
        self.name = label(variable)
        self.path = str(real_path(path))
        self.secured = ", encrypted"
        self.is_new = not Path(path).exists()
        self.template = "".join([variable[0], *(f"['{key}']" for key in variable[1:])])

    def read(self) -> str | None:
        """Return the token."""
        return read_variable(self.path, self._variable, self._secrets)

    def require_writable(self) -> None:
        """Raise CaveError when no token can be stored."""
        self._set(_UNLIKELY, check=True)

    def write(self, token: str) -> bool:
        """Store a token."""
        return self._set(token, check=False)

    def holder_of(self, token: str) -> str:
        """Return the name of another variable, of this file or one beside it, that has a token."""
        for path in dict.fromkeys([self.path, *map(os.path.realpath, self._beside)]):
            with contextlib.suppress(CaveError):  # it may be somebody else's
                for name, value in read_variables(path, self._secrets).items():
                    if value.strip() == token and name != self._variable:
                        return label(name) if path == self.path else f"{label(name)} in {path}"
        return ""

    def _set(self, token: str, check: bool) -> bool:
        change = set_variable(
            self.path,
            self._variable,
            token,
            self._secrets,
            vault_id=self._vault_id,
            new_format=self._format,
            check=check,
        )
        return change.changed


class StoredSecret:
    """A secret of a store. Those of other people there are not read."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store, self._name = place.open()
        self.name = str(self._name)
        self.path = self._store.label
        self.secured = ""
        self.is_new = False
        self.template = f"lookup('connectomics.cave.stored_token', '{place.name}')"

    def read(self) -> str | None:
        """Return the token."""
        return self._store.read(self._name)

    def require_writable(self) -> None:
        """Raise CaveError when no token can be stored."""
        self._store.require_writable(self._name)

    def write(self, token: str) -> bool:
        """Store a token, and read it back."""
        changed = self._store.read(self._name) != token
        write_token(self._place, token)
        return changed

    def holder_of(self, token: str) -> str:
        """Return nothing."""
        del token
        return ""
