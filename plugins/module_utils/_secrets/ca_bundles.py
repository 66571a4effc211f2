# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CA certificates that startup files name, and why programs fail on them; in a process that is the files' user."""

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


def bundles(named: Iterable[EnvValue]) -> Iterator[tuple[EnvValue, str]]:
    """Yield the variables that name certificates, each with why these cannot be used: the last of a kind in a file.

    The reason is empty where they can.
    """
    last = {(one.startup_file, one.name): one for one in named}
    for one in last.values():
        if one.path and one.is_certain:
            yield one, flaw_of_bundle(one.path, one.name)


def certificates_in(path: str) -> str:
    """Return the certificates of a file alone, without what people write between them; empty where it has none."""
    try:
        with open(path, "rb") as file:
            found = [match.group() for match in _CERTIFICATE.finditer(file.read(_MOST_BYTES))]
    except OSError:  # a directory, for one
        return ""
    return b"\n".join([*found, b""]).decode("ascii")


def flaw_of_bundle(path: str, variable: str = "SSL_CERT_FILE") -> str:
    """Return why programs cannot use the CA certificates that a variable names; empty where they can."""
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
