# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""verify_access against the stand-in server, by both methods: every verdict, every fault, no browser, in time."""

from __future__ import annotations

import json
import os
import pwd
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_run import run_tasks
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import verify_access as _verify_access
from ansible_collections.connectomics.cave.plugins.module_utils._cave import client as _client
from ansible_collections.connectomics.cave.plugins.module_utils._cave import probe as _probe
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import VERDICTS
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from cave_server import CaveServer

STACK = "minnie65_public"
OURS = {"datastacks": [STACK], "path": "/nonexistent", "cloud_volume_dir": "", "timeout": 20, "retries": 0}
DEFAULTS = arguments_of("verify_access", **OURS)
METHODS = ["api", pytest.param("client", marks=pytest.mark.network)]


class Workstation:
    """Pretend users of this host, all with the user id of the tests, each with a home of its own."""

    def __init__(self, folder: Path, server: str, interpreter: Path) -> None:
        self.folder = folder
        self.server = server
        self.interpreter = interpreter
        self.secrets: set[str] = set()

    def account(self, name: str) -> pwd.struct_passwd:
        home = self.folder / name
        if not home.exists():
            raise CaveError(f"This host has no user {name!r}. Create the account first, or correct the name.")
        return pwd.struct_passwd((name, "x", os.geteuid(), os.getegid(), "", str(home), "/bin/sh"))

    def add_user(self, name: str = "alice", mapped_to: str | None = None) -> Path:
        """Make a user with an empty secrets directory, and a server map that leads to the server."""
        folder = self.folder / name / ".cloudvolume" / "secrets"
        folder.mkdir(parents=True)
        (folder / "cave_datastack_to_server_map.json").write_text(
            json.dumps(dict.fromkeys([STACK, "h01_c3_flat", "nosuchstack"], mapped_to or self.server))
        )
        return folder

    def save(self, token: object, name: str = "alice", file: str = "cave-secret.json", key: str = "token") -> Path:
        folder = self.folder / name / ".cloudvolume" / "secrets"
        if not folder.exists():
            self.add_user(name)
        (folder / file).write_text(json.dumps({key: token}))
        if isinstance(token, str) and len(token) > 8:
            self.secrets.add(token)
        return folder / file

    def verify(self, **options: Any) -> dict[str, Any]:
        """Run the module's work, and return its result, failed or not, having looked for tokens and at the clock."""
        params = {
            **DEFAULTS,
            "users": ["alice"],
            "server": self.server,
            "interpreter": str(self.interpreter),
            **options,
        }
        started = time.monotonic()
        try:
            result = _verify_access.run(params)
        except CaveError as error:
            result = {"failed": True, "msg": error.message, **error.details}
        taken = time.monotonic() - started
        assert taken < params["timeout"] + 20, f"took {taken:.1f} s"
        assert not [secret for secret in self.secrets if secret in json.dumps(result)]
        assert result.get("failed", False) is (result.get("verdict") != "ok")
        return result


