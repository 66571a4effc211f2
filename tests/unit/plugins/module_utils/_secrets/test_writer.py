# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing the secrets files of one user."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from homes import (
    DEFAULT_FILE,
    LEGACY_FILE,
    LOCAL_FILE,
    NEW_TOKEN,
    OLD_TOKEN,
    OTHER_TOKEN,
    SERVER,
    SERVER_FILE,
    SERVER_MAP,
    fill,
    let_in,
    picture,
    secrets_of,
    token_in,
)

from ansible_collections.connectomics.cave.plugins.module_utils._atomic import has_access_list
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import directory as _directory
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import obstacles as _obstacles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import startup_texts as _startup_texts
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import writer as _writer
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.lock import try_lock
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.writer import save

ALL_FILES = {SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, SERVER_MAP}
root = pytest.mark.root
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_startup_texts, "_SYSTEM_FILES", {})
    monkeypatch.delenv("CLOUD_VOLUME_DIR", raising=False)


def request(token: str | None = NEW_TOKEN, **more: Any) -> Request:
    datastacks = parse_datastacks(["minnie65_public"], SERVER)
    return Request(**{"server": SERVER, "datastacks": datastacks, "key": "token", "token": token, **more})


def home_of(folder: Path, **more: Any) -> Home:
    return Home("alice", os.geteuid(), str(folder), **more)


def saved(folder: Path, *requests: Request, stale: str = "update", **more: Any) -> dict[str, Any]:
    """Save after predicting: the prediction must change nothing and be what then happens. Return the first result."""
    home, asked = home_of(folder, **more), list(requests or [request()])
    before = picture(folder)
    predicted = save(home, asked, stale, check_mode=True)
    assert picture(folder) == before
    results = save(home, asked, stale, check_mode=False)
    assert results == predicted
    again = save(home, asked, stale, check_mode=False)
    assert not any(result["changed"] for result in again)
    for result in [*predicted, *results, *again]:
        result.pop("previous_token", None)
    told = json.dumps([predicted, results, again])
    assert not any(token in told for token in (OLD_TOKEN, NEW_TOKEN, OTHER_TOKEN))
    return results[0]


def refused(folder: Path, *requests: Request, stale: str = "update", check_mode: bool = False, **more: Any) -> str:
    """Fail to save; return the message."""
    (result,) = save(home_of(folder, **more), list(requests or [request()]), stale, check_mode)
    assert result["failed"]
    assert not result["changed"]
    return str(result["msg"])


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {Path(item["path"]).name: item["action"] for item in result["files"]}


def test_a_replaced_token_is_named_by_its_fingerprint_in_result_and_diff(tmp_path: Path) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    result = saved(tmp_path)
    assert result["previous_fingerprint"] == fingerprint(OLD_TOKEN)
    path = secrets_of(tmp_path) / DEFAULT_FILE
    assert f'{path}: "token": "{fingerprint(OLD_TOKEN)}"\n' in result["diff"]["before"]
    assert f'{path}: "token": "{fingerprint(NEW_TOKEN)}"\n' in result["diff"]["after"]


def test_unchanged_files_are_not_rewritten(tmp_path: Path) -> None:
    saved(tmp_path)
    before = {path: path.stat() for path in secrets_of(tmp_path).iterdir()}
    result = saved(tmp_path)
    assert set(actions(result).values()) == {"unchanged"}
    assert {path: path.stat() for path in secrets_of(tmp_path).iterdir()} == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666, 0o400, 0o604])
