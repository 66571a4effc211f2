# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bad day, on 30 real SSH hosts with three Pythons and three users each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_run import Run, ansible

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import request
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.file import read_variable
from cave_server import CaveServer
from fleet import USERS, Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 30
PASSWORD = b"correct horse"
CA_FILE = "/etc/ssl/cave-ca.pem"
SECRETS = "/home/{user}/.cloudvolume/secrets"

# What a program of each user does: read the secrets file as caveclient does, ask with what it holds, every second.
PROBER = """
import json, os, pwd, ssl, sys, time, urllib.error, urllib.request
server, host, ca, stop, users = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]
context = ssl.create_default_context(cafile=ca)
asked, refused = 0, []
while not os.path.exists(stop):
    begin = time.monotonic()
    for user in users:
        entry = pwd.getpwnam(user)
        os.setegid(entry.pw_gid), os.seteuid(entry.pw_uid)
        folder = entry.pw_dir + "/.cloudvolume/secrets/"
        path = folder + host + "-cave-secret.json"
        path = path if os.path.isfile(path) else folder + "cave-secret.json"
        with open(path) as file:
            token = json.load(file)["token"]
        os.seteuid(0), os.setegid(0)
        question = urllib.request.Request(server + "/auth/api/v1/user/me", headers={"Authorization": "Bearer " + token})
        try:
            with urllib.request.urlopen(question, timeout=20, context=context) as answer:
                answer.read()
            asked += 1
        except urllib.error.HTTPError as error:
            refused.append([user, error.code])
        except OSError:
            pass
    time.sleep(max(0.0, 1 - (time.monotonic() - begin)))
print(json.dumps({"asked": asked, "refused": refused}))
"""


class Lab:
    """The fleet, the server that it asks, and the administrator's folder with the vault."""

    def __init__(self, fleet: Fleet, cave: CaveServer, folder: Path) -> None:
        self.fleet = fleet
        self.cave = cave
        self.folder = folder
        self.report = folder / "reports"
        self.vault = folder / "group_vars" / "all" / "vault.yml"
        self.vault.parent.mkdir(parents=True)
        (folder / "password").write_bytes(PASSWORD)
        shutil.copy(fleet.inventory, folder / "hosts.yml")
        variables = {
            "caveclient_server": cave.url,
            "caveclient_ca_path": CA_FILE,
            "caveclient_rotate_ca_path": str(cave.ca),
            "caveclient_timeout": 15,
            "caveclient_datastacks": ["minnie65_public"],
            "caveclient_tokens": [{"user": user, "token": f"{{{{ vault_cave_token_{user} }}}}"} for user in USERS],
            "caveclient_report": str(self.report),
        }
        (self.vault.parent / "main.yml").write_text(yaml.safe_dump(variables))
        for host in fleet:
            host.write_file(CA_FILE, Path(str(cave.ca)).read_text())
            host.run(["chmod", "644", CA_FILE])
        self.store({user: cave.add_person(user, ["minnie65_public"]).token for user in USERS})

    def store(self, tokens: dict[str, str]) -> None:
        """Put tokens into the vault, each encrypted by itself."""
        text = ""
        for user, token in tokens.items():
            lines = VaultLib().encrypt(token, VaultSecret(PASSWORD)).decode().splitlines()
            text += f"vault_cave_token_{user}: !vault |\n" + "".join(f"  {line}\n" for line in lines)
        self.vault.write_text(text)

    def stored(self, user: str) -> str:
        """Return a user's token as the vault has it."""
        value = read_variable(str(self.vault), (f"vault_cave_token_{user}",), [("default", VaultSecret(PASSWORD))])
        return str(value)

    def play(self, playbook: str, *arguments: str, **variables: object) -> Run:
        """Run a playbook of the collection."""
        return ansible(
            self.folder,
            "playbook",
            *("-i", "hosts.yml", "--vault-password-file", "password", "--forks", "20"),
            *(f"connectomics.cave.{playbook}", "-e", json.dumps(variables), *arguments),
            ANSIBLE_TIMEOUT="5",
        )

    def saved(self, host: Host, user: str) -> str:
        """Return what a user's caveclient sends from a host."""
        name = f"{self.cave.url.partition('://')[2]}-cave-secret.json"
        return str(json.loads(host.root(f"{SECRETS.format(user=user)}/{name}").read_text())["token"])

    def holds_everywhere(self, tokens: dict[str, str], *but: Host) -> bool:
        """Tell whether every user has that token on every host."""
        return all(
            self.saved(host, user) == token for host in self.fleet if host not in but for user, token in tokens.items()
        )

    def accepts(self, token: str) -> bool:
        """Tell whether the auth server accepts a token."""
        answer = request("GET", f"{self.cave.url}/auth/api/v1/user/me", token, timeout=10, ca_path=str(self.cave.ca))
        return answer.status == 200


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Thirty hosts on which three users have access."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name=f"pytest-rotate-{os.getpid()}") as fleet,
        CaveServer(tls=True, address=fleet.server_address) as cave,
    ):
        lab = Lab(fleet, cave, tmp_path_factory.mktemp("lab"))
        saved = lab.play("provision", "--tags", "token")
        assert saved.ok, saved.output
        yield lab


@contextlib.contextmanager
def prober(lab: Lab) -> Iterator[list[Future[str]]]:
    """Let every user of every host ask the server once a second, as caveclient would."""
    host_name = lab.cave.url.partition("://")[2]
    for host in lab.fleet:
        host.write_file("/opt/prober.py", PROBER)
        host.run(["rm", "-f", "/run/stop-prober"])
    command = ["python3", "/opt/prober.py", lab.cave.url, host_name, CA_FILE, "/run/stop-prober", *USERS]

    def probe(host: Host) -> str:
        return host.run(command, timeout=300).stdout

    with ThreadPoolExecutor(len(lab.fleet)) as pool:
        running = [pool.submit(probe, host) for host in lab.fleet]
        try:
            yield running
        finally:
            for host in lab.fleet:
                host.write_file("/run/stop-prober", "")


