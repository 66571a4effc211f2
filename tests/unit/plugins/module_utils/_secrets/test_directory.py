# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and writing a directory of secrets files: nothing is torn, followed, or readable by others."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from homes import picture

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import (
    Access,
    Directory,
    open_directory,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.lock import NO_LOCKS, try_lock

ME = os.geteuid()
TEXT = '{"token": "0123456789abcdef"}'
root = pytest.mark.root
not_root = pytest.mark.skipif(ME == 0, reason="root may do everything")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """A directory of secrets files, open."""
    before = os.umask(0)
    opened, _missing = open_directory(str(tmp_path / "secrets"), (ME,), Access())
    assert opened is not None
    yield opened
    opened.close()
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


KEPT, USUAL = "CAVE.example.org-cave-secret.json", "cave.example.org-cave-secret.json"


@pytest.fixture
def any_case(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """`any_case(folder)`: a file is listed under the name KEPT, and found under USUAL as well, as on disks of macOS."""
    listdir = os.listdir

    def listed(folder: Any = ".") -> list[str]:
        names = listdir(folder)
        return [name for name in names if name != USUAL or KEPT not in names]

    def both(folder: Path) -> None:
        (folder / KEPT).write_text(TEXT)
        (folder / USUAL).hardlink_to(folder / KEPT)

    monkeypatch.setattr(os, "listdir", listed)
    return both


# Opening ---------------------------------------------------------------------------------------------------------


def test_missing_directories_are_made_0700_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory, missing = open_directory(str(tmp_path / "a" / "b" / "c"), (ME,), Access())
    finally:
        os.umask(before)
    assert directory is not None
    directory.close()
    assert missing == [f"{tmp_path}/a", f"{tmp_path}/a/b", f"{tmp_path}/a/b/c"]
    assert [mode_of(Path(path)) for path in missing] == [0o700] * 3


def test_without_leave_to_make_them_missing_directories_are_only_named(tmp_path: Path) -> None:
    assert open_directory(str(tmp_path / "a" / "b"), (ME,)) == (None, [f"{tmp_path}/a", f"{tmp_path}/a/b"])
    assert list(tmp_path.iterdir()) == []


def test_directories_for_a_group_are_made_so(tmp_path: Path) -> None:
    directory, _missing = open_directory(str(tmp_path / "a" / "b"), (ME,), Access(0o750, os.getegid()))
    assert directory is not None
    assert directory.flaw(Access(0o750, os.getegid())) == ""
    directory.close()
    assert mode_of(tmp_path / "a") == 0o750


@pytest.mark.parametrize("make", [None, Access()], ids=["look", "make"])
@pytest.mark.parametrize("place", ["x", "x/secrets", "x/y/secrets"])
def test_what_is_in_the_way_of_a_directory_is_named(place: str, make: Access | None, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(CaveError, match=rf"^{tmp_path}/x is not a directory, where a directory was expected\. Move it"):
        open_directory(str(tmp_path / place), (ME,), make)
    assert (tmp_path / "x").read_text() == "a file"


def test_a_link_to_nothing_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("nowhere")
    with pytest.raises(CaveError, match="x is a symbolic link that leads to no directory"):
        open_directory(str(tmp_path / "x" / "secrets"), (ME,), Access())
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_ones_own_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "x").symlink_to("scratch")
    directory, missing = open_directory(str(tmp_path / "x"), (ME,))
    assert directory is not None
    directory.close()
    assert missing == []


@root
def test_a_link_to_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 4711, -1)
    (tmp_path / "x").symlink_to("theirs")
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(CaveError, match=r"through a symbolic link.*belongs to user id 4711, not to user id 0"):
        open_directory(str(tmp_path / "x"), (ME,), Access())
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@not_root
def test_a_directory_that_cannot_be_made_is_said_with_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o500)
    with pytest.raises(CaveError, match=rf"No permission to make {tmp_path}/x/y: {tmp_path}/x belongs.*mode 0500"):
        open_directory(str(tmp_path / "x" / "y"), (ME,), Access())


def test_a_directory_that_another_run_makes_first_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def late(path: str, mode: int) -> None:
        make(path, 0o700)
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", late)
    directory, _missing = open_directory(str(tmp_path / "a" / "b"), (ME,), Access())
    assert directory is not None
    directory.close()


