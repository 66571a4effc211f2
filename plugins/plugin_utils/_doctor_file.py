# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cave-doctor as one file: a zip application of the collection's own packages, the same byte for byte each time."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import made_once
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.scope import collection_version

MODULE_UTILS = Path(__file__).parent.parent / "module_utils"
_PACKAGE = "ansible_collections/connectomics/cave/plugins/module_utils"
_ROOMS = ("_cave", "_doctor", "_secrets", "_backends")
_NOT_FOR_IT = (
    "_module.py",
    "_basic.py",
    "_ends.py",
    # It installs nothing, makes no token, and asks without caveclient.
    "_backends/caveclient.py",
    "_backends/client_check.py",
    "_backends/server_token.py",
    "_cave/client.py",
    "_cave/client_errors.py",
    "_cave/client_script.py",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/env python3\n"
_HEADER = re.compile(r"\A(?:#.*\n)+")


def build_for(defaults: Mapping[str, Any] | None) -> bytes:
    """Return the program of this version of the collection, with a lab's defaults."""
    given = {name: value for name, value in (defaults or {}).items() if value}
    lab = {**given, "version": collection_version()}
    name = hashlib.sha256(json.dumps(lab, sort_keys=True).encode()).hexdigest()[:16]
    return made_once(f"doctor-{name}", lambda: ("cave-doctor", build(lab))).read_bytes()


def build(lab: Mapping[str, Any]) -> bytes:
    """Return the program.

    Args:
        lab: ``version``, and what the lab provisions (``server``, ``datastacks``, ``path``): the program's defaults.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, text in sorted(_files(lab)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, text)
    return SHEBANG + archive.getvalue()


def _files(lab: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    licence, _blank, _rest = Path(__file__).read_text(encoding="utf-8").partition("\n\n")
    yield (
        "__main__.py",
        f"{licence}\n\n"  # once, for all files
        "import sys\n"
        "if sys.version_info < (3, 8):\n"
        "    sys.exit('cave-doctor needs Python 3.8 or later; %s is %s.' % (sys.executable, sys.version.split()[0]))\n"
        f"from {_PACKAGE.replace('/', '.')}._doctor.cli import main\n"
        f"sys.exit(main(sys.argv[1:], {json.loads(json.dumps(dict(lab), sort_keys=True))!r}))\n",
    )
    parts = _PACKAGE.split("/")
    for depth in range(1, len(parts) + 1):
        yield "/".join([*parts[:depth], "__init__.py"]), ""
    for path in MODULE_UTILS.rglob("*.py"):
        inside = path.relative_to(MODULE_UTILS)
        is_wanted = inside.as_posix() not in _NOT_FOR_IT and (len(inside.parts) == 1 or inside.parts[0] in _ROOMS)
        if is_wanted and inside.name != "__init__.py":
            text = path.read_text(encoding="utf-8")
            # The other lines keep their numbers, which an unexpected error is told with.
            yield f"{_PACKAGE}/{inside.as_posix()}", _HEADER.sub(lambda header: "\n" * header[0].count("\n"), text)
        elif is_wanted and len(inside.parts) > 1:
            yield f"{_PACKAGE}/{inside.as_posix()}", ""
