# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the readers of a user look, as far as it can be known without running anything of the user's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import locations as _locations
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import Access
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home, cloud_volume_dir


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_locations, "_SYSTEM_FILES", ())
    monkeypatch.delenv("CLOUD_VOLUME_DIR", raising=False)
    monkeypatch.delenv("CLOUD_FILES_DIR", raising=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("  export CLOUD_VOLUME_DIR='/data/my cv'  # mine", "/data/my cv"),
        ('CLOUD_VOLUME_DIR="/data/cv"; export CLOUD_VOLUME_DIR', "/data/cv"),
        ("export CLOUD_VOLUME_DIR=/data/cv OTHER=1", "/data/cv"),
        ("export CLOUD_VOLUME_DIR=$HOME/cv", "{home}/cv"),
        ('export CLOUD_VOLUME_DIR="${{HOME}}/cv"', "{home}/cv"),
        ("export CLOUD_VOLUME_DIR=~/cv", "{home}/cv"),
        ("export CLOUD_VOLUME_DIR=/a\nexport CLOUD_VOLUME_DIR=/b", "/b"),
        ("# export CLOUD_VOLUME_DIR=/data/cv", ""),
        ("echo CLOUD_VOLUME_DIR=/data/cv", ""),
        ("CLOUD_VOLUME_DIR = /data/cv", ""),
        ("export CLOUD_VOLUME_DIR=", ""),
        ("export CLOUD_VOLUME_DIR=relative/cv", ""),
        ("export CLOUD_VOLUME_DIR=/data/$USER", ""),
        ("export CLOUD_VOLUME_DIR=$(touch {home}/ran)/x", ""),
        ('export CLOUD_VOLUME_DIR="`touch {home}/ran`"', ""),
        ("export CLOUD_VOLUME_DIR=/data/\x1b[31m", ""),
        ("export CLOUD_VOLUME_DIR=/data/\x00", ""),
    ],
)
def test_literal_assignments_in_startup_files_are_taken_and_nothing_is_run(
    line: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / ".bashrc").write_text(line.format(home=tmp_path) + "\n")
    assert cloud_volume_dir(str(tmp_path), {}) == expected.format(home=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_startup_files_win_over_the_environment_and_that_over_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "environment"
    system.write_text("CLOUD_VOLUME_DIR=/system\n")
    monkeypatch.setattr(_locations, "_SYSTEM_FILES", (str(system),))
    home = str(tmp_path)
    assert cloud_volume_dir(home, {}) == "/system"
    assert cloud_volume_dir(home, {"CLOUD_VOLUME_DIR": "relative"}) == "/system"
    assert cloud_volume_dir(home, {"CLOUD_VOLUME_DIR": "/environment"}) == "/environment"
    (tmp_path / ".profile").write_text("export CLOUD_VOLUME_DIR=/profile\n")
    assert cloud_volume_dir(home, {"CLOUD_VOLUME_DIR": "/environment"}) == "/profile"


def test_a_startup_file_of_any_kind_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".bashrc")
    (tmp_path / ".profile").mkdir()
    (tmp_path / ".zshrc").symlink_to("/dev/zero")
    (tmp_path / ".zshenv").write_bytes(b"\xff\xfe" * 1000)
    (tmp_path / ".zprofile").symlink_to("nowhere")
    (tmp_path / ".bash_profile").write_text("CLOUD_VOLUME_DIR=/a" + " " * 200_000 + "'\n" + " " * 200_000)
    begin = time.process_time()
    assert cloud_volume_dir(str(tmp_path), {}) == "/a"
    assert time.process_time() - begin < 1


def test_places_come_from_the_options_first(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("export CLOUD_VOLUME_DIR=/data/cv\n")
    me = _users.current_user()
    account = type(me)((*me[:5], str(tmp_path), *me[6:]))
    assert Home.of(account, None, None).places().cloud_volume[0] == "/data/cv/secrets"
    assert Home.of(account, None, "").places().cloud_volume[0] == f"{tmp_path}/.cloudvolume/secrets"
    assert Home.of(account, None, "~/cv/").places().cloud_volume[0] == f"{tmp_path}/cv/secrets"
    assert Home.of(account, "~/mine", "").places().caveclient == f"{tmp_path}/mine"


@pytest.mark.parametrize("path", ["relative", "~bob/x", "./x", "/a\nb", "/a\0b", "/a\x1b[31m"])
@pytest.mark.parametrize("option", ["secrets_dir", "cloud_volume_dir"])
def test_a_path_that_is_not_absolute_or_not_printable_is_refused(option: str, path: str) -> None:
    options = {"secrets_dir": None, "cloud_volume_dir": None, option: path}
    with pytest.raises(CaveError, match=f"^{option}: .*not an absolute path") as caught:
        Home.of(_users.current_user(), **options)
    assert "\n" not in caught.value.message


def test_one_directory_under_two_names_is_one_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / ".cloudvolume").symlink_to("real")
    where = Home("me", os.geteuid(), str(tmp_path), cloud_volume_dir=f"{tmp_path}/real").places()
    assert where.cloud_volume[0] == where.cloud_files[0] == where.caveclient == f"{tmp_path}/.cloudvolume/secrets"


@pytest.mark.parametrize(
    ("mode", "access"), [(0o600, Access(0o700, None)), (0o640, Access(0o750, 5)), (0o660, Access(0o750, 5))]
)
def test_a_directory_is_entered_by_whoever_may_read_the_files(mode: int, access: Access) -> None:
    assert Home("me", 0, "/home/me", mode=mode, group=5).directory_access == access
