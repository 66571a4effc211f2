# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab, its people, hosts, vault and servers in memory, and a rotation of it that stops before every effect.

What is decided is decided by the collection; what is done here stands for the playbook. Tokens are fingerprints.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import holders as _holders
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import (
    description,
    is_kept,
    replaces,
    rotation_name,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Account,
    Entry,
    Inventory,
    Known,
    Listed,
    Place,
    Request,
    Rotation,
    Seen,
)


@dataclass
class Token:
    """A token on a server."""

    name: str
    server: str
    person: int
    number: int
    created: float
    description: str = ""
    last_used: float | None = None
    alive: bool = True


class Holder(NamedTuple):
    """An entry of the variables; ``variable`` is where the vault keeps its token."""

    host: str
    user: str
    address: str
    key: str
    variable: str


class Accidents(NamedTuple):
    """What was wrong at some time: hosts that were off, accounts whose files could not be read, or not written."""

    off: frozenset[str]
    broken: frozenset[tuple[str, str]]
    full: frozenset[tuple[str, str]]


@dataclass
class Lab:
    """Everything there is.

    Attributes:
        legacy: servers on which making a token kills the person's others.
        addresses: which server an address leads to.
        holders: the entries of all hosts.
        vault: the tokens in the vault's variables.
        fixed: variables that the run may not write.
        files: tokens on hosts, by host, user, path and key.
        off: hosts that are switched off.
        broken: hosts and users whose files cannot be read or written.
        full: hosts and users whose files cannot be written, which only an attempt or a rehearsal shows.
        before: what was in the vault before, by variable.
        faults: what a run did that it must never do.
    """

    legacy: set[str]
    addresses: dict[str, str]
    hosts: list[str]
    holders: list[Holder]
    vault: dict[str, str]
    tokens: dict[str, Token]
    fixed: set[str] = field(default_factory=set)
    files: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    off: set[str] = field(default_factory=set)
    broken: set[tuple[str, str]] = field(default_factory=set)
    full: set[tuple[str, str]] = field(default_factory=set)
    clock: float = 1_800_000_000.0
    before: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    @staticmethod
    def place(holder: Holder | Entry) -> tuple[str, str, str, str]:
        """Return where an entry's token lies on its host."""
        address = holder.address if isinstance(holder, Holder) else holder.server
        return holder.host, holder.user, f"{address.lower()}.json", holder.key

    # What a run sees

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries as the variables have them now."""
        return tuple(
            Entry(item.host, number, item.user, item.address, item.key, self.vault[item.variable])
            for number, item in enumerate(self.holders)
        )

    def inventory(self, entries: tuple[Entry, ...]) -> Inventory:
        """Return the inventory, with the vault's places as they are now."""
        vault: dict[str, tuple[str, ...]] = {}
        fixed: dict[str, tuple[str, ...]] = {}
        for variable, token in self.vault.items():
            where = fixed if variable in self.fixed else vault
            where[token] = (*where.get(token, ()), variable)
        return Inventory(tuple(self.hosts), entries, vault=vault, fixed=fixed)

    def look(self, hosts: Iterable[str]) -> dict[str, Seen | str]:
        """Return what an inspection of hosts finds."""
        found: dict[str, Seen | str] = {}
        for host in hosts:
            places = [
                Place(user, path, key, token)
                for (name, user, path, key), token in self.files.items()
                if name == host and (name, user) not in self.broken
            ]
            failed = {user: "malformed" for name, user in self.broken if name == host}
            found[host] = "off" if host in self.off else Seen(tuple(places), failed, trouble=len(failed))
        return found

    def rehearse(self, hosts: Iterable[str], seen: dict[str, Seen | str]) -> None:
        """Add to what was found on hosts whether a token could be saved there."""
        for host in hosts:
            found = seen[host]
            if isinstance(found, Seen):
                full = {user: "no space left" for name, user in self.full if name == host}
                failed = {**full, **found.failed}
                seen[host] = found._replace(failed=failed, trouble=len(failed), rehearsed=True)

    def account(self, token: str) -> Account:
        """Return what the server says of a token."""
        known = self.tokens.get(token)
        if known is None or not known.alive:
            return Account(False, "The server does not accept it.")
        mine = [item for item in self.tokens.values() if item.alive and self._same_person(item, known)]
        listed = tuple(Listed(item.name, item.number, item.description, item.created, item.last_used) for item in mine)
        return Account(
            True, "", known.person, f"person {known.person}", listed, self.clock, known.server not in self.legacy
        )

    def _same_person(self, one: Token, other: Token) -> bool:
        return (one.server, one.person) == (other.server, other.person)

    def accidents(self) -> Accidents:
        """Return what cannot be reached, read or written now."""
        return Accidents(frozenset(self.off), frozenset(self.broken), frozenset(self.full))

    def may_need(
        self,
        token: str,
        give_up: Iterable[str],
        then: Accidents,
        looked_at: Mapping[tuple[str, str, str, str], str] | None = None,
    ) -> list[str]:
        """Return who would be locked out without a token; ``looked_at``: of those that had it then.

        What could not be looked at ``then`` has to be known of where the variables name that person: an account on a
        host that was on, any account on one that was off.
        """
        named = {item: self.tokens[self.vault[item.variable]] for item in self.holders}
        theirs = {item for item, held in named.items() if self._same_person(held, self.tokens[token])}
        # Whose a dead token was, the server does not say.
        users = {item.user for item in theirs if named[item].alive or named[item].name == token}
        successors = {replaces(item.description) for item in self.tokens.values() if item.alive}
        accounts = {
            (item.host, item.user)
            for item in theirs
            if named[item].alive or item.user in users or named[item].name in successors
        }
        hosts = {host for host, _user in accounts}
        return [
            f"{host} {user} {path} {key}"
            for (host, user, path, key), held in self.files.items()
            if held == token
            and (looked_at is None or looked_at.get((host, user, path, key)) == token)
            and host not in give_up
            and (host not in then.off or host in hosts)
            and ((host, user) not in then.broken or (host, user) in accounts)
        ]

    # What is done

    def new_token(self, server: str, person: int, description: str = "", age: float = 0.0) -> str:
        """Make a token; return its name."""
        number = next(iter(self.numbers))
        name = f"{number:08x}"
        self.tokens[name] = Token(name, server, person, number, self.clock - age, description)
        return name

    def make(self, source: str, description: str, request: Request, then: Accidents) -> str:
        """Make the token that replaces another one, once; ``then``: the accidents that were known before."""
        old = self.tokens[source]
        mine = [item for item in self.tokens.values() if item.alive and self._same_person(item, old)]
        found = [item for item in mine if replaces(item.description) == source]
        if found:
            return min(found, key=lambda item: item.number).name
        name = self.new_token(old.server, old.person, description)
        if old.server in self.legacy:
            for item in mine:
                item.alive = False
                if not request.anyway and item.name == source:
                    unreachable = [
                        place for place in self.may_need(item.name, request.give_up, then)
                        if place.split()[0] in then.off or place.split()[0] not in request.hosts
                        or tuple(place.split()[:2]) in then.full
                    ]  # fmt: skip
                    self.faults += [f"making {name} killed {item.name}: {place}" for place in unreachable]
        return name

    def use(self, token: str) -> bool:
        """Ask a server something with a token; return whether it accepted it."""
        self.clock += 1
        if self.tokens[token].alive:
            self.tokens[token].last_used = self.clock
        return self.tokens[token].alive

    def save(self, entry: Entry, token: str) -> bool:
        """Write a token on a host, in the place of the one before in all of the account's files."""
        if entry.host in self.off or not self.use(token) or (entry.host, entry.user) in self.broken | self.full:
            return False
        mine = self.place(entry)
        before = self.files.get(mine)
        others = set(map(self.place, self.holders))
        for place, held in list(self.files.items()):
            if place[:2] == mine[:2] and before is not None and held == before and place not in others:
                self.files[place] = token
        self.files[mine] = token
        return True

    def revoke(
        self,
        token: str,
        request: Request,
        then: Accidents,
        vault: dict[str, str],
        files: dict[tuple[str, str, str, str], str],
    ) -> None:
        """Revoke a token; ``vault``, ``files`` and ``then`` are what was there when the lab was looked at before.

        What a second administrator writes after the look is noticed as a use of the token. Whoever says that uses do
        not matter is not kept from taking that one away.
        """
        self.tokens[token].alive = False
        if request.strategy == "cutover" or request.revoke == "never":
            self.faults.append(f"revoking {token}, which was to be kept")
        looked_at = files if request.revoke == "even_if_used" else None
        locked_out = self.may_need(token, request.give_up, then, looked_at)
        self.faults += [f"revoking {token}: {place}" for place in locked_out]
        self.faults += [f"revoking {token}: {name} has it" for name, held in vault.items() if held == token]


