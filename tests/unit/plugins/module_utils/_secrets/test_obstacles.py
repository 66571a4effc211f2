# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is advised when a user's home denies something: never what would break the host for others."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import types
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import advice, obstacles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._systems import MACOS, System

GINA, ALICE, NOBODY_KNOWN = 70_001, 70_002, 70_003
needs_root = pytest.mark.root


@pytest.fixture(autouse=True)
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gina and Alice have accounts; both homes lie in tmp_path."""
    known = {
        uid: pwd.struct_passwd((name, "x", uid, uid, "", str(tmp_path / name), "/bin/sh"))
        for uid, name in ((GINA, "gina"), (ALICE, "alice"), (0, "root"))
    }
    monkeypatch.setattr(pwd, "getpwall", lambda: list(known.values()))
    monkeypatch.setattr(pwd, "getpwuid", known.__getitem__)


def made(path: Path, owner: int, mode: int = 0o755) -> str:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    os.chown(path, owner, -1)
    return str(path)


@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY_KNOWN])
@pytest.mark.parametrize("below", ["", ".cloudvolume", ".cloudvolume/secrets"])
def test_what_is_the_users_alone_may_be_given_to_the_user(owner: int, below: str, tmp_path: Path) -> None:
    culprit = made(tmp_path / "gina" / below, owner)
    assert "chown" in advice.advice(culprit, str(tmp_path / "gina"), GINA, "", "")


@pytest.mark.parametrize("culprit", ["/", "/home", "/usr", "/var/lib", "/tmp"])
@pytest.mark.parametrize(
    "home", ["/", "/home", "/var/lib", "/nonexistent", "/home/gina", "/usr/gina", "/var/mail/gina"]
)
def test_no_folder_that_others_use_is_given_away(culprit: str, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = pwd.struct_passwd(("svc", "x", 999, 999, "", "/var/lib/svc", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [service])
    for directory in ("", culprit, f"{culprit}/cv"):
        assert "chown" not in advice.advice(culprit, home, GINA, directory, "")


@pytest.mark.parametrize(
    "home", ["/usr/sbin", "/usr/games", "/etc/opt", "/dev/shm", "/var/mail", "/var/log", "/run/lock"]
)
def test_a_folder_of_the_system_is_not_given_to_the_account_that_has_it_as_home(home: str) -> None:
    assert "chown" not in advice.advice(home, home, GINA, "", "")
    assert "chown" not in advice.advice(f"{home}/.cloudvolume", home, GINA, "", "")


@needs_root
@pytest.mark.parametrize("spelling", ["//home", "/home/.", "/home//", "/home/gina/..", "link"])
def test_no_spelling_of_a_home_gives_the_homes_of_all_away(spelling: str, tmp_path: Path) -> None:
    """A home that is /home by another name belongs to root, and chown follows links."""
    (tmp_path / "link").symlink_to(tmp_path)
    home = str(tmp_path / "link") if spelling == "link" else spelling
    for culprit in (home, f"{home}/.cloudvolume"):
        assert "chown" not in advice.advice(culprit, home, GINA, "", "")


@needs_root
def test_a_link_out_of_a_home_gives_nothing_away(tmp_path: Path) -> None:
    made(tmp_path / "gina", GINA)
    made(tmp_path / "shared", 0)
    (tmp_path / "gina" / ".cloudvolume").symlink_to(tmp_path / "shared")
    assert "chown" not in advice.advice(f"{tmp_path}/gina/.cloudvolume", str(tmp_path / "gina"), GINA, "", "")


@needs_root
def test_a_home_behind_a_link_may_be_given_to_its_user(tmp_path: Path) -> None:
    culprit = made(tmp_path / "disk" / "gina" / ".cloudvolume", 0)
    (tmp_path / "gina").symlink_to(tmp_path / "disk" / "gina")
    assert "chown" in advice.advice(culprit, str(tmp_path / "gina"), GINA, "", "")


@needs_root
def test_a_home_that_somebody_else_has_too_stays_theirs(tmp_path: Path) -> None:
    culprit = made(tmp_path / "alice" / ".cloudvolume", 0)
    assert "chown" not in advice.advice(culprit, str(tmp_path / "alice"), GINA, "", "")


@needs_root
def test_what_belongs_to_another_account_is_not_taken_from_it(tmp_path: Path) -> None:
    culprit = made(tmp_path / "gina" / ".cloudvolume", ALICE)
    assert "chown" not in advice.advice(culprit, str(tmp_path / "gina"), GINA, "", "")


@pytest.mark.root
@pytest.mark.parametrize(("mode", "advised"), [(0o500, "chmod u+rwx"), (0o700, "kinit")])
def test_no_mode_is_advised_that_is_there_already(mode: int, advised: str, tmp_path: Path) -> None:
    """A home on NFS with Kerberos denies everything to a user without a ticket, whatever its mode is."""
    culprit = made(tmp_path / "gina" / ".cloudvolume", GINA)
    Path(culprit).chmod(mode)
    said = advice.advice(culprit, str(tmp_path / "gina"), GINA, "", "")
    assert advised in said
    assert ("chmod" in said) == (advised == "chmod u+rwx")


def test_cloud_volume_dir_is_named_with_the_file_that_sets_it() -> None:
    said = advice.advice("/home", "/home/gina", GINA, "/home", "/home/gina/.profile")
    assert said.startswith("CLOUD_VOLUME_DIR is /home, which belongs to root: change it in /home/gina/.profile")
    said = advice.advice("/usr", "/home/gina", GINA, "/usr/cv", "")
    assert said.startswith("CLOUD_VOLUME_DIR is /usr/cv, and /usr belongs to root: change it in the file that sets it")


@pytest.mark.parametrize("user", [0, GINA])
@pytest.mark.parametrize("path", ["/dev/null", "/etc/passwd"])
def test_no_file_of_the_system_is_to_be_moved_away(user: int, path: str, tmp_path: Path) -> None:
    home = Home("gina", user, str(tmp_path / "gina"), cloud_volume_dir=path)
    with pytest.raises(CaveError) as caught, home.advice():
        raise obstacles.obstructed(f"{path}/secrets")
    said = (
        f"{path} is not a directory, where a directory was expected. CLOUD_VOLUME_DIR is {path}, which belongs to root"
    )
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("value", ["/", "//", "/home/", "/home//"])
def test_no_spelling_of_cloud_volume_dir_hides_it(value: str, tmp_path: Path) -> None:
    home = Home("gina", GINA, str(tmp_path / "gina"), cloud_volume_dir=value)
    with pytest.raises(CaveError, match="CLOUD_VOLUME_DIR is /"), home.advice():
        raise CaveError("No permission.", denied=value)


def test_the_advice_reaches_the_message(tmp_path: Path) -> None:
    home = Home("gina", GINA, str(tmp_path / "gina"), cloud_volume_dir="/home/")
    with pytest.raises(CaveError) as caught, home.advice():
        raise CaveError("No permission to make /home/secrets.", denied="/home", other=1)
    assert (
        "No permission to make /home/secrets. CLOUD_VOLUME_DIR is /home, which belongs to root" in caught.value.message
    )
    assert caught.value.details == {"other": 1}


@pytest.mark.parametrize(
    ("home", "says"),
    [
        ("/", "gina has no home of their own (/)"),
        ("", "gina has no home of their own (none)"),
        ("relative", "gina has no home of their own (relative)"),
        ("//", "gina has no home of their own (//)"),
        ("/./", "gina has no home of their own (/./)"),
        ("/nonexistent/gina", "/nonexistent/gina, does not exist on this host"),
        ("/dev/null", "/dev/null, does not exist on this host"),
    ],
)
def test_who_has_no_home_is_told_so(home: str, says: str) -> None:
    with pytest.raises(CaveError) as caught:
        obstacles.require_home("gina", GINA, home)
    assert says in caught.value.message
    assert "chown" not in caught.value.message
    assert caught.value.details == {"no_home": "gina"}


@needs_root
def test_an_unmounted_home_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "fstab"
    home = made(tmp_path / "gina", 0)
    table.write_text(f"# homes\nproc /proc proc\nfiler:/homes/gina {home} nfs defaults 0 0\nbroken\n")
    monkeypatch.setattr(advice, "_FSTAB", str(table))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(
        CaveError, match=rf"{home}, is not mounted, though /etc/fstab has it. Mount it \(mount {home}\)"
    ):
        obstacles.require_home("gina", GINA, home)
    table.write_text("")
    with pytest.raises(CaveError, match=r"belongs to root with mode 0755. Give it to gina \(chown gina\)"):
        obstacles.require_home("gina", GINA, home)


@needs_root
def test_a_home_of_somebody_else_is_not_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path / "alice", ALICE)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CaveError, match=r"^gina has no home of their own: .*/alice, belongs to alice") as caught:
        obstacles.require_home("gina", GINA, home)
    assert "chown" not in caught.value.message
    made(tmp_path / "alice" / ".cloudvolume", ALICE)
    obstacles.require_home("gina", GINA, home)  # what is there is worth a look


def test_a_volume_of_kubernetes_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "..2026_11").mkdir()
    (tmp_path / "..data").symlink_to("..2026_11")
    monkeypatch.setattr(obstacles, "is_read_only", lambda path: True)
    error = obstacles.not_permitted(str(tmp_path), "write")
    assert "mounted read-only, a volume that Kubernetes fills from a Secret. Change the Secret" in error.message
    assert "denied" not in error.details


def test_a_file_that_is_locked_on_a_mac_is_named_with_the_command_of_macos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = types.SimpleNamespace(st_flags=stat.UF_IMMUTABLE, st_mode=stat.S_IFREG)
    monkeypatch.setattr(os, "lstat", lambda path: locked)
    assert obstacles.is_immutable("/Users/ann/file")
    locked.st_flags = 0
    assert not obstacles.is_immutable("/Users/ann/file")
    monkeypatch.setattr(obstacles, "this_system", lambda: System(MACOS))
    error = obstacles.immutable("/Users/ann/a file", "write it")
    assert "Allow changes (sudo chflags nouchg,noschg '/Users/ann/a file')" in error.message


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ESTALE, "Mount the file server's directory anew"),
        (errno.EIO, "Check the disk or the file server"),
        (errno.ENOTCONN, "Mount it anew: the program that served it (FUSE, such as sshfs) has ended"),
        (errno.ETIMEDOUT, "Check the file server and the network"),
        (errno.ENOKEY, "Unlock the encrypted home (its user logs in, or fscrypt unlock)"),
    ],
)
def test_a_home_whose_file_server_does_not_answer_is_named_with_the_reason(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, look = str(tmp_path), os.stat

    def fail(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if path == home:
            raise OSError(number, os.strerror(number), path)
        return look(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(CaveError) as error:
        obstacles.require_home("gina", os.getuid(), home)
    expected = (
        f"The home directory of gina, {home}, cannot be used: {os.strerror(number)}. {remedy}, then run this again."
    )
    assert error.value.message == expected
