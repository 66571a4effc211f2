# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation must never do, over random small labs, on the real playbook, files and server.

    python -m rotation_playbook RUNS SEED

A story is a lab with some accidents and rotations, each a run of ansible-playbook, some of them killed at one of their
effects. Before and after each run a picture is taken of what lies where, as ``rotation_model`` has it, and looked at.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import rotation_model as model
from ansible.parsing.vault import VaultLib, VaultSecret
from lab import PASSWORD, STACK, USER, Lab, recap

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import is_kept, replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Request
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable
from cave_server import CaveServer

STRIKES = Path(__file__).parents[1] / "slow" / "fleet" / "plugins"
EFFECTS = 60
"""A run is killed at one of its first effects; most have about as many."""
PEOPLE = {"alice": "global", "bob": "global", "carol": "zetta"}
RUNS_EACH = 3
"""Runs of a story, besides the last one, which has to end well."""


class WrongError(AssertionError):
    """A rotation did what it must never do."""


class Ended(NamedTuple):
    """How a run ended; ``killed``: at which effect, or an empty string."""

    status: int
    output: str
    killed: str

    @property
    def refused(self) -> bool:
        """Whether nothing was done, as the report says."""
        return "Refused, and nothing was done." in self.output


@dataclass
class Story:
    """A lab, and what happens in it."""

    draw: random.Random
    folder: Path
    servers: dict[str, CaveServer]
    runs: int = 0
    told: list[str] = field(default_factory=list)
    """What happened so far."""
    known: dict[str, model.Token] = field(default_factory=dict)
    """All tokens that there ever were, by fingerprint."""
    values: dict[str, str] = field(default_factory=dict)
    legacy: dict[str, bool] = field(default_factory=dict)
    """Which servers kill a person's tokens when one is made."""

    def __post_init__(self) -> None:
        """Make the lab."""
        draw = self.draw
        for name, server in self.servers.items():
            server.reset()
            self.legacy[name] = draw.random() < (0.3 if name == "global" else 0.5)
            server.configure(legacy=self.legacy[name])
        hosts = [f"ws{number}" for number in range(1, draw.choice((2, 3, 3, 4, 5)) + 1)]
        self.lab = Lab(self.folder, self.servers["global"], dict(zip(hosts, [*PEOPLE, *PEOPLE], strict=False)))
        self.lab.settings = {"ANSIBLE_FORKS": "5"}
        del self.lab.variables["caveclient_tokens"]
        for name, where in PEOPLE.items():
            if name not in self.lab.persons or where != "global":
                self.lab.persons[name] = self.servers[where].add_person(name, [STACK])
        self.lab.cave = _Both(self.servers)  # type: ignore[assignment]
        self.variables = {
            f"vault_{name}_{copy}": ("vault.yml", "second.yml")[copy] for name in PEOPLE for copy in (0, 1)
        }
        self._write_vault({name: self.lab.persons[name.split("_")[1]].token for name in self.variables})
        self.holders: list[model.Holder] = []
        for host in hosts:
            for _entry in range(draw.choice((1, 1, 2))):
                self._add_entry(host)
        for holder in self.holders:
            if draw.random() < 0.85:
                self._put(holder.host, self._own_file(holder), holder.key, self._stored(holder.variable))
            if draw.random() < 0.12:
                self._put(holder.host, "copy.json", "mine", self._stored(holder.variable))
        self.told.append(f"{len(hosts)} hosts, {[tuple(holder) for holder in self.holders]}")
        self._learn()

    # The lab ---------------------------------------------------------------------------------------------------------

    def _addresses(self, server: str) -> list[str]:
        port = self.servers[server].url.rpartition(":")[2]
        return [
            f"http://{host}:{port}{end}" for host, end in (("127.0.0.1", ""), ("localhost", ""), ("LOCALHOST", "/"))
        ]

    def _add_entry(self, host: str) -> None:
        name = self.draw.choice(list(PEOPLE))
        address, key = self.draw.choice(self._addresses(PEOPLE[name])), self.draw.choice(("token", "token", "banc"))
        for other in self.holders:
            # One account cannot have two tokens of a server under one key, nor call it by two names for one datastack.
            if (other.host, self._server(other)) == (host, PEOPLE[name]):
                if other.key == key:
                    return
                address = other.address
        holder = model.Holder(host, USER, address, key, f"vault_{name}_{self.draw.choice((0, 0, 0, 1))}")
        self.holders.append(holder)
        entry = {
            "user": USER,
            "token": f"{{{{ {holder.variable} }}}}",
            "server": address,
            "key": key,
            "datastacks": [STACK] if PEOPLE[name] == "global" else [],
        }
        self.lab.hosts[host].setdefault("caveclient_tokens", []).append(entry)

    @staticmethod
    def _server(holder: model.Holder) -> str:
        return PEOPLE[holder.variable.split("_")[1]]

    @staticmethod
    def _own_file(holder: model.Holder) -> str:
        return f"{holder.address.partition('//')[2].rstrip('/')}-cave-secret.json"

    def _put(self, host: str, name: str, key: str, token: str) -> None:
        folder = self.lab.secrets(host)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, key: token}))
        path.chmod(0o600)

    def _write_vault(self, tokens: dict[str, str]) -> None:
        for file in ("vault.yml", "second.yml"):
            text = "".join(
                f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in _encrypted(token).splitlines())
                for name, token in tokens.items() if self.variables[name] == file
            )  # fmt: skip
            self.lab.vault.with_name(file).write_text(text)

    def _stored(self, variable: str) -> str:
        path = self.lab.vault.with_name(self.variables[variable])
        token = read_variable(str(path), (variable,), [("default", VaultSecret(PASSWORD.encode()))])
        return str(token)

    def _vault(self) -> dict[str, str]:
        return {name: self._stored(name) for name in self.variables}

    def _learn(self) -> None:
        """Learn which tokens there are now."""
        for token in self.known.values():
            token.alive = False
        for number, (name, server) in enumerate(PEOPLE.items()):
            for item in self.servers[server].tokens(name):
                mark = fingerprint(item["token"])
                self.values[mark] = item["token"]
                self.known[mark] = model.Token(mark, server, number, item["id"], 0.0, item["description"] or "")

    def picture(self) -> model.Lab:
        """Return what lies where now."""
        self._learn()
        files = {}
        for host in self.lab.hosts:
            for path in sorted(self.lab.secrets(host).glob("*.json")):
                for key, value in json.loads(path.read_text()).items():
                    if isinstance(value, str) and fingerprint(value) in self.known:
                        files[host, USER, path.name, key] = fingerprint(value)
        tokens = {mark: replace(token) for mark, token in self.known.items()}
        vault = {name: fingerprint(token) for name, token in self._vault().items()}
        legacy = {name for name, is_so in self.legacy.items() if is_so}
        off = {host for host, variables in self.lab.hosts.items() if "ansible_port" in variables}
        return model.Lab(legacy, {}, list(self.lab.hosts), self.holders, vault, tokens, files=files, off=off)

    # What happens ----------------------------------------------------------------------------------------------------

    def accident(self) -> None:
        """Let something happen beside the rotations."""
        what = self.draw.choice(("switch", "switch", "renew", "renew a place", "restore", "lose", "copy", "nothing"))
        name = self.draw.choice(sorted(self.variables))
        host = self.draw.choice(sorted(self.lab.hosts))
        vault, person = self._vault(), name.split("_")[1]
        if what == "switch":
            (self.lab.switch_on if "ansible_port" in self.lab.hosts[host] else self.lab.switch_off)(host)
        elif what.startswith("renew"):
            old, new = vault[name], self.servers[PEOPLE[person]].make_token(person, "by hand")
            places = [name] if what == "renew a place" else [other for other, token in vault.items() if token == old]
            self._write_vault({**vault, **dict.fromkeys(places, new)})
        elif what == "restore":
            older = [item["token"] for item in self.servers[PEOPLE[person]].tokens(person)]
            self._write_vault({**vault, name: self.draw.choice(older)} if older else vault)
        elif what == "lose":
            for path in sorted(self.lab.secrets(host).glob("*-cave-secret.json"))[:1]:
                path.unlink()
        elif what == "copy":
            self._put(host, "copy.json", "mine", vault[name])
        self.told.append(f"{what} {host} {name}")

    def request(self) -> tuple[Request, dict[str, Any], list[str]]:
        """Return what is asked for: as the decision has it, and as variables and arguments."""
        draw, hosts = self.draw, list(self.lab.hosts)
        limit = sorted(draw.sample(hosts, draw.randint(1, len(hosts)))) if draw.random() < 0.3 else hosts
        request = Request(
            tuple(limit),
            strategy=draw.choice(("overlap", "overlap", "overlap", "cutover")),
            name=draw.choice(("", "", "spring", "autumn")),
            give_up=frozenset(draw.sample(hosts, 1) if draw.random() < 0.1 else ()),
            anyway=draw.random() < 0.1,
            revoke=draw.choice(("when_unused", "even_if_used", "even_if_used", "never")),
            other_person=True,
        )
        if draw.random() < 0.1:
            request = request._replace(canary=tuple(draw.sample(limit, 1)))
        return self._asked(request)

    def _asked(self, request: Request) -> tuple[Request, dict[str, Any], list[str]]:
        lists = {name: sorted(getattr(request, name)) for name in ("canary", "give_up") if getattr(request, name)}
        plain = {name: getattr(request, name) for name in ("strategy", "name", "anyway", "revoke", "other_person")}
        limit = [] if len(request.hosts) == len(self.lab.hosts) else ["--limit", ",".join(request.hosts)]
        return request, {**plain, **lists, "grace": 0}, limit

    def rotate(self, asked: tuple[Request, dict[str, Any], list[str]], strike: int = 0) -> Ended:
        """Rotate, and look at what came of it; ``strike``: the effect at which it is killed."""
        request, variables, arguments = asked
        before = self.picture()
        self.runs += 1
        log = self.folder / f"effects-{self.runs}"
        settings = {
            "ANSIBLE_CALLBACK_PLUGINS": str(STRIKES),
            "ANSIBLE_CALLBACKS_ENABLED": "strike",
            "STRIKE_LOG": str(log),
            "STRIKE_ON": "" if strike else "$",
            "STRIKE_NUMBER": str(strike),
            "STRIKE_WHAT": self.draw.choice(("all", "main", "worker")) if strike else "",
            "STRIKE_DELAY": "0",
        }
        process = self.lab.start(*arguments, settings={**self.lab.settings, **settings}, **variables)
        output = process.communicate(timeout=120)[0]
        _wait_for(f"STRIKE_LOG={log}")
        done = log.read_text().splitlines() if log.exists() else []
        killed = done[strike - 1].strip() if strike and len(done) >= strike else ""
        ended = Ended(process.returncode, output, killed)
        what = f"killed at {killed}" if killed else f"status {ended.status}{', refused' if ended.refused else ''}"
        self.told.append(f"{variables} {arguments}: {what}")
        self._look(before, self.picture(), request, ended)
        return ended

    # What must hold --------------------------------------------------------------------------------------------------

    def _look(self, before: model.Lab, after: model.Lab, request: Request, ended: Ended) -> None:
        wrong = [*model.twins(after), *model.lost(after)]
        wrong += self._of_the_dead(before, after, request)
        untouched = {*before.off, *(set(before.hosts) - set(request.hosts))}
        wrong += [
            f"{place} was changed, on a host that is off or outside of the run"
            for place in {*before.files, *after.files}
            if place[0] in untouched and before.files.get(place) != after.files.get(place)
        ]
        if "Traceback" in ended.output or any(token in ended.output for token in self.values.values()):
            wrong.append("a token or a traceback was printed")
        if not ended.killed:
            wrong += self._of_the_end(before, after, request, ended)
        if wrong:
            pictures = [f"{lab.files} {lab.vault} {lab.legacy} {list(lab.tokens.values())}" for lab in (before, after)]
            raise WrongError("\n".join([*wrong, *self.told, *pictures, ended.output[-6000:]]))

    def _of_the_dead(self, before: model.Lab, after: model.Lab, request: Request) -> Iterator[str]:
        """Yield what is wrong with the tokens that died."""
        made = {mark: token for mark, token in after.tokens.items() if mark not in before.tokens}
        for mark, token in before.tokens.items():
            if not token.alive or after.tokens[mark].alive:
                continue
            killers = [new for new in made.values() if (new.server, new.person) == (token.server, token.person)]
            if killers and token.server in after.legacy:
                if not request.anyway and any(replaces(new.description) == mark for new in killers):
                    holding = before.may_need(mark, request.give_up, before.accidents())
                    out = {*before.off, *(set(before.hosts) - set(request.hosts))}
                    yield from (f"making one killed {mark}: {place}" for place in holding if place.split()[0] in out)
                continue
            if request.strategy == "cutover" or request.revoke == "never":
                yield f"{mark} was revoked, and nobody asked for that"
            holding = after.may_need(mark, request.give_up, after.accidents())
            yield from (f"{mark} was revoked: {place}" for place in holding)
            yield from (f"{mark} was revoked: {name} has it" for name, held in after.vault.items() if held == mark)
        if request.strategy == "cutover" and made:
            yield f"a cutover made {sorted(made)}"

    def _of_the_end(self, before: model.Lab, after: model.Lab, request: Request, ended: Ended) -> Iterator[str]:
        """Yield what is wrong with how a run ended that nobody killed."""
        if ended.refused:
            if (before.files, before.vault, before.tokens) != (after.files, after.vault, after.tokens):
                yield "something was done, and it says that nothing was"
            blamed = {host for host, counts in recap(ended.output).items() if counts["failed"] + counts["unreachable"]}
            if blamed != {"localhost"}:
                yield f"it was refused, and {blamed} are blamed"
        behind = [
            holder
            for holder in self.holders
            if holder.host in request.hosts and holder.host not in request.give_up and not self._has(after, holder)
        ]
        if ended.status == 0:
            yield from (f"exit 0, and {holder} does not have its token" for holder in behind)
            off = {holder.host for holder in self.holders} & after.off & set(request.hosts) - request.give_up
            yield from (f"exit 0, and {host} is off" for host in off)
        elif not ended.refused:
            path = self.lab.report / "pending"
            pending = path.read_text().split() if path.exists() else []
            yield from (f"{holder} is behind and not pending" for holder in behind if holder.host not in pending)
            if "PLAY RECAP" not in ended.output or "workstation" not in ended.output:
                yield "there is no report"

    def _has(self, lab: model.Lab, holder: model.Holder) -> bool:
        held = lab.files.get((holder.host, USER, self._own_file(holder), holder.key))
        return held is not None and held == lab.vault[holder.variable] and lab.tokens[held].alive

    def tell(self) -> None:
        """Let the story happen, and end well."""
        for _run in range(RUNS_EACH):
            for _accident in range(self.draw.choice((0, 1, 1, 2))):
                self.accident()
            asked = self.request()
            ended = self.rotate(asked, self.draw.randint(1, EFFECTS) if self.draw.random() < 0.35 else 0)
            if ended.status == 0 and not ended.killed and self.draw.random() < 0.3:
                self._again(asked)
        self._end()

    def _again(self, asked: tuple[Request, dict[str, Any], list[str]]) -> None:
        before = self.picture()
        again = self.rotate(asked)
        after = self.picture()
        if again.status or (before.files, before.vault, before.tokens) != (after.files, after.vault, after.tokens):
            raise WrongError("\n".join(["the same command again does something", *self.told, again.output[-6000:]]))

    def _end(self) -> None:
        """Repair all; then one rotation ends what was begun, unless the vault holds a token that died."""
        for host, variables in self.lab.hosts.items():
            (self.lab.secrets(host) / "copy.json").unlink(missing_ok=True)
            if "ansible_port" in variables:
                self.lab.switch_on(host)
        lab = self.picture()
        dead = any(not lab.tokens[lab.vault[holder.variable]].alive for holder in self.holders)
        request = Request(tuple(self.lab.hosts), strategy="overlap", revoke="even_if_used", other_person=True)
        ended = self.rotate(self._asked(request))
        after = self.picture()
        if dead:
            return
        wrong = [f"it does not end: {ended.status}"] if ended.status else []
        for holder in self.holders:
            text = after.tokens[after.vault[holder.variable]].description
            old = replaces(text)
            if old in after.tokens and after.tokens[old].alive and not is_kept(text):
                wrong.append(f"{old} stays alive")
        if wrong:
            raise WrongError("\n".join([*wrong, *self.told, ended.output[-6000:]]))


