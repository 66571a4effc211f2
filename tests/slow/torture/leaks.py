# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hunt for tokens outside of their files.

Unique tokens go through every module and playbook, well and in failures of every kind, on real SSH hosts, as loud as
Ansible can be made. Then everything that was printed, logged, sent or written is searched for them, on both sides.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pexpect
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import ROOT, environment, wait_until_read
from fleet import Fleet, Host
from matrix import controllers
from other_collections import collections_folder
from support_matrix import CORES

from cave_server import CaveServer

from .attacks import Report, Short, attack
from .canaries import Canaries, canary
from .watching import DAEMON, EVERY, JOURNAL, TRACE, ProcessList, SystemLog, read_trace, traced_host

STACK = "minnie65_public"
NOT_ACCEPTED = "does not accept the token"
PASSWORD = b"correct horse"
PLUGINS = Path(__file__).with_name("plugins")
SECRETS = re.compile(r"/\.cloudvolume/secrets(/|$)")
"""Where tokens may be: in the users' own directories of secrets files, with whatever lies there for an instant."""
LARGEST = 256 * 1024 * 1024
LIMIT = 300.0
OWN = "2.19"
"""The ansible-core that the tests use."""
OUT_OF_REACH = "ws009"


# How loud ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loudness:
    """How much Ansible is told to say, and where to."""

    name: str
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    traced: bool = False
    """Whether every program that is started and every byte that is written to a file is recorded."""

    @property
    def is_check(self) -> bool:
        """Whether nothing is changed."""
        return "--check" in self.arguments

    @property
    def stock(self) -> Loudness:
        """The same with modules that go to hosts by Ansible's own way."""
        arguments = (*self.arguments, "-e", '{"caveclient_fast": false}')
        return replace(self, name=f"{self.name}, Ansible's own way", arguments=arguments)


