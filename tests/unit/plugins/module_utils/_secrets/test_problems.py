# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a user's files: pure functions, without a file system."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import NetrcFile
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_of, parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import problems as _problems
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import EnvToken
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import Place, TokenQuery, UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import Problem

HOME = "/home/alice"
SECRETS = f"{HOME}/.cloudvolume/secrets"
SERVER = "https://global.daf-apis.com"
SERVER_FILE = "global.daf-apis.com-cave-secret.json"
LOCAL_FILE = "minnie.microns-daf.com-cave-secret.json"
NEW, OLD = "fedcba9876543210fedcba9876543210", "0123456789abcdef0123456789abcdef"
UID = 1000
DIRECTORIES = [
    Place(f"{HOME}/.cloudvolume", "parent", 0o755, UID, False, True),
    Place(SECRETS, "directory", 0o700, UID, False, True),
]


def entry(content: object, problem: str | None = None) -> _files.Entry:
    if problem:
        return _files.Entry(0o600, UID, UID, True, None, problem, _files.PROBLEMS[problem])
    return _files.Entry(0o600, UID, UID, True, json.dumps(content), None, "")


def found(files: Mapping[str, Any], places: list[Place] | None = None, **more: Any) -> UserFiles:
    """A user with files: content, or an Entry, by name in the secrets directory or by path."""
    listing = {
        str(PurePosixPath(SECRETS, name)): content if isinstance(content, _files.Entry) else entry(content)
        for name, content in files.items()
    }
    where = more.pop("where", _readers.places(HOME))
    standard = [Place(path, "file", 0o600, UID, False, True) for path in listing]
    values = {"installed": {}, "managed": "/opt/caveclient", **more}
    by_root = values.pop("by_root", True)
    return UserFiles("alice", UID, HOME, by_root, where, listing, [*DIRECTORIES, *(places or standard)], **values)


def asked(*stacks: str, expected: str | None = None, server: str = SERVER, **more: Any) -> TokenQuery:
    named = parse_datastacks(stacks or ["minnie65_public"], server)
    return TokenQuery(server, named, expected=expected, is_managed=expected is not None, **more)


def problems(state: UserFiles, question: TokenQuery) -> list[Problem]:
    readings = _readers.read_by_all(
        state.listing, state.where, host_of(question.server), question.compared_hosts, question.key
    )
    named = [*_problems.token_problems(state, question, readings), *_problems.file_problems(state, [question])]
    return _problems.in_order(named)


def codes(state: UserFiles, question: TokenQuery) -> list[tuple[str, str]]:
    return [(problem.code, PurePosixPath(problem.path).name) for problem in problems(state, question)]


ALL_NEW = {name: {"token": NEW} for name in (SERVER_FILE, LOCAL_FILE, "cave-secret.json")}


@pytest.mark.parametrize("expected", [None, NEW])
def test_files_that_agree_are_no_problem(expected: str | None) -> None:
    assert problems(found(ALL_NEW), asked(expected=expected)) == []
    assert problems(found({"cave-secret.json": {"token": NEW}}), asked(expected=expected)) == []


def test_no_token_is_a_problem_only_where_one_is_due() -> None:
    assert problems(found({}), asked()) == []
    assert codes(found({}), asked(expected=NEW)) == [("unexpected_token", "cave-secret.json")]


def test_one_wrong_token_in_all_files_is_one_problem() -> None:
    assert codes(found({name: {"token": OLD} for name in ALL_NEW}), asked(expected=NEW)) == [
        ("unexpected_token", SERVER_FILE)
    ]


@pytest.mark.parametrize("expected", [None, NEW])
def test_one_old_file_is_one_problem_however_many_programs_take_it(expected: str | None) -> None:
    state = found({**ALL_NEW, LOCAL_FILE: {"token": OLD}})
    [problem] = problems(state, asked(expected=expected))
    assert (problem.code, problem.path) == ("stale", f"{SECRETS}/{LOCAL_FILE}")
    assert (
        "cloud-volume (to minnie.microns-daf.com) and cloud-files (to minnie.microns-daf.com) send" in problem.message
    )


