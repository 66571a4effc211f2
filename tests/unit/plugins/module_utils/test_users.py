# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work done as another user."""

from __future__ import annotations

import errno
import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import LOCK_PATIENCE
from ansible_collections.connectomics.cave.plugins.module_utils._users import Job, find_user, run_as, run_each_as

root = pytest.mark.root
ME = _users.current_user()
NOBODY = pwd.getpwnam("nobody")


def each(functions: list[Callable[[], Any]], timeout: float = 30) -> list[Any]:
    """Run functions in children that stay whoever runs the tests. A second job makes sure that there are children."""
    return run_each_as([Job(ME, function) for function in [*functions, os.getpid]], timeout)[:-1]


def who_i_am() -> dict[str, Any]:
    return {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "umask": f"{os.umask(0):03o}",
        "folder": str(Path.cwd()),
    }


def test_an_unknown_user_is_refused_by_name() -> None:
    with pytest.raises(CaveError, match=r"no user 'nobody-of-that-name'.*Create the account"):
        find_user("nobody-of-that-name")


@pytest.mark.parametrize("name", ["", "../root", "a\0b", "\ud800", "root; id", "4294967294", "9" * 30])
def test_a_name_that_is_none_is_an_unknown_user(name: str) -> None:
    with pytest.raises(CaveError, match="has no user"):
        find_user(name)


@pytest.mark.parametrize("name", [f"{NOBODY.pw_uid}", f" {NOBODY.pw_name}", f"{NOBODY.pw_name}\n"])
def test_who_is_named_by_the_user_id_or_with_white_space_is_not_taken_for_somebody_who_is_not_there(name: str) -> None:
    """Else there would be nothing to remove, which is all right."""
    with pytest.raises(CaveError, match=f"Did you mean {NOBODY.pw_name}") as caught:
        find_user(name)
    assert "unknown_user" not in caught.value.details


def test_an_ordinary_user_works_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    with pytest.raises(CaveError, match=r"Running as nobody, which cannot work for root.*become: true"):
        find_user("root")


def test_the_home_is_the_one_that_the_users_programs_go_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_user(ME.pw_name).pw_dir == str(tmp_path)


@pytest.mark.parametrize("home", ["", "relative", "/nowhere/at/all"])
def test_a_home_that_is_none_is_not_believed(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert find_user(ME.pw_name).pw_dir == pwd.getpwuid(os.geteuid()).pw_dir


@root
def test_a_home_that_belongs_to_somebody_else_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, NOBODY.pw_uid, -1)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_user("root").pw_dir == pwd.getpwnam("root").pw_dir


@root
def test_a_child_has_become_the_user_for_good() -> None:
    found = run_as(NOBODY, who_i_am)
    assert found["uids"] == [NOBODY.pw_uid] * 3
    assert found["gids"] == [NOBODY.pw_gid] * 3
    assert found["groups"] == sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert found["umask"] == "077"
    assert found["folder"] == "/"


@root
def test_who_has_more_groups_than_the_system_takes_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS takes 16."""
    many = [NOBODY.pw_gid, *range(70001, 70040)]
    monkeypatch.setattr(os, "getgrouplist", lambda name, group: many)
    monkeypatch.setattr(os, "sysconf", {"SC_NGROUPS_MAX": 16}.__getitem__)
    assert run_as(NOBODY, who_i_am)["groups"] == sorted(many[:16])


@root
def test_a_child_cannot_become_root_again() -> None:
    def climb() -> str:
        try:
            os.setuid(0)
        except PermissionError:
            return "refused"
        return "root"

    assert run_as(NOBODY, climb) == "refused"


def test_a_child_holds_nothing_of_its_parents_but_the_way_for_its_answer(tmp_path: Path) -> None:
    """Neither another user's answer, nor the output for whose end sshd would wait with a child that hangs."""

    def open_files() -> list[str]:
        time.sleep(0.05)
        return [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]

    with (tmp_path / "open").open("w"):
        for files in each([open_files] * 5):
            assert sorted(set(files) - {"/dev/null"})[0].startswith("pipe:")
            assert len(set(files)) == 2


