# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an entry of ``saved_token`` asks for, and which entries exclude each other."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    Datastack,
    host_of,
    known_local_servers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files


class Request(NamedTuple):
    """A token that a user's secrets files are to hold for one server, under one key."""

    server: str
    datastacks: list[Datastack]
    key: str
    token: str | None
    """None: no token is to be there."""

    @property
    def host(self) -> str:
        """Host and port of the auth server."""
        return host_of(self.server)

    @property
    def local_hosts(self) -> list[str]:
        """Hosts and ports of the datastacks' local servers, each once."""
        return list(dict.fromkeys(host_of(stack.local_server) for stack in self.datastacks if stack.local_server))

    def own_names(self) -> dict[str, str]:
        """Return the names of the files that are written for this request alone, with the reason for each."""
        names = {_files.server_file(self.host): f"caveclient takes it for {self.host}"}
        for host in self.local_hosts:
            names.setdefault(_files.server_file(host), f"cloud-volume and cloud-files take it for {host}")
        return names

    def family(self) -> set[str]:
        """Return the (canonical) names of the files that hold tokens of this auth server, as far as is known."""
        known = known_local_servers(self.server).values()
        names = [*self.own_names(), *(_files.server_file(host_of(address)) for address in known)]
        return set(map(_files.canonical, names))


def by_key(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return entries of one ``key`` each: one with several ``keys`` stands for as many, all with its token.

    Raises:
        CaveError: an entry has both, or ``keys`` without a name in it.
    """
    found = []
    for entry in entries:
        keys = entry.get("keys")
        alone = {name: value for name, value in entry.items() if name != "keys"}
        if keys is None:
            found.append(alone)
            continue
        if entry.get("key") is not None or not isinstance(keys, (list, tuple)) or not keys:
            raise CaveError(
                f"The entry of {entry.get('user') or 'nobody'} has keys that are not a list of names, or key as well. "
                "Give key: token, or keys: [token, brain_and_nerve_cord]."
            )
        found += [{**alone, "key": key} for key in dict.fromkeys(map(str, keys))]
    return found


def conflicts(requests: Sequence[Request]) -> Iterator[tuple[int, int, str]]:
    """Yield the pairs of requests that cannot both be met (two indices), and what they disagree about."""
    for (first, one), (second, other) in combinations(enumerate(requests), 2):
        others = set(map(_files.canonical, other.own_names()))
        shared = [name for name in one.own_names() if _files.canonical(name) in others]
        if one.key == other.key and one.token != other.token and shared:
            yield first, second, f"what {shared[0]} is to hold under {one.key!r}"
            continue
        if one.token is not None and other.token is not None and one.server != other.server:
            both = {stack.name for stack in one.datastacks} & {stack.name for stack in other.datastacks}
            if both:
                yield first, second, f"the server of datastack {min(both)}"
