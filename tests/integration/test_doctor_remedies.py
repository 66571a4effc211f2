# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every problem and verdict, at a person's desk: said in a person's words, and what is advised, done, clears it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pexpect
import pytest
from doctor_desk import DATASTACK, PERSON, Desk
from homes import NEW_TOKEN, OLD_TOKEN

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import VERDICTS
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import words
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.words import ADMINISTRATORS, CAVES, YOURS
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import PROBLEMS
from cave_server import CaveServer

NOT_FOR_PERSONS = re.compile(r"ansible|\bvault\b|\bsudo\b|\bas root\b|\bplaybook\b|\bprovision\b", re.IGNORECASE)
ROWS, COLUMNS = 40, 80
Do = Callable[[Desk, CaveServer], object]


class Story(NamedTuple):
    """What is wrong; whose trouble the doctor says it is, and what it advises; and that advice, followed."""

    begin: Do
    whose: str
    advice: str
    follow: Do


def write(path: Path, content: object) -> None:
    """Write a file that is the person's alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)


def fix(desk: Desk, _cave: CaveServer) -> None:
    """Run --fix, and say yes to all."""
    desk.ask(*desk.usual, "--fix", answers="y\n" * 9)


def save_anew(desk: Desk, cave: CaveServer) -> None:
    """Give the good token to `cave-doctor token`."""
    desk.ask("token", answers=f"{cave.person('alice').token}\n")


def good(cave: CaveServer) -> str:
    """Return Alice's token."""
    return str(cave.person("alice").token)


def installed(folder: Path, *packages: str) -> list[Path]:
    """Pretend that packages are installed below a folder."""
    folders = [folder / f"{name}.dist-info" for name in packages]
    for path in folders:
        path.mkdir(parents=True)
        (path / "METADATA").write_text(f"Name: {path.name.partition('-')[0]}\nVersion: {path.name.split('-')[1]}\n")
    return folders


SITE = "lib/python3.11/site-packages"


def elsewhere(desk: Desk, cave: CaveServer) -> None:
    """Let CLOUD_VOLUME_DIR lead to another token."""
    write(desk.home / "cv" / "secrets" / "cave-secret.json", {"token": OLD_TOKEN})
    desk.environment["CLOUD_VOLUME_DIR"] = str(desk.home / "cv")


def left_behind(desk: Desk, cave: CaveServer) -> None:
    """Let every program find the good token, and leave another one where nobody looks any more."""
    write(desk.secrets / f"{desk.local_server[7:]}-cave-secret.json", {"token": good(cave)})
    write(desk.secrets / "cave-secret.json", {"token": OLD_TOKEN})


def with_another_key(desk: Desk, cave: CaveServer) -> None:
    """Let a package look for the token under a key that no file has."""
    cave.serve("brain_and_nerve_cord")
    cave.set_permissions("alice", [DATASTACK, "brain_and_nerve_cord"])
    desk.usual += [DATASTACK, "brain_and_nerve_cord"]
    write(desk.home / ".bashrc", "export BANC_AUTH_TOKEN_KEY=lab\n")


def given_away(desk: Desk, _cave: CaveServer) -> None:
    """Let the file belong to somebody else, who lets the person read it."""
    os.chown(desk.server_file, 1, 1)
    desk.server_file.chmod(0o644)


def given_back(desk: Desk, _cave: CaveServer) -> None:
    """Do what only an administrator may."""
    os.chown(desk.server_file, PERSON, PERSON)
    desk.server_file.chmod(0o600)


def emptied(desk: Desk, _cave: CaveServer) -> None:
    """Leave no secrets file."""
    for path in desk.secrets.iterdir():
        path.unlink()


def linked(desk: Desk, cave: CaveServer) -> None:
    """Put a link in the place of the file."""
    write(desk.home / "mine.json", {"token": good(cave)})
    desk.server_file.unlink()
    desk.server_file.symlink_to(desk.home / "mine.json")


def upgraded(desk: Desk, _cave: CaveServer) -> None:
    """Do what the upgrade does, which takes an index."""
    site = desk.home / ".local" / SITE
    (site / "caveclient-5.31.0.dist-info" / "METADATA").unlink()
    (site / "caveclient-5.31.0.dist-info").rmdir()