def test_a_file_with_another_mode_is_repaired(mode: int, tmp_path: Path) -> None:
    saved(tmp_path)
    path = secrets_of(tmp_path) / DEFAULT_FILE
    path.chmod(mode)
    result = saved(tmp_path)
    assert actions(result)[DEFAULT_FILE] == "repaired"
    assert f"mode {mode:04o}" in str(result["files"])
    assert f"{path}: had mode {mode:04o}\n" in result["diff"]["before"]
    assert f"{path}: had mode" not in result["diff"]["after"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@root
def test_a_file_of_another_owner_is_repaired(tmp_path: Path) -> None:
    saved(tmp_path)
    path = secrets_of(tmp_path) / DEFAULT_FILE
    os.chown(path, 4711, -1)
    assert actions(saved(tmp_path))[DEFAULT_FILE] == "repaired"
    assert path.stat().st_uid == 0


def test_directories_that_let_others_in_are_repaired(tmp_path: Path) -> None:
    saved(tmp_path)
    secrets_of(tmp_path).chmod(0o755)
    secrets_of(tmp_path).parent.chmod(0o775)
    result = saved(tmp_path)
    assert (actions(result)["secrets"], actions(result)[".cloudvolume"]) == ("repaired", "repaired")
    assert f"{secrets_of(tmp_path)}: mode 0755 let others in\n" in result["diff"]["before"]
    assert stat.S_IMODE(secrets_of(tmp_path).stat().st_mode) == 0o700
    assert stat.S_IMODE(secrets_of(tmp_path).parent.stat().st_mode) == 0o755


def test_the_mode_of_a_server_map_is_nobodys_business(tmp_path: Path) -> None:
    path = fill(tmp_path, {SERVER_MAP: {"mine": SERVER}}) / SERVER_MAP
    path.chmod(0o644)
    saved(tmp_path)
    assert json.loads(path.read_text()) == {"mine": SERVER, "minnie65_public": SERVER}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_mistyped_address_in_the_server_map_is_mended_and_shown(tmp_path: Path) -> None:
    fill(tmp_path, {SERVER_MAP: {"minnie65_public": "https://global.daf-apis.con"}})
    result = saved(tmp_path)
    assert '"minnie65_public": "https://global.daf-apis.con"' in result["diff"]["before"]
    assert json.loads((secrets_of(tmp_path) / SERVER_MAP).read_text()) == {"minnie65_public": SERVER}


def test_a_token_that_strayed_into_the_server_map_is_not_shown(tmp_path: Path) -> None:
    fill(tmp_path, {SERVER_MAP: {"token": OLD_TOKEN}})
    saved(tmp_path)


def test_what_a_user_wrote_does_not_command_a_terminal(tmp_path: Path) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"\x1b[31m\nx\ud800": "v"}, SERVER_MAP: {"x": "https://\x1b]0;gone\x07"}})
    told = json.dumps(saved(tmp_path), ensure_ascii=False)
    json.loads(told.encode())
    assert "\x1b" not in json.loads(told)["diff"]["after"]


@pytest.mark.parametrize("wanted", [request(), request(None)])
def test_nor_do_the_names_that_a_user_gives(wanted: Request, tmp_path: Path) -> None:
    names = ["\x1b[31m\n-cave-secret.json", "\udcff-cave-secret.json", "\x1b~"]
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, **{name: {"token": OLD_TOKEN} for name in names}})
    told = json.dumps(saved(tmp_path, wanted), ensure_ascii=False)
    assert "\x1b" not in str(json.loads(told.encode()))


# Malformed -------------------------------------------------------------------------------------------------------

MALFORMED: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(b'{"token": "' + OLD_TOKEN[:5].encode()),
    "bom": lambda path: path.write_bytes(b'\xef\xbb\xbf{"token": "x"}'),
    "not-utf8": lambda path: path.write_bytes(b'{"token": "\xff"}'),
    "list": lambda path: path.write_bytes(b"[]"),
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "link-to-nothing": lambda path: path.symlink_to("nowhere"),
    "large": lambda path: path.write_bytes(b" " * 100_000),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("name", [SERVER_FILE, LOCAL_FILE, DEFAULT_FILE, SERVER_MAP])