def test_a_token_for_another_server_is_not_an_old_one() -> None:
    files = {
        SERVER_FILE: {"token": NEW},
        "proofreading.zetta.ai-cave-secret.json": {"token": OLD},
        "cave-secret.json": {"token": OLD},
    }
    local = {LOCAL_FILE: {"token": NEW}}
    assert problems(found({**files, **local}), asked(expected=NEW)) == []
    # Where a datastack's own server takes the file for all, it does harm.
    assert codes(found(files), asked(expected=NEW)) == [("stale", "cave-secret.json")]


def test_a_broken_file_is_told_once_and_not_as_a_missing_token() -> None:
    state = found({SERVER_FILE: entry(None, "not_json"), "cave-secret.json": {"token": NEW}})
    assert codes(state, asked(expected=NEW)) == [("malformed", SERVER_FILE)]


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        ("bom", "bom"),
        ("empty", "empty"),
        ("directory", "malformed"),
        ("too_large", "malformed"),
        ("not_utf8", "malformed"),
    ],
)
@pytest.mark.parametrize("is_managed", [True, False])
def test_what_provisioning_writes_it_replaces_and_the_rest_is_moved_away(
    problem: str, code: str, is_managed: bool
) -> None:
    question = asked(expected=NEW if is_managed else None)
    [own] = problems(found({"cave-secret.json": entry(None, problem)}), question)
    assert own.code == code
    assert own.remedy.startswith("ansible-playbook ") is is_managed
    assert ("caveclient_on_malformed=replace" in own.remedy) is is_managed
    [other] = problems(found({**ALL_NEW, "x-cave-secret.json": entry(None, problem)}), question)
    path = f"{SECRETS}/x-cave-secret.json"
    assert other.remedy == f"sudo -u alice mv {path} {path}.malformed"


def test_a_user_who_looks_needs_no_sudo_for_the_own_files() -> None:
    [problem] = problems(found({"cave-secret.json": entry(None, "bom")}, by_root=False), asked())
    assert problem.remedy.startswith("mv ")


def test_a_file_of_the_machine_takes_root() -> None:
    path = "/secrets/cave-secret.json"
    [problem] = problems(found({path: entry(None, "bom"), **ALL_NEW}), asked())
    assert problem.remedy == f"sudo mv {path} {path}.malformed"


def test_a_users_own_file_below_the_home_is_not_moved_by_root() -> None:
    path = f"{HOME}/.neuroglancer/secrets/cave-secret.json"
    [problem] = problems(found({path: entry(None, "bom"), **ALL_NEW}), asked())
    assert problem.remedy == f"sudo -u alice mv {path} {path}.malformed"


@pytest.mark.parametrize(
    "name", ["it's-cave-secret.json", "$(id)-cave-secret.json", "a b-cave-secret.json", "-rf-cave-secret.json"]
)
def test_names_are_quoted_for_the_shell(name: str) -> None:
    [problem] = problems(found({name: entry(None, "empty"), **ALL_NEW}), asked())
    assert shlex.split(problem.remedy)[-2:] == [f"{SECRETS}/{name}", f"{SECRETS}/{name}.malformed"]


@pytest.mark.parametrize("content", [{"token": OLD}, {"token": OLD, "banc": NEW}])
def test_a_file_is_kept_when_it_is_taken_out_of_the_way(content: dict[str, str]) -> None:
    legacy = "chunkedgraph-secret.json"
    [problem] = problems(found({**ALL_NEW, legacy: content}), asked())
    path = f"{SECRETS}/{legacy}"
    assert problem.remedy == f"sudo -u alice mv {path} {path}.unused"