@pytest.fixture
def place(
    cave: CaveServer, caveclient_python: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workstation:
    workstation = Workstation(tmp_path, cave.url, caveclient_python())
    monkeypatch.setattr(_users, "find_user", workstation.account)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return workstation


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs with the names of browsers, first on PATH and in BROWSER; the file that appears when one is run."""
    opened = tmp_path / "browser-was-opened"
    folder = tmp_path / "browsers"
    folder.mkdir()
    for name in ("browser", "xdg-open", "x-www-browser", "www-browser", "lynx", "w3m", "links", "firefox"):
        (folder / name).write_text(f"#!/bin/sh\necho \"$@\" >> '{opened}'\nexec sleep 600\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("BROWSER", f"{folder}/browser")
    monkeypatch.setenv("DISPLAY", ":99")
    return opened


def the_user(result: dict[str, Any]) -> dict[str, Any]:
    [user] = result["users"]
    return dict(user)


# Every verdict -------------------------------------------------------------------------------------------------------

Arrange = Callable[[CaveServer, Workstation], dict[str, Any]]


def good(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.save(cave.add_person("alice", [STACK]).token)
    return {}


def without_files(_cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.add_user()
    return {}


def with_a_cut_file(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    path = place.save(cave.add_person("alice", [STACK]).token)
    path.write_text(path.read_text()[:-1])
    return {}


def revoked(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    token = cave.add_person("alice", [STACK]).token
    place.save(token)
    cave.revoke(token)
    return {}


def owing_terms(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.save(cave.add_person("alice", [STACK], accepted_tos=False).token)
    return {}


def without_permission(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.save(cave.add_person("alice", []).token)
    return {}


def with_a_misspelt_datastack(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    good(cave, place)
    return {"datastacks": ["nosuchstack"]}


def faulty(kind: str, **parameters: Any) -> Arrange:
    def arrange(cave: CaveServer, place: Workstation) -> dict[str, Any]:
        good(cave, place)
        cave.set_fault("/", kind, **parameters)
        return {}

    return arrange


def switched_off(_cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.server = "http://127.0.0.1:9"
    place.save("0123456789abcdef0123456789abcdef")
    return {}


def with_another_kind_of_server(_cave: CaveServer, place: Workstation) -> dict[str, Any]:
    place.server = place.server.replace("http:", "https:")
    place.save("0123456789abcdef0123456789abcdef")
    return {}


def without_what_it_takes(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    good(cave, place)
    (place.folder / "nobody").mkdir()
    (place.folder / "nobody").rename(place.folder / "alice" / "moved")
    return {"users": ["nobody"]}


def with_services_that_nobody_reaches(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    good(cave, place)
    cave.serve(STACK, "http://127.0.0.1:9")
    return {"services": ["reach"]}


def with_a_service_that_is_down(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    good(cave, place)
    cave.serve(STACK)
    cave.configure(broken=["materialize"])
    return {"services": ["full"]}


def with_a_service_that_is_old(cave: CaveServer, place: Workstation) -> dict[str, Any]:
    good(cave, place)
    cave.serve(STACK)
    cave.configure(versions={"materialize": "5.12.0"})
    (place.folder / "env/current/lib/python3.11/site-packages/caveclient-8.2.1.dist-info").mkdir(parents=True)
    return {"services": ["reach"], "path": str(place.folder / "env")}


CASES: list[tuple[str, Arrange]] = [
    ("ok", good),
    ("no_token", without_files),
    ("malformed_file", with_a_cut_file),
    ("invalid_token", revoked),
    ("missing_tos", owing_terms),
    ("missing_permission", without_permission),
    ("unknown_datastack", with_a_misspelt_datastack),
    ("not_a_cave_server", faulty("html")),
    ("unreachable", switched_off),
    ("tls_error", with_another_kind_of_server),
    ("service_blocked", with_services_that_nobody_reaches),
    ("service_down", with_a_service_that_is_down),
    ("incompatible_client", with_a_service_that_is_old),
    ("rate_limited", faulty("status", status=429, retry_after=60)),
    ("server_error", faulty("status", status=500)),
    ("client_error", without_what_it_takes),
]


def test_the_cases_are_all_verdicts() -> None:
    assert [verdict for verdict, _arrange in CASES] == list(VERDICTS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("verdict", "arrange"), CASES, ids=[verdict for verdict, _arrange in CASES])
def test_every_verdict_is_reached_by_both_methods(
    verdict: str, arrange: Arrange, method: str, cave: CaveServer, place: Workstation
) -> None:
    options = arrange(cave, place)
    result = place.verify(**{"method": method, **options})
    user = the_user(result)
    assert (result["verdict"], user["verdict"]) == (verdict, verdict), user
    assert result["changed"] is False
    if verdict != "ok":
        assert user["remedy"]
        assert f"{user['user']}: {verdict}. {user['message']} What to do: {user['remedy']}" == result["msg"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_told_of_working_access(method: str, cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK, "h01_c3_flat"])
    path = place.save(person.token)
    user = the_user(place.verify(method=method, datastacks=[STACK]))
    mark = fingerprint(person.token)
    assert user["fingerprint"] == mark
    assert user["path"] == str(path)
    assert set(user["readers"].values()) == {mark}
    assert user["server"] == cave.url
    assert user["person"] == {"id": person.id, "name": person.name, "email": person.email}
    [stack] = user["datastacks"]
    assert (stack["datastack"], stack["verdict"]) == (STACK, "ok")
    assert stack["local_server"] == cave.url
    if method == "client":
        assert user["client_version"] == "8.2.1"


@pytest.mark.network
def test_the_client_is_not_believed_about_a_token_that_is_dead_since(cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.save(person.token)
    assert place.verify(method="client")["verdict"] == "ok"
    cave.revoke(person.token)
    user = the_user(place.verify(method="client"))
    assert user["verdict"] == "invalid_token"
    assert "the info service remembers" in user["message"]


# Secrets files -------------------------------------------------------------------------------------------------------


def test_readers_that_send_other_tokens_are_told(cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.save(person.token)
    stale = place.save("f" * 32, file="minnie.microns-daf.com-cave-secret.json")
    user = the_user(place.verify(datastacks=[{"name": STACK, "local_server": "https://minnie.microns-daf.com"}]))
    assert user["verdict"] == "ok"
    assert f"cloud-volume sends the token {fingerprint('f' * 32)} to minnie.microns-daf.com" in user["message"]
    assert "saved_token" in user["remedy"]
    assert user["readers"]["cloud-volume minnie.microns-daf.com"] == fingerprint("f" * 32)
    stale.unlink()
    assert "cloud-volume" not in the_user(place.verify())["message"]


def test_a_local_server_that_the_record_does_not_know_hides_no_other_token(
    cave: CaveServer, place: Workstation
) -> None:
    """Mistyped, or the datastack has moved: cloud-volume asks where the record says."""
    moved = "https://moved.example.org"
    cave.add_datastack("moved", local_server=moved)
    place.save(cave.add_person("alice", ["moved"]).token)
    stale = place.save("f" * 32, file="moved.example.org-cave-secret.json")
    asked = [{"name": "moved", "local_server": "https://old.example.org"}]
    user = the_user(place.verify(datastacks=asked))
    assert user["verdict"] == "ok"
    assert f"cloud-volume sends the token {fingerprint('f' * 32)} to moved.example.org" in user["message"]
    assert f"the record has moved: {moved}" in user["remedy"]
    stale.unlink()
    user = the_user(place.verify(datastacks=asked))
    assert "cloud-volume" not in user["message"] + user.get("remedy", "")


@pytest.mark.parametrize("method", METHODS)
def test_a_server_map_that_leads_elsewhere_is_told(method: str, cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.add_user(mapped_to=cave.url)
    place.save(person.token)
    place.server = cave.url.replace("127.0.0.1", "localhost")
    user = the_user(place.verify(method=method))
    assert user["verdict"] == "ok"
    assert f"caveclient asks {cave.url} for {STACK}, not {place.server}" in user["message"]
    assert f"datastacks: [{STACK}]" in user["remedy"]
    if method == "client":
        assert user["server"] == cave.url


@pytest.mark.network
def test_a_mistyped_address_in_the_server_map_is_told(cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.add_user(mapped_to=cave.url.replace("http://", ""))
    place.save(person.token)
    user = the_user(place.verify(method="client"))
    assert user["verdict"] == "client_error"
    assert "server map" in user["message"]
    assert "saved_token" in user["remedy"]


def test_a_place_of_the_users_own_choice(cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.add_user()
    chosen = place.folder / "alice" / "chosen"
    chosen.mkdir()
    (chosen / "cave-secret.json").write_text(json.dumps({"token": person.token}))
    assert the_user(place.verify(secrets_dir="~/chosen"))["path"] == str(chosen / "cave-secret.json")
    assert the_user(place.verify())["verdict"] == "no_token"


# Options -------------------------------------------------------------------------------------------------------------


def test_a_token_is_checked_without_reading_a_file(cave: CaveServer, place: Workstation) -> None:
    person = cave.add_person("alice", [STACK])
    place.secrets.add(person.token)
    user = the_user(place.verify(token=f" {person.token}\n", users=None))
    assert (user["user"], user["verdict"], user["fingerprint"]) == (None, "ok", fingerprint(person.token))
    cave.revoke(person.token)
    result = place.verify(token=person.token, users=None)
    assert the_user(result)["verdict"] == "invalid_token"
    assert result["msg"].startswith("invalid_token. ")


@pytest.mark.parametrize(
    "token", ["", "YOUR_TOKEN_HERE", 12345, 1.5e10, "a\nb", "$ANSIBLE_VAULT;1.1;AES256\n6162", None]
)
def test_what_cannot_be_a_token_is_not_sent(token: object, cave: CaveServer, place: Workstation) -> None:
    if token is None:
        place.add_user()
    result = place.verify(token=token, users=["alice"] if token is None else None)
    assert result["failed"]
    assert cave.requests() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"server": "global.daf-apis.com"}, "https://"),
        ({"server": "https://user:secret@host"}, "https://HOST"),
        ({"datastacks": ["../x"]}, "datastack"),
        ({"datastacks": [7]}, "datastack"),
        ({"method": "client", "datastacks": []}, "needs a datastack"),
        ({"method": "client", "secrets_dir": "/somewhere"}, "secrets_dir"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], said: str, cave: CaveServer, place: Workstation
) -> None:
    place.add_user()
    with pytest.raises(CaveError, match=said):
        _verify_access.run({**DEFAULTS, "users": ["alice"], "server": place.server, **options})
    assert cave.requests() == []


# Several users -------------------------------------------------------------------------------------------------------


def test_one_users_trouble_does_not_stop_the_others(cave: CaveServer, place: Workstation) -> None:
    place.save(cave.add_person("alice", [STACK]).token, "alice")
    place.save(cave.add_person("bob", []).token, "bob")
    place.add_user("carol")
    result = place.verify(users=["alice", "bob", "carol", "nobody"])
    assert [(user["user"], user["verdict"]) for user in result["users"]] == [
        ("alice", "ok"),
        ("bob", "missing_permission"),
        ("carol", "no_token"),
        ("nobody", "client_error"),
    ]
    assert result["verdict"] == "no_token"
    assert result["msg"].startswith("CAVE access does not work for 3 of 4 users. carol: no_token. ")
    for part in ("bob: missing_permission. ", "nobody: client_error. This host has no user 'nobody'."):
        assert part in result["msg"]
    assert "alice" not in result["msg"].replace("alice@", "")


def test_one_reason_for_many_users_is_told_once(place: Workstation, cave: CaveServer) -> None:
    names = [f"user{number:02}" for number in range(20)]
    for name in names:
        place.save(cave.add_person(name, [STACK]).token, name)
    cave.set_fault("/", "status", status=500)
    message = place.verify(users=names)["msg"]
    assert message.count("server_error") == 1
    assert "user07 and 12 more: server_error." in message


# Browsers, time, and hostile servers ---------------------------------------------------------------------------------


@pytest.mark.network
def test_the_client_never_opens_a_browser(
    browser: Path, cave: CaveServer, place: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    owing_terms(cave, place)
    clean = _client.environment
    # Even if the check had the environment of a desktop.
    monkeypatch.setattr(
        _client, "environment", lambda *given: {**os.environ, **clean(*given), "PATH": os.environ["PATH"]}
    )
    user = the_user(place.verify(method="client"))
    assert user["verdict"] == "missing_tos"
    assert not browser.exists()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_a_silent_server_is_given_up_at_the_timeout(
    method: str, kind: str, cave: CaveServer, place: Workstation
) -> None:
    good(cave, place)
    cave.set_fault("/", kind)
    started = time.monotonic()
    user = the_user(place.verify(method=method, timeout=4))
    assert 3.5 < time.monotonic() - started < 24
    assert user["verdict"] == "unreachable"


def test_what_the_client_started_is_gone_after_the_timeout(place: Workstation, cave: CaveServer) -> None:
    good(cave, place)
    noted = place.folder / "pids"
    stubborn = place.folder / "python"
    stubborn.write_text(f"#!/bin/sh\ntrap '' TERM HUP\nsleep 600 & echo $! $$ > '{noted}'\nwait\n")
    stubborn.chmod(0o755)
    assert the_user(place.verify(method="client", interpreter=str(stubborn), timeout=5))["verdict"] == "unreachable"
    started = [Path(f"/proc/{pid}/stat") for pid in noted.read_text().split()]
    deadline = time.monotonic() + 10  # a killed process lives until the machine gets round to it
    while any(is_running(stat) for stat in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) == 2
    assert not any(is_running(stat) for stat in started)


def is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False  # it has gone


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "The interpreter does not exist"),
        ("#!/no/such/python\n", "No such file"),
        ('#!/bin/sh\necho "core dumped \033[31m" >&2; exit 139\n', "status 139: core dumped"),
        ("#!/bin/sh\nexit 0\n", "status 0"),
        (f"#!/bin/sh\nexec '{sys.executable}' -S \"$@\"\n", "No module named 'caveclient'"),
    ],
    ids=["missing", "bad-interpreter", "crash", "silent", "no-caveclient"],
)
def test_an_environment_that_does_not_work_is_a_client_error(
    script: str | None, said: str, place: Workstation, cave: CaveServer
) -> None:
    good(cave, place)
    python = place.folder / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    user = the_user(place.verify(method="client", interpreter=str(python)))
    assert user["verdict"] == "client_error"
    assert said in user["message"]
    assert "\x1b" not in user["message"]


@pytest.mark.network
@pytest.mark.parametrize("kind", ["endless", "gzip_bomb"])
def test_a_huge_answer_does_not_fill_the_memory_of_the_host(kind: str, cave: CaveServer, place: Workstation) -> None:
    good(cave, place)
    cave.set_fault("/info/api/v2/datastack", kind)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    user = the_user(place.verify(method="client"))
    assert user["verdict"] == "server_error", "the auth server works"
    assert "larger than" in user["message"]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(most, 400 * 1024)


# TLS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_private_authority_is_trusted_when_it_is_named(method: str, cave_tls: CaveServer, place: Workstation) -> None:
    place.server = cave_tls.url
    place.save(cave_tls.add_person("alice", [STACK]).token)
    assert place.verify(method=method, ca_path=cave_tls.ca)["verdict"] == "ok"
    untrusted = the_user(place.verify(method=method))
    assert untrusted["verdict"] == "tls_error"
    assert "ca_path" in untrusted["remedy"]


# Other versions of caveclient, and Ansible itself --------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("version", ["5.4.0", "5.31.0"])
def test_older_clients_are_judged_alike(
    version: str, cave: CaveServer, place: Workstation, caveclient_python: Callable[..., Path]
) -> None:
    python = str(caveclient_python(version))
    good(cave, place)
    working = the_user(place.verify(method="client", interpreter=python))
    assert (working["verdict"], working["client_version"]) == ("ok", version)
    place.save("f" * 32)
    for leftover in (place.folder / "alice" / ".cloudvolume" / "secrets").glob("*-cave-secret.json"):
        leftover.unlink()
    assert the_user(place.verify(method="client", interpreter=python))["verdict"] == "invalid_token"


def test_as_a_task_it_fails_readably_and_says_no_token(cave: CaveServer, tmp_path: Path) -> None:
    person = cave.add_person("alice", [])
    task = {
        "connectomics.cave.verify_access": {
            "token": "{{ secret }}",
            "server": cave.url,
            "datastacks": [STACK],
        }
    }
    secret = {"secret": person.token}
    done = run_tasks(tmp_path, [task], "-vvvv", "--diff", variables=secret)
    assert not done.ok
    assert f"has no permission 'view' for dataset {STACK}" in done.output
    assert person.token not in done.output
    checked = run_tasks(tmp_path, [task], "-vvvv", "--check", variables=secret)
    assert not checked.ok
    assert f"has no permission 'view' for dataset {STACK}" in checked.output
    cave.set_permissions("alice", [STACK])
    done = run_tasks(tmp_path, [task], variables=secret)
    assert done.ok, done.output
    assert (done.results[0]["changed"], done.results[0]["verdict"]) == (False, "ok")


# What caveclient sends in the place of a token


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("entry", ["default login anonymous password x", "machine {host} login me password secret"])
def test_a_netrc_file_that_replaces_the_token_is_found(
    entry: str, method: str, cave: CaveServer, place: Workstation
) -> None:
    good(cave, place)
    netrc = place.folder / "alice" / ".netrc"
    netrc.write_text(entry.format(host=cave.url.partition("//")[2].partition(":")[0]))
    user = the_user(place.verify(method=method))
    assert user["verdict"] == "client_error"
    assert f"{netrc} has an entry for {cave.url.partition('//')[2]}" in user["message"]
    assert str(netrc) in user["remedy"]


@pytest.mark.parametrize("method", METHODS)
def test_a_netrc_file_on_which_caveclient_fails_is_named(method: str, cave: CaveServer, place: Workstation) -> None:
    good(cave, place)
    netrc = place.folder / "alice" / ".netrc"
    netrc.write_bytes("machine ftp.example.org login me password gr\u00fc\u00dfe".encode("latin-1"))
    user = the_user(place.verify(method=method))
    assert user["verdict"] == "client_error"
    assert f"{netrc} is not UTF-8 text" in user["message"]
    assert str(netrc) in user["remedy"]


# Who and what is there to ask


def test_without_an_environment_caveclient_is_said_not_to_be_installed(cave: CaveServer, place: Workstation) -> None:
    good(cave, place)
    user = the_user(place.verify(method="client", interpreter=None, path="/nonexistent"))
    assert user["verdict"] == "client_error"
    assert "caveclient is not installed on this host" in user["message"]
    assert "connectomics.cave.provision" in user["remedy"]


def test_a_user_who_is_named_twice_is_one(cave: CaveServer, place: Workstation) -> None:
    good(cave, place)
    the_user(place.verify(users=["alice", {"user": "alice"}, "alice"]))


def test_an_empty_list_of_users_is_nobody(cave: CaveServer, place: Workstation) -> None:
    result = place.verify(users=[])
    assert (result["users"], result["verdict"]) == ([], "ok")
    assert "nobody was asked" in result["msg"]
    assert cave.requests() == []


# The services, when caveclient itself is asked


@pytest.mark.network
def test_with_caveclient_the_services_are_asked_as_well(cave: CaveServer, place: Workstation) -> None:
    good(cave, place)
    cave.configure(broken=["annotation"])
    user = the_user(place.verify(method="client", services=["full"]))
    assert (user["verdict"], user["service"]) == ("service_down", "annotation")
    assert [item["verdict"] for item in user["services"]].count("ok") == 4
    assert user["client_version"] == "8.2.1"


# The info service alone fails

INFO_FAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "reset": ("server_error", "cut", {}),
    "cut-short": ("server_error", "cut_body", {}),
    "not-http": ("server_error", "not_http", {}),
    "500": ("server_error", "status", {"status": 500}),
    "502": ("server_error", "status", {"status": 502}),
    "503": ("server_error", "status", {"status": 503}),
    "504": ("server_error", "status", {"status": 504}),
    "web-page": ("server_error", "html", {}),
    "login-page": ("server_error", "redirect", {"location": "/info/version"}),
    "cut-json": ("server_error", "cut_json", {}),
    "other-json": ("server_error", "status", {"status": 200, "body": '{"a": 1}', "type": "application/json"}),
    "json-list": ("server_error", "status", {"status": 200, "body": "[]", "type": "application/json"}),
    "no-path": ("server_error", "status", {"status": 404}),
    "forbidden-page": ("server_error", "status", {"status": 403}),
    "busy": ("rate_limited", "status", {"status": 429, "retry_after": 300}),
}
"""Datastack -> the verdict, and the fault in what the info service answers about it."""


@pytest.mark.network
def test_both_methods_blame_the_info_service_alone_where_it_fails_beside_an_auth_server_that_works(
    cave: CaveServer, place: Workstation
) -> None:
    names = list(INFO_FAULTS)
    for name, (_verdict, kind, parameters) in INFO_FAULTS.items():
        cave.add_datastack(name)
        cave.set_fault(f"/info/api/v2/datastack/full/{name}", kind, **parameters)
    place.save(cave.add_person("alice", names).token)
    (place.folder / "alice/.cloudvolume/secrets/cave_datastack_to_server_map.json").write_text(
        json.dumps(dict.fromkeys(names, cave.url))
    )
    said = {}
    for method in ("api", "client"):
        user = the_user(place.verify(method=method, datastacks=names, timeout=60))
        said[method] = {item["datastack"]: (item["verdict"], item["message"]) for item in user["datastacks"]}
    assert {name: verdict for name, (verdict, _message) in said["api"].items()} == {
        name: verdict for name, (verdict, _kind, _parameters) in INFO_FAULTS.items()
    }
    assert said["client"] == said["api"]


@pytest.mark.network
def test_both_methods_blame_an_info_service_that_says_nothing_at_all(
    cave: CaveServer, place: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_probe, "_ENOUGH", 0)
    good(cave, place)
    cave.set_fault("/info", "hang")
    for method in ("api", "client"):
        user = the_user(place.verify(method=method, timeout=3))
        assert (user["verdict"], user["person"]["email"]) == ("server_error", "alice@example.org")
        assert f"The info service of {cave.url} does not work, and the auth server does." in user["message"]


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_token_is_found_while_the_info_service_is_down(
    method: str, cave: CaveServer, place: Workstation
) -> None:
    revoked(cave, place)
    cave.set_fault("/info", "status", status=500)
    user = the_user(place.verify(method=method))
    assert user["verdict"] == "invalid_token"
    assert "caveclient still works" not in user["message"]


@pytest.mark.network
def test_a_token_that_the_info_service_alone_refuses_is_not_dead_by_client(
    cave: CaveServer, place: Workstation
) -> None:
    good(cave, place)
    cave.configure(auth_hiccup=429)
    assert the_user(place.verify(method="client"))["verdict"] == "server_error"


@pytest.mark.network
def test_an_info_service_whose_own_token_is_dead_makes_no_datastack_unknown(
    cave: CaveServer, place: Workstation
) -> None:
    good(cave, place)
    cave.configure(without_token=["info"])
    for method in ("api", "client"):
        assert the_user(place.verify(method=method))["verdict"] == "server_error"
