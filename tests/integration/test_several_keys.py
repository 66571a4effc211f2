# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One token under several names, from provisioning to the end."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import stub_wheels
from homes import OTHER_TOKEN
from lab import STACK, USER, Lab, squeezed

from cave_server import CaveServer

KEYS = ["token", "brain_and_nerve_cord"]


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """Two workstations, with an entry of two keys, which it says itself or which a profile gives it."""
    lab = Lab(tmp_path, cave, ["ws1", "ws2"])
    lab.variables["caveclient_tokens"] = [{"user": USER, "token": "{{ vault_cave_token_alice }}"}]
    if getattr(request, "param", "") == "profile":
        cave.set_permissions("alice", [STACK, KEYS[1]])
        lab.variables["caveclient_profiles"] = ["banc"]
    else:
        lab.variables["caveclient_tokens"][0]["keys"] = KEYS
    return lab


def held(lab: Lab) -> list[dict[str, Any]]:
    """What the server's file holds on each host."""
    return [json.loads((lab.secrets(host) / lab.server_file).read_text()) for host in lab.hosts]


@pytest.mark.slow
@pytest.mark.parametrize("lab", ["keys", "profile"], indirect=True)
def test_a_token_under_two_keys_is_provisioned_audited_rotated_and_taken_off(lab: Lab) -> None:
    run = lab.play("provision", "--tags", "token")
    assert run.ok, run.output
    old = lab.token
    assert held(lab) == [dict.fromkeys(KEYS, old)] * 2
    again = lab.play("provision", "--tags", "token")
    assert "changed=1" not in again.output

    (lab.secrets("ws2") / lab.server_file).write_text(json.dumps({"token": old, KEYS[1]: OTHER_TOKEN}))
    audited = lab.play("audit", caveclient_report=str(lab.report))
    assert "unexpected_token" in audited.output
    found = {
        name: [problem["code"] for user in host["users"] for problem in user["problems"]]
        for name, host in lab.reported().items()
    }
    assert "unexpected_token" not in found["ws1"]
    assert "unexpected_token" in found["ws2"]

    rotated = lab.rotate(strategy="overlap")
    assert rotated.ok, rotated.output
    new = lab.stored()
    assert new != old
    assert held(lab) == [dict.fromkeys(KEYS, new)] * 2
    assert old not in lab.tokens(), "nobody needs it any more"
    verified = lab.play("verify")
    assert verified.ok, verified.output

    gone = lab.play("decommission", users=USER)
    assert gone.ok, gone.output
    assert lab.holding(str(new)) == []


@pytest.mark.parametrize("keys", [[], "token", [" "]])
def test_what_is_no_list_of_keys_is_refused_before_anything_is_written(lab: Lab, keys: object) -> None:
    lab.variables["caveclient_tokens"][0].update({"keys": keys, "key": "token"} if keys == "token" else {"keys": keys})
    run = lab.play("provision", "--tags", "token")
    assert not run.ok
    assert "key" in run.output
    assert lab.holding(lab.token) == []


def test_an_unknown_profile_is_refused_before_anything_is_written(lab: Lab) -> None:
    lab.variables["caveclient_profiles"] = ["bank"]
    run = lab.play("provision", "--tags", "token")
    assert not run.ok
    assert "There is no profile 'bank'. Did you mean banc? Choose from: banc, fanc, flywire." in squeezed(run)
    assert lab.holding(lab.token) == []
    refused = lab.rotate()
    assert not refused.ok
    assert "There is no profile 'bank'" in squeezed(refused)
    assert len(lab.tokens()) == 1, "none was made"
    lab.variables["caveclient_profiles"] = ["{{ vault_cave_token_alice }}"]
    assert not lab.play("provision", "--tags", "token", "-vvv").ok
    assert not lab.rotate("-vvv").ok


def test_a_profile_installs_its_packages_and_the_doctor_asks_for_its_datastacks(lab: Lab) -> None:
    lab.offer_caveclient()
    stub_wheels.wheel(lab.folder / "wheels", "fafbseg", "3.2.3", {"fafbseg/__init__.py": ""})
    lab.variables["caveclient_profiles"] = ["flywire"]
    run = lab.play("provision", "--tags", "install", "--limit", "ws1")
    assert run.ok, run.output
    place = lab.folder / "ws1"
    (package,) = (place / "opt" / "caveclient" / "current").glob("lib/python3*/site-packages/fafbseg/__init__.py")
    assert package.exists()
    assert b"flywire_fafb_public" in zipfile.ZipFile(place / "bin" / "cave-doctor").read("__main__.py")
    again = lab.play("provision", "--tags", "install", "--limit", "ws1")
    assert "changed=1" not in again.output