PROBLEM_STORIES: dict[str, Story] = {
    "malformed": Story(lambda desk, cave: write(desk.server_file, "{"), YOURS, "run: cave-doctor --fix", fix),
    "bom": Story(
        lambda desk, cave: write(desk.server_file, "\ufeff" + json.dumps({"token": good(cave)})),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "empty": Story(lambda desk, cave: write(desk.server_file, ""), YOURS, "run: cave-doctor --fix", fix),
    "unreadable": Story(lambda desk, cave: desk.secrets.chmod(0o600), YOURS, "run: cave-doctor --fix", fix),
    "stale": Story(
        lambda desk, cave: write(desk.secrets / f"{desk.local_server[7:]}-cave-secret.json", {"token": OLD_TOKEN}),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "env_token": Story(
        lambda desk, cave: write(desk.home / ".Renviron", f"CHUNKEDGRAPH_SECRET={OLD_TOKEN}\n"),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "env_token_key": Story(with_another_key, YOURS, "run: cave-doctor --fix", fix),
    "ca_bundle": Story(
        lambda desk, cave: write(desk.home / ".Renviron", "CURL_CA_BUNDLE=~/lab-ca.pem\n"),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "shadowed": Story(left_behind, YOURS, "run: cave-doctor --fix", fix),
    "cloud_volume_dir_split": Story(elsewhere, YOURS, "run: cave-doctor --fix", fix),
    "cloud_volume_dir_unclear": Story(
        lambda desk, cave: write(desk.home / ".bashrc", "export CLOUD_VOLUME_DIR=$(cat /etc/cloud-volume-dir)\n"),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "netrc_overrides_token": Story(
        lambda desk, cave: write(desk.home / ".netrc", "machine 127.0.0.1 login a password b\n"),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "shadowed_key": Story(
        lambda desk, cave: write(desk.secrets / "cave-secret.json", {"token": good(cave), "banc": NEW_TOKEN}),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "legacy_name": Story(
        lambda desk, cave: write(desk.secrets / "chunkedgraph-secret.json", {"token": OLD_TOKEN}),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "poisoned_server_map": Story(
        lambda desk, cave: write(
            desk.secrets / "cave_datastack_to_server_map.json", {DATASTACK: "https://typo.daf-apis.com"}
        ),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
    "symlink": Story(linked, YOURS, "run: cave-doctor --fix", fix),
    "wrong_owner": Story(
        given_away,
        ADMINISTRATORS,
        "cave-doctor --ask-admin",
        given_back,
    ),
    "loose_mode": Story(lambda desk, cave: desk.server_file.chmod(0o644), YOURS, "run: cave-doctor --fix", fix),
    "known_bad_caveclient": Story(
        lambda desk, cave: installed(desk.home / ".local" / SITE, "caveclient-5.31.0"),
        YOURS,
        "run: cave-doctor --fix",
        upgraded,
    ),
}
NOT_AT_A_DESK = {"unexpected_token": "nobody has told the doctor which token to expect"}


VERDICT_STORIES: dict[str, Story] = {
    "no_token": Story(emptied, YOURS, "cave-doctor token", save_anew),
    "malformed_file": Story(lambda desk, cave: write(desk.server_file, "[]"), YOURS, "cave-doctor --fix", fix),
    "invalid_token": Story(lambda desk, cave: desk.save(OLD_TOKEN), YOURS, "cave-doctor token", save_anew),
    "missing_tos": Story(
        lambda desk, cave: desk.save(cave.add_person("bob", [DATASTACK], accepted_tos=False).token),
        YOURS,
        "accept the terms of service: http",
        lambda desk, cave: cave.accept_tos("bob"),
    ),
    "missing_permission": Story(
        lambda desk, cave: cave.set_permissions("alice", []),
        YOURS,
        "Ask the managers of dataset",
        lambda desk, cave: cave.set_permissions("alice", [DATASTACK]),
    ),
    "unknown_datastack": Story(
        lambda desk, cave: desk.usual.append("no_such_stack"),
        YOURS,
        "check the name; cave-doctor NAME tries another one",
        lambda desk, cave: desk.usual.remove("no_such_stack"),
    ),
    "not_a_cave_server": Story(
        lambda desk, cave: cave.set_fault("/", "html"),
        ADMINISTRATORS,
        "the network may want you to log in",
        lambda desk, cave: cave.clear_faults(),
    ),
    "unreachable": Story(
        lambda desk, cave: cave.set_listening(False),
        ADMINISTRATORS,
        "check that this computer is online",
        lambda desk, cave: cave.set_listening(True),
    ),
    "tls_error": Story(
        lambda desk, cave: desk.usual.extend(["--server", desk.server.replace("http:", "https:")]),
        ADMINISTRATORS,
        "does not trust what answers",
        lambda desk, cave: desk.usual.clear(),
    ),
    "service_blocked": Story(
        lambda desk, cave: cave.serve(DATASTACK, "http://127.0.0.1:1"),
        ADMINISTRATORS,
        "a firewall may be in the way",
        lambda desk, cave: cave.serve(DATASTACK),
    ),
    "service_down": Story(
        lambda desk, cave: cave.set_fault("/materialize", "status", status=503),
        CAVES,
        "nothing to do but wait",
        lambda desk, cave: cave.clear_faults(),
    ),
    "incompatible_client": Story(
        lambda desk, cave: installed(desk.environments / "current" / SITE, "caveclient-8.2.1", "pandas-3.0.0"),
        ADMINISTRATORS,
        "the installed programs do not fit",
        lambda desk, cave: (desk.environments / "current" / SITE / "pandas-3.0.0.dist-info").rename(
            desk.environments / "current" / SITE / "pandas-2.3.3.dist-info"
        ),
    ),
    "rate_limited": Story(
        lambda desk, cave: cave.set_fault("/auth", "status", status=429),
        CAVES,
        "wait a minute",
        lambda desk, cave: cave.clear_faults(),
    ),
    "server_error": Story(
        lambda desk, cave: cave.set_fault("/", "status", status=500),
        CAVES,
        "nothing to do but wait",
        lambda desk, cave: cave.clear_faults(),
    ),
    "client_error": Story(
        lambda desk, cave: write(desk.home / ".netrc", "default login anonymous password x\n"),
        YOURS,
        "run: cave-doctor --fix",
        fix,
    ),
}


@pytest.fixture
def desk(tmp_path: Path, cave: CaveServer) -> Desk:
    """Alice's desk, where all is well."""
    desk = Desk(tmp_path, cave.url)
    cave.serve(DATASTACK)
    desk.save(cave.add_person("alice", permissions=[DATASTACK]).token)
    return desk


def test_there_is_a_story_for_every_problem_and_every_verdict() -> None:
    assert set(PROBLEM_STORIES) | set(NOT_AT_A_DESK) == set(PROBLEMS)
    assert set(VERDICT_STORIES) | {"ok"} == set(VERDICTS)


@pytest.mark.parametrize("code", PROBLEM_STORIES)
def test_a_problem_is_told_to_a_person_and_cleared_by_what_is_advised(code: str, desk: Desk, cave: CaveServer) -> None:
    if code == "wrong_owner" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    walk(PROBLEM_STORIES[code], code, desk, cave)


@pytest.mark.parametrize("code", VERDICT_STORIES)
def test_a_verdict_is_told_to_a_person_and_cleared_by_what_is_advised(code: str, desk: Desk, cave: CaveServer) -> None:
    try:
        walk(VERDICT_STORIES[code], code, desk, cave)
    finally:
        cave.set_listening(True)


def walk(story: Story, code: str, desk: Desk, cave: CaveServer) -> None:
    story.begin(desk, cave)

    told = desk.ask(*desk.usual)

    assert f"[{code}]" in " ".join(told.stdout.split()), told.stdout + told.stderr
    assert told.stderr == ""
    assert not NOT_FOR_PERSONS.search(told.stdout.partition("\nMore: ")[0]), told.stdout
    assert len(told.stdout.splitlines()) <= ROWS
    advice = " ".join(told.stdout[told.stdout.index(f"\n{story.whose}: ") :].split())
    assert story.advice in advice, told.stdout
    assert told.returncode == words.EXIT_STATUS[story.whose], told.stdout

    story.follow(desk, cave)

    after = desk.ask(*desk.usual)
    assert f"[{code}]" not in " ".join(after.stdout.split()), after.stdout
    if code != "malformed_file":  # what is left is a person without a token, who is told how to get one
        assert after.returncode == 0, after.stdout


TEN = {
    "no token": VERDICT_STORIES["no_token"],
    "a dead token": VERDICT_STORIES["invalid_token"],
    "a stale file": PROBLEM_STORIES["stale"],
    "a file that others read": PROBLEM_STORIES["loose_mode"],
    "a netrc file": PROBLEM_STORIES["netrc_overrides_token"],
    "terms are owed": VERDICT_STORIES["missing_tos"],
    "no permission": VERDICT_STORIES["missing_permission"],
    "no network": VERDICT_STORIES["unreachable"],
    "a firewall": VERDICT_STORIES["service_blocked"],
    "an outage": VERDICT_STORIES["service_down"],
}
"""What people meet most."""


@pytest.mark.parametrize("story", TEN)
def test_each_story_is_answered_on_one_screen(story: str, desk: Desk, cave: CaveServer) -> None:
    TEN[story].begin(desk, cave)
    try:
        terminal = desk.at_terminal(*desk.usual)
        terminal.setwinsize(24, COLUMNS)
        terminal.expect(pexpect.EOF)
    finally:
        cave.set_listening(True)
    shown = str(terminal.before)

    rows = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n").rstrip().split("\n")
    asking, cleared, rows[0] = rows[0].split("\r")
    assert asking.startswith("Asking http")
    assert len(asking) == len(cleared)
    assert not cleared.strip()
    assert len(rows) <= 24, shown
    assert max(map(len, (row for row in rows if "://" not in row))) <= COLUMNS, shown
    assert [row for row in rows if row.startswith(f"{TEN[story].whose}: ")], shown
    assert rows[-1].startswith("More: "), shown