@pytest.mark.parametrize("check_mode", [True, False])
def test_a_malformed_file_is_left_alone_and_so_are_all_others(
    check_mode: bool, name: str, make: Callable[[Path], Any], tmp_path: Path
) -> None:
    directory = fill(tmp_path, {})
    make(directory / name)
    fill(tmp_path, {other: {"token": OLD_TOKEN} for other in (SERVER_FILE, LOCAL_FILE) if other != name})
    before = picture(tmp_path, besides=())
    message = refused(tmp_path, check_mode=check_mode)
    assert picture(tmp_path, besides=()) == before
    assert message.startswith((f"{directory / name} is ", f"{directory / name} begins with "))
    assert "on_malformed: replace" in message


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_replaced_when_asked_for_and_kept_beside(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    directory = fill(tmp_path, {})
    make(directory / DEFAULT_FILE)
    kind, _mode, *_owner, content = picture(directory)[DEFAULT_FILE]
    result = saved(tmp_path, on_malformed="replace")
    assert [item["action"] for item in result["files"] if Path(item["path"]).name == DEFAULT_FILE] == [
        "set_aside",
        "created",
    ]
    assert token_in(directory / DEFAULT_FILE) == NEW_TOKEN
    kept_kind, kept_mode, *_owner, kept = picture(directory)[f"{DEFAULT_FILE}.malformed-1"]
    assert (kept_kind, kept) == (kind, content)
    assert kept_mode in ((0o600, 0o700) if kind != "l" else (0o777,))


def test_a_malformed_file_that_does_not_matter_is_left_alone(tmp_path: Path) -> None:
    directory = fill(tmp_path, {"elsewhere.example.org-cave-secret.json": "{", LEGACY_FILE: "", "notes.json": "x"})
    saved(tmp_path)
    assert (directory / LEGACY_FILE).read_text() == ""


def test_a_file_that_would_grow_too_large_is_refused(tmp_path: Path) -> None:
    path = fill(tmp_path, {DEFAULT_FILE: {"x": "y" * 65500}}) / DEFAULT_FILE
    before = picture(tmp_path)
    assert "would be larger than 64 KiB" in refused(tmp_path)
    assert picture(tmp_path) == before
    assert path.exists()


# Places ----------------------------------------------------------------------------------------------------------


def test_a_shared_cloud_volume_dir_keeps_its_mode(tmp_path: Path) -> None:
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    elsewhere.chmod(0o2775)
    saved(tmp_path, cloud_volume_dir=str(elsewhere))
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o2775
    assert stat.S_IMODE((elsewhere / "secrets").stat().st_mode) & 0o777 == 0o700


def test_what_is_outside_of_the_home_keeps_its_mode(tmp_path: Path) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    (project / "secrets").mkdir(parents=True)
    (home / ".cloudvolume").mkdir(parents=True)
    (home / ".cloudvolume" / "secrets").symlink_to(project / "secrets")
    for folder in (project, project / "secrets", home / ".cloudvolume"):
        folder.chmod(0o2775)
    result = saved(home)
    assert stat.S_IMODE(project.stat().st_mode) == stat.S_IMODE((project / "secrets").stat().st_mode) == 0o2775
    assert stat.S_IMODE((home / ".cloudvolume").stat().st_mode) == 0o2755, "this one is the user's, and holds the link"
    assert token_in(project / "secrets" / DEFAULT_FILE) == NEW_TOKEN
    assert stat.S_IMODE((project / "secrets" / DEFAULT_FILE).stat().st_mode) == 0o600
    assert "it is outside of the home, so its mode is left alone" in str(result["files"])


def test_a_malformed_file_of_one_server_stops_no_other(tmp_path: Path) -> None:
    name = "proofreading.zetta.ai-cave-secret.json"
    path = fill(tmp_path, {name: "{"}) / name
    zetta = request(OTHER_TOKEN, server="https://proofreading.zetta.ai", datastacks=[])
    for check_mode in (True, False):
        good, bad = save(home_of(tmp_path), [request(), zetta], "update", check_mode)
        assert good["changed"]
        assert bad["failed"]
        assert f"{path} is not JSON" in bad["msg"]
    assert path.read_text() == "{"
    assert token_in(path.with_name(DEFAULT_FILE)) == NEW_TOKEN


def test_one_directory_under_two_names_is_written_once_and_can_be_emptied(tmp_path: Path) -> None:
    fill(tmp_path, {"cave-secret.json~": OLD_TOKEN, DEFAULT_FILE: {"token": OLD_TOKEN}})
    (tmp_path / "data").symlink_to(".cloudvolume")
    saved(tmp_path, request(None), cloud_volume_dir=str(tmp_path / "data"))
    assert picture(secrets_of(tmp_path)) == {}


def test_a_directory_of_ones_own_choice_stands_in_for_the_usual_one(tmp_path: Path) -> None:
    saved(tmp_path, secrets_dir=str(tmp_path / "mine"), cloud_volume_dir="")
    assert token_in(tmp_path / "mine" / SERVER_FILE) == NEW_TOKEN
    assert not (tmp_path / ".cloudvolume").exists()


def test_a_group_can_reach_its_files(tmp_path: Path) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    result = saved(tmp_path, mode=0o640, group=os.getegid())
    assert "kept the group out" in str(result["files"])
    found = picture(secrets_of(tmp_path))
    assert {mode for _kind, mode, *_rest in found.values()} == {0o640}
    assert stat.S_IMODE(secrets_of(tmp_path).stat().st_mode) == 0o750


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_an_access_list_lets_nobody_in(mode: int, tmp_path: Path) -> None:
    """Neither one of the directory for new files, nor one of what is there."""
    directory = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, "note.txt": "mine"})
    let_in(directory, 4711, "default")
    for path in (directory, directory / DEFAULT_FILE):
        let_in(path, 4711)
        path.chmod(mode | 0o100 * path.is_dir() | 0o010 * path.is_dir() * (mode == 0o640))
    group = os.getegid() if mode == 0o640 else None
    saved(tmp_path, mode=mode, group=group)
    for path in (directory, *(directory / name for name in ALL_FILES)):
        allows_group = stat.S_IMODE(path.stat().st_mode) & 0o070
        assert not allows_group or not has_access_list(str(path)), path
    if group is not None:
        let_in(directory / DEFAULT_FILE, 4711)
        (directory / DEFAULT_FILE).chmod(mode)
        assert "an access control list" in str(saved(tmp_path, mode=mode, group=group)["files"])


