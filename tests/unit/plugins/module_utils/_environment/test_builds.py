# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment.builds import Build, Builds, open_to_all
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import (
    RECORD,
    Request,
    make_record,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}.0"


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(str(tmp_path / "caveclient"))


def finish(builds: Builds, place: Path, record: dict[str, Any]) -> Build:
    """Do what follows an installation."""
    builds.prepare(place, record["python"])
    return builds.finish(place, record)


def make(builds: Builds, version: str = "8.2.1") -> Build:
    """Make a build without anything in it but a Python, and what says that caveclient is installed."""
    place, work = builds.new_place()
    work.rmdir()
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    packages = place / "lib" / f"python{PYTHON.rpartition('.')[0]}" / "site-packages"
    (packages / f"caveclient-{version}.dist-info").mkdir(parents=True)
    (packages / f"caveclient-{version}.dist-info" / "RECORD").touch()
    base = os.path.realpath(sys.executable)
    return finish(builds, place, make_record(Request(version), PYTHON, base, "uv 1", {"caveclient": version}))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- Where builds may be ---


def test_nothing_there_is_a_good_place(builds: Builds) -> None:
    builds.check_place()
    assert builds.live() is None
    assert builds.complete() == []
    assert builds.leftovers() == []
    assert not builds.is_ours()
    assert not builds.path.exists()


def test_a_file_in_the_way_is_refused(builds: Builds) -> None:
    builds.path.touch()
    with pytest.raises(CaveError, match="is a file"):
        builds.check_place()


def test_a_virtual_environment_in_the_way_is_refused_and_the_option_for_it_named(builds: Builds) -> None:
    builds.path.mkdir()
    (builds.path / "pyvenv.cfg").touch()
    with pytest.raises(CaveError, match="set interpreter:"):
        builds.check_place()


def test_a_directory_where_the_link_belongs_is_refused(builds: Builds) -> None:
    builds.current.mkdir(parents=True)
    with pytest.raises(CaveError, match="was not made by this module"):
        builds.check_place()


# --- Which one is live ---


def test_a_build_is_live_once_it_was_switched_to(builds: Builds) -> None:
    build = make(builds)
    assert builds.live() is None

    builds.switch(build)

    live = builds.live()
    assert live is not None
    assert live.path == build.path
    assert str(builds.current.readlink()) == f"builds/{build.path.name}"


def test_builds_are_in_the_order_in_which_they_were_live_and_those_that_never_were_come_last(builds: Builds) -> None:
    first, second, third, never = (make(builds) for _number in range(4))
    for build, back in ((first, False), (second, False), (first, True), (third, False)):
        builds.switch(build, back=back)

    assert [build.path for build in builds.complete()] == [third.path, first.path, second.path, never.path]
    before = builds.before_live()
    assert before is not None
    assert before.path == first.path


def test_a_build_knows_whether_it_was_rolled_back_to(builds: Builds) -> None:
    first, second = make(builds), make(builds)
    for build, back in ((first, False), (second, False), (first, True)):
        builds.switch(build, back=back)
    assert first.is_way_back

    builds.switch(second)
    builds.switch(first)
    assert not first.is_way_back


def test_a_build_whose_python_is_gone_is_not_to_be_used(builds: Builds) -> None:
    build = make(builds)
    assert build.trouble() == ""

    build.python.unlink()
    assert "is gone" in build.trouble()

    build.python.symlink_to("/bin/sh")
    assert "is gone" in build.trouble()


def test_a_link_that_leads_elsewhere_is_no_live_build(builds: Builds, tmp_path: Path) -> None:
    make(builds)
    builds.current.symlink_to(tmp_path)

    assert builds.live() is None


# --- What interrupted runs leave ---


def test_unfinished_builds_work_folders_and_links_are_leftovers_and_nothing_else(builds: Builds) -> None:
    build = make(builds)
    builds.switch(build)
    place, work = builds.new_place()
    place.mkdir()
    link = builds.path / ".current-0a1b2c3d"
    link.symlink_to("nowhere")
    (builds.folder / "mine").mkdir()
    (builds.path / "notes.txt").touch()

    assert set(builds.leftovers()) == {place, work, link}


def test_what_is_live_is_never_leftovers_even_without_its_record(builds: Builds) -> None:
    build = make(builds)
    builds.switch(build)
    (build.path / RECORD).unlink()

    assert builds.live() is None
    assert builds.leftovers() == []


