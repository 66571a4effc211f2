# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that hold a token and are outside of the limit: each is reached and looked at as its own variables say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

from .conftest import MakeFleet

pytestmark = [pytest.mark.root, pytest.mark.slow]

USER = "alice"
OWN_FOLDER = "/srv/secrets"


def test_holders_outside_of_the_limit_are_looked_at_with_their_own_connection_variables(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fleet = make_fleet(4, users=(USER,))
    with CaveServer(address=fleet.server_address) as cave:
        lab = Lab.of_fleet(fleet, cave, tmp_path / "lab", [USER])
        lab.variables |= {"caveclient_timeout": 15, "addresses": {host.name: host.address for host in fleet}}
        off, templated, as_herself, elsewhere = lab.hosts
        # Another port, account and SSH option, and no sudo.
        fleet[as_herself].run(["mv", "/usr/bin/sudo", "/usr/bin/sudo.off"])
        fleet[as_herself].run(["/usr/sbin/sshd", "-p", "2200"])
        arguments = lab.variables["ansible_ssh_common_args"]
        lab.hosts[templated]["ansible_host"] = "{{ addresses[inventory_hostname] }}"
        lab.hosts[as_herself] |= {
            "ansible_host": "no-such-host.example",
            "ansible_port": 2200,
            "ansible_user": USER,
            "ansible_ssh_common_args": f"{arguments} -o HostName={fleet[as_herself].address}",
            "caveclient_become": False,
        }
        lab.hosts[elsewhere] |= {
            "caveclient_secrets_dir": OWN_FOLDER,
            "ansible_python_interpreter": "/usr/bin/{{ 'python3' }}",
        }
        fleet[elsewhere].run(["install", "-d", "-o", USER, "-m", "0700", OWN_FOLDER])
        saved = lab.play("provision", "--tags", "token")
        assert saved.ok, saved.output
        (old,) = lab.tokens(USER)

        lab.hosts[off]["ansible_port"] = 1
        begun = lab.rotate(strategy="overlap")
        assert begun.status == 2
        del lab.hosts[off]["ansible_port"]
        path = fleet[elsewhere].root(f"{OWN_FOLDER}/{lab.server_file}")
        new = path.read_text()
        path.write_text(json.dumps({"token": old}))
        kept = lab.rotate("--limit", off, strategy="overlap")
        assert kept.status == 2
        assert set(lab.reported()) == set(lab.hosts)
        assert [name for name, host in lab.reported().items() if host["state"] != "ok"] == [elsewhere], kept.output
        assert f"{OWN_FOLDER}/{lab.server_file} has {fingerprint(old)}" in " ".join(kept.output.split())
        assert old in lab.tokens(USER)

        path.write_text(new)
        finished = lab.rotate("--limit", off, strategy="overlap")
        assert finished.ok, finished.output
        assert lab.tokens(USER) == [lab.stored(USER)]
        assert old not in lab.tokens(USER)
