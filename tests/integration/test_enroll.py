# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""enroll as a person uses it: in a terminal, with the real ansible-playbook, and nothing that shows the token."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import requests
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import ansible, command, environment, wait_until_read

from ansible_collections.connectomics.cave.plugins.action.enroll import _alike, _identifier
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import set_variable
from cave_server import CaveServer

STACK = "minnie65_public"
VARIABLE = "vault_cave_token_alice"
PATIENCE = 60
WRONG = "0123456789abcdef0123456789abcdef"


class ProcessWatch:
    """Looks for texts in every process's command line and environment, all the time."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.found: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.is_set():
            for path in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        content = (path / name).read_bytes()
                    except OSError:
                        continue
                    self.found |= {text for text in self.texts if text.encode() in content}
            time.sleep(0.005)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


class Desk:
    """The administrator's folder, with a vault password, and a terminal."""

    def __init__(self, folder: Path, cave: CaveServer, watch: ProcessWatch) -> None:
        self.folder = folder
        self.cave = cave
        self.watch = watch
        self.vault = folder / "vault.yml"
        self.screen = ""
        (folder / "vault-password").write_text("correct horse")
        variables = {"caveclient_server": cave.url, "caveclient_datastacks": [STACK]}
        inventory = {"workstations": {"hosts": {"ws1": None, "ws2": None}, "vars": variables}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def arguments(self, *more: str) -> list[str]:
        options = ["-i", "hosts.yml", "--vault-password-file", "vault-password"]
        options += ["-e", "caveclient_enroll_user=alice", "-e", "caveclient_enroll_vault=vault.yml"]
        return [*options, "connectomics.cave.enroll", *more]

    def start(self, *more: str, **variables: str) -> pexpect.spawn[str]:
        argv = command("playbook", *self.arguments(*more))
        variables = environment(self.folder, TERM="xterm", **variables)
        terminal = pexpect.spawn(
            argv[0],
            argv[1:],
            cwd=str(self.folder),
            env=variables,
            timeout=PATIENCE,
            encoding="utf-8",
            dimensions=(50, 200),
        )
        terminal.logfile_read = self
        return terminal

    def write(self, text: str) -> None:
        """What the terminal shows."""
        self.screen += text

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self, terminal: pexpect.spawn[str]) -> int:
        terminal.expect(pexpect.EOF)
        terminal.close()
        if path := os.environ.get("CAVE_TEST_SCREENS"):  # for a person to look at
            Path(path).write_text(self.screen)
        return int(terminal.exitstatus if terminal.exitstatus is not None else -1)

    def stored(self) -> str:
        """What the vault has, as ansible-vault shows it."""
        text = self.vault.read_text()
        [block] = re.findall(rf"{VARIABLE}: !vault \|\n((?:  .*\n)+)", text)
        single = self.folder / "single.txt"
        single.write_text("\n".join(line.strip() for line in block.splitlines()) + "\n")
        return ansible(
            self.folder, "vault", "view", "--vault-password-file", "vault-password", "single.txt"
        ).output.removesuffix("\n")


@pytest.fixture
def watch() -> Iterator[ProcessWatch]:
    started = ProcessWatch()
    yield started
    started.stop()


@pytest.fixture
def desk(cave: CaveServer, tmp_path: Path, watch: ProcessWatch) -> Iterator[Desk]:
    """A desk; at the end nothing that was typed is to be found on it."""
    made = Desk(tmp_path, cave, watch)
    yield made
    for token in watch.texts:
        assert token not in made.screen
        assert token[:16] not in made.screen
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not watch.found


def hand_over(desk: Desk, terminal: pexpect.spawn[str], token: str) -> None:
    terminal.expect("Token .*Enter:")
    wait_until_read(terminal.fileno())
    desk.watch.texts.add(token)
    terminal.send(f"{token}\r")


def answer(terminal: pexpect.spawn[str], question: str, text: str = "") -> None:
    terminal.expect(question)
    wait_until_read(terminal.fileno())
    terminal.send(f"{text}\r")


