# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An overlap on real SSH hosts that is killed where most is at stake, and run again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from lab import Lab

from cave_server import CaveServer
from fleet import Fleet

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 6
USER = "alice"


class Strike(NamedTuple):
    """A moment of a run, and what of it is killed then."""

    what: str
    on: str
    number: int = 1
    delay: float = 0.0


SAMPLE = [
    [Strike("all", "answer POST 200")],  # a token was made, and is nowhere but on the server
    [Strike("main", "rename vault.yml")],  # a process that stores it outlives the run
    [Strike("connection", "ssh", HOSTS + 3, delay=0.2)],  # hosts get it whose answers are lost
    [Strike("worker", "answer DELETE 200")],  # the old one is revoked, and nobody has said so
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Six hosts with Alice's token."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name=f"pytest-killed-{os.getpid()}", users=(USER,)) as fleet,
        CaveServer(address=fleet.server_address) as cave,
    ):
        lab = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), [USER])
        lab.variables |= {"caveclient_timeout": 15}
        lab.settings = {
            **lab.settings,
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("plugins")),
            "ANSIBLE_CALLBACKS_ENABLED": "strike",
            "STRIKE_LOG": str(lab.folder / "effects"),
        }
        saved = lab.play("provision", "--tags", "token", settings=no_strike())
        assert saved.ok, saved.output
        yield lab


def no_strike() -> dict[str, str]:
    """Return the environment of a run that nobody kills."""
    return {"STRIKE_ON": "$", "STRIKE_NUMBER": "0", "STRIKE_WHAT": "", "STRIKE_DELAY": "0"}


def environment(strike: Strike) -> dict[str, str]:
    """Return the environment of a run with a strike."""
    return {
        "STRIKE_ON": strike.on,
        "STRIKE_NUMBER": str(strike.number),
        "STRIKE_WHAT": strike.what,
        "STRIKE_DELAY": str(strike.delay),
    }


def effects(lab: Lab) -> list[str]:
    """Return what the last run did."""
    path = lab.folder / "effects"
    return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []


def rotate(lab: Lab, name: str, strike: Strike | None = None) -> tuple[int, str]:
    """Rotate, killed or not, and wait for the end of all its processes. Return its status and output."""
    (lab.folder / "effects").unlink(missing_ok=True)
    process = lab.start(
        settings=environment(strike) if strike else no_strike(), strategy="overlap", name=name, grace=0.1
    )
    output, _errors = process.communicate(timeout=150)
    deadline = time.monotonic() + 60
    while (left := survivors(lab)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    lab.assert_nothing_shown(output)
    return process.returncode, output


def survivors(lab: Lab) -> list[int]:
    """Return the processes of a run that are left, without those of SSH that keep connections open."""
    mark = f"STRIKE_LOG={lab.folder}/effects".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes() and not (path / "cmdline").read_bytes().startswith(b"ssh:"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def check_nobody_is_locked_out(lab: Lab, moment: str) -> list[str]:
    """Check that every host's token is accepted, and the vault's. Return all tokens that are alive."""
    alive = lab.tokens(USER)
    assert len(alive) <= 2, moment
    assert {lab.saved(host, USER) for host in lab.fleet} <= set(alive), moment
    assert lab.stored(USER) in alive, moment
    return alive


def cycle(lab: Lab, name: str, strikes: list[Strike]) -> list[str]:
    """Kill a rotation at each strike, then let it finish. Return what was killed, and at which effects."""
    (old,) = lab.tokens(USER)
    lab.cave.clear_requests()
    made, struck = set[str](), []
    for strike in strikes:
        status, output = rotate(lab, name, strike)
        done = effects(lab)
        if sum(bool(re.match(strike.on, item)) for item in done) < strike.number:
            assert status == 0, f"{name}: {strike}\n{output}"  # the one before it came so late that little was left
            continue
        last = done[-1]
        moment = f"{name}: {strike}, after {last}"
        alive = check_nobody_is_locked_out(lab, moment)
        made |= set(alive) - {old}
        assert len(made) <= 1, moment
        assert strike.what == "connection" or status != 0, f"{moment}\n{output}"
        struck.append(f"{strike.what} at {' '.join(last.split()[:2])}")
    status, output = rotate(lab, name)
    moment = f"{name}: {strikes}, {struck}\n{output}"
    assert status == 0, moment
    (new,) = lab.tokens(USER)
    assert made <= {new}, moment
    assert new != old, moment
    assert lab.stored(USER) == new, moment
    assert {lab.saved(host, USER) for host in lab.fleet} == {new}, moment
    asked = [item["method"] for item in lab.cave.requests("/auth/api/v1/user/token")]
    assert asked.count("POST") == 1, moment
    assert sorted(path.name for path in lab.vault.parent.iterdir()) == ["vault.yml"], moment
    return struck


@pytest.mark.parametrize("strikes", SAMPLE, ids=lambda strikes: f"{strikes[0].what} at {strikes[0].on}")
def test_killed_where_most_is_at_stake_the_same_command_finishes(lab: Lab, strikes: list[Strike]) -> None:
    struck = cycle(lab, f"sample {strikes[0].what}", strikes)
    assert len(struck) == len(strikes)
