# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conversation in which a person hands over a token: what is said, what is asked, and what comes of it.

It knows no terminal and no vault: they are handed in, so that the whole of it can be tried without either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import quote

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import TRANSIENT, Verdict, token_page
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

TRIES = 5
"""How often a token is asked for, and owed terms of service are looked for."""

_PASTED = re.compile(r"\x1b\[20[01]~")
"""What terminals put around a pasted text."""


class Terminal(Protocol):
    """How to talk with the person. Both questions raise CaveError when the person gives up, or nobody is there."""

    def say(self, text: str) -> None:
        """Show lines of text."""

    def ask(self, question: str) -> str:
        """Return an answer that is seen as it is typed."""

    def ask_hidden(self, question: str) -> str:
        """Return an answer that is not seen."""


class Person(NamedTuple):
    """Whose token it is, and for what."""

    user: str
    server: str
    datastacks: Sequence[str]
    is_new: bool | None = None
    """Whether the person has never worked with CAVE; None: to be asked."""


class Outcome(NamedTuple):
    """The token, None where the vault's own is to stay, and the verdict on it."""

    token: str | None
    verdict: Verdict


Prove = Callable[[str], Verdict]
"""Ask the server about a token."""
Show = Callable[[str], bool]
"""Open a page on the person's desktop; False where there is none."""


class Tokens(Protocol):
    """What else is to be known of tokens before one is stored."""

    def expiring(self, token: str) -> str:
        """Return a sentence when a token ends by itself, as one of a browser's login does; else nothing."""

    def at_risk(self, token: str) -> str:
        """Return a sentence when a token that this one makes might kill another that computers have; else nothing."""

    def make_key(self, token: str) -> str:
        """Return a token that does not end, made with one that does."""

    def require_own_server(self, token: str) -> None:
        """Raise CaveError for a token of the vault that this server refuses, and another one accepts."""

    def doubt(self, token: str, verdict: Verdict) -> str:
        """Return a sentence when a token seems to be somebody else's; else nothing."""


