# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation must never do, over random labs, kills and accidents, on the pure decision.

    python -m rotation_labs STEPS SEED [departures]

The same seed is the same search, in a process of its own: hypothesis draws numbers from the source of the modules that
are loaded, so in a process with other tests the same seed draws others. A fault is printed with the smallest story
that shows it, and the exit status is 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
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
from rotation_model import Holder, Lab, Outcome, finish, held_by, left_alive, lost, rotate, take_off, twins

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide as _decide
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Request

STEPS_EACH = 30
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
    {"strategy": strategy, "name": name, "users": users, "anyway": anyway, "revoke": revoke}
    for users, anyway, strategy, revoke, name in product(
        (None, None, None, None, 0, 1),
        (False, False, False, False, True),
        ("overlap", "overlap", "overlap", "cutover"),
        ("when_unused", "when_unused", "even_if_used", "never"),
        ("", "spring", "autumn", "winter"),
    )
]
"""What may be asked for; ``users``: one of the lab's, by number."""
REQUESTS = st.sampled_from(OPTIONS)
MEANWHILE = (
    "restore_a_place",
    "restore_and_protect_a_place",
    "renew_a_place",
    "protect",
    "switch",
    "damage",
    "use_elsewhere",
)
BETWEEN = (*MEANWHILE, "renew", *2 * ("renew_a_place_and_switch_off", "lose_a_file", "let_time_pass"))
ACCIDENT, DURING = (st.sampled_from(list(product(names, range(12)))) for names in (BETWEEN, MEANWHILE))
"""What may happen beside a rotation: methods of the machine, each with its argument."""

Run = Generator[str, None, Outcome]


