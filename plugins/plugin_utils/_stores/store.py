# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Token stores beside ansible-vault: what they have in common. Each has a class of its own in a file of its own.

A store is reached through its maintained client. A token goes there in memory or on a standard input: it is on no
command line, in no file on the way, and in no message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

READ_BACK_AFTER = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try to read back what was stored: a cloud may take a moment to show it."""


class Name(NamedTuple):
    """What names a token in a store: a path, and the key when the secret there holds several values."""

    path: str
    key: str = ""

    def __str__(self) -> str:
        """Return it as users write it."""
        return f"{self.path}#{self.key}" if self.key else self.path


class Secret(NamedTuple):
    """A secret as a store has it: its text, or its keys and values; and the version of it, where there is one."""

    content: Any
    version: Any = None


class Store:
    """A place for tokens. What is written is read back before anybody depends on it.

    Args:
        settings: the options of the store, from ``caveclient_store``.
        folder: the one that relative paths begin at.

    Raises:
        CaveError: there is an option that the store does not know.
    """

    label: str
    """Names the store in messages, as in "cave/alice in LABEL"."""
    options: ClassVar[tuple[str, ...]] = ()
    """The settings that it knows."""

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        self.settings = settings
        self.folder = folder
        known = self.known_options()
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise CaveError(
                f"caveclient_store has {', '.join(unknown)}, which this store does not know. "
                f"It knows: {', '.join(known) or 'no options'}."
            )

    def known_options(self) -> Collection[str]:
        """Return the names of the settings."""
        return self.options

    # What each store does in its own way. Each raises CaveError with the reason and what to do about it.

    def fetch(self, path: str) -> Secret | None:
        """Return a secret; None where there is none."""
        raise NotImplementedError

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Put ``content`` in the place of what ``fetch`` returned."""
        raise NotImplementedError

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Raise CaveError when ``put`` would fail. With ``check``, nothing may be tried that leaves a trace."""
        raise NotImplementedError

    # What they have in common

    def name(self, text: str) -> Name:
        """Return what names a token, from ``PATH`` or ``PATH#KEY``."""
        path, _sign, key = text.partition("#")
        if not path:
            raise CaveError(f"{text!r} names no secret. Expected: a path such as cave/alice, or PATH#KEY.")
        return Name(path, key)

    def where(self, name: Name) -> str:
        """Return what says where a token is, in messages."""
        return f"{name} in {self.label}"

    def read(self, name: Name) -> str | None:
        """Return a token; None where there is none."""
        with self._explained(name, "be read"):
            secret = self.fetch(name.path)
            return None if secret is None else self._value(secret.content, name)

    def require_writable(self, name: Name, check: bool = False) -> None:
        """Raise CaveError when a token could not be stored. ``check`` is that of ``require_put``."""
        with self._explained(name, "be written"):
            old = self.fetch(name.path)
            content = self._with(old.content if old else None, name, "check" * 8)
            self.require_put(name.path, content, old, check)

    def write(
        self,
        name: Name,
        token: str,
        instead_of: Collection[str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Store a token, and read it back.

        Args:
            name: of the token.
            token: the value.
            instead_of: the values one of which has to be there now; None: whatever is there, or nothing.
            sleep: waits some seconds.

        Raises:
            CaveError: another value is there, it cannot be written, or it is not there afterwards.
        """
        with self._explained(name, "be written"):
            old = self.fetch(name.path)
            there = None if old is None else self._value(old.content, name)
            if there != token:
                if instead_of is not None and there not in instead_of:
                    found = f"the token {fingerprint(there)}" if there else "no token"
                    raise CaveError(f"another run or person has put {found} there in the meantime. Run again.")
                self.put(name.path, self._with(old.content if old else None, name, token), old)
        for seconds in READ_BACK_AFTER:
            sleep(seconds)
            if self.read(name) == token:
                return
        raise CaveError(f"{self.where(name)} does not hold what was stored there. Look at the store.")

    def _value(self, content: Any, name: Name) -> str | None:
        if name.key or isinstance(content, Mapping):
            content = _fields(content).get(name.key)
        if content is not None and not isinstance(content, str):
            raise CaveError("it is not text. Put the token there as a string.")
        return (content or "").strip() or None

    def _with(self, content: Any, name: Name, token: str) -> Any:
        """Return the content of a secret with another token in it, and all else as it was."""
        if not name.key:
            return token
        fields = {**_fields(content or {}), name.key: token}
        return fields if isinstance(content, Mapping) else json.dumps(fields)

    @contextmanager
    def _explained(self, name: Name, what: str) -> Iterator[None]:
        try:
            yield
        except CaveError as error:
            raise CaveError(f"{self.where(name)} cannot {what}: {error.message}", **error.details) from None


def _fields(content: Any) -> Mapping[str, Any]:
    """Return the keys and values of a secret, which may be the text of a JSON object."""
    if not isinstance(content, Mapping):
        try:
            content = json.loads(content)
        except (TypeError, ValueError):
            content = None
    if not isinstance(content, Mapping):
        raise CaveError("the secret is no JSON object, so it has no keys. Leave out what stands after #.")
    return content
