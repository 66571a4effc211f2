# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of a netrc file, which requests (and so caveclient) sends in the place of a token."""

from __future__ import annotations

import netrc
import os.path
from typing import Iterable, Iterator, Mapping, NamedTuple


class NetrcFile(NamedTuple):
    """A netrc file that keeps a token from being sent."""

    path: str
    is_text: bool = True
    """Whether it has an entry for the host; else it is not UTF-8, and requests fails on it whatever the host is."""


def replacing_netrc(
    home: str, hosts: Iterable[str], environment: Mapping[str, str], named: Iterable[str] = ()
) -> dict[str, NetrcFile]:
    """Return, by host, the netrc file that keeps a token from being sent there; to be called as the file's user.

    Args:
        home: the user's home directory.
        hosts: hosts, with a port where they have one.
        environment: may name the file with NETRC.
        named: files that NETRC may name for some of the user's programs.
    """
    in_task = environment.get("NETRC")
    usual = [in_task] if in_task else [os.path.join(home, ".netrc"), os.path.join(home, "_netrc")]
    # The first one that is there counts, as in requests.utils.get_netrc_auth.
    paths = [*named, next((place for place in usual if os.path.exists(place)), "")]
    found = [(path, entries) for path in paths for entries in _entries(path)]
    if not found:
        return {}
    from urllib.parse import urlsplit  # few users have such a file, and this takes as long as to compile this module

    taken: dict[str, NetrcFile] = {}
    for host in hosts:
        for path, entries in found:
            if entries is None or entries.authenticators(urlsplit(f"//{host}").hostname or ""):
                taken.setdefault(host, NetrcFile(path, is_text=entries is not None))
    return taken


def _entries(path: str) -> Iterator[netrc.netrc | None]:
    """Yield what is in a netrc file, if it can be read; None where it is not UTF-8."""
    try:
        if os.path.isfile(path):
            yield netrc.netrc(path)
    except UnicodeDecodeError:
        yield None
    except (netrc.NetrcParseError, OSError):
        return
