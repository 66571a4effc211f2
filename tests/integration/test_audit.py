# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook audit on pretend workstations of this machine, with the vault and without it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_run import Run
from homes import DEFAULT_FILE, picture
from lab import USER, Lab, squeezed

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, cave, ["ws1", "ws2", "ws3"])
    lab.variables["caveclient_audit_users"] = USER
    lab.save(lab.token)
    return lab


def report(lab: Lab, *arguments: str, **more: Any) -> tuple[Run, dict[str, dict[str, Any]]]:
    """Audit, without the vault's password unless told; return the run and what its report says of each host."""
    done = lab.play("audit", *arguments, **{"with_password": False, "caveclient_report": "reports", **more})
    return done, lab.reported()


def test_all_is_well_and_nothing_is_changed(lab: Lab) -> None:
    before = [picture(lab.home(name)) for name in lab.hosts]
    done, hosts = report(lab, with_password=True)
    assert done.ok, done.output
    assert [picture(lab.home(name)) for name in lab.hosts] == before
    assert {host["state"] for host in hosts.values()} == {"ok"}
    assert "3 workstations ok" in done.output
    assert "No token was compared" not in done.output
    assert not re.search(r"changed=[1-9]", done.output)


@pytest.mark.parametrize("why", ["no password", "not defined", "no tokens at all"])
def test_it_needs_no_vault(lab: Lab, why: str) -> None:
    if why == "not defined":
        lab.vault.unlink()
    if why == "no tokens at all":
        del lab.variables["caveclient_tokens"]
    done, hosts = report(lab)
    assert done.ok, done.output
    assert hosts["ws1"]["users"][0]["fingerprint"] == fingerprint(lab.token)
    assert hosts["ws1"]["users"][0]["verdict"] == "ok"
    assert "No token was compared with the vault" in squeezed(done)


def test_it_says_which_tokens_live_where_and_which_one_the_server_refuses(lab: Lab) -> None:
    new = lab.cave.refresh("alice")
    lab.save(new, "ws1", "ws2")
    done, hosts = report(lab)
    assert done.status == 2
    said = squeezed(done)
    assert (
        f"{USER} at {lab.cave.url}: 2 workstations send {fingerprint(new)}; 1 sends {fingerprint(lab.token)}, "
        "which the server refuses (ws3)"
    ) in said
    assert hosts["ws3"]["users"][0]["verdict"] == "invalid_token"
    assert hosts["ws1"]["state"] == "ok"


def test_the_person_with_the_401_gets_the_answer_in_one_command(lab: Lab) -> None:
    lab.cave.refresh("alice")
    done = lab.play("audit", "--limit", "ws2", with_password=False)
    said = squeezed(done)
    assert done.status == 2
    assert f"FAILED invalid_token: ws2 ({USER})" in said
    assert "it was replaced, revoked, or is of another server" in said
    assert f"{lab.cave.url}/sticky_auth/settings/tokens" in said
    assert "ws1" not in said


def test_with_the_vault_it_says_who_does_not_have_the_token_of_the_vault(lab: Lab) -> None:
    second = lab.cave.make_token("alice")
    lab.store(alice=second)
    lab.save(second, "ws1")
    done, hosts = report(lab, with_password=True)
    assert done.ok, done.output  # both tokens are accepted
    assert {name: [item["code"] for item in host["users"][0]["problems"]] for name, host in hosts.items()} == {
        "ws1": [],
        "ws2": ["unexpected_token"],
        "ws3": ["unexpected_token"],
    }
    assert "connectomics.cave.provision --limit ws2,ws3 --tags token" in squeezed(done)
    strict = lab.play("audit", strict=True)
    assert strict.status == 2
    assert strict.output.count('"msg": "warning: unexpected_token"') == 2


def test_a_server_of_an_entry_is_the_one_that_is_asked(lab: Lab) -> None:
    lab.variables["caveclient_tokens"] = [{"user": USER, "server": lab.cave.url, "token": "{{ nowhere }}"}]
    lab.variables["caveclient_server"] = "https://cave.example.org"
    done, hosts = report(lab)
    assert done.ok, done.output
    assert hosts["ws1"]["users"][0]["server"] == lab.cave.url


def test_without_asking_the_server(lab: Lab) -> None:
    lab.cave.clear_requests()
    done, hosts = report(lab, validate=False)
    assert done.ok, done.output
    assert lab.cave.requests() == []
    assert hosts["ws1"]["users"][0]["verdict"] == "not_checked"


def test_a_host_that_cannot_be_looked_at_fails_the_run_and_stops_no_other(lab: Lab) -> None:
    lab.python("ws2").write_text("#!/bin/sh\nexit 1\n")
    done, hosts = report(lab)
    assert done.status == 2
    assert hosts["ws2"]["state"] == "failed"
    assert hosts["ws1"]["users"][0]["verdict"] == hosts["ws3"]["users"][0]["verdict"] == "ok"
    assert (lab.report / "pending").read_text() == "ws2\n"


def test_a_person_whom_no_host_knows_is_named_and_nothing_is_wrong_with_the_hosts(lab: Lab) -> None:
    lab.variables["caveclient_tokens"] += [{"user": "nobody-here", "token": lab.token}]
    lab.variables["caveclient_audit_users"] = [USER, "nobody-here"]
    done, hosts = report(lab, with_password=True)
    assert done.status == 2, done.output
    assert "nobody-here has no account on any of these hosts." in squeezed(done)
    assert {one["user"]: one["verdict"] for one in hosts["ws1"]["users"]} == {USER: "ok", "nobody-here": "no_account"}
    assert hosts["ws1"]["state"] == "ok"


def test_one_entry_that_cannot_be_read_hides_no_other(lab: Lab) -> None:
    own = lab.variables["caveclient_tokens"][0]
    lab.variables["caveclient_tokens"] = [{"user": "carol", "token": "{{ nowhere }}"}, own, "{{ nowhere }}"]
    (lab.secrets("ws1") / DEFAULT_FILE).chmod(0o644)
    done, hosts = report(lab, with_password=True)
    assert done.ok, done.output
    assert [item["code"] for item in hosts["ws1"]["users"][0]["problems"]] == ["loose_mode"]
    assert "No token was compared" not in done.output


def test_no_token_is_shown_at_any_verbosity(lab: Lab) -> None:
    lab.store(alice=lab.cave.refresh("alice"))
    assert "TASK" in lab.play("audit", "-vvvvv").output  # where the lab looks for tokens


def test_nothing_is_said_of_the_vault_where_no_host_was_looked_at(lab: Lab) -> None:
    lab.variables["caveclient_tokens"] = "alice"
    done = lab.play("audit", "-e", f"caveclient_audit_users={USER}")
    assert done.status == 2, done.output
    assert "No token was compared" not in done.output
