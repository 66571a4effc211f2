# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host with every kind of account: each that can be served is served, each other is named, in the time of one.

With CAVE_TESTS_CORE (such as 2.17) by that version of ansible-core, on its own Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from account_host import GONE, KINDS, NAMES, UNLISTED
from ansible_run import controller

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

STACK = "minnie65_public"
LIMIT = 150.0
"""Seconds for a task: what a module waits for one home, and Ansible's own time on a busy machine."""
NO_HOME = {"homeless", "missing", "guest"}
HANG = {"hangs", "hangs-inside"}
ENDED = {"ended", "ended-inside"}
NOTHING_TO_SEND = {"pipe", "folder", "loop", "closed", "empty"}
NOT_WRITABLE = {"readonly", "full", "volume", "nowhere", "pipe", "folder", "loop", "closed", *ENDED}
EVERYBODY = [*NAMES, *KINDS, UNLISTED]

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for accounts and mounts"),
]


@pytest.fixture(scope="module")
def outcomes(_cave_process: CaveServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the tasks said, by name."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler, for a name service that lists nobody")
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o755)
    cave = _cave_process
    people = {name: cave.add_person(f"p{number}", [STACK]) for number, name in enumerate([*NAMES, *KINDS])}
    tokens = {name: person.token for name, person in people.items()}
    tokens.update({UNLISTED: tokens["alice"], "gone": tokens["alice"]})
    new = {name: cave.make_token(f"p{number}") for number, name in enumerate([*NAMES, *KINDS])}
    new[UNLISTED] = new["alice"]
    common = {"server": cave.url, "datastacks": [STACK]}
    look = {"connectomics.cave.saved_token_info": {**common, "users": [name for name in EVERYBODY if name not in HANG]}}
    lab = {
        "caveclient_server": cave.url,
        "caveclient_datastacks": [STACK],
        "caveclient_tokens": [{"user": name, "token": new[name]} for name in EVERYBODY],
    }
    tasks = {
        "audit": {"connectomics.cave.saved_token_info": {**common, "validate": True}},
        "verify": {"connectomics.cave.verify_access": {**common, "users": EVERYBODY, "timeout": 10}},
        "provision": {
            "playbook": "connectomics.cave.provision",
            "variables": lab,
            "arguments": ["--skip-tags", "install"],
        },
        "again": look,
        "decommission": {
            "playbook": "connectomics.cave.decommission",
            "variables": {**lab, "caveclient_decommission_everywhere": True},
        },
        "after": look,
        "old locale": {
            "connectomics.cave.saved_token_info": {**common, "users": ["josé", "日本"]},
            "environment": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        },
    }
    (folder / "tasks.json").write_text(json.dumps({"tokens": tokens, "tasks": tasks}))
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", controller(), "-m", "account_host", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert (folder / "outcomes.json").exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    found["tokens"], found["new"] = tokens, new
    return found


def by_user(outcome: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["user"]: entry for entry in outcome["result"]["users"]}


def test_there_are_forty_accounts() -> None:
    assert len(EVERYBODY) >= 40