class Outcome(NamedTuple):
    """How a run ended: whether it may exit 0, and the effects that it had."""

    done: bool
    effects: tuple[str, ...]
    rotations: tuple[Rotation, ...] = ()


def _asked_about(lab: Lab, entries: Iterable[Entry]) -> dict[str, Account]:
    """Ask the servers about all tokens of the variables, and return what they say."""
    for entry in entries:
        lab.use(entry.token)
    return {entry.token: lab.account(entry.token) for entry in entries}


def rotate(lab: Lab, request: Request) -> Generator[str, None, Outcome]:
    """Rotate, as the playbook does; stops before every effect, and names it."""
    effects: list[str] = []
    entries = lab.entries()
    accounts = _asked_about(lab, entries)
    inventory, as_left = lab.inventory(entries), dict(lab.vault)
    _decide.decide(Known(inventory, {}, accounts, request))
    seen = lab.look(lab.hosts)
    known = Known(inventory, seen, accounts, request)
    alive = [item for item in _decide.decide(known) if item.action != "leave" and accounts[item.source].accepted]
    then = lab.accidents()
    lab.rehearse(_decide.to_rehearse(alive, known), seen)
    rotations = list(_decide.decide(known))
    failed = False
    lab.faults += [
        f"{rotation.users} are rotated and were not named"
        for rotation in rotations
        if rotation.action != "leave" and request.users and not request.users & set(rotation.users)
    ]
    lab.faults += [
        fault
        for rotation in rotations
        if rotation.action == "make"
        for fault in _needless(lab, rotation, request, seen)
    ]
    for index, rotation in enumerate(rotations):
        if rotation.action == "make":
            yield f"make for {rotation.source}"
            stored = any(lab.vault[name] in rotation.tokens for name in lab.vault if name not in lab.fixed)
            if not lab.tokens[rotation.source].alive or not stored or lab.vault != as_left:
                rotations[index] = replace(rotation, action="refuse")
                continue
            kept = request.revoke == "never"
            name = lab.make(rotation.source, description(request.name, rotation.source, kept), request, then)
            effects.append(f"made {name}")
            rotations[index] = replace(rotation, new=name)
        if rotation.action in ("make", "continue"):
            new = rotations[index].new
            stale = {*rotation.tokens, *(item.token for item in rotation.old)} - {new}
            first = rotation.action == "make" and lab.tokens[new].server in lab.legacy
            for variable, token in lab.vault.items():
                if token in stale and variable not in lab.fixed:
                    if not first:  # no server that kills the old one lists the new one for it
                        yield f"store {new} in {variable}"
                    first = False
                    lab.before[variable] = token
                    lab.vault[variable] = as_left[variable] = new
                    effects.append(f"stored {new} in {variable}")
    for rotation in rotations:
        if rotation.idle:
            failed = failed or rotation.action == "refuse"
            continue
        failed = failed or bool(rotation.left)
        for entry in rotation.entries:
            if entry.host in request.hosts and entry not in rotation.withheld:
                held = held_by(lab, entry)
                if held != rotation.new:
                    yield f"save {rotation.new} on {entry.host} for {entry.user}"
                    if lab.save(entry, rotation.new):
                        effects.append(f"saved {rotation.new} on {entry.host} for {entry.user}")
    marks = {old.token: lab.tokens[old.token].last_used for rotation in rotations for old in rotation.old}
    yield "wait"
    seen, then, vault, files = lab.look(lab.hosts), lab.accidents(), dict(lab.vault), dict(lab.files)
    inventory = lab.inventory(entries)
    without = {
        rotation.tokens: [
            f"revoking what {rotation.new} replaces: {entry.host} {entry.user} does not have that"
            for entry in rotation.entries
            if entry.host not in request.give_up and not has(lab, entry, rotation.new)
        ]
        for rotation in rotations
    }
    for rotation in rotations:
        if rotation.idle:
            continue
        blockers = _holders.blockers(rotation, Known(inventory, seen, accounts, request))
        left = ""
        for old in rotation.old:
            if left and replaces(old.description) == left:
                left = old.token  # a later run needs it to find the one that it replaced
                continue
            if not blockers and lab.tokens[old.token].alive:
                yield f"revoke {old.token}"
            listed = lab.account(rotation.new).tokens
            now = next((item for item in listed or () if item.token == old.token), None)
            used = _decide.used_since(now, marks.get(old.token), lab.clock)
            if blockers or listed is None or (used and request.revoke != "even_if_used"):
                failed = True
                left = old.token
            elif now is not None:
                lab.revoke(old.token, request, then, vault, files)
                lab.faults += without[rotation.tokens]
                effects.append(f"revoked {old.token}")
        failed = failed or any(
            entry.host not in request.give_up
            and (
                held_by(lab, entry) != rotation.new
                or entry.host in lab.off
                or (entry.host, entry.user) in lab.broken | lab.full
            )
            for entry in rotation.entries
        )
    return Outcome(not failed, tuple(effects), tuple(rotations))