@st.composite
def labs(draw: st.DrawFn) -> Lab:
    """Return a lab: hosts, accounts, keys, several servers and several texts for each of them."""
    hosts = list(HOSTS[: draw(st.sampled_from((2, 2, 2, 1, 3, 3, 4, 6)))])
    lab = Lab(set(draw(st.sampled_from(LEGACY))), ADDRESSES, hosts, [], {}, {})
    for person in range(draw(st.sampled_from((1, 1, 1, 1, 2, 2, 3)))):
        for server in draw(st.sampled_from((("global",), ("global",), ("global",), ("global", "zetta")))):
            token = lab.new_token(server, person, age=draw(st.sampled_from((0.0, 400 * DAY))))
            for copy in range(draw(st.sampled_from((2, 2, 1)))):
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
        hosts, users = self.lab.hosts, sorted({holder.user for holder in self.lab.holders})
        number = options["users"]
        options = {
            **options,
            "users": frozenset(users[number % len(users) :][:1] if users and number is not None else ()),
        }
        limit = data.draw(st.integers(0, 3 * 2 ** len(hosts)))
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
                if request.strategy == "overlap" and request.revoke != "never" and not self.runs:
                    assert left_alive(self.lab, rotation.new) == []
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

    @rule(
        options=REQUESTS,
        before=st.lists(ACCIDENT, max_size=2),
        steps=st.integers(0, 8),
        during=st.lists(DURING, max_size=2),
        killed=st.booleans(),
        data=st.data(),
    )
    def rotate_among_accidents(
        self,
        options: dict[str, Any],
        before: list[tuple[str, int]],
        steps: int,
        during: list[tuple[str, int]],
        killed: bool,
        data: st.DataObject,
    ) -> None:
        """Repair the lab, let things happen, and rotate; let more happen before one of the effects.

        Then the rotation goes on to its end; or it is killed, and another one follows, of some hosts.
        """
        self._repair()
        for accident in before:
            self.happen(accident)
        options = {**options, "strategy": "overlap"}
        run = self._start(self._request(options, data))
        for _step in range(steps):
            if run is not None and next(run, "") == "":
                return
        if run is None:
            return
        for accident in during:
            self.happen(accident)
        if killed:
            run.close()
            run = self._start(self._request(options, data))
        if run is not None:
            finish(run)

    def _repair(self) -> None:
        self.lab.off, self.lab.broken, self.lab.full, self.lab.fixed = set(), set(), set(), set()

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

    @rule(accident=ACCIDENT)
    def happen(self, accident: tuple[str, int]) -> None:
        """Let something happen."""
        name, which = accident
        getattr(self, name)(which)

    def switch(self, which: int) -> None:
        """Switch a host off, or on again."""
        self.lab.off ^= {self.lab.hosts[which % len(self.lab.hosts)]}

    def damage(self, which: int) -> None:
        """Break somebody's files, or repair them; or let there be no space for them, or some again."""
        accounts = sorted({(holder.host, holder.user) for holder in self.lab.holders})
        found = self.lab.broken if which < 8 else self.lab.full
        found ^= {accounts[which % len(accounts)]} if accounts else set()

    def protect(self, which: int) -> None:
        """Make a place of the vault one that cannot be written, or that can again."""
        self.lab.fixed ^= {self._variable(which)}

    def restore_a_place(self, which: int) -> None:
        """Let somebody check an older version of a vault file out."""
        variable = self._variable(which)
        if variable in self.lab.before and self.lab.tokens[self.lab.before[variable]].alive:
            self.lab.vault[variable] = self.lab.before[variable]

    def restore_and_protect_a_place(self, which: int) -> None:
        """Let somebody check an older version out, into a file that cannot be written."""
        self.restore_a_place(which)
        self.lab.fixed |= {self._variable(which)}

    def let_time_pass(self, which: int) -> None:
        """Let time pass: a minute, some days, more than a year."""
        self.lab.clock += (60.0, 3 * DAY, 400 * DAY)[which % 3]

    def use_elsewhere(self, which: int) -> None:
        """Use a token from a computer that is in no inventory."""
        self.lab.use(sorted(self.lab.tokens)[which % len(self.lab.tokens)])

    def lose_a_file(self, which: int) -> None:
        """Let somebody remove a secrets file, while nobody rotates."""
        if self.lab.files and not self.runs:
            del self.lab.files[sorted(self.lab.files)[which % len(self.lab.files)]]

    def renew(self, which: int) -> None:
        """Let a person make a token on the page, and put it into the vault, in all places of the old one."""
        old = self.lab.vault[self._variable(which)]
        new = self._renewed(old)
        for name, held in self.lab.vault.items():
            if held == old:
                self.lab.vault[name] = new

    def renew_a_place(self, which: int) -> None:
        """Let a person make a token on the page, and put it into the vault, in one place alone."""
        self.lab.vault[self._variable(which)] = self._renewed(self.lab.vault[self._variable(which)])

    def renew_a_place_and_switch_off(self, which: int) -> None:
        """Let a person put a token into one place of the vault, and a host that it is for be off."""
        self.renew_a_place(which)
        self.lab.off |= {holder.host for holder in self.lab.holders if holder.variable == self._variable(which)}

    def _renewed(self, name: str) -> str:
        old = self.lab.tokens[name]
        new = self.lab.new_token(old.server, old.person, "by hand")
        if old.server in self.lab.legacy:
            for token in self.lab.tokens.values():
                if (token.server, token.person) == (old.server, old.person) and token.name != new:
                    token.alive = False
        return new

    def _variable(self, which: int) -> str:
        return sorted(self.lab.vault)[which % len(self.lab.vault)]

    @invariant()
    def nobody_is_locked_out(self) -> None:
        """No run takes a token away from a place that may hold it, or makes one that is not needed."""
        Rotations.taken += 1
        assert self.lab.faults == [], self.lab.faults

    @invariant()
    def nothing_is_made_twice_or_lost(self) -> None:
        """No token has two living successors that a rotation made, and each one can be found."""
        assert twins(self.lab) == []
        assert lost(self.lab) == []

    def teardown(self) -> None:
        """When all is repaired, the same command ends the rotation, whatever happened before."""
        lab = self.lab
        if not lab.holders:
            return
        for run, _request in self.runs:
            run.close()
        self._repair()
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


class Departures(Rotations):
    """A lab in which tokens are taken off hosts, and revoked, beside all else."""

    @rule(options=REQUESTS, kill=st.integers(0, 12), accident=DURING, data=st.data())
    def take_off(self, options: dict[str, Any], kill: int, accident: tuple[str, int], data: st.DataObject) -> None:
        """Take tokens off hosts and revoke them; something happens before one of the effects, or it is killed there."""
        request = self._request({**options, "strategy": "overlap", "revoke": "even_if_used"}, data)
        run = take_off(self.lab, request._replace(give_up=frozenset(), own_store=True))
        for _step in range(kill):
            if next(run, "") == "":
                return
        self.happen(accident)
        if kill % 3:
            finish(run)


def search(steps: int, seed: int, shrink: bool = True, labs: type[Rotations] = Rotations) -> None:
    """Take that many steps; ``shrink``: look for the smallest lab and story that shows a fault.

    Raises:
        AssertionError: a rotation did what it must never do.
    """
    run_state_machine_as_test(
        hypothesis.seed(seed)(labs),
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
    try:
        search(int(sys.argv[1]), int(sys.argv[2]), labs=Departures if "departures" in sys.argv else Rotations)
    finally:
        print(Rotations.taken, "steps")
