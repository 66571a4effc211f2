# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._doctor import cli
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.examine import Examination
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.text import as_text

SERVER = "https://global.daf-apis.com"
LAB = {"version": "1.0"}


def examined(home: str, verdict: str, message: str) -> Examination:
    access = {"verdict": verdict, "message": message, "remedy": "", "server": SERVER}
    return Examination("ws1", "alice", home, SERVER, {"readers": [], "problems": []}, access, [])


@pytest.mark.parametrize(
    ("home", "message", "shown"),
    [
        ("/home/alice", "/home/alice/.netrc is odd.", "~/.netrc is odd."),
        ("/home/alice", "It is in /home/alice/x, too.", "It is in ~/x, too."),
        ("/home/alice", "/nfs/home/alice/x is not it.", "/nfs/home/alice/x is not it."),
        ("/home/alice", "/home/alice2/x is not it.", "/home/alice2/x is not it."),
        ("/", f"/.netrc has an entry for {SERVER}/x.", f"/.netrc has an entry for {SERVER}/x."),
        ("/home/a+b", "/home/a+b/x is odd.", "~/x is odd."),
    ],
)
def test_only_paths_below_the_home_are_written_with_a_tilde(home: str, message: str, shown: str) -> None:
    text = as_text(examined(home, "server_error", message), "1.0", colours=False, guide="")
    assert f"Access: {shown} [server_error]" in " ".join(text.split())


@pytest.mark.parametrize("way", ["--json", "--ask-admin"])
def test_what_is_kept_of_a_wait_is_the_answer_alone(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [examined("/home/alice", "unreachable", "Not yet."), examined("/home/alice", "ok", "It works.")]

    def examine(*_question: Any, **_options: Any) -> Examination:
        return found.pop(0)

    monkeypatch.setattr(cli, "examine", examine)
    monkeypatch.setattr(cli, "_PAUSE", 0)
    assert cli.main(["--wait", way], LAB) == 0
    said = capsys.readouterr()
    assert "not yet" in said.err
    assert "not yet" not in said.out
    if way == "--json":
        assert json.loads(said.out)["exit_status"] == 0
