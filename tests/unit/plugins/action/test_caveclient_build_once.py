# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who builds, who waits and who takes, in a fleet whose hosts are played; Ansible's processes are threads here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.connectomics.cave.plugins.action import caveclient as action
from ansible_collections.connectomics.cave.plugins.action.caveclient import ActionModule
from ansible_collections.connectomics.cave.plugins.module_utils._environment.doctor import digest
from ansible_collections.connectomics.cave.plugins.plugin_utils import _build_once
from ansible_collections.connectomics.cave.plugins.plugin_utils._build_once import SharedBuild

FACTS = {"system": "Linux", "machine": "x86_64", "libc": "glibc", "python": "3.11.2", "kind": ["glibc 2.36", "/p", 0]}
ASKED = {"build_once": True, "path": "/opt/caveclient", "version": "8.2.1"}
BUILD = "20260314T101502Z-5be0cd19"
LIMIT = 20


class Fleet:
    """Hosts that need an installation, and what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.events: list[tuple[str, str]] = []
        self.fails: dict[tuple[str, str], Callable[[], Any]] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.unchanged: set[str] = set()
        self.before: Callable[[str, str], object] = lambda _host, _what: None

    def __call__(self, *names: str, at_once: bool = True, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run the task on all hosts, and return their results, or what was raised."""
        results: dict[str, Any] = {}

        def work(name: str) -> None:
            try:
                results[name] = Played(self, name, {**ASKED, **more}, check).go(names)
            except Exception as error:  # noqa: BLE001  # it is the result
                results[name] = error

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
            if not at_once:
                thread.join(LIMIT)
        for thread in threads:
            thread.join(LIMIT)
        assert set(results) == set(names)
        return results

    def happens(self, host: str, what: str) -> Any:
        self.before(host, what)
        with self.lock:
            self.events.append((host, what))
        return self.fails[host, what]() if (host, what) in self.fails else None

    def those_who(self, what: str) -> list[str]:
        return [host for host, happened in self.events if happened == what]


class Played(ActionModule):
    """The action plugin for one of them."""

    def __init__(self, fleet: Fleet, name: str, arguments: dict[str, Any], check: bool) -> None:
        shell = SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))
        self._task: Any = SimpleNamespace(args=arguments, check_mode=check, async_val=0, diff=False, _uuid="t")
        self._connection: Any = SimpleNamespace(_shell=shell, fetch_file=self.fetch)
        self.fleet, self.name = fleet, name
        self.packed = fleet.folder / f"{name}.archive"

    def go(self, names: Any) -> dict[str, Any]:
        return self.run(task_vars={"inventory_hostname": self.name, "ansible_play_hosts_all": list(names)})

    def run_module(self, args: Any, task_vars: Any) -> Any:
        del task_vars
        controller = args["_controller"]
        if controller.get("plan"):
            self.fleet.happens(self.name, "plan")
            if self.name in self.fleet.unchanged:
                return {"changed": False}
            facts = self.fleet.facts.get(self.name, FACTS)
            return {"plan": {"doing": "install", "needs": {"tools": [], "wheels": False, "host": facts}}}
        what = next(name for name in ("pack", "parcel", "from_controller") if name in controller)
        changed = self.fleet.happens(self.name, what)
        if changed:
            return changed
        if what == "pack":
            assert controller == {"pack": "/tmp/x/build.archive"}
            content = self.name.encode() * 1000
            self.packed.write_bytes(content)
            return {"changed": False, "build": BUILD, "digest": digest(content)}
        if what == "parcel":
            content = Path(controller["parcel"]["file"]).read_bytes()
            assert digest(content) == controller["parcel"]["digest"]
            assert content == controller["parcel"]["host"].encode() * 1000
            return {"changed": True, "build": BUILD}
        return {"changed": True, "build": f"own-{self.name}"}

    def fetch(self, source: str, target: str) -> None:
        assert source == "/tmp/x/build.archive"
        content = self.packed.read_bytes()
        Path(target).write_bytes(self.fleet.happens(self.name, "fetch") or content)

    def _transfer(self, file: Path, executable: bool = False) -> str:
        assert not executable
        self.fleet.happens(self.name, "transfer")
        return str(file)


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    run = tmp_path / "ansible-local-1"
    run.mkdir()
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_arguments: {})
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(run))
    monkeypatch.setattr(_build_once, "_PAUSE", 0.01)
    return Fleet(tmp_path)


