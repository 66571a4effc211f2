# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation of tokens has to do next, decided from what is there. Pure functions; nothing is asked or written.

A rotation keeps no file about itself. Whatever moment it was killed at, the next run sees how far it came:

* The description of the new token says which one it replaces: "NAME (replaces 3fa9c2d1)". It comes into being together
  with the token, so there is no moment in which the one is there without the other.
* If the server lists such a token for the one in the vault, it was made and not stored. It is stored now.
* If the token in the vault is such a one, and the server still lists the one that it replaces, it was stored and not
  (or not everywhere) rolled out, or the old one not revoked. The hosts themselves say who has it, and saving it again
  where it is changes nothing.
* If the server doesn't list the old one any more, the rotation is over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    LONGEST_DESCRIPTION,
    Listing,
    ServerToken,
    clean_description,
    iso,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

DEFAULT_NAME = "connectomics.cave rotation"
STRATEGIES = ("auto", "cutover", "overlap")
NEW_FOR = 86400.0
"""Seconds for which a token counts as new, so that a rotation that is run again doesn't make another one."""

_DESCRIPTION = re.compile(r"(?P<name>.+) \(replaces (?P<fingerprint>[0-9a-f]{8})\)")


# Which token replaces which -------------------------------------------------------------------------------------------


def description(name: str, old: str) -> str:
    """Return the description of the token that replaces the one with the fingerprint ``old``.

    Raises:
        CaveError: the name of the rotation cannot be a part of it.
    """
    text = f"{name or DEFAULT_NAME} (replaces {old})"
    longest = LONGEST_DESCRIPTION - len(text) + len(name)
    if len(text) > LONGEST_DESCRIPTION:
        raise CaveError(f"The name of the rotation has {len(name)} characters; it may have {longest}. Shorten it.")
    return clean_description(text)


def rotation_name(text: str) -> str | None:
    """Return the name of the rotation that made the token with this description; None when none did."""
    found = _DESCRIPTION.fullmatch(text)
    return found["name"] if found else None


def replaces(text: str) -> str | None:
    """Return the fingerprint of the token that the one with this description replaces."""
    found = _DESCRIPTION.fullmatch(text)
    return found["fingerprint"] if found else None


def successor(listing: Listing, old: str) -> ServerToken | None:
    """Return the token that replaces ``old`` (a fingerprint). Of several the oldest, which every run agrees on."""
    found = [token for token in listing.tokens if replaces(token.description) == old]
    return min(found, key=lambda token: token.id, default=None)


# What to do -----------------------------------------------------------------------------------------------------------


class Decision(NamedTuple):
    """``action`` is ``make`` (a new token that replaces ``old``), ``continue`` (``new`` was made to replace ``old``),
    or ``roll_out`` (the one in the vault, nothing to revoke); ``reason`` says why, to a person."""

    action: str
    reason: str
    new: ServerToken | None = None
    old: ServerToken | None = None


def decide(strategy: str, name: str, token: str, listing: Listing, held: Collection[str]) -> Decision:
    """Decide what to do about a token.

    Args:
        strategy: one of ``STRATEGIES``.
        name: of the rotation as the user gave it; empty when it was not given.
        token: the one in the vault. The server accepts it.
        listing: all tokens of its person.
        held: fingerprints of what the hosts have in its place, as far as they could be looked at.

    Raises:
        CaveError: a new token is wanted, and the old one could not be revoked afterwards.
    """
    own = next((item for item in listing.tokens if item.value == token), None)
    if strategy == "cutover":
        return Decision("roll_out", "the strategy is cutover", own)
    if own is None:
        if strategy == "auto":
            return Decision("roll_out", "the server does not list it, so it could not be revoked")
        raise CaveError(
            f"The server accepts the token {fingerprint(token)}, but does not list it, so it could not be revoked. "
            "Make a new one on the token page, put it into the vault, and use the strategy cutover."
        )
    unfinished = _unfinished(own, listing)
    if unfinished is not None:
        return unfinished
    made_by = rotation_name(own.description)
    age = listing.now - (own.created or 0.0)  # "updated" moves with every use
    if name and made_by == name:
        return Decision("roll_out", f"the rotation {name!r} has made it already", own)
    if not name and made_by is not None and age < NEW_FOR:
        return Decision("roll_out", f"a rotation has made it, {_span(age)} ago", own)
    if strategy == "auto":
        others = sorted(set(held) - {own.fingerprint})
        if others:
            return Decision("roll_out", f"it is new to the hosts, which have {', '.join(others[:3])}", own)
        if age < NEW_FOR:
            return Decision("roll_out", f"it is new, made {_span(age)} ago", own)
    return Decision("make", "", None, own)