@root
def test_a_second_account_with_the_same_user_id_has_a_home_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = pwd.struct_passwd(("toor", "x", 0, 0, "", "/home/toor", "/bin/sh"))
    known = {"root": pwd.getpwuid(0), "toor": twin}
    monkeypatch.setattr(pwd, "getpwnam", known.__getitem__)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setenv("USER", "root")
    assert find_user("root").pw_dir == str(tmp_path)
    assert find_user("toor").pw_dir == "/home/toor"
    monkeypatch.setenv("USER", "toor")
    assert find_user("root").pw_dir == known["root"].pw_dir
    assert find_user("toor").pw_dir == _users.current_user().pw_dir == str(tmp_path)


def test_a_name_is_found_by_its_utf8_form_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """In de_DE.ISO-8859-1, Python asks the system for the wrong bytes."""
    known = {"josÃ©": ME}
    monkeypatch.setattr(pwd, "getpwnam", known.__getitem__)
    monkeypatch.setattr(_users, "system_name", lambda name: name.encode().decode("latin-1"))
    assert find_user("josé").pw_uid == ME.pw_uid


@root
@pytest.mark.parametrize("call", ["setgroups", "setgid", "setuid"])
def test_a_host_that_forbids_to_become_the_user_is_named_as_that(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(_value: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, call, forbid)
    refused, own = run_each_as([Job(NOBODY, os.getpid), Job(ME, os.getpid)])
    assert isinstance(own, int)
    assert "Cannot work as nobody: this host does not let root change to user id" in refused.message


@root
@pytest.mark.parametrize("place", [2, 3])
@pytest.mark.parametrize("number", [-1, 2**32 - 1])
def test_an_id_that_no_process_can_have_is_named_as_that(place: int, number: int) -> None:
    user = pwd.struct_passwd((*NOBODY[:place], number, *NOBODY[place + 1 :]))
    refused, own = run_each_as([Job(user, os.getpid), Job(ME, os.getpid)])
    assert isinstance(own, int)
    assert "id 4294967295, which no process can have" in refused.message
    assert "container" not in refused.message


@root
@pytest.mark.parametrize("name", [os.fsdecode(b"jos\xe9"), "josé"])
def test_a_name_of_any_bytes_is_worked_for(name: str) -> None:
    user = pwd.struct_passwd((name, *NOBODY[1:]))
    assert run_as(user, os.getgroups) == [NOBODY.pw_gid]


def test_homes_that_hang_keep_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_users, "_HANGS_AFTER", 0.2)
    begin = time.monotonic()
    *hanging, last = each([lambda: time.sleep(60)] * 60 + [os.getpid], timeout=4)
    assert time.monotonic() - begin < 15  # sixteen at a time, each until its end, would be 16 s
    assert isinstance(last, int)
    assert all(error.details["hangs"] == ME.pw_dir for error in hanging)


def test_a_module_that_works_twice_as_users_whose_homes_hang_ends_before_its_task_is_given_up() -> None:
    root = Path(__file__).resolve().parents[4]
    defaults = yaml.safe_load((root / "roles" / "caveclient" / "defaults" / "main.yml").read_text())
    assert 2 * _users.PATIENCE + LOCK_PATIENCE < defaults["caveclient_task_timeout"]
    assert LOCK_PATIENCE < _users.PATIENCE, "who waits for the lock says so before being given up as a home that hangs"


def test_a_single_job_of_ones_own_needs_no_child_and_leaves_no_trace() -> None:
    before = os.umask(0o022)
    assert run_as(ME, os.getpid) == os.getpid()
    assert os.umask(before) == 0o022


def test_results_come_in_the_jobs_order_whoever_is_first() -> None:
    def job(number: int) -> Callable[[], int]:
        def work() -> int:
            time.sleep(0.05 if number % 2 else 0)
            return number

        return work

    assert each([job(number) for number in range(40)]) == list(range(40))


def test_one_failure_stops_no_other() -> None:
    def fail() -> None:
        raise CaveError("This went wrong.", path="/x")

    first, second, third = each([os.getpid, fail, os.getpid])
    assert isinstance(first, int)
    assert isinstance(third, int)
    assert isinstance(second, CaveError)
    assert (second.message, second.details) == ("This went wrong.", {"path": "/x"})