def test_a_token_that_a_person_has_comes_into_the_vault(desk: Desk) -> None:
    person = desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-vvvvv", ANSIBLE_LOG_PATH=str(desk.folder / "ansible.log"))
    answer(terminal, "worked with .* before", "y")
    terminal.expect_exact(f"{desk.cave.url}/sticky_auth/settings/tokens")
    terminal.expect("Do not make a new token where one is listed")
    hand_over(desk, terminal, person.token)
    terminal.expect_exact(f"{fingerprint(person.token)}, which is that of {person.name} ({person.email})")
    answer(terminal, "Store it for alice", "y")
    terminal.expect_exact('token: "{{ vault_cave_token_alice }}"')
    assert desk.finish(terminal) == 0, desk.screen
    assert desk.stored() == person.token
    assert desk.vault.stat().st_mode & 0o777 == 0o600
    assert [token["token"] for token in desk.cave.tokens("alice")] == [person.token]


def test_the_datastacks_of_profiles_are_proven_as_well(desk: Desk) -> None:
    person = desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-e", '{"caveclient_profiles": ["banc"], "caveclient_enroll_new": false}')
    hand_over(desk, terminal, person.token)
    terminal.expect("has no permission 'view' for dataset brain_and_nerve_cord")
    answer(terminal, "Store it for alice all the same", "n")
    assert desk.finish(terminal) == 2, desk.screen
    desk.cave.set_permissions("alice", [STACK, "brain_and_nerve_cord"])
    terminal = desk.start("-e", '{"caveclient_profiles": ["banc"], "caveclient_enroll_new": false}')
    terminal.expect_exact(f"{desk.cave.url}/sticky_auth/settings/tokens")
    hand_over(desk, terminal, person.token)
    answer(terminal, "Store it for alice", "y")
    assert desk.finish(terminal) == 0, desk.screen
    assert desk.stored() == person.token


def test_a_wrong_token_is_asked_for_again(desk: Desk) -> None:
    person = desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    hand_over(desk, terminal, WRONG)
    terminal.expect_exact(f"does not know the token {fingerprint(WRONG)}")
    hand_over(desk, terminal, "YOUR_TOKEN_HERE of mine")
    terminal.expect("white space inside")
    hand_over(desk, terminal, f"\x1b[200~{person.token} \x1b[201~")
    desk.watch.texts.add(person.token)
    answer(terminal, "Store it")
    assert desk.finish(terminal) == 0, desk.screen
    assert desk.stored() == person.token


def test_after_too_many_wrong_tokens_nothing_is_stored(desk: Desk) -> None:
    desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    for number in range(5):
        hand_over(desk, terminal, WRONG.replace("0", str(number)))
    terminal.expect("No token that works after 5 tries. Nothing was stored")
    assert desk.finish(terminal) == 2
    assert not desk.vault.exists()


def test_a_new_person_is_led_to_the_account_the_terms_and_the_token(desk: Desk) -> None:
    person = desk.cave.add_person("alice", [STACK], accepted_tos=False)
    terminal = desk.start()
    answer(terminal, "worked with .* before", "n")
    terminal.expect(r"1\. Log in once")
    terminal.expect(r"(https?://\S+authorize\S+)")
    log_in = str(terminal.match.group(1)) if isinstance(terminal.match, re.Match) else ""
    terminal.expect(r"2\. Accept the terms of service of minnie65_public")
    terminal.expect(r"3\. Open the page of tokens")
    terminal.expect_exact(f"{desk.cave.url}/sticky_auth/settings/tokens")
    assert requests.get(log_in, timeout=10).status_code == 200
    hand_over(desk, terminal, person.token)
    terminal.expect(r"(https?://\S+/tos/\d+/accept)")
    answer(terminal, "Press Enter when that is done")
    terminal.expect(r"/tos/\d+/accept")  # it was not done
    terminal.expect("Press Enter when that is done")
    desk.cave.accept_tos("alice")
    wait_until_read(terminal.fileno())
    terminal.send("\r")
    answer(terminal, "Store it for alice")
    assert desk.finish(terminal) == 0, desk.screen
    assert desk.stored() == person.token