# Reading ---------------------------------------------------------------------------------------------------------


def test_a_sound_file_is_read_with_its_mode_and_owner(directory: Directory) -> None:
    directory.write("x.json", TEXT, 0o600, None)
    assert directory.read("x.json") == _files.Entry(0o600, ME, os.getegid(), True, TEXT, None, "")


def test_nothing_is_nothing(directory: Directory) -> None:
    assert directory.read("x.json") is None


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


@pytest.mark.parametrize(
    ("make", "problem", "detail"),
    [
        (Path.mkdir, "directory", "is a directory"),
        (_fifo, "not_a_file", "is not a regular file"),
        (_socket, "not_a_file", "is not a regular file"),
        (_huge, "too_large", "is larger than 64 KiB"),
        (lambda path: path.symlink_to("/etc/passwd"), "symlink", "is a symbolic link (to '/etc/passwd')"),
        (lambda path: path.symlink_to("no\nwhere\x1b[31m"), "symlink", r"(to 'no\nwhere\x1b[31m')"),
        (lambda path: path.write_bytes(b""), "empty", "is empty"),
        (lambda path: path.write_bytes(b"\xef\xbb\xbf{}"), "bom", "byte order mark"),
    ],
    ids=["directory", "fifo", "socket", "1-GB", "link", "link-with-escapes", "empty", "bom"],
)
def test_what_is_no_secrets_file_is_told_at_once(
    make: Callable[[Path], Any], problem: str, detail: str, directory: Directory
) -> None:
    make(Path(directory.path) / "x.json")
    fds = sorted(Path("/proc/self/fd").iterdir())
    begin = time.monotonic()
    entry = directory.read("x.json")
    assert time.monotonic() - begin < 10  # what waits for a FIFO's writer waits for ever
    assert entry is not None
    assert (entry.problem, entry.text) == (problem, None)
    assert detail in entry.detail
    assert sorted(Path("/proc/self/fd").iterdir()) == fds, "nothing stays open"
    assert not directory.holds("x.json", [b"root"])