def test_one_host_builds_and_the_others_take_its_build(fleet: Fleet) -> None:
    results = fleet("ws1", "ws2", "ws3", "ws4")

    (builder,) = fleet.those_who("from_controller")
    assert fleet.those_who("pack") == [builder]
    assert sorted(fleet.those_who("parcel")) == sorted(set(results) - {builder})
    for host, result in results.items():
        assert result["build"] == (f"own-{builder}" if host == builder else BUILD)
        assert result.get("taken_from") == (None if host == builder else builder)
        assert "warnings" not in result


def test_hosts_that_come_one_after_the_other_take_it_as_well(fleet: Fleet) -> None:
    fleet("ws1", "ws2", "ws3", at_once=False)
    assert fleet.those_who("from_controller") == ["ws1"]
    assert fleet.those_who("parcel") == ["ws2", "ws3"]


def test_two_kinds_are_two_builds_at_the_same_time(fleet: Fleet) -> None:
    fleet.facts = {name: {**FACTS, "kind": ["glibc 2.39", "/p", 0]} for name in ("ws3", "ws4")}
    both = threading.Barrier(2, timeout=LIMIT)
    fleet.before = lambda _host, what: what == "from_controller" and both.wait()

    results = fleet("ws1", "ws2", "ws3", "ws4")

    assert {results[host].get("taken_from") for host in ("ws1", "ws2")} <= {None, "ws1", "ws2"}
    assert len(fleet.those_who("from_controller")) == 2
    assert len(fleet.those_who("parcel")) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"system": "Darwin"},
        {"machine": "aarch64"},
        {"python": "3.11.3"},
        {"kind": ["glibc 2.39", "/p", 0]},
        {"kind": ["glibc 2.36", "/q", 0]},
        {"kind": ["glibc 2.36", "/p", 1000]},
    ],
    ids=str,
)
def test_a_host_of_another_kind_builds_by_itself(fleet: Fleet, other: dict[str, Any]) -> None:
    fleet.facts = {"ws2": {**FACTS, **other}}
    assert "taken_from" not in fleet("ws1", "ws2", at_once=False)["ws2"]


@pytest.mark.parametrize(
    "other",
    [
        {"version": "8.2.0"},
        {"path": "/srv/caveclient"},
        {"extras": ["cv"]},
        {"packages": ["scipy"]},
        {"constraints": ["numpy<2"]},
        {"index_url": "https://other.example/simple"},
        {"jupyter_kernel": "CAVE"},
    ],
    ids=str,
)
def test_another_request_is_another_build(fleet: Fleet, other: dict[str, Any]) -> None:
    everyone = ("ws1", "ws2")
    Played(fleet, "ws1", dict(ASKED), False).go(everyone)
    assert "taken_from" not in Played(fleet, "ws2", {**ASKED, **other}, False).go(everyone)
    assert Played(fleet, "ws3", dict(ASKED), False).go(everyone)["taken_from"] == "ws1"


def test_what_only_a_host_has_to_do_with_is_not_part_of_the_request(fleet: Fleet) -> None:
    everyone = ("ws1", "ws2")
    Played(fleet, "ws1", {**ASKED, "jupyter_kernel": "CAVE"}, False).go(everyone)
    more = {"jupyter_kernel": "CAVE (lab)", "keep": 3, "ca_path": "/etc/lab.pem", "timeout": 60}
    assert Played(fleet, "ws2", {**ASKED, **more}, False).go(everyone)["taken_from"] == "ws1"