def test_removing_a_build_makes_it_unfinished_first(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    build = make(builds)
    monkeypatch.setattr("shutil.rmtree", lambda _path: None)

    builds.remove(build.path)

    assert builds.complete() == []
    assert builds.leftovers() == [build.path]


def test_removing_all_leaves_what_is_not_ours(builds: Builds) -> None:
    builds.switch(make(builds))
    make(builds)
    builds.new_place()
    (builds.folder / "mine").mkdir()
    (builds.path / "notes.txt").touch()

    with builds.locked(1):
        builds.remove_all()

    assert names(builds.path) == {"builds", "notes.txt"}
    assert names(builds.folder) == {"mine"}
    assert not builds.is_ours()


def test_removing_all_removes_the_path_when_nothing_else_is_in_it(builds: Builds) -> None:
    builds.switch(make(builds))

    with builds.locked(1):
        builds.remove_all()

    assert not builds.path.exists()


# --- The lock ---


def test_a_second_run_waits_and_says_for_what(builds: Builds) -> None:
    with builds.locked(1):
        assert builds.is_busy()
        with pytest.raises(CaveError, match="Another run has been working"), builds.locked(0.3):
            pass
    assert not builds.is_busy()


def test_a_run_that_waited_gets_its_turn(builds: Builds) -> None:
    entered = []

    def second() -> None:
        with builds.locked(10):
            entered.append(time.monotonic())

    with builds.locked(1):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        released = time.monotonic()
    thread.join(timeout=10)

    assert entered[0] >= released


def test_a_lock_that_was_removed_meanwhile_locks_nothing(builds: Builds) -> None:
    """After absent, the run that waited must lock the file that the next one will lock too."""
    busy = []

    def wait() -> None:
        with builds.locked(10):
            busy.append(builds.is_busy())

    with builds.locked(1):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        builds.remove_all()
    waiting.join(timeout=10)

    assert busy == [True]


def test_the_lock_stays_with_an_installer_that_outlives_its_run(builds: Builds) -> None:
    with builds.locked(1) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    try:
        assert builds.is_busy()
        with pytest.raises(CaveError), builds.locked(0.1):
            pass
    finally:
        child.communicate()  # there is nothing more to read: it ends
    assert not builds.is_busy()


def test_a_planted_link_is_not_taken_for_the_lock(builds: Builds, tmp_path: Path) -> None:
    builds.path.mkdir()
    (builds.path / ".lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"), builds.locked(1):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_looking_whether_it_is_busy_writes_nothing(builds: Builds) -> None:
    assert not builds.is_busy()
    assert not builds.path.exists()


# --- What a finished build is like ---


def test_everybody_may_read_and_nobody_else_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    folder.mkdir(mode=0o700)
    for name, mode in (("data", 0o600), ("program", 0o700), ("loose", 0o666)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    (folder / "link").symlink_to(outside)

    open_to_all(folder)

    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("data", "program", "loose")}
    assert modes == {"data": 0o644, "program": 0o755, "loose": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_a_program_that_runs_during_a_switch_stays_with_its_build(builds: Builds) -> None:
    for version in ("8.2.0", "8.2.1"):
        place, work = builds.new_place()
        work.rmdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        site_packages = place / "lib" / f"python{PYTHON.rpartition('.')[0]}" / "site-packages"
        (site_packages / "late.py").write_text(f"VERSION = {version!r}\n")
        base = os.path.realpath(place / "bin" / "python")
        build = finish(builds, place, make_record(Request(version), PYTHON, base, "uv 1", {}))
        if version == "8.2.0":
            builds.switch(build)
    code = (
        "import subprocess, sys; print('ready', flush=True); input(); import late; print(late.VERSION)\n"
        "code = 'import late; print(late.VERSION)'\n"
        "print(subprocess.check_output([sys.executable, '-c', code], text=True), end='')\n"
        "print(sys.prefix, sys.exec_prefix)"
    )
    python = str(builds.current / "bin" / "python")
    running = subprocess.Popen(
        [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout
    assert running.stdout.readline() == "ready\n"

    builds.switch(build)
    output, errors = running.communicate("\n", timeout=20)

    first = next(other for other in builds.complete() if other.path != build.path).path
    assert (output.split(), errors) == (["8.2.0", "8.2.0", str(first), str(first)], "")
    new = subprocess.run([python, "-c", "import late; print(late.VERSION)"], capture_output=True, text=True, check=True)
    assert new.stdout == "8.2.1\n"


def test_the_record_is_written_when_all_else_is_there(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    module = "ansible_collections.connectomics.cave.plugins.module_utils._environment.builds"
    monkeypatch.setattr(f"{module}.open_to_all", lambda place: seen.append((place / RECORD).exists()))
    monkeypatch.setattr(f"{module}._sync", lambda place: seen.append((place / RECORD).exists()))

    make(builds)

    assert seen == [False, False]


def test_where_one_file_system_cannot_be_synced_alone_all_are(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no syncfs."""
    synced: list[bool] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    make(builds)
    assert synced


def test_a_lock_that_another_account_may_have_opened_is_no_lock(builds: Builds) -> None:
    builds.path.mkdir()
    (builds.path / ".lock").touch(mode=0o644)
    with (builds.path / ".lock").open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert not builds.is_busy()
        with builds.locked(1):
            assert stat.S_IMODE((builds.path / ".lock").stat().st_mode) == 0o600
            assert builds.is_busy()