def test_what_the_older_places_hold_is_told(tmp_path: Path) -> None:
    older = tmp_path / ".neuroglancer" / "secrets"
    older.mkdir(parents=True)
    (older / DEFAULT_FILE).write_text(json.dumps({"token": OTHER_TOKEN}))
    saved(tmp_path)
    result = saved(tmp_path, request(None))
    assert result["readers"]["caveclient global.daf-apis.com"] is None
    assert result["readers"]["cloud-volume minnie.microns-daf.com"] == fingerprint(OTHER_TOKEN)


# Absent ----------------------------------------------------------------------------------------------------------


def test_absent_leaves_the_token_nowhere(tmp_path: Path) -> None:
    copies = {
        f"{DEFAULT_FILE}.malformed-1": f'{{"token": "{OLD_TOKEN}',
        f"{DEFAULT_FILE}~": f'{{"token": "{OLD_TOKEN}"}}',
        f".{DEFAULT_FILE}.swp": b"\x00\xff" + OLD_TOKEN.encode(),
        "prod.flywire-daf.com-cave-secret.json": {"token": OLD_TOKEN, "mine": OTHER_TOKEN},
        "notes.json": f'{{"token": "{OLD_TOKEN}"',
    }
    fill(
        tmp_path,
        {DEFAULT_FILE: {"token": OLD_TOKEN}, SERVER_FILE: {"token": OLD_TOKEN}, "keep~": OTHER_TOKEN, **copies},
    )
    result = saved(tmp_path, request(None))
    left = picture(tmp_path)
    assert not [path for path, (*_rest, content) in left.items() if OLD_TOKEN.encode() in content]
    assert set(left) == {
        ".cloudvolume",
        ".cloudvolume/secrets",
        ".cloudvolume/secrets/keep~",
        ".cloudvolume/secrets/prod.flywire-daf.com-cave-secret.json",
    }
    assert (result["previous_fingerprint"], result["fingerprint"]) == (fingerprint(OLD_TOKEN), None)


