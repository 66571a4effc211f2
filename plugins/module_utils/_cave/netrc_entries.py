# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of a netrc file, which requests (and so caveclient) sends in the place of a token."""

from __future__ import annotations

import netrc
import os.path
from typing import Iterable, Mapping
from urllib.parse import urlsplit


def replacing_netrc(home: str, hosts: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return, by host, the netrc file whose entry is sent in the place of a token; to be called as the file's user.

    Args:
        home: the user's home directory.
        hosts: hosts, with a port where they have one.
        environment: may name the file with NETRC.
    """
    named = environment.get("NETRC")
    places = [named] if named else [os.path.join(home, ".netrc"), os.path.join(home, "_netrc")]
    # The first one that is there counts, as in requests.utils.get_netrc_auth; one that cannot be read has no entries.
    path = next((place for place in places if os.path.isfile(place)), "")
    try:
        entries = netrc.netrc(path) if path else None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return {}
    return {host: path for host in hosts if entries and entries.authenticators(urlsplit(f"//{host}").hostname or "")}
