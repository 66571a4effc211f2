# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong at 2 a.m.: the exit status, and the line that a person needs, near the prompt.

With the callback of the collection, and (nox -s long) with Ansible's own, whose recap follows the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lab as _lab
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import LIMIT, Run, command, environment, on_a_terminal
from package.conftest import PATH

from cave_server import CaveServer

OF_ONE = ("-e", f"caveclient_audit_users={_lab.USER}")
SETTINGS = {"PATH": PATH, "ANSIBLE_BECOME_ALLOW_SAME_USER": "true"}
CALLBACKS = ["connectomics.cave.lab", pytest.param("ansible.builtin.default", marks=pytest.mark.long)]
NEAR, COLUMNS = 15, 120  # a line of Ansible's recap is 116 characters
"""Rows between the line and the prompt, at most, and their length."""


class Lab(_lab.Lab):
    """Two workstations on which all is well, until a test spoils something."""

    def __init__(self, folder: Path, cave: CaveServer) -> None:
        super().__init__(folder, cave, ["ws1", "ws2"])
        self.callback = "connectomics.cave.lab"
        self.environment: dict[str, str] = {}
        self.until_the_end = contextlib.ExitStack()
        self.offer_caveclient()
        self.save(self.token)
        self.set(caveclient_retries=0, caveclient_timeout=5)
        (folder / "wrong-password").write_text("wrong horse")

    def set(self, **variables: Any) -> None:
        self.variables.update(variables)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def program(self, name: str, says: str, status: int = 1, first: str = ":") -> str:
        """Write a program that says something on its standard error and fails, and return its path."""
        self.write(name, f"#!/bin/sh\n{first}\necho '{says}' >&2\nexit {status}\n")
        (self.folder / name).chmod(0o755)
        return str(self.folder / name)

    def encrypt_the_vault_as_a_whole(self) -> None:
        text = f"vault_cave_token_alice: {self.token}\n"
        self.vault.write_bytes(VaultLib().encrypt(text, VaultSecret(_lab.PASSWORD.encode())))

    def run(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook as on a terminal: all that is printed, in its order."""
        self.write_inventory()
        inventory = [] if "-i" in arguments else ["-i", "hosts.yml"]
        settings = environment(self.folder, ANSIBLE_STDOUT_CALLBACK=self.callback, **SETTINGS, **self.environment)
        words = command("playbook", *inventory, f"connectomics.cave.{playbook}", *arguments)
        status, output = on_a_terminal(words, self.folder, settings, answers=False, columns=COLUMNS)
        self.assert_nothing_shown(output)
        return Run(status, output, [])


Spoil = Callable[[Lab], None]
TOKEN = "0123456789abcdef0123456789abcdef"
PASSWORD = ("--vault-password-file", "password")
WRONG_PASSWORD = ("--vault-password-file", "wrong-password")
TOKEN_ONLY = ("provision", "--tags", "token", *PASSWORD)
VERIFY = ("verify", *PASSWORD)


def nothing(lab: Lab) -> None:
    """Leave all as it is."""


def whole(lab: Lab) -> None:
    lab.encrypt_the_vault_as_a_whole()


def vault_of_another_lab(lab: Lab) -> None:
    """For groups and hosts that this inventory does not have, so that Ansible does not read it."""
    text = VaultLib().encrypt("a: b\n", VaultSecret(b"another password")).decode()
    for name in ("group_vars/lab_b/vault.yml", "group_vars/lab_b.yml", "host_vars/ws9", "group_vars/all/vault.yml~"):
        lab.write(name, text)


def variables(**given: Any) -> Spoil:
    """Set variables of all hosts."""
    return lambda lab: lab.set(**given)


def entry(**changes: Any) -> Spoil:
    """Change the entry of the only person."""
    return lambda lab: lab.set(caveclient_tokens=[{"user": _lab.USER, "token": lab.token} | changes])


def tokens(given: Any) -> Spoil:
    return variables(caveclient_tokens=given)


def ssh(says: str) -> Spoil:
    """Reach ws2 by an SSH that fails with a message, once Ansible has sent what it wants to."""
    return lambda lab: lab.hosts["ws2"].update(
        ansible_connection="ssh",
        ansible_ssh_executable=lab.program("ssh", says, 255, "timeout 60 cat > /dev/null"),
    )


def misspelt_tokens(lab: Lab) -> None:
    lab.variables["caveclient_token"] = lab.variables.pop("caveclient_tokens")


def bearer(lab: Lab) -> None:
    entry(token=f"Bearer {lab.token}")(lab)


def line_end(lab: Lab) -> None:
    entry(token=f"{lab.token}\n")(lab)


def windows_line_ends(lab: Lab) -> None:
    lab.vault.write_bytes(lab.vault.read_bytes().replace(b"\n", b"\r\n"))


def broken_vault(lab: Lab) -> None:
    lab.vault.write_text("vault_cave_token_alice: [\n")


def empty_inventory(lab: Lab) -> None:
    lab.write("empty.yml", "")


def sudo(says: str) -> Spoil:
    """Become root by a sudo that fails with a message."""
    return lambda lab: lab.set(caveclient_become=True, ansible_become_exe=lab.program("sudo", says))


def revoked(lab: Lab) -> None:
    lab.cave.revoke(lab.token)


def old_python(lab: Lab) -> None:
    says = "SyntaxError: future feature annotations is not defined"
    lab.set(ansible_python_interpreter=lab.program("python3.6", says))


def another_answer(lab: Lab) -> None:
    """Let a host answer what the module does not."""
    answer = json.dumps({"failed": True, "msg": "the disk is on fire", "users": [{}]})
    for host in lab.hosts:
        lab.python(host).write_text(f"#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")


def in_the_way(lab: Lab) -> None:
    lab.write("folder", "")


def empty_limit(lab: Lab) -> None:
    lab.write("done", "\n")


def broken_inventory(lab: Lab) -> None:
    lab.write("broken.yml", "all: [hosts")


def unreadable_inventory(lab: Lab) -> None:
    lab.write("closed.yml", "all: {hosts: {ws1: }}")
    (lab.folder / "closed.yml").chmod(0)


def collection_missing(lab: Lab) -> None:
    lab.environment["ANSIBLE_COLLECTIONS_PATH"] = str(lab.folder / "nothing")
    lab.callback = "ansible.builtin.default"  # a callback that is not there is all that Ansible would speak of


def mount(lab: Lab, folder: Path, options: str) -> None:
    """Mount an empty file system on a folder, until the test is over."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "test", str(folder)], check=True)
    lab.until_the_end.callback(subprocess.run, ["umount", str(folder)], check=True)


def fill(lab: Lab, folder: Path) -> None:
    """Leave no room in a folder, until the test is over."""
    folder.mkdir(parents=True, exist_ok=True)
    mount(lab, folder, "size=64k")
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def full_host(lab: Lab) -> None:
    shutil.rmtree(lab.secrets("ws2").parent)
    fill(lab, lab.secrets("ws2").parent)


def full_controller(lab: Lab) -> None:
    fill(lab, lab.folder / "reports")


def read_only_home(lab: Lab) -> None:
    shutil.rmtree(lab.secrets("ws2").parent)
    mount(lab, lab.home("ws2"), "ro")


def wrong_clock(lab: Lab) -> None:
    """Ask a server whose certificate is not valid at the time that the clocks show."""
    server = lab.until_the_end.enter_context(CaveServer(tls=True, certificate="expired"))
    lab.set(caveclient_server=server.url, caveclient_ca_path=server.ca)


def old_core(lab: Lab) -> None:
    """Let ansible-core say that it is an old one."""
    lab.write("old/sitecustomize.py", "import ansible.release\nansible.release.__version__ = '2.14.18'\n")
    lab.environment["PYTHONPATH"] = str(lab.folder / "old")


def failing_password_program(lab: Lab) -> None:
    lab.program("ask-for-it", "the keyring is locked", 3)


def taken_folder(lab: Lab) -> None:
    lab.write("lab/hosts.yml", "")


def https(lab: Lab) -> None:
    lab.set(caveclient_server=lab.cave.url.replace("http:", "https:"))


MISTAKES: list[tuple[str, Spoil, tuple[str, ...], int, str]] = [
    # The vault
    ("whole vault, no password", whole, ("provision",), 4, "no password was given. Add --ask-vault-pass"),
    ("whole vault, wrong password", whole, ("verify", *WRONG_PASSWORD), 4, "the password is not the right one"),
    ("whole vault, audit", whole, ("audit",), 4, "where single values are encrypted"),
    # Of one account: as root, an audit looks at those of tests that run beside this one, too.
    ("whole vault of another lab", vault_of_another_lab, ("audit", *OF_ONE), 0, "2 workstations ok"),
    # Parts left out
    ("report left out", nothing, ("verify", "--skip-tags", "always"), 4, "leaves out the report"),
    (
        "rotation begun in the middle",
        nothing,
        ("rotate", "--start-at-task", "Report"),
        4,
        "what is done already is found",
    ),
    ("begun at no task", nothing, (*VERIFY, "--start-at-task", "Verfy"), 4, "To run a part of a playbook, name tags"),
    ("all with tags left out", nothing, (*TOKEN_ONLY, "--skip-tags", "tagged"), 4, "leaves out the report"),
    ("tags of nothing to merge", nothing, ("merge_reports", "--tags", "x"), 2, "There is no report to merge"),
    ("tags of no folder", nothing, ("init", "--tags", "x"), 2, "Name the folder to make: -e dest=lab"),
    ("tags of nobody to enroll", nothing, ("enroll", "--tags", "x"), 2, "Say whose token it is"),
    # A single value
    (
        "vault value, no password",
        nothing,
        ("provision", "--tags", "token"),
        2,
        "-> Give the vault's password: add --ask-vault-pass",
    ),
    (
        "vault value, wrong password",
        nothing,
        ("provision", "--tags", "token", *WRONG_PASSWORD),
        2,
        "not the one that this value was encrypted with",
    ),
    (
        "vault password file not found",
        nothing,
        ("verify", "--vault-password-file", "nowhere"),
        1,
        "nowhere was not found",
    ),
    (
        "vault password program fails",
        failing_password_program,
        ("verify", "--vault-password-file", "ask-for-it"),
        1,
        "ask-for-it returned non-zero (3)",
    ),
    ("vault password file is a folder", nothing, ("verify", "--vault-password-file", "group_vars"), 1, "group_vars"),
    ("broken YAML in the vault", broken_vault, VERIFY, 4, "vault.yml, line 2 is no YAML"),
    ("vault id without a file", nothing, ("verify", "--vault-id", "lab@nowhere"), 1, "nowhere"),
    # Variables
    (
        "undefined token",
        entry(token="{{ vault_cave_token_alise }}"),
        TOKEN_ONLY,
        2,
        "'vault_cave_token_alise' is undefined",
    ),
    ("undefined setting", variables(caveclient_datastacks="{{ stacks }}"), VERIFY, 2, "'stacks' is undefined"),
    (
        "a setting without a value",
        variables(caveclient_datastacks=None),
        TOKEN_ONLY,
        2,
        "caveclient_datastacks has no value",
    ),
    (
        "names with white space",
        nothing,
        ("audit", "-e", f"caveclient_audit_users={_lab.USER}, {_lab.USER}"),
        0,
        "2 workstations ok",
    ),
    (
        "no time to save",
        variables(caveclient_timeout=0),
        TOKEN_ONLY,
        2,
        "caveclient_timeout must be from 1 to 86400",
    ),
    (
        "no time to rotate",
        variables(caveclient_timeout=0),
        ("rotate",),
        2,
        "caveclient_timeout must be from 1 to 86400",
    ),
    (
        "a task's time with a unit",
        variables(caveclient_task_timeout="2m"),
        VERIFY,
        2,
        "Set caveclient_task_timeout to a number of seconds",
    ),
    *(
        (f"{name} is {value}", nothing, (*words, "-e", json.dumps({f"caveclient_{name}": value})), 2, says)
        for words, name, value, says in [
            (VERIFY, "pending_ok", "perhaps", "caveclient_pending_ok must be true or false, and is 'perhaps'"),
            (
                VERIFY,
                "pending_ok",
                "{{ nowhere }}",
                "pending_ok cannot be filled in: 'nowhere' is undefined",
            ),
            (VERIFY, "report", ["a"], "caveclient_report must be a path, and is a list"),
            (VERIFY, "report", "{{ nowhere }}/x", "caveclient_report cannot be filled in"),
            (VERIFY, "hosts", "{{ nowhere }}", "caveclient_hosts cannot be filled in"),
            (VERIFY, "services", {}, "caveclient_services must be a list of texts, and is a mapping"),
            (VERIFY, "retries", [], "caveclient_retries must be a whole number, and is a list"),
            (VERIFY, "wait", None, "caveclient_wait is no time to wait: null"),
            (("audit", *OF_ONE), "audit_strict", "perhaps", "caveclient_audit_strict must be true or false"),
            (
                ("audit", *OF_ONE),
                "audit_firewall",
                [],
                "caveclient_audit_firewall must be true or false",
            ),
            (("audit",), "audit_users", "{{ nowhere }}", "-> Define the variable, or correct its name. 0 work"),
            (("merge_reports",), "reports", {"a": 1}, "caveclient_reports must be a list of paths, and is a mapping"),
            (("rotate", *PASSWORD), "rotate_users", "{{ nowhere }}", "caveclient_rotate_users cannot be filled in"),
            (("rotate", *PASSWORD), "rotate_grace", [], "caveclient_rotate_grace must be a number, and is a list"),
            (
                ("decommission", *PASSWORD),
                "decommission_users",
                "{{ nowhere }}",
                "users cannot be filled in",
            ),
            (
                ("decommission", *PASSWORD, "-e", f"caveclient_decommission_users={_lab.USER}"),
                "retries",
                -3,
                "caveclient_retries must be from 0 to 1000, and is -3",
            ),
            (VERIFY, "become", None, "-> Set caveclient_become to true or false"),
            (("audit", *OF_ONE), "become", None, "-> Set caveclient_become to true or false"),
            (TOKEN_ONLY, "become", None, "-> Set caveclient_become to true or false"),
            (("rotate", *PASSWORD), "become", None, "caveclient_become has no value"),
            (TOKEN_ONLY, "rate", -1, "caveclient_rate must be from 0 to 1000000, and is -1"),
            (TOKEN_ONLY, "retries", -1, "caveclient_retries must be from 0 to 1000, and is -1"),
            (TOKEN_ONLY, "task_timeout", -1, "-> Set caveclient_task_timeout to a number of seconds"),
        ]
    ),
    ("perhaps as another", variables(caveclient_become="maybe"), VERIFY, 2, "Set caveclient_become to true or false"),
    ("pipelining, perhaps", variables(ansible_pipelining="maybe"), VERIFY, 2, "maybe"),
    (
        "no Python",
        variables(ansible_python_interpreter="/bin/true"),
        VERIFY,
        2,
        "Set ansible_python_interpreter to a Python",
    ),
    ("misspelt variable", variables(caveclient_verfy="client"), TOKEN_ONLY, 0, "did you mean caveclient_verify?"),
    ("misspelt tokens", misspelt_tokens, TOKEN_ONLY, 2, "did you mean caveclient_tokens?"),
    ("misspelt extra variable", nothing, (*VERIFY, "-e", "caveclient_datastack=x"), 0, "mean caveclient_datastacks?"),
    ("misspelt beginning", variables(cavclient_tokens=[]), TOKEN_ONLY, 0, "did you mean caveclient_tokens?"),
    (
        "misspelt choice",
        nothing,
        (*TOKEN_ONLY, "-e", "caveclient_verify=clint"),
        2,
        "value of caveclient_verify must be one of: api, client, none",
    ),
    ("word for a number", nothing, (*TOKEN_ONLY, "-e", "caveclient_timeout=soon"), 2, "caveclient_timeout"),
    # Tokens
    ("tokens as a string", tokens(TOKEN), TOKEN_ONLY, 2, "-> Write caveclient_tokens as a list of entries"),
    (
        "tokens as a mapping",
        tokens({"user": "alice"}),
        TOKEN_ONLY,
        2,
        "-> Write caveclient_tokens as a list of entries",
    ),
    *(
        (f"tokens as {value}, verified", tokens(value), VERIFY, 2, "-> Write caveclient_tokens as a list of entries")
        for value in ("a text", {"user": "alice"}, 5, True)
    ),
    ("a bare token in the list", tokens([TOKEN]), TOKEN_ONLY, 2, "-> Write caveclient_tokens as a list of entries"),
    ("a token among the datastacks", variables(caveclient_datastacks=[TOKEN]), TOKEN_ONLY, 2, "in the wrong place?"),
    ("an entry without a user", tokens([{"token": TOKEN}]), TOKEN_ONLY, 2, "user"),
    ("an empty token", entry(token=""), TOKEN_ONLY, 2, "empty"),
    ("a token in quotes twice", entry(token=f"'{TOKEN}'"), TOKEN_ONLY, 2, "has quotation marks"),
    ("a placeholder", entry(token="YOUR_TOKEN_HERE"), TOKEN_ONLY, 2, "placeholder"),
    ("a token that YAML reads as a number", entry(token=12345678), TOKEN_ONLY, 2, "number"),
    ("a misspelt key", entry(sever="x"), TOKEN_ONLY, 2, "key"),
    ("a token after Bearer", bearer, TOKEN_ONLY, 2, "Bearer"),
    ("a token with a line end", line_end, TOKEN_ONLY, 0, "2 workstations ok"),
    ("a vault with the line ends of Windows", windows_line_ends, TOKEN_ONLY, 0, "2 workstations ok"),
    ("a dead token", revoked, TOKEN_ONLY, 2, "invalid_token"),
    # Becoming root
    ("sudo wants a password", sudo("sudo: a password is required"), VERIFY, 2, "-> Add -K, and type"),
    ("wrong password of sudo", sudo("Sorry, try again."), VERIFY, 2, "-> Type the host's sudo (or su) password"),
    ("not in sudoers", sudo("lab is not in the sudoers file."), VERIFY, 2, "visudo"),
    (
        "no sudo",
        variables(caveclient_become=True, ansible_become_exe="/no/such/sudo"),
        VERIFY,
        2,
        "-> Install sudo on the host, or log in as root",
    ),
    (
        "no such become plugin",
        variables(caveclient_become=True, ansible_become_method="sodu"),
        VERIFY,
        2,
        "-> Set become_method",
    ),
    # Getting there
    ("unknown host key", ssh("Host key verification failed."), VERIFY, 2, ": ssh HOST true"),
    ("changed host key", ssh("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"), VERIFY, 2, ": ssh-keygen -R HOST"),
    ("no key let in", ssh("lab@ws2: Permission denied (publickey)."), VERIFY, 2, "ssh-copy-id USER@HOST"),
    (
        "no such name",
        ssh("ssh: Could not resolve hostname ws2: Name or service not known"),
        VERIFY,
        2,
        "-> Correct the host's name",
    ),
    ("switched off", ssh("ssh: connect to host ws2 port 22: No route to host"), VERIFY, 2, "-> Switch it on"),
    (
        "no Python there",
        variables(ansible_python_interpreter="/no/such/python"),
        VERIFY,
        2,
        "-> Install Python 3.8 or later on the host",
    ),
    ("Python too old", old_python, VERIFY, 2, "-> Install a newer Python beside it"),
    (
        "nowhere to put a module",
        nothing,
        (*VERIFY, "-e", "ansible_pipelining=false", "-e", "ansible_remote_tmp=/proc/nowhere"),
        2,
        "-> Set ansible_remote_tmp to a folder that the remote user can write in",
    ),
    (
        "a Python that repeats what it is sent",
        variables(ansible_python_interpreter="/bin/cat"),
        TOKEN_ONLY,
        2,
        "Set ansible_python_interpreter to a Python",
    ),
    ("another answer", another_answer, VERIFY, 2, "the disk is on fire"),
    # Accounts
    ("no such account", entry(user="no-such-user-here"), TOKEN_ONLY, 2, "no-such-user-here"),
    (
        "somebody whom no host knows",
        nothing,
        ("audit", "-e", "caveclient_audit_users=no-such-user-here"),
        2,
        "no-such-user-here",
    ),
    # Servers
    ("server down", variables(caveclient_server="http://127.0.0.1:9"), TOKEN_ONLY, 2, "unreachable"),
    ("http for https", https, TOKEN_ONLY, 2, "tls_error"),
    (
        "the address of a page",
        variables(caveclient_server="https://global.daf-apis.com/sticky_auth/settings/tokens"),
        TOKEN_ONLY,
        2,
        "Did you mean https://global.daf-apis.com?",
    ),
    ("a host's clock is wrong", wrong_clock, VERIFY, 2, "-> Check this host's clock; if it is right"),
    ("the controller's clock is wrong", wrong_clock, ("rotate", *PASSWORD), 2, "to be renewed: timedatectl"),
    ("misspelt datastack", variables(caveclient_datastacks=["minnie65_pubic"]), TOKEN_ONLY, 2, "minnie65_pubic"),
    (
        "no index",
        variables(caveclient_find_links=["/no/such/wheels"]),
        ("provision", "--tags", "install", *PASSWORD),
        2,
        "/no/such/wheels",
    ),
    # What to do, where
    ("no inventory", nothing, ("verify", "-i", ","), 2, "The inventory has no hosts. Name one: -i hosts.yml"),
    (
        "inventory not found",
        nothing,
        ("verify", "-i", "hsots.yml"),
        2,
        "The inventory has no hosts. Name one: -i hosts.yml",
    ),
    ("inventory unreadable", unreadable_inventory, ("verify", "-i", "closed.yml"), 2, "The inventory has no hosts"),
    ("inventory broken", broken_inventory, ("verify", "-i", "broken.yml"), 2, "The inventory has no hosts"),
    ("inventory empty", empty_inventory, ("verify", "-i", "empty.yml"), 2, "empty.yml names none"),
    ("misspelt group", nothing, ("verify", "-e", "caveclient_hosts=workstation"), 2, "Did you mean workstations?"),
    ("empty limit", nothing, ("decommission", "--limit", ""), 4, "--limit '' names no host"),
    (
        "limit of an empty file",
        empty_limit,
        ("decommission", "--limit", "@done"),
        4,
        "--limit @done names no host, and Ansible would take all of them",
    ),
    *(
        (f"hosts {value}", variables(caveclient_hosts=value), VERIFY, 2, "caveclient_hosts names no host")
        for value in ([], "", [" "])
    ),
    ("misspelt limit", nothing, ("verify", "--limit", "ws9"), 1, "no hosts to target"),
    ("misspelt tag", nothing, ("provision", "--tags", "tokens", *PASSWORD), 2, "tags: install, token, verify."),
    ("misspelt playbook", nothing, ("verfy",), 1, "connectomics.cave.verfy could not be found"),
    ("nobody anywhere", tokens([]), VERIFY, 2, "has caveclient_tokens. Give the hosts"),
    (
        "report folder in the way",
        in_the_way,
        ("verify", "-e", "caveclient_report=folder"),
        2,
        "The folder folder cannot be made",
    ),
    (
        "ansible-core too old",
        old_core,
        VERIFY,
        4,
        "needs ansible-core 2.17 or later; this is 2.14.18. Install a newer one",
    ),
    *(
        (
            f"ansible-core too old for {words[0]}",
            old_core,
            words,
            2,
            "needs ansible-core 2.17 or later; this is 2.14.18. Install a newer one",
        )
        for words in [("init", "-e", "dest=lab"), ("enroll",), ("merge_reports",)]
    ),
    ("extra variables not found", nothing, ("verify", "-e", "@nowhere.yml"), 1, "nowhere.yml'"),
    (
        "begun in the middle",
        nothing,
        (*VERIFY, "--start-at-task", "Verify that the users' access works"),
        4,
        "To run a part of a playbook, name tags",
    ),
    ("collection not there", collection_missing, VERIFY, 1, "connectomics.cave.verify could not be found"),
    ("host full", full_host, TOKEN_ONLY, 2, "No space left on device"),
    ("home read-only", read_only_home, TOKEN_ONLY, 2, "is mounted read-only"),
    ("controller full", full_controller, ("verify", "-e", "caveclient_report=reports"), 2, "No space left on device"),
    ("nothing to merge", nothing, ("merge_reports",), 2, "-e caveclient_reports=reports/1,reports/2"),
    ("merged report not there", nothing, ("merge_reports", "-e", "caveclient_reports=old"), 2, "old cannot be read"),
    ("no folder to make", nothing, ("init",), 2, "Name the folder to make: -e dest=lab"),
    ("folder is there", taken_folder, ("init", "-e", "dest=lab"), 2, "Name a folder that does not exist: -e dest=lab2"),
    ("nobody to ask for a password", nothing, ("init", "-e", "dest=lab"), 2, "Run the command again in a terminal"),
    (
        "a number for a password",
        nothing,
        ("init", "-e", json.dumps({"dest": "lab", "caveclient_init_vault_password": 1234})),
        2,
        "A number needs quotes.",
    ),
    # Whom to rotate, to enroll, to take off
    ("rotate without a password", nothing, ("rotate",), 2, "the vault's password is missing or wrong"),
    ("enroll nobody", nothing, ("enroll", *PASSWORD), 2, "Say whose token it is, and the vault file"),
    (
        "enroll with a wrong password",
        nothing,
        (
            *("enroll", *WRONG_PASSWORD, "-e", "caveclient_enroll_user=alice"),
            *("-e", "caveclient_enroll_vault=group_vars/all/vault.yml"),
        ),
        2,
        "The password is wrong, or that part is damaged",
    ),
    (
        "enroll without a password",
        nothing,
        ("enroll", "-e", "caveclient_enroll_user=alice", "-e", "caveclient_enroll_vault=group_vars/all/vault.yml"),
        2,
        "Start it with --ask-vault-pass",
    ),
    (
        "enroll into no folder",
        nothing,
        ("enroll", *PASSWORD, "-e", "caveclient_enroll_user=alice", "-e", "caveclient_enroll_vault=nowhere/vault.yml"),
        2,
        "there is no such directory",
    ),
    (
        "enroll, perhaps a new person",
        nothing,
        (
            *("enroll", *PASSWORD, "-e", "caveclient_enroll_user=alice", "-e", "caveclient_enroll_new=perhaps"),
            *("-e", "caveclient_enroll_vault=group_vars/all/vault.yml"),
        ),
        2,
        "caveclient_enroll_new must be true or false, and is 'perhaps'",
    ),
    *(
        (f"{words[0]} with tokens that are {kind}", variables(caveclient_tokens=tokens), words, 2, says)
        for words in [("audit", *OF_ONE), ("decommission", "-e", f"caveclient_decommission_users={_lab.USER}")]
        for kind, tokens, says in [
            ("text", "alice", "-> Write caveclient_tokens as a list of entries with user and token"),
            ("a list of texts", ["alice"], "Entry 1 of caveclient_tokens is not a mapping with user and token"),
            ("nobody's", [{"User": "alice"}], "Entry 1 of caveclient_tokens names no user"),
        ]
    ),
    *(
        (f"{words[0]} of {kind}", variables(caveclient_tokens=[{"user": user, "token": TOKEN}]), words, 2, says)
        for words in [VERIFY, ("provision", *PASSWORD)]
        for kind, user, says in [
            ("a user without a name", "", "Entry 1 of caveclient_tokens names no user"),
            ("a user that is a number", 0, "Entry 1 of caveclient_tokens has a user that is not text"),
        ]
    ),
    (
        "an entry that is null",
        variables(caveclient_tokens=[None]),
        ("provision", *PASSWORD),
        2,
        "caveclient_tokens must be a list of mappings, and its item 1 is null.",
    ),
    (
        "a state that is none",
        variables(caveclient_tokens=[{"user": _lab.USER, "token": "{{ vault_cave_token_alice }}", "state": "Absent"}]),
        VERIFY,
        2,
        "caveclient_tokens has a state other than present and absent. -> Fix what the message names",
    ),
    ("decommission everything", nothing, ("decommission", *PASSWORD), 2, "This would take everybody's tokens off"),
    (
        "decommission somebody unknown",
        nothing,
        ("decommission", *PASSWORD, "-e", "caveclient_decommission_users=no-such-user-here"),
        2,
        "no-such-user-here has no account on any of these hosts",
    ),
]


MARKS = {
    "inventory unreadable": pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything"),
    "host full": pytest.mark.root,
    "controller full": pytest.mark.root,
    "home read-only": pytest.mark.root,
}


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Iterator[Lab]:
    made = Lab(tmp_path, cave)
    with made.until_the_end:
        yield made


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    ("spoil", "words", "status", "line"),
    [pytest.param(*row[1:], id=row[0], marks=MARKS.get(row[0], ())) for row in MISTAKES],
)
def test_a_mistake_ends_with_the_line_that_a_person_needs(
    lab: Lab, callback: str, spoil: Spoil, words: tuple[str, ...], status: int, line: str
) -> None:
    lab.callback = callback
    spoil(lab)
    run = lab.run(*words)
    if status == 4 and os.environ.get("CAVE_TESTS_CORE") in ("2.17", "2.18"):
        status = 1  # ansible-core's own, where the hosts of a play cannot be told
    assert run.status == status, run.output
    assert TOKEN not in run.output
    assert line in near_the_prompt(run.output), f"not within {NEAR} rows of the prompt: {run.output}"


