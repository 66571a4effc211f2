# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Server addresses, datastacks, and the public deployments that are known."""

from __future__ import annotations

import re
from typing import Any, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

DEFAULT_SERVER = "https://global.daf-apis.com"
"""The auth server that caveclient takes when none is named."""

# At most 200 characters, so that the name of the server's secrets file is one that every file system takes.
HOST_AND_PORT = re.compile(
    r"(?P<host>[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?"
)
_DATASTACK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

KNOWN_LOCAL_SERVERS: dict[str, dict[str, str]] = {
    "https://global.daf-apis.com": {
        "minnie65_public": "https://minnie.microns-daf.com",
        "minnie65_phase3_v1": "https://minnie.microns-daf.com",
        "zheng_ca3": "https://minnie.microns-daf.com",
        "stroeh_mouse_retina": "https://minnie.microns-daf.com",
        "flywire_fafb_public": "https://prod.flywire-daf.com",
        "flywire_fafb_production": "https://prod.flywire-daf.com",
        "brain_and_nerve_cord": "https://cave.fanc-fly.com",
        "brain_and_nerve_cord_public": "https://cave.fanc-fly.com",
        "fanc_production_mar2021": "https://cave.fanc-fly.com",
        "wclee_aedes_brain": "https://cave.fanc-fly.com",
        "wclee_mouse_spinalcord_cltmr": "https://cave.fanc-fly.com",
        "mrgd": "https://cave.fanc-fly.com",
    },
    "https://global.brain-wire-test.org": {
        "h01_c3_flat": "https://local.brain-wire-test.org",
        "fish1_full": "https://pcgv3local.brain-wire-test.org",
    },
    "https://global.em.brain.allentech.org": {
        "v1dd_public": "https://api.em.brain.allentech.org",
        "v1dd": "https://api.em.brain.allentech.org",
    },
    "https://proofreading.zetta.ai": {
        "kronauer_ant": "https://data.proofreading.zetta.ai",
        "lichtman_zebrafish_hindbrain": "https://data.proofreading.zetta.ai",
        "prieto_godino_fly_larva": "https://data.proofreading.zetta.ai",
    },
}
"""Auth server -> datastack -> local server, from public code and documentation.

A datastack's own ``local_server`` overrides it, and so does the datastack's record on the server.
"""

PUBLIC = {*KNOWN_LOCAL_SERVERS, *(address for stacks in KNOWN_LOCAL_SERVERS.values() for address in stacks.values())}

UNCONFIRMED = frozenset(
    {
        "brain_and_nerve_cord_public",
        "fanc_production_mar2021",
        "wclee_aedes_brain",
        "wclee_mouse_spinalcord_cltmr",
        "h01_c3_flat",
        "fish1_full",
        "v1dd",
        "kronauer_ant",
        "lichtman_zebrafish_hindbrain",
        "prieto_godino_fly_larva",
    }
)
"""Datastacks of ``KNOWN_LOCAL_SERVERS`` whose local server was inferred: no public record names it."""


class Datastack(NamedTuple):
    """A datastack of one auth server; ``local_server`` is empty where it is not known."""

    name: str
    local_server: str


def server_address(value: object) -> str:
    """Return a server's address in the one form that is written and compared: ``scheme://host[:port]``.

    The letter case of the host is kept, because caveclient names the secrets file after the host as it is typed.

    Raises:
        CaveError: it is not the address of a server.
    """
    text = value.strip() if isinstance(value, str) else ""
    scheme, _separator, rest = text.partition("://")
    rest = rest[:-1] if rest.endswith("/") else rest
    match = HOST_AND_PORT.fullmatch(rest)
    is_public = match is not None and f"https://{rest[: match.end('host')].lower()}" in PUBLIC
    if (
        match
        and 0 < int(match.group("port") or 1) < 65536
        and scheme in (("https",) if is_public else ("https", "http"))
    ):
        return f"{scheme}://{rest}"
    # Few addresses are refused, and to compile what is said of these takes time.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.refused_addresses import refused

    raise refused(value)


def host_of(address: str) -> str:
    """Return host and port of an address as they stand: what the names of secrets files begin with."""
    return address.partition("://")[2].partition("/")[0]


def host_and_port(address: str) -> str:
    """Return an address as a firewall's rule has it: host:port."""
    from urllib.parse import urlsplit  # where it is needed only: it takes a tenth of a request's time to import

    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port or (80 if parts.scheme == 'http' else 443)}"


def known_local_servers(server: str) -> dict[str, str]:
    """Return datastack -> local server, as far as is known of an auth server.

    Its letter case does not matter, nor does the port that https has anyway.
    """
    return KNOWN_LOCAL_SERVERS.get(re.sub(r":443$", "", server.lower()), {})


def parse_datastacks(value: Iterable[Any], server: str) -> list[Datastack]:
    """Return the datastacks of ``server`` that the user named.

    Args:
        value: names, or mappings with ``name`` and, optionally, ``local_server``.
        server: the canonical address of the auth server, to look up the local servers that are known.

    Raises:
        CaveError: an item is neither, or a name or address is impossible.
    """
    datastacks = []
    for item in value:
        entry = {"name": item} if isinstance(item, str) else item
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or set(entry) - {"name", "local_server"}
        ):
            raise CaveError(f"A datastack is its name, or a mapping with 'name' and 'local_server'; found {item!r}.")
        name = entry["name"].strip()
        if not _DATASTACK_NAME.fullmatch(name):
            raise CaveError(f"{entry['name']!r} is not the name of a datastack (letters, digits and _ . - only).")
        local_server = entry.get("local_server") or known_local_servers(server).get(name, "")
        datastacks.append(Datastack(name, server_address(local_server) if local_server else ""))
    return datastacks


def is_unconfirmed(server: str, datastack: Datastack) -> bool:
    """Return whether nothing but the datastack's record can tell its local server for sure."""
    known = known_local_servers(server).get(datastack.name)
    return not datastack.local_server or (datastack.local_server == known and datastack.name in UNCONFIRMED)