@pytest.mark.parametrize(
    ("everybodys", "own", "is_hidden"),
    [
        ({"token": NEW, "banc": OLD}, {"token": NEW}, True),
        ({"token": NEW, "banc": OLD}, {"token": NEW, "banc": NEW}, True),
        ({"token": NEW, "banc": OLD}, {"token": NEW, "banc": OLD}, False),
        ({"token": NEW}, {"token": NEW, "banc": OLD}, False),
        ({"token": NEW, "banc": None}, {"token": NEW}, False),
    ],
)
def test_a_key_that_a_servers_own_file_hides(everybodys: object, own: object, is_hidden: bool) -> None:
    state = found({**ALL_NEW, "cave-secret.json": everybodys, SERVER_FILE: own})
    assert codes(state, asked()) == ([("shadowed_key", "cave-secret.json")] if is_hidden else [])


def test_a_key_of_another_server_is_not_missed() -> None:
    files = {"cave-secret.json": {"token": NEW, "zetta": OLD}, "proofreading.zetta.ai-cave-secret.json": {"zetta": OLD}}
    assert problems(found({**ALL_NEW, **files}), asked()) == []


def test_on_a_read_only_mount_no_remedy_is_one_that_fails() -> None:
    state = found({**ALL_NEW, LOCAL_FILE: {"token": OLD}}, read_only={SECRETS: False})
    [problem] = _problems.on_read_only_mounts(state, problems(state, asked()))
    assert problem.message.endswith(f"{SECRETS} is mounted read-only.")
    assert problem.remedy == f"sudo mount -o remount,rw {SECRETS}"


def test_links_of_kubernetes_are_no_problem_and_the_rest_is_the_secrets() -> None:
    links = [Place(f"{SECRETS}/{name}", "file", 0o777, 0, True, True) for name in ALL_NEW]
    state = found(ALL_NEW, links, read_only={SECRETS: True})
    assert {problem.code for problem in problems(state, asked())} == {"symlink"}
    assert _problems.on_read_only_mounts(state, problems(state, asked())) == []
    state = found({**ALL_NEW, LOCAL_FILE: {"token": OLD}}, read_only={SECRETS: True})
    [problem] = _problems.on_read_only_mounts(state, problems(state, asked()))
    assert "volume that Kubernetes fills from a Secret: change the Secret." in problem.message


@pytest.mark.parametrize(
    ("address", "is_wrong"),
    [
        (SERVER, False),
        ("https://gobal.daf-apis.com", True),
        ("global.daf-apis.com", True),
        (f"{SERVER}/", True),
        (None, True),
        (NEW, True),
    ],
)
def test_the_server_map(address: object, is_wrong: bool) -> None:
    state = found({**ALL_NEW, _files.SERVER_MAP: {"minnie65_public": address, "labstack": "https://cave.example.org"}})
    wrong = problems(state, asked(expected=NEW))
    assert [problem.code for problem in wrong] == (["poisoned_server_map"] if is_wrong else [])
    assert not [problem for problem in wrong if NEW in problem.message]
    assert not [problem for problem in wrong if "labstack" in problem.message]


def place(mode: int = 0o600, uid: int = UID, link: bool = False, sound: bool = True, kind: str = "file") -> Place:
    path = {"file": f"{SECRETS}/cave-secret.json", "parent": f"{HOME}/.cloudvolume"}.get(kind, SECRETS)
    return Place(path, kind, mode, uid, link, sound)