def take_off(lab: Lab, request: Request) -> Generator[str, None, Outcome]:
    """Take the tokens of a request's users off its hosts, and revoke them, as the playbook decommission does."""
    effects: list[str] = []
    entries = lab.entries()
    accounts = _asked_about(lab, entries)
    inventory = Inventory(tuple(lab.hosts), entries)
    failed = False
    for entry in entries:
        if entry.host not in request.hosts or (request.users and entry.user not in request.users):
            continue
        if entry.host in lab.off or (entry.host, entry.user) in lab.broken | lab.full:
            failed = True
            continue
        yield f"take {entry.key} of {entry.user} off {entry.host}"
        mine = lab.place(entry)
        held = lab.files.get(mine)
        for place in [place for place, token in lab.files.items() if place[:2] == mine[:2] and held == token]:
            del lab.files[place]
            effects.append(f"took {held} off {entry.host}")
    yield "look again"
    seen, then, files = lab.look(lab.hosts), lab.accidents(), dict(lab.files)
    for rotation in _holders.taken_off(Known(inventory, seen, accounts, request)):
        if rotation.blockers or not lab.tokens[rotation.source].alive:
            failed = failed or bool(rotation.blockers)
            continue
        yield f"revoke {rotation.source}"
        lab.revoke(rotation.source, request, then, {}, files)
        effects.append(f"revoked {rotation.source}")
    return Outcome(not failed, tuple(effects))


