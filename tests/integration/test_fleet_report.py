# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""fleet_report in real runs of ansible-playbook, with pretend results of hosts."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_run import Run, ansible
from report_samples import HOSTILE, TOKEN, fleet, ok, refused, result, unreachable

REPORT = "connectomics.cave.fleet_report"


class Site:
    """A folder from which an administrator runs playbooks on hosts that have registered what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, Any] = {}

    def run(
        self, results: dict[str, list[Any]], *arguments: str, environment: dict[str, str] | None = None, **options: Any
    ) -> Run:
        """Run fleet_report with ``options`` on hosts with these results; the first variable is __caveclient_result."""
        names = ["__caveclient_result", "__later"]
        hosts = {
            host: {name: value for name, value in zip(names, found, strict=False) if value is not None}
            for host, found in results.items()
        }
        self._write("inventory.json", {"all": {"hosts": hosts, "vars": self.variables}})
        task = {"name": "Report", REPORT: {"title": "verify", "results": names, **options}, "run_once": True}
        self._write("report.yml", [{"hosts": "all", "gather_facts": False, "tasks": [task]}])
        return ansible(self.folder, "playbook", "-i", "inventory.json", "report.yml", *arguments, **(environment or {}))

    def play(self, *arguments: str, inventory: dict[str, Any], playbook: str, **environment: str) -> Run:
        """Run one of the collection's playbooks."""
        self._write("inventory.json", inventory)
        return ansible(self.folder, "playbook", "-i", "inventory.json", playbook, *arguments, **environment)

    def report(self, name: str = "reports") -> dict[str, Any]:
        """Return the report.json of the last run."""
        report: dict[str, Any] = json.loads((self.folder / name / "report.json").read_bytes())
        return report

    def _write(self, name: str, data: object) -> None:
        (self.folder / name).write_text(json.dumps(data))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def unsafe(value: Any) -> Any:
    """Return results as Ansible registers them: text that is never a template."""
    if isinstance(value, dict):
        return {key: unsafe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unsafe(item) for item in value]
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


def printed(run: Run) -> str:
    """Return what a run printed, with all white space squeezed."""
    return " ".join(run.output.split())


# What is printed, and the exit status --------------------------------------------------------------------------------


def test_a_fleet_where_all_is_well_ends_with_status_0_and_one_line(site: Site) -> None:
    run = site.run({"ws1": [result(ok("alice"))], "ws2": [result(ok("alice"), ok("bob"))]})
    assert run.status == 0, run.output
    assert "\n2 workstations ok; 2 users\n" in run.output


def test_a_locked_out_user_ends_the_run_with_an_error_that_names_host_and_remedy(site: Site) -> None:
    run = site.run({"ws1": [result(ok("alice"))], "ws2": [result(refused("alice"))]}, dest="reports")
    assert run.status == 2
    assert "\nFAILED   invalid_token: ws2 (alice)\n" in run.output
    assert "-> Put alice's present token into the vault, then run connectomics.cave.rotate." in printed(run)
    assert "1 of 2 workstations not done: ws2 (failed: alice: invalid_token)" in printed(run)
    assert "--limit @reports/pending" in run.output


def test_a_host_that_is_switched_off_is_an_error_unless_that_is_allowed(site: Site) -> None:
    results = {"ws1": [result(ok("alice"))], "ws2": [unreachable("ws2")]}
    assert site.run(results).status == 2
    run = site.run(results, pending_ok=True)
    assert run.status == 0, run.output
    assert "1 workstation ok, 1 pending; 1 user" in run.output


def test_a_failed_host_is_an_error_also_when_pending_ones_are_allowed(site: Site) -> None:
    results = {"ws1": [result(refused("alice"))], "ws2": [unreachable("ws2")]}
    assert site.run(results, pending_ok=True).status == 2
    assert site.run(results, fail=False).status == 0


def test_the_report_is_printed_once_without_run_once(site: Site) -> None:
    results = {f"ws{number}": [result(ok("alice"))] for number in range(5)}
    site.run(results)
    playbook = json.loads((site.folder / "report.yml").read_text())
    del playbook[0]["tasks"][0]["run_once"]
    (site.folder / "report.yml").write_text(json.dumps(playbook))
    run = ansible(site.folder, "playbook", "-i", "inventory.json", "report.yml")
    assert run.output.count("5 workstations ok; 1 user") == 1


def test_colours_are_for_terminals_alone(site: Site) -> None:
    results = {"ws1": [result(refused("alice"))]}
    assert "\x1b" not in site.run(results).output
    coloured = site.run(results, environment={"ANSIBLE_NOCOLOR": "", "ANSIBLE_FORCE_COLOR": "true"})
    assert "\x1b[0;31mFAILED   invalid_token: ws1 (alice)\x1b[0m" in coloured.output


