# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build as one file: what goes in comes out, and a hostile file puts nothing where it does not belong."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._environment import archive as _archive
from ansible_collections.connectomics.cave.plugins.module_utils._environment.archive import Header
from ansible_collections.connectomics.cave.plugins.module_utils._environment.builds import Build, Builds
from ansible_collections.connectomics.cave.plugins.module_utils._environment.doctor import digest, digest_of_file
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import (
    RECORD,
    Request,
    make_record,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Parcel
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

BASE = os.path.realpath(sys.executable)
NAME = "20260314T101502Z-5be0cd19"
RECORDED = make_record(Request("8.2.1"), "3.11.2", BASE, "uv 1", {"caveclient": "8.2.1"})


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A build of a host, with all that real ones hold."""
    place = tmp_path / "there" / "builds" / NAME
    site = place / "lib" / "python3.11" / "site-packages" / "caveclient"
    (site / "__pycache__").mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "bin" / "python3").symlink_to("python")
    (place / "lib64").symlink_to("lib")
    for path, content, mode in (
        (site / "__init__.py", b"x = 1\n", 0o644),
        (site / "empty.py", b"", 0o644),
        (site / "__pycache__" / "big.pyc", os.urandom(3_000_000), 0o444),
        (place / "bin" / "tool", b"#!/bin/sh\n", 0o755),
        (place / os.fsdecode(b"odd\xff name\n"), b"odd", 0o644),
        (place / RECORD, json.dumps(RECORDED).encode(), 0o644),
        (place / "caveclient-rolled-back", b"", 0o644),
    ):
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (1_700_000_000.75, 1_700_000_000.75))
    return Build(place, RECORDED)


def contents(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[name] = stat.S_IMODE(info.st_mode)
        else:
            found[name] = (stat.S_IMODE(info.st_mode), int(info.st_mtime), path.read_bytes())
    return found


def packed(build: Build, folder: Path) -> Parcel:
    folder.mkdir(exist_ok=True)
    file = str(folder / "build.archive")
    return Parcel(file, build.pack(file), "ws001")


def test_what_was_packed_on_one_host_is_unpacked_on_another(build: Build, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        parcel = packed(build, tmp_path / "parcel")
        assert stat.S_IMODE(Path(parcel.file).stat().st_mode) == 0o600
        taken = Builds(str(tmp_path / "here")).unpack(parcel, BASE)
    finally:
        os.umask(umask)

    expected = contents(build.path)
    del expected[RECORD], expected["caveclient-rolled-back"]  # the first comes last, the other is the first host's
    pyc = "lib/python3.11/site-packages/caveclient/__pycache__/big.pyc"
    expected[pyc] = (0o644, *expected[pyc][1:])
    assert contents(taken.path) == expected
    assert (taken.path.name, taken.record) == (NAME, RECORDED)
    assert stat.S_IMODE(taken.path.stat().st_mode) == 0o755
    assert not Path(parcel.file).exists()


def test_until_it_is_finished_an_unpacked_build_is_a_leftover(build: Build, tmp_path: Path) -> None:
    builds = Builds(str(tmp_path / "here"))
    taken = builds.unpack(packed(build, tmp_path / "parcel"), BASE)

    assert builds.complete() == []
    assert builds.leftovers() == [taken.path]


# --- What is not packed ---


@pytest.mark.parametrize("target", ["/etc/passwd", "../../elsewhere", "lib64/../../..", "lib/./x", "/"])
def test_a_build_with_a_link_that_leads_out_is_not_packed(build: Build, tmp_path: Path, target: str) -> None:
    (build.path / "link").symlink_to(target)
    with pytest.raises(CaveError, match="leads out of the build"):
        packed(build, tmp_path / "parcel")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o4757])
def test_a_file_that_others_can_change_is_not_packed(build: Build, tmp_path: Path, mode: int) -> None:
    (build.path / "bin" / "tool").chmod(mode)
    with pytest.raises(CaveError, match="bin/tool can be changed by others"):
        packed(build, tmp_path / "parcel")


def test_a_fifo_is_not_packed(build: Build, tmp_path: Path) -> None:
    os.mkfifo(build.path / "fifo", 0o644)
    with pytest.raises(CaveError, match="neither a file nor a folder"):
        packed(build, tmp_path / "parcel")


@pytest.mark.root
def test_a_file_of_another_account_is_not_packed(build: Build, tmp_path: Path) -> None:
    os.chown(build.path / "bin" / "tool", 65534, 65534)
    with pytest.raises(CaveError, match="bin/tool can be changed by others"):
        packed(build, tmp_path / "parcel")


def test_setuid_does_not_survive(build: Build, tmp_path: Path) -> None:
    (build.path / "bin" / "tool").chmod(0o4755)
    taken = Builds(str(tmp_path / "here")).unpack(packed(build, tmp_path / "parcel"), BASE)
    assert stat.S_IMODE((taken.path / "bin" / "tool").stat().st_mode) == 0o755


def test_an_archive_is_never_written_over_what_somebody_has_put_there(build: Build, tmp_path: Path) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "parcel" / "build.archive").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        packed(build, tmp_path / "parcel")
    assert (tmp_path / "victim").read_text() == "precious"


# --- What is not unpacked ---


def refused(parcel: Parcel, folder: Path, base: str = BASE) -> str:
    """Unpack it, and return why that was refused; nothing is left of it."""
    builds = Builds(str(folder / "here"))
    with pytest.raises(CaveError) as caught:
        builds.unpack(parcel, base)
    assert not builds.folder.exists() or not list(builds.folder.iterdir())
    return caught.value.message


def test_an_archive_with_another_digest_is_not_even_read(build: Build, tmp_path: Path) -> None:
    parcel = packed(build, tmp_path / "parcel")
    with Path(parcel.file).open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"x")
    assert "damaged on the way" in refused(parcel, tmp_path)


@pytest.mark.parametrize("length", [0, 10, 500, 2_000_000])
def test_an_archive_that_was_cut_short_leaves_nothing(build: Build, tmp_path: Path, length: int) -> None:
    parcel = packed(build, tmp_path / "parcel")
    os.truncate(parcel.file, length)
    assert "damaged on the way" in refused(parcel, tmp_path)

    parcel = packed(build, tmp_path / "again")
    os.truncate(parcel.file, length)
    refused(parcel._replace(digest=digest_of_file(parcel.file)), tmp_path)


def test_a_build_for_another_python_is_refused(build: Build, tmp_path: Path) -> None:
    assert "leads out of the build" in refused(packed(build, tmp_path / "parcel"), tmp_path, base="/usr/bin/other")


def test_a_build_that_is_there_already_is_left_alone(build: Build, tmp_path: Path) -> None:
    builds = Builds(str(tmp_path / "here"))
    place = builds.folder / NAME
    place.mkdir(parents=True)
    (place / "mine").touch()
    with pytest.raises(CaveError, match="is there already"):
        builds.unpack(packed(build, tmp_path / "parcel"), BASE)
    assert [path.name for path in place.iterdir()] == ["mine"]


def framed(*blocks: bytes) -> bytes:
    """Return an archive of blocks."""
    compressed = [zlib.compress(block, 1) for block in blocks]
    return b"".join(len(data).to_bytes(4, "big") + data for data in compressed)


@pytest.mark.parametrize("spoilt", ["too long", "cut short", "no zlib"])
def test_a_block_that_is_none_is_refused(build: Build, tmp_path: Path, spoilt: str) -> None:
    parcel = packed(build, tmp_path / "parcel")
    data = Path(parcel.file).read_bytes()
    header = data[: 4 + int.from_bytes(data[:4], "big")]
    bomb = zlib.compress(bytes(10_000_000), 9)
    block = {"too long": bomb, "cut short": zlib.compress(b"x" * 5000)[:-3], "no zlib": b"x" * 500}[spoilt]
    content = header + len(block).to_bytes(4, "big") + block
    Path(parcel.file).write_bytes(content)
    assert refused(parcel._replace(digest=digest(content)), tmp_path).startswith("it is damaged")


# Whatever somebody could write into an archive

PARTS = st.sampled_from(["a", "b", "bin", "..", ".", "", "/", "c\0", "\ud800", "é", "x" * 300])
PATHS = st.lists(PARTS, min_size=0, max_size=4).map("/".join) | st.sampled_from(["/tmp/evil", "/etc/passwd", "a"])
TARGETS = PATHS | st.sampled_from(["../outside", "../../..", "/", sys.executable, BASE, "a/../../b", "python"])
ODD = st.none() | st.integers(-2, 1 << 40) | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=2)
SIZES = st.integers(0, 20) | ODD
FILES = st.tuples(PATHS, st.booleans() | ODD, SIZES, SIZES) | ODD
HEADERS = st.fixed_dictionaries(
    {
        "name": st.just(NAME) | PATHS | ODD,
        "record": st.just(RECORDED) | ODD,
        "folders": st.lists(PATHS, max_size=6) | ODD,
        "files": st.lists(FILES, max_size=6) | ODD,
        "links": st.lists(st.tuples(PATHS, TARGETS), max_size=6) | ODD,
    },
    optional={"more": ODD},
)


@contextmanager
def folder_with_a_witness() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "outside").mkdir()
        (Path(name) / "outside" / "precious").write_text("precious")
        yield Path(name)


def escapes(folder: Path) -> list[str]:
    """Return what in a build leads out of it, or is something that no build has."""
    found = []
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if path.is_symlink():
            end = os.path.realpath(path)
            if end != BASE and not end.startswith(f"{os.path.realpath(folder)}/"):
                found.append(f"{path} -> {end}")
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or mode & 0o7022:
            found.append(f"{path}: {mode:o}")
    return found


@settings(max_examples=400, deadline=None, derandomize=True)
@given(HEADERS, st.binary(max_size=60))
@example(
    {
        "name": NAME,
        "record": RECORDED,
        "folders": ["a", "a/b"],
        "files": [],
        # Each is inside by its name; behind the first, the second would go up twice.
        "links": [["a/b/up", "../.."], ["out", "a/b/up/../outside"]],
    },
    b"",
)
@example(
    {
        "name": NAME,
        "record": RECORDED,
        "folders": [],
        "files": [["a/precious", False, 1, 1]],
        "links": [["a", "../../outside"]],
    },
    b"x",
)
@example({"name": "..", "record": RECORDED, "folders": ["x"], "files": [], "links": []}, b"")
@example({"name": NAME, "record": RECORDED, "folders": ["a"], "files": [["a", True, 1, 1]], "links": []}, b"x")
def test_a_hostile_archive_changes_nothing_outside_of_its_build(header: dict[str, Any], content: bytes) -> None:
    data = framed(json.dumps(list(header.values())).encode(), content)
    with folder_with_a_witness() as folder:
        file = folder / "archive"
        file.write_bytes(data)
        parcel = Parcel(str(file), digest(data), "ws001")
        builds = Builds(str(folder / "here"))
        taken = None
        try:
            taken = builds.unpack(parcel, BASE)
        except (CaveError, OSError):
            assert not builds.folder.exists() or not list(builds.folder.iterdir())
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        inside = f"here/builds/{NAME}"
        outside = {path for path in found if not path.startswith(inside)}
        assert outside <= {"archive", "outside", "outside/precious", "here", "here/builds"}
        assert (folder / "outside" / "precious").read_text() == "precious"
        if taken:
            assert str(taken.path) == str(folder / inside)
            assert escapes(taken.path) == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    for content in (data, framed(data), framed(data, data)):
        with folder_with_a_witness() as folder:
            (folder / "archive").write_bytes(content)
            parcel = Parcel(str(folder / "archive"), digest(content), "ws001")
            assert "no build of this collection" in refused(parcel, folder)


def test_every_part_of_a_header_is_needed() -> None:
    fields = set(Header._fields)
    assert fields == {"name", "record", "folders", "files", "links"}
    assert _archive._stays_inside("lib64", "lib")
    assert _archive._stays_inside("a/b", "../c")
    assert not _archive._stays_inside("a/b", "../../c")