def _needless(lab: Lab, rotation: Rotation, request: Request, seen: Mapping[str, Seen | str]) -> list[str]:
    """Return why a token need not be made, as far as that was known when it was decided."""
    own = lab.tokens[rotation.source]
    if request.strategy == "cutover":
        return [f"a new one for {own.name} in a cutover"]
    fixed = [name for name in sorted(lab.fixed) if lab.vault[name] in rotation.tokens]
    if fixed:
        return [f"a new one for {own.name} that cannot be stored in {fixed}"]
    mine = [entry for entry in rotation.entries if entry.host in request.hosts]
    if (
        not request.anyway
        and not {entry.host for entry in mine} <= request.give_up
        and not any(
            isinstance(found, Seen) and entry.user not in found.failed and (entry.host, entry.user) not in lab.full
            for entry in mine
            for found in [seen[entry.host]]
        )
    ):
        return [f"a new one for {own.name} that no host could get"]
    made = [token.name for token in lab.tokens.values() if token.alive and replaces(token.description) == own.name]
    if made:
        return [f"another one for {own.name}, beside {made}"]
    by = rotation_name(own.description)
    return [f"another one of {by} for {own.name}"] if by is not None and by == request.name else []


def held_by(lab: Lab, entry: Entry) -> str | None:
    """Return the token that a holder has in its own place."""
    return lab.files.get(lab.place(entry))


def has(lab: Lab, entry: Entry, token: str) -> bool:
    """Return whether the account has a token under the key of an entry, whichever of a server's names it lies under."""
    return any(
        held == token and (host, user, key) == (entry.host, entry.user, entry.key)
        for (host, user, _path, key), held in lab.files.items()
    )


def finish(run: Generator[str, None, Outcome]) -> Outcome:
    """Let a run go on to its end."""
    while True:
        try:
            next(run)
        except StopIteration as ended:
            outcome: Outcome = ended.value
            return outcome


def twins(lab: Lab) -> list[str]:
    """Return the tokens that are alive and have two living successors that a rotation made."""
    alive = [token for token in lab.tokens.values() if token.alive]
    replaced = [name for token in alive if (name := replaces(token.description)) and lab.tokens[name].alive]
    return [f"two tokens replace {name}" for name in set(replaced) if replaced.count(name) > 1]


def left_alive(lab: Lab, new: str) -> list[str]:
    """Return the tokens that rotations replaced on the way to ``new``, that nobody kept, and that are alive still."""
    chain = [lab.tokens[new]]
    while not is_kept(chain[-1].description):
        before = lab.tokens.get(replaces(chain[-1].description) or "")
        if before is None or before in chain:
            break
        chain.append(before)
    return [f"{token.name} stays alive, which {new} replaced" for token in chain[1:] if token.alive]


def lost(lab: Lab) -> list[str]:
    """Return the tokens that a rotation made and that nobody finds: not in the vault, and nothing there leads to them.

    Where somebody has put a token of the person into the vault by hand, all may be as that person wants it.
    """
    replaced = {replaces(item.description) for item in lab.tokens.values()}
    by_hand = {token.person for token in lab.tokens.values() if token.description == "by hand"}
    found = []
    for token in lab.tokens.values():
        if token.alive and replaces(token.description) and token.person not in by_hand and token.name not in replaced:
            chain = [token.name]
            while (old := replaces(lab.tokens[chain[-1]].description)) is not None:
                chain.append(old)
            if not set(chain) & set(lab.vault.values()):
                found.append(f"{token.name} is alive and nobody can find it: {chain}")
    return found
