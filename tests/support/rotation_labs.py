# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation must never do, over random labs, kills and accidents, on the pure decision.

    python -m rotation_labs STEPS SEED

The same seed is the same search, in a process of its own: hypothesis draws numbers from the source of the modules that
are loaded, so in a process with other tests the same seed draws others. A fault is printed with the smallest story
that shows it, and the exit status is 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rotation_model import Holder, Lab, Outcome, finish, held_by, rotate

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Request

STEPS_EACH = 40
HOSTS = ("ws1", "ws2", "ws3", "ws4", "ws5", "hpc1")
USERS = ("alice", "bob", "carol", "shared")
DAY = 86400.0

ADDRESSES = {"global": "global", "GLOBAL": "global", "localhost": "global", "zetta": "zetta"}
LEGACY = ((), ("global",), ("zetta",), ("global", "zetta"))
ENTRIES = {
    server: [
        (user, address, key, what)
        for what, user, key, address in product(("token", "", "token", *USERS), USERS, ("token", "banc"), ADDRESSES)
        if ADDRESSES[address] == server
    ]
    for server in ("global", "zetta")
}
"""What an entry may be: user, address, key, and what the host has of it; a user: a copy in that one's files as well."""
OPTIONS = [
    {"strategy": strategy, "name": name, "users": frozenset(users), "anyway": anyway, "revoke": revoke}
    for users, anyway, strategy, revoke, name in product(
        ((), (), *((user,) for user in USERS)),
        (False, False, False, False, True),
        ("overlap", "overlap", "overlap", "cutover"),
        ("when_unused", "when_unused", "even_if_used", "never"),
        ("", "", "spring", "autumn"),
    )
]
REQUESTS = st.sampled_from(OPTIONS)
MANY = st.integers(0, 50)

Run = Generator[str, None, Outcome]


@st.composite
def labs(draw: st.DrawFn) -> Lab:
    """Return a lab: hosts, accounts, keys, several servers and several texts for each of them."""
    hosts = list(HOSTS[: draw(st.sampled_from((1, 2, 2, 2, 3, 3, 4, 6)))])
    lab = Lab(set(draw(st.sampled_from(LEGACY))), ADDRESSES, hosts, [], {}, {})
    for person in range(draw(st.sampled_from((1, 1, 1, 2, 2, 3, 4)))):
        for server in draw(st.sampled_from((("global",), ("global",), ("zetta",), ("global", "zetta")))):
            token = lab.new_token(server, person, age=draw(st.sampled_from((0.0, 400 * DAY))))
            for copy in range(draw(st.integers(1, 2))):
                variable = f"vault_{server}_{person}_{copy}"
                lab.vault[variable] = token
                for host in some(draw(st.integers(0, 2 ** len(hosts) - 1)), hosts):
                    user, address, key, what = draw(st.sampled_from(ENTRIES[server]))
                    _add(lab, Holder(host, user, address, key, variable), what)
    return lab


def _add(lab: Lab, holder: Holder, what: str) -> None:
    """Add an entry, unless another one has its place; ``what``: what the host has of it already."""
    place = lab.place(holder)
    if place not in map(lab.place, lab.holders):
        lab.holders.append(holder)
        if what:
            lab.files[place] = lab.vault[holder.variable]
        if what in USERS:  # a copy that some program or person made
            lab.files[holder.host, what, "copy.json", "mine"] = lab.vault[holder.variable]


def some(number: int, values: Sequence[str]) -> tuple[str, ...]:
    """Return the values whose bits are set in a number."""
    return tuple(value for index, value in enumerate(values) if number & 1 << index)


