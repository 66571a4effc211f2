# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``cave-doctor --fix``, killed at every write: each file is the old or the new one, and a second run ends the work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from doctor_desk import DATASTACK
from homes import OLD_TOKEN, fill, secrets_of
from torture.tracing import Point, killed_at, points

from ansible_collections.connectomics.cave.plugins.module_utils._doctor import repair
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.examine import Question, examine
from cave_server import CaveServer

pytestmark = pytest.mark.slow

KEPT_ENTRY = "machine other.example.org login c password d\n"
WRITES = "?rename,?renameat,?renameat2,?unlink,?unlinkat,?write,?fsync,?chmod,?fchmod,?fchmodat,?fchmodat2,?ftruncate"


def home_with_troubles(folder: Path, cave: CaveServer, token: str) -> Path:
    """Make a home with a link in the place of a file, a stale token, a loose mode, and an entry in a netrc file."""
    folder.mkdir(mode=0o700)
    own = f"{urlsplit(cave.url).netloc}-cave-secret.json"
    secrets = fill(folder, {own: {"token": token}, "cave-secret.json": {"token": OLD_TOKEN, "banc": "kept"}})
    (secrets / own).rename(folder / "mine.json")
    (secrets / own).symlink_to(folder / "mine.json")
    (secrets / "cave-secret.json").chmod(0o644)
    (folder / ".netrc").write_text(
        "machine 127.0.0.1 login a password b\nmachine other.example.org login c password d\n"
    )
    (folder / ".netrc").chmod(0o600)
    return folder


def fix(question: Question) -> int:
    """Say yes to all that the doctor offers, as often as it offers something."""
    for _again in range(3):
        done = repair.fix(examine(question, offline=False), question, lambda _what: True, lambda _line: None)
        if not done:
            break
    return len(examine(question, offline=True).files["problems"])


def test_a_fix_that_is_killed_leaves_old_or_new_and_a_second_one_ends_the_work(
    tmp_path: Path, cave: CaveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = cave.add_person("alice", permissions=[DATASTACK]).token
    assert token is not None
    question = Question(cave.url, [DATASTACK], str(tmp_path / "caveclient"))

    def begin(name: str) -> Path:
        home = home_with_troubles(tmp_path / name, cave, token)
        monkeypatch.setenv("HOME", str(home))
        return home

    begin("whole")
    found = [point for point in points(lambda: fix(question), WRITES) if point != Point("write", 1)]
    assert len(found) > 10
    for point in found:
        home = begin(f"{point.call}-{point.number}")
        before = {path: path.lstat().st_mode & 0o777 for path in home.rglob("*") if not path.is_symlink()}
        killed_at(point, lambda: fix(question))

        for path in secrets_of(home).glob("*-secret.json"):
            content = json.loads(path.read_text())
            assert content["token"] in (token, OLD_TOKEN), (point, path)
            assert path.is_symlink() or path.lstat().st_mode & 0o777 & ~before.get(path, 0o600) == 0, (point, path)
        kept = [json.loads(path.read_text()).get("banc") for path in secrets_of(home).glob("cave-secret.json*")]
        assert "kept" in kept, point
        assert KEPT_ENTRY in (home / ".netrc").read_text(), point

        assert fix(question) == 0, point
        assert os.environ["HOME"] == str(home)
