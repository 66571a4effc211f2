# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bad day, on 30 real SSH hosts with three Pythons and three users each."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from lab import CA_FILE, Lab

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import request
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer
from fleet import USERS, Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 30
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Thirty hosts on which three users have access."""
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name=f"pytest-rotate-{os.getpid()}") as fleet,
        CaveServer(tls=True, address=fleet.server_address) as cave,
    ):
        lab = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), USERS)
        lab.variables |= {"caveclient_timeout": 15, "caveclient_report": str(lab.report)}
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


def holds_everywhere(lab: Lab, tokens: dict[str, str], *but: Host) -> bool:
    """Return whether every user has that token on every host."""
    return all(
        lab.saved(host, user) == token for host in lab.fleet if host not in but for user, token in tokens.items()
    )


def accepts(lab: Lab, token: str) -> bool:
    """Return whether the auth server accepts a token."""
    answer = request("GET", f"{lab.cave.url}/auth/api/v1/user/me", token, timeout=10, ca_path=str(lab.cave.ca))
    return answer.status == 200


def tokens_in(lab: Lab) -> dict[str, str]:
    """Return the tokens in the vault, by user."""
    return {user: str(lab.stored(user)) for user in USERS}


def test_after_a_refresh_one_command_gets_every_host_and_user_back(lab: Lab) -> None:
    new = {user: lab.cave.refresh(user) for user in USERS}
    assert not lab.play("verify", "--limit", "ws001").ok
    lab.store(**new)
    run = lab.play("rotate")
    assert run.ok, run.output
    assert "30 workstations ok" in run.output
    assert holds_everywhere(lab, new)
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
    assert holds_everywhere(lab, new)
    assert [accepts(lab, token) for token in old.values()] == [False] * len(USERS)
    assert [[item["token"] for item in lab.cave.tokens(user)] for user in USERS] == [[new[user]] for user in USERS]


def test_a_bad_fleet_gets_as_far_as_it_can_and_finishes_when_it_is_repaired(lab: Lab) -> None:
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
    server_file = f"{SECRETS.format(user='alice')}/{lab.server_file}"
    malformed = lab.fleet[names[5]]
    sound = malformed.read_file(server_file)
    malformed.write_file(server_file, '{"token": ', "alice")
    for name, fault in faults.items():
        lab.fleet[name].inflict(fault)
    bad = [lab.fleet[name] for name in names]
    another: dict[str, Any] = {  # without a name of its own, the tokens of the rotation before are new enough
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
    assert holds_everywhere(lab, new, *bad)
    assert "21 workstations ok" in run.output
    assert sorted((lab.report / "pending").read_text().split()) == names
    unwell = {name: host for name, host in lab.reported().items() if host["state"] != "ok"}
    assert sorted(unwell) == names
    for found in unwell.values():
        reasons = [found["problem"] or {}, *found["users"]]
        assert [item for item in reasons if item.get("message") and item.get("remedy")], found
    assert [accepts(lab, token) for token in old.values()] == [True] * len(USERS)

    malformed.write_file(server_file, sound, "alice")
    finished = lab.play("rotate", "--limit", f"@{lab.report / 'pending'}", **another)
    assert finished.ok, finished.output
    assert tokens_in(lab) == new
    assert holds_everywhere(lab, new)
    assert [accepts(lab, token) for token in old.values()] == [False] * len(USERS)
    assert {user: fingerprint(token) for user, token in new.items()} == {
        user: fingerprint(str(lab.saved(lab.fleet[names[0]], user))) for user in USERS
    }


def test_a_host_that_hangs_after_the_login_holds_up_nobody(lab: Lab) -> None:
    hanging = lab.fleet["ws020"]
    hanging.inflict("hang", after="login")
    try:
        run = lab.play("verify", "--limit", "ws020,ws021", caveclient_task_timeout=8)
        rotated = lab.play("rotate", "--limit", "ws020,ws021", caveclient_task_timeout=8)
    finally:
        hanging.heal()
    # A rotation looks at the other hosts with these tokens, too.
    for outcome, well in ((run, "1 workstation"), (rotated, f"{HOSTS - 1} workstations")):
        assert not outcome.ok
        assert re.search(rf"(?m)^{well} ok, 1 (failed|pending)", outcome.output), outcome.output
        assert "ws020" in (lab.report / "pending").read_text()