class Rotations(RuleBasedStateMachine):
    """A lab, with up to two administrators who rotate in it, and whatever happens meanwhile."""

    taken = 0
    """Steps of all labs of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(set(), {}, [], [], {}, {})
        self.runs: list[tuple[Run, Request]] = []

    @initialize(lab=labs())
    def begin(self, lab: Lab) -> None:
        """Set the lab up."""
        self.lab = lab

    def _request(self, options: dict[str, Any], data: st.DataObject) -> Request:
        hosts = self.lab.hosts
        limit = data.draw(st.integers(0, 4 * 2 ** len(hosts)))
        give_up = data.draw(st.integers(0, 10 * len(hosts)))
        return Request(
            (some(limit, hosts) if limit < 2 ** len(hosts) else ()) or tuple(hosts),
            give_up=frozenset(hosts[give_up - 1 : give_up] if give_up else ()),
            other_person=True,
            **options,
        )

    def _start(self, request: Request) -> Run | None:
        run = rotate(self.lab, request)
        try:
            next(run)
        except CaveError:
            return None  # a name that nobody has
        except StopIteration:
            return None
        return run

    @rule(options=REQUESTS, data=st.data())
    def rotate_to_the_end(self, options: dict[str, Any], data: st.DataObject) -> None:
        """Rotate; if all is well, the same command again does nothing."""
        request = self._request(options, data)
        before = {name for name, token in self.lab.tokens.items() if token.alive}
        files = dict(self.lab.files)
        try:
            outcome = finish(rotate(self.lab, request))
        except CaveError:
            return
        self._check(outcome, request, before, files)
        new = [self.lab.tokens[rotation.new] for rotation in outcome.rotations if rotation.new]
        is_new = all(request.name or self.lab.clock - token.created < _decide.NEW_FOR for token in new)
        if outcome.done and is_new and not self.runs:
            again = finish(rotate(self.lab, request))
            assert again.done, "the same command again fails"
            assert again.effects == (), "the same command again does something"

    def _check(self, outcome: Outcome, request: Request, before: set[str], files: dict[Any, str]) -> None:
        made = [effect for effect in outcome.effects if effect.startswith("made")]
        revoked = [effect for effect in outcome.effects if effect.startswith("revoked")]
        if request.strategy == "cutover":
            assert not made, "a cutover makes a token"
        if request.strategy == "cutover" or request.revoke == "never":
            assert not revoked, "a token was revoked that was to be kept"
        for host, *_rest in [place for place, token in self.lab.files.items() if files.get(place) != token]:
            assert host in request.hosts, "a host outside of the run was changed"
        if request.users and not self.runs:
            meant = {item for rotation in outcome.rotations if rotation.action != "leave" for item in rotation.tokens}
            dead = {name for name in before if not self.lab.tokens[name].alive}
            people = {(self.lab.tokens[name].server, self.lab.tokens[name].person) for name in meant}
            for name in dead:
                token = self.lab.tokens[name]
                assert (token.server, token.person) in people, "a token died of somebody who was not named"
        if outcome.done:
            for rotation in outcome.rotations:
                if rotation.action == "leave":
                    continue
                assert self.lab.tokens[rotation.new].alive, "all is well with a dead token"
                for entry in rotation.entries:
                    if entry.host not in request.give_up:
                        assert held_by(self.lab, entry) == rotation.new, "all is well, and a holder has another token"

    @precondition(lambda self: len(self.runs) < 2)
    @rule(options=REQUESTS, data=st.data())
    def start(self, options: dict[str, Any], data: st.DataObject) -> None:
        """Begin a rotation that goes on step by step beside whatever else happens."""
        request = self._request({**options, "strategy": "overlap"}, data)
        run = self._start(request)
        if run is not None:
            self.runs.append((run, request))

    @rule(options=REQUESTS, steps=st.integers(1, 8), data=st.data())
    def rotate_and_be_killed(self, options: dict[str, Any], steps: int, data: st.DataObject) -> None:
        """Begin a rotation, and kill it before one of its effects."""
        run = self._start(self._request({**options, "strategy": "overlap"}, data))
        for _step in range(steps):
            if run is not None and next(run, "") == "":
                return
        if run is not None:
            run.close()

    @rule(options=REQUESTS, steps=st.integers(0, 8), data=st.data())
    def rotate_with_an_accident(self, options: dict[str, Any], steps: int, data: st.DataObject) -> None:
        """Rotate, and let something happen before one of the effects."""
        run = self._start(self._request({**options, "strategy": "overlap"}, data))
        for _step in range(steps):
            if run is not None and next(run, "") == "":
                return
        if run is not None:
            accidents = (self.restore_a_place_of_the_vault, self.use_elsewhere, self.switch, self.protect)
            accidents[data.draw(st.integers(0, 3))](data.draw(MANY))
            with suppress(StopIteration):
                while True:
                    next(run)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 1), steps=st.integers(1, 6))
    def go_on(self, which: int, steps: int) -> None:
        """Let a rotation take some steps."""
        run = self.runs[which % len(self.runs)]
        for _step in range(steps):
            try:
                next(run[0])
            except StopIteration:
                self.runs.remove(run)
                return

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        """Kill a rotation where it is."""
        run = self.runs.pop(which % len(self.runs))
        run[0].close()

    @rule(which=MANY)
    def switch(self, which: int) -> None:
        """Switch a host off, or on again."""
        self.lab.off ^= {self.lab.hosts[which % len(self.lab.hosts)]}

    @precondition(lambda self: self.lab.holders)
    @rule(which=MANY)
    def damage(self, which: int) -> None:
        """Break somebody's files, or repair them."""
        holder = self.lab.holders[which % len(self.lab.holders)]
        self.lab.broken ^= {(holder.host, holder.user)}

    @rule(seconds=st.sampled_from((60.0, 3 * DAY, 400 * DAY)))
    def let_time_pass(self, seconds: float) -> None:
        """Let time pass."""
        self.lab.clock += seconds

    @rule(which=MANY)
    def use_elsewhere(self, which: int) -> None:
        """Use a token from a computer that is in no inventory."""
        self.lab.use(sorted(self.lab.tokens)[which % len(self.lab.tokens)])

    @rule(which=MANY)
    def protect(self, which: int) -> None:
        """Make a place of the vault one that cannot be written, or that can again."""
        self.lab.fixed ^= {sorted(self.lab.vault)[which % len(self.lab.vault)]}

    @precondition(lambda self: self.lab.files and not self.runs)
    @rule(which=MANY)
    def lose_a_file(self, which: int) -> None:
        """Let somebody remove a secrets file."""
        del self.lab.files[sorted(self.lab.files)[which % len(self.lab.files)]]

    @rule(which=MANY)
    def restore_a_place_of_the_vault(self, which: int) -> None:
        """Let somebody check an older version of a vault file out."""
        if self.lab.before:
            variable = sorted(self.lab.before)[which % len(self.lab.before)]
            if self.lab.tokens[self.lab.before[variable]].alive:
                self.lab.vault[variable] = self.lab.before[variable]

    @precondition(lambda self: not self.runs)
    @rule(which=MANY, everywhere=st.booleans())
    def put_a_new_token_into_the_vault(self, which: int, everywhere: bool) -> None:
        """Let a person make a token on the page, and put it into one or all places of the old one."""
        variable = sorted(self.lab.vault)[which % len(self.lab.vault)]
        old = self.lab.tokens[self.lab.vault[variable]]
        new = self.lab.new_token(old.server, old.person, "by hand")
        if old.server in self.lab.legacy:
            for token in self.lab.tokens.values():
                if (token.server, token.person) == (old.server, old.person) and token.name != new:
                    token.alive = False
        for name, held in self.lab.vault.items():
            if name == variable or (everywhere and held == old.name):
                self.lab.vault[name] = new

    @invariant()
    def nobody_is_locked_out(self) -> None:
        """No run takes a token away from a place that may hold it, or makes one that is not needed."""
        Rotations.taken += 1
        assert self.lab.faults == [], self.lab.faults

    @invariant()
    def nothing_is_made_twice(self) -> None:
        """No token has two living successors that a rotation made."""
        alive = [token for token in self.lab.tokens.values() if token.alive]
        replaced = [replaces(token.description) for token in alive]
        found = [name for name in replaced if name and self.lab.tokens[name].alive]
        assert len(found) == len(set(found)), "two tokens replace the same one"

    @invariant()
    def a_token_that_was_made_is_never_lost(self) -> None:
        """Each one is in the vault, or its predecessor in the vault leads to it."""
        replaced = {replaces(item.description) for item in self.lab.tokens.values()}
        for token in self.lab.tokens.values():
            if token.alive and replaces(token.description) and not self._by_hand(token.person):
                chain = [token.name]
                while (old := replaces(self.lab.tokens[chain[-1]].description)) is not None:
                    chain.append(old)
                found = token.name in replaced or set(chain) & set(self.lab.vault.values())
                assert found, (
                    f"{token.name} is alive and nobody can find it: {chain} {self.lab.vault} {self.lab.tokens}"
                )

    def _by_hand(self, person: int) -> bool:
        return any(token.person == person and token.description == "by hand" for token in self.lab.tokens.values())

    def teardown(self) -> None:
        """When all is repaired, the same command ends the rotation, whatever happened before."""
        lab = self.lab
        if not lab.holders:
            return
        for run, _request in self.runs:
            run.close()
        lab.off, lab.broken, lab.fixed = set(), set(), set()
        for place in [place for place in lab.files if place[2] == "copy.json"]:
            del lab.files[place]
        request = Request(tuple(lab.hosts), strategy="overlap", other_person=True, revoke="even_if_used")
        dead = {variable for variable, token in lab.vault.items() if not lab.tokens[token].alive}
        outcome = finish(rotate(lab, request))
        if dead:
            return
        assert outcome.done, f"it does not end: {outcome}"
        for name in {lab.vault[holder.variable] for holder in lab.holders}:
            replaced = replaces(lab.tokens[name].description)
            kept = ", kept)" in lab.tokens[name].description
            assert kept or replaced is None or not lab.tokens[replaced].alive, f"{replaced} stays alive"
        if all(lab.clock - lab.tokens[item.new].created < _decide.NEW_FOR for item in outcome.rotations):
            again = finish(rotate(lab, request))
            assert (again.done, again.effects) == (True, ()), f"the same command again does something: {again}"
        self.nobody_is_locked_out()


def search(steps: int, seed: int, shrink: bool = True) -> None:
    """Take that many steps; ``shrink``: look for the smallest lab and story that shows a fault.

    Raises:
        AssertionError: a rotation did what it must never do.
    """
    run_state_machine_as_test(
        hypothesis.seed(seed)(Rotations),
        settings=settings(
            max_examples=max(1, steps // STEPS_EACH),
            stateful_step_count=STEPS_EACH,
            deadline=None,
            derandomize=False,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def search_apart(*words: str) -> subprocess.CompletedProcess[str]:
    """Search in a process of its own: the same words find the same, whatever else this process has done."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


if __name__ == "__main__":
    search(int(sys.argv[1]), int(sys.argv[2]))
    print(Rotations.taken, "steps")
