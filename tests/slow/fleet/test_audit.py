# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""audit on thirty real hosts finds the seeded defects and no other; decommission leaves nothing of a token behind."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from lab import Lab, squeezed

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTS = 30
PEOPLE = ("alice", "bob")
OLD = "0123456789abcdef0123456789abcdef"
STACKS = [{"name": "minnie65_public", "local_server": "https://minnie.microns-daf.com"}]
SECRETS = "$HOME/.cloudvolume/secrets"
LOCAL_FILE = "minnie.microns-daf.com-cave-secret.json"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    with (
        Fleet(HOSTS, name="pytest-audit", users=PEOPLE) as fleet,
        CaveServer(address=fleet.server_address) as cave,
    ):
        made = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), PEOPLE)
        made.variables["caveclient_datastacks"] = STACKS
        done = made.play("provision", "--tags", "token")
        assert done.ok, done.output
        yield made


Defect = tuple[str, str, str]
"""The user, the code, and the commands that make it, run as the user."""


def write(path: str, content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return f"umask 077; printf %s {shlex.quote(text)} > {path}"


def defects(lab: Lab) -> list[Defect]:
    """Twelve defects, one for each host that gets one."""
    alice = lab.token
    return [
        ("alice", "unexpected_token", f"for f in {SECRETS}/*-secret.json; do sed -i s/{alice}/{OLD}/ $f; done"),
        ("bob", "malformed", write(f"{SECRETS}/{lab.server_file}", '{"token')),
        ("alice", "bom", f"f={SECRETS}/cave-secret.json; printf '\\357\\273\\277{{}}' > $f"),
        ("bob", "empty", f": > {SECRETS}/cave-secret.json"),
        ("alice", "unreadable", f"chmod 200 {SECRETS}/cave-secret.json"),
        ("bob", "stale", write(f"{SECRETS}/{LOCAL_FILE}", {"token": OLD})),
        ("alice", "shadowed", write(f"{SECRETS}/cave-secret.json", {"token": OLD})),
        (
            "bob",
            "cloud_volume_dir_split",
            "echo 'export CLOUD_VOLUME_DIR=$HOME/cv' >> ~/.bashrc; mkdir -p ~/cv/secrets",
        ),
        ("alice", "legacy_name", write(f"{SECRETS}/chunkedgraph-secret.json", {"token": OLD})),
        (
            "bob",
            "poisoned_server_map",
            write(f"{SECRETS}/cave_datastack_to_server_map.json", {"minnie65_public": "https://gobal.daf-apis.com"}),
        ),
        ("alice", "symlink", f"cd {SECRETS}; mv cave-secret.json ~/mine.json; ln -s ~/mine.json cave-secret.json"),
        ("bob", "loose_mode", f"chmod 644 {SECRETS}/cave-secret.json"),
    ]


def found(lab: Lab) -> dict[str, list[tuple[str, str]]]:
    """Return user and code of every problem in the last report, by host."""
    hosts = lab.reported()
    assert len(hosts) == HOSTS
    return {
        name: [(user["user"], problem["code"]) for user in host["users"] for problem in user["problems"]]
        for name, host in hosts.items()
    }


def test_audit_of_thirty_hosts_finds_exactly_the_twelve_defects(lab: Lab) -> None:
    clean = lab.play("audit", caveclient_report="reports")
    assert clean.ok, clean.output
    assert "30 workstations ok" in clean.output
    assert all(problems == [] for problems in found(lab).values())

    seeded = dict(zip(list(lab.fleet)[3::2], defects(lab), strict=False))
    assert len(seeded) == 12
    for host, (user, _code, commands) in seeded.items():
        host.run(["bash", "-c", commands], user)
    expected: dict[str, list[tuple[str, str]]] = {host.name: [] for host in lab.fleet}
    expected.update({host.name: [(user, code)] for host, (user, code, _commands) in seeded.items()})
    done = lab.play("audit", caveclient_report="reports")
    assert found(lab) == expected
    # Two of them are locked out: the server refuses the one's token, and the other's file cannot be read.
    assert done.status == 2
    said = squeezed(done)
    assert f"29 workstations send {fingerprint(lab.token)}; 1 sends {fingerprint(OLD)}, which the server" in said

    fixed = lab.play("provision", "--tags", "token", caveclient_on_malformed="replace")
    left = {host.name for host, (_user, code, _commands) in seeded.items() if code in ("unreadable",)}
    assert fixed.status == 2
    lab.play("audit", caveclient_report="reports")
    assert {name for name, problems in found(lab).items() if problems} - left == {
        host.name for host, (_user, code, _commands) in seeded.items() if code == "legacy_name"
    }


def holding(host: Host, token: str) -> list[str]:
    """Return every file of the host's whole file system that holds a token."""
    search = ["grep", "-rlsF", "--exclude-dir=proc", "--exclude-dir=sys", "--exclude-dir=dev", "-e", token, "/"]
    return host.run(search, check=False, timeout=120).stdout.split()


def test_after_decommission_a_search_of_the_whole_host_finds_nothing(lab: Lab) -> None:
    lab.play("provision", "--tags", "token", "--limit", "ws001,ws002")
    hosts = [lab.fleet["ws001"], lab.fleet["ws002"]]
    for host in hosts:
        host.run(
            ["bash", "-c", f"cd {SECRETS}; for end in '~' .bak .malformed-1; do cp cave-secret.json x$end; done"], "bob"
        )
        assert len(holding(host, lab.persons["bob"].token)) == 6
    done = lab.play("decommission", "--limit", "ws001,ws002", users="bob")
    assert done.ok, done.output
    assert f"Taken off: bob {fingerprint(lab.persons['bob'].token)} (2 hosts)" in squeezed(done)
    for host in hosts:
        assert holding(host, lab.persons["bob"].token) == []
        assert holding(host, lab.token)
