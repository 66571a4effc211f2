# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conversation about a token, with a person made of answers and a server made of verdicts."""

from __future__ import annotations

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Person as Owner
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._enroll_dialogue import Enrolment, Outcome, Person

SERVER = "https://cave.example.org"
TOKEN, DEAD = "fedcba9876543210fedcba9876543210", "0123456789abcdef0123456789abcdef"
OWNER = Owner(3, "Alice Example", "alice@example.org")
OK = Verdict("ok", "Access works.", server=SERVER, person=OWNER)
REFUSED = Verdict("invalid_token", "Not accepted.", "Take the current one.", SERVER)
FORM = f"{SERVER}/sticky_auth/api/v1/tos/2/accept"
OWES = Verdict("missing_tos", "Terms are owed.", "Accept them.", SERVER, url=FORM, person=OWNER)
BUSY = Verdict("server_error", "Trouble.", "Later.", SERVER)
ELSEWHERE = Verdict("not_a_cave_server", "A web page.", "Check the address.", SERVER)


class Talk:
    """A person who answers from a list, the server's verdicts, and all that was said."""

    def __init__(self, answers: list[str], verdicts: list[Verdict], desktop: bool = False) -> None:
        self.answers = answers
        self.verdicts = verdicts
        self.said = ""
        self.proven: list[str] = []
        self.opened: list[str] = []
        self.desktop = desktop

    def say(self, text: str) -> None:
        self.said += text + "\n"

    def ask(self, question: str) -> str:
        self.said += question + "\n"
        if not self.answers:
            raise CaveError("Stopped. Nothing was stored.", gave_up=True)
        return self.answers.pop(0)

    ask_hidden = ask

    def prove(self, token: str) -> Verdict:
        self.proven.append(token)
        return self.verdicts.pop(0)

    def show(self, address: str) -> bool:
        self.opened.append(address)
        return False

    def run(self, stored: str | None = None, is_new: bool | None = False) -> Outcome:
        person = Person("alice", SERVER, ["minnie65_public"], is_new)
        outcome = Enrolment(self, person, self.prove, self.show if self.desktop else None).run(stored)
        assert TOKEN not in self.said
        assert DEAD not in self.said
        return outcome


def test_what_is_pasted_is_proven_shown_and_agreed_to() -> None:
    talk = Talk([f" {TOKEN}\n", ""], [OK])
    assert talk.run() == Outcome(TOKEN, OK)
    assert talk.proven == [TOKEN]
    assert f"{fingerprint(TOKEN)}, which is that of Alice Example (alice@example.org)" in talk.said


@pytest.mark.parametrize("answer", ["n", "no", "N "])
def test_without_consent_nothing_comes_of_it(answer: str) -> None:
    with pytest.raises(CaveError, match="Nothing was stored"):
        Talk([TOKEN, answer], [OK]).run()


def test_a_stored_token_that_works_ends_it_before_anything_is_asked() -> None:
    talk = Talk([], [OK])
    assert talk.run(stored=TOKEN, is_new=None) == Outcome(None, OK)
    assert "new token" not in talk.said


def test_a_stored_token_whose_owner_owes_terms_stays_too() -> None:
    talk = Talk([""], [OWES, OK])
    assert talk.run(stored=TOKEN) == Outcome(None, OK)
    assert FORM in talk.said


@pytest.mark.parametrize("stored", [DEAD, "YOUR_TOKEN_HERE", "two words"])
def test_a_stored_token_that_does_not_work_is_asked_for(stored: str) -> None:
    talk = Talk([TOKEN, "y"], [REFUSED, OK] if stored == DEAD else [OK])
    assert talk.run(stored=stored).token == TOKEN
    assert fingerprint(stored) in talk.said


def test_an_unclear_answer_is_asked_for_again_and_not_for_ever() -> None:
    talk = Talk([TOKEN, "maybe", "y"], [OK])
    assert talk.run().token == TOKEN
    with pytest.raises(CaveError, match="No answer"):
        Talk([TOKEN, *["maybe"] * 5], [OK]).run()