def test_absent_removes_a_malformed_file_that_holds_the_token_when_asked_for_alone(tmp_path: Path) -> None:
    name = LEGACY_FILE
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, name: f'{{"mine": 1, "token": "{OLD_TOKEN}'})
    before = picture(tmp_path, besides=())
    assert f"{name} is not JSON" in refused(tmp_path, request(None))
    assert picture(tmp_path, besides=()) == before
    assert actions(saved(tmp_path, request(None), on_malformed="replace"))[name] == "removed"
    assert picture(secrets_of(tmp_path)) == {}


@pytest.mark.parametrize("name", ["elsewhere.example.org-cave-secret.json", "elsewhere.example.org-cave-secret.json~"])
@pytest.mark.parametrize("content", [f'{{"token": "{OLD_TOKEN}"}}', f'{{"token": "{OLD_TOKEN}'], ids=["sound", "cut"])
def test_absent_leaves_another_servers_file_and_says_that_it_holds_the_token(
    name: str, content: str, tmp_path: Path
) -> None:
    path = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, SERVER_FILE: {"token": OLD_TOKEN}, name: content}) / name
    result = saved(tmp_path, request(None))
    assert actions(result)[name] == "stale"
    assert path.read_text() == content


def test_absent_never_removes_a_file_that_could_not_be_read_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN, "mine": OTHER_TOKEN}, SERVER_FILE: {"token": OLD_TOKEN}})
    before = picture(tmp_path, besides=())
    read = _directory._read
    closed = [DEFAULT_FILE]

    def flickering(name: str, *arguments: Any) -> bytes:
        if name in closed:
            closed.remove(name)
            raise _files.Malformed("unreadable", "Permission denied")
        return read(name, *arguments)

    monkeypatch.setattr(_directory, "_read", flickering)
    with pytest.raises(CaveError, match=f"{DEFAULT_FILE} cannot be read by its user"):
        save(home_of(tmp_path, on_malformed="replace"), [request(None)], "update", check_mode=False)
    assert picture(tmp_path, besides=()) == before


def test_absent_says_which_files_it_could_not_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, "mine~": OLD_TOKEN})
    (secrets_of(tmp_path) / "link~").symlink_to("nowhere")
    read = _directory._read

    def closed(name: str, *arguments: Any) -> bytes:
        if name == "mine~":
            raise _files.Malformed("unreadable", "Permission denied")
        return read(name, *arguments)

    monkeypatch.setattr(_directory, "_read", closed)
    result = saved(tmp_path, request(None))
    told = {Path(item["path"]).name: item["reason"] for item in result["files"] if item["action"] == "unchanged"}
    assert told == {"mine~": "closed to its user, so it is unknown whether it holds the token"}


def test_a_secrets_file_that_is_closed_to_its_user_is_said_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {LEGACY_FILE: {"token": OLD_TOKEN}, "google-secret.json": "{}"})
    read = _directory._read

    def closed(name: str, *arguments: Any) -> bytes:
        if name in (LEGACY_FILE, "google-secret.json"):
            raise _files.Malformed("unreadable", "Permission denied")
        return read(name, *arguments)

    monkeypatch.setattr(_directory, "_read", closed)
    with pytest.raises(
        CaveError, match=rf"{LEGACY_FILE} cannot be read by its user \(Permission denied\)\. Nothing"
    ) as it:
        save(home_of(tmp_path), [request()], "update", check_mode=False)
    assert "google" not in it.value.message


def test_stale_files_are_written_before_it_is_forgotten_which_token_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "prod.flywire-daf.com-cave-secret.json"
    fill(tmp_path, {name: {"token": OLD_TOKEN} for name in (DEFAULT_FILE, LEGACY_FILE, other)})
    written: list[str] = []
    write = _directory.Directory.write

    def noting(directory: _directory.Directory, name: str, *arguments: Any) -> None:
        written.append(name)
        write(directory, name, *arguments)

    monkeypatch.setattr(_directory.Directory, "write", noting)
    save(home_of(tmp_path), [request()], "update", check_mode=False)
    assert set(written[:2]) == {LEGACY_FILE, other}