@pytest.mark.parametrize(
    ("there", "code"),
    [
        (place(), None),
        (place(0o640), "loose_mode"),
        (place(0o400), None),
        (place(uid=0), "wrong_owner"),
        (place(0o644, uid=0), "wrong_owner"),
        (place(0o777, link=True), "symlink"),
        (place(0o777, link=True, sound=False), "symlink"),
        (place(0o755, kind="parent"), None),
        (place(0o775, kind="parent"), "loose_mode"),
        (place(0o750, kind="directory"), "loose_mode"),
        (place(0o700, kind="directory", link=True), None),
        (place(0o700, uid=0, kind="directory", link=True), "symlink"),
        (place(0o600, kind="directory", sound=False), "unreadable"),
        (place(0o700, uid=0, kind="directory", sound=False), "wrong_owner"),
        (place(0o644, kind="obstacle", sound=False), "malformed"),
    ],
)
def test_where_the_files_are_and_whose(there: Place, code: str | None) -> None:
    state = found({}, [there])
    assert [problem.code for problem in problems(state, asked())] == ([code] if code else [])


@pytest.mark.parametrize(
    ("there", "remedy"),
    [
        (place(0o2775, kind="directory", link=True), "mkdir -p -m 700"),
        (place(0o755, kind="directory", link=True), "mkdir -p -m 700"),
        (place(0o2775, kind="parent", link=True), "/.cloudvolume/secrets"),
        (place(0o755, kind="parent", link=True), None),
        (place(0o2775, kind="directory"), "unset CLOUD_VOLUME_DIR"),
        (place(0o1777, kind="directory"), None),
        (place(0o2755, kind="directory"), None),
    ],
)
def test_no_mode_is_changed_outside_of_the_home(there: Place, remedy: str | None) -> None:
    found_problems = problems(found({}, [there._replace(is_outside=True)]), asked())
    assert [problem.code for problem in found_problems] == ["loose_mode"] * bool(remedy)
    for problem in found_problems:
        assert "chmod" not in problem.remedy
        assert str(remedy) in problem.remedy


def test_no_folder_of_another_persons_home_is_given_away() -> None:
    there = place(0o700, uid=UID + 1, kind="parent")
    (problem,) = problems(found({}, [there])._replace(home_uid=UID + 1), asked())
    assert problem.code == "wrong_owner"
    assert "needs another one" in problem.message
    assert problem.remedy == "sudo usermod --home NEW_HOME alice"
    (problem,) = problems(found({}, [there])._replace(home_uid=UID), asked())
    assert problem.remedy.startswith("sudo chown -h ")


def test_a_group_may_be_let_in_on_purpose() -> None:
    for there in (place(0o640), place(0o750, kind="directory")):
        assert problems(found({}, [there], mode=0o640), asked()) == []


def test_whom_an_access_control_list_lets_in_besides_the_group_is_told() -> None:
    for there in (place(0o640), place(0o750, kind="directory")):
        (problem,) = problems(found({}, [there._replace(has_list=True)], mode=0o640), asked())
        assert problem.code == "loose_mode"
        assert "and an access control list, which lets others in" in problem.message
        assert problem.remedy.endswith(f"setfacl -b {there.path}")


@pytest.mark.parametrize("version", ["5.26.0", "6.4.0", "7.3.1", "8.2.1", "6.10.0"])
def test_a_caveclient_that_leaves_files_alone_is_none(version: str) -> None:
    site = f"{HOME}/miniconda3/lib/python3.11/site-packages"
    assert problems(found({}, installed={site: version}), asked()) == []


@pytest.mark.parametrize("version", ["5.27.0", "5.31.0", "6.0.0", "6.3.9"])
@pytest.mark.parametrize(
    ("site", "begins"),
    [
        (f"{HOME}/miniconda3/lib/python3.11/site-packages", f"sudo -u alice {HOME}/miniconda3/bin/python -m pip"),
        (
            f"{HOME}/.local/lib/python3.9/site-packages",
            "sudo -u alice env PIP_BREAK_SYSTEM_PACKAGES=1 python3.9 -m pip",
        ),
        ("/opt/caveclient/current/lib/python3.12/site-packages", "ansible-playbook connectomics.cave.provision"),
    ],
)
def test_a_caveclient_that_rewrites_files_is_upgraded_where_it_is(version: str, site: str, begins: str) -> None:
    [problem] = problems(found({}, installed={site: version}), asked())
    assert (problem.code, problem.path) == ("known_bad_caveclient", site)
    assert problem.remedy.startswith(begins)


