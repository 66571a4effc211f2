# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from homes import let_in, open_way

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

ME = os.geteuid()
SOMEBODY, ANOTHER = 64001, 64002


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in an environment of this process's account."""
    program = tmp_path / "env" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    (tmp_path / "env" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    return program


def open_folder(program: Path) -> str:
    program.parents[1].chmod(0o775)
    return "env can be changed by the group"


def open_to_everybody(program: Path) -> str:
    program.parent.chmod(0o707)
    return r"env/bin can be changed by everybody \(mode 0707\)"


def open_program(program: Path) -> str:
    program.chmod(0o666)
    return r"python can be changed by everybody \(mode 0666\)"


def link_out_of_an_open_folder(program: Path) -> str:
    away = program.parents[2] / "away"
    away.mkdir()
    away.chmod(0o777)
    program.rename(away / "python3")
    program.symlink_to("../../away/python3")
    return "away can be changed by everybody"


def link_to_a_link_in_an_open_folder(program: Path) -> str:
    link_out_of_an_open_folder(program)
    away = program.parents[2] / "away"
    (away / "python3").rename(program.with_name("real"))
    (away / "python3").symlink_to(program.with_name("real"))
    return "away can be changed by everybody"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(
            open_folder, marks=pytest.mark.root
        ),  # root has no group of its own that could be meant for others
        *(open_to_everybody, open_program, link_out_of_an_open_folder, link_to_a_link_in_an_open_folder),
    ],
)
def test_whoever_can_write_a_program_or_a_folder_or_link_on_the_way_to_it_can_change_it(
    program: Path, spoil: Callable[[Path], str]
) -> None:
    assert _trust.changeable(str(program), (0, ME)) == ""
    with pytest.raises(AssertionError, match=spoil(program)):
        raise AssertionError(_trust.changeable(str(program), (0, ME)))


@pytest.mark.root
@pytest.mark.parametrize("number", range(4))
def test_nothing_on_the_way_belongs_to_somebody_else(program: Path, number: int) -> None:
    link = program.with_name("python3")
    link.symlink_to("python")
    os.chown([program, program.parent, program.parents[1], link][number], SOMEBODY, SOMEBODY, follow_symlinks=False)

    assert f"belongs to the user id {SOMEBODY}" in _trust.changeable(str(link), (0,))
    assert _trust.changeable(str(link), (0, SOMEBODY)) == ""
    assert f"belongs to the user id {SOMEBODY}" in _trust.changeable(str(link), (0, ANOTHER))


def test_a_folder_with_the_sticky_bit_may_be_on_the_way_but_not_at_its_end(program: Path) -> None:
    program.parents[1].chmod(0o1777)

    assert _trust.changeable(str(program), (0, ME)) == ""
    assert _trust.changeable(str(program.parents[1] / "new" / "one"), (0, ME)) == ""
    assert "can be changed by everybody" in _trust.changeable(str(program.parents[1]), (0, ME))


def test_what_is_missing_can_be_planted_where_others_can_write(program: Path) -> None:
    missing = str(program.parents[1] / "gone" / "python")

    assert _trust.changeable(missing, (0, ME)) == ""
    program.parents[1].chmod(0o777)
    assert "can be changed by everybody" in _trust.changeable(missing, (0, ME))


