# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook audit on pretend workstations of this machine, with the vault and without it."""

from __future__ import annotations

import getpass
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible
from homes import DEFAULT_FILE, fill, picture, secrets_of

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from cave_server import CaveServer

STACK = "minnie65_public"
ME = getpass.getuser()
PASSWORD = "correct horse"


class Lab:
    """Workstations with a home each, for whoever runs the tests, and a controller's folder."""

    def __init__(self, folder: Path, cave: CaveServer, hosts: int) -> None:
        self.folder = folder
        self.cave = cave
        self.names = [f"ws{number}" for number in range(1, hosts + 1)]
        self.token = cave.add_person("alice", [STACK]).token
        for name in self.names:
            home = folder / name
            home.mkdir()
            python = folder / f"{name}.python"
            python.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(home))} exec {shlex.quote(sys.executable)} "$@"\n')
            python.chmod(0o755)
            self.save(name, self.token)
        self.variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": f"{folder}/{{{{ inventory_hostname }}}}.python",
            "caveclient_become": False,
            "caveclient_server": cave.url,
            "caveclient_datastacks": [STACK],
            "caveclient_path": str(folder / "opt"),
            "caveclient_audit_users": ME,
        }
        self.tokens = f"caveclient_tokens:\n  - user: {ME}\n    token: '{{{{ vault_cave_token }}}}'\n"
        (folder / "vault-password").write_text(PASSWORD)

    def save(self, host: str, token: str) -> None:
        server_file = f"{self.cave.url.partition('://')[2]}-cave-secret.json"
        files = {DEFAULT_FILE: {"token": token}, server_file: {"token": token}}
        fill(self.folder / host, {**files, "cave_datastack_to_server_map.json": {STACK: self.cave.url}})

    def vault(self, token: str, whole: bool = False) -> None:
        """Put the token into the vault beside the inventory."""
        lib = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
        path = self.folder / "group_vars" / "all" / "vault.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            path.write_bytes(lib.encrypt(f"vault_cave_token: {token}\n"))
        else:
            lines = "".join(f"  {line}\n" for line in lib.encrypt(token).decode().splitlines())
            path.write_text(f"vault_cave_token: !vault |\n{lines}")

    def audit(self, *arguments: str) -> Run:
        inventory = {"all": {"hosts": dict.fromkeys(self.names), "vars": self.variables}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        tokens = self.folder / "group_vars" / "all" / "cave.yml"
        tokens.parent.mkdir(parents=True, exist_ok=True)
        tokens.write_text(self.tokens)
        done = ansible(self.folder, "playbook", "-i", "hosts.yml", "connectomics.cave.audit", *arguments)
        assert self.token not in done.output
        assert "Traceback" not in done.output
        return done

    def report(self, *arguments: str) -> tuple[Run, dict[str, Any]]:
        done = self.audit("-e", "caveclient_report=reports", *arguments)
        report = json.loads((self.folder / "reports" / "report.json").read_text())
        return done, {host["name"]: host for host in report["hosts"]}


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    return Lab(tmp_path, cave, 3)


WITH_PASSWORD = ("--vault-password-file", "vault-password")


def squeezed(run: Run) -> str:
    return " ".join(run.output.split())


def test_all_is_well_and_nothing_is_changed(lab: Lab) -> None:
    lab.vault(lab.token)
    before = [picture(lab.folder / name) for name in lab.names]
    done, hosts = lab.report(*WITH_PASSWORD)
    assert done.ok, done.output
    assert [picture(lab.folder / name) for name in lab.names] == before
    assert {host["state"] for host in hosts.values()} == {"ok"}
    assert "3 workstations ok" in done.output
    assert "No token was compared" not in done.output
    assert not re.search(r"changed=[1-9]", done.output)


@pytest.mark.parametrize("why", ["no password", "not defined", "no tokens at all"])
def test_it_needs_no_vault(lab: Lab, why: str) -> None:
    if why == "no password":
        lab.vault(lab.token)
    if why == "no tokens at all":
        lab.tokens = "{}\n"
    done, hosts = lab.report()
    assert done.ok, done.output
    assert hosts["ws1"]["users"][0]["fingerprint"] == fingerprint(lab.token)
    assert hosts["ws1"]["users"][0]["verdict"] == "ok"
    assert "No token was compared with the vault" in squeezed(done)


def test_it_says_which_tokens_live_where_and_which_one_the_server_refuses(lab: Lab) -> None:
    new = lab.cave.refresh("alice")
    for name in ("ws1", "ws2"):
        lab.save(name, new)
    done, hosts = lab.report()
    assert done.status == 2
    said = squeezed(done)
    assert (
        f"{ME} at {lab.cave.url}: 2 workstations send {fingerprint(new)}; 1 sends {fingerprint(lab.token)}, which the "
        "server refuses (ws3)"
    ) in said
    assert hosts["ws3"]["users"][0]["verdict"] == "invalid_token"
    assert hosts["ws1"]["state"] == "ok"


def test_the_person_with_the_401_gets_the_answer_in_one_command(lab: Lab) -> None:
    lab.cave.refresh("alice")
    done = lab.audit("--limit", "ws2", "-e", f"caveclient_audit_users={ME}")
    said = squeezed(done)
    assert done.status == 2
    assert f"FAILED invalid_token: ws2 ({ME})" in said
    assert "it was replaced, revoked, or is of another server" in said
    assert f"{lab.cave.url}/sticky_auth/settings/tokens" in said
    assert "ws1" not in said


def test_with_the_vault_it_says_who_does_not_have_the_token_of_the_vault(lab: Lab) -> None:
    second = lab.cave.make_token("alice")
    lab.vault(second)
    lab.save("ws1", second)
    done, hosts = lab.report(*WITH_PASSWORD)
    assert done.ok, done.output  # both tokens are accepted
    assert {name: [item["code"] for item in host["users"][0]["problems"]] for name, host in hosts.items()} == {
        "ws1": [],
        "ws2": ["unexpected_token"],
        "ws3": ["unexpected_token"],
    }
    assert "ansible-playbook connectomics.cave.provision --tags token" in squeezed(done)
    strict = lab.audit(*WITH_PASSWORD, "-e", "caveclient_audit_strict=true")
    assert strict.status == 2
    assert strict.output.count('"msg": "warning: unexpected_token"') == 2


def test_a_server_of_an_entry_is_the_one_that_is_asked(lab: Lab) -> None:
    lab.tokens = f"caveclient_tokens:\n  - user: {ME}\n    server: {lab.cave.url}\n    token: '{{{{ nowhere }}}}'\n"
    lab.variables["caveclient_server"] = "https://cave.example.org"
    done, hosts = lab.report()
    assert done.ok, done.output
    assert hosts["ws1"]["users"][0]["server"] == lab.cave.url


def test_without_asking_the_server(lab: Lab) -> None:
    lab.cave.clear_requests()
    done, hosts = lab.report("-e", "caveclient_audit_validate=false")
    assert done.ok, done.output
    assert lab.cave.requests() == []
    assert hosts["ws1"]["users"][0]["verdict"] == "not_checked"


def test_a_host_that_cannot_be_looked_at_fails_the_run_and_stops_no_other(lab: Lab) -> None:
    (lab.folder / "ws2.python").write_text("#!/bin/sh\nexit 1\n")
    done, hosts = lab.report()
    assert done.status == 2
    assert hosts["ws2"]["state"] == "failed"
    assert hosts["ws1"]["users"][0]["verdict"] == hosts["ws3"]["users"][0]["verdict"] == "ok"
    assert (lab.folder / "reports" / "pending").read_text() == "ws2\n"


def test_one_entry_that_cannot_be_read_hides_no_other(lab: Lab) -> None:
    lab.tokens = (
        "caveclient_tokens:\n  - user: carol\n    token: '{{ nowhere }}'\n"
        f"  - user: {ME}\n    token: '{{{{ vault_cave_token }}}}'\n  - '{{{{ nowhere }}}}'\n"
    )
    lab.vault(lab.token)
    (secrets_of(lab.folder / "ws1") / DEFAULT_FILE).chmod(0o644)
    done, hosts = lab.report(*WITH_PASSWORD)
    assert done.ok, done.output
    assert [item["code"] for item in hosts["ws1"]["users"][0]["problems"]] == ["loose_mode"]
    assert "No token was compared" not in done.output


def test_no_token_is_shown_at_any_verbosity(lab: Lab) -> None:
    lab.vault(lab.cave.refresh("alice"))
    done = lab.audit("-vvvvv", *WITH_PASSWORD)
    for token in lab.cave.tokens("alice"):
        assert token["token"] not in done.output
