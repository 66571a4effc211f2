# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every set of requests and every set of files that they find, and how to make both up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import Datastack
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import (
    DEFAULT_FILE,
    LEGACY_FILE,
    SERVER_MAP,
    Entry,
    canonical,
    named_for,
    server_file,
    tokens_in,
    values,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.json_edit import members
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.plan import Plan, plan
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import places, read_by_all
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request, conflicts

DIRECTORIES = ["/home/alice/.cloudvolume/secrets", "/data/cv/secrets"]
WHERE = places("/home/alice", cloud_volume_dir="/data/cv")
GLOBAL, ZETTA, LAB = "https://global.daf-apis.com", "https://proofreading.zetta.ai", "https://cave.lab.example"
STACKS = {
    GLOBAL: [
        Datastack("minnie65_public", "https://minnie.microns-daf.com"),
        Datastack("flywire_fafb_public", "https://prod.flywire-daf.com"),
    ],
    ZETTA: [Datastack("kronauer_ant", "https://data.proofreading.zetta.ai"), Datastack("no_local_server", "")],
    # A local server that two auth servers share.
    LAB: [Datastack("mouse", "https://data.proofreading.zetta.ai"), Datastack("fly", "https://local.lab.example")],
}
HOSTS = [
    "global.daf-apis.com",
    "minnie.microns-daf.com",
    "prod.flywire-daf.com",
    "proofreading.zetta.ai",
    "data.proofreading.zetta.ai",
    "cave.lab.example",
    "elsewhere.example.org",
    # As somebody typed them.
    "Global.Daf-APIs.com",
    "minnie.microns-daf.com:443",
]
NAMES = [DEFAULT_FILE, LEGACY_FILE, SERVER_MAP, "notes.json", "old-cave-secret.json", *map(server_file, HOSTS)]
TOKENS = ["token-1", "token-2", "token-3", "token-4"]
KEYS = ["token", "banc", "zetta"]
VALUES = st.sampled_from(TOKENS) | st.sampled_from([None, 7, "", True, ["token-1"], {"token": "token-2"}])
CONTENTS = st.lists(st.tuples(st.sampled_from([*KEYS, "mine"]), VALUES), max_size=4)


def text_of(items: list[tuple[str, Any]]) -> str:
    """A JSON object, in which a key may stand twice."""
    return "{" + " , ".join(f"{json.dumps(key)} :{json.dumps(value)}" for key, value in items) + "}\n"


TREES = st.dictionaries(
    st.builds(os.path.join, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES)), CONTENTS.map(text_of)
)


@st.composite
def _requests(draw: st.DrawFn) -> list[Request]:
    """Requests of which none excludes another."""
    found: list[Request] = []
    for server in draw(st.lists(st.sampled_from([GLOBAL, ZETTA, LAB]), min_size=1, max_size=5)):
        stacks = draw(st.lists(st.sampled_from(STACKS[server]), unique=True))
        token = draw(st.sampled_from([*TOKENS, None]))
        request = Request(server, stacks, draw(st.sampled_from(KEYS)), token)
        if not any(conflicts([*found, request])):
            found.append(request)
    return found


STALE = st.sampled_from(["update", "report", "ignore"])


class Case(NamedTuple):
    """Files, what is asked for, and what comes of it."""

    files: dict[str, str]
    asked: list[Request]
    stale: str
    result: Plan

    @classmethod
    def of(cls, files: dict[str, str], asked: list[Request], stale: str) -> Case:
        """Return files and requests with what is planned for them."""
        return cls(files, asked, stale, plan(files, DIRECTORIES, asked, stale))

    @property
    def wanted(self) -> set[str | None]:
        return {request.token for request in self.asked}


def every_reader_sends_the_token_of_its_server(case: Case) -> None:
    listing = {path: Entry(0o600, 0, 0, True, text, None, "") for path, text in case.result.texts.items()}
    for request in case.asked:
        readings = read_by_all(listing, WHERE, request.host, request.local_hosts, request.key)
        assert request.token is None or {reading.token for reading in readings} == {request.token}


def a_second_run_changes_nothing(case: Case) -> None:
    second = plan(case.result.texts, DIRECTORIES, case.asked, case.stale)
    assert second.texts == case.result.texts
    assert not any(share.changed for share in second.shares)


def the_order_of_the_requests_makes_no_difference(case: Case) -> None:
    for order in (case.asked[::-1], sorted(case.asked, key=str)):
        other = plan(case.files, DIRECTORIES, order, case.stale)
        assert {path: values(text) for path, text in other.texts.items()} == {
            path: values(text) for path, text in case.result.texts.items()
        }


def files_of_servers_that_nobody_asked_about_stay_and_are_told(case: Case) -> None:
    family = {name for request in case.asked for name in request.family()}
    for path, text in case.files.items():
        name = Path(path).name
        if named_for(name) and canonical(name) not in family:
            assert case.result.texts[path] == text
            for share in case.result.shares:
                held = share.replaced & set(tokens_in(text).values()) - case.wanted
                assert case.stale == "ignore" or not held or path in share.stale


def further_keys_stay_byte_for_byte(case: Case) -> None:
    replaced = {token for share in case.result.shares for token in share.replaced}
    written = {request.key for request in case.asked}
    written |= {stack.name for request in case.asked for stack in request.datastacks}
    for path, text in case.files.items():
        kept = [
            text[member.key_start : member.value_end]
            for member in members(text)
            if member.key not in written and (not isinstance(member.value, str) or member.value not in replaced)
        ]
        after = case.result.texts.get(path, "{}")
        found = iter([after[member.key_start : member.value_end] for member in members(after)])
        assert all(raw in found for raw in kept), f"each of them, in their order: {path}"


def a_replaced_token_is_left_in_files_of_other_servers_alone(case: Case) -> None:
    families = {name for request in case.asked for name in request.family()}
    for request, share in zip(case.asked, case.result.shares, strict=True):
        for path, text in case.result.texts.items() if case.stale == "update" else ():
            name = Path(path).name
            is_shared = not named_for(name) and name != SERVER_MAP
            if is_shared or (canonical(name) in request.family() and families == request.family()):
                assert not (share.replaced - case.wanted) & set(tokens_in(text).values()), path


def what_is_told_is_what_is_done(case: Case) -> None:
    differing = {
        path for path in {*case.files, *case.result.texts} if case.files.get(path) != case.result.texts.get(path)
    }
    assert {path for share in case.result.shares for path in share.changed} == differing
    assert differing <= set(case.result.order)
    for share in case.result.shares:
        assert share.changed <= set(share.reasons)
        assert not set(share.stale) & share.changed


PROMISES = (
    every_reader_sends_the_token_of_its_server,
    a_second_run_changes_nothing,
    the_order_of_the_requests_makes_no_difference,
    files_of_servers_that_nobody_asked_about_stay_and_are_told,
    further_keys_stay_byte_for_byte,
    a_replaced_token_is_left_in_files_of_other_servers_alone,
    what_is_told_is_what_is_done,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any files, any requests, and what is planned for them."""
    return Case.of(draw(TREES), draw(_requests()), draw(STALE))