def test_a_host_that_is_looked_at_while_another_builds_gets_the_build(fleet: Fleet) -> None:
    looks, has_built = threading.Event(), threading.Event()

    def before(host: str, what: str) -> None:
        if (host, what) == ("ws2", "plan"):
            looks.set()
            assert has_built.wait(LIMIT)
        if (host, what) == ("ws1", "from_controller"):
            assert looks.wait(LIMIT)

    def ws1() -> None:
        Played(fleet, "ws1", dict(ASKED), False).go(("ws1", "ws2"))
        has_built.set()

    fleet.before = before
    first = threading.Thread(target=ws1)
    first.start()
    assert Played(fleet, "ws2", dict(ASKED), False).go(("ws1", "ws2"))["taken_from"] == "ws1"
    first.join(LIMIT)


# --- What costs nothing ---


def test_a_host_that_nobody_waits_for_packs_nothing(fleet: Fleet) -> None:
    fleet.unchanged = {"ws2", "ws3"}
    fleet("ws2", "ws3", "ws1", at_once=False)
    assert fleet.those_who("pack") == []

    fleet.facts = {"ws2": {**FACTS, "machine": "aarch64"}}
    fleet.unchanged = set()
    fleet.events.clear()
    together = threading.Barrier(2, timeout=LIMIT)
    fleet.before = lambda _host, what: what == "from_controller" and together.wait()
    fleet("ws1", "ws2", version="8.2.0")
    assert fleet.those_who("pack") == []


def test_an_unchanged_run_asks_each_host_once(fleet: Fleet) -> None:
    fleet.unchanged = {"ws1", "ws2"}
    assert set(map(str, fleet("ws1", "ws2").values())) == {"{'changed': False}"}
    assert sorted(fleet.events) == [("ws1", "plan"), ("ws2", "plan")]


@pytest.mark.parametrize("asked", [{"check": True}, {"build_once": False}, {"interpreter": "/p"}], ids=str)
def test_without_it_every_host_installs_by_itself(fleet: Fleet, asked: dict[str, Any]) -> None:
    fleet("ws1", "ws2", at_once=False, **asked)
    assert fleet.those_who("from_controller") == ["ws1", "ws2"]
    assert fleet.those_who("pack") == []


# --- Faults ---


def failure() -> dict[str, Any]:
    return {"failed": True, "msg": "No space left on device."}


def lost() -> Any:
    raise AnsibleConnectionFailure("ws1 is gone")


@pytest.mark.parametrize("fail", [failure, lost])
def test_when_the_first_fails_the_next_builds(fleet: Fleet, fail: Callable[[], Any]) -> None:
    fleet.fails = {("ws1", "from_controller"): fail}
    results = fleet("ws1", "ws2", "ws3", at_once=False)

    assert isinstance(results["ws1"], AnsibleConnectionFailure) or results["ws1"]["failed"]
    assert fleet.those_who("from_controller") == ["ws1", "ws2"]
    assert results["ws3"]["taken_from"] == "ws2"


def test_after_two_failures_the_rest_installs_at_the_same_time(fleet: Fleet) -> None:
    fleet.fails = {(host, "from_controller"): failure for host in ("ws1", "ws2")}
    fleet("ws1", "ws2", at_once=False)
    together = threading.Barrier(3, timeout=LIMIT)
    fleet.before = lambda _host, what: what == "from_controller" and together.wait()

    results = fleet("ws3", "ws4", "ws5")

    assert not any("taken_from" in result or result.get("failed") for result in results.values())


def test_nobody_waits_for_ever(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "_PATIENCE", 0.1)
    builds, done = threading.Event(), threading.Event()

    def before(host: str, what: str) -> None:
        if (host, what) == ("ws1", "from_controller"):
            builds.set()
            assert done.wait(LIMIT)

    fleet.before = before
    first = threading.Thread(target=fleet, args=("ws1",))
    first.start()
    assert builds.wait(LIMIT)

    results = fleet("ws2", "ws3")

    assert not any("taken_from" in result for result in results.values())
    done.set()
    first.join(LIMIT)


