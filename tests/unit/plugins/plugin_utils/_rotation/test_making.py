# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two runs that make a token at the same moment: what each does at the moments that the other one leaves to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultSecret

from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import Made
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import ServerToken
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import VaultFiles
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.making import with_new_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Request, Rotation
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import Settings, State

OLD, OWN, OTHERS = "a" * 32, "b" * 32, "c" * 32


class Server:
    """Tokens of one person, with a token of another run that is the older one, as ``TokenApi.ensure`` treats it."""

    server = "http://127.0.0.1"

    def __init__(self, file: Path, before: str, between: str, winner: str) -> None:
        self.file, self.before, self.between, self.winner = file, before, between, winner

    def ensure(self, text: str, *, same: Callable[[str], bool], keep: Callable[[str], None]) -> Made:
        """Keep the own token, and then the other run's; that one has written to the vault before each."""
        assert same(text)
        self._write(self.before)
        keep(OWN)
        if self.winner != OWN:
            self._write(self.between)
            keep(self.winner)
        return Made(ServerToken(1, text, None, None, None, self.winner), self.winner == OWN, True)

    def _write(self, token: str) -> None:
        if token:
            self.file.write_text(f"v: {token}\n")


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *moments: str) -> tuple[list[str], Rotation]:
    """Make a token, with what another run has done ``before`` and ``between``; return what the vault has then."""
    file = folder / "group_vars" / "all.yml"
    file.parent.mkdir()
    file.write_text(f"v: {OLD}\n")
    old = fingerprint(OLD)
    state = State({}, Request((), strategy="overlap", name="spring"), Settings(), values={old: OLD})
    server = Server(file, *moments)
    monkeypatch.setattr(State, "api", lambda _state, _token: server)
    vault = VaultFiles([str(folder)], [], [], [("default", VaultSecret(b"correct horse"))])
    assert vault.places(OLD)
    rotation = with_new_token(state, Rotation((old,), (), "make", source=old), vault)
    vault.still_holds([])  # reads it anew
    return [token for token in (OLD, OWN, OTHERS) if vault.places(token)], rotation


@pytest.mark.parametrize(
    ("before", "between"),
    [("", ""), ("", OTHERS), (OTHERS, ""), (OTHERS, OTHERS)],
    ids=["this one stored its own", "the other wrote over it", "the other was first", "the other wrote twice"],
)
def test_two_runs_agree_on_the_older_token_whoever_has_stored_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, between: str
) -> None:
    stored, rotation = make(tmp_path, monkeypatch, before, between, OTHERS)
    assert (stored, rotation.new) == ([OTHERS], fingerprint(OTHERS))


def test_a_token_whose_place_is_taken_is_no_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaveError, match="could not be stored: somebody has put another one into the place"):
        make(tmp_path, monkeypatch, "d" * 32, "", OWN)
    assert (tmp_path / "group_vars" / "all.yml").read_text() == f"v: {'d' * 32}\n"
