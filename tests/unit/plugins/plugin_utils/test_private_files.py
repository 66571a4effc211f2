# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on the controller that only their owner can read."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._private_files import (
    make_private_folder,
    replace_link,
    write_private,
)

LEFTOVER = ".report.json.0123456789abcdef.tmp"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folders_and_those_above_them_are_their_owners_alone_under_any_umask(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "of" / "this" / "week")
    made = [tmp_path / "of", tmp_path / "of" / "this", tmp_path / "of" / "this" / "week"]
    assert [mode_of(path) for path in made] == [0o700] * 3


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private_folder(tmp_path / "shared")
    assert mode_of(tmp_path / "shared") == 0o755


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "reports").touch()
    with pytest.raises(CaveError, match=r"The folder .*/reports/today cannot be made: Not a directory\. Name another"):
        make_private_folder(tmp_path / "reports" / "today")


def test_a_file_is_replaced_whole_and_0600_under_any_umask(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old, and open to all")
    write_private(path, b"new" * 1_000_000)
    assert path.read_bytes() == b"new" * 1_000_000
    assert mode_of(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_what_a_killed_run_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    (tmp_path / LEFTOVER).write_bytes(b"half of it")
    write_private(tmp_path / "report.json", b"{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_what_another_run_is_writing_is_no_leftover(tmp_path: Path) -> None:
    with (tmp_path / LEFTOVER).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write_private(tmp_path / "report.json", b"{}")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [LEFTOVER, "report.json"]


@pytest.mark.parametrize("name", [".report.json.tmp", ".other.json.0123456789abcdef.tmp", "report.json.bak"])
def test_files_of_others_are_no_leftovers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    write_private(tmp_path / "report.json", b"{}")
    assert (tmp_path / name).exists()


def test_a_planted_leftover_leads_nowhere_and_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / LEFTOVER).symlink_to("precious")
    os.mkfifo(tmp_path / LEFTOVER.replace("0123", "4567"))
    write_private(tmp_path / "report.json", b"{}")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "report.json").read_bytes() == b"{}"


def test_a_temporary_file_that_another_run_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    removed: list[Path] = []

    def removing(descriptor: int, operation: int) -> None:
        for path in [] if removed else list(tmp_path.glob(".report.json.*.tmp")):
            removed.append(path)
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    write_private(tmp_path / "report.json", b"{}")
    assert len(removed) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_on_a_file_system_without_locks_files_are_written_and_leftovers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / LEFTOVER).touch()
    write_private(tmp_path / "report.json", b"{}")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [LEFTOVER, "report.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")

    def full(_descriptor: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CaveError, match=r"cannot be written: No space left on device\. Name another place"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_link_that_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / ".latest.0123456789abcdef.tmp"
    left.symlink_to("2026-01-01")
    (tmp_path / ".latest.tmp").symlink_to("of somebody else")
    replace_link(tmp_path / "latest", "2026-01-02")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".latest.tmp", "latest"]
    assert (tmp_path / "latest").readlink() == Path("2026-01-02")


def test_a_link_that_another_run_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace
    taken: list[str] = []

    def take_first(path: Path, target: Path) -> Path:
        if not taken:
            taken.append(path.name)
            path.unlink()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", take_first)
    replace_link(tmp_path / "latest", "2026-01-02")
    assert taken
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