@pytest.mark.parametrize("count", [0, 1], ids=["here", "in-a-child"])
def test_an_unexpected_error_says_where_it_was_and_shows_no_value(count: int) -> None:
    def stumble() -> None:
        raise ValueError("the secret 0123456789abcdef")

    jobs = [Job(ME, stumble)] + [Job(ME, os.getpid)] * count
    error = run_each_as(jobs)[0]
    assert isinstance(error, CaveError)
    assert "Unexpected error at test_users.py:" in error.message
    assert "ValueError" in error.message
    assert "0123456789abcdef" not in error.message


def test_a_child_that_is_killed_is_reported_as_that() -> None:
    (error,) = each([lambda: os.kill(os.getpid(), signal.SIGKILL)])
    assert isinstance(error, CaveError)
    assert f"worked as {ME.pw_name} ended without an answer" in error.message


def test_a_home_that_hangs_is_given_up_after_the_timeout() -> None:
    begin = time.monotonic()
    first, second = each([lambda: time.sleep(60), os.getpid], timeout=4)
    assert time.monotonic() - begin < 20
    assert isinstance(first, CaveError)
    assert "did not answer within 4 s" in first.message
    assert isinstance(second, int)


def test_a_large_answer_arrives_whole() -> None:
    (answer,) = each([lambda: "é" * 1_000_000])
    assert answer == "é" * 1_000_000


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_users, "_MAX_ANSWER", 100_000)
    (error,) = each([lambda: "x" * 1_000_000])
    assert isinstance(error, CaveError)


def test_lone_surrogates_in_an_answer_arrive() -> None:
    assert each([lambda: "\ud800"]) == ["\ud800"]


def test_an_answer_that_is_no_json_is_an_error_of_that_job() -> None:
    first, second = each([object, os.getpid])
    assert isinstance(first, CaveError)
    assert isinstance(second, int)


def test_no_room_for_a_process_is_an_error_of_that_job_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", full)
    before = sorted(Path("/proc/self/fd").iterdir())
    results = run_each_as([Job(ME, os.getpid)] * 3)
    assert all("Cannot start a process" in error.message for error in results)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_where_files_or_processes_are_limited_the_rest_waits_until_there_is_room() -> None:
    """A limit of 14 open files, of which each child takes one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with_limits = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(hard)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert with_limits.stdout.split() == [str(number) for number in range(30)], with_limits.stderr


_LIMITED = """
import functools, os, pwd, resource, sys, time
from ansible_collections.connectomics.cave.plugins.module_utils._users import Job, run_each_as
me = pwd.getpwuid(os.geteuid())
resource.setrlimit(resource.RLIMIT_NOFILE, (14, int(sys.argv[1])))
def slow(number):
    time.sleep(0.05)
    return number
print(*run_each_as([Job(me, functools.partial(slow, number)) for number in range(30)]))
"""


def children() -> set[str]:
    """Return the processes, zombies included, that this one has started."""
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


def test_no_process_stays_behind() -> None:
    before = children()
    each([os.getpid] * 20)
    assert children() <= before
    each([lambda: time.sleep(60)] * 2, timeout=0.2)
    deadline = time.monotonic() + 20
    while (left := children() - before) and time.monotonic() < deadline:
        os.waitpid(int(left.pop()), 0)  # it was killed; a busy machine takes longer for that than a run waits
    assert children() <= before
    assert time.monotonic() < deadline


def test_an_answer_is_json() -> None:
    assert each([lambda: {"list": (1, 2)}]) == [json.loads('{"list": [1, 2]}')]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("alice", "alice"),
        ("caf\u00e9", "caf\u00e9"),
        ("a\nok: [host]", "'a\\nok: [host]'"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("a\u202eb", "'a\\u202eb'"),
    ],
)
def test_a_name_that_would_act_on_a_terminal_is_shown_with_escapes(name: str, shown: str) -> None:
    assert _users.shown(name) == shown


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_what_users_may_not_read_is_imported_before_a_process_becomes_one(mode: int, tmp_path: Path) -> None:
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
            above.chmod(0o755)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib").chmod(mode)
    program = f"""
import os, sys
from {_users.__name__} import _import_what_users_may_not_read
names = ["glob", "grp", "urllib.parse"]
for name in names:
    sys.modules.pop(name, None)
os.__file__ = {str(tmp_path / "lib" / "os.py")!r}
_import_what_users_may_not_read()
print([name in sys.modules for name in names])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == f"{[mode == 0o700] * 3}\n", done.stderr
