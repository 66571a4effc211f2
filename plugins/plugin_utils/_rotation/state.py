# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation hands from one step to the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import TokenApi
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import Held, Host
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Entry,
    Inventory,
    Known,
    Request,
    Rotation,
    Seen,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import Place


class Settings(NamedTuple):
    """How servers are asked, and how long somebody who still uses an old token has to be seen."""

    timeout: int = 30
    retries: int = 2
    ca_path: str | None = None
    grace: float = 310.0
    check: bool = False


@dataclass
class State:
    """What a rotation knows, from one step to the next."""

    hosts: dict[str, Host]
    request: Request
    settings: Settings
    servers: dict[str, str] = field(default_factory=dict)
    """Of each token, the server that accepts it."""
    values: dict[str, str] = field(default_factory=dict)
    """The tokens themselves."""
    stored: tuple[tuple[Place, str], ...] = ()
    """The places in stores that the variables read, each with the fingerprint of the token there."""
    accounts: dict[str, Account] = field(default_factory=dict)
    refused: dict[Entry, str] = field(default_factory=dict)
    rotations: list[Rotation] = field(default_factory=list)
    seen: dict[str, Seen | str] = field(default_factory=dict)
    stories: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    """What was done about each rotation, sentence by sentence."""
    declined: set[tuple[str, ...]] = field(default_factory=set)
    """Rotations that were refused while the token in the vault was the only one there is."""
    failed: set[tuple[str, ...]] = field(default_factory=set)
    """Rotations about which something could not be done."""
    elsewhere: frozenset[Entry] = frozenset()
    """Entries whose token comes from where a new one is not stored."""
    unstored: set[tuple[str, ...]] = field(default_factory=set)
    """Rotations whose new token the user's own tasks have to store."""
    replaced: dict[str, set[str]] = field(default_factory=dict)
    """The tokens that each new one took the place of on hosts."""
    dead: set[str] = field(default_factory=set)
    """Tokens that the server has killed since it was asked about them."""
    marks: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    """Hosts that are not in the run, and are looked at."""
    blocked: dict[str, list[str]] = field(default_factory=dict)
    """Why an old token could not be revoked, by host."""

    def tell(self, rotation: Rotation, sentence: str, failed: bool = False) -> None:
        """Add a sentence to the story of a rotation."""
        self.stories.setdefault(rotation.tokens, []).append(sentence)
        if failed:
            self.failed.add(rotation.tokens)

    def api(self, token: str) -> TokenApi:
        """Return the tokens of the person who has ``token`` (a fingerprint)."""
        settings = self.settings
        return TokenApi(
            self.servers[token],
            self.values[token],
            timeout=settings.timeout,
            retries=settings.retries,
            ca_path=settings.ca_path,
        )

    def known(self, inventory: Inventory) -> Known:
        """Return what is known of it all now, for a decision."""
        return Known(inventory, self.seen, self.accounts, self.request)

    def held(self) -> Iterable[Held]:
        """Return all entries of all hosts."""
        return (item for host in self.hosts.values() for item in host.held)
