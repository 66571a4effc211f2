# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of a netrc file, which requests (and so caveclient) sends in the place of a token."""

from __future__ import annotations

import netrc
import os.path
from typing import Iterable, Mapping


def replacing_netrc(
    home: str, hosts: Iterable[str], environment: Mapping[str, str], named: Iterable[str] = ()
) -> dict[str, str]:
    """Return, by host, the netrc file whose entry is sent in the place of a token; to be called as the file's user.

    Args:
        home: the user's home directory.
        hosts: hosts, with a port where they have one.
        environment: may name the file with NETRC.
        named: files that NETRC may name for some of the user's programs.
    """
    in_task = environment.get("NETRC")
    usual = [in_task] if in_task else [os.path.join(home, ".netrc"), os.path.join(home, "_netrc")]
    # The first one that is there counts, as in requests.utils.get_netrc_auth.
    paths = [*named, next((place for place in usual if os.path.isfile(place)), "")]
    found = [(path, entries) for path, entries in ((path, _entries(path)) for path in paths) if entries is not None]
    if not found:
        return {}
    from urllib.parse import urlsplit  # few users have such a file, and this takes as long as to compile this module

    taken = {
        host: [path for path, entries in found if entries.authenticators(urlsplit(f"//{host}").hostname or "")]
        for host in hosts
    }
    return {host: places[0] for host, places in taken.items() if places}


def _entries(path: str) -> netrc.netrc | None:
    """Return what is in a netrc file; one that cannot be read has no entries."""
    try:
        return netrc.netrc(path) if os.path.isfile(path) else None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return None
