# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""verify_access as a process, for real users of this machine: each one's work is done as that one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import SERVER_MAP, User, picture, real_group, real_user
from module_runner import Outcome, python_for_all, run_module

from cave_server import CaveServer

STACK = "minnie65_public"
METHODS = ["api", pytest.param("client", marks=pytest.mark.network)]
needs_root = pytest.mark.root


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[User, User]]:
    with tempfile.TemporaryDirectory() as folder, real_group() as group:
        Path(folder).chmod(0o755)
        with real_user(group, Path(folder)) as alice, real_user(group, Path(folder), "bob") as bob:
            yield alice, bob


@pytest.fixture
def verify(
    cave: CaveServer, users: tuple[User, User], caveclient_python: Callable[..., Path], tmp_path: Path
) -> Callable[..., Outcome]:
    """Run the module for both users. Their secrets directories are 0700, and hold what the test puts there."""

    def run(method: str, **options: Any) -> Outcome:
        arguments = {
            "users": [user.name for user in users],
            "server": cave.url,
            "datastacks": [STACK],
            "cloud_volume_dir": "",
            "method": method,
            "retries": 0,
            **options,
        }
        if method == "client":
            arguments.setdefault("interpreter", str(caveclient_python(python=str(python_for_all()))))
        return run_module("verify_access", arguments, tmp_path)

    return run


def save(cave: CaveServer, user: User, token: str) -> Path:
    shutil.rmtree(user.secrets, ignore_errors=True)  # the users are those of all tests here, in whatever order they run
    return user.fill({"cave-secret.json": {"token": token}, SERVER_MAP: {STACK: cave.url}})


