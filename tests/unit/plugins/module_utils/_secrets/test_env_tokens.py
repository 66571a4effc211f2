# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens in startup files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import env_tokens
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import places
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.remedies import take_from_environment

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "is_alone"),
    [
        (f"CHUNKEDGRAPH_SECRET={TOKEN}", True),
        (f"CHUNKEDGRAPH_SECRET = '{TOKEN}'", True),
        (f'  export FLYWIRE_TOKEN="{TOKEN}"', True),
        (f"set -gx CAVE_TOKEN {TOKEN}", True),
        (f"set --global --export CAVE_TOKEN {TOKEN}", True),
        (f"setenv CHUNKEDGRAPH_SECRET {TOKEN}", True),
        (f'Sys.setenv(CHUNKEDGRAPH_SECRET = "{TOKEN}")', True),
        (f"CAVE_TOKEN DEFAULT={TOKEN}", True),
        (f"CAVE_TOKEN={TOKEN}\r", True),
        (f"SETUVAR --export CAVE_TOKEN:{TOKEN}", False),
        (f'CAVE_TOKEN OVERRIDE="{TOKEN}"', True),
        (f"CAVE_TOKEN DEFAULT={TOKEN} OVERRIDE=@{{HOME}}", False),
        (f"export EDITOR=vi CHUNKEDGRAPH_SECRET={TOKEN}", False),
        (f"CHUNKEDGRAPH_SECRET={TOKEN} R --no-save", False),
        (f"[ -n x ] && export CHUNKEDGRAPH_SECRET={TOKEN}", False),
        (f"export CAVE_AUTH_TOKEN={TOKEN}", True),
        (f"CAVECLIENT_API_KEY={TOKEN}", True),
        (f"MICRONS_TOKEN={TOKEN}", True),
        (f"export CAVE_TOKEN=$'{TOKEN}'", True),
        (f"export BANC_AUTH_TOKEN_KEY={TOKEN}", True),
        (f"FANC_TOKEN={TOKEN}", True),
        (f'$env.CAVE_TOKEN = "{TOKEN}"', False),
        (f'$env:CAVE_TOKEN = "{TOKEN}"', False),
        (f"$CAVE_TOKEN = '{TOKEN}'", False),
        (f"set-env CAVE_TOKEN {TOKEN}", False),
    ],
)
def test_a_token_is_found_in_the_languages_of_startup_files(text: str, is_alone: bool) -> None:
    (found,) = env_tokens("/home/alice/x", f"# first\n{text}\n")
    assert (found.token, found.line, found.is_alone) == (TOKEN, 2, is_alone)
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"env": {{"CAVE_TOKEN": "{TOKEN}", "X": "y"}}}}',
        f'  "FLYWIRE_TOKEN" : "{TOKEN}",',
        f'os.environ["CAVE_SECRET"] = "{TOKEN}"',
        f"os.environ['CAVE_SECRET']='{TOKEN}'  # mine",
        f'env = {{"CAVE_TOKEN": "{TOKEN}"}}',
        f'os.environ.setdefault("CAVE_TOKEN", "{TOKEN}")',
        f'[Environment]::SetEnvironmentVariable("CAVE_TOKEN", "{TOKEN}")',
    ],
)
def test_a_token_among_items_of_json_or_python_is_emptied_and_all_else_stays(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(f"first\n{text}\n")
    (found,) = env_tokens(str(path), path.read_text())
    assert (found.token, found.line, found.is_item) == (TOKEN, 2, True)
    files = UserFiles("alice", 0, str(tmp_path), False, places(str(tmp_path)), {}, [], {}, "")
    subprocess.run(["sh", "-c", take_from_environment(files, found)], check=True)
    assert path.read_text() == f"first\n{text}\n".replace(TOKEN, "")


@pytest.mark.parametrize(
    "text",
    [
        f"# CHUNKEDGRAPH_SECRET={TOKEN}",
        f"export EDITOR=vi # CHUNKEDGRAPH_SECRET={TOKEN}",
        "CHUNKEDGRAPH_SECRET=",
        "CHUNKEDGRAPH_SECRET=YOUR_TOKEN_HERE",
        "CHUNKEDGRAPH_SECRET=short",
        'export CHUNKEDGRAPH_SECRET="$(cat ~/token)"',
        "echo $CHUNKEDGRAPH_SECRET",
        f"echo ${{CHUNKEDGRAPH_SECRET:-{TOKEN}}}",
        f"MY_CHUNKEDGRAPH_SECRET={TOKEN}",
        f"CHUNKEDGRAPH_SECRETS={TOKEN}",
        "BANC_AUTH_TOKEN_KEY=brain_and_nerve_cord",
        "CAVE_TOKEN=$ANOTHER_VARIABLE_OF_MINE",
    ],
)
def test_what_holds_no_token_is_no_finding(text: str) -> None:
    assert list(env_tokens("/home/alice/x", f"{text}\n")) == []


def test_a_line_without_end_holds_nobody_up() -> None:
    begin = time.process_time()
    (found,) = env_tokens("/home/alice/x", f"{'CAVE_' * 200_000}\nCAVE_TOKEN={TOKEN}\n")
    assert time.process_time() - begin < 5
    assert (found.line, found.token) == (2, TOKEN)