def test_absent_where_nothing_was_makes_nothing(tmp_path: Path) -> None:
    result = saved(tmp_path, request(None), cloud_volume_dir=str(tmp_path / "data"))
    assert not result["changed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["file", "link", "no-home"])
def test_absent_where_nothing_can_be_is_unchanged(obstacle: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    if obstacle == "no-home":
        assert not saved(home, request(None))["changed"]
        return
    home.mkdir()
    (home / ".cloudvolume").touch() if obstacle == "file" else (home / ".cloudvolume").symlink_to("nowhere")
    assert not saved(home, request(None), cloud_volume_dir="/proc/1/cv")["changed"]


@pytest.mark.parametrize("place", ["loop/cv", "a" * 300, "file/cv", "gone/deeper"])
def test_absent_does_not_mind_a_place_that_cannot_be(place: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere/at/all")
    (tmp_path / "file").write_text("x")
    assert saved(tmp_path, request(token=None), cloud_volume_dir=str(tmp_path / place))["changed"] is False
    with pytest.raises(CaveError):
        saved(tmp_path, cloud_volume_dir=str(tmp_path / place))


def test_a_place_whose_link_is_not_for_everybody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc/1/root is a link that an ordinary account may see and not read."""

    readlink = os.readlink

    def not_for_everybody(path: Any, **options: Any) -> str:
        if str(path).endswith("/closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return str(readlink(path, **options))

    closed, home = tmp_path / "closed", tmp_path / "home"
    home.mkdir()
    closed.symlink_to(tmp_path / "file" / "root")
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "readlink", not_for_everybody)
    with pytest.raises(CaveError, match="closed"):
        saved(home, cloud_volume_dir=str(closed))
    assert saved(home, request(token=None), cloud_volume_dir=str(closed))["changed"] is False


@pytest.mark.parametrize("place", ["/proc/self/fd", "/proc/self", "/proc/self/task", "/sys"])
def test_a_place_of_the_kernels_is_told_before_anything_is_made(place: str, tmp_path: Path) -> None:
    """Its owner may write there, by its mode."""
    for check_mode in (True, False):
        with pytest.raises(CaveError, match=f"CLOUD_VOLUME_DIR is {place}, .*the kernel: change it in"):
            save(home_of(tmp_path, cloud_volume_dir=place), [request()], "update", check_mode)
        assert list(tmp_path.iterdir()) == []
    assert saved(tmp_path, request(token=None), cloud_volume_dir=place)["changed"] is False


def test_where_links_lead_in_a_circle_there_is_nothing_to_remove(tmp_path: Path) -> None:
    (tmp_path / ".cloudvolume").mkdir()
    (tmp_path / ".cloudvolume" / "secrets").symlink_to("secrets")
    assert saved(tmp_path, request(token=None))["changed"] is False
    with pytest.raises(CaveError, match="Remove the symbolic link there"):
        save(home_of(tmp_path), [request()], "update", check_mode=True)


def test_a_read_only_mount_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    monkeypatch.setattr(_directory.Directory, "is_writable", lambda _self: False)
    monkeypatch.setattr(_obstacles, "is_read_only", lambda place: place == str(path))
    for check_mode in (True, False):
        with pytest.raises(CaveError, match=f"{path} is mounted read-only. Mount the file system read-write"):
            save(home_of(tmp_path), [request()], "update", check_mode)


def test_a_directory_that_others_may_change_is_closed_before_the_first_file_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".cloudvolume").mkdir()
    (tmp_path / ".cloudvolume").chmod(0o777)
    assert actions(saved(tmp_path))[".cloudvolume"] == "repaired"


def test_a_directory_with_the_name_of_what_a_killed_run_leaves_is_in_nobodys_way(tmp_path: Path) -> None:
    (fill(tmp_path, {}) / f".connectomics-cave-{'0' * 16}.tmp").mkdir()
    assert "removed" not in actions(saved(tmp_path)).values()


@not_root
def test_a_check_says_that_nothing_can_be_locked_where_nothing_can_be_written(tmp_path: Path) -> None:
    saved(tmp_path)
    (secrets_of(tmp_path) / ".connectomics-cave.lock").unlink()
    (tmp_path / ".cloudvolume").chmod(0o777)
    secrets_of(tmp_path).chmod(0o500)
    for check_mode in (True, False):
        with pytest.raises(CaveError, match="No permission to lock"):
            save(home_of(tmp_path), [request()], "update", check_mode)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_a_check_says_what_is_in_the_place_of_the_lock(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}}) / ".connectomics-cave.lock")
    for check_mode in (True, False):
        with pytest.raises(CaveError, match="lock is in the way: it is not a regular file"):
            save(home_of(tmp_path), [request()], "update", check_mode)


def test_absent_does_not_mind_a_malformed_server_map(tmp_path: Path) -> None:
    path = fill(tmp_path, {SERVER_MAP: "{", DEFAULT_FILE: {"token": OLD_TOKEN}}) / SERVER_MAP
    saved(tmp_path, request(None))
    assert path.read_text() == "{"
    assert not saved(tmp_path, request(None))["changed"]


def test_absent_makes_no_directory_that_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    result = saved(tmp_path, request(None), cloud_volume_dir=str(tmp_path / "data"))
    assert "created" not in actions(result).values()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("stale", ["report", "ignore"])
def test_copies_stay_unless_stale_files_are_to_be_updated(stale: str, tmp_path: Path) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, f"{DEFAULT_FILE}~": OLD_TOKEN})
    saved(tmp_path, request(None), stale=stale)
    assert set(picture(secrets_of(tmp_path))) == {f"{DEFAULT_FILE}~"}


# Several requests, several runs ------------------------------------------------------------------------------------


def test_a_reported_stale_file_is_not_touched_at_all(tmp_path: Path) -> None:
    name = "prod.flywire-daf.com-cave-secret.json"
    path = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}, name: {"token": OLD_TOKEN}}) / name
    path.chmod(0o644)
    before = picture(path.parent)[name]
    assert actions(saved(tmp_path, stale="report"))[name] == "stale"
    assert picture(path.parent)[name] == before


def test_what_a_killed_run_left_is_removed_and_reported(tmp_path: Path) -> None:
    saved(tmp_path)
    (secrets_of(tmp_path) / ".connectomics-cave-0123456789abcdef.tmp").write_text(OLD_TOKEN)
    (secrets_of(tmp_path) / ".connectomics-cave-mine.tmp").write_text("not ours")
    result = saved(tmp_path)
    assert actions(result)[".connectomics-cave-0123456789abcdef.tmp"] == "removed"
    assert set(picture(secrets_of(tmp_path))) == {*ALL_FILES, ".connectomics-cave-mine.tmp"}


def test_a_program_that_writes_at_the_same_time_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = _directory.Directory.write

    def interfered(directory: _directory.Directory, name: str, *arguments: Any) -> None:
        write(directory, name, *arguments)
        if name == DEFAULT_FILE:
            (Path(directory.path) / name).write_text(json.dumps({"token": OTHER_TOKEN}))

    monkeypatch.setattr(_directory.Directory, "write", interfered)
    with pytest.raises(CaveError, match=r"Another program changed .*cave-secret\.json while it was written"):
        save(home_of(tmp_path), [request()], "update", check_mode=False)


@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_a_program_without_a_lock_wrote_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    carry_out = _writer._Session.carry_out

    def late(session: Any) -> None:
        fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN, "theirs": OTHER_TOKEN}})
        carry_out(session)

    monkeypatch.setattr(_writer._Session, "carry_out", late)
    asked = request() if state == "present" else request(None)
    with pytest.raises(CaveError, match=r"Another program changed .*cave-secret\.json while it was written"):
        save(home_of(tmp_path), [asked], "update", check_mode=False)
    assert token_in(secrets_of(tmp_path) / DEFAULT_FILE, "theirs") == OTHER_TOKEN


def test_what_another_run_wrote_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN}})
    lock = _directory.Directory.lock

    def late(directory: _directory.Directory) -> None:
        lock(directory)
        (Path(directory.path) / DEFAULT_FILE).write_text(json.dumps({"token": OLD_TOKEN, "theirs": OTHER_TOKEN}))

    monkeypatch.setattr(_directory.Directory, "lock", late)
    save(home_of(tmp_path), [request()], "update", check_mode=False)
    found = json.loads((secrets_of(tmp_path) / DEFAULT_FILE).read_text())
    assert found == {"token": NEW_TOKEN, "theirs": OTHER_TOKEN}


OPERATIONS: dict[str, tuple[dict[str, Any], Request, dict[str, Any]]] = {
    "save": ({DEFAULT_FILE: {"token": OLD_TOKEN}, LEGACY_FILE: {"token": OLD_TOKEN}}, request(), {}),
    "absent": ({DEFAULT_FILE: {"token": OLD_TOKEN}, f"{DEFAULT_FILE}~": OLD_TOKEN, "keep~": "x"}, request(None), {}),
    "set aside": ({DEFAULT_FILE: "{", SERVER_FILE: {"token": OLD_TOKEN}}, request(), {"on_malformed": "replace"}),
    "repair": ({name: {"token": NEW_TOKEN} for name in (SERVER_FILE, LOCAL_FILE, DEFAULT_FILE)}, request(), {}),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_lock_is_held_from_the_first_look_to_the_last_write(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, wanted, options = OPERATIONS[operation]
    secrets = fill(tmp_path, files)
    secrets.chmod(0o755)
    steps: list[str] = []

    def held() -> bool:
        descriptor = os.open(secrets / _directory.LOCK_FILE, os.O_RDWR)
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(_directory.Directory, name)

        def step(directory: _directory.Directory, *arguments: Any) -> Any:
            if steps:
                assert held(), f"not before {name}, after {steps}"
            answer = real(directory, *arguments)
            if steps or name == "lock":
                assert held(), f"not after {name}, after {steps}"
                steps.append(name)
            return answer

        return step

    for name in ("lock", "names", "read", "holds", "write", "remove", "set_aside", "repair"):
        monkeypatch.setattr(_directory.Directory, name, watched(name))
    (result,) = save(home_of(tmp_path, **options), [wanted], "update", check_mode=False)
    assert result["changed"]
    assert {"lock", "names", "read"} < set(steps)
    assert not held(), "it ends with the run"


def test_a_key_that_is_added_while_another_is_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = fill(tmp_path, {DEFAULT_FILE: {"token": OLD_TOKEN, "mine": OTHER_TOKEN}, "keep~": "x"})
    write = _directory.Directory.write
    context = get_context("fork")
    go = context.Event()

    def add() -> None:
        go.wait(30)
        save(home_of(tmp_path), [request(key="added")], "update", check_mode=False)

    other = context.Process(target=add)
    other.start()  # now, for a child of a process that holds a lock has it, too

    def meanwhile(directory: _directory.Directory, *arguments: Any) -> None:
        go.set()
        other.join(0.5)
        assert other.is_alive(), "it waits for the lock"
        write(directory, *arguments)

    monkeypatch.setattr(_directory.Directory, "write", meanwhile)
    save(home_of(tmp_path), [request(None)], "update", check_mode=False)
    other.join(30)
    assert json.loads((secrets / DEFAULT_FILE).read_text()) == {"mine": OTHER_TOKEN, "added": NEW_TOKEN}


def test_a_run_that_changes_nothing_waits_for_nobody(tmp_path: Path) -> None:
    saved(tmp_path)
    descriptor = os.open(secrets_of(tmp_path) / _directory.LOCK_FILE, os.O_RDWR)
    try:
        assert try_lock(descriptor)
        assert not save(home_of(tmp_path), [request()], "update", check_mode=False)[0]["changed"]
    finally:
        os.close(descriptor)


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    save(home_of(tmp_path), [request()], "update", check_mode=False)
    save(home_of(tmp_path), [request(None)], "update", check_mode=False)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