@pytest.mark.parametrize("when", ["Token .*Enter:", "Store it for alice", "Press Enter when that is done"])
def test_ctrl_c_leaves_everything_as_it_was(desk: Desk, when: str) -> None:
    desk.vault.write_text("other: kept\n")
    owes = "Press" in when
    person = desk.cave.add_person("alice", [STACK], accepted_tos=not owes)
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    if "Token" not in when:
        hand_over(desk, terminal, person.token)
    terminal.expect(when)
    wait_until_read(terminal.fileno())
    terminal.sendcontrol("c")
    terminal.expect("Stopped. Nothing was stored")
    assert desk.finish(terminal) == 2
    assert desk.vault.read_text() == "other: kept\n"
    assert sorted(path.name for path in desk.folder.glob("*.yml")) == ["hosts.yml", "vault.yml"]


def test_a_dead_token_in_the_vault_is_replaced(desk: Desk) -> None:
    test_a_token_that_a_person_has_comes_into_the_vault(desk)
    old = desk.stored()
    new = desk.cave.refresh("alice")
    terminal = desk.start()
    terminal.expect_exact(f"The vault has the token {fingerprint(old)}, which does not work any more")
    hand_over(desk, terminal, new)
    answer(terminal, "Store it for alice")
    terminal.expect_exact(f"Hosts that have the old one, {fingerprint(old)}, get it from rotate")
    terminal.expect_exact("goes out with: ansible-playbook connectomics.cave.rotate")
    assert desk.finish(terminal) == 0, desk.screen
    assert desk.stored() == new


def test_a_token_of_the_vault_for_another_server_is_not_replaced(desk: Desk) -> None:
    folder = desk.folder / "group_vars" / "all"
    folder.mkdir(parents=True)
    (folder / "cave.yml").write_text('caveclient_tokens: [{user: alice, token: "{{ vault_cave_token_alice }}"}]\n')
    desk.vault = folder / "vault.yml"
    with_vault = ("-e", "caveclient_enroll_vault=group_vars/all/vault.yml", "-e", "caveclient_enroll_new=false")
    person = desk.cave.add_person("alice", [STACK])
    terminal = desk.start(*with_vault)
    hand_over(desk, terminal, person.token)
    answer(terminal, "Store it for alice", "y")
    assert desk.finish(terminal) == 0, desk.screen
    with CaveServer() as other:
        (desk.folder / "host_vars").mkdir()
        (desk.folder / "host_vars" / "ws2.yml").write_text(f"caveclient_server: {other.url}\n")
        terminal = desk.start(*with_vault, "-e", "caveclient_hosts=ws2")
        terminal.expect_exact(f"is the token for {desk.cave.url}, and {other.url} does not know it.")
        assert desk.finish(terminal) == 2, desk.screen
    assert desk.stored() == person.token


@pytest.mark.parametrize("file", ["vault.yml", "host_vars/ws2.yml"])
def test_a_token_that_the_vault_has_for_somebody_else_is_noticed(desk: Desk, file: str) -> None:
    person = desk.cave.add_person("alice", [STACK])
    (desk.folder / file).parent.mkdir(exist_ok=True)
    token = VaultLib().encrypt(person.token, VaultSecret(b"correct horse")).decode()
    (desk.folder / file).write_text("vault_cave_token_bob: !vault |\n  " + token.replace("\n", "\n  ").rstrip() + "\n")
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    hand_over(desk, terminal, person.token)
    terminal.expect("The vault has this very token already, as vault_cave_token_bob")
    answer(terminal, r"\[y/N\]")
    assert desk.finish(terminal) != 0, desk.screen
    assert not (desk.vault.exists() and VARIABLE in desk.vault.read_text())


