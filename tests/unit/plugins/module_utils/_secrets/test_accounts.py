# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts are found by what is on the disk, also those that the name service does not list."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import accounts
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import StartupText

pytestmark = pytest.mark.root
ROOT = pwd.getpwuid(0)
SERVICE = accounts.FIRST_USER_ID - 1


def account(name: str, uid: int, home: Path) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", str(home), "/bin/sh"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that lists alice alone, and knows bob and carol when it is asked for them."""
    homes = tmp_path / "home"
    homes.mkdir()
    known = {
        0: ROOT,
        70_001: account("alice", 70_001, homes / "alice"),
        70_002: account("bob", 70_002, homes / "LAB" / "bob"),
        70_003: account("carol", 70_003, tmp_path / "scratch" / "carol"),
    }
    monkeypatch.setattr(accounts, "_ROOTS", (str(homes),))
    monkeypatch.setattr(pwd, "getpwall", lambda: [ROOT, known[70_001]])
    monkeypatch.setattr(pwd, "getpwuid", known.__getitem__)
    made(homes / "alice", 70_001)
    return tmp_path


def made(home: Path, owner: int, *, saved: bool = True) -> Path:
    (home / ".cloudvolume").mkdir(parents=True) if saved else home.mkdir(parents=True)
    for path in (home, home / ".cloudvolume"):
        if path.exists():
            os.chown(path, owner, owner)
    return home


def found(*roots: Path) -> dict[str, Any]:
    return {
        name: one.message if isinstance(one, CaveError) else (one.pw_uid, one.pw_dir)
        for name, one in accounts.accounts_on_host([str(root) for root in roots]).items()
        if name != "root"
    }


@pytest.mark.parametrize("saved", [True, False])
def test_who_is_not_listed_is_found_as_the_owner_of_a_home_up_to_two_levels_down(saved: bool, host: Path) -> None:
    home = made(host / "home" / "LAB" / "bob", 70_002, saved=saved)
    assert found() == {"alice": (70_001, str(host / "home" / "alice")), "bob": (70_002, str(home))}


def test_further_folders_of_homes_are_searched(host: Path) -> None:
    made(host / "scratch" / "carol", 70_003)
    assert "carol" not in found()
    assert found(host / "scratch")["carol"] == (70_003, str(host / "scratch" / "carol"))


def test_a_home_of_roots_counts_for_whom_its_files_belong_to(host: Path) -> None:
    home = made(host / "home" / "bob", 70_002)
    os.chown(home, 0, 0)
    assert "bob" in found()


def test_who_has_files_and_no_account_is_named_by_the_user_id(host: Path) -> None:
    home = made(host / "home" / "gone", 70_009)
    assert found()["70009"] == (70_009, str(home))
    assert accounts.is_without_account("70009", accounts.accounts_on_host()["70009"])
    assert not accounts.is_without_account("alice", accounts.accounts_on_host()["alice"])


