# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation knows, and what it decides: plain data, in which fingerprints stand for tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

STRATEGIES = ("cutover", "overlap")
REVOKE = ("when_unused", "even_if_used", "never")


class Entry(NamedTuple):
    """An entry of a host's ``caveclient_tokens``; ``token`` is a fingerprint, ``number`` its place in the list."""

    host: str
    number: int
    user: str
    server: str
    key: str
    token: str
    absent: bool = False


class Inventory(NamedTuple):
    """Who holds what by the variables, on every host that Ansible knows.

    Attributes:
        hosts: all of them, in order.
        entries: those that could be read.
        unknown: hosts with entries that cannot be read: of which users; None: of anybody.
        problems: why they cannot be read, by host.
        vault: where the vault's files hold a token, and the run may write: labels, by fingerprint.
        fixed: places that hold a token and that the run may not or cannot write, each with the reason.
        refused: what the server says against an entry, such as a datastack that the token does not open.
        elsewhere: entries whose token comes from somewhere else than ``vault``, so that they keep it.
    """

    hosts: tuple[str, ...]
    entries: tuple[Entry, ...]
    unknown: Mapping[str, frozenset[str] | None] = {}
    problems: Mapping[str, str] = {}
    vault: Mapping[str, tuple[str, ...]] = {}
    fixed: Mapping[str, tuple[str, ...]] = {}
    refused: Mapping[Entry, str] = {}
    elsewhere: frozenset[Entry] = frozenset()


class Place(NamedTuple):
    """Where a token lies on a host."""

    user: str
    path: str
    key: str
    token: str

    def __str__(self) -> str:
        """Return it as a person reads it."""
        return f"{self.user}: {self.path} has {self.token} as {self.key}"


class Seen(NamedTuple):
    """What an inspection found on a host.

    Attributes:
        places: tokens in files.
        failed: accounts that could not be looked at, with the reason.
        trouble: how likely the host is to fail for reasons of its own.
        persons: whose token an account has: ids, by user and server.
        proven: tokens that the server accepted when it was asked from there, by user and server.
        rehearsed: whether the host has predicted that a token could be saved; ``failed`` has for whom it could not.
    """

    places: tuple[Place, ...] = ()
    failed: Mapping[str, str] = {}
    trouble: int = 0
    persons: Mapping[tuple[str, str], int] = {}
    proven: frozenset[tuple[str, str, str]] = frozenset()
    rehearsed: bool = False


class Listed(NamedTuple):
    """A token in the server's list; moments are seconds since the epoch by the server's clock."""

    token: str
    id: int
    description: str = ""
    created: float | None = None
    last_used: float | None = None


class Account(NamedTuple):
    """What the server says of a token: of the person whose it is, if it accepts it.

    Attributes:
        accepted: whether it does.
        message: what is wrong otherwise, with what to do; or why the tokens are not listed.
        person: id of the person; ``name`` is theirs.
        tokens: all of the person's; None when the server does not list them.
        now: the server's clock.
        two_live: whether the server is known to let an old token live when a new one is made.
        expires: whether the token ends by itself.
        access: the verdict, as a result has it.
    """

    accepted: bool
    message: str = ""
    person: int | None = None
    name: str = ""
    tokens: tuple[Listed, ...] | None = None
    now: float = 0.0
    two_live: bool = False
    expires: bool = False
    access: Mapping[str, Any] | None = None


class Request(NamedTuple):
    """What the user asked for. ``hosts`` are those of the run, in which is written; ``old`` are replaced tokens to
    revoke; ``give_up`` are hosts that may keep a token that dies."""

    hosts: tuple[str, ...]
    strategy: str = "cutover"
    name: str = ""
    users: frozenset[str] = frozenset()
    canary: tuple[str, ...] = ()
    give_up: frozenset[str] = frozenset()
    anyway: bool = False
    revoke: str = "when_unused"
    old: frozenset[str] = frozenset()
    own_store: bool = False
    other_person: bool = False


class Known(NamedTuple):
    """All that is known when something is decided.

    Attributes:
        inventory: who holds what by the variables.
        seen: what the inspection found, by host; a string says why a host could not be looked at. Hosts are looked at
            again after the roll-out, and what is found then says what can be revoked.
        accounts: what the server says, by token.
        request: what the user asked for.
    """

    inventory: Inventory
    seen: Mapping[str, Seen | str]
    accounts: Mapping[str, Account]
    request: Request


class Blocker(NamedTuple):
    """Why a rotation is not at its end; ``host`` is where, empty for a place of the vault."""

    host: str
    reason: str


@dataclass(frozen=True)
class Rotation:
    """What is to be done about one token, or about one and those that replace it.

    Attributes:
        tokens: those in the variables that are one and the same, newest last.
        entries: who has them.
        action: ``make`` (a token is to be made that replaces ``source``), ``continue`` (``new`` was made before),
            ``roll_out`` (what is in the vault), ``refuse``, ``leave`` (it was not asked for), or ``revoke`` (it was
            taken off hosts).
        reason: why, as a sentence.
        source: the token that authenticates, and that a new one replaces.
        new: what the hosts get; empty when it is to be made.
        old: what is to be revoked in the end.
        withheld: entries that don't get it, with the reason.
        kin: entries with other tokens of the same person; a host that was off may still have an older one.
        blockers: who may still hold ``old``; empty when it can be revoked.
        canaries: hosts that get it first, the best first.
        left: what is still to be done after it, as a sentence.
    """

    tokens: tuple[str, ...]
    entries: tuple[Entry, ...]
    action: str
    reason: str = ""
    source: str = ""
    new: str = ""
    old: tuple[Listed, ...] = ()
    withheld: Mapping[Entry, str] = field(default_factory=dict)
    kin: tuple[Entry, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    canaries: tuple[str, ...] = ()
    left: str = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is done about it."""
        return self.action in ("refuse", "leave")

    @property
    def users(self) -> tuple[str, ...]:
        """Whose it is, as the variables name them."""
        return tuple(dict.fromkeys(entry.user for entry in self.entries))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that have it by the variables."""
        return tuple(dict.fromkeys(entry.host for entry in self.entries))