def test_a_token_that_should_be_gone_is_found_with_every_program() -> None:
    where = _readers.places(HOME)
    elsewhere = f"{HOME}/.neuroglancer/secrets/cave-secret.json"
    state = found({elsewhere: {"token": OLD}}, where=where)
    [problem] = problems(state, asked(is_absent=True))
    assert (problem.code, problem.path) == ("unexpected_token", elsewhere)
    assert problem.remedy.endswith(f"rm {elsewhere}")


def test_the_most_harmful_comes_first_and_nothing_twice() -> None:
    late = Problem("loose_mode", "/a", "m", "r")
    early = Problem("stale", "/b", "m", "r")
    assert _problems.in_order([late, early, late]) == [early, late]


@pytest.mark.parametrize("by_root", [True, False])
@pytest.mark.parametrize("path", ["/etc/R/Renviron.site", "/etc/profile.d/cave.sh", "/usr/lib/R/etc/Renviron.site"])
def test_a_token_in_a_file_of_the_host_takes_root(path: str, by_root: bool) -> None:
    token = EnvToken(path, 1, "CHUNKEDGRAPH_SECRET", OLD, is_alone=True)
    (problem,) = problems(found(ALL_NEW, env_tokens=(token,), by_root=by_root), asked(expected=NEW))
    assert (problem.code, problem.remedy.split()[:2]) == ("env_token", ["sudo", "sed"])


BANC = "brain_and_nerve_cord"


def named_key(value: str | None, *, name: str = "BANC_AUTH_TOKEN_KEY") -> dict[str, Any]:
    return {"env_keys": (EnvValue(name, value, f"{HOME}/.bashrc", 3),)}


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ({"token": NEW}, "token", ""),
        ({"token": NEW, BANC: NEW}, BANC, ""),
        ({"token": NEW, "mine": NEW}, "mine", ""),
        ({"token": NEW}, "mine", "finds no token. It should be"),
        ({"token": NEW, "mine": OLD}, "mine", "finds the token 4d1dd"),
        ({"token": NEW, "mine": None}, "mine", "finds no token"),
        ({"token": NEW, "mine": [OLD]}, "mine", "finds something that is no token"),
        ({"token": NEW}, "", ""),  # as if it was not set
        ({"token": NEW}, "a b;c", "finds no token"),
        ({"token": NEW}, None, "only running it tells"),
        ({"token": NEW}, OLD, ""),  # told as a token in the environment
    ],
)
def test_a_key_that_a_startup_file_names_leads_to_the_token_or_is_told(
    content: dict[str, object], key: str | None, said: str
) -> None:
    state = found({**ALL_NEW, SERVER_FILE: content, "cave-secret.json": content}, **named_key(key))
    told = problems(state, asked(expected=NEW))
    assert [problem.code for problem in told] == (["env_token_key"] if said else [])
    for problem in told:
        assert said.replace("4d1dd", fingerprint(OLD)) in problem.message
        assert problem.remedy.startswith("sudo -u alice sed ")
        assert OLD not in str(problem)
        assert NEW not in str(problem)


def test_a_key_of_a_package_is_looked_at_for_the_server_of_its_datastack_alone() -> None:
    elsewhere = "https://cave.example.org"
    files = {"cave.example.org-cave-secret.json": {"token": NEW}, "cave-secret.json": {"token": NEW}}
    state = found(files, **named_key("mine"))
    assert problems(state, asked("labstack", expected=NEW, server=elsewhere)) == []
    assert codes(state, asked(BANC, expected=NEW, server=elsewhere)) == [("env_token_key", ".bashrc")]
    state = found({**files, _files.SERVER_MAP: {"fanc_production_mar2021": elsewhere}}, **named_key("mine"))
    assert "env_token_key" not in dict(codes(state, asked("labstack", expected=NEW, server=elsewhere)))
    state = state._replace(**named_key("mine", name="FANC_AUTH_TOKEN_KEY"))
    assert "env_token_key" in dict(codes(state, asked("labstack", expected=NEW, server=elsewhere)))


