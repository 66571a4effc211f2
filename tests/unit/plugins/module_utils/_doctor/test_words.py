# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose trouble it is, and what the person at the keyboard is told to do."""

from __future__ import annotations

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import VERDICTS
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import words

PAGE = "https://global.daf-apis.com/sticky_auth/settings/tokens"
FORM = "https://global.daf-apis.com/sticky_auth/api/v1/tos/2/accept"


def verdict(code: str) -> dict[str, str]:
    """Return a verdict as the modules do."""
    return {"verdict": code, "message": "Found.", "remedy": "Do this.", "url": FORM, "server": "https://x.example.org"}


@pytest.mark.parametrize("code", VERDICTS)
def test_every_verdict_is_somebodys_and_has_something_to_do(code: str) -> None:
    advice = words.on_verdict(verdict(code), PAGE)

    if code == "ok":
        assert advice is None
    else:
        assert advice is not None
        assert code in words._ADVICE
        assert advice.whose in words.EXIT_STATUS
        assert advice.text


def test_who_has_no_working_token_is_led_to_the_page_and_the_command() -> None:
    advice = words.on_verdict(verdict("invalid_token"), PAGE)

    assert advice is not None
    assert PAGE in advice.text
    assert "cave-doctor token" in advice.text


def test_who_owes_terms_gets_the_form() -> None:
    advice = words.on_verdict(verdict("missing_tos"), PAGE)

    assert advice is not None
    assert (advice.whose, FORM in advice.text) == (words.YOURS, True)


@pytest.mark.parametrize(
    ("remedy", "whose", "is_fixable"),
    [
        ("chmod 600 /home/a/.cloudvolume/secrets/cave-secret.json", words.YOURS, True),
        ("sudo chown -h a /home/a/.cloudvolume", words.ADMINISTRATORS, False),
        ("ansible-playbook connectomics.cave.provision --tags token", words.YOURS, False),
        ("unset CLOUD_VOLUME_DIR", words.YOURS, False),
    ],
)
def test_a_remedy_is_for_whoever_can_run_it(remedy: str, whose: str, is_fixable: bool) -> None:
    problem = {"code": "stale", "path": "/x", "message": "Found.", "remedy": remedy}

    assert words.on_problem(problem, works=True).whose == whose
    assert words.is_fixable(problem) is is_fixable