def test_a_server_in_trouble_is_asked_again_as_long_as_the_person_likes() -> None:
    assert Talk([TOKEN, "", "", ""], [BUSY, BUSY, OK]).run().token == TOKEN
    with pytest.raises(CaveError, match=r"Trouble. Nothing was stored. Later."):
        Talk([TOKEN, "n"], [BUSY]).run()


def test_another_kind_of_server_ends_it() -> None:
    with pytest.raises(CaveError, match=r"A web page\. Nothing was stored"):
        Talk([TOKEN], [ELSEWHERE]).run()


def test_terms_that_are_never_accepted_end_it() -> None:
    with pytest.raises(CaveError, match=r"Terms are owed\. Nothing was stored"):
        Talk([TOKEN, *[""] * 9], [OWES] * 6).run()


def test_a_page_that_does_not_open_is_said() -> None:
    talk = Talk(["y", TOKEN, ""], [OK], desktop=True)
    assert talk.run().token == TOKEN
    assert talk.opened == [f"{SERVER}/sticky_auth/settings/tokens"]
    assert "It did not open" in talk.said


def test_only_somebody_new_is_told_to_make_a_token_without_the_warning() -> None:
    known, new = Talk([TOKEN, ""], [OK]), Talk([TOKEN, ""], [OK])
    known.run(is_new=False)
    new.run(is_new=True)
    assert "locks out every computer" in known.said
    assert "Log in once" not in known.said
    assert "Log in once" in new.said


class Suspicious:
    """A server and a vault that say something of a token."""

    def __init__(self, doubt: str = "", expiring: str = "", at_risk: str = "") -> None:
        self.doubted = doubt
        self.ends = expiring
        self.endangered = at_risk
        self.made: list[str] = []

    def expiring(self, token: str) -> str:
        return self.ends if token == DEAD else ""

    def at_risk(self, token: str) -> str:
        assert token == DEAD
        return self.endangered

    def make_key(self, token: str) -> str:
        self.made.append(token)
        return TOKEN

    def require_own_server(self, token: str) -> None:
        """All tokens are this server's."""

    def doubt(self, token: str, verdict: Verdict) -> str:
        assert (token, verdict) == (TOKEN, OK)
        return self.doubted


def talked(talk: Talk, tokens: Suspicious, stored: str | None = None) -> Outcome:
    person = Person("alice", SERVER, ["minnie65_public"], False)
    return Enrolment(talk, person, talk.prove, None, tokens).run(stored)


@pytest.mark.parametrize("stored", [None, DEAD])
def test_a_token_that_ends_by_itself_is_swapped_for_one_that_stays(stored: str | None) -> None:
    tokens = Suspicious(expiring="It ends within a week.")
    talk = Talk([DEAD, "", ""], [*([OK] if stored else []), OK, OK])
    assert talked(talk, tokens, stored).token == TOKEN
    assert tokens.made == [DEAD]
    assert "It ends within a week." in talk.said


def test_without_consent_a_token_that_ends_by_itself_is_asked_for_again() -> None:
    tokens = Suspicious(expiring="It ends within a week.")
    talk = Talk([DEAD, "n", TOKEN, ""], [OK, OK])
    assert talked(talk, tokens).token == TOKEN
    assert tokens.made == []


def test_no_token_is_made_that_might_kill_the_one_that_computers_have() -> None:
    tokens = Suspicious(expiring="It ends within a week.", at_risk="It may kill another one.")
    talk = Talk([DEAD, TOKEN, ""], [OK, OK])
    assert talked(talk, tokens).token == TOKEN
    assert tokens.made == []
    assert "It may kill another one." in talk.said


@pytest.mark.parametrize(("answer", "stored"), [("", False), ("y", True)])
def test_a_token_that_seems_to_be_somebody_elses_is_stored_only_on_demand(answer: str, stored: bool) -> None:
    talk = Talk([TOKEN, answer], [OK])
    if stored:
        assert talked(talk, Suspicious(doubt="Bob has it.")).token == TOKEN
    else:
        with pytest.raises(CaveError, match="Nothing was stored"):
            talked(talk, Suspicious(doubt="Bob has it."))
    assert "Bob has it." in talk.said
    assert "[y/N]" in talk.said
