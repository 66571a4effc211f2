# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`build_once` through Ansible: hosts that are this machine, each with an /opt of its own (a mount namespace)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stub_wheels
from ansible_run import Run, ansible, command, environment
from interpreters import open_python

pytestmark = pytest.mark.root
UV = Path(sys.executable).with_name("uv")
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@dataclass
class Host:
    """One of the hosts: a folder that is mounted in the place where all have their environment."""

    folder: Path
    opt: Path
    mount: str = ""
    """What to mount there instead, as arguments of mount."""
    python: str = field(default_factory=open_python)

    def __post_init__(self) -> None:
        (self.folder / "opt").mkdir(parents=True)
        wrapper = self.folder / "python"
        wrapper.write_text(f'#!/bin/sh\n{shlex.join(self.inside([self.python]))} "$@"\n')
        wrapper.chmod(0o755)

    def inside(self, argv: list[str]) -> list[str]:
        """Return the command that runs another one as this host sees its files."""
        mount = self.mount or f"--bind {self.folder / 'opt'}"
        script = f'mount {mount} {self.opt} && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "-", *argv]

    def asks(self, code: str) -> str:
        """Run code after importing caveclient, as somebody without rights."""
        argv = [
            *AS_NOBODY,
            str(self.opt / "caveclient" / "current" / "bin" / "python"),
            "-c",
            f"import caveclient; {code}",
        ]
        done = subprocess.run(self.inside(argv), capture_output=True, text=True, check=True)
        return done.stdout.strip()

    @property
    def builds(self) -> Path:
        return self.folder / "opt" / "caveclient" / "builds"