def test_without_permission_it_is_stored_only_when_told(desk: Desk) -> None:
    person = desk.cave.add_person("alice", [])
    for reply, status in (("", 2), ("y", 0)):
        terminal = desk.start("-e", "caveclient_enroll_new=false")
        hand_over(desk, terminal, person.token)
        terminal.expect("has no permission 'view'")
        answer(terminal, "Store it for alice all the same", reply)
        assert desk.finish(terminal) == status, desk.screen
        assert desk.vault.exists() is (status == 0)


@pytest.fixture
def opened(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A desktop: a program that opens pages, what it was asked to open, and the variables that tell of it."""
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "opened"
    (programs / "xdg-open").write_text(f'#!/bin/sh\necho "$1" >> {log}\n')
    (programs / "xdg-open").chmod(0o755)
    path = environment(tmp_path)["PATH"]
    return log, {"PATH": f"{programs}:{path}", "DISPLAY": ":7"}


@pytest.mark.parametrize("reply", ["y", "n", ""])
def test_a_page_is_opened_on_a_desktop_and_with_consent_alone(
    desk: Desk, opened: tuple[Path, dict[str, str]], reply: str
) -> None:
    log, variables = opened
    person = desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-e", "caveclient_enroll_new=false", **variables)
    answer(terminal, "Open that page in a browser here", reply)
    hand_over(desk, terminal, person.token)
    answer(terminal, "Store it")
    assert desk.finish(terminal) == 0, desk.screen
    page = f"{desk.cave.url}/sticky_auth/settings/tokens\n"
    assert (log.read_text() if log.exists() else "") == (page if reply == "y" else "")


# Without a terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "There is no terminal here, so nobody can be asked for a token. Nothing was stored."),
        (["-e", "caveclient_enroll_vault=nowhere/vault.yml"], "there is no such directory"),
        (["-e", "caveclient_server=cave.example.org"], "Did you mean https://cave.example.org?"),
        (["-e", "caveclient_hosts=typo"], "No host was found to take the server from: caveclient_hosts is typo."),
        (
            ["-e", "caveclient_hosts=ws2", "--limit", "ws1"],
            "No host was found to take the server from: caveclient_hosts is ws2, --limit is ws1.",
        ),
        (["--limit", "ws2"], "There is no terminal here"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(desk: Desk, arguments: list[str], says: str) -> None:
    done = ansible(desk.folder, "playbook", *desk.arguments(*arguments), stdin="")
    assert done.status == 2
    assert says in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not desk.vault.exists()


@pytest.mark.parametrize("hosts", [{"room 3, left": None}, {"a:b": None, "ws1": None}, {}])
def test_the_server_is_that_of_the_first_host_whatever_its_name_is_or_the_variables(
    desk: Desk, hosts: dict[str, None]
) -> None:
    server = {"caveclient_server": "cave.example.org"}
    inventory = {"all": {"hosts": dict.fromkeys(hosts, server)}}
    (desk.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    more = [] if hosts else ["-e", json.dumps(server)]
    done = ansible(desk.folder, "playbook", *desk.arguments(*more), stdin="")
    assert done.status == 2, done.output
    assert "Did you mean https://cave.example.org?" in " ".join(done.output.split())


def test_a_file_of_sops_is_left_as_it_is_and_the_message_says_where_the_token_goes(desk: Desk) -> None:
    sealed = "other: ENC[AES256_GCM,data:x]\nsops:\n  mac: ENC[AES256_GCM,data:x]\n  version: 3.11.0\n"
    desk.vault.write_text(sealed)
    done = ansible(desk.folder, "playbook", *desk.arguments(), stdin="")
    assert done.status == 2
    said = " ".join(done.output.split())
    assert f"{desk.vault}: it is a file of SOPS, which refuses one that another program has changed." in said
    assert "-e caveclient_enroll_secret=FILE#KEY" in said
    assert desk.vault.read_text() == sealed


def test_check_mode_asks_nothing(desk: Desk) -> None:
    done = ansible(desk.folder, "playbook", *desk.arguments("--check"), stdin="")
    assert done.ok, done.output
    assert not desk.vault.exists()


@pytest.mark.parametrize("user", ["anna.b", "anna_b"])
def test_a_user_never_gets_the_variable_of_another(user: str) -> None:
    assert _identifier("anna-b") != _identifier(user)
    assert _identifier("anna_b") == "anna_b"
    assert re.fullmatch(r"[A-Za-z0-9_]+", _identifier("anna-b"))


@pytest.mark.parametrize(
    ("user", "name", "email", "fits"),
    [
        ("alice", "Alice Example", "a.example@example.org", True),
        ("aexample", "Alice Example", "alice.example@example.org", False),
        ("example", "Alice Example", "alice@example.org", True),
        ("bob", "Alice Example", "alice@example.org", False),
        ("u123", "Alice Example", "alice@example.org", True),
    ],
)
def test_an_account_that_does_not_look_like_the_users_is_noticed(user: str, name: str, email: str, fits: bool) -> None:
    assert _alike(user, name, email) is fits


def test_a_token_of_a_browsers_login_is_swapped_for_a_key(desk: Desk) -> None:
    desk.cave.add_person("alice", [STACK])
    session = desk.cave.log_in("alice")
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    hand_over(desk, terminal, session)
    answer(terminal, "ends by itself within a week.*Make a token that stays with it now")
    answer(terminal, "Store it for alice")
    assert desk.finish(terminal) == 0
    assert desk.stored() in [item["token"] for item in desk.cave.tokens("alice")]
    assert desk.stored() != session


def test_where_a_new_token_may_kill_the_old_one_a_browsers_login_makes_none(desk: Desk) -> None:
    alice = desk.cave.add_person("alice", [STACK])
    desk.cave.configure(legacy=True)
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    hand_over(desk, terminal, desk.cave.log_in("alice"))
    terminal.expect(f"has a token that stays, {fingerprint(alice.token)}.*lock out every computer.*Take that one from")
    hand_over(desk, terminal, alice.token)
    answer(terminal, "Store it for alice")
    assert desk.finish(terminal) == 0
    assert [desk.stored()] == [item["token"] for item in desk.cave.tokens("alice")] == [alice.token]


def test_a_token_that_was_made_and_is_not_stored_is_named_and_taken_the_next_time(desk: Desk) -> None:
    desk.cave.add_person("alice", [STACK])
    session = desk.cave.log_in("alice")
    for consent, status in (("n", 2), ("y", 0)):
        terminal = desk.start("-e", "caveclient_enroll_new=false")
        hand_over(desk, terminal, session)
        answer(terminal, "Make a token that stays with it now")
        answer(terminal, "Store it for alice", consent)
        assert desk.finish(terminal) == status
        made = desk.cave.tokens("alice")[0]
        assert made["description"] == "connectomics.cave, enrolled for alice"
        left = f"The token {fingerprint(made['token'])} was made, and stays on {desk.cave.url}/"
        assert left in " ".join(desk.screen.split())
    assert len(desk.cave.tokens("alice")) == 2
    assert desk.stored() == made["token"]


def test_what_somebody_else_stores_meanwhile_is_not_overwritten(desk: Desk) -> None:
    alice = desk.cave.add_person("alice", [STACK])
    terminal = desk.start("-e", "caveclient_enroll_new=false")
    terminal.expect("take the token that is listed on")
    secrets = [("default", VaultSecret(b"correct horse"))]
    set_variable(str(desk.vault), (VARIABLE,), WRONG, secrets)
    hand_over(desk, terminal, alice.token)
    answer(terminal, "Store it for alice")
    assert desk.finish(terminal) == 2
    assert "was changed while you were asked. Nothing was stored: run again." in " ".join(desk.screen.split())
    assert desk.stored() == WRONG