@pytest.mark.parametrize("step", ["parcel", "transfer"])
def test_a_host_that_cannot_take_it_installs_by_itself_and_says_so_once(fleet: Fleet, step: str) -> None:
    def no_space() -> Any:
        if step == "parcel":
            return failure()
        raise OSError("No space left on device")

    fleet.fails = {("ws2", step): no_space}
    results = fleet("ws1", "ws2", "ws3", at_once=False)

    said = "The build of ws1 was not taken: No space left on device. Installed here instead."
    assert results["ws2"] == {"changed": True, "build": "own-ws2", "warnings": [said]}
    assert results["ws3"]["taken_from"] == "ws1"


def test_a_host_that_can_neither_take_nor_install_says_both(fleet: Fleet) -> None:
    fleet.fails = {("ws2", "parcel"): failure, ("ws2", "from_controller"): failure}
    result = fleet("ws1", "ws2", at_once=False)["ws2"]
    assert (result["failed"], result["msg"]) == (True, "No space left on device.")
    assert "was not taken" in result["warnings"][0]


def test_a_host_that_is_gone_meanwhile_is_unreachable(fleet: Fleet) -> None:
    fleet.fails = {("ws2", "transfer"): lost}
    assert isinstance(fleet("ws1", "ws2", at_once=False)["ws2"], AnsibleConnectionFailure)


@pytest.mark.parametrize("fault", ["damaged", "not packed", "not fetched"])
def test_a_build_that_cannot_be_shared_stands_and_the_next_is_shared(fleet: Fleet, fault: str) -> None:
    faults: dict[str, tuple[str, Callable[[], Any]]] = {
        "damaged": ("fetch", lambda: b"something else"),
        "not packed": ("pack", failure),
        "not fetched": ("fetch", lost),
    }
    step, fails = faults[fault]
    fleet.fails = {("ws1", step): fails}
    results = fleet("ws1", "ws2", "ws3", at_once=False)

    assert results["ws1"]["build"] == "own-ws1"
    assert "Other hosts do not get this build" in results["ws1"]["warnings"][0]
    assert fleet.those_who("from_controller") == ["ws1", "ws2"]
    assert results["ws3"]["taken_from"] == "ws2"


def test_a_controller_without_an_installer_is_no_reason_to_wait(fleet: Fleet) -> None:
    def refuse() -> Any:
        raise AnsibleActionFail("The host lacks uv and pip.")

    fleet.fails = {("ws1", "from_controller"): refuse}
    assert isinstance(fleet("ws1", "ws2", at_once=False)["ws1"], AnsibleActionFail)
    assert fleet.those_who("from_controller") == ["ws1", "ws2"]


# --- On the controller ---


def test_what_lies_on_the_controller_is_its_users_alone(fleet: Fleet) -> None:
    fleet("ws1", "ws2", at_once=False)
    found = list((fleet.folder / "ansible-local-1").rglob("*"))
    assert len(found) > 4
    assert {path.stat().st_mode & 0o777 for path in found} == {0o700, 0o600}
    assert not [path for path in found if path.suffix == ".new"]


def test_an_archive_of_a_run_that_was_killed_long_ago_is_removed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet("ws1", "ws2", at_once=False)
    (old,) = fleet.folder.glob("ansible-local-1/*/*.archive")
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(fleet.folder / "ansible-local-2"))
    fleet("ws1", "ws2", at_once=False)
    assert old.exists()  # that run may still go on
    monkeypatch.setattr(_build_once.time, "time", lambda: old.stat().st_mtime + 86401)
    fleet("ws1", "ws2", at_once=False, version="8.2.0")
    assert not old.exists()


def test_a_build_that_is_half_there_is_none(fleet: Fleet) -> None:
    shared = SharedBuild(FACTS, ASKED)
    assert shared.built() is None
    shared._path("archive").write_bytes(b"half")
    assert shared.built() is None
    del fleet