@pytest.mark.parametrize("task", ["audit", "verify", "provision", "decommission"])
def test_every_task_ends_in_the_time_of_one_home_that_hangs(task: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[task]["seconds"] < LIMIT


def test_a_search_finds_everybody_who_has_something_and_names_whom_it_cannot_read(outcomes: dict[str, Any]) -> None:
    found = by_user(outcomes["audit"])
    assert set(EVERYBODY) - set(found) == {*NO_HOME, "empty"}
    for name in set(EVERYBODY) - NO_HOME - HANG - ENDED - NOTHING_TO_SEND:
        assert found[name]["fingerprint"] == fingerprint(outcomes["tokens"][name]), name
        assert found[name]["access"]["verdict"] == "ok", name
    for name in HANG:
        assert "did not answer within 30 s" in found[name]["msg"]
    for name in ENDED:
        assert "Mount it anew: the program that served it (FUSE" in found[name]["msg"]
    assert {name for name, entry in found.items() if entry.get("failed")} == HANG | ENDED
    gone = found[str(GONE)]
    assert (gone["has_account"], gone["fingerprint"]) == (False, fingerprint(outcomes["tokens"]["gone"]))
    codes = {name: [problem["code"] for problem in found[name]["problems"]] for name in ("nowhere", "unclear", "loop")}
    assert codes == {
        "nowhere": ["cloud_volume_dir_split"],
        "unclear": ["cloud_volume_dir_unclear"],
        "loop": ["symlink"],
    }


def test_everybody_is_checked_with_the_own_token(outcomes: dict[str, Any]) -> None:
    found = by_user(outcomes["verify"])
    assert set(found) == set(EVERYBODY)
    works = {name for name, entry in found.items() if entry["verdict"] == "ok"}
    assert works == set(EVERYBODY) - NO_HOME - HANG - ENDED - NOTHING_TO_SEND
    for name in works:
        assert found[name]["fingerprint"] == fingerprint(outcomes["tokens"][name]), name


def test_everybody_gets_a_token_who_can_have_one_and_the_rest_is_told_why(outcomes: dict[str, Any]) -> None:
    saved, again = by_user(outcomes["provision"]), by_user(outcomes["again"])
    assert set(saved) == set(EVERYBODY)
    refused = {name: entry["message"] for name, entry in saved.items() if entry["state"] == "failed"}
    assert set(refused) == NO_HOME | HANG | NOT_WRITABLE
    for name in set(EVERYBODY) - set(refused):
        assert again[name]["fingerprint"] == saved[name]["fingerprint"] == fingerprint(outcomes["new"][name]), name
    for name in ("readonly", "volume"):
        assert again[name]["fingerprint"] == fingerprint(outcomes["tokens"][name])
    reasons = {
        "homeless": "homeless has no home of their own (/)",
        "missing": "/home/missing, does not exist on this host",
        "hangs": "(/home/hangs) did not answer within",
        "nowhere": "CLOUD_VOLUME_DIR is /home, which belongs to root: change it in /home/nowhere/.profile",
        "ended": "Mount it anew: the program that served it (FUSE",
        "ended-inside": "Mount it anew: the program that served it (FUSE",
        "readonly": "read-only",
        "full": "No space left on device",
        "volume": "a volume that Kubernetes fills from a Secret",
    }
    for name, reason in reasons.items():
        assert reason in refused[name]
    for name in NO_HOME | {"nowhere", "readonly", "volume"}:
        assert "chown" not in refused[name]


def test_everybody_loses_a_token_whose_files_can_be_changed_and_the_rest_is_named(outcomes: dict[str, Any]) -> None:
    removed, after = by_user(outcomes["decommission"]), by_user(outcomes["after"])
    for name in (set(EVERYBODY) - NO_HOME - HANG - NOT_WRITABLE) | {"full"}:
        assert not after.get(name, {}).get("fingerprint"), name
    failed = {name for name, entry in removed.items() if entry["state"] == "failed"}
    # To remove takes no room, and nothing is below a folder of root's or a link to itself; a guest cannot look into the
    # home of alice.
    assert failed == (HANG | NOT_WRITABLE | {"guest"}) - {"nowhere", "full", "loop"}
    assert outcomes["decommission"]["status"] != 0


def test_an_account_is_found_where_the_locale_is_not_utf8(outcomes: dict[str, Any]) -> None:
    found = by_user(outcomes["old locale"])
    assert {name: entry["has_account"] for name, entry in found.items()} == {"josé": True, "日本": True}


def test_what_is_said_is_utf8_and_does_nothing_to_a_terminal(outcomes: dict[str, Any]) -> None:
    said = json.dumps(outcomes, ensure_ascii=False).encode("utf-8")
    assert b"\x1b" not in said
    files = [file["path"] for file in by_user(outcomes["audit"])["oddfiles"]["files"]]
    assert any(path.endswith("/\\xff\\x1b[31m-cave-secret.json") for path in files)
    assert by_user(outcomes["audit"])["oddhome"]["files"][0]["path"].startswith("/home/\\xff\\xfe/")
