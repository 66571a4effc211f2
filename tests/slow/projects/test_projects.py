# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the real packages of projects send, when profiles have provisioned, rotated and taken off a token.

The packages bring more than a gigabyte of others: `nox -s projects`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from caveclient_environments import caveclient_python
from lab import STACK, USER, Lab

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import PROFILES
from cave_server import CaveServer

pytestmark = [pytest.mark.slow, pytest.mark.network]

PACKAGES = ("banc==0.6.1", "fanc-fly==3.2.3", "fafbseg==3.2.3")
FLYWIRE = "prod.flywire-daf.com"
READER = f"""
import hashlib, json, os, sys, warnings
warnings.simplefilter("ignore")
import banc, fanc
from fafbseg import flywire

def of_flywire(*domain):
    return flywire.utils.get_chunkedgraph_secret(*domain)

ASK = {{
    "banc": lambda: banc.get_caveclient().auth.token,
    "fanc": lambda: fanc.get_caveclient().auth.token,
    "fafbseg": of_flywire,
    "fafbseg, second file": lambda: of_flywire({FLYWIRE!r}),
}}

def answer(ask):
    try:
        return hashlib.sha256(ask().encode()).hexdigest()[:8]
    except Exception as error:
        return type(error).__name__

def say(text):
    os.write(told, text.encode() + b"\\n")

told = os.dup(1)
os.dup2(2, 1)  # what the packages print
say("ready")
for _line in sys.stdin:
    child = os.fork()  # each reads anew, as a program that was just started
    if not child:
        say(json.dumps({{name: answer(ask) for name, ask in ASK.items()}}))
        os._exit(0)
    os.waitpid(child, 0)
"""


class Reader:
    """A program of a user of ws1 that uses all of the packages.

    Args:
        home: the user's.
        noise: a file for what the packages print.
    """

    def __init__(self, home: Path, noise: Path) -> None:
        python = caveclient_python(None, packages=PACKAGES)
        environ = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        # Without an entry in the server map they ask the public server, which tests leave alone.
        environ |= {"https_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
        with noise.open("wb") as file:
            self.process = subprocess.Popen(
                [python, "-c", READER],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def says(self) -> str:
        """Return its next line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "it has ended"
        return line

    def sends(self) -> dict[str, str]:
        """Return what each package sends, as fingerprints, or the error that it raises."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, str] = json.loads(self.says())
        return found


@pytest.fixture
def lab(cave: CaveServer, tmp_path: Path) -> Lab:
    """A workstation for people of all projects."""
    lab = Lab(tmp_path, cave, ["ws1"])
    stacks = [stack for profile in PROFILES.values() for stack in profile.datastacks]
    cave.set_permissions("alice", [STACK, *stacks])
    cave.serve("flywire_fafb_public", f"https://{FLYWIRE}")
    lab.variables["caveclient_profiles"] = list(PROFILES)
    return lab


@pytest.fixture
def reader(lab: Lab, tmp_path: Path) -> Iterator[Reader]:
    """The packages, imported."""
    reader = Reader(lab.home("ws1"), tmp_path / "noise")
    assert reader.says() == "ready\n", (tmp_path / "noise").read_text()
    yield reader
    reader.process.communicate(timeout=60)


def test_every_package_sends_the_token_that_is_right_now(lab: Lab, reader: Reader) -> None:
    packages = list(reader.sends())
    assert len(packages) == 4

    run = lab.play("provision", "--tags", "token")
    assert run.ok, run.output
    assert reader.sends() == dict.fromkeys(packages, fingerprint(lab.token))
    assert (lab.secrets("ws1") / f"{FLYWIRE}-cave-secret.json").exists()

    rotated = lab.rotate(strategy="overlap")
    assert rotated.ok, rotated.output
    new = lab.stored() or ""
    assert new != lab.token
    assert reader.sends() == dict.fromkeys(packages, fingerprint(new))
    assert lab.token not in lab.tokens(), "nobody sends it any more"

    gone = lab.play("decommission", users=USER)
    assert gone.ok, gone.output
    left = reader.sends()
    assert set(left.values()) <= {"AuthException", "ProxyError", "ValueError"}, left
    assert lab.holding(new) == []