@pytest.mark.parametrize("make", [_fifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_that_is_swapped_before_it_is_opened_is_not_waited_for(
    make: Callable[[Path], Any], directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(directory.path) / "x.json"
    path.write_text(TEXT)
    look = os.stat

    def swapping(name: Any, **how: Any) -> os.stat_result:
        status = look(name, **how)
        if name == "x.json":
            path.unlink()
            make(path)
        return status

    monkeypatch.setattr(os, "stat", swapping)
    entry = directory.read("x.json")
    assert entry is not None
    assert entry.text is None
    assert entry.problem in ("directory", "not_a_file", "unreadable")


@pytest.mark.parametrize("code", [errno.ENXIO, errno.EOPNOTSUPP], ids=["Linux", "macOS"])
def test_a_socket_that_takes_a_files_place_is_no_secrets_file(
    code: int, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(directory.path) / "x.json").write_text(TEXT)

    def refusing(name: Any, *_how: Any, **_more: Any) -> int:
        raise OSError(code, os.strerror(code), name)

    monkeypatch.setattr(os, "open", refusing)
    entry = directory.read("x.json")
    assert entry is not None
    assert (entry.problem, entry.text) == ("unreadable", None)


def test_a_file_that_vanishes_while_it_is_read_is_nothing(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(directory.path) / "x.json"
    path.write_text(TEXT)
    look = os.stat

    def vanishing(name: Any, **how: Any) -> os.stat_result:
        status = look(name, **how)
        path.unlink(missing_ok=True)
        return status

    monkeypatch.setattr(os, "stat", vanishing)
    assert directory.read("x.json") is None


def test_a_listing_follows_links_as_the_readers_do(tmp_path: Path) -> None:
    usual = tmp_path / ".cloudvolume" / "secrets"
    usual.mkdir(parents=True)
    (tmp_path / "mine").write_text(TEXT)
    (usual / "cave-secret.json").symlink_to(tmp_path / "mine")
    (usual / "chunkedgraph-secret.json").symlink_to("nowhere")
    (usual / "a-cave-secret.json").symlink_to("a-cave-secret.json")
    (usual / "b-cave-secret.json").mkdir()
    (usual / "other.json").write_text(TEXT)
    found = _directory.listing(_readers.places(str(tmp_path)))
    assert {Path(path).name: entry.problem for path, entry in found.items() if path.startswith(str(tmp_path))} == {
        "cave-secret.json": None,
        "b-cave-secret.json": "directory",
    }
    assert _directory.listing(_readers.places(str(tmp_path)), known=[str(usual)]).keys().isdisjoint(found)


# Writing ---------------------------------------------------------------------------------------------------------


def test_a_file_goes_by_the_name_that_is_asked_for_where_letter_case_does_not_matter(
    directory: Directory, any_case: Callable[[Path], None]
) -> None:
    any_case(Path(directory.path))
    assert directory.names() == [KEPT]
    directory.asked = {USUAL: USUAL}
    assert directory.names() == [USUAL]
    (Path(directory.path) / USUAL).unlink()
    assert directory.names() == [KEPT]  # on other disks that is another file


def test_readers_find_a_file_by_the_usual_name_where_letter_case_does_not_matter(
    tmp_path: Path, any_case: Callable[[Path], None]
) -> None:
    secrets = tmp_path / ".cloudvolume" / "secrets"
    secrets.mkdir(parents=True)
    any_case(secrets)
    where = _readers.places(str(tmp_path))
    assert _readers.read_by_caveclient(_directory.listing(where), where, "cave.example.org").token == "0123456789abcdef"
    (secrets / USUAL).unlink()
    assert _readers.read_by_caveclient(_directory.listing(where), where, "cave.example.org").token is None


def test_a_file_is_written_whole_and_0600_under_any_umask(directory: Directory) -> None:
    directory.write("x.json", TEXT, 0o600, None)
    path = Path(directory.path) / "x.json"
    assert (path.read_text(), mode_of(path)) == (TEXT, 0o600)
    assert directory.names() == ["x.json"]


def test_a_file_is_0600_from_birth(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[int] = []
    open_ = os.open

    def watching(name: Any, flags: int, *mode: int, **how: Any) -> int:
        descriptor = open_(name, flags, *mode, **how)
        if flags & os.O_CREAT:
            born.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watching)
    directory.lock()
    directory.write("x.json", TEXT, 0o640, os.getegid())
    assert born == [0o600, 0o600]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("precious"),
        lambda path: path.symlink_to("elsewhere"),
        lambda path: path.symlink_to("nowhere"),
        _fifo,
        Path.mkdir,
    ],
)
def test_a_temporary_name_that_somebody_planted_is_not_taken_for_ours(
    make: Callable[[Path], Any], directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    folder = Path(directory.path)
    (folder / "elsewhere").write_text("precious")
    make(folder / f".connectomics-cave-{'00' * 8}.tmp")
    before = picture(folder)
    with pytest.raises(CaveError, match=r"Cannot write .*x\.json: File exists"):
        directory.write("x.json", TEXT, 0o600, None)
    assert picture(folder) == before


def test_a_file_for_a_group_gets_its_mode_and_group(directory: Directory) -> None:
    directory.write("x.json", TEXT, 0o640, os.getegid())
    status = (Path(directory.path) / "x.json").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, os.getegid())


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_write_replaces_a_link_and_leaves_alone_what_it_leads_to(target: str, directory: Directory) -> None:
    path = Path(directory.path) / "x.json"
    elsewhere = Path(directory.path).parent / "elsewhere"
    elsewhere.write_text("precious")
    path.symlink_to(elsewhere.with_name(target))
    directory.write("x.json", TEXT, 0o600, None)
    assert path.read_text() == TEXT
    assert not path.is_symlink()
    assert elsewhere.read_text() == "precious"
    assert not elsewhere.with_name("nowhere").exists()


def test_a_write_leaves_the_other_name_of_a_hard_link_alone(directory: Directory) -> None:
    path = Path(directory.path) / "x.json"
    elsewhere = Path(directory.path).parent / "elsewhere"
    elsewhere.write_text("precious")
    path.hardlink_to(elsewhere)
    directory.write("x.json", TEXT, 0o600, None)
    assert (path.read_text(), elsewhere.read_text()) == (TEXT, "precious")


def test_a_write_does_not_open_a_fifo(directory: Directory) -> None:
    os.mkfifo(Path(directory.path) / "x.json")
    directory.write("x.json", TEXT, 0o600, None)
    assert (Path(directory.path) / "x.json").read_text() == TEXT


def test_a_write_stays_in_the_directory_that_was_opened(directory: Directory) -> None:
    opened = Path(directory.path)
    theirs = opened.with_name("theirs")
    theirs.mkdir()
    opened.rename(opened.with_name("moved"))
    opened.symlink_to(theirs)
    directory.write("x.json", TEXT, 0o600, None)
    assert list(theirs.iterdir()) == []
    assert (opened.with_name("moved") / "x.json").read_text() == TEXT


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchown", "fchmod", "close"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_failing_write_leaves_the_old_file_and_no_litter_and_says_what_to_do(
    call: str, number: int, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write("x.json", TEXT, 0o600, None)
    real = getattr(os, call)
    failed: list[bool] = []

    def failing(*arguments: Any, **how: Any) -> Any:
        if call == "close":
            real(*arguments)
        if not failed:
            failed.append(True)
            raise OSError(number, os.strerror(number))
        return real(*arguments, **how)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(CaveError) as caught:
        directory.write("x.json", "{}", 0o640, os.getegid())
    monkeypatch.undo()
    assert failed
    assert (Path(directory.path) / "x.json").read_text() == TEXT
    assert directory.names() == ["x.json"]
    assert f"{directory.path}/x.json" in caught.value.message
    assert caught.value.message.endswith("then run this again.") or caught.value.details["denied"]
    assert "0123456789abcdef" not in caught.value.message


def test_a_file_system_that_keeps_no_modes_gets_no_token(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a drive of Windows below WSL's /mnt, or a USB stick."""
    really = os.open
    written: list[bytes] = []

    def opening(path: Any, flags: int, mode: int = 0o777, **how: Any) -> int:
        descriptor = really(path, flags, mode, **how)
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "write", lambda _descriptor, data: written.append(data))
    with pytest.raises(CaveError, match=r"keeps no modes: a file for its user alone \(0600\) has 0777 there.* WSL"):
        directory.write("x.json", TEXT, 0o600, None)
    assert written == []
    assert list(Path(directory.path).iterdir()) == []


def test_a_write_that_is_cut_short_goes_on(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    directory.write("x.json", TEXT, 0o600, None)
    assert (Path(directory.path) / "x.json").read_text() == TEXT


def test_a_file_system_that_cannot_sync_directories_will_do(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    directory.write("x.json", TEXT, 0o600, None)
    assert directory.names() == ["x.json"]


def test_file_and_directory_are_on_the_disk_before_a_write_is_over(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def move(*arguments: Any, **how: Any) -> None:
        order.append("rename")
        rename(*arguments, **how)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", move)
    directory.write("x.json", TEXT, 0o600, None)
    assert order == ["file", "rename", "directory"]


# Setting aside and repairing -------------------------------------------------------------------------------------


def test_what_is_set_aside_is_kept_under_a_free_name_unreadable_to_others(directory: Directory) -> None:
    for number in (1, 2, 3):
        path = Path(directory.path) / "x.json"
        path.write_bytes(b"\xff broken %d" % number)
        path.chmod(0o644)
        assert directory.set_aside("x.json") == f"x.json.malformed-{number}"
        kept = Path(directory.path) / f"x.json.malformed-{number}"
        assert kept.read_bytes() == b"\xff broken %d" % number
        assert mode_of(kept) == 0o600


def test_a_link_is_set_aside_and_what_it_leads_to_left_alone(directory: Directory) -> None:
    elsewhere = Path(directory.path).parent / "elsewhere"
    elsewhere.write_text("precious")
    elsewhere.chmod(0o644)
    (Path(directory.path) / "x.json").symlink_to(elsewhere)
    directory.set_aside("x.json")
    assert (Path(directory.path) / "x.json.malformed-1").is_symlink()
    assert mode_of(elsewhere) == 0o644


@pytest.mark.parametrize("make", [Path.mkdir, _fifo, _socket])
def test_anything_else_is_set_aside_too(make: Callable[[Path], Any], directory: Directory) -> None:
    make(Path(directory.path) / "x.json")
    assert directory.set_aside("x.json") == "x.json.malformed-1"
    assert directory.names() == ["x.json.malformed-1"]


@pytest.mark.parametrize(
    ("mode", "access", "flaw"),
    [
        (0o700, Access(), ""),
        (0o500, Access(), ""),
        (0o2700, Access(), ""),
        (0o755, Access(), "mode 0755 let others in"),
        (0o710, Access(), "mode 0710 let others in"),
        (0o750, Access(0o750, os.getegid()), ""),
        (0o770, Access(0o750, os.getegid()), "mode 0770 let others in"),
        (0o700, Access(0o750, os.getegid()), f"mode 0700 or group id {os.getegid()} kept the group out"),
    ],
)
def test_a_directory_that_lets_in_the_wrong_people_is_repaired(
    mode: int, access: Access, flaw: str, directory: Directory
) -> None:
    path = Path(directory.path)
    path.chmod(mode)
    assert directory.flaw(access) == flaw
    directory.repair(access)
    assert directory.flaw(access) == ""
    assert mode_of(path) & 0o7700 == mode & 0o7700, "only what others may do is changed"


@root
def test_somebody_elses_directory_is_as_they_want_it(directory: Directory) -> None:
    os.chown(directory.path, 4711, -1)
    Path(directory.path).chmod(0o777)
    assert directory.flaw(Access()) == ""


# Locking ---------------------------------------------------------------------------------------------------------


def _hold(path: str, ready: Any, done: Any) -> None:
    directory, _missing = open_directory(path, (ME,))
    assert directory is not None
    directory.lock()
    ready.set()
    done.wait(30)
    directory.close()
    ready.clear()
    done.wait(30)


def test_a_lock_is_waited_for_and_given_up_when_the_directory_is_closed(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_directory, "LOCK_PATIENCE", 0.2)
    context = get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(directory.path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(CaveError, match=r"Another process has been writing to .* for 0\.2 s"):
            directory.lock()
        done.set()
        monkeypatch.setattr(_directory, "LOCK_PATIENCE", 20.0)
        directory.lock()
    finally:
        done.set()
        other.join(30)
        other.close()


@pytest.mark.parametrize("make", [Path.mkdir, _fifo, _socket, lambda path: path.symlink_to("/etc/passwd")])
def test_whatever_stands_in_the_place_of_the_lock_is_named_at_once(
    make: Callable[[Path], Any], directory: Directory
) -> None:
    make(Path(directory.path) / _directory.LOCK_FILE)
    with pytest.raises(CaveError, match=_directory.LOCK_FILE):
        directory.lock()


def test_where_the_kernel_has_no_such_locks_flock_serves(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_descriptor: int, command: int, _request: bytes) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(fcntl, "fcntl", unknown)
    directory.lock()
    with (Path(directory.path) / _directory.LOCK_FILE).open("r+") as other:
        assert not try_lock(other.fileno())
        directory.close()
        assert try_lock(other.fileno())


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_file_system_without_locks_is_refused_with_what_to_do(
    number: int, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    with pytest.raises(CaveError, match=r"Cannot lock .*\. Mount it with file locks \(NFS: with lockd; "):
        directory.lock()


@pytest.mark.parametrize("call", ["listdir", "stat", "open", "read"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN])
def test_a_place_that_does_not_answer_is_not_an_empty_one(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / ".cloudvolume" / "secrets"
    directory.mkdir(parents=True)
    (directory / "cave-secret.json").write_text(TEXT)
    real = getattr(os, call)

    def failing(what: Any, *arguments: Any, **how: Any) -> Any:
        if isinstance(what, int) or str(what).startswith(str(directory)):
            raise OSError(number, os.strerror(number))
        return real(what, *arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(CaveError) as caught:
            _directory.listing(_readers.places(str(tmp_path)))
        assert _directory.listing(_readers.places(str(tmp_path)), is_certain=False) == {}
    assert str(directory) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert "then run this again" in caught.value.message
    assert "chown" not in caught.value.message