class Enrolment:
    """One person's conversation.

    Args:
        terminal: the person.
        person: whose token it is.
        prove: asks the server.
        show: opens a page, None where there is no desktop.
        tokens: what else is known of tokens; None: nothing.
    """

    def __init__(
        self, terminal: Terminal, person: Person, prove: Prove, show: Show | None, tokens: Tokens | None = None
    ) -> None:
        self._terminal = terminal
        self._person = person
        self._prove = prove
        self._show = show
        self._tokens = tokens

    def run(self, stored: str | None) -> Outcome:
        """Get a token that works.

        Args:
            stored: the token in the vault, None without one.

        Raises:
            CaveError: there is none, or the person gave up.
        """
        if stored is not None:
            try:
                verdict = self._prove_until_known(clean_token(stored))
            except CaveError as error:
                if error.details.get("gave_up"):
                    raise
                verdict = Verdict("invalid_token", error.message)
            expiring = self._expiring(clean_token(stored)) if verdict.verdict != "invalid_token" else ""
            if verdict.verdict != "invalid_token" and not expiring:
                return Outcome(None, self._settled(stored, verdict))
            if not expiring and self._tokens is not None:
                self._tokens.require_own_server(stored)
            self._terminal.say(
                f"The vault's token will stop working. {expiring}"
                if expiring
                else f"The vault has the token {fingerprint(stored)}, which does not work any more: {verdict.message}"
            )
        self._explain(is_new=stored is None and self._is_new())
        token, verdict = self._obtain()
        verdict = self._settled(token, verdict)
        self._confirm(token, verdict)
        return Outcome(token, verdict)

    def _is_new(self) -> bool:
        if self._person.is_new is not None:
            return self._person.is_new
        return not self._agrees(f"Has {self._person.user} worked with {self._person.server} before?", default=True)

    def _explain(self, is_new: bool) -> None:
        """Say what the person does in the browser."""
        server, page = self._person.server, token_page(self._person.server)
        log_in = f"{server}/sticky_auth/api/v1/authorize?redirect={quote(page, safe='')}"
        if is_new:
            stacks = ", ".join(self._person.datastacks)
            terms = f" of {stacks}" if stacks else ""
            lines = [
                f"{self._person.user} needs an account. In a browser, in this order:",
                "",
                "  1. Log in once, with the Google account that you use for CAVE:",
                f"     {log_in}",
                f"  2. Accept the terms of service{terms}. The address of the form is shown here, as soon as",
                "     the server says which terms are owed.",
                "  3. Open the page of tokens, and make one if the list is empty:",
                f"     {page}",
            ]
        else:
            lines = [
                f"In a browser, logged in as {self._person.user}: take the token that is listed on",
                "",
                f"     {page}",
                "",
                "  Do not make a new token where one is listed. On some servers that locks out every computer that",
                "  has the old one. Only when the list is empty, make one.",
            ]
        self._terminal.say("\n".join(["", *lines, ""]))
        self._offer(log_in if is_new else page)

    def _obtain(self) -> tuple[str, Verdict]:
        """Ask for a token until one is known to the server."""
        for _again in range(TRIES):
            try:
                answer = self._terminal.ask_hidden("Token (it is not shown while you paste it), then Enter:")
                token = clean_token(_PASTED.sub("", answer))
            except CaveError as error:
                if error.details.get("gave_up"):
                    raise
                self._terminal.say(f"{error.message} Try again.")
                continue
            verdict = self._prove_until_known(token)
            if verdict.verdict != "invalid_token":
                key = self._lasting(token)
                if key is None:
                    continue
                return key, verdict if key == token else self._prove_until_known(key)
            self._terminal.say(
                f"{self._person.server} does not know the token {fingerprint(token)}. Copy it again from "
                f"{token_page(self._person.server)}, all of it."
            )
        raise CaveError(f"No token that works after {TRIES} tries. Nothing was stored.", gave_up=True)

    def _expiring(self, token: str) -> str:
        return self._tokens.expiring(token) if self._tokens is not None else ""

    def _lasting(self, token: str) -> str | None:
        """Return a token that does not end by itself: this one, or a key made with it if the person agrees; or None."""
        expiring = self._expiring(token)
        if not expiring or self._tokens is None:
            return token
        self._terminal.say(expiring)
        at_risk = self._tokens.at_risk(token)
        if at_risk:
            self._terminal.say(at_risk)
            return None
        if self._agrees("Make a token that stays with it now, and store that one?", default=True):
            return self._tokens.make_key(token)
        self._terminal.say("It is not stored: every computer that had it would be locked out within a week.")
        return None

    def _prove_until_known(self, token: str) -> Verdict:
        """Ask the server; where it cannot be reached, as often as the person wants."""
        while True:
            verdict = self._prove(token)
            if verdict.verdict not in TRANSIENT and verdict.verdict != "tls_error":
                break
            self._terminal.say(f"{verdict.message} {verdict.remedy}")
            if not self._agrees("Try again?", default=True):
                raise CaveError(f"{verdict.message} Nothing was stored. {verdict.remedy}", gave_up=True)
        if verdict.verdict in ("not_a_cave_server", "client_error", "no_token"):
            raise CaveError(f"{verdict.message} Nothing was stored. {verdict.remedy}", gave_up=True)
        return verdict

    def _settled(self, token: str, verdict: Verdict) -> Verdict:
        """Wait for the person to accept terms of service that are owed; return the last verdict."""
        for _again in range(TRIES):
            if verdict.verdict != "missing_tos":
                return verdict
            self._terminal.say(
                f"\nThe token {fingerprint(token)} is good{_of(verdict)}. {verdict.message}\n"
                f"The person has to accept them in a browser, logged in with that account:\n\n     {verdict.url}\n"
            )
            self._offer(verdict.url)
            self._terminal.ask("Press Enter when that is done.")
            verdict = self._prove_until_known(token)
        if verdict.verdict == "missing_tos":
            raise CaveError(f"{verdict.message} Nothing was stored. {verdict.remedy}", gave_up=True)
        return verdict

    def _confirm(self, token: str, verdict: Verdict) -> None:
        """Show whose token it is, and ask whether that is right."""
        self._terminal.say(f"\n{self._person.server} knows the token {fingerprint(token)}{_of(verdict)}.")
        doubt = self._tokens.doubt(token, verdict) if self._tokens is not None else ""
        if doubt:
            self._terminal.say(doubt)
        if verdict.ok and not doubt:
            question, default = f"Store it for {self._person.user}?", True
        else:
            if not verdict.ok:
                self._terminal.say(f"{verdict.message} {verdict.remedy}")
            question, default = f"Store it for {self._person.user} all the same?", False
        if not self._agrees(question, default):
            raise CaveError("Stopped. Nothing was stored.", gave_up=True)

    def _offer(self, address: str) -> None:
        """Open a page, where there is a desktop and the person agrees."""
        if self._show is None or not self._agrees("Open that page in a browser here?", default=False):
            return
        if not self._show(address):
            self._terminal.say("It did not open. Copy the address.")

    def _agrees(self, question: str, default: bool) -> bool:
        for _again in range(TRIES):
            answer = self._terminal.ask(f"{question} [{'Y/n' if default else 'y/N'}]").strip().lower()
            if answer in ("", "y", "yes", "n", "no"):
                return answer.startswith("y") if answer else default
            self._terminal.say("Please answer y or n.")
        raise CaveError("No answer. Nothing was stored.", gave_up=True)


def _of(verdict: Verdict) -> str:
    return f", which is that of {verdict.person.name} ({verdict.person.email})" if verdict.person else ""