def test_without_a_token_that_is_due_a_key_is_no_problem() -> None:
    assert problems(found({}, **named_key("mine")), asked()) == []
    assert "env_token_key" not in dict(codes(found(ALL_NEW, **named_key("mine")), asked(is_absent=True)))


@pytest.mark.parametrize(
    ("line", "key", "after"),
    [
        ("export BANC_AUTH_TOKEN_KEY=mine", "mine", "export BANC_AUTH_TOKEN_KEY=token"),
        ("A=mine BANC_AUTH_TOKEN_KEY='mine'; b", "mine", "A=mine BANC_AUTH_TOKEN_KEY='token'; b"),
        ("setenv BANC_AUTH_TOKEN_KEY mine # mine", "mine", "setenv BANC_AUTH_TOKEN_KEY token # mine"),
        ("BANC_AUTH_TOKEN_KEY DEFAULT=a.b-c", "a.b-c", "BANC_AUTH_TOKEN_KEY DEFAULT=token"),
        ('{"BANC_AUTH_TOKEN_KEY": "mine", "X": "y"}', "mine", '{"BANC_AUTH_TOKEN_KEY": "token", "X": "y"}'),
        ("# BANC_AUTH_TOKEN_KEY=mine", "mine", "# BANC_AUTH_TOKEN_KEY=mine"),
        ("export BANC_AUTH_TOKEN_KEY=$(cat x)", None, "# export BANC_AUTH_TOKEN_KEY=$(cat x)"),
        ("export BANC_AUTH_TOKEN_KEY='a b;c'", "a b;c", "# export BANC_AUTH_TOKEN_KEY='a b;c'"),
    ],
)
def test_the_remedy_lets_the_variable_name_a_key_with_the_token(
    line: str, key: str | None, after: str, tmp_path: Path
) -> None:
    path = tmp_path / "startup"
    path.write_text(f"first\n{line}\nlast\n")
    value = EnvValue("BANC_AUTH_TOKEN_KEY", key, str(path), 2)
    state = found(ALL_NEW, by_root=False, env_keys=(value,))._replace(home=str(tmp_path))
    [problem] = problems(state, asked(expected=NEW))
    subprocess.run(["sh", "-c", problem.remedy], check=True)
    assert path.read_text() == f"first\n{after}\nlast\n"


def test_no_message_and_no_remedy_holds_a_token() -> None:
    files = {SERVER_FILE: {"token": OLD}, LOCAL_FILE: {"token": NEW}, "chunkedgraph-secret.json": {"token": f"{OLD}x"}}
    said = json.dumps(problems(found({**files, "cave-secret.json": {"token": f"{NEW}y"}}), asked(expected=NEW)))
    assert OLD not in said
    assert NEW not in said


@pytest.mark.parametrize(
    ("path", "beginning"), [("/srv/lab/netrc", "sudo sed -i "), (f"{HOME}/lab/netrc", "sudo -u alice sed -i ")]
)
def test_a_netrc_file_that_a_startup_file_names_is_changed_by_root_where_it_is_not_the_users(
    path: str, beginning: str
) -> None:
    state = found(ALL_NEW, netrc={"global.daf-apis.com": NetrcFile(path)}, named_netrc={path: "/etc/profile.d/lab.sh"})
    [problem] = problems(state, asked(expected=NEW))
    assert problem.code == "netrc_overrides_token"
    assert problem.message.endswith(" /etc/profile.d/lab.sh names it with NETRC.")
    assert problem.remedy.startswith(beginning)
