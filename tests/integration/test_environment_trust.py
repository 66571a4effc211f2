# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user of the host who plants programs, builds, links and caches where root installs: none of it is run as root."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stub_wheels
from ansible_run import run_tasks
from homes import User, real_group, real_user
from module_runner import Outcome, run_module

pytestmark = pytest.mark.root
PYTHON = "/usr/bin/python3"
UV = Path(sys.executable).with_name("uv")


class Host:
    """A host with root's wheels, and a user Alice who has planted a program that writes down who runs it."""

    def __init__(self, folder: Path, wheels: Path, alice: User) -> None:
        self.folder = folder
        self.wheels = wheels
        self.alice = alice
        self.path = folder / "opt" / "caveclient"
        self.jupyter = folder / "jupyter"
        self.runs = folder / "runs"
        self.runs.touch()
        self.runs.chmod(0o666)
        self.environment = {"PATH": f"{UV.parent}:/usr/bin:/bin", "UV_CACHE_DIR": str(folder / "uv-cache")}

    def __call__(self, check: bool = False, **options: Any) -> Outcome:
        given = {
            "path": str(self.path),
            "python": PYTHON,
            "jupyter_dir": str(self.jupyter),
            "find_links": [str(self.wheels)],
            "remote_src": True,
            "offline": True,
            "version": "8.2.1",
            **options,
        }
        if "interpreter" in given:
            del given["path"]
        return run_module("caveclient", given, self.folder, check=check, environment=self.environment)

    def payload(self, path: Path) -> Path:
        """Plant a Python of Alice's."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\n/usr/bin/id -u >> {self.runs}\nexec {PYTHON} "$@"\n')
        path.chmod(0o755)
        return path

    def ran_as(self) -> set[str]:
        """The user ids that have run what Alice has planted."""
        return set(self.runs.read_text().split())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_wheels.lab(tmp_path_factory.mktemp("wheels"), "8.0.0", "8.2.1")


@pytest.fixture
def host(tmp_path: Path, wheels: Path) -> Iterator[Host]:
    with real_group() as group, real_user(group, tmp_path) as alice:
        alice.home.chmod(0o755)
        yield Host(tmp_path, wheels, alice)


# What root is asked to use: options, after planting


def a_python_below_a_folder_of_a_group(host: Host) -> dict[str, Any]:
    shared = host.folder / "shared"
    python = host.payload(shared / "env" / "bin" / "python")
    shared.chmod(0o775)
    return {"interpreter": str(python)}


def a_python_of_roots_with_packages_of_alices(host: Host) -> dict[str, Any]:
    python = host.payload(host.folder / "env" / "bin" / "python")
    packages = host.folder / "env" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    os.chown(packages, host.alice.uid, host.alice.gid)
    return {"interpreter": str(python)}


def a_python_that_two_users_own(host: Host) -> dict[str, Any]:
    python = host.payload(host.alice.home / "env" / "bin" / "python")
    host.alice.owns(host.alice.home)
    os.chown(python, 65534, 65534)
    return {"interpreter": str(python)}


def a_folder_of_alices_as_the_path(host: Host) -> dict[str, Any]:
    host.path.parent.mkdir()
    host.path.parent.chmod(0o1777)
    host.path.mkdir()
    build = host.path / "builds" / "20260101T000000Z-0123abcd"
    host.payload(build / "bin" / "python")
    host.path.joinpath("current").symlink_to(f"builds/{build.name}")
    host.alice.owns(host.path)
    return {}


def an_empty_folder_of_alices_as_the_path(host: Host) -> dict[str, Any]:
    host.path.parent.mkdir()
    host.path.parent.chmod(0o1777)
    host.path.mkdir()
    host.alice.owns(host.path)
    return {}


def a_link_of_alices_as_the_path(host: Host) -> dict[str, Any]:
    host.path.parent.mkdir()
    host.path.parent.chmod(0o1777)
    (host.folder / "elsewhere").mkdir()
    host.path.symlink_to(host.folder / "elsewhere")
    os.chown(host.path, host.alice.uid, host.alice.gid, follow_symlinks=False)
    return {}


def a_path_in_a_folder_that_all_can_write(host: Host) -> dict[str, Any]:
    host.path.parent.mkdir()
    host.path.parent.chmod(0o777)
    return {}


def a_python_of_alices(host: Host) -> dict[str, Any]:
    python = host.payload(host.alice.home / "bin" / "python3")
    host.alice.owns(host.alice.home)
    return {"python": str(python)}


def a_script_of_roots_that_starts_a_python_of_alices(host: Host) -> dict[str, Any]:
    python = host.folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {host.alice.home}/bin/python3 "$@"\n')
    python.chmod(0o755)
    (host.alice.home / "bin").mkdir()
    shutil.copy(PYTHON, host.alice.home / "bin" / "python3")
    host.alice.owns(host.alice.home)
    return {"python": str(python)}


def wheels_of_alices(host: Host) -> dict[str, Any]:
    wheels = stub_wheels.lab(host.alice.home / "wheels", "8.2.1")
    host.alice.owns(host.alice.home)
    return {"find_links": [str(wheels)]}


def a_wheel_of_alices_in_roots_folder(host: Host) -> dict[str, Any]:
    wheels = stub_wheels.lab(host.folder / "wheels", "8.2.1")
    host.alice.owns(next(wheels.glob("numpy-*.whl")))
    return {"find_links": [str(wheels)]}


def a_package_of_alices(host: Host) -> dict[str, Any]:
    wheel = next(stub_wheels.lab(host.alice.home / "wheels", "8.2.1").glob("matplotlib-*.whl"))
    host.alice.owns(host.alice.home)
    return {"packages": [f"matplotlib @ file://{wheel}"]}


@pytest.mark.parametrize("how", [{}, {"check": True}, {"state": "absent"}, {"state": "absent", "check": True}], ids=str)
@pytest.mark.parametrize(
    ("plant", "option"),
    [
        (a_python_below_a_folder_of_a_group, "interpreter"),
        (a_python_of_roots_with_packages_of_alices, "interpreter"),
        (a_python_that_two_users_own, "interpreter"),
        (a_folder_of_alices_as_the_path, "path"),
        (an_empty_folder_of_alices_as_the_path, "path"),
        (a_link_of_alices_as_the_path, "path"),
        (a_path_in_a_folder_that_all_can_write, "path"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_root_refuses_what_others_can_change(
    host: Host, plant: Callable[[Host], dict[str, Any]], option: str, how: dict[str, Any]
) -> None:
    done = host(**plant(host), **how)

    assert not done.ok
    assert done.message.startswith(f"{option}: ")
    assert host.ran_as() == set()


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("plant", "option"),
    [
        (a_python_of_alices, "python"),
        (a_script_of_roots_that_starts_a_python_of_alices, "python"),
        (wheels_of_alices, "find_links"),
        (a_wheel_of_alices_in_roots_folder, "find_links"),
        (a_package_of_alices, "packages"),
    ],
)
def test_root_installs_with_and_from_nothing_that_others_can_change(
    host: Host, plant: Callable[[Host], dict[str, Any]], option: str, check: bool
) -> None:
    done = host(**plant(host), check=check)

    assert not done.ok
    assert done.message.startswith(f"{option}: ")
    assert host.alice.name in done.message
    assert host.ran_as() == set()
    assert not (host.path / "current").exists()


@pytest.mark.parametrize("how", [{}, {"check": True}, {"state": "absent"}, {"state": "absent", "check": True}], ids=str)
def test_root_installs_into_no_environment_in_whose_depths_a_user_can_write(host: Host, how: dict[str, Any]) -> None:
    prefix = host.folder / "env"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", prefix], check=True)
    python = str(prefix / "bin" / "python")
    assert host(interpreter=python, version="8.0.0").ok
    cache = next(prefix.glob("lib/python3.*/site-packages")) / "lab" / "__pycache__"
    cache.mkdir(parents=True)
    cache.chmod(0o777)  # as administrators do for numba

    done = host(interpreter=python, **how)

    assert done.message.startswith("interpreter: ")
    assert f"{cache} can be changed by everybody" in done.message
    assert list(prefix.glob("lib/python3.*/site-packages/caveclient-8.0.0.dist-info"))


@pytest.mark.parametrize("check", [True, False])
def test_a_kernel_for_everybody_is_one_that_everybody_can_start(host: Host, check: bool) -> None:
    base = host.folder / "closed"
    (base / "bin").mkdir(parents=True)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", host.folder / "env"], check=True)
    python = host.folder / "env" / "bin" / "python"
    (base / "bin" / "python3").symlink_to(python.resolve())
    python.unlink()
    python.symlink_to(base / "bin" / "python3")
    base.chmod(0o700)  # as uv's Pythons lie below root's home

    done = host(interpreter=str(python), jupyter_kernel="CAVE", check=check)

    assert done.message.startswith("jupyter_kernel: users cannot start what is installed there")
    assert not host.jupyter.exists()


@pytest.mark.parametrize("check", [True, False])
def test_a_users_environment_is_served_as_that_user(host: Host, check: bool) -> None:
    prefix = host.alice.home / "env"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", prefix], check=True)
    python = prefix / "bin" / "python"
    (prefix / "bin" / "real").symlink_to(python.resolve())
    python.unlink()
    python.write_text(f'#!/bin/sh\n/usr/bin/id -u >> {host.runs}\nexec {prefix}/bin/real "$@"\n')
    python.chmod(0o755)
    host.alice.owns(host.alice.home)
    shutil.copytree(host.wheels, host.folder / "wheels")
    (host.folder / "wheels").chmod(0o755)

    done = host(interpreter=str(python), find_links=[str(host.folder / "wheels")], check=check)

    assert done.ok, done.output
    assert (done.result["changed"], done.result["version"]) == (True, "8.2.1")
    assert host.ran_as() == {str(host.alice.uid)}
    assert not [path for path in prefix.rglob("*") if path.lstat().st_uid != host.alice.uid]


def test_a_kernel_for_everybody_does_not_start_a_users_code(host: Host) -> None:
    python = host.payload(host.alice.home / "env" / "bin" / "python")
    host.alice.owns(host.alice.home)

    done = host(interpreter=str(python), jupyter_kernel="CAVE")

    assert "would run code of" in done.message
    assert f"jupyter_dir to {host.alice.home}/.local/share/jupyter" in done.message
    assert not host.jupyter.exists()


def test_a_build_that_was_swapped_is_not_called_unchanged(host: Host) -> None:
    first = host(version="8.0.0")
    assert first.ok, first.output
    build = host.path / "builds" / first.result["build"]
    (build / "bin" / "python").unlink()
    host.payload(build / "bin" / "python")
    os.chown(build / "bin", host.alice.uid, host.alice.gid)

    said = host(version=">=8", check=True)
    assert said.ok, said.output
    assert "is not root's alone" in said.result["reasons"][0]

    done = host(version=">=8")
    assert done.ok, done.output
    assert done.result["build"] != first.result["build"]
    assert host.ran_as() == set()


def test_a_cache_of_a_users_is_not_used_and_no_file_of_the_users_gets_into_a_build(host: Host) -> None:
    cache = host.alice.home / "cache"
    subprocess.run(["cp", "-r", PYTHON, cache], check=True)
    cache.unlink()
    cache.mkdir()
    host.alice.owns(host.alice.home)
    host.environment["UV_CACHE_DIR"] = str(cache)

    done = host()

    assert done.ok, done.output
    assert list(cache.iterdir()) == []
    assert {path.lstat().st_uid for path in host.path.rglob("*")} == {0}


def test_a_jupyter_folder_of_a_users_is_written_as_that_user(host: Host) -> None:
    secret = host.folder / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    cave = host.alice.home / "jupyter" / "kernels" / "cave"
    cave.mkdir(parents=True)
    for name in ("kernel.json", ".kernel.json.new"):
        (cave / name).symlink_to(secret)
    host.alice.owns(host.alice.home)

    done = host(jupyter_kernel="CAVE", jupyter_dir=str(host.alice.home / "jupyter"))

    assert done.ok, done.output
    assert (cave / "kernel.json").lstat().st_uid == host.alice.uid
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("root's", 0o600)

    shutil.rmtree(cave)
    (host.folder / "roots").mkdir()
    cave.symlink_to(host.folder / "roots")
    os.chown(cave, host.alice.uid, host.alice.gid, follow_symlinks=False)
    done = host(jupyter_kernel="CAVE", jupyter_dir=str(host.alice.home / "jupyter"))
    assert not done.ok
    assert list((host.folder / "roots").iterdir()) == []


# Whether users can start it


def a_closed_path(host: Host) -> dict[str, Any]:
    host.path.mkdir(parents=True)
    host.path.chmod(0o700)
    return {}


def a_path_below_a_closed_folder(host: Host) -> dict[str, Any]:
    host.path.parent.mkdir()
    host.path.parent.chmod(0o750)
    return {}


def a_python_below_a_closed_folder(host: Host) -> dict[str, Any]:
    python = host.folder / "closed" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(PYTHON).resolve())
    (host.folder / "closed").chmod(0o700)
    return {"python": str(python)}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("close", [a_closed_path, a_path_below_a_closed_folder, a_python_below_a_closed_folder])
def test_what_users_could_not_start_is_refused(
    host: Host, close: Callable[[Host], dict[str, Any]], check: bool
) -> None:
    done = host(**close(host), check=check)

    assert "users cannot start what is installed there" in done.message
    assert "is closed to them" in done.message
    assert not (host.path / "current").exists()


@pytest.mark.parametrize("check", [True, False])
def test_a_kernel_that_users_could_not_see_is_refused(host: Host, check: bool) -> None:
    host.jupyter.mkdir(mode=0o700)

    done = host(jupyter_kernel="CAVE", check=check)

    assert f"jupyter_dir: users cannot start what is installed there: {host.jupyter} is closed to them" in done.message
    assert not host.path.exists()


def test_what_is_in_the_way_of_the_doctor_is_told_before_anything_is_installed(host: Host) -> None:
    other = host.folder / "cave-doctor"
    other.write_text("another program\n")

    done = host(doctor=str(other))

    assert f"doctor: {other} is another program" in done.message
    assert not host.path.exists()


def test_links_into_roots_cache_are_noticed_before_the_build_goes_live(host: Host) -> None:
    cache = host.folder / "roots-cache"
    cache.mkdir(mode=0o700)
    host.environment |= {"UV_CACHE_DIR": str(cache), "UV_LINK_MODE": "symlink"}

    done = host(installer="uv")

    assert "users cannot start it" in done.message
    assert f"{cache} is closed to them (mode 0700)" in done.message
    assert not (host.path / "current").exists()
    assert list((host.path / "builds").iterdir()) == []


# Locks


def test_no_other_account_can_take_the_lock_of_a_managed_environment(host: Host) -> None:
    assert host(version="8.0.0").ok
    tried = host.alice.run("flock", "--nonblock", str(host.path / ".lock"), "true")

    assert tried.returncode != 0
    assert "Permission denied" in tried.stderr


def test_the_lock_of_an_existing_environment_is_waited_for_no_longer_than_asked(host: Host) -> None:
    prefix = host.folder / "env"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", prefix], check=True)
    holder = os.open(prefix, os.O_RDONLY)  # as any account can
    fcntl.flock(holder, fcntl.LOCK_EX)
    descriptor = os.open(prefix / ".caveclient.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    started = time.monotonic()
    try:
        done = host(interpreter=str(prefix / "bin" / "python"), timeout=2)
    finally:
        os.close(descriptor)

    assert "Another run has been working" in done.message
    assert time.monotonic() - started < 20
    done = host(interpreter=str(prefix / "bin" / "python"))
    os.close(holder)
    assert done.ok, done.output


# Rolling back, as users do it


def test_rolling_back_leads_to_what_was_live_before(host: Host) -> None:
    stub_wheels.lab(host.folder / "three", "8.0.0", "8.1.0", "8.2.1")
    options = {
        "path": str(host.path),
        "python": PYTHON,
        "find_links": [str(host.folder / "three")],
        "offline": True,
        "jupyter_dir": str(host.jupyter),
    }

    def task(**more: str) -> dict[str, Any]:
        return {"connectomics.cave.caveclient": {**options, **more}}

    back = task(state="rolled_back")
    steps = [task(version="8.0.0"), task(version="8.1.0"), back, task(version="8.2.1"), back, back]
    done = run_tasks(host.folder, steps, variables={"ansible_python_interpreter": PYTHON}, **host.environment)

    assert done.ok, done.output
    assert [result["version"] for result in done.results] == ["8.0.0", "8.1.0", "8.0.0", "8.2.1", "8.0.0", "8.0.0"]
    assert [result["changed"] for result in done.results] == [True] * 5 + [False]


# Asking with a user's caveclient


@pytest.mark.parametrize("who", ["alice", "bob", "root"])
def test_a_users_interpreter_is_run_as_nobody_but_its_owner(host: Host, who: str) -> None:
    python = host.payload(host.alice.home / "env" / "bin" / "python")
    host.alice.owns(host.alice.home)
    with real_group() as group, real_user(group, host.folder, "bob") as bob:
        user = {"alice": host.alice.name, "bob": bob.name, "root": "root"}[who]
        asked = {
            "server": "http://127.0.0.1:9",
            "datastacks": ["minnie65_public"],
            "method": "client",
            "users": [user],
            "interpreter": str(python),
            "timeout": 10,
        }
        done = run_module("verify_access", asked, host.folder, environment=host.environment)

    assert not done.ok
    if who == "alice":
        assert host.ran_as() == {str(host.alice.uid)}
    else:
        assert host.ran_as() == set()
        assert f"is not run for {user}" in done.output
