# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does, with an installer that writes files itself: every path, and every instant to be killed at."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import certifi
import pytest
from homes import let_in
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils import _trust, _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import caveclient as _caveclient
from ansible_collections.connectomics.cave.plugins.module_utils._backends.caveclient import run
from ansible_collections.connectomics.cave.plugins.module_utils._environment import builds as _builds
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pythons as _pythons
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import RECORD, read_record
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installers import Installer, Job
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import Outcome
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

NEWEST = "8.2.1"
DEFAULTS = arguments_of("caveclient", path="/nonexistent", timeout=60, _controller=None)


class Host:
    """A pretend host: its installer writes a few files, and knows the versions 8.0.0 to 8.2.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "caveclient"
        self.current = self.path / "current"
        self.installed: list[tuple[str, ...]] = []
        self.fails = ""

    def __call__(
        self, state: str = "present", check: bool = False, plan: bool = False, **params: Any
    ) -> dict[str, Any]:
        given = {**DEFAULTS, "path": str(self.path), "jupyter_dir": str(self.folder / "jupyter"), **params}
        controller = {**(given["_controller"] or {}), "plan": plan}
        return run({**given, "state": state, "_controller": controller}, check, str(self.folder))

    def predicted(self, state: str = "present", **params: Any) -> dict[str, Any]:
        """Run it, after making sure that check mode says the same and changes nothing."""
        before = snapshot(self.folder)
        said = self(state, check=True, **params)
        assert snapshot(self.folder) == before
        done = self(state, **params)
        differing = ("build", "installer", "installer_output", "reasons")
        assert {k: v for k, v in said.items() if k not in differing} == {
            k: v for k, v in done.items() if k not in differing
        }
        assert len(said["reasons"]) == len(done["reasons"])
        return done

    def builds(self) -> list[str]:
        return sorted(path.name for path in (self.path / "builds").iterdir())

    def version(self) -> str:
        """What importing caveclient through `current` gives, as far as files tell."""
        found = list(self.current.glob("lib/python3.*/site-packages/caveclient-*.dist-info"))
        assert len(found) == 1
        assert (found[0] / "RECORD").exists()
        assert os.access(self.current / "bin" / "python", os.X_OK)
        return found[0].name.split("-")[1].removesuffix(".dist")

    # What stands in for processes

    def install(self, job: Job, *_arguments: Any, **_keywords: Any) -> Outcome:
        self.installed.append(job.requirements)
        if self.fails:
            return Outcome(1, "", self.fails)
        site = site_packages(Path(job.python).parents[1])
        for name, version in resolved(job.requirements).items():
            info = site / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Provides-Extra: cv\n\n")
            (info / "RECORD").touch()
        return Outcome(0, "installed", "")

    def preview(self, job: Job, *_arguments: Any) -> tuple[Outcome, dict[str, str]]:
        if self.fails:
            return Outcome(1, "", self.fails), {}
        return Outcome(0, "", ""), resolved(job.requirements)


def resolved(requirements: Sequence[str]) -> dict[str, str]:
    version = requirements[0].partition("==")[2] or NEWEST
    return {"caveclient": version, **dict.fromkeys(requirements[1:], "1.0")}


def site_packages(prefix: Path) -> Path:
    return prefix / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def make_environment(_python: Any, place: str, *_arguments: Any) -> Outcome:
    site_packages(Path(place)).mkdir(parents=True)
    (Path(place) / "bin").mkdir()
    (Path(place) / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    return Outcome(0, "", "")


def snapshot(folder: Path) -> dict[str, Any]:
    """Return all that is in a folder, with times and links."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.readlink() if path.is_symlink() else None)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(_trust, "closed_to_others", lambda _path: "")  # the folders of tests are
    python = _pythons.probe(sys.executable)
    assert python is not None
    monkeypatch.setattr(_pythons, "probe", lambda executable: python._replace(executable=executable))
    monkeypatch.setattr(_installers, "install", host.install)
    monkeypatch.setattr(_installers, "preview", host.preview)
    monkeypatch.setattr(_installers, "make_environment", make_environment)
    monkeypatch.setattr(_installers, "choose_installer", lambda *_arguments: Installer("uv", "0.9.5", ("/usr/bin/uv",)))
    monkeypatch.setattr(_processes, "run", lambda *_arguments, **_keywords: Outcome(0, "[]", ""))
    return host


