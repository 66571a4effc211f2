# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CA certificates that startup files name, and with which programs fail; in a process that is the files' user."""

from __future__ import annotations

import os
import re
import stat
from typing import Iterable, Iterator

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import reason

# Not by ssl: where root's Python is closed to users, this process cannot import it any more.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?P<kind>(X509 |TRUSTED )?CERTIFICATE)-----\s+[A-Za-z0-9+/=\s]{64,}-----END (?P=kind)-----"
)
_MOST_BYTES = 16 * 1024 * 1024


def unusable_bundles(named: Iterable[EnvValue]) -> Iterator[tuple[EnvValue, str]]:
    """Yield the variables that name what cannot be used, each with the reason: the last of a kind in a file counts."""
    last = {(one.startup_file, one.name): one for one in named}
    for one in last.values():
        flaw = _flaw(one.path, one.name) if one.path and one.is_certain else ""
        if flaw:
            yield one, flaw


def _flaw(path: str, variable: str) -> str:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):  # requests takes one, and OpenSSL does not
            return "is a directory, where a file was expected" if variable == "SSL_CERT_FILE" else ""
        if not stat.S_ISREG(mode):
            return "is not a regular file"
        with open(path, "rb") as file:
            return "" if _CERTIFICATE.search(file.read(_MOST_BYTES)) else "holds no certificates"
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({reason(error)})"