def _unfinished(own: ServerToken, listing: Listing) -> Decision | None:
    """Return how to go on with a rotation that an earlier run began; None when there is none."""
    replaced = replaces(own.description)
    old = next((item for item in listing.tokens if replaced and item.fingerprint == replaced and item is not own), None)
    if old is not None:
        return Decision("continue", "an earlier run stored it, and the old token is still alive", own, old)
    new = successor(listing, own.fingerprint)
    if new is not None and new is not own:
        return Decision("continue", "an earlier run made it, and did not come to store it", new, own)
    return None


def _span(seconds: float) -> str:
    minutes = max(0, int(seconds // 60))
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


# Whose token it is ----------------------------------------------------------------------------------------------------


class Owner(NamedTuple):
    """A user of a host who gets a token, the person whose token it is, and what the host says about before.

    ``token`` and ``held`` are fingerprints; ``before`` is the id of the person whose token the host has, where the
    server still accepts it.
    """

    host: str
    user: str
    server: str
    token: str
    person: int
    person_name: str
    before: int | None = None
    held: str = ""


def strangers(owners: Iterable[Owner]) -> dict[Owner, str]:
    """Return the users of hosts who would get the token of somebody else, each with a sentence that says so.

    A host's old token says who it was before, as long as the server accepts it; else those of the same user on other
    hosts do. Where none is accepted any more, a token is suspicious whose person is there under another user already,
    who did not have the same token before.
    """
    owners = list(owners)
    persons: dict[tuple[str, str, str], set[int]] = {}
    held: dict[tuple[str, str], set[str]] = {}
    users: dict[tuple[str, int], set[str]] = {}
    for owner in owners:
        if owner.before is not None:
            persons.setdefault((owner.server, owner.user, owner.token), set()).add(owner.before)
        if owner.held:
            held.setdefault((owner.server, owner.user), set()).add(owner.held)
        users.setdefault((owner.server, owner.person), set()).add(owner.user)
    found = {}
    for owner in owners:
        whose = f"The token for {owner.user} is that of {owner.person_name} (id {owner.person})"
        known = persons.get((owner.server, owner.user, owner.token), set())
        before = {owner.before} if owner.before is not None else known
        if before:
            if owner.person not in before:
                ids = ", ".join(str(number) for number in sorted(before))
                found[owner] = f"{whose}, and the one that {owner.host} has is of another person (id {ids})."
        elif owner.held:
            mine = held[owner.server, owner.user]
            others = sorted(users[owner.server, owner.person] - {owner.user})
            twin = next((user for user in others if not mine & held.get((owner.server, user), set())), None)
            if twin is not None:
                found[owner] = f"{whose}, who is {twin} on the hosts."
    return found


# One token's rotation -------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    """The rotation of one token, as one task hands it to the next: fingerprints in the place of tokens.

    Attributes:
        server: the auth server's address.
        given: fingerprint of the token in the variables.
        users: who has it.
        hosts: on which hosts of the whole inventory, those that a limit leaves out included.
        action: ``made``, ``continued``, ``rolled_out``; ``refused`` or ``left_out``, when nothing is done about it.
        message: why it is so, as a sentence.
        new: fingerprint of the token that the hosts get; None in check mode when it would be made.
        sealed: that token, for this run alone.
        old: fingerprint of the token to revoke in the end; empty when there is none.
        old_id: its id on the server.
        old_alive: whether the server accepts it after the new one was made; None when there is none.
        places: where the new one is kept: path, name and key.
        unstored: the user's own tasks have still to store it.
        barred: hosts and users who don't get it, with the reason.
        person: id, name and email of whose token it is.
        access: the verdict on a token that the server refuses.
    """

    server: str
    given: str
    users: list[str]
    hosts: list[str]
    action: str = "rolled_out"
    message: str = ""
    new: str | None = None
    sealed: str = ""
    old: str = ""
    old_id: int = 0
    old_alive: bool | None = None
    places: list[dict[str, str]] = field(default_factory=list)
    unstored: bool = False
    barred: list[dict[str, str]] = field(default_factory=list)
    person: dict[str, Any] | None = None
    access: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for a result."""
        return asdict(self)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Subject:
        """Return what ``as_dict`` was made of."""
        return cls(**{str(name): value for name, value in entry.items()})

    @property
    def refused(self) -> bool:
        """Whether it cannot be done."""
        return self.action == "refused"

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done about it."""
        return self.action in ("refused", "left_out")

    def refuse(self, message: str, access: Mapping[str, Any] | None = None) -> None:
        """Do nothing about it, for the reason given."""
        self.action, self.message = "refused", message
        self.access = dict(access) if access is not None else self.access

    def withhold(self, host: str, user: str, reason: str) -> None:
        """Don't give it to a user of a host."""
        self.barred.append({"host": host, "user": user, "reason": reason})

    def reason_against(self, host: str, user: str) -> str:
        """Return why a user of a host doesn't get it, or an empty string."""
        if self.refused:
            return self.message
        return next((item["reason"] for item in self.barred if (item["host"], item["user"]) == (host, user)), "")

    def holds(self, server: str, token: str) -> bool:
        """Whether an entry of a host's variables is about this token, before or after it was replaced."""
        return server == self.server and token in (self.given, self.new)

    @property
    def name(self) -> str:
        """How messages name it."""
        person = (self.person or {}).get("name")
        whose = f" ({person})" if person and person not in self.users else ""
        return f"{', '.join(self.users)}{whose} on {self.server}"


# Whether the old token can go -----------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What a host sends for a user: the fingerprints of all readers; or why that is not known."""

    fingerprints: frozenset[str | None] = frozenset()
    problem: str = ""


def still_without(
    subject: Subject, wanted: Iterable[tuple[str, str]], seen: Mapping[tuple[str, str], Seen]
) -> list[str]:
    """Return who has not let go of the old token, for a person to read; empty when everybody has the new one.

    Args:
        subject: the rotation.
        wanted: hosts and users who must have it.
        seen: what these send, looked at after the roll-out.
    """
    missing = []
    for host, user in wanted:
        found = seen.get((host, user))
        if found is None:
            missing.append(f"{host} ({user}: not looked at)")
        elif found.problem:
            missing.append(f"{host} ({user}: {found.problem})")
        elif found.fingerprints != {subject.new}:
            sent = ", ".join(sorted(item or "no token" for item in found.fingerprints)) or "no token"
            missing.append(f"{host} ({user} sends {sent})")
    return missing


def used_since(old: ServerToken | None, mark: float | None, moment: float) -> str:
    """Return a sentence when a token was used after ``moment``, at which ``mark`` was its last use; else nothing."""
    if old is None or old.last_used is None or old.last_used <= (mark or 0.0):
        return ""
    return (
        f"Somebody outside of the inventory still uses it: last at {iso(old.last_used)}, "
        f"{_seconds(old.last_used - moment)} after the last host had the new one."
    )


def _seconds(seconds: float) -> str:
    return f"{max(0, round(seconds))} s"