# --- present ---


def test_a_build_that_was_kept_is_taken_from_the_shelf(host: Host) -> None:
    first = host(version="8.1.0")["build"]
    host(version="8.2.0")
    installed = len(host.installed)

    result = host.predicted(version="8.1.0")

    assert result["build"] == first
    assert len(host.installed) == installed
    assert host.version() == "8.1.0"


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_as_many_builds_are_kept_as_asked_for(host: Host, keep: int) -> None:
    built = [host(version=version, keep=keep)["build"] for version in ("8.0.0", "8.1.0", "8.2.0", "8.2.1")]

    assert host.builds() == sorted(built[-1 - keep :])


def test_keeping_fewer_removes_the_oldest(host: Host) -> None:
    built = [host(version=version, keep=5)["build"] for version in ("8.0.0", "8.1.0", "8.2.0")]

    result = host.predicted(version="8.2.0", keep=1)

    assert result["changed"]
    assert host.builds() == sorted(built[1:])


@pytest.mark.parametrize(
    "more", [{"extras": ["cv"]}, {"packages": ["scipy"]}, {"python": "2.7"}, {"jupyter_kernel": "CAVE"}], ids=str
)
def test_more_than_is_there_is_built(host: Host, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    host()
    monkeypatch.setattr(_processes, "run", lambda *_a, **_k: Outcome(0, '["it is not installed"]', ""))
    monkeypatch.setattr(_pythons, "choose_python", lambda *_arguments: _pythons.probe(sys.executable))
    monkeypatch.setattr(_proof, "check_imports", lambda *_a, **_k: NEWEST)
    monkeypatch.setattr(_proof, "check_users_can_import", lambda *_a, **_k: None)

    assert host.predicted(**more)["changed"]
    assert not host(**more)["changed"]
    assert len(host.installed) == 2


def test_a_system_upgrade_that_took_the_python_away_leads_to_a_new_build(host: Host) -> None:
    host()
    (host.current / "bin" / "python").unlink()

    result = host.predicted()

    assert "is gone" in result["reasons"][0]
    assert host.version() == NEWEST


def test_a_failed_installation_leaves_the_old_one_and_nothing_else(host: Host) -> None:
    host(version="8.1.0")
    before = snapshot(host.path)
    host.fails = "No space left on device (os error 28)"

    with pytest.raises(CaveError, match="the disk is full") as caught:
        host(version="8.2.0")

    assert "os error 28" in caught.value.details["installer_output"]
    assert host.version() == "8.1.0"
    after = snapshot(host.path)
    assert {path: after[path] for path in after if "builds" not in path} == {
        path: before[path] for path in before if "builds" not in path
    }
    assert after.keys() == before.keys()


def test_a_place_that_may_not_be_written_names_become(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_keywords: Any) -> None:
        raise PermissionError(13, "Permission denied", str(host.path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CaveError, match=rf"{host.path}: Permission denied\. Run the task with become: true"):
        host()


@pytest.mark.parametrize(("part", "option"), [("kernel", "jupyter_dir"), ("doctor", "doctor_path")])
def test_a_place_that_may_not_be_written_names_the_option_that_chooses_it(
    part: str, option: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise PermissionError(13, "Permission denied", ".beside.0123abcd.tmp")

    monkeypatch.setattr(_caveclient._kernel, "write_kernel", refuse)
    monkeypatch.setattr(_caveclient._doctor, "install", refuse)
    brought, doctor = host.folder / "brought", host.folder / "bin" / "cave-doctor"
    brought.write_text("#!/bin/sh\n")
    asked: dict[str, Any] = {"jupyter_kernel": "CAVE"}
    if part == "doctor":
        asked = {"doctor": str(doctor), "_controller": {"doctor_file": str(brought)}}
    place = doctor if part == "doctor" else host.folder / "jupyter" / "kernels" / "cave" / "kernel.json"
    with pytest.raises(CaveError, match=rf"^{place}: Permission denied\. .* \(of the role: caveclient_{option}\)"):
        host(**asked)


def test_what_a_killed_run_left_is_removed_by_the_next_and_counts_as_a_change(host: Host) -> None:
    host()
    left = [
        host.path / "builds" / "20260101T000000Z-0123abcd",
        host.path / "builds" / "20260101T000000Z-0123abcd.work",
        host.path / ".current-0123abcd",
    ]
    left[0].mkdir()
    left[1].mkdir()
    left[2].symlink_to("builds/20260101T000000Z-0123abcd")

    assert host.predicted()["changed"]
    assert not any(path.exists() or path.is_symlink() for path in left)
    assert not host()["changed"]


def test_what_another_run_is_building_is_not_called_leftovers(host: Host) -> None:
    host()
    (host.path / "builds" / "20260101T000000Z-0123abcd").mkdir()

    with _builds.Builds(str(host.path)).locked(1):
        assert not host(check=True)["changed"]


def test_a_live_build_without_its_record_is_replaced_and_then_removed(host: Host) -> None:
    damaged = host()["build"]
    (host.path / "builds" / damaged / RECORD).unlink()

    host.predicted()

    assert damaged not in host.builds()
    assert not host()["changed"]


# --- Planning ---


def test_a_plan_stops_before_an_installation_and_says_what_it_needs(host: Host) -> None:
    result = host(plan=True, version="8.2.0", find_links=["/srv/wheels"])

    assert result["changed"]
    assert result["plan"]["doing"] == f"install caveclient 8.2.0 in {host.path}"
    assert result["plan"]["needs"]["wheels"]
    assert set(result["plan"]["needs"]["host"]) == {"system", "machine", "libc", "python", "install_pip", "kind"}
    assert not host.path.exists()


def test_a_plan_does_at_once_what_needs_no_installation(host: Host) -> None:
    first = host(version="8.1.0")["build"]
    host(version="8.2.0")

    assert host(plan=True, version="8.1.0")["build"] == first
    assert host.version() == "8.1.0"
    assert "plan" not in host(plan=True, state="absent")
    assert not host.path.exists()


def test_wheels_of_the_controller_are_used_when_they_were_brought(host: Host, tmp_path: Path) -> None:
    archive = tmp_path / "wheels.tar"
    with tarfile.open(archive, "w") as packed:
        for name in ("good-1.0-py3-none-any.whl", "../../escaped.whl"):
            (tmp_path / "member").write_text(name)
            packed.add(tmp_path / "member", arcname=name)
    seen: list[Any] = []

    def install(job: Job, *arguments: Any, **keywords: Any) -> Outcome:
        seen.extend(sorted(path.name for link in job.source.find_links for path in Path(link).iterdir()))
        return Host.install(host, job, *arguments, **keywords)

    _installers.install = install  # put back by the fixture's monkeypatch
    host(find_links=["/srv/wheels"], _controller={"from_controller": {"wheels": str(archive)}})

    assert seen == ["escaped.whl", "good-1.0-py3-none-any.whl"]
    assert not list(host.path.rglob("*.whl"))


def test_without_the_action_plugin_a_folder_of_the_controller_is_refused(host: Host) -> None:
    with pytest.raises(CaveError, match=r"run without its action plugin\. Set remote_src: true"):
        host(find_links=["/srv/wheels"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"find_links": ["https://alice:s3cret@lab.example/wheels"]}, "netrc"),
        ({"keep": -1}, "less than 0"),
        ({"path": "relative"}, "not an absolute path"),
        ({"path": "//"}, "is the root folder"),
        ({"version": "newest"}, "leave it empty"),
        ({"python": "3.9\n"}, r"python: '3\.9\\n' has control characters"),
        ({"interpreter": "/\x1b[2J"}, r"interpreter: '/\\x1b\[2J' has control characters"),
        ({"interpreter": "/nowhere/python"}, "is not a Python"),
        ({"interpreter": "/usr"}, "is not a Python"),
        ({"interpreter": "python3"}, "is not a Python"),
    ],
)
def test_impossible_options_are_refused_with_the_remedy(host: Host, params: dict[str, Any], message: str) -> None:
    with pytest.raises(CaveError, match=message) as caught:
        host(**params)
    assert "s3cret" not in caught.value.message
    assert list(host.folder.iterdir()) == []


@pytest.mark.root
def test_what_a_default_access_control_list_lets_in_is_refused(host: Host) -> None:
    host.path.mkdir()
    let_in(host.path, 65534, "default")
    with pytest.raises(CaveError, match="builds can be changed by whom its access control list names"):
        host()
    assert host.installed == []


@pytest.mark.root
def test_a_bundle_that_no_notebook_could_read_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = host.folder / "lab.pem"
    with pytest.raises(CaveError, match=r"ca_path: .*lab.pem does not exist on this host"):
        host(jupyter_kernel="CAVE", ca_path=str(bundle))
    bundle.write_text("not yet")
    with pytest.raises(CaveError, match=r"ca_path: .*lab.pem holds no certificates on this host"):
        host(jupyter_kernel="CAVE", ca_path=str(bundle))
    assert host.installed == []
    shutil.copy(certifi.where(), bundle)
    assert host(jupyter_kernel="CAVE", ca_path=str(bundle))["kernel"]
    monkeypatch.setattr(_trust, "closed_to_others", lambda path: "closed" if path == str(bundle) else "")
    with pytest.raises(CaveError, match=r"ca_path: notebooks cannot read .*: closed\."):
        host(jupyter_kernel="CAVE", ca_path=str(bundle))


# --- rolled_back ---


def test_going_back_after_a_downgrade_leads_to_what_was_before_it(host: Host) -> None:
    host(version="8.1.0")
    host(version="8.2.0")
    host(version="8.1.0")

    host("rolled_back")

    assert host.version() == "8.2.0"


def test_after_going_back_the_version_can_be_asked_for_again(host: Host) -> None:
    host(version="8.1.0")
    host(version="8.2.0")
    host("rolled_back")

    assert host.predicted(version="8.2.0")["changed"]
    assert host.version() == "8.2.0"


@pytest.mark.parametrize("versions", [[], ["8.2.0"]])
def test_without_an_earlier_build_there_is_no_way_back(host: Host, versions: list[str]) -> None:
    for version in versions:
        host(version=version)

    for check in (True, False):
        with pytest.raises(CaveError, match=r"no earlier build .* state: present"):
            host("rolled_back", check=check)


def test_no_way_leads_back_to_a_build_whose_python_is_gone(host: Host) -> None:
    first = host(version="8.1.0")["build"]
    host(version="8.2.0")
    (host.path / "builds" / first / "bin" / "python").unlink()

    with pytest.raises(CaveError, match="no earlier build"):
        host("rolled_back")


# --- absent ---


def test_absent_where_nothing_was_changes_nothing(host: Host) -> None:
    assert not host.predicted("absent")["changed"]
    assert not host.path.exists()


def test_absent_where_the_environment_is_gone_changes_nothing(host: Host) -> None:
    assert not host.predicted("absent", interpreter=str(host.folder / "gone" / "bin" / "python"))["changed"]


def test_a_path_is_the_same_however_it_is_written(host: Host) -> None:
    assert host(path=f"/{host.path}/./")["changed"]
    assert host(jupyter_kernel="CAVE")["python"] == str(host.current / "bin" / "python")
    assert not host(path=f"//{host.path}", jupyter_kernel="CAVE")["changed"]


def test_absent_leaves_a_kernel_of_somebody_else(host: Host) -> None:
    host()
    other = host.folder / "jupyter" / "kernels" / "cave" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text('{"argv": ["/home/alice/python"]}')

    host.predicted("absent")

    assert other.exists()


# --- The kernel ---


def test_a_kernel_appears_changes_its_name_and_goes(host: Host) -> None:
    host(jupyter_kernel="CAVE")
    kernel = host.folder / "jupyter" / "kernels" / "cave" / "kernel.json"
    assert f'"{host.current}/bin/python"' in kernel.read_text()
    assert not host()["changed"]

    assert host.predicted(jupyter_kernel="CAVE (lab)")["changed"]
    assert '"CAVE (lab)"' in kernel.read_text()

    result = host.predicted(jupyter_kernel="")
    assert result["changed"]
    assert result["kernel"] == ""
    assert not kernel.exists()
    assert len(host.installed) == 1


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("name", ["jupyter", "jupyter/kernels", "jupyter/kernels/cave"])
def test_a_file_in_the_place_of_a_kernels_folder_is_named_before_anything_is_done(
    host: Host, name: str, check: bool
) -> None:
    place = host.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    with pytest.raises(CaveError, match=f"jupyter_dir: {place} is a file; expected a directory"):
        host(check=check, jupyter_kernel="CAVE")
    assert host.installed == []
    assert not host.path.exists()


def test_a_damaged_kernel_is_written_again(host: Host) -> None:
    host(jupyter_kernel="CAVE")
    kernel = host.folder / "jupyter" / "kernels" / "cave" / "kernel.json"
    kernel.write_text("{")

    assert host.predicted(jupyter_kernel="CAVE")["changed"]
    assert "ipykernel_launcher" in kernel.read_text()


# --- Killed, at every instant ---


def killed_at(instant: int, action: Any) -> bool:
    """Do something in a process that is killed just before its n-th change of a file; tell whether it was."""
    child = os.fork()
    if child == 0:
        changes = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal changes
            opening = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if opening or event in (
                "os.rename",
                "os.mkdir",
                "os.symlink",
                "os.remove",
                "os.rmdir",
                "os.chmod",
                "os.utime",
            ):
                changes += 1
                if changes == instant:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it is, it must not run on as a second pytest
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "the run failed by itself"
    return status != 0


def until_it_survives(prepare: Any, action: Any, judge: Any) -> int:
    """Kill an action at its first change, at its second ... each time from the same start; return how often."""
    for instant in range(1, 500):
        prepare()
        if not killed_at(instant, action):
            return instant - 1
        judge(instant)
    raise AssertionError("it never ended")


def test_an_upgrade_killed_at_any_instant_leaves_an_installation_that_works(host: Host) -> None:
    def prepare() -> None:
        host("absent")
        host(version="8.1.0", jupyter_kernel="CAVE", keep=0)

    def judge(instant: int) -> None:
        assert host.version() in ("8.1.0", "8.2.0"), instant
        host(version="8.2.0", jupyter_kernel="CAVE", keep=0)
        assert host.version() == "8.2.0"
        assert len(host.builds()) == 1, instant
        assert not [path for path in host.path.iterdir() if path.name.startswith(".current")]
        assert not host(version="8.2.0", jupyter_kernel="CAVE", keep=0)["changed"], instant

    tries = until_it_survives(prepare, lambda: host(version="8.2.0", jupyter_kernel="CAVE", keep=0), judge)

    assert tries >= 15


def test_a_removal_killed_at_any_instant_can_be_done_again(host: Host) -> None:
    def prepare() -> None:
        host("absent")
        host(version="8.1.0", jupyter_kernel="CAVE")
        host(version="8.2.0", jupyter_kernel="CAVE")

    def judge(instant: int) -> None:
        host("absent")
        # Between the last file and the directory there is an instant that leaves an empty directory.
        assert not host.path.exists() or not list(host.path.iterdir()), instant
        assert not host("absent")["changed"], instant

    assert until_it_survives(prepare, lambda: host("absent"), judge) >= 15


def test_two_runs_at_once_build_once(host: Host) -> None:
    children = []
    for _number in range(2):
        child = os.fork()
        if child == 0:
            try:
                host(version="8.2.0")
                os._exit(0)
            except BaseException:  # noqa: BLE001  # as above
                os._exit(1)
        children.append(child)
    deadline = time.monotonic() + 30
    statuses = [os.waitpid(child, 0)[1] for child in children]

    assert time.monotonic() < deadline
    assert statuses == [0, 0]
    assert len(host.builds()) == 1
    assert host.version() == "8.2.0"


def test_a_kernel_that_another_run_makes_meanwhile_is_no_change(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host(jupyter_kernel="CAVE")
    (host.folder / "jupyter" / "kernels" / "cave" / "kernel.json").unlink()
    alone, said = _caveclient._alone, []

    @contextlib.contextmanager
    def after_another_run(options: Any) -> Iterator[None]:
        monkeypatch.setattr(_caveclient, "_alone", alone)
        said.append(host(jupyter_kernel="CAVE")["changed"])
        with alone(options):
            yield

    monkeypatch.setattr(_caveclient, "_alone", after_another_run)
    said.append(host(jupyter_kernel="CAVE")["changed"])
    assert said == [True, False]


def test_a_doctor_that_another_run_has_brought_is_no_change(host: Host) -> None:
    brought, place = host.folder / "brought", host.folder / "bin" / "cave-doctor"
    brought.write_text("#!/bin/sh\n# module_utils/_doctor/cli.py\n")
    umask = os.umask(0o077)
    try:
        said = [host(doctor=str(place), _controller={"doctor_file": str(brought)})["changed"] for _run in range(2)]
    finally:
        os.umask(umask)
    assert said == [True, False]
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755
    assert place.read_text() == brought.read_text()


# --- Builds of other hosts ---


def packed(host: Host, **asked: Any) -> dict[str, Any]:
    """Install, pack, and take the environment away: what the controller says to a host of that kind."""
    host(**asked)
    folder = host.folder / "parcel"
    folder.mkdir(exist_ok=True)
    file = folder / f"{len(list(folder.iterdir()))}.archive"
    answer = host(**{**asked, "_controller": {"pack": str(file)}})
    assert not answer["changed"]
    host("absent")
    return {"parcel": {"file": str(file), "digest": answer["digest"], "host": "ws001"}}


def test_a_build_of_another_host_becomes_live_and_is_as_good_as_an_own_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"version": "8.2.0", "extras": ["cv"], "packages": ["scipy"], "jupyter_kernel": "CAVE"}
    before = host(**asked)
    controller = packed(host, **asked)
    host(version="8.1.0")
    host.installed.clear()

    result = host(**asked, _controller=controller)

    assert host.installed == []
    assert result["changed"]
    assert (result["previous_version"], result["version"]) == ("8.1.0", "8.2.0")
    same = ("version", "python", "python_version", "environment", "build", "packages", "kernel", "installer")
    assert {name: result[name] for name in same} == {name: before[name] for name in same}
    record = read_record(host.current)
    assert record.pop("taken_from") == "ws001"
    assert record["request"]["extras"] == ["cv"]
    snapped = snapshot(host.folder)
    with monkeypatch.context() as patched:
        patched.setattr(_processes, "run", None)
        patched.setattr(_pythons, "probe", None)
        assert not host(**asked)["changed"]
    assert snapshot(host.folder) == snapped
    assert host("rolled_back")["version"] == "8.1.0"
    assert host(**asked)["build"] == before["build"]


def test_a_build_that_does_not_start_here_does_not_become_live(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = packed(host, version="8.2.0")
    host(version="8.1.0")
    before = snapshot(host.path)
    monkeypatch.setattr(_processes, "run", lambda *_a, **_k: Outcome(1, "", "ImportError: libarrow.so"))
    monkeypatch.setattr(_users, "run_as", lambda *_arguments: (1, "", "ImportError: libarrow.so"))

    with pytest.raises(CaveError, match=r"libarrow\.so"):
        host(version="8.2.0", _controller=controller)

    assert {name: what[1:] for name, what in snapshot(host.path).items()} == {
        name: what[1:] for name, what in before.items()
    }


@pytest.mark.parametrize(
    "asked", [{"version": "8.1.0"}, {"extras": ["cv"]}, {"constraints": ["numpy<2"]}, {"packages": ["scipy"]}], ids=str
)
def test_a_build_of_something_else_is_refused(host: Host, asked: dict[str, Any]) -> None:
    controller = packed(host, version="8.2.0")
    with pytest.raises(CaveError, match="other request than asked for"):
        host(**{"version": "8.2.0", **asked}, _controller=controller)
    assert not host.current.exists()
    assert not host.builds()


def test_a_build_of_another_python_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = packed(host)
    python = _pythons.probe(sys.executable)
    assert python is not None
    monkeypatch.setattr(_pythons, "probe", lambda _executable: python._replace(version="3.99.1"))
    with pytest.raises(CaveError, match="other python than asked for"):
        host(_controller=controller)
    assert not host.builds()


def test_a_build_with_other_packages_than_it_says_is_refused(host: Host) -> None:
    host(version="8.2.0", packages=["scipy"])
    next(host.current.glob("lib/python3.*/site-packages/scipy-*")).rename(host.folder / "scipy")
    controller = packed(host, version="8.2.0", packages=["scipy"])
    with pytest.raises(CaveError, match="other packages than asked for"):
        host(version="8.2.0", packages=["scipy"], _controller=controller)
    assert not host.builds()


@pytest.mark.parametrize("live", ["", "8.1.0"])
def test_what_is_not_what_was_asked_for_is_not_packed(host: Host, live: str) -> None:
    if live:
        host(version=live)
    with pytest.raises(CaveError, match=r"not for other hosts: (no build is live|caveclient 8\.1\.0 is installed)"):
        host(version="8.2.0", _controller={"pack": str(host.folder / "archive")})
    assert not (host.folder / "archive").exists()


def test_a_host_whose_environment_is_right_meanwhile_takes_nothing(host: Host) -> None:
    controller = packed(host, version="8.2.0")
    own = host(version="8.2.0")["build"]
    assert not host(version="8.2.0", _controller=controller)["changed"]
    assert host.builds() == [own]


def test_taking_a_build_killed_at_any_instant_leaves_what_was_live_and_the_next_run_completes(host: Host) -> None:
    controller = packed(host, version="8.2.0")
    archive = Path(controller["parcel"]["file"])
    content = archive.read_bytes()

    def prepare() -> None:
        host("absent")
        host(version="8.1.0", keep=0)
        archive.write_bytes(content)

    def judge(instant: int) -> None:
        assert host.version() in ("8.1.0", "8.2.0"), instant
        host(version="8.2.0", keep=0)
        assert host.version() == "8.2.0"
        assert len(host.builds()) == 1, instant
        assert not host(version="8.2.0", keep=0)["changed"], instant

    tries = until_it_survives(prepare, lambda: host(version="8.2.0", keep=0, _controller=controller), judge)

    assert tries >= 15


# --- Existing environments ---


@pytest.fixture
def existing(host: Host) -> Path:
    """Somebody's virtual environment, made without a process."""
    prefix = host.folder / "env"
    make_environment(None, str(prefix))
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {sys.version_info[0]}.{sys.version_info[1]}.9\n")
    return prefix / "bin" / "python"


def test_a_conda_environment_is_read_without_a_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = host.folder / "conda"
    make_environment(None, str(prefix))
    (prefix / "conda-meta").mkdir()
    info = site_packages(prefix) / "caveclient-8.2.1.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text("conda")
    monkeypatch.setattr(_pythons, "probe", None)

    result = host(interpreter=str(prefix / "bin" / "python"), version="8.2.1")

    assert not result["changed"]
    assert result["python_version"] == f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_two_links_to_two_environments_are_two_environments(
    host: Host, existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their records are not beside the links, where the second would be taken for the first's."""
    other, links = host.folder / "other", [host.folder / "bin" / name for name in ("one", "other")]
    make_environment(None, str(other))
    links[0].parent.mkdir()
    python = _pythons.probe(str(existing))
    assert python is not None
    found = {}
    for link, prefix in zip(links, (existing.parents[1], other), strict=True):
        link.symlink_to(prefix / "bin" / "python")
        found[str(link)] = python._replace(prefix=str(prefix), site_packages=str(site_packages(prefix)))
    monkeypatch.setattr(_pythons, "probe", found.get)

    def install(job: Job, *_arguments: Any, **_keywords: Any) -> Outcome:
        return host.install(job._replace(python=f"{found[job.python].prefix}/bin/python"))

    monkeypatch.setattr(_installers, "install", install)
    for link in links:
        assert host(interpreter=str(link), extras=["cv"])["changed"]
        assert not host(interpreter=str(link), extras=["cv"])["changed"]
    assert (other / RECORD).exists()
    assert not (host.folder / RECORD).exists()


@pytest.mark.root
def test_root_opens_to_all_what_an_installer_took_from_a_closed_cache(
    host: Host, existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install_closed(job: Job, *arguments: Any, **keywords: Any) -> Outcome:
        done = host.install(job, *arguments, **keywords)
        for path in site_packages(existing.parents[1]).rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        return done

    monkeypatch.setattr(_installers, "install", install_closed)
    proven: list[str] = []
    monkeypatch.setattr(_proof, "check_users_can_import", lambda python, *_arguments: proven.append(python))
    host(interpreter=str(existing))

    modes = {path.stat().st_mode & 0o777 for path in site_packages(existing.parents[1]).rglob("*")}
    assert modes == {0o755, 0o644}
    assert proven == [str(existing)]


def test_an_existing_environment_with_an_old_python_is_refused(
    host: Host, existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = _pythons.probe(str(existing))
    assert python is not None
    monkeypatch.setattr(_pythons, "probe", lambda _executable: python._replace(version="3.8.18"))

    with pytest.raises(CaveError, match=r"is Python 3\.8\.18; caveclient needs 3\.9 or later"):
        host(interpreter=str(existing))


def test_an_existing_environment_has_no_earlier_build(host: Host, existing: Path) -> None:
    with pytest.raises(CaveError, match="needs a managed environment"):
        host("rolled_back", interpreter=str(existing))
