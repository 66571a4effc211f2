# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of one user when more than one thing is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._backends.findings import with_notes
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import failure_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    no_token_verdict,
    permission_verdict,
    tos_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading

SERVER = "https://global.daf-apis.com"
STACK = "minnie65_public"
SAVE = "ansible-playbook connectomics.cave.provision --tags token"
OK = Verdict("ok", f"{SERVER} accepts the token.")
NO_ANSWER = failure_verdict(HttpError("timeout", SERVER, "no answer in time"), SERVER)


def noted(verdict: Verdict, *, differing: bool = True, elsewhere: tuple[str, ...] = (STACK,)) -> Verdict:
    user: Any = SimpleNamespace(server_of=lambda _name: "https://other.example", server_map={})
    path = "/home/alice/.cloudvolume/secrets/cave-secret.json"
    sent = [Reading("caveclient", "global.daf-apis.com", path, "1" * 32)]
    sent += [Reading("cloud-volume", "minnie.microns-daf.com", path, "2" * 32)] if differing else []
    return with_notes(verdict, user, sent, elsewhere, SERVER)


def test_what_an_administrator_types_is_at_the_end_and_the_module_is_named() -> None:
    assert noted(OK).remedy == (
        f"Save the token again, so that all of them send it and caveclient asks {SERVER} for {STACK} (the module "
        f"saved_token with datastacks: [{STACK}], or the playbook): {SAVE}"
    )
    assert noted(OK, elsewhere=()).remedy == (
        f"Save the token again, so that all of them send it (the module saved_token, or the playbook): {SAVE}"
    )


def test_where_nothing_else_is_wrong_nothing_is_added() -> None:
    assert noted(OK, differing=False, elsewhere=()) == OK


def test_the_verdicts_own_remedy_comes_first() -> None:
    verdict = permission_verdict(SERVER, STACK, STACK)
    remedy = noted(verdict).remedy
    assert remedy.startswith(f"{verdict.remedy} Save the token again")
    assert remedy.endswith(SAVE)


@pytest.mark.parametrize(
    "verdict",
    [no_token_verdict(SERVER, "alice", "there is none"), NO_ANSWER, tos_verdict(SERVER, STACK, 2, "Terms")],
    ids=lambda verdict: verdict.verdict,
)
def test_nothing_stands_behind_a_command_or_an_address(verdict: Verdict) -> None:
    noted_too = noted(verdict)
    assert noted_too.remedy == verdict.remedy
    assert "caveclient asks https://other.example" in noted_too.message