def test_a_callback_that_prints_json_keeps_its_standard_output_to_itself(site: Site) -> None:
    (site.folder / "callbacks").mkdir()
    (site.folder / "callbacks" / "pretend_json.py").write_text(
        "from ansible.plugins.callback import CallbackBase\n"
        "class CallbackModule(CallbackBase):\n"
        "    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, 'stdout', 'pretend_json'\n"
        "    def v2_playbook_on_stats(self, stats):\n"
        "        print('{}')\n"
    )
    site.run({"ws1": [result(ok("alice"))]})
    settings = {"ANSIBLE_CALLBACK_PLUGINS": "callbacks", "ANSIBLE_STDOUT_CALLBACK": "pretend_json"}
    playbook = site.folder / "report.yml"
    run = ansible(site.folder, "playbook", "-i", "inventory.json", str(playbook), **settings)
    # Standard output comes first in Run.output.
    assert run.output.startswith("{}\n")
    assert "1 workstation ok; 1 user" in run.output


@pytest.mark.parametrize("verbosity", ["-v", "-vvvv"])
def test_the_result_is_there_for_who_asks(site: Site, verbosity: str) -> None:
    run = site.run({"ws1": [result(ok("alice"))]}, verbosity)
    assert '"msg": "1 workstation ok; 1 user"' in run.output


# Files ---------------------------------------------------------------------------------------------------------------


def test_reports_are_their_owners_alone_under_any_umask(site: Site) -> None:
    old = os.umask(0)
    try:
        site.run({"ws1": [result(refused("alice"))]}, dest="new/reports", junit="new/ci/junit.xml", pending="new/todo")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (site.folder / "new").rglob("*")}
    (kept,) = [name for name in modes if name.endswith("Z-verify")]
    assert modes == {
        "reports": 0o700,
        "latest": 0o700,
        kept: 0o700,
        "report.json": 0o600,
        "report.html": 0o600,
        "ci": 0o700,
        "junit.xml": 0o600,
        "todo": 0o600,
    }