def _encrypted(token: str) -> str:
    return str(VaultLib().encrypt(token, VaultSecret(PASSWORD.encode())).decode())


class _Both:
    """The servers, as a lab asks one."""

    def __init__(self, servers: dict[str, CaveServer]) -> None:
        self._servers = servers
        self.url = servers["global"].url

    def tokens(self, name: str) -> list[dict[str, Any]]:
        """Return the tokens of a person."""
        return self._servers[PEOPLE[name]].tokens(name)


def _wait_for(mark: str) -> None:
    """Wait until no process is left that has a text in its environment."""
    deadline = time.monotonic() + 60
    while any(_has_in_environment(path, mark.encode()) for path in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > deadline:
            raise TimeoutError(mark)
        time.sleep(0.05)


def _has_in_environment(path: Path, mark: bytes) -> bool:
    try:
        return mark in (path / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def search(runs: int, seed: int, tell: bool = False) -> Iterator[int]:
    """Tell stories until there were so many runs; yield how many each had. Raises WrongError, with its story."""
    with CaveServer() as one, CaveServer() as other:
        while runs > 0:
            with tempfile.TemporaryDirectory(prefix="rotation-") as folder:
                story = Story(random.Random(seed), Path(folder) / "lab", {"global": one, "zetta": other})  # noqa: S311
                try:
                    story.tell()
                except WrongError as error:
                    raise WrongError(f"seed {seed}: {error}") from None
                if tell:
                    print(f"{seed}: {story.runs} runs", *story.told[1:], sep="\n  ", flush=True)
                runs -= story.runs
                yield story.runs
            seed += 1


if __name__ == "__main__":
    print(sum(search(int(sys.argv[1]), int(sys.argv[2]), tell=True)), "runs")