def test_a_second_account_of_one_name_is_named_by_the_user_id(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host with a local alice, and another one in its directory service."""
    home, further = host / "net" / "alice", made(host / "home" / "further", 70_003)
    listed = [*pwd.getpwall(), account("alice", 70_002, home)]
    monkeypatch.setattr(pwd, "getpwall", lambda: listed)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: ROOT if uid == 0 else account("alice", uid, further))

    assert found() == {
        "alice": (70_001, str(host / "home" / "alice")),
        "70002": (70_002, str(home)),
        "70003": (70_003, str(further)),
    }
    assert accounts.without_account("70002").endswith("alice is another one of that name.")


def test_what_is_no_home_harms_nobody(host: Path) -> None:
    homes = host / "home"
    (homes / "file").write_text("")
    (homes / "dangling").symlink_to("nowhere")
    (homes / "loop").symlink_to("loop")
    (homes / os.fsdecode(b"\xff\xfe")).mkdir()
    os.mkfifo(homes / "pipe")
    made(host / "elsewhere" / "bob", 70_002)
    (homes / "bob").symlink_to(host / "elsewhere" / "bob")
    assert set(found()) == {"alice", "bob"}


def test_a_home_that_hangs_hides_no_other_and_is_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = host / "home"
    for name in ("LAB", "hangs"):
        made(homes / name / "bob", 70_002)
    real = os.stat

    def hanging(path: Any, **how: Any) -> os.stat_result:
        if str(path).startswith(f"{homes}/hangs"):
            time.sleep(60)
        return real(path, **how)

    monkeypatch.setattr(os, "stat", hanging)
    monkeypatch.setattr(accounts, "_PATIENCE", 4.0)
    begin = time.monotonic()
    names = found()
    assert time.monotonic() - begin < 20
    assert set(names) == {"alice", "bob", str(homes / "hangs")}
    assert f"{homes}/hangs did not answer within 4 s" in names[str(homes / "hangs")]


@pytest.fixture
def service(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, not yet there, of an account of the system."""
    listed = [*pwd.getpwall(), account("service", SERVICE, host / "srv")]
    monkeypatch.setattr(pwd, "getpwall", lambda: listed)
    return host / "srv"


@pytest.mark.parametrize("place", ["missing", "behind a file", "of root", "of somebody else"])
def test_a_service_without_a_home_of_its_own_needs_no_look(place: str, service: Path) -> None:
    if place == "behind a file":
        service.symlink_to(service.parent / "file" / "srv")
        (service.parent / "file").write_text("")
    elif place != "missing":
        made(service, 0 if place == "of root" else 70_001, saved=False)
    assert set(found()) == {"alice"}


@pytest.mark.parametrize("place", ["own", "own behind a link"])
def test_a_service_with_a_home_of_its_own_is_looked_at(place: str, service: Path) -> None:
    made(service if place == "own" else service.parent / "elsewhere", SERVICE, saved=False)
    if place == "own behind a link":
        service.symlink_to(service.parent / "elsewhere")
    assert found()["service"] == (SERVICE, str(service))


@pytest.mark.parametrize("name", [".cloudvolume", ".neuroglancer", ".cloudfiles", ".bashrc", ".sourced", "miniforge3"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_service_whose_home_of_roots_may_lead_to_secrets_files_is_looked_at(
    name: str, kind: str, service: Path
) -> None:
    made(service, 0, saved=False)
    if kind == "folder":
        (service / name).mkdir()
    else:
        (service / name).symlink_to(service.parent / "elsewhere")
    assert found()["service"] == (SERVICE, str(service))


@pytest.mark.parametrize("where", ["environment", "startup file", "option"])
@pytest.mark.parametrize("variable", ["CLOUD_VOLUME_DIR", "CLOUD_FILES_DIR"])
def test_where_secrets_files_may_lie_outside_of_homes_every_service_is_looked_at(
    where: str, variable: str, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del service
    startup = StartupText("/etc/environment", "plain", True, f"{variable}=/data/cave\n")
    monkeypatch.setattr(accounts, "texts_of_host", lambda _home: [startup] if where == "startup file" else [])
    if where == "environment":
        monkeypatch.setenv(variable, "/data/cave")
    assert "service" in accounts.accounts_on_host(usual_places=where != "option")


@pytest.mark.parametrize("trouble", ["hangs", "is closed to root"])
def test_where_a_services_home_cannot_be_asked_for_it_is_looked_at(
    trouble: str, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/")
    real = os.stat

    def asked(path: Any, **how: Any) -> os.stat_result:
        if str(path) == str(service):
            if trouble == "hangs":
                time.sleep(60)
            raise PermissionError(13, "Permission denied")
        return real(path, **how)

    monkeypatch.setattr(os, "stat", asked)
    monkeypatch.setattr(accounts, "_PATIENCE", 0.5)
    assert "service" in found()


def test_an_ordinary_user_finds_no_one_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert list(accounts.accounts_on_host(["/home"])) == [pwd.getpwuid(65534).pw_name]


def test_macos_has_other_places_and_user_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        importlib.reload(accounts)
        assert (accounts._ROOTS, accounts.FIRST_USER_ID) == (("/Users",), 501)
    finally:
        monkeypatch.undo()
        importlib.reload(accounts)


def test_people_of_a_mac_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, or known to a directory alone; what they keep in /Users/Shared is nobody's home."""
    users = tmp_path / "Users"
    known = {
        0: ROOT,
        70: account("_www", 70, tmp_path / "Library" / "WebServer"),
        501: account("ann", 501, users / "ann"),
        1_874_000_001: account("LAB\\ben", 1_874_000_001, users / "ben"),
    }
    monkeypatch.setattr(accounts, "_ROOTS", (str(users),))
    monkeypatch.setattr(accounts, "FIRST_USER_ID", 501)
    monkeypatch.setattr(pwd, "getpwall", lambda: [ROOT, known[70], known[501]])
    monkeypatch.setattr(pwd, "getpwuid", known.__getitem__)
    made(users / "ann", 501)
    made(users / "ben", 1_874_000_001)
    made(users / "Shared" / "of ann", 501, saved=False)
    assert {name: home for name, (_uid, home) in found().items()} == {
        "ann": str(users / "ann"),
        "LAB\\ben": str(users / "ben"),
    }