def test_links_that_lead_in_a_circle_are_no_way(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    assert "cannot be looked at" in _trust.changeable(str(tmp_path / "a"), (0, ME))


@pytest.mark.parametrize("path", ["env/../env/bin/python", "env/./bin//python", "env/bin/python/", "link/bin/python"])
def test_a_way_is_the_same_however_it_is_written(program: Path, path: str) -> None:
    root = program.parents[2]
    (root / "link").symlink_to("env")
    steps = _trust.way_to(f"{root}/{path}").steps

    assert steps[0].path == "/"
    assert steps[-1].path == str(program)


def test_what_a_python_imports_on_every_start_counts_as_well(program: Path) -> None:
    packages = program.parents[1] / "lib" / "python3.11" / "site-packages"
    assert _trust.python_changeable(str(program), (0, ME)) == ""

    packages.chmod(0o777)
    assert str(packages) in _trust.python_changeable(str(program), (0, ME))


@pytest.mark.parametrize("line", ["{away}", "../../../../away", "# a comment\n{away}\n"])
def test_a_folder_that_a_pth_file_adds_counts_as_well(program: Path, line: str) -> None:
    """It is imported from also with -I: whatever caveclient tries to import and lacks would be found there."""
    away = program.parents[2] / "away"
    away.mkdir(mode=0o755)
    packages = program.parents[1] / "lib" / "python3.11" / "site-packages"
    (packages / "lab.pth").write_text(line.format(away=away))
    (packages / "more.pth").write_text("import os\n/does/not/exist\n\n")
    assert _trust.python_changeable(str(program), (0, ME)) == ""

    (away / "numba.py").touch(mode=0o644)
    (away / "numba.py").chmod(0o666)
    assert "numba.py can be changed by everybody" in _trust.python_changeable(str(program), (0, ME))
    (away / "numba.py").unlink()
    away.chmod(0o777)
    assert "away can be changed by everybody" in _trust.python_changeable(str(program), (0, ME))


@pytest.mark.root
@pytest.mark.parametrize("place", ["sub/deep", "sub/deep/module.py", "sub", "linked/module.py"])
def test_all_that_is_below_a_folder_counts_where_all_of_it_is_used(tmp_path: Path, place: str) -> None:
    for folder in ("library/sub/deep", "away"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "module.py").touch(mode=0o644)
    (tmp_path / "library" / "linked").symlink_to("../away")
    (tmp_path / "library" / "sub" / "up").symlink_to("..")
    (tmp_path / "library" / "gone").symlink_to("nowhere")
    _trust.check("find_links", str(tmp_path / "library"), "Do this.", everything=True)

    os.chown(tmp_path / "library" / place, SOMEBODY, SOMEBODY)
    with pytest.raises(CaveError, match=rf"find_links: .* belongs to the user id {SOMEBODY}, so root .* Do this\."):
        _trust.check("find_links", str(tmp_path / "library"), "Do this.", everything=True)


@pytest.mark.parametrize("name", ["lab.pth", "sitecustomize.py", "caveclient"])
def test_what_a_link_among_the_packages_leads_to_counts_as_well(program: Path, name: str) -> None:
    """Python reads it on every start, with -I too: a user's own file behind a link of root's is the user's code."""
    away = program.parents[2] / "away"
    away.mkdir(mode=0o755)
    (program.parents[1] / "lib" / "python3.11" / "site-packages" / name).symlink_to(away / name)
    assert _trust.python_changeable(str(program), (0, ME)) == ""
    (away / name).touch(mode=0o644)
    assert _trust.python_changeable(str(program), (0, ME)) == ""

    (away / name).chmod(0o666)
    assert f"{name} can be changed by everybody" in _trust.python_changeable(str(program), (0, ME))
    (away / name).unlink()
    away.chmod(0o777)
    assert "away can be changed by everybody" in _trust.python_changeable(str(program), (0, ME))


@pytest.mark.root
def test_whom_an_access_control_list_lets_write_can_change_it_too(program: Path) -> None:
    """The mode looks like that of a folder of a group of one's own, which is trusted."""
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid)
    os.chown(program.parent, nobody.pw_uid, group.gr_gid)
    program.parent.chmod(0o775)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_trust, "_is_private_group", lambda _gid, _uid: True)
        assert _trust.changeable(str(program), (0, nobody.pw_uid)) == ""
        let_in(program.parent, SOMEBODY)
        assert "bin can be changed by whom its access control list names" in _trust.changeable(
            str(program), (0, nobody.pw_uid)
        )


