# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import unicodedata
from copy import deepcopy
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_samples import (
    HOSTILE,
    NOON,
    SERVER,
    TOKEN,
    fleet,
    ok,
    owes_terms,
    refused,
    report_of,
    result,
    unreachable,
)

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import cleaning as _cleaning
from ansible_collections.connectomics.cave.plugins.plugin_utils._report import model as _model
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.cleaning import Cleaner
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.html import to_html as to_page
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.junit import to_junit
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.model import merge_reports, read_report, to_json
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import (
    failure_message,
    problem_groups,
    summary,
    table,
)

SCHEMA = json.loads((Path(_model.__file__).parent / "report.schema.json").read_text(encoding="utf-8"))


def strict(schema: Any) -> Any:
    """Return the schema with no room for properties that it does not describe."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if "properties" in schema else closed


def check(report: dict[str, Any]) -> None:
    """Fail when a report, as it is written, differs from the schema in either direction."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(strict(SCHEMA)).validate(json.loads(to_json(report)))


def to_html(report: dict[str, Any]) -> str:
    return to_page(report).decode()


def lines(report: dict[str, Any], width: int = 79, **more: str) -> list[str]:
    return [line.text for line in table(report, width, **more)]


def the_user(report: dict[str, Any]) -> dict[str, Any]:
    """Return the only user of the only host."""
    (host,) = report["hosts"]
    user: dict[str, Any]
    (user,) = host["users"]
    return user


# What a host's state is ----------------------------------------------------------------------------------------------


def test_a_host_where_everybody_has_access_is_ok() -> None:
    report = report_of({"ws1": [result(ok("alice"), ok("bob"))]})
    assert [host["state"] for host in report["hosts"]] == ["ok"]
    assert summary(report) == "1 workstation ok; 2 users"


def test_one_locked_out_user_makes_the_host_failed() -> None:
    report = report_of({"ws1": [result(ok("alice"), refused("bob"))]})
    assert report["hosts"][0]["state"] == "failed"
    assert [user["state"] for user in report["hosts"][0]["users"]] == ["ok", "failed"]


def test_a_host_that_is_switched_off_is_pending_with_ansibles_reason() -> None:
    report = report_of({"ws1": [{"unreachable": True, "msg": "Task failed: Failed to connect: No route to host"}]})
    (host,) = report["hosts"]
    assert host["state"] == "pending"
    assert host["problem"]["verdict"] == "host_unreachable"
    assert host["problem"]["message"] == "Failed to connect: No route to host"
    assert "Switch it on" in host["problem"]["remedy"]


@pytest.mark.parametrize(
    "message",
    [
        "Task failed: Module failed: Attempting to decrypt but no vault secrets found",
        "Task failed: Finalization of task args for 'connectomics.cave.saved_token' failed: Error while resolving "
        "value for 'tokens': The lookup plugin 'connectomics.cave.readable_tokens' failed: Attempting to decrypt but "
        "no vault secrets found",
        "The conditional check 'a' failed. The error was: An unhandled exception occurred while templating '{{ b }}'. "
        "Error was a <class 'ansible.parsing.vault.AnsibleVaultError'>, original message: Attempting to decrypt but no "
        "vault secrets found\n\nThe error appears to be in '/a/verify.yml': line 5, column 3, but may\nbe elsewhere in "
        "the file.\n\n---\n- name: Verify\n  ^ here\n",
    ],
    ids=["2.19", "2.19-own-lookup", "2.17"],
)
def test_what_ansible_puts_around_a_message_is_left_out(message: str) -> None:
    (host,) = report_of({"ws1": [{"failed": True, "msg": message}]})["hosts"]
    assert host["problem"]["message"] == "Attempting to decrypt but no vault secrets found"


def test_a_host_that_no_task_reached_is_pending() -> None:
    report = report_of({"ws1": [None, None]})
    assert report["hosts"][0]["problem"]["verdict"] == "not_run"
    assert report["hosts"][0]["state"] == "pending"


