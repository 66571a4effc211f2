# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pass, the password store of files that GPG encrypts: through its own program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import run
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Name, Secret, Store

_INSTALL = "Install it: apt-get install pass, or the like."
_NEW = ".cave-new"
"""The end of the name under which a new content is written, before it takes the place of the old one."""


class PasswordStore(Store):
    """A folder with a file for each entry: the first line is the token, and further lines stay as they are."""

    options = ("path",)

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        super().__init__(settings, folder)
        path = settings.get("path") or os.environ.get("PASSWORD_STORE_DIR") or "~/.password-store"
        self._root = Path(folder, Path(str(path)).expanduser())
        self._variables = {**os.environ, "PASSWORD_STORE_DIR": str(self._root)}
        self.label = f"pass ({self._root})"

    def name(self, text: str) -> Name:
        """Return what names a token. An entry has one."""
        name = super().name(text)
        if name.key:
            raise CaveError(f"{text} names a key, but an entry of pass has none. Leave out what stands after #.")
        return name

    def fetch(self, path: str) -> Secret | None:
        """Return the text of an entry."""
        if not self._root.is_dir():
            raise CaveError(f"there is no such folder. Make it (pass init), or correct its path: {self._root}")
        if not self._file(path).exists():
            return None
        return Secret(self._pass("show", path).decode("utf-8", "replace"))

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Write an entry beside the old one, and then move it there: whatever happens, one of them can be read."""
        new = f"{path}{_NEW}"
        self._pass("insert", "--multiline", "--force", new, text=content)
        if old is None:
            self._pass("mv", new, path)
        else:
            self._pass("mv", "--force", new, path)

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Encrypt something for the keys of the folder, and look whether one may write there."""
        del content, old, check
        file = self._file(path)
        folders = [folder for folder in file.parents if folder == self._root or self._root in folder.parents]
        there = next(folder for folder in folders if folder.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise CaveError(f"{there} does not let you write. Run as the user to whom it belongs.")
        keys = next((folder / ".gpg-id" for folder in folders if (folder / ".gpg-id").is_file()), None)
        if keys is None:
            raise CaveError(f"{self._root} has no .gpg-id. Begin with: pass init YOUR-GPG-KEY")
        lines = (line.partition("#")[0].strip() for line in keys.read_text(encoding="utf-8").splitlines())
        words = [word for line in lines if line for word in ("--recipient", line)]
        # As pass does it, but for keys that would be fetched from a network.
        options = ("--quiet", "--batch", "--no-encrypt-to", "--no-auto-key-locate")
        run(["gpg", *options, "--encrypt", *words], "Install it.", b"check")

    def _value(self, content: Any, name: Name) -> str | None:
        return super()._value(content.split("\n", 1)[0], name)

    def _with(self, content: Any, name: Name, token: str) -> Any:
        del name
        _first, _line_end, rest = (content or "").partition("\n")
        return f"{token}\n{rest}"

    def _file(self, path: str) -> Path:
        return self._root / f"{path}.gpg"

    def _pass(self, *words: str, text: str = "") -> bytes:
        return run(["pass", *words], _INSTALL, text.encode(), variables=self._variables)
