# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a person for a token and store it in the vault: the whole of enroll, on the controller.

Ansible's own prompts are asked before a play, or leave the answer in a registered variable; and none of them can ask
again after the server has spoken.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import (
    EXPIRING,
    TokenApi,
    expiring_message,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    LONGEST_DESCRIPTION,
    clean_description,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict, token_page
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, require_limits
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import CaveAction
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import vault_secrets
from ansible_collections.connectomics.cave.plugins.plugin_utils._enroll_dialogue import Enrolment, Outcome, Person
from ansible_collections.connectomics.cave.plugins.plugin_utils._enroll_keepers import (
    Keeper,
    StoredSecret,
    VaultVariable,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import chosen, with_datastacks
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.ansible_run import AnsibleRun
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import variable_files
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.steps import lets_two_live
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import folder_of, place_of

display = Display()

ARGUMENT_SPEC: dict[str, Any] = {
    "user": {"type": "str", "required": True},
    "path": {"type": "path"},
    "secret": {"type": "str", "no_log": False},
    "store": {"type": "raw", "no_log": True},
    "name": {"type": "str"},
    "key": {"type": "str", "no_log": False},
    "server": {"type": "str", "default": DEFAULT_SERVER},
    "datastacks": {"type": "list", "elements": "raw", "default": []},
    "profiles": {"type": "list", "elements": "str", "default": []},
    "new_account": {"type": "bool"},
    "open_pages": {"type": "bool", "default": True},
    "vault_id": {"type": "str"},
    "format": {"type": "str", "choices": ["inline", "file"], "default": "inline"},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "retries": {"type": "int", "default": 2},
}


class ActionModule(CaveAction):
    """Talks with whoever started the run. No host is contacted."""

    spec = ARGUMENT_SPEC
    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True  # one conversation, whatever the number of hosts
    _requires_connection = False
    _supports_check_mode = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        if result.get("skipped"):
            return result
        _validation, options = self.validate_argument_spec(
            argument_spec=ARGUMENT_SPEC,
            required_one_of=[("path", "secret")],
            mutually_exclusive=[("path", "secret")],
            required_by={"secret": ("store",)},
        )
        try:
            return {**result, **self._enroll(options, self._keeper(options, task_vars or {}), task_vars or {})}
        except CaveError as error:
            return {**result, "failed": True, "msg": error.message}

    def _keeper(self, options: dict[str, Any], variables: Mapping[str, Any]) -> Keeper:
        if options["secret"]:
            folder = folder_of(variables, self._loader.get_basedir())
            return StoredSecret(place_of(options["store"], options["secret"], folder))
        name = options["name"] or f"vault_cave_token_{_identifier(options['user'])}"
        variable = (name,) if options["key"] is None else (name, options["key"])
        secrets = vault_secrets(self._loader)
        folders = [str(folder) for folder in (variables.get("inventory_dir"), self._loader.get_basedir()) if folder]
        beside = variable_files(folders, variables.get("groups", ()))
        return VaultVariable(options["path"], variable, secrets, options["vault_id"], options["format"], beside)

    def _enroll(self, options: dict[str, Any], store: Keeper, variables: Mapping[str, Any]) -> dict[str, Any]:
        require_limits(options["timeout"], options["retries"])
        server = server_address(options["server"])
        wanted = options["datastacks"]
        if options["profiles"]:
            wanted = with_datastacks(wanted, chosen(options["profiles"]))
        stacks = [stack.name for stack in parse_datastacks(wanted, server)]
        stored = store.read()
        store.require_writable()  # before the person is asked for anything
        verdict_on = partial(_verdict_on, server=server, stacks=stacks, **_limits(options))
        terminal = _Terminal()
        _confirm_password(terminal, store, vault_secrets(self._loader))
        person = Person(options["user"], server, stacks, options["new_account"])
        tokens = _Tokens(options, server, store, partial(self._servers_of, variables))
        show = _open_page if options["open_pages"] and _desktop_opener() else None
        try:
            outcome = Enrolment(terminal, person, verdict_on, show, tokens).run(stored)
            if outcome.token is not None and store.read() != stored:
                raise CaveError(
                    f"{store.name} in {store.path} was changed while you were asked. Nothing was stored: run again."
                )
            changed = outcome.token is not None and store.write(outcome.token)
        except CaveError as error:
            raise CaveError(f"{error.message}{tokens.left_over()}") from None
        return {"changed": changed, **_result(options["user"], outcome, stored, store)}

    def _servers_of(self, variables: Mapping[str, Any], token: str) -> list[str]:
        """Return the servers that caveclient_tokens names a token for, on any host."""
        hosts = AnsibleRun(variables, self._loader).read_hosts().values()
        return list(dict.fromkeys(item.entry.server for host in hosts for item in host.held if item.token == token))


class _Tokens:
    """What the server, the vault and the inventory say of a token besides."""

    def __init__(
        self, options: dict[str, Any], server: str, store: Keeper, servers_of: Callable[[str], list[str]]
    ) -> None:
        self._options = options
        self._server = server
        self._store = store
        self._servers_of = servers_of
        self._made = ""
        self._description = f"connectomics.cave, enrolled for {options['user']}"[:LONGEST_DESCRIPTION].strip()

    def _api(self, token: str) -> TokenApi:
        return TokenApi(self._server, token, **_limits(self._options))

    def expiring(self, token: str) -> str:
        """Return a sentence when a token ends by itself."""
        try:
            kind = self._api(token).kind().kind
        except CaveError:
            return ""  # the verdict on the token says what is wrong
        return expiring_message(self._server, token) if kind == EXPIRING else ""

    def at_risk(self, token: str) -> str:
        """Return a sentence when a token that this one makes might kill another that computers have; else nothing."""
        api = self._api(token)
        keys = api.listing().tokens
        if len(keys) != 1 or keys[0].description == self._description or lets_two_live(api):
            return ""
        return (
            f"{self._options['user']} has a token that stays, {keys[0].fingerprint}. On this server, making another "
            f"may kill that, and lock out every computer that has it. Take that one from {token_page(self._server)}."
        )

    def left_over(self) -> str:
        """Return a sentence about a token that was made for this and is not stored; nothing when none was."""
        page = token_page(self._server)
        made = f" The token {self._made} was made, and stays on {page} as {self._description!r}."
        return f"{made} Enrolling takes it from there; revoke it if nobody needs it." if self._made else ""

    def make_key(self, token: str) -> str:
        """Return a token that does not end, made with one that does."""

        def keep(value: str) -> None:
            self._made = fingerprint(value)

        made = self._api(token).ensure(clean_description(self._description, token), keep=keep)
        if made.token is None:
            raise CaveError("No token was made. Nothing was stored.", gave_up=True)
        return made.token.value

    def require_own_server(self, token: str) -> None:
        """Raise CaveError for a token of the vault that this server refuses, and another one accepts."""
        for server in self._servers_of(token.strip()):
            if _verdict_on(token.strip(), server, (), **_limits(self._options)).person is not None:
                raise CaveError(
                    f"{self._store.name} in {self._store.path} is the token for {server}, and {self._server} does not "
                    "know it. Give the other one a place of its own: -e caveclient_enroll_variable=NAME (or "
                    "caveclient_enroll_secret=NAME)."
                )

    def doubt(self, token: str, verdict: Verdict) -> str:
        """Return a sentence when a token seems to be somebody else's."""
        other = self._store.holder_of(token)
        if other:
            return f"The vault has this very token already, as {other}. Is it really {self._options['user']}'s?"
        person, user = verdict.person, self._options["user"]
        if person is None or _alike(user, person.name, person.email):
            return ""
        return f"The account {person.name} ({person.email}) does not look like {user}'s."


def _alike(user: str, name: str, email: str) -> bool:
    """Whether an account's name and mail could be those of a user: they have some letters in a row in common."""
    whose = re.sub(r"[^a-z]", "", f"{name}|{email.partition('@')[0]}".lower())
    words = [word for word in re.split(r"[^a-z]+", user.lower()) if len(word) > 1]
    return not words or any(word[:start] in whose for word in words for start in [min(len(word), 4)])


def _confirm_password(terminal: _Terminal, store: Keeper, secrets: list[tuple[str, Any]]) -> None:
    """Ask once more for the password of a vault that does not exist yet: a slip in it would lock everybody out.

    Raises:
        CaveError: it is another one.
    """
    typed = [secret for _id, secret in secrets if type(secret).__name__ == "PromptVaultSecret"]
    if not store.is_new or not typed:
        return
    answer = terminal.ask_hidden(f"{store.path} is new. Its vault password once more:")
    if answer.encode() not in [secret.bytes for secret in typed]:
        raise CaveError("The two passwords differ. Nothing was stored: start again.")


class _Terminal:
    """The terminal that the run was started in."""

    def say(self, text: str) -> None:
        """Show lines of text."""
        display.display(text)

    def ask(self, question: str) -> str:
        """Return an answer that is seen as it is typed."""
        return self._answer(question, hidden=False)

    def ask_hidden(self, question: str) -> str:
        """Return an answer that is not seen."""
        return self._answer(question, hidden=True)

    def _answer(self, question: str, hidden: bool) -> str:
        try:
            answer: bytes = display.prompt_until(question, private=hidden)
        except AnsiblePromptInterrupt:
            raise CaveError("Stopped. Nothing was stored.", gave_up=True) from None
        except AnsiblePromptNoninteractive:
            raise CaveError(
                "There is no terminal here, so nobody can be asked for a token. Nothing was stored. Start this in a "
                "terminal; or let a script hand the token to connectomics.cave.vault_variable.",
                gave_up=True,
            ) from None
        return answer.decode("utf-8", "replace")


def _identifier(user: str) -> str:
    """Return what names a user's variable; another user's never has the same."""
    plain = "".join(character if character.isascii() and character.isalnum() else "_" for character in user)
    return plain if plain == user else f"{plain}_{hashlib.sha256(user.encode()).hexdigest()[:6]}"


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a server is asked."""
    return {"timeout": options["timeout"], "retries": options["retries"], "ca_path": options["ca_path"] or None}


def _verdict_on(token: str, server: str, stacks: Iterable[str], **limits: Any) -> Verdict:
    question = Question(server, token, tuple(stacks))
    return prove([question], **limits)[question].overall


def _desktop_opener() -> str | None:
    """Return the program that opens a page on the desktop; None without a desktop, or without such a program.

    Python's webbrowser would take a browser for the terminal, too.
    """
    if sys.platform == "darwin":
        return shutil.which("open")
    return shutil.which("xdg-open") if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else None


def _open_page(address: str) -> bool:
    opener = _desktop_opener()
    if opener is None:
        return False
    try:
        done = subprocess.run(
            [opener, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _result(user: str, outcome: Outcome, stored: str | None, store: Keeper) -> dict[str, Any]:
    """Return what came of it, and say so to the person."""
    verdict = outcome.verdict
    mark = fingerprint(outcome.token or stored or "")
    before = None if stored is None else fingerprint(stored)
    whose = f" ({verdict.person.name}, {verdict.person.email})" if verdict.person else ""
    if outcome.token is None:
        works = "works." if verdict.ok else f"is good, but: {verdict.message} {verdict.remedy}"
        message = f"{user}'s token {mark}{whose} is in the vault, and {works} Nothing was changed."
        lines = [message]
    else:
        message = f"Stored {user}'s token {mark}{whose} as {store.name} in {store.path}{store.secured}."
        if before:
            message += f" Hosts that have the old one, {before}, get it from rotate."
        goes_out = "rotate" if before else "provision --tags token"
        lines = [
            message,
            "In caveclient_tokens it is:",
            f'  - user: {user}\n    token: "{{{{ {store.template} }}}}"',
            f"and goes out with: ansible-playbook connectomics.cave.{goes_out}",
        ]
    display.display("\n" + "\n".join(lines) + "\n")
    return {
        "msg": message,
        "path": store.path,
        "name": store.name,
        "fingerprint": mark,
        "previous_fingerprint": before,
        "access": verdict.as_dict(),
    }