def test_a_host_that_had_nothing_to_do_is_ok() -> None:
    report = report_of({"ws1": [{"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}]})
    assert report["hosts"][0]["state"] == "ok"


def test_a_host_that_goes_away_after_its_first_task_is_pending() -> None:
    report = report_of({"ws1": [result(ok("alice"), changed=True), unreachable("ws1")]})
    assert report["hosts"][0]["state"] == "pending"
    assert report["hosts"][0]["users"][0]["verdict"] == "ok"


def test_a_failed_task_without_users_is_an_error_of_the_host_and_names_the_task() -> None:
    report = report_of({"ws1": [{"failed": True, "msg": "No index is reachable.", "task": "Install caveclient"}]})
    problem = report["hosts"][0]["problem"]
    assert problem["verdict"] == "error"
    assert problem["message"] == "Install caveclient: No index is reachable."


def test_a_module_that_could_not_start_says_why() -> None:
    crashed = {
        "failed": True,
        "msg": "MODULE FAILURE",
        "module_stderr": "warning\n/bin/sh: /usr/bin/python3: not found\n",
    }
    problem = report_of({"ws1": [crashed]})["hosts"][0]["problem"]
    assert problem["message"] == "MODULE FAILURE: /bin/sh: /usr/bin/python3: not found"
    assert "Install Python" in problem["remedy"]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Failed to connect: Host key verification failed.", "Log in once by hand"),
        ("alice@ws1: Permission denied (publickey).", "SSH key"),
        ("Missing sudo password", "Add -K"),
        ("ssh: Could not resolve hostname ws1: Name or service not known", "inventory"),
        ("[Errno 28] No space left on device", "Make room"),
        ("Data could not be sent to remote host. [Errno 32] Broken pipe", "why SSH ended"),
        ("mkdir: cannot create directory: Read-only file system", "writable"),
        ("Timeout (12s) waiting for privilege escalation prompt", "Fix what the message names"),
    ],
)
def test_common_failures_of_a_host_come_with_their_own_remedy(message: str, remedy: str) -> None:
    assert remedy in report_of({"ws1": [{"failed": True, "msg": message}]})["hosts"][0]["problem"]["remedy"]


def test_the_results_of_a_loop_count_one_by_one() -> None:
    items = [result(ok("alice")), result(refused("bob"))]
    loop = {"changed": False, "failed": True, "msg": "One or more items failed", "results": items}
    (host,) = report_of({"ws1": [loop]})["hosts"]
    assert {user["user"]: user["state"] for user in host["users"]} == {"alice": "ok", "bob": "failed"}
    assert host["problem"] is None


def test_a_refused_token_that_was_not_written_is_told_with_the_servers_verdict() -> None:
    saved = {
        "user": "alice",
        "server": SERVER,
        "changed": False,
        "failed": True,
        "msg": "The server refuses the token.",
        "files": [],
        "fingerprint": "11111111",
        "access": {"verdict": "invalid_token", "message": "Unknown token.", "remedy": "Copy it again."},
    }
    user = the_user(report_of({"ws1": [result(saved)]}))
    assert (user["state"], user["verdict"], user["remedy"]) == ("failed", "invalid_token", "Copy it again.")


def test_a_good_token_that_could_not_be_saved_is_not_reported_as_ok() -> None:
    access = {"verdict": "ok", "message": "Access works."}
    saved = {
        "user": "alice",
        "changed": False,
        "failed": True,
        "msg": "No space left on device: /home/alice",
        "access": access,
    }
    user = the_user(report_of({"ws1": [result(saved)]}))
    assert (user["state"], user["verdict"]) == ("failed", "not_saved")
    assert "No space left" in user["message"]
    assert "Make room" in user["remedy"]


def test_files_that_could_not_be_looked_at_are_not_reported_as_ok() -> None:
    found = {"user": "alice", "server": SERVER, "failed": True, "msg": "alice has no home directory."}
    user = the_user(report_of({"ws1": [result(found)]}))
    assert (user["state"], user["verdict"], user["message"]) == ("failed", "not_read", "alice has no home directory.")


def test_a_token_saved_without_asking_the_server_is_not_called_proven() -> None:
    saved = {"user": "alice", "server": SERVER, "changed": True, "fingerprint": "11111111", "files": []}
    report = report_of({"ws1": [result(saved, changed=True)]})
    assert the_user(report)["verdict"] == "not_checked"
    assert summary(report) == "1 workstation ok (1 updated); 1 user (the server was not asked)"
    assert summary({**report, "title": "rotate"}) == "1 workstation ok (1 updated); 1 user"


def test_saving_and_verifying_become_one_entry_of_a_user() -> None:
    saved = {
        "user": "alice",
        "server": SERVER,
        "changed": True,
        "fingerprint": "22222222",
        "previous_fingerprint": "11111111",
        "files": [{"path": "/home/alice/a.json", "action": "updated", "reason": "caveclient"}],
    }
    user = the_user(report_of({"ws1": [result(saved, changed=True), result(ok("alice", "22222222"))]}))
    assert user["verdict"] == "ok"
    assert (user["previous_fingerprint"], user["fingerprint"]) == ("11111111", "22222222")
    assert user["changed"] is True
    assert [file["action"] for file in user["files"]] == ["updated"]


def test_a_later_proof_does_not_hide_an_earlier_failure() -> None:
    report = report_of({"ws1": [result(refused("alice")), result(ok("alice"))]})
    assert the_user(report)["verdict"] == "invalid_token"


def test_problems_with_files_are_warnings_when_access_works() -> None:
    problem = {"code": "loose_mode", "path": "/home/alice/x", "message": "Mode 0644.", "remedy": "Run provision."}
    report = report_of(
        {"ws1": [result(ok("alice")), result({"user": "alice", "server": SERVER, "problems": [problem]})]}
    )
    assert the_user(report)["state"] == "warning"
    assert the_user(report)["verdict"] == "ok"
    assert report["hosts"][0]["state"] == "warning"
    assert summary(report) == "0 workstations ok, 1 with a warning; 1 user"


def test_accounts_of_two_servers_stay_apart() -> None:
    other = ok("alice", "99999999", server="https://proofreading.zetta.ai")
    (host,) = report_of({"ws1": [result(ok("alice"), other)]})["hosts"]
    assert [user["fingerprint"] for user in host["users"]] == ["3fa9c2d1", "99999999"]


def test_hosts_are_in_the_order_that_people_count() -> None:
    report = report_of({name: [result(ok("alice"))] for name in ("ws10", "ws2", "ws1")})
    assert [host["name"] for host in report["hosts"]] == ["ws1", "ws2", "ws10"]


# Which token lives where ---------------------------------------------------------------------------------------------


def test_the_fleet_view_says_which_token_the_server_refuses_and_who_sends_it() -> None:
    results = {f"ws{number:02}": [result(ok("alice"))] for number in range(27)}
    results |= {f"ws{number:02}": [result(refused("alice"))] for number in (27, 28)}
    text = " ".join(" ".join(lines(report_of(results))).split())
    assert "27 workstations send 3fa9c2d1; 2 send 81b0e7aa, which the server refuses (ws27, ws28)" in text


def test_one_refusal_outweighs_the_proofs_of_other_hosts() -> None:
    results = {
        "ws1": [result(ok("alice"))],
        "ws2": [result(refused("alice", "3fa9c2d1"))],
        "ws3": [result(ok("alice"))],
    }
    (entry,) = report_of(results)["fingerprints"]
    assert entry["accepted"] is False
    assert entry["hosts"] == ["ws1", "ws2", "ws3"]


def test_a_token_that_nobody_asked_about_is_neither_accepted_nor_refused() -> None:
    (entry,) = report_of({"ws1": [result({"user": "alice", "server": SERVER, "fingerprint": "3fa9c2d1"})]})[
        "fingerprints"
    ]
    assert entry["accepted"] is None


@pytest.mark.parametrize(
    "readers",
    [
        {"caveclient global.daf-apis.com": "3fa9c2d1", "cloud-volume minnie.microns-daf.com": "81b0e7aa"},
        {"caveclient": {"path": "/a", "fingerprint": "3fa9c2d1"}, "cloud-volume": {"fingerprint": "81b0e7aa"}},
        [
            {"reader": "caveclient", "host": "h", "fingerprint": "3fa9c2d1"},
            {"reader": "cloud-volume", "fingerprint": "81b0e7aa"},
        ],
    ],
)
def test_programs_that_send_different_tokens_show(readers: object) -> None:
    report = report_of({"ws1": [result({"user": "alice", "server": SERVER, "readers": readers})]})
    assert {entry["fingerprint"] for entry in report["fingerprints"]} == {"3fa9c2d1", "81b0e7aa"}
    assert any(
        "1 workstation sends 3fa9c2d1; 1 sends 81b0e7aa" in " ".join(line.split()) for line in lines(report, 120)
    )


# Nothing hostile gets through ----------------------------------------------------------------------------------------


def texts(value: Any) -> list[str]:
    """Return every string in a structure, keys as well."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("place", ["user", "server", "message", "remedy", "url", "fingerprint", "verdict", "datastack"])
def test_a_token_in_any_field_of_a_result_is_not_in_the_report(place: str) -> None:
    entry = refused("alice") | {place: f"see https://x/{TOKEN}?q" if place == "url" else f"Bearer {TOKEN} failed"}
    if place == "datastack":
        entry |= {"datastacks": [{"datastack": "minnie65_public", "message": TOKEN, "verdict": TOKEN, "url": TOKEN}]}
    report = report_of({"ws1": [result(entry)]}, tokens=() if place != "user" else ("Bearer " + TOKEN,))
    for written in (to_json(report).decode(), to_html(report), to_junit(report).decode(), "\n".join(lines(report))):
        assert TOKEN not in written or place == "user"


def test_a_token_in_a_message_is_named_by_its_fingerprint() -> None:
    user = the_user(report_of({"ws1": [result(refused("alice", message=f"No: {TOKEN}."))]}))
    assert user["message"] == f"No: <token {fingerprint(TOKEN)}>."


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f"https://x/?middle_auth_token={TOKEN}&a=1",
        f"x{TOKEN}y",
        TOKEN.upper(),
        "key q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA= end",
        "Bearer odd.token-of-some_kind~17",
    ],
)
def test_what_looks_like_a_token_is_masked_without_knowing_it(text: str) -> None:
    cleaned = Cleaner().text(text)
    assert "<token " in cleaned
    assert not any(secret in cleaned for secret in (TOKEN, TOKEN.upper(), "q83vEjRW", "odd.token"))


def test_a_token_of_an_odd_shape_is_masked_when_it_is_known() -> None:
    assert Cleaner(["hunter2-hunter2"]).text("got hunter2-hunter2!") == f"got <token {fingerprint('hunter2-hunter2')}>!"
    assert Cleaner(["hunter2-hunter2"]).name("hunter2-hunter2") == f"<token {fingerprint('hunter2-hunter2')}>"


def test_a_token_at_the_edge_of_a_long_message_is_not_cut_in_half() -> None:
    for shift in range(40):
        cleaned = Cleaner().text("x" * (_cleaning.TEXT_LENGTH - shift) + " " + TOKEN)
        assert TOKEN[:8] not in cleaned
        assert len(cleaned) <= _cleaning.TEXT_LENGTH


def test_words_that_are_no_token_stay() -> None:
    text = "The header must begin with 'Bearer' authentication; build 2026-11-22, token 3fa9c2d1, path /opt/caveclient"
    assert Cleaner().text(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "//example.org/x",
        "https://",
        "https://alice:password@example.org/",
        "https://example.org/\nx",
        "https://example.org/ x",
        'https://example.org/"onmouseover="alert(1)',
        "https://ex\u0430mple.org/",
        "https://example.org/" + "x" * 1000,
        "https://[::1",
        f"https://example.org/{TOKEN}",
        {"a": 1},
        None,
        7,
    ],
)
def test_only_plain_web_addresses_become_links(url: object) -> None:
    assert Cleaner().address(url) is None
    report = report_of({"ws1": [result(refused("alice", url=url))]})
    assert the_user(report)["url"] is None


def test_control_characters_never_reach_the_terminal() -> None:
    names = ["\x1b[2J\x1b[31mws1", "a\x07b\x9b31m", "x\u202eslaw", "line\nbreak\r\x00"]
    results = {name: [result(refused(name, message=name * 3, remedy=name))] for name in names}
    report = report_of(results, notes=names)
    for text in [*texts(report), *lines(report), failure_message(report)]:
        assert not any(unicodedata.category(character).startswith("C") for character in text)


class Page(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data += data


def hostile_report() -> dict[str, Any]:
    """Return a report in which every text is hostile."""
    entry = refused(HOSTILE, message=HOSTILE, remedy=HOSTILE)
    entry["datastacks"] = [{"datastack": HOSTILE, "verdict": "ok", "message": HOSTILE, "url": f"https://x/{HOSTILE}"}]
    entry["person"] = {"id": 1, "name": HOSTILE, "email": HOSTILE}
    entry["problems"] = [{"code": HOSTILE, "path": HOSTILE, "message": HOSTILE, "remedy": HOSTILE}]
    entry["readers"] = {HOSTILE: {"path": HOSTILE, "fingerprint": HOSTILE}}
    entry["files"] = [{"path": HOSTILE, "action": HOSTILE, "reason": HOSTILE}]
    failed = {"failed": True, "msg": HOSTILE}
    return report_of({HOSTILE: [result(entry)], HOSTILE + "2": [failed]}, notes=[HOSTILE])


def parsed(junit: bytes) -> ElementTree.Element:
    """Return the root of a JUnit file."""
    return ElementTree.fromstring(junit)  # noqa: S314 - it is our own


def test_a_hostile_report_still_fits_the_schema() -> None:
    check(hostile_report())


KEYS = """
users results failed unreachable skipped changed msg user server verdict message remedy url access problems readers
files datastacks person id fingerprint previous_fingerprint code path state module_stderr task
"""
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from([TOKEN, HOSTILE]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=8),
    max_leaves=25,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(SHAPES, max_size=3), st.lists(SHAPES, max_size=2))
def test_whatever_a_host_sends_makes_a_valid_report(first: list[Any], second: list[Any]) -> None:
    report = report_of({"ws1": first, "ws2": second})
    check(report)
    to_html(report)
    parsed(to_junit(report))
    lines(report)
    failure_message(report)
    again = read_report(json.loads(to_json(report)), "report.json", Cleaner())
    assert again == report


# The table -----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_comes_first_and_the_counts_last() -> None:
    results = {
        "ws1": [result(ok("alice"))],
        "ws2": [unreachable("ws2")],
        "ws3": [result(refused("alice"))],
    }
    text = lines(report_of(results), page="reports/report.html", again="ansible-playbook x")
    assert text[0].startswith("FAILED   invalid_token: ws3 (alice)")
    assert next(line for line in text if line.startswith("PENDING")).endswith("host_unreachable: ws2")
    assert text[-3:] == [
        "1 workstation ok, 1 failed, 1 pending; 1 user",
        "Report: reports/report.html",
        "Again for what is not done: ansible-playbook x",
    ]


def test_every_wrong_thing_has_its_message_its_remedy_and_its_link() -> None:
    text = "\n".join(lines(report_of({"ws3": [result(owes_terms("carol"))]})))
    assert "the terms of service are not accepted" in text
    assert "-> carol opens the form" in text
    assert f"         {SERVER}/sticky_auth/api/v1/tos/2/accept" in text


def test_all_well_is_one_line() -> None:
    assert lines(report_of({"ws1": [result(ok("alice"))], "ws2": [result(ok("alice"))]})) == [
        "2 workstations ok; 1 user"
    ]


def test_three_hundred_hosts_are_read_in_a_screenful() -> None:
    report = report_of(fleet(300, 84))
    text = lines(report, page="reports/report.html")
    assert len(text) <= 45
    assert "22 more" in "".join(text)


@pytest.mark.parametrize("people", [("alice", "bob"), ("a", "e"), ("ann", "anna")])
def test_hosts_with_the_same_trouble_are_one_group_though_their_names_differ(people: tuple[str, str]) -> None:
    results = {name: [unreachable(name)] for name in ("ws1", "ws2", "ws3")}
    results |= {f"u{user}": [result(refused(user, "81b0e7aa"))] for user in people}
    groups = problem_groups(report_of(results))
    assert [(group["verdict"], len(group["places"])) for group in groups] == [
        ("invalid_token", 2),
        ("host_unreachable", 3),
    ]
    assert groups[1]["example"] == "ws1"


def test_different_remedies_are_different_groups() -> None:
    results = {
        "ws1": [{"failed": True, "msg": "No space left"}],
        "ws2": [{"failed": True, "msg": "Read-only file system"}],
    }
    assert len(problem_groups(report_of(results))) == 2


@pytest.mark.parametrize("width", [0, 40, 79, 100, 500])
def test_the_table_fits_the_terminal(width: int) -> None:
    report = report_of(fleet(300, 84))
    for line in lines(report, width):
        assert len(line) <= max(40, min(width, 120)) or len(line.split()) <= 2  # an address is never broken


def test_notes_are_printed() -> None:
    assert "NOTE     The old token was not revoked." in lines(
        report_of({"ws1": [result(ok("alice"))]}, notes=["The old token was not revoked."])
    )


def test_check_mode_says_that_it_is_a_prediction() -> None:
    report = report_of({"ws1": [result(ok("alice"), changed=True)]}, check_mode=True)
    assert lines(report) == ["Check mode, nothing was changed: 1 workstation ok (1 would be updated); 1 user"]


def test_the_failure_names_hosts_causes_and_what_to_do() -> None:
    results = {"ws1": [result(ok("alice"))], "ws2": [unreachable("ws2")], "ws3": [result(refused("alice"))]}
    message = failure_message(report_of(results), pending="reports/pending")
    assert "2 of 3 workstations not done" in message
    assert "ws3 (failed: alice: invalid_token)" in message
    assert "ws2 (pending: host_unreachable)" in message
    assert "--limit @reports/pending" in message
    assert len(message) < 400


def test_the_failure_of_a_whole_fleet_stays_short() -> None:
    results = {f"ws{number}": [result(*(refused(f"user{user}") for user in range(50)))] for number in range(300)}
    assert len(failure_message(report_of(results))) < 2000


# Files ---------------------------------------------------------------------------------------------------------------


def test_an_empty_fleet_makes_a_report() -> None:
    report = report_of({})
    check(report)
    assert summary(report) == "Nothing was done on any workstation."
    assert "Nothing was done on any workstation." in to_html(report)
    parsed(to_junit(report))


def test_junit_counts_users_without_access_as_failures_and_absent_hosts_as_errors() -> None:
    results = {"ws1": [result(ok("alice"), refused("bob"))], "ws2": [unreachable("ws2")]}
    root = parsed(to_junit(report_of(results)))
    assert {key: root.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("type") == "invalid_token"
    assert "connectomics.cave.rotate" in (failure.text or "")
    assert [suite.get("name") for suite in root] == ["ws1", "ws2"]


def test_the_page_needs_nothing_from_elsewhere_and_its_policy_allows_its_own_script_alone() -> None:
    text = to_html(report_of(fleet(300, 84)))
    page = Page(text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text
    tags = {tag for tag, _attributes in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form", "video", "audio", "svg"}
    assert not any("src" in attributes or "style" in attributes for _tag, attributes in page.elements)
    assert "url(" not in to_html(report_of(fleet(3)))
    assert "@import" not in to_html(report_of(fleet(3)))


def test_links_of_the_page_tell_the_other_side_nothing() -> None:
    links = [attributes for tag, attributes in Page(to_html(report_of(fleet(3)))).elements if tag == "a"]
    assert links
    for attributes in links:
        assert (attributes["href"] or "").startswith("https://")
        assert set((attributes["rel"] or "").split()) == {"noopener", "noreferrer"}


def test_few_users_are_columns_and_many_are_not() -> None:
    assert ">Users</th>" not in to_html(report_of(fleet(3, 3))).split("Which token lives where", maxsplit=1)[0]
    assert ">Users</th>" in to_html(report_of(fleet(30, 20))).split("Which token lives where", maxsplit=1)[0]


# Merging -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_reports_of_slices_merge_into_the_report_of_one_run(seed: int) -> None:
    results = fleet(60, 20)
    slices: list[dict[str, Any]] = [{}, {}, {}]
    choice = random.Random(seed)  # noqa: S311 - not for secrets
    for host, found in results.items():
        choice.choice(slices)[host] = found
    parts = [json.loads(to_json(report_of(part, notes=["A note."]))) for part in slices]
    choice.shuffle(parts)
    merged = merge_reports([read_report(part, "slice", Cleaner()) for part in parts])
    assert to_json(merged) == to_json(report_of(results, notes=["A note."]))


def test_a_later_run_replaces_what_an_earlier_one_found() -> None:
    first = report_of({"ws1": [result(ok("alice"))], "ws2": [unreachable("ws2")]})
    second = report_of({"ws2": [result(ok("alice"))]}, time=NOON + timedelta(hours=1))
    for order in ([first, second], [second, first]):
        merged = merge_reports(order)
        assert summary(merged) == "2 workstations ok; 1 user"
        assert merged["time"] == "2026-11-22T13:00:00Z"
        assert [host["time"] for host in merged["hosts"]] == ["2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z"]


OTHERS_FINE = {"ws7": [result(ok("alice"))]}


@pytest.mark.parametrize(
    ("first", "later", "is_repeated"),
    [
        ({}, OTHERS_FINE, False),  # refused, or no host matched
        ({"ws1": [result(ok("alice"))]}, OTHERS_FINE, False),
        ({"ws1": [unreachable("ws1")]}, OTHERS_FINE, False),
        ({"ws1": [result(ok("alice"))], **OTHERS_FINE}, OTHERS_FINE, False),
        ({"ws1": [result(ok("alice"))], "ws7": [unreachable("ws7")]}, OTHERS_FINE, True),
        (OTHERS_FINE, OTHERS_FINE, True),
    ],
)
def test_what_a_run_left_undone_counts_until_the_run_is_repeated(
    first: dict[str, Any], later: dict[str, Any], is_repeated: bool
) -> None:
    reports = [
        report_of(first, unfinished=["Nothing was done."]),
        report_of(later, time=NOON + timedelta(hours=1)),
    ]
    for order in (reports, reports[::-1]):
        read = [read_report(json.loads(to_json(report)), "report.json", Cleaner()) for report in order]
        assert merge_reports(read)["unfinished"] == ([] if is_repeated else ["Nothing was done."])


def test_reports_of_different_playbooks_are_not_merged_by_accident() -> None:
    reports = [report_of({"ws1": [result(ok("alice"))]}), report_of({"ws2": [result(ok("alice"))]})]
    reports[1]["title"] = "rotate"
    with pytest.raises(CaveError, match="different playbooks: rotate, verify"):
        merge_reports(reports)
    assert merge_reports(reports, "week 47")["title"] == "week 47"


def test_a_report_that_is_read_back_is_the_same() -> None:
    report = report_of(fleet(60, 20), notes=["A note."])
    assert read_report(json.loads(to_json(report)), "report.json", Cleaner()) == report


@pytest.mark.parametrize("data", [None, [], "x", 7, {}, {"version": 1}, {"version": "1", "hosts": []}])
def test_what_is_no_report_is_refused(data: object) -> None:
    with pytest.raises(CaveError, match=r"is not a report of this collection.*report\.json"):
        read_report(data, "x.json", Cleaner())


def test_a_report_of_a_newer_release_is_refused() -> None:
    with pytest.raises(CaveError, match=r"version 2.*reads version 1"):
        read_report({"version": 2, "hosts": []}, "x.json", Cleaner())


@pytest.mark.parametrize(
    "hosts",
    [
        *(7, [], [7], [{}], [{"name": "ws1"}], [{"name": "ws1", "time": "yesterday"}], [{"time": 1}]),
        *([{"name": "ws1", "time": "2026-11-22T12:00:00Z", **users}] for users in ({}, {"users": "x"}, {"users": [7]})),
    ],
)
def test_a_damaged_report_is_refused(hosts: object) -> None:
    with pytest.raises(CaveError, match="damaged"):
        read_report({"version": 1, "title": "verify", "hosts": hosts}, "x.json", Cleaner())


def test_a_report_without_a_title_is_refused() -> None:
    with pytest.raises(CaveError, match="damaged"):
        read_report({**report_of({"ws1": [result(ok("alice"))]}), "title": ""}, "x.json", Cleaner())


def test_a_report_is_refused_whose_unfinished_part_cannot_be_read() -> None:
    with pytest.raises(CaveError, match="damaged"):
        read_report({**report_of({"ws1": [result(ok("alice"))]}), "unfinished": "The token."}, "x.json", Cleaner())


@pytest.mark.parametrize("damage", [{"problem": "it is off"}, {"users": [{"user": "alice"}]}])
def test_what_is_damaged_in_a_report_is_not_ok(damage: dict[str, Any]) -> None:
    report = deepcopy(report_of({"ws1": [result(ok("alice"))]}))
    report["hosts"][0].update(damage)
    [host] = read_report(report, "x.json", Cleaner())["hosts"]
    assert host["state"] == "failed"


def test_a_hostile_report_is_cleaned_when_it_is_merged() -> None:
    report = deepcopy(report_of({"ws1": [result(refused("alice"))]}))
    user = report["hosts"][0]["users"][0]
    user.update(message=HOSTILE + TOKEN, url="javascript:alert(1)", fingerprint=TOKEN, verdict=TOKEN, state=HOSTILE)
    report["hosts"][0]["problem"] = {"verdict": HOSTILE, "message": TOKEN, "remedy": 7}
    report["counts"] = HOSTILE
    merged = merge_reports([read_report(report, "x.json", Cleaner())])
    check(merged)
    assert TOKEN not in to_json(merged).decode()
    assert "javascript" not in to_html(merged)