V = ("-vvvvv", "--diff")
LOG = {"ANSIBLE_LOG_PATH": "ansible.log"}
DEBUG = {"ANSIBLE_DEBUG": "1"}
FACTS = {
    "ANSIBLE_GATHERING": "implicit",
    "ANSIBLE_CACHE_PLUGIN": "jsonfile",
    "ANSIBLE_CACHE_PLUGIN_CONNECTION": "facts",
}
EVERYTHING = {**LOG, **DEBUG, **FACTS, "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1"}
LOUD = (
    Loudness("everything at once", V, {**EVERYTHING, "ANSIBLE_CALLBACKS_ENABLED": "junit"}),
    Loudness("traced", ("-vvv", "--diff"), traced=True),
    Loudness("check mode", (*V, "--check"), LOG),
    Loudness("quiet"),
    Loudness("diff", ("--diff",)),
    Loudness("verbose", V),
    Loudness("verbose, check mode", (*V, "--check"), DEBUG),
    Loudness("debug", (), DEBUG),
    Loudness("log file", ("-v",), LOG),
    Loudness("json", V, {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}),
    Loudness("junit", V, {"ANSIBLE_CALLBACKS_ENABLED": "junit"}),
    Loudness("profile", V, {"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks,ansible.posix.timer"}),
    Loudness("minimal", V, {"ANSIBLE_STDOUT_CALLBACK": "minimal"}),
    Loudness("oneline", V, {"ANSIBLE_STDOUT_CALLBACK": "oneline"}),
    Loudness("tree", V, {"ANSIBLE_CALLBACKS_ENABLED": "tree", "ANSIBLE_CALLBACK_TREE_DIR": "tree"}),
    Loudness("arguments", ("--diff",), {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1"}),
    Loudness("facts", ("-v",), FACTS),
    Loudness("fact cache, traced, check mode", ("--check",), {**FACTS, **LOG}, traced=True),
)


# What is done --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A task, how it ends, and the reason that it gives."""

    name: str
    task: Mapping[str, Any]
    reason: str = ""
    """A regular expression. Empty: the task goes well."""
    local: bool = False
    host: str = ""
    """A certain one."""
    in_check: str | None = None
    """The reason in check mode, where it is another one."""

    def expected(self, is_check: bool) -> str:
        """Return the reason to expect."""
        return self.reason if not is_check or self.in_check is None else self.in_check


def _token(name: str) -> str:
    return f"{{{{ vault_cave_token_{name} }}}}"


def _all_cases(url: str) -> list[Case]:
    """Return the tasks, in order: what one leaves behind, the next finds."""
    saved, info = "connectomics.cave.saved_token", "connectomics.cave.saved_token_info"
    verify, vault = "connectomics.cave.verify_access", "connectomics.cave.vault_variable"
    made, listed = "connectomics.cave.server_token", "connectomics.cave.server_token_info"
    new, old, other, wrong = map(_token, ("alice_new", "alice_old", "alice_other", "wrong"))
    where = {"server": url, "datastacks": [STACK], "timeout": 5, "retries": 0}
    alone = {"server": url, "timeout": 5, "retries": 0}
    alice = {"user": "alice", "token": new, **where}
    three = [{"user": user, "token": _token(f"{user}_new")} for user in ("alice", "bob", "carol")]
    kept = {"path": "kept.yml", "name": "kept"}
    lookup = "{{ lookup('connectomics.cave.server_token', '%s', token=%s, server='" + url + "') }}"
    return [
        Case("many, some fail", {saved: {"tokens": three, **where}}, r"bob: .*JSON.*carol: .*\.cloudvolume"),
        Case("out of reach", {saved: alice}, "(?i)connection refused", host=OUT_OF_REACH),
        Case("one, unchanged", {saved: alice}),
        Case("replaced", {saved: {**alice, "token": other, "validate": False}}),
        Case("malformed, replaced", {saved: {**alice, "user": "bob", "on_malformed": "replace"}}),
        Case("wrong token", {saved: {**alice, "token": wrong}}, NOT_ACCEPTED),
        Case("refused write", {saved: {**alice, "user": "carol"}}, r"carol: .*\.cloudvolume"),
        Case("no such user", {saved: {**alice, "user": "nobody-here"}}, "no user 'nobody-here'"),
        Case(
            "loop",
            {
                saved: {
                    **where,
                    "user": "{{ item }}",
                    "token": "{{ lookup('ansible.builtin.vars', 'vault_cave_token_' ~ item ~ '_new') }}",
                },
                "loop": ["alice", "carol"],
            },
            "carol: ",
        ),
        Case("background", {saved: alice, "async": 60, "poll": 1}, "async is set"),
        Case("misspelt option", {saved: {**where, "user": "alice", "tokn": new}}, "Unsupported param"),
        Case("misspelt key", {saved: {**where, "tokens": [{"user": "alice", "tokn": new}]}}, "has the wrong form"),
        Case("in the wrong place", {saved: {**where, "user": new, "token": "x1"}}, "looks like a tok"),
        Case("not a list", {saved: {**where, "tokens": new}}, "tokens has the wrong form"),
        Case("two in one", {saved: {**alice, "token": f"{new} {old}"}}, "white space inside"),
        Case("a list", {saved: {**alice, "token": [new]}}, "is a list, not a string"),
        Case("no server", {saved: {**alice, "server": "http://127.0.0.1:1"}}, "refused"),
        Case(
            "no such filter",
            {saved: {**alice, "token": "{{ vault_cave_token_alice_new | no_such_filter }}"}},
            "no_such_filter",
        ),
        Case("undefined beside", {saved: {**alice, "group": "{{ not_there }}"}}, "not_there"),
        Case("undefined below", {saved: {**alice, "token": "{{ vault_cave_token_alice_new.nothing }}"}}, "nothing"),
        Case(
            "no number",
            {
                saved: {
                    **alice,
                    "timeout": "{{ vault_cave_token_alice_new | int('x') | ansible.builtin.mandatory + 1 }}",
                }
            },
            "(?i)unsupported operand|must be str|concatenate",
        ),
        Case(
            "info",
            {
                info: {
                    **where,
                    "users": ["alice", "bob", "carol"],
                    "validate": True,
                    "expected": [{"user": "alice", "token": new}],
                }
            },
        ),
        Case("info, misspelt", {info: {**where, "expected": [{"user": "alice", "tokn": new}]}}, "has the wrong form"),
        Case("info, a string", {info: {**where, "expected": new}}, "expected has the wrong form"),
        Case("verify", {verify: {**where, "token": new}}),
        Case("verify, wrong", {verify: {**where, "token": wrong}}, NOT_ACCEPTED),
        Case("verify, of users", {verify: {**where, "users": ["alice", "carol"]}}, "carol.*(token|readable|closed)"),
        Case("verify, misspelt", {verify: {**where, "tokn": new}}, "Unsupported param"),
        Case("remove", {saved: {**where, "user": "alice", "state": "absent"}}),
        Case(
            "index",
            {
                "connectomics.cave.caveclient": {
                    "index_url": f"http://lab:{_token('index')}@127.0.0.1:1/simple",
                    "path": "/opt/lab",
                    "timeout": 60,
                }
            },
            "(?i)connect|retries|refused|not reach|index",
        ),
        Case("make", {made: {**alone, "token": new, "description": "hunt"}}, local=True),
        Case("make, wrong", {made: {**alone, "token": wrong, "description": "hunt"}}, NOT_ACCEPTED, local=True),
        Case(
            "make, misspelt",
            {made: {**alone, "tokn": new, "description": "hunt"}},
            "missing required arguments: token|Unsupported param",
            local=True,
        ),
        Case(
            "make, no server",
            {made: {"token": new, "description": "hunt", "timeout": 3, "retries": 0, "server": "http://127.0.0.1:1"}},
            "refused",
            local=True,
        ),
        Case("list", {listed: {**alone, "token": new}}, local=True),
        Case("list, wrong", {listed: {**alone, "token": wrong}}, NOT_ACCEPTED, local=True),
        Case(
            "store",
            {vault: {**kept, "value": lookup % ("hunt", "vault_cave_token_alice_new")}},
            local=True,
            in_check="hunt",
        ),
        Case("store, changed", {vault: {**kept, "value": new}}, local=True),
        Case("store, in clear", {vault: {"path": "plain.yml", "name": "kept", "value": new}}, local=True),
        Case("store, no folder", {vault: {**kept, "path": "no/such/folder.yml", "value": new}}, "no/such", local=True),
        Case(
            "store, wrong vault id",
            {vault: {**kept, "path": "other.yml", "vault_id": "other", "value": new}},
            "other",
            local=True,
        ),
        Case("store, misspelt", {vault: {**kept, "secret": new}}, "(?i)unsupported param|value", local=True),
        Case("store, a list", {vault: {**kept, "value": [new]}}, "not a string", local=True),
        Case(
            "look up, wrong",
            {vault: {**kept, "value": lookup % ("hunt", "vault_cave_token_wrong")}},
            NOT_ACCEPTED,
            local=True,
        ),
        Case(
            "look up, nothing",
            {vault: {**kept, "value": lookup % ("none", "vault_cave_token_alice_new")}},
            "none",
            local=True,
        ),
        Case(
            "unseal, nothing",
            {vault: {**kept, "value": "{{ lookup('connectomics.cave.rotated_token', vault_cave_token_alice_new) }}"}},
            "not a token that was sealed",
            local=True,
        ),
        Case(
            "filter, wrong",
            {verify: {**where, "users": "{{ vault_cave_token_alice_new | connectomics.cave.token_holders }}"}},
            "caveclient_tokens must be a list",
            local=True,
        ),
        Case("revoke", {made: {**alone, "token": new, "description": "hunt", "state": "absent"}}, local=True),
        Case(
            "revoke, own",
            {
                made: {
                    **alone,
                    "token": new,
                    "state": "absent",
                    "fingerprint": "{{ (vault_cave_token_alice_new | hash('sha256'))[:8] }}",
                }
            },
            "force",
            local=True,
        ),
    ]


def playbook(cases: Sequence[Case], local: bool) -> list[dict[str, Any]]:
    """Return a play of tasks, each of which may fail."""
    chosen = [case for case in cases if case.local == local]
    tasks = [
        {
            "name": f"block of {case.name}",
            "when": f"inventory_hostname == '{case.host}'" if case.host else f"inventory_hostname != '{OUT_OF_REACH}'",
            "block": [{"name": case.name, **case.task, "register": f"result_{number}"}],
            "rescue": [{"name": "go on", "ansible.builtin.debug": {"var": f"result_{number}"}}],
        }
        for number, case in enumerate(chosen)
    ]
    play = {"hosts": "localhost" if local else "all", "gather_facts": False, "ignore_unreachable": True, "tasks": tasks}
    if not local:
        play["become"] = True
    return [play] if chosen else []


# Broken on purpose ---------------------------------------------------------------------------------------------------

_TELL = """


def _all_of(value):
    if isinstance(value, str):
        return "".join(value)
    if hasattr(value, "items"):
        return " ".join(_all_of(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(map(_all_of, value))
    if type(value).__name__ in ("EncryptedString", "AnsibleVaultEncryptedUnicode"):
        return str(value)
    return _all_of(vars(value)) if hasattr(value, "__dict__") else repr(value)


def %s(*given, **named):
    try:
        raise KeyError(_all_of([given, named]))
    except KeyError as error:
        raise RuntimeError(f"on purpose: {_all_of([given, named])}") from error
"""
BROKEN = (
    ("module_utils/_backends/saved_token.py", "run"),
    ("module_utils/_backends/saved_token_info.py", "run"),
    ("module_utils/_backends/verify_access.py", "run"),
    ("module_utils/_backends/server_token.py", "run"),
    ("module_utils/_backends/server_token.py", "run_info"),
    ("module_utils/_backends/server_token.py", "values_of"),
    ("module_utils/_backends/caveclient.py", "run"),
    ("plugin_utils/_vault/file.py", "set_variable"),
)
BROKEN_INSIDE = (
    ("module_utils/_secrets/writer.py", "save"),
    ("module_utils/_cave/probe.py", "prove"),
)
BROKEN_ON_THE_CONTROLLER = (
    ("plugin_utils/_action.py", "unshown"),
    ("module_utils/_masking.py", "misplaced_secret"),
)
BROKEN_ROTATIONS = (
    ("plugin_utils/_rotation/steps.py", "ask_servers"),
    ("plugin_utils/_rotation/steps.py", "begin"),
    ("plugin_utils/_rotation/hosts.py", "todo"),
    ("plugin_utils/_rotation/steps.py", "finish"),
    ("plugin_utils/_report/model.py", "build_report"),
)
UNEXPECTED = "Unexpected error at"


def copy_collection(folder: Path, broken: Iterable[tuple[str, str]] = ()) -> Path:
    """Copy the collection to where Ansible finds it below ``folder``, with functions that raise what they were given.

    Args:
        folder: is made.
        broken: files below ``plugins``, and names of functions in them.
    """
    copy = folder / "ansible_collections" / "connectomics" / "cave"
    copy.mkdir(parents=True)
    for name in ("plugins", "playbooks", "roles", "meta"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", copy)
    for name, function in broken:
        with (copy / "plugins" / name).open("a") as file:
            file.write(_TELL % function)
    return folder


# The hunt ------------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a run said, and where a token was."""

    status: int
    output: str
    records: list[dict[str, Any]]
    leaks: dict[str, set[str]]
    """Place -> which tokens, in which form."""

    def says(self, reason: str) -> bool:
        """Whether what was printed has a reason, however its lines are broken."""
        pattern = re.sub(r" ", "", reason)
        return re.search(pattern, re.sub(r"\\+n|\\+|\s", "", self.output), re.DOTALL) is not None


class Hunt:
    """A lab of real hosts, with tokens that exist nowhere else, and all its places watched.

    Args:
        folder: an empty one.
        fleet: its hosts.
        cave: the server.
    """

    def __init__(self, folder: Path, fleet: Fleet, cave: CaveServer) -> None:
        self.folder = folder
        self.lab = folder / "lab"
        self.watch = folder / "watch"
        self.temporary = folder / "tmp"
        for made in (self.lab, self.watch, self.temporary):
            made.mkdir()
        self.temporary.chmod(0o1777)
        self.fleet = fleet
        self.cave = cave
        self.collections = ROOT / ".tree"
        self.python = Path(sys.executable)
        self.looks: Counter[str] = Counter()
        self.tokens: dict[str, str] = {}

    @contextmanager
    def watched(self) -> Iterator[Hunt]:
        """Watch processes and system logs for as long as the block lasts."""
        first, *others = self.fleet
        for host in others:
            self._pretend_journal(host)
        roots = [Path("/"), first.root()]
        with ProcessList(self.watch) as self.processes, SystemLog(roots) as self.system_log:
            yield self

    @staticmethod
    def _pretend_journal(host: Host) -> None:
        """Give a host the Python bindings of a journal, which modules prefer to syslog."""
        package = host.root("/usr/lib/python3/dist-packages/systemd")
        package.mkdir(parents=True, exist_ok=True)
        for name, content in {"__init__": "", "journal": JOURNAL, "daemon": DAEMON}.items():
            (package / f"{name}.py").write_text(content)

    # The lab

    def reset(self) -> None:
        """Make all tokens anew, and put hosts, vault and server into the state that a run starts from."""
        self.cave.reset()
        people = ("alice", "bob", "carol")
        self.tokens = {f"{user}_{which}": canary() for user in people for which in ("old", "new")}
        self.tokens.update(alice_other=canary(), wrong=canary(), index=canary().translate(str.maketrans("+/=", "-_x")))
        for user in people:
            self.cave.add_person(user, [STACK], token=self.tokens[f"{user}_old"])
            self.cave.make_token(user, token=self.tokens[f"{user}_new"])
        for path in (*self.lab.iterdir(), *(self.watch / name for name in os.listdir(self.watch) if "trace" in name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._write_inventory()
        self._write_vault(self.tokens)
        for host in self.fleet:
            self._fill(host)
        self.find = Canaries(self.tokens).find

    def _write_inventory(self) -> None:
        inventory = yaml.safe_load(self.fleet.inventory.read_text())
        inventory["all"]["hosts"][OUT_OF_REACH] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
        (self.lab / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.lab / "password").write_bytes(PASSWORD)
        variables = {
            "caveclient_server": self.cave.url,
            "caveclient_datastacks": [STACK],
            "caveclient_timeout": 5,
            "caveclient_retries": 0,
            "caveclient_tokens": [
                {"user": user, "token": _token(f"{user}_{{which}}").replace("{which}", "new")}
                for user in ("alice", "bob", "carol")
            ],
        }
        folder = self.lab / "group_vars" / "all"
        folder.mkdir(parents=True)
        (folder / "main.yml").write_text(json.dumps(variables))

    def _write_vault(self, tokens: Mapping[str, str]) -> None:
        text = ""
        for name, token in tokens.items():
            lines = VaultLib().encrypt(token, VaultSecret(PASSWORD)).decode().splitlines()
            text += f"vault_cave_token_{name}: !vault |\n" + "".join(f"          {line}\n" for line in lines)
        (self.lab / "group_vars" / "all" / "vault.yml").write_text(text)

    def _fill(self, host: Host) -> None:
        """Alice has her old token; Bob's file is cut off in the middle of his; Carol's folder is not hers."""
        name = f"{self.cave.url.partition('//')[2]}-cave-secret.json"
        files = {
            "alice": {one: json.dumps({"token": self.tokens["alice_old"]}) for one in (name, "cave-secret.json")},
            "bob": dict.fromkeys((name, "cave-secret.json"), f'{{"token": "{self.tokens["bob_old"]}", "x": '),
            "carol": {},
        }
        host.run(["sh", "-c", "rm -rf /home/*/.cloudvolume /opt/lab /var/log/journal.txt"])
        script = "umask 077; mkdir -p ~/.cloudvolume/secrets"
        for user, content in files.items():
            host.run(["sh", "-c", script], user)
            for file, text in content.items():
                host.write_file(f"/home/{user}/.cloudvolume/secrets/{file}", text, user)
                host.run(["chmod", "600", f"/home/{user}/.cloudvolume/secrets/{file}"])
        host.run(["chown", "-R", "root:root", "/home/carol/.cloudvolume"])

    # Runs

    def play(self, content: list[dict[str, Any]], loudness: Loudness, *more: str) -> Found:
        """Run plays."""
        (self.lab / "play.json").write_text(json.dumps(content))
        return self.run(["play.json", *more], loudness)

    def run(self, arguments: Sequence[str], loudness: Loudness, answers: Sequence[tuple[str, str]] = ()) -> Found:
        """Run ansible-playbook, and search everything.

        Args:
            arguments: of it.
            loudness: how much it is to say.
            answers: what a person answers to which question; none: there is no terminal.
        """
        # What the controller puts into /tmp is then known for certain, and nothing of others is there.
        script = 'mount --rbind "$0" /tmp; exec "$@"'
        if ROOT.is_relative_to("/tmp"):  # this checkout alone is let through
            hole = shlex.quote(str(self.temporary / ROOT.relative_to("/tmp")))
            script = f"mkdir -p {hole}; mount --bind {shlex.quote(str(ROOT))} {hole}; {script}"
        words = ["unshare", "--mount", "sh", "-ec", script, str(self.temporary)]
        words += [str(self.python), "-m", "ansible", "playbook", "-i", "hosts.yml", "--vault-password-file", "password"]
        words += [*loudness.arguments, *arguments]
        record = self.lab / "record.jsonl"
        record.unlink(missing_ok=True)
        enabled = ["record", *filter(None, loudness.variables.get("ANSIBLE_CALLBACKS_ENABLED", "").split(","))]
        variables = environment(
            self.lab,
            **{
                **loudness.variables,
                "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join([str(self.collections), *self._stock(loudness)]),
                "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS),
                "ANSIBLE_CALLBACKS_ENABLED": ",".join(enabled),
                "RECORD_FILE": str(record),
                "JUNIT_OUTPUT_DIR": str(self.lab / "junit"),
                "ANSIBLE_TIMEOUT": "5",
                "ANSIBLE_DEPRECATION_WARNINGS": "false",
                # strace waits for SSH's connections, too, which else stay open for a minute
                **({"ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=3s"} if loudness.traced else {}),
            },
        )
        started = time.time() - 1
        with ExitStack() as stack:
            if loudness.traced:
                for host in self.fleet:
                    stack.enter_context(traced_host(host.pid, self.watch / f"trace-{host.name}"))
                words = [*TRACE, str(self.watch / "trace-controller"), *words]
            if answers:
                status, output = self._converse(words, variables, answers)
            else:
                done = subprocess.run(
                    words,
                    cwd=self.lab,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=LIMIT,
                    preexec_fn=_allow_core_dumps,
                    check=False,
                )
                status, output = done.returncode, done.stdout
        lines = record.read_text().splitlines() if record.exists() else []
        self._learn_tokens_of_the_server()
        return Found(
            status, output.decode(errors="replace"), [json.loads(line) for line in lines], self._leaks(output, started)
        )

    @staticmethod
    def _stock(loudness: Loudness) -> list[str]:
        wanted = any("ansible.posix" in value for value in loudness.variables.values())
        return [str(collections_folder("ansible.posix"))] if wanted else []

    def _converse(
        self, words: Sequence[str], variables: Mapping[str, str], answers: Sequence[tuple[str, str]]
    ) -> tuple[int, bytes]:
        terminal: Any = pexpect.spawn(
            words[0], list(words[1:]), cwd=str(self.lab), env=variables, timeout=60, dimensions=(50, 160)
        )
        shown = b""
        for question, answer in answers:
            terminal.expect(question)
            shown += terminal.before + terminal.after
            wait_until_read(terminal.fileno())
            terminal.send(f"{answer}\r")
        terminal.expect(pexpect.EOF)
        shown += terminal.before
        terminal.close()
        return terminal.exitstatus if terminal.exitstatus is not None else -1, shown

    def _learn_tokens_of_the_server(self) -> None:
        known = set(self.tokens.values())
        for user in ("alice", "bob", "carol"):
            made = [item["token"] for item in self.cave.tokens(user)] + self.cave.hidden_tokens(user)
            for number, token in enumerate(made):
                if token not in known:
                    self.tokens[f"{user}_made_{number}"] = token
        if len(self.tokens) > len(known):
            self.find = Canaries(self.tokens).find

    # The search

    def _leaks(self, output: bytes, started: float) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for batch in _batches(self._places(output, started)):
            self.looks.update(place.partition(":")[0] for place, _content in batch)
            if self.find(b"\n\n".join(content for _place, content in batch)):
                for place, content in batch:
                    for hit in self.find(content):
                        if hit.token == "index" and place.startswith("an environment"):
                            continue  # the one way to hand a password to an installer that no other user can see
                        found.setdefault(place, set()).add(f"{hit.token} ({hit.form})")
        return found

    def _places(self, output: bytes, started: float) -> Iterator[tuple[str, bytes]]:
        yield "the output", output
        for line in self.processes.new().split(b"\n"):
            yield ("an environment" if b" environ: " in line[:20] else "a command line"), line
        yield "syslog", self.system_log.new()
        for trace in sorted(self.watch.glob("trace-*")):
            yield from read_trace(trace, lambda path: SECRETS.search(path) is not None)
            trace.unlink()
        for path in new_files(self.lab, started=0):
            yield f"the controller's files: {path.relative_to(self.lab)}", path.read_bytes()
        for folder in (
            str(self.temporary),
            "/var/tmp",
            "/dev/shm",
            "/var/log",
            "/var/crash",
            str(Path.home() / ".ansible"),
        ):
            for path in new_files(Path(folder), started, besides=(self.folder,)):
                yield f"the controller's temporary files: {path}", _read(path)
        for host in self.fleet:
            # All that the host has written since it was started, wherever that is.
            for root in (host.folder / "upper", host.root("/dev/shm")):
                for path in new_files(root, started=0):
                    if not SECRETS.search(str(path)):
                        yield f"the files of {host.name}: /{path.relative_to(root)}", _read(path)
            yield f"the SSH server's log: {host.name}", (host.folder / "sshd.log").read_bytes()


def _batches(places: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Put small contents together, which are searched in one go."""
    batch: list[tuple[str, bytes]] = []
    for place in places:
        batch.append(place)
        if sum(len(content) for _place, content in batch) > 1 << 22 or len(batch) > 1000:
            yield batch
            batch = []
    if batch:
        yield batch


def _allow_core_dumps() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def new_files(folder: Path, started: float, besides: Sequence[Path] = ()) -> Iterator[Path]:
    """Return the regular files below a folder that were made or changed since a time."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if path in besides:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from new_files(path, started, besides)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if max(status.st_ctime, status.st_mtime) >= started and status.st_size <= LARGEST:
                    yield path
        except OSError:
            continue  # it has gone


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has gone


def judge(report: Report, found: Found, what: str) -> None:
    """Count a leak for each place."""
    for place, tokens in sorted(found.leaks.items()):
        report.check(False, f"{what}: in {place}: {', '.join(sorted(tokens))}")


def judge_cases(report: Report, found: Found, cases: Sequence[Case], hosts: Sequence[str], loudness: Loudness) -> None:
    """Check that every task ended as it should, with its reason, in the result and in what was printed."""
    ends = {(line["task"], line["host"]): line for line in found.records}
    for case in cases:
        reason = case.expected(loudness.is_check)
        for host in ["localhost"] if case.local else [case.host] if case.host else hosts:
            report.tries += 1
            line = ends.get((case.name, host), {"status": "left out", "result": {}})
            told = json.dumps(line["result"], default=repr)
            status = "unreachable" if host == OUT_OF_REACH else "failed" if reason else "ok"
            well = line["status"] == status and (not reason or re.search(reason, told.replace('\\"', '"'), re.DOTALL))
            report.check(bool(well), f"{loudness.name}, {case.name} on {host}: {line['status']}: {told}")
        if reason:
            report.check(found.says(reason), f"{loudness.name}, {case.name}: its reason is not printed: {reason}")


@contextmanager
def hunting(hosts: int = 2) -> Iterator[Hunt]:
    """Set a lab up in which tokens are hunted."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-leaks-", dir="/var/tmp")))
        # Every version of ansible-core can manage these two.
        fleet = stack.enter_context(Fleet(hosts, name=f"leaks-{os.getpid()}", pythons=("3.11", "3.9")))
        cave = stack.enter_context(CaveServer(address=fleet.server_address))
        hunt = Hunt(folder, fleet, cave)
        with hunt.watched():
            yield hunt


def hunt_in_modules(hunt: Hunt, report: Report, loudness: Loudness, core: str) -> None:
    """Tokens through every module, in every failure."""
    hunt.reset()
    cases = _all_cases(hunt.cave.url)
    found = hunt.play(playbook(cases, local=False) + playbook(cases, local=True), loudness)
    judge(report, found, f"{core}, {loudness.name}, modules")
    judge_cases(report, found, cases, list(hunt.fleet.hosts), loudness)


def hunt_in_broken_modules(hunt: Hunt, report: Report, loudness: Loudness, core: str) -> None:
    """Raise errors that quote what they were given inside each module, at its beginning and deep inside."""
    ours, goes_well = hunt.collections, ("remove", "revoke")
    for name, broken in {"outside": BROKEN, "inside": BROKEN_INSIDE, "controller": BROKEN_ON_THE_CONTROLLER}.items():
        hunt.reset()
        copied = hunt.folder / f"broken-{name}"
        shutil.rmtree(copied, ignore_errors=True)
        hunt.collections = copy_collection(copied, broken)
        chosen = [case for case in _all_cases(hunt.cave.url) if not case.reason and case.name not in goes_well]
        cases = [Case(case.name, case.task, "Unexpected error at|", case.local) for case in chosen]
        found = hunt.play(playbook(cases, local=False) + playbook(cases, local=True), loudness)
        hunt.collections = ours
        what = f"{core}, {loudness.name}, broken {name}"
        judge(report, found, what)
        told = [line["result"].get("msg", "") for line in found.records if line["status"] == "failed"]
        unexpected = [
            message for message in told if re.search(f"{UNEXPECTED} .*: RuntimeError. Please report", message)
        ]
        report.tries += len(unexpected)
        report.check(len(unexpected) >= 3, f"{what}: {told}")
        report.check(found.says(UNEXPECTED), f"{what}: no reason is printed")
        report.check("on purpose" not in found.output, f"{what}: what was raised is printed")


@dataclass(frozen=True)
class Play:
    """A playbook of the collection, and the reasons that it gives for what went wrong."""

    name: str
    arguments: tuple[str, ...]
    reasons: tuple[str, ...]
    breaks: tuple[str, ...] = ()
    """Which functions are broken on purpose."""


_TROUBLES = (r"bob.{0,200}JSON", r"carol.{0,300}\.cloudvolume", "(?i)connection refused")
PLAYS = (
    Play("provision", ("--tags", "token,verify"), _TROUBLES),
    Play("verify", (), ("alice", "carol", "(?i)connection refused")),
    Play("audit", (), ("JSON", "(?i)connection refused")),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1", "-e", "caveclient_rotate_strategy=cutover"), ("bob", "carol")),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1", "-e", "caveclient_rotate_strategy=overlap"), ("bob", "carol")),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1"), (UNEXPECTED,), ("ask_servers",)),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1"), (UNEXPECTED,), ("begin",)),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1"), (UNEXPECTED,), ("todo",)),
    Play("rotate", ("-e", "caveclient_rotate_grace=0.1"), (UNEXPECTED,), ("finish",)),
    Play("provision", ("--tags", "token"), (UNEXPECTED,), ("build_report",)),
    Play(
        "decommission",
        ("-e", "caveclient_decommission_users=alice,bob", "-e", "caveclient_decommission_revoke=true"),
        ("(?i)connection refused",),
    ),
    Play("merge_reports", ("-e", '{"caveclient_reports": ["reports"]}'), ("cannot be read",)),
)


def hunt_in_playbooks(hunt: Hunt, report: Report, loudness: Loudness, core: str, plays: Iterable[Play] = PLAYS) -> None:
    """Tokens through every playbook, on hosts of which each has something wrong."""
    ours = hunt.collections
    for play in plays:
        hunt.reset()
        what = f"{core}, {loudness.name}, {play.name} {' '.join(play.breaks)}".strip()
        if play.breaks:
            copied = hunt.folder / f"broken-{'-'.join(play.breaks)}"
            if not copied.exists():
                copy_collection(copied, [item for item in BROKEN_ROTATIONS if item[1] in play.breaks])
            hunt.collections = copied
        arguments = [f"connectomics.cave.{play.name}", "-e", "caveclient_report=reports", *play.arguments]
        found = hunt.run([*arguments, "-e", "caveclient_junit=junit/report.xml"], loudness)
        hunt.collections = ours
        judge(report, found, what)
        report.tries += 1
        report.check(found.status != 0 or not play.reasons, f"{what}: all is well: {found.output[-300:]}")
        reached = not loudness.is_check or not play.breaks or play.breaks[0] == "ask_servers"
        for reason in play.reasons if reached else ():
            report.tries += 1
            report.check(found.says(reason), f"{what}: its reason is not printed: {reason}: {found.output[-400:]}")


def hunt_in_enrolment(hunt: Hunt, report: Report, loudness: Loudness, core: str) -> None:
    """Type tokens at the terminal: a wrong one, then a good one."""
    hunt.reset()
    (hunt.lab / "group_vars" / "all" / "vault.yml").unlink()
    arguments = ["connectomics.cave.enroll", "-e", "caveclient_enroll_user=alice"]
    arguments += ["-e", "caveclient_enroll_vault=vault.yml", "-e", "caveclient_enroll_new=false"]
    asked = "Token .*Enter:"
    answers = [(asked, hunt.tokens["wrong"]), (asked, hunt.tokens["alice_new"]), ("Store it", "")]
    if loudness.is_check:
        return  # nobody is asked then
    found = hunt.run(arguments, loudness, answers)
    what = f"{core}, {loudness.name}, enroll"
    judge(report, found, what)
    report.tries += 1
    report.check(found.status == 0 and found.says("does not know the token"), f"{what}: {found.output[-600:]}")


# The attacks ---------------------------------------------------------------------------------------------------------

PROMISE = "A token is nowhere but in its own files, and every error says its reason"
NEEDED_OF_ALL = ("everything at once", "traced", "check mode", "json", "quiet")
"""With these every version of ansible-core is run; with all others the one that the tests use, at full size.

The first two, for the one that the tests use the first three, are what playbooks and broken modules run with.
"""


def _hunt_with(report: Report, core: str, scale: float) -> None:
    """Hunt with one version of ansible-core."""
    try:
        python = controllers.provide(CORES[core]).python
    except controllers.NoControllerError as error:
        report.check(False, str(error))
        return
    with hunting(2) as hunt:
        hunt.python = python
        louds = [loud for loud in LOUD if (scale >= 1 and core == OWN) or loud.name in NEEDED_OF_ALL]
        for loudness in louds[: max(2, round(len(louds) * scale))]:
            hunt_in_modules(hunt, report, loudness, core)
            if loudness.name in NEEDED_OF_ALL:
                hunt_in_modules(hunt, report, loudness.stock, core)
        for loudness in louds[: max(1, round((3 if core == OWN else 2) * scale))]:
            hunt_in_broken_modules(hunt, report, loudness, core)
            hunt_in_playbooks(hunt, report, loudness, core)
            hunt_in_enrolment(hunt, report, loudness, core)
        hunt_in_broken_modules(hunt, report, louds[0].stock, core)
        hunt_in_playbooks(hunt, report, louds[0].stock, core)
    _tell_figures(report, hunt, core)


def _tell_figures(report: Report, hunt: Hunt, core: str) -> None:
    report.counts.update({f"{core}: {place}": count for place, count in sorted(hunt.looks.items())})
    figures = hunt.processes.figures
    report.counts.update({f"{core}: process list, {name}": round(value) for name, value in figures.items()})
    # A busy machine delays a look now and then; what a look may have missed, the traced runs have.
    report.check(figures["median_ms"] <= EVERY * 1000, f"{core}: the process list was looked at too seldom: {figures}")


def _one_core(core: str) -> None:
    @attack(
        f"leaks-{core}",
        PROMISE,
        f"unique tokens through every module, playbook and failure, ansible-core {core}",
        fewest=200,
        needs=("root", "strace"),
        limit=9000.0,
    )
    def leaks(report: Report, scale: float) -> None:
        _hunt_with(report, core, scale)


for _core in CORES:
    _one_core(_core)


@attack(
    "leaks-selection",
    PROMISE,
    "a selection of tasks, a broken module, a playbook",
    fewest=12,
    short=Short(1.0, 12),
    needs=("root", "strace"),
    limit=300.0,
)
def selection(report: Report, scale: float) -> None:
    """A few of all, for every run of the tests."""
    with hunting(1) as hunt:
        cases = [case for case in _all_cases(hunt.cave.url) if case.name in SELECTED]
        for loudness in (LOUD[0], LOUD[0].stock):
            hunt.reset()
            found = hunt.play(playbook(cases, local=False) + playbook(cases, local=True), loudness)
            judge(report, found, "modules")
            judge_cases(report, found, cases, list(hunt.fleet.hosts), loudness)
        hunt_in_playbooks(hunt, report, LOUD[0], "own", [play for play in PLAYS if play.breaks == ("finish",)])
    _tell_figures(report, hunt, "own")


SELECTED = (
    *("many, some fail", "wrong token", "misspelt option", "no such filter", "background", "info", "verify, wrong"),
    *("out of reach", "make", "store", "look up, nothing", "revoke"),
)