def tokens_in(lab: Lab) -> dict[str, str]:
    """Return the tokens in the vault, by user."""
    return {user: lab.stored(user) for user in USERS}


def test_after_a_refresh_one_command_gets_every_host_and_user_back(lab: Lab) -> None:
    new = {user: lab.cave.refresh(user) for user in USERS}
    assert not lab.play("verify", "--limit", "ws001").ok
    lab.store(new)
    run = lab.play("rotate")
    assert run.ok, run.output
    assert "30 workstations ok" in run.output
    assert lab.holds_everywhere(new)
    assert lab.play("verify").ok
    assert not [token for token in new.values() if token in run.output]


def test_no_program_is_refused_during_an_overlap_and_the_old_tokens_are_dead_after_it(lab: Lab) -> None:
    old = tokens_in(lab)
    with prober(lab) as running:
        run = lab.play("rotate", caveclient_rotate_strategy="overlap", caveclient_rotate_grace=5)
    said = [json.loads(future.result()) for future in running]
    assert run.ok, run.output
    assert [item["refused"] for item in said] == [[]] * HOSTS
    assert sum(item["asked"] for item in said) > 3 * HOSTS
    new = tokens_in(lab)
    assert not set(new.values()) & set(old.values())
    assert lab.holds_everywhere(new)
    assert [lab.accepts(token) for token in old.values()] == [False] * len(USERS)
    assert [[item["token"] for item in lab.cave.tokens(user)] for user in USERS] == [[new[user]] for user in USERS]


def test_run_again_at_once_changes_makes_and_revokes_nothing(lab: Lab) -> None:
    before = {user: lab.cave.tokens(user) for user in USERS}, lab.vault.read_bytes()
    lab.cave.clear_requests()
    run = lab.play("rotate")
    assert run.ok, run.output
    assert len(re.findall(r"changed=0 ", run.output)) == HOSTS
    after = {user: lab.cave.tokens(user) for user in USERS}
    assert [item["id"] for user in USERS for item in after[user]] == [
        item["id"] for user in USERS for item in before[0][user]
    ]
    assert lab.vault.read_bytes() == before[1]
    assert not [item for item in lab.cave.requests() if item["method"] != "GET"]


def test_a_bad_fleet_gets_as_far_as_it_can_and_finishes_when_it_is_mended(lab: Lab) -> None:
    old = tokens_in(lab)
    names = [f"ws{number:03}" for number in range(11, 20)]
    faults = {
        names[0]: "down",
        names[1]: "down",
        names[2]: "hang",
        names[3]: "full_disk",
        names[4]: "read_only",
        names[6]: "no_python",
        names[7]: "wrong_clock",
        names[8]: "cut_off",
    }
    server_file = f"{SECRETS.format(user='alice')}/{lab.cave.url.partition('://')[2]}-cave-secret.json"
    malformed = lab.fleet[names[5]]
    sound = malformed.read_file(server_file)
    malformed.write_file(server_file, '{"token": ', "alice")
    for name, fault in faults.items():
        lab.fleet[name].inflict(fault)
    bad = [lab.fleet[name] for name in names]
    another: dict[str, object] = {  # without a name of its own, the tokens of the rotation before are new enough
        "caveclient_rotate_strategy": "overlap",
        "caveclient_rotate_name": "bad fleet",
        "caveclient_rotate_grace": 1,
    }
    try:
        run = lab.play("rotate", **another)
    finally:
        for host in bad:
            host.heal()
    assert not run.ok
    new = tokens_in(lab)
    assert not set(new.values()) & set(old.values())
    assert lab.holds_everywhere(new, *bad)
    assert "21 workstations ok" in run.output
    assert sorted((lab.report / "pending").read_text().split()) == names
    report = json.loads((lab.report / "report.json").read_text())
    unwell = {host["name"]: host for host in report["hosts"] if host["state"] != "ok"}
    assert sorted(unwell) == names
    for host in unwell.values():
        reasons = [host["problem"] or {}, *host["users"]]
        assert [item for item in reasons if item.get("message") and item.get("remedy")], host
    assert [lab.accepts(token) for token in old.values()] == [True] * len(USERS)

    malformed.write_file(server_file, sound, "alice")
    finished = lab.play("rotate", "--limit", f"@{lab.report / 'pending'}", **another)
    assert finished.ok, finished.output
    assert tokens_in(lab) == new
    assert lab.holds_everywhere(new)
    assert [lab.accepts(token) for token in old.values()] == [False] * len(USERS)
    assert {user: fingerprint(token) for user, token in new.items()} == {
        user: fingerprint(lab.saved(lab.fleet[names[0]], user)) for user in USERS
    }


def test_a_host_that_hangs_after_the_login_holds_up_nobody(lab: Lab) -> None:
    hanging = lab.fleet["ws020"]
    hanging.inflict("hang", after="login")
    try:
        run = lab.play("verify", "--limit", "ws020,ws021", caveclient_task_timeout=8)
        rotated = lab.play("rotate", "--limit", "ws020,ws021", caveclient_task_timeout=8)
    finally:
        hanging.heal()
    for outcome in (run, rotated):
        assert not outcome.ok
        assert re.search("1 workstation ok, 1 (failed|pending)", outcome.output), outcome.output
        assert "ws020" in (lab.report / "pending").read_text()
