# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CA certificates that startup files name, and with which programs fail; in a process that is the files' user."""

from __future__ import annotations

import os
import ssl
import stat
from typing import Iterable, Iterator

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import reason


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
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "holds no certificates that can be used"
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    return ""
