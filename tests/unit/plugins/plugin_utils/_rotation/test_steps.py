# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a rotated token comes to a host: sealed on the way, and to nobody else's account."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultSecret

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.decide import Subject
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import seal, unseal
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.steps import Holder, token_for
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import set_variable

SERVER = "https://cave.example.org"
OLD, NEW = "a" * 32, "b" * 32
HOLDER = Holder("ws1", "alice", SERVER, OLD, ())
SUBJECT = Subject(
    SERVER,
    fingerprint(OLD),
    ["alice"],
    ["ws1"],
    action="made",
    new=fingerprint(NEW),
    sealed=seal(NEW),
    old=fingerprint(OLD),
)


def test_a_sealed_token_is_read_by_this_run_alone() -> None:
    sealed = seal(NEW)
    assert NEW not in sealed
    assert unseal(sealed) == NEW
    program = (
        "import sys\nfrom ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import unseal\n"
        "sys.exit(unseal(sys.argv[1]) is not None)"
    )
    assert subprocess.run([sys.executable, "-c", program, sealed], check=False).returncode == 0


@pytest.mark.parametrize("text", ["", "x", "ünsealed", NEW])
def test_what_was_not_sealed_opens_nothing(text: str) -> None:
    assert unseal(text) is None


def test_a_host_gets_the_new_token_in_the_place_of_the_old_one() -> None:
    assert token_for(SUBJECT, HOLDER, []) == NEW
    assert token_for(SUBJECT, HOLDER._replace(token=NEW), []) == NEW


def test_a_token_that_cannot_be_unsealed_comes_out_of_the_vault(tmp_path: Path) -> None:
    secrets = [("default", VaultSecret(b"x"))]
    path = str(tmp_path / "vault.yml")
    set_variable(path, ("alice",), NEW, secrets)
    subject = replace(SUBJECT, sealed="of another run", places=[{"path": path, "name": "alice"}])
    assert token_for(subject, HOLDER, secrets) == NEW
    with pytest.raises(CaveError, match="this run cannot read it any more"):
        token_for(replace(subject, places=[]), HOLDER, secrets)


def test_nobody_gets_a_token_that_was_refused_or_is_somebody_elses() -> None:
    refused, barred = replace(SUBJECT, barred=[]), replace(SUBJECT, barred=[])
    refused.refuse("The server refuses it.")
    barred.withhold("ws1", "alice", "It is Bob's.")
    for subject, says in ((refused, "The server refuses it"), (barred, "It is Bob's"), (None, "changed while the run")):
        with pytest.raises(CaveError, match=says):
            token_for(subject, HOLDER, [])
    assert token_for(barred, HOLDER._replace(host="ws2"), []) == NEW


def test_in_check_mode_a_token_that_does_not_exist_yet_is_nobodys() -> None:
    assert token_for(replace(SUBJECT, new=None, sealed=""), HOLDER, []) is None