def test_a_task_that_is_tried_again_has_its_token(lab: Lab) -> None:
    options = {"tokens": "{{ caveclient_tokens }}", "server": "{{ caveclient_server }}"}
    task = {"connectomics.cave.saved_token": options, "register": "saved", "until": "saved.attempts == 3"}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{**task, "retries": 3, "delay": 0}]}
    lab.write("site.yml", json.dumps([play]))
    run = lab.play("site.yml")
    assert run.ok, run.output


@pytest.mark.parametrize("playbook", ["provision", "audit"])
@pytest.mark.parametrize(
    "missing", [{"ansible_connection": "nope"}, {"ansible_shell_type": "nope"}, {"ansible_become_method": "nope"}]
)
def test_callbacks_are_shown_no_token_where_ansible_does_not_get_to_the_task(
    lab: Lab, playbook: str, missing: dict[str, str]
) -> None:
    lab.write(
        "listen.py",
        "from ansible.plugins.callback import CallbackBase\n"
        "class CallbackModule(CallbackBase):\n"
        "    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, 'notification', 'listen'\n"
        "    CALLBACK_NEEDS_ENABLED = True\n"
        "    def v2_runner_on_failed(self, result, ignore_errors=False):\n"
        "        print('HEARD', result._task_fields['action'], result._task_fields['args'])\n",
    )
    lab.environment.update(ANSIBLE_CALLBACKS_ENABLED="listen", ANSIBLE_CALLBACK_PLUGINS=str(lab.folder))
    lab.hosts["ws1"].update(missing)
    run = lab.run(playbook, *PASSWORD, "-e", "ansible_become=true", *(OF_ONE if playbook == "audit" else ()))
    assert "HEARD connectomics.cave." in run.output  # and no token, which Lab.run looks for
    assert "nope" in run.output
    assert run.status == 2