@pytest.mark.root
@pytest.mark.parametrize("name", ["lab.pth", "sitecustomize.py", "packaging"])
def test_a_users_file_among_the_packages_of_a_python_counts_as_well(program: Path, name: str) -> None:
    file = program.parents[1] / "lib" / "python3.11" / "site-packages" / name
    file.touch()
    assert _trust.python_changeable(str(program), (0,)) == ""

    os.chown(file, SOMEBODY, SOMEBODY)
    assert f"{file} belongs to the user id {SOMEBODY}" in _trust.python_changeable(str(program), (0,))


def test_the_python_behind_an_environment_counts_as_well(program: Path, tmp_path: Path) -> None:
    base = tmp_path / "base" / "bin"
    base.mkdir(parents=True)
    (program.parents[1] / "pyvenv.cfg").write_text(f"home = {base}\nversion = 3.11.2\n")
    if ME == 0:  # as daemon owns /usr/bin/at
        (base / "at").touch()
        os.chown(base / "at", SOMEBODY, SOMEBODY)
    assert _trust.python_changeable(str(program), (0, ME)) == ""

    base.chmod(0o777)
    assert str(base) in _trust.python_changeable(str(program), (0, ME))


@pytest.mark.root
def test_what_belongs_to_one_user_is_for_that_user_and_what_several_can_change_for_nobody(program: Path) -> None:
    prefix = program.parents[1]
    assert _trust.account_for("interpreter", str(program), "Do this.") is None

    os.chown(prefix, 65534, 65534)
    user = _trust.account_for("interpreter", str(program), "Do this.")
    assert user is not None
    assert user.pw_uid == 65534

    os.chown(program, SOMEBODY, SOMEBODY)
    with pytest.raises(CaveError, match=r"interpreter: .* is not used\. Do this\."):
        _trust.account_for("interpreter", str(program), "Do this.")

    os.chown(prefix, SOMEBODY, SOMEBODY)
    with pytest.raises(CaveError, match=f"belongs to the user id {SOMEBODY}, which has no account"):
        _trust.account_for("interpreter", str(program), "Do this.")


@pytest.mark.root
def test_a_group_of_several_can_change_a_users_files(program: Path) -> None:
    os.chown(program.parents[1], 65534, 65534)
    program.parents[1].chmod(0o775)

    with pytest.raises(CaveError, match="can be changed by the group"):
        _trust.account_for("interpreter", str(program), "Do this.")


def test_what_is_closed_to_others_is_named(program: Path) -> None:
    open_way(program.parent)
    assert _trust.closed_to_others(str(program)) == ""

    program.parent.chmod(0o750)
    assert _trust.closed_to_others(str(program)) == f"{program.parent} is closed to them (mode 0750)"


def test_a_file_system_for_programs_is_not_mounted_noexec() -> None:
    assert _trust.no_programs_from(sys.executable) == ""
    if os.statvfs("/proc").f_flag & os.ST_NOEXEC:
        assert _trust.no_programs_from("/proc/gone/deep/down") == "/proc"


@pytest.mark.parametrize(("members", "is_refused"), [([], False), (["mallory"], True)])
def test_what_only_a_group_without_members_can_change_below_usr_local_is_trusted(
    program: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], is_refused: bool
) -> None:
    """As on Debian up to 11, where /usr/local is of the group staff, which has no members."""
    open_folder(program)
    folder = program.parents[1]
    if ME:
        monkeypatch.setattr(_trust, "_is_private_group", lambda _gid, _uid: False)
    monkeypatch.setattr(_trust.grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, members)))
    monkeypatch.setattr(_trust.pwd, "getpwall", list)
    assert "can be changed by the group" in _trust.changeable(str(program), (0, ME))  # elsewhere

    monkeypatch.setattr(_trust, "_OF_STAFF", f"{folder}/")

    assert bool(_trust.changeable(str(program), (0, ME))) is is_refused
