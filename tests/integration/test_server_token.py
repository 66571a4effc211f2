# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""server_token and server_token_info against the stand-in server: right, wrong, and interrupted."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_run import run_tasks
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils._backends import server_token as _server_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer, Person

TOKENS = "/auth/api/v1/user/token"
DEFAULTS = arguments_of("server_token", timeout=20)


@pytest.fixture
def alice(cave: CaveServer) -> Person:
    return cave.add_person("alice", ["minnie65_public"], description="first")


def run(cave: CaveServer, token: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    """Do what the module does, and return its result, failed or not."""
    params = {**DEFAULTS, "server": cave.url, "token": token, **options}
    started = time.monotonic()
    try:
        result = _server_token.run(params, check)
    except CaveError as error:
        result = {"failed": True, "msg": error.message, **error.details}
    assert time.monotonic() - started < params["timeout"] + 20
    assert not [item["token"] for item in cave.tokens("alice") if item["token"] in repr(result)]
    assert token not in repr(result)
    return result


def descriptions(cave: CaveServer) -> list[str]:
    return sorted(item["description"] for item in cave.tokens("alice"))


def test_a_token_is_made_once_and_found_again(cave: CaveServer, alice: Person) -> None:
    predicted = run(cave, alice.token, check=True, description="lab")
    assert descriptions(cave) == ["first"]
    made = run(cave, alice.token, description="lab")
    again = run(cave, alice.token, description="lab")
    assert (predicted["changed"], made["changed"], again["changed"]) == (True, True, False)
    assert descriptions(cave) == ["first", "lab"]
    (listed,) = (item for item in cave.tokens("alice") if item["description"] == "lab")
    assert (made["id"], made["fingerprint"]) == (listed["id"], fingerprint(listed["token"]))
    assert (again["id"], again["fingerprint"]) == (made["id"], made["fingerprint"])
    assert (made["old_token_alive"], again["old_token_alive"]) == (True, None)


def test_the_old_token_or_the_new_one_may_ask_for_it_again(cave: CaveServer, alice: Person) -> None:
    made = run(cave, alice.token, description="lab")
    new = cave.tokens("alice")[0]["token"]
    assert run(cave, new, description="lab")["id"] == made["id"]
    assert not run(cave, new, description="lab")["changed"]


def test_no_token_is_ever_made_by_a_question(cave: CaveServer, alice: Person) -> None:
    run(cave, alice.token, description="lab")
    run(cave, alice.token, state="absent", description="lab")
    assert not cave.requests("/auth/api/v1/create_token")
    assert not cave.requests("/auth/api/v1/refresh_token")


def test_a_server_that_kills_the_old_token_is_reported(cave: CaveServer, alice: Person) -> None:
    cave.configure(legacy=True)
    made = run(cave, alice.token, description="lab")
    assert (made["changed"], made["old_token_alive"]) == (True, False)
    assert descriptions(cave) == ["lab"]


def test_revoking_is_proven_and_happens_once(cave: CaveServer, alice: Person) -> None:
    made = run(cave, alice.token, description="lab")
    new = cave.tokens("alice")[0]["token"]
    predicted = run(cave, alice.token, check=True, state="absent", fingerprint=made["fingerprint"])
    assert descriptions(cave) == ["first", "lab"]
    gone = run(cave, alice.token, state="absent", fingerprint=made["fingerprint"])
    assert [item["id"] for item in gone["revoked"]] == [item["id"] for item in predicted["revoked"]] == [made["id"]]
    assert not run(cave, alice.token, state="absent", fingerprint=made["fingerprint"])["changed"]
    assert descriptions(cave) == ["first"]
    assert [
        item["status"] for item in cave.requests("/auth/api/v1/user/cache") if item["fingerprint"] == fingerprint(new)
    ]
    assert "invalid_token" in run(cave, new, description="more")["access"]["verdict"]


def test_the_token_in_use_is_revoked_only_by_force(cave: CaveServer, alice: Person) -> None:
    own: dict[str, Any] = {"state": "absent", "fingerprint": fingerprint(alice.token)}
    refused = run(cave, alice.token, **own)
    assert "is the one that authenticates" in refused["msg"]
    assert run(cave, alice.token, force=True, **own)["changed"]
    assert not run(cave, alice.token, force=True, **own)["changed"]
    assert descriptions(cave) == []


def test_another_persons_token_is_out_of_reach(cave: CaveServer, alice: Person) -> None:
    bob = cave.add_person("bob", admin=True)
    number = cave.tokens("alice")[0]["id"]
    assert not run(cave, bob.token, state="absent", id=number)["changed"]
    assert descriptions(cave) == ["first"]
    assert alice.token


@pytest.mark.parametrize("count", [2, 4])
def test_several_runs_at_the_same_time_make_one_token(cave: CaveServer, alice: Person, count: int) -> None:
    # Every run has asked for the list before the first one makes its token.
    cave.set_fault(TOKENS, "latency", method="POST", seconds=0.5)
    results: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(cave, alice.token, description="lab")))
        for _time in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    posts = [item for item in cave.requests(TOKENS) if item["method"] == "POST"]
    assert len(posts) == count
    assert [result.get("msg") for result in results] == [None] * count
    assert descriptions(cave) == ["first", "lab"]
    assert {result["id"] for result in results} == {cave.tokens("alice")[0]["id"]}
    assert sum(result["changed"] for result in results) == 1


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_run_that_fails_after_the_token_was_made_is_finished_by_the_next_one(cave: CaveServer, alice: Person) -> None:
    cave.set_fault(TOKENS, "cut_after", method="POST")
    cave.set_fault(TOKENS, "status", status=500, method="GET", skip=1)
    first = run(cave, alice.token, description="lab")
    assert "not known whether the token was made" in first["msg"]
    cave.clear_faults()
    second = run(cave, alice.token, description="lab")
    assert not second["changed"]
    assert descriptions(cave) == ["first", "lab"]


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_a_new_token_goes_into_the_vault_and_is_never_shown(cave: CaveServer, alice: Person, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse")
    (tmp_path / "token.yml").write_text(f"token: {alice.token}\n")
    own = {"server": cave.url, "token": "{{ token }}"}
    look_up = f"lookup('connectomics.cave.server_token', 'lab', token=token, server='{cave.url}')"
    tasks: list[dict[str, Any]] = [
        {"connectomics.cave.server_token": {**own, "description": "lab"}, "check_mode": True},
        {"connectomics.cave.server_token": {**own, "description": "lab"}},
        {
            "connectomics.cave.vault_variable": {
                "path": "vault.yml",
                "name": "vault_cave_token_alice",
                "value": "{{ " + look_up + " }}",
            }
        },
        {"connectomics.cave.server_token_info": own},
        {"connectomics.cave.server_token": {**own, "description": "lab", "state": "absent"}},
    ]
    options = ["-e", "@token.yml", "--vault-id", "default@password", "-vvvvv", "--diff"]
    done = run_tasks(tmp_path, tasks, *options, ANSIBLE_DEBUG="1", ANSIBLE_LOG_PATH="run.log")
    assert done.ok, done.output
    predicted, made, stored, listed, revoked = done.results
    assert predicted["changed"]
    assert made["changed"]
    assert (predicted["fingerprint"], stored["fingerprint"]) == (None, made["fingerprint"])
    assert [item["current"] for item in listed["tokens"]] == [False, True]
    assert [item["id"] for item in revoked["revoked"]] == [made["id"]]
    assert descriptions(cave) == ["first"]
    refused = run_tasks(tmp_path, [{"connectomics.cave.server_token": {**own, "description": "x" * 121}}], *options)
    assert "121 characters" in refused.output
    unknown = run_tasks(tmp_path, [{"ansible.builtin.set_fact": {"value": "{{ " + look_up + " }}"}}], *options)
    assert "has no token with the description" in unknown.output
    (tmp_path / "token.yml").unlink()
    said = done.output + refused.output + unknown.output
    said += "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert alice.token not in said
    # The one that was made is dead by now, and known by its fingerprint alone.
    words = set(said.replace('"', " ").replace("'", " ").split())
    assert made["fingerprint"] in words
    assert made["fingerprint"] not in {fingerprint(word) for word in words}