def test_reports_are_kept_by_date_and_latest_leads_to_the_newest(site: Site) -> None:
    for results in ({"ws1": [result(ok("alice"))]}, {"ws1": [result(refused("alice"))]}):
        site.run(results, dest="reports")
        time.sleep(1)
    folder = site.folder / "reports"
    kept = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    assert len(kept) == 2
    assert (folder / "latest").readlink() == Path(kept[1].name)
    assert [site.report(f"reports/{path.name}")["counts"]["hosts"]["ok"] for path in kept] == [1, 0]
    assert (folder / "latest" / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_something_else_by_the_name_of_latest_stays(site: Site) -> None:
    (site.folder / "reports" / "latest").mkdir(parents=True)
    run = site.run({"ws1": [result(ok("alice"))]}, dest="reports")
    assert run.status == 2
    assert "The link reports/latest cannot be made: Is a directory." in printed(run)
    assert (site.folder / "reports" / "report.json").exists()


def test_a_planted_link_is_replaced_and_its_target_stays(site: Site) -> None:
    victim = site.folder / "victim"
    victim.write_text("precious")
    (site.folder / "reports").mkdir()
    for name in ("report.json", "report.html", "junit.xml"):
        (site.folder / "reports" / name).symlink_to(victim)
    run = site.run({"ws1": [result(ok("alice"))]}, dest="reports", junit="reports/junit.xml")
    assert run.status == 0, run.output
    assert victim.read_text() == "precious"
    assert not (site.folder / "reports" / "report.json").is_symlink()
    assert not list((site.folder / "reports").glob(".*"))


def test_a_place_that_cannot_be_written_is_told_and_left_clean(site: Site) -> None:
    (site.folder / "reports" / "report.json").mkdir(parents=True)
    run = site.run({"ws1": [result(ok("alice"))]}, dest="reports")
    assert run.status == 2
    assert "The file reports/report.json cannot be written: Is a directory." in printed(run)
    assert [path.name for path in (site.folder / "reports").iterdir()] == ["report.json"]


@pytest.mark.parametrize("option", ["dest", "junit", "pending"])
def test_a_pipe_or_device_is_neither_read_nor_replaced(site: Site, option: str) -> None:
    place = site.folder / "place"
    place.mkdir()
    pipe = place / {"dest": "report.json"}.get(option, "pipe")
    os.mkfifo(pipe)
    options: dict[str, Any] = {option: str(place if option == "dest" else pipe)}
    run = site.run({"ws1": [result(ok("alice"))]}, **options)
    assert run.status == 2
    assert f"{pipe} is a device or a pipe, not a file. Name another place." in printed(run)
    assert pipe.is_fifo()


def test_a_pipe_is_no_report_to_merge(site: Site) -> None:
    os.mkfifo(site.folder / "pipe")
    run = ansible(site.folder, "playbook", "connectomics.cave.merge_reports", "-e", "caveclient_reports=pipe")
    assert run.status == 2
    assert "pipe is a device or a pipe, not a file." in printed(run)


def test_check_mode_prints_and_writes_nothing(site: Site) -> None:
    run = site.run({"ws1": [result(refused("alice"))]}, "--check", dest="reports", junit="junit.xml")
    assert run.status == 2
    assert "Check mode, nothing was changed: 0 workstations ok, 1 failed; 1 user" in run.output
    assert not (site.folder / "reports").exists()
    assert not (site.folder / "junit.xml").exists()


def test_empty_paths_mean_no_files(site: Site) -> None:
    before = {path.name for path in site.folder.iterdir()}
    assert site.run({"ws1": [result(ok("alice"))]}, dest="", junit="", pending="").status == 0
    assert {path.name for path in site.folder.iterdir()} - before <= {"inventory.json", "report.yml", ".ansible"}


# The hosts that are not done -----------------------------------------------------------------------------------------


def test_the_pending_file_is_what_limit_takes_and_ends_when_all_is_done(site: Site) -> None:
    results = {f"ws{number}": [result(ok("alice"))] for number in range(1, 12)}
    bad = {"ws2": [result(refused("alice"))], "ws10": [unreachable("ws10")]}
    assert site.run(results | bad, dest="reports").status == 2
    pending = site.folder / "reports" / "pending"
    assert pending.read_text() == "ws2\nws10\n"
    run = site.run(results, "--limit", "@reports/pending", dest="reports")
    assert run.status == 0, run.output
    assert [host["name"] for host in site.report()["hosts"]] == ["ws2", "ws10"]
    assert not pending.exists()


def test_hosts_that_a_run_left_out_stay_pending_and_removed_ones_do_not(site: Site) -> None:
    results = {name: [result(ok("alice"))] for name in ("ws1", "ws2", "ws3")}
    (site.folder / "todo").write_text("ws1\nws3\nscrapped\n")
    assert site.run(results, "--limit", "ws1,ws2", pending="todo").status == 0
    assert (site.folder / "todo").read_text() == "ws3\n"


# Nothing hostile, nothing secret -------------------------------------------------------------------------------------


def test_hostile_results_are_text_everywhere(site: Site) -> None:
    entry = refused("alice", message=HOSTILE, remedy=HOSTILE, url="javascript:alert(1)")
    results = {"ws1": unsafe([result(entry)]), "ws2": unsafe([{"failed": True, "msg": HOSTILE}])}
    run = site.run(results, dest="reports", junit="reports/junit.xml")
    assert "\x1b" not in run.output
    assert "\u202e" not in run.output
    assert "{{ 7 * 7 }}" in run.output
    assert "49" not in site.report()["hosts"][0]["users"][0]["message"]
    page = (site.folder / "reports" / "report.html").read_text()
    assert page.count("<script") == 1  # the page's own
    assert "javascript:" not in page


@pytest.mark.parametrize("verbosity", ["-v", "-vvvvv"])
def test_a_token_in_a_hosts_message_is_in_nothing_that_is_written(site: Site, verbosity: str) -> None:
    odd = "odd-shaped.token_17"
    site.variables = {
        "caveclient_tokens": [{"user": "alice", "token": odd}, "bare-" + odd, {"user": "bob", "token": 7}]
    }
    entry = refused("alice", message=f"server said {TOKEN} and {odd}", remedy=f"don't use {odd}")
    site.run(
        {"ws1": [result(entry)], "ws2": [{"failed": True, "msg": f"bad: bare-{odd}"}]},
        verbosity,
        dest="reports",
        junit="reports/junit.xml",
    )
    written = [path.read_text() for path in (site.folder / "reports").rglob("*") if path.is_file()]
    assert len(written) >= 6
    for text in written:
        assert TOKEN not in text
        assert odd not in text
    table = site.run({"ws1": [result(entry)]}).output
    assert odd not in table
    assert TOKEN not in table


@pytest.mark.parametrize("option", ["notes", "unfinished"])
def test_a_sentence_that_quotes_a_token_is_no_reason_to_go_without_a_report(site: Site, option: str) -> None:
    said: dict[str, Any] = {option: [f"The program said {TOKEN}."]}
    run = site.run({"ws1": [result(ok("alice"))]}, "-vvv", **said)
    assert "1 workstation" in run.output
    assert "The program said <" in run.output
    assert TOKEN not in run.output


def test_tokens_that_cannot_be_read_are_no_reason_to_go_without_a_report(site: Site) -> None:
    site.variables = {"caveclient_tokens": "{{ no_such_variable }}"}
    run = site.run({"ws1": [result(refused("alice"))]})
    assert "FAILED   invalid_token: ws1 (alice)" in run.output


# Merging -------------------------------------------------------------------------------------------------------------


def test_the_reports_of_three_runners_become_the_report_of_one(site: Site) -> None:
    results = fleet(60, 20)
    names = list(results)
    for number in range(3):
        own = {name: results[name] for name in names[number::3]}
        site.run(own, dest=f"slices/{number}")
    site.run(results, dest="single")
    sources = ",".join(f"slices/{number}" for number in range(3))
    arguments = ["-e", f"caveclient_reports={sources}", "-e", "caveclient_report=merged"]
    run = ansible(site.folder, "playbook", "connectomics.cave.merge_reports", *arguments)
    assert run.status == 2, run.output
    single, merged = site.report("single"), site.report("merged")
    for report in (single, merged):
        del report["run"]
        for item in [report, *report["hosts"]]:
            del item["time"]  # the runs were not at the same second
    assert merged == single
    assert (site.folder / "merged" / "pending").read_text() == (site.folder / "single" / "pending").read_text()


def test_a_token_of_users_in_several_reports_is_noted_once_where_these_are_merged(site: Site) -> None:
    slices: list[dict[str, tuple[str, ...]]] = [{"ws1": ("alice",)}, {"ws2": ("bob",)}, {"ws3": ("alice", "bob")}]
    for number, hosts in enumerate(slices):
        site.run({host: [result(*map(ok, users))] for host, users in hosts.items()}, dest=f"slices/{number}")
    sources = ",".join(f"slices/{number}" for number in range(len(slices)))
    run = ansible(site.folder, "playbook", "connectomics.cave.merge_reports", "-e", f"caveclient_reports={sources}")
    assert printed(run).count("have one token") == 1, run.output
    assert "NOTE alice (ws1, ws3) and bob (ws2, ws3) have one token, 3fa9c2d1, which is that of" in printed(run)


@pytest.mark.parametrize(
    ("results", "options", "says"),
    [
        ({"ws2": [result(ok("alice"))]}, {"refused": "The vault is not there."}, "The vault is not there."),
        ({"ws2": [result(ok("alice"))]}, {"unfinished": ["A token is still to be revoked."]}, "still to be revoked."),
        ({"ws2": [result({"user": "alice", "has_account": False})]}, {}, ""),  # she has one on the others
        (
            {"ws2": [result({"user": "bob", "has_account": False})]},
            {},
            "bob has no account on any of these hosts.",
        ),
    ],
)
def test_a_slice_that_is_unfinished_leaves_the_merged_report_unfinished(
    site: Site, results: dict[str, list[Any]], options: dict[str, Any], says: str
) -> None:
    assert site.run(results, dest="slices/0", **options).status == 2
    assert site.run({"ws1": [result(ok("alice"))]}, dest="slices/1").status == 0
    for sources in ("slices/0,slices/1", "slices/1,slices/0"):
        run = ansible(site.folder, "playbook", "connectomics.cave.merge_reports", "-e", f"caveclient_reports={sources}")
        assert run.status == (2 if says else 0), run.output
        assert says in printed(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b'{"hosts": []}', "is not a report of this collection"),
        (b'{"version": 99, "hosts": []}', "is a report of version 99"),
    ],
)
def test_what_cannot_be_merged_is_named(site: Site, content: bytes | None, message: str) -> None:
    if content is not None:
        (site.folder / "old.json").write_bytes(content)
    arguments = ["-e", "caveclient_reports=old.json", "-e", "caveclient_report=merged"]
    run = ansible(site.folder, "playbook", "connectomics.cave.merge_reports", *arguments)
    assert run.status == 2
    assert f"old.json {message}" in printed(run)
    assert not (site.folder / "merged").exists()


# The pattern of the playbooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run": {"title": "verify"}}, "run must be what plays/begin.yml recorded"),
        ({"run": {"title": "verify", "results": ["a", 1]}}, "run must be what plays/begin.yml recorded"),
        ({"run": {"title": ["verify"], "results": []}}, "run must be what plays/begin.yml recorded"),
        ({"run": {"title": "verify", "results": [], "hosts": "ws1"}}, "run must be what plays/begin.yml recorded"),
        ({"run": "verify"}, "'run' is of type"),
        ({"found": {"ws1": 5}}, "found must be a mapping of hosts, each with a list of results."),
        ({"found": {"ws1": {"users": []}}}, "found must be a mapping of hosts, each with a list of results."),
    ],
)
def test_a_run_or_results_of_another_shape_are_named(site: Site, options: dict[str, Any], says: str) -> None:
    title = {"title": None} if "run" in options else {}
    run = site.run({"ws1": [result(ok("alice"))]}, **title, **options)
    assert run.status == 2, run.output
    assert says in printed(run)
    assert "Unexpected error" not in run.output