def test_a_run_that_does_nothing_is_an_error_for_ci_and_its_report_has_no_control_characters(lab: Lab) -> None:
    name = "\x1b[31mworkstation\u202e"
    run = lab.play("verify", caveclient_hosts=name, caveclient_report="reports", caveclient_junit="reports/junit.xml")
    assert run.status == 2, run.output
    page, junit = ((lab.report / name).read_text() for name in ("report.html", "junit.xml"))
    assert "workstation" in page
    assert not [text for text in (page, junit) if "\x1b" in text or "\u202e" in text]
    assert '<testsuites name="connectomics.cave.verify" tests="1" failures="0" errors="1">' in junit


def near_the_prompt(output: str) -> str:
    """Return the last rows of a terminal on which this was printed, as one line."""
    kept: list[str] = []
    room = NEAR
    for line in reversed(output.rstrip().splitlines()):
        rows = max(1, -(-len(line) // COLUMNS))
        kept.insert(0, line if rows <= room else line[(rows - room) * COLUMNS :])
        room -= rows
        if room <= 0:
            break
    return " ".join(" ".join(kept).split())


def test_two_who_provision_at_the_same_time_both_succeed(lab: Lab) -> None:
    shutil.rmtree(lab.secrets("ws1"))
    lab.write_inventory()
    settings = environment(lab.folder, ANSIBLE_STDOUT_CALLBACK=lab.callback, **SETTINGS)
    words = command("playbook", "-i", "hosts.yml", "connectomics.cave.provision", *PASSWORD)
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    runs = [subprocess.Popen(words, cwd=lab.folder, env=settings, **pipes) for _number in range(2)]
    for run in runs:
        output = run.communicate(timeout=LIMIT)[0]
        assert run.returncode == 0, output
        lab.assert_nothing_shown(output)
    assert {lab.saved(host) for host in lab.hosts} == {lab.token}