class Fleet:
    """Hosts of one kind, and wheels on the controller."""

    def __init__(self, folder: Path, wheels: Path, *names: str) -> None:
        self.folder, self.wheels = folder, wheels
        self.opt = folder / "opt"
        self.opt.mkdir()
        self.hosts = {name: Host(folder / name, self.opt) for name in names}

    @property
    def settings(self) -> dict[str, str]:
        return {
            "PATH": f"{UV.parent}:/usr/bin:/bin",
            "UV_CACHE_DIR": str(self.folder / "uv-cache"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "remote-tmp"),
            "ANSIBLE_FORKS": "5",
        }

    def write(self, **options: Any) -> list[str]:
        """Write the inventory and the playbook, and return the arguments of ansible-playbook."""
        hosts = {
            name: {
                "ansible_connection": "local",
                "ansible_python_interpreter": str(host.folder / "python"),
                "place": str(host.folder),
            }
            for name, host in self.hosts.items()
        }
        task = {
            "path": str(self.opt / "caveclient"),
            "find_links": [str(self.wheels)],
            "offline": True,
            "build_once": True,
            "jupyter_kernel": "CAVE",
            "jupyter_dir": "{{ place }}/jupyter",
            "doctor": "{{ place }}/cave-doctor",
            **options,
        }
        task = {name: value for name, value in task.items() if value is not None}
        result = {"content": "{{ done | to_json }}", "dest": "{{ place }}/result.json", "mode": "0600"}
        tasks = [
            {"connectomics.cave.caveclient": task, "register": "done", "ignore_errors": True},
            {"ansible.builtin.copy": result, "delegate_to": "localhost", "check_mode": False},
        ]
        everything = {"all": {"hosts": hosts}}
        (self.folder / "hosts.json").write_text(json.dumps(everything))
        (self.folder / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        return ["-i", str(self.folder / "hosts.json"), str(self.folder / "play.json")]

    def __call__(self, *arguments: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run the task, and return its result on each host."""
        for host in self.hosts.values():
            (host.folder / "result.json").unlink(missing_ok=True)
        self.last = ansible(self.folder, "playbook", *self.write(**options), *arguments, **self.settings)
        found = {name: host.folder / "result.json" for name, host in self.hosts.items()}
        return {name: json.loads(file.read_text()) for name, file in found.items() if file.exists()}

    last: Run

    def leftovers(self) -> list[Path]:
        """Return what was brought, and what a run was killed over: all that no host is to keep."""
        brought = list(self.folder.rglob("*.archive"))
        return brought + [path for host in self.hosts.values() for path in host.builds.glob("*.work")]


def contents(folder: Path) -> dict[str, tuple[int, int, str | bytes]]:
    """Return mode, time and content of everything in a build but what says where it comes from."""
    found = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        content: str | bytes = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        moment = 0 if path.is_dir() or path.is_symlink() else int(info.st_mtime)
        found[str(path.relative_to(folder))] = (info.st_mode, moment, content)
    # The first was written when the host was done, the others by the task that brings cave-doctor.
    for name in [name for name in found if name == "caveclient-build.json" or "doctor" in name]:
        del found[name]
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = stub_wheels.lab(tmp_path_factory.mktemp("wheels"), "8.0.0", "8.2.0")
    stub_wheels.caveclient(folder, "8.1.9", "raise ImportError('libarrow.so.9: no such file')")
    return folder


@pytest.fixture
def fleet(tmp_path: Path, wheels: Path) -> Fleet:
    return Fleet(tmp_path, wheels, "ws1", "ws2", "ws3")


def taken(results: dict[str, dict[str, Any]]) -> tuple[str, set[str]]:
    """Return which host built, and which took that build."""
    builders = [name for name, result in results.items() if "taken_from" not in result]
    assert len(builders) == 1, results
    return builders[0], {name for name, result in results.items() if result.get("taken_from") == builders[0]}


def test_one_host_builds_for_all_and_what_they_have_is_what_an_own_build_would_be(fleet: Fleet) -> None:
    results = fleet("-v", version="8.0.0", extras=["cv"])

    assert fleet.last.ok, fleet.last.output
    assert "WARNING" not in fleet.last.output
    builder, takers = taken(results)
    assert takers == set(fleet.hosts) - {builder}
    assert f'"taken_from": "{builder}"' in fleet.last.output
    own = contents(fleet.hosts[builder].builds / results[builder]["build"])
    for name, host in fleet.hosts.items():
        result = results[name]
        assert result["changed"]
        assert result["packages"] == results[builder]["packages"]
        assert (result["version"], result["installer"]) == ("8.0.0", results[builder]["installer"])
        assert contents(host.builds / result["build"]) == own
        assert [path.name for path in host.builds.iterdir()] == [result["build"]]
        assert host.asks("import cloudvolume, sys; print(sys.prefix)") == str(
            fleet.opt / "caveclient/builds" / result["build"]
        )
        kernel = json.loads((host.folder / "jupyter" / "kernels" / "cave" / "kernel.json").read_text())
        assert kernel["argv"][0] == str(fleet.opt / "caveclient" / "current" / "bin" / "python")
        assert (host.folder / "cave-doctor").read_bytes() == (
            host.builds / result["build"] / "bin/cave-doctor"
        ).read_bytes()
    assert fleet.leftovers() == []

    again = fleet(version="8.0.0", extras=["cv"])
    assert {result["changed"] for result in again.values()} == {False}
    assert {name: result["build"] for name, result in again.items()} == {n: r["build"] for n, r in results.items()}


def test_upgrade_check_and_rollback_know_no_difference(fleet: Fleet) -> None:
    first = fleet(version="8.0.0")
    said = fleet("--check", "--diff", version="8.2.0")
    assert {(result["version"], result["build"]) for result in said.values()} == {("8.2.0", "")}
    assert "taken_from" not in fleet.last.output

    upgraded = fleet(version="8.2.0")
    taken(upgraded)
    assert {host.asks("print(caveclient.__version__)") for host in fleet.hosts.values()} == {"8.2.0"}
    assert {len(list(host.builds.iterdir())) for host in fleet.hosts.values()} == {2}

    back = fleet(state="rolled_back", version=None)
    assert {name: result["build"] for name, result in back.items()} == {n: r["build"] for n, r in first.items()}
    assert {host.asks("print(caveclient.__version__)") for host in fleet.hosts.values()} == {"8.0.0"}
    again = fleet(version="8.0.0")
    assert {result["changed"] for result in again.values()} == {False}


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_host_that_cannot_write_fails_with_its_reason_and_stops_no_other(
    tmp_path: Path, wheels: Path, fault: str
) -> None:
    fleet = Fleet(tmp_path, wheels, "ws1", "ws2", "ws3")
    broken = fleet.hosts["ws2"]
    bind = f"--bind -o ro {broken.folder / 'opt'}" if fault == "read-only" else "-t tmpfs -o size=64k none"
    fleet.hosts["ws2"] = Host(tmp_path / "broken", fleet.opt, bind)
    results = fleet(version="8.0.0")

    failed = results.pop("ws2")
    assert failed["failed"]
    reason = "Read-only file system" if fault == "read-only" else "No space left on device"
    assert reason in failed["msg"] + str(failed.get("installer_output", ""))
    taken(results)
    assert fleet.leftovers() == []


def test_after_the_controller_was_killed_the_next_run_completes(fleet: Fleet) -> None:
    words = command("playbook", *fleet.write(version="8.0.0"))
    settings = environment(fleet.folder, **fleet.settings)
    run = subprocess.Popen(words, env=settings, cwd=fleet.folder, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(host.builds.exists() for host in fleet.hosts.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()

    results = fleet(version="8.0.0")

    assert fleet.last.ok, fleet.last.output
    assert {result["version"] for result in results.values()} == {"8.0.0"}
    assert {host.asks("print(caveclient.__version__)") for host in fleet.hosts.values()} == {"8.0.0"}
    assert [path for host in fleet.hosts.values() for path in host.builds.glob("*.work")] == []