@pytest.mark.usefixtures("users")
class TestAsRoot:
    pytestmark = needs_root

    @pytest.mark.parametrize("method", METHODS)
    def test_every_user_is_checked_as_that_user(
        self, method: str, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, bob = users
        token = cave.add_person("alice", [STACK]).token
        save(cave, alice, token)
        save(cave, bob, cave.add_person("bob", []).token)
        done = verify(method)
        assert [(user["user"], user["verdict"]) for user in done.result["users"]] == [
            (alice.name, "ok"),
            (bob.name, "missing_permission"),
        ]
        assert done.message.startswith(f"CAVE access does not work for 1 of 2 users. {bob.name}: missing_permission.")
        assert token not in done.output

    @pytest.mark.parametrize("method", METHODS)
    def test_what_the_user_may_not_read_is_not_read_by_root(
        self, method: str, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, bob = users
        token = cave.add_person("alice", [STACK]).token
        mine = save(cave, alice, token)
        theirs = save(cave, bob, "f" * 32)
        (theirs / "cave-secret.json").unlink()
        (theirs / "cave-secret.json").symlink_to(mine / "cave-secret.json")
        found = verify(method, users=[bob.name]).result["users"][0]
        assert found["verdict"] in ("malformed_file", "no_token")
        assert found.get("fingerprint") is None

    def test_the_client_runs_with_the_user_s_rights_and_home_alone(
        self, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, _bob = users
        save(cave, alice, cave.add_person("alice", [STACK]).token)
        noted = alice.home / "noted"
        python = alice.home.parent / "python"
        python.write_text(f"#!/bin/sh\n{{ id; env; ps -o sess= -o pid= -p $$; readlink /proc/$$/fd/0; }} > '{noted}'\n")
        python.chmod(0o755)
        verify("client", users=[alice.name], interpreter=str(python))
        lines = noted.read_text()
        assert f"uid={alice.uid}({alice.name}) gid={alice.gid}" in lines
        assert "(root)" not in lines
        assert f"HOME={alice.home}\n" in lines
        assert "BROWSER" not in lines
        assert "DISPLAY" not in lines
        assert lines.endswith("/dev/null\n")
        session, pid = lines.splitlines()[-2].split()
        assert session == pid

    @pytest.mark.parametrize(
        ("content", "mode", "says", "remedy"),
        [
            ("#!/bin/sh\n", 0o644, "python: no permission for", "or install caveclient elsewhere: "),
            ("#!/nonexistent/python\n", 0o755, "cannot be run: No such file", "Install caveclient anew: "),
            (
                "#!/bin/sh\necho 'no libpython here' >&2\nexit 127\n",
                0o755,
                "no libpython here",
                "Install caveclient anew: ",
            ),
        ],
    )
    def test_half_an_environment_is_named_with_what_to_do(
        self,
        content: str,
        mode: int,
        says: str,
        remedy: str,
        cave: CaveServer,
        users: tuple[User, User],
        verify: Callable[..., Outcome],
    ) -> None:
        alice, _bob = users
        save(cave, alice, cave.add_person("alice", [STACK]).token)
        python = alice.home.parent / "half" / "current" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(content)
        python.chmod(mode)
        [found] = verify("client", users=[alice.name], interpreter=None, path=str(python.parents[2])).result["users"]
        assert found["verdict"] == "client_error"
        assert says in found["message"]
        assert f"{remedy}ansible-playbook connectomics.cave.provision" in found["remedy"]

    def test_a_python_that_a_signal_ends_is_told_with_its_name_and_not_to_be_installed_anew(
        self, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, _bob = users
        save(cave, alice, cave.add_person("alice", [STACK]).token)
        python = alice.home.parent / "ended" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("#!/bin/sh\nkill -KILL $$\n")
        python.chmod(0o755)
        [found] = verify("client", users=[alice.name], interpreter=str(python)).result["users"]
        assert found["verdict"] == "client_error"
        assert "was ended by SIGKILL (probably for lack of memory)" in found["message"]
        assert found["remedy"].startswith("Look up what ended it in the host's log")

    def test_an_environment_that_is_closed_to_a_user_is_named(
        self, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, _bob = users
        save(cave, alice, cave.add_person("alice", [STACK]).token)
        with tempfile.TemporaryDirectory() as folder:  # of mode 0700
            python = Path(folder, "bin", "python")
            python.parent.mkdir()
            python.symlink_to("/bin/true")
            [found] = verify("client", users=[alice.name], interpreter=str(python)).result["users"]
        assert found["verdict"] == "client_error"
        assert f"{alice.name} cannot run {python}: no permission for {folder} (mode 0700)." == found["message"]
        assert found["remedy"].startswith(f"Let {alice.name} enter or run that")

    @pytest.mark.network
    def test_a_check_changes_nothing(
        self, cave: CaveServer, users: tuple[User, User], verify: Callable[..., Outcome]
    ) -> None:
        alice, _bob = users
        save(cave, alice, cave.add_person("alice", [STACK]).token)
        before, written = picture(alice.home), {path: path.stat().st_mtime_ns for path in alice.home.rglob("*")}
        assert verify("api", users=[alice.name]).ok
        assert verify("client", users=[alice.name]).ok
        assert picture(alice.home) == before
        assert {path: path.stat().st_mtime_ns for path in alice.home.rglob("*")} == written

    def test_a_user_without_a_home_is_told(self, users: tuple[User, User], verify: Callable[..., Outcome]) -> None:
        alice, _bob = users
        away = alice.home.with_name("away")
        alice.home.rename(away)
        try:
            done = verify("api", users=[alice.name])
        finally:
            away.rename(alice.home)
        assert done.result["verdict"] == "client_error"
        assert f"{alice.home}, does not exist" in done.message


@pytest.mark.root
@pytest.mark.skipif(python_for_all() is None, reason="takes a Python for everybody")
def test_a_user_cannot_check_another_one(cave: CaveServer, users: tuple[User, User]) -> None:
    alice, bob = users
    arguments = {"users": [bob.name], "server": cave.url}
    done = run_module("verify_access", arguments, alice.home, user=alice)
    assert done.result["verdict"] == "client_error"
    assert "become: true" in done.message


def test_without_users_it_is_the_one_who_runs_it(cave: CaveServer, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    person = cave.add_person("alice", [STACK])
    (chosen / "cave-secret.json").write_text(json.dumps({"token": person.token}))
    arguments = {"server": cave.url, "datastacks": [STACK], "secrets_dir": str(chosen), "cloud_volume_dir": ""}
    done = run_module("verify_access", arguments, tmp_path)
    assert done.ok, done.message
    assert done.result["users"][0]["path"] == str(chosen / "cave-secret.json")
