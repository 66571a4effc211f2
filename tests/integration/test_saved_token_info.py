# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""saved_token_info as a process: every problem on a real file tree, and its remedy, run as printed, clears it.

Twice: root looks at a user of the machine, and a user looks at the own files.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi
import pytest
import stub_wheels
from ansible_run import environment, run_tasks
from homes import (
    DEFAULT_FILE,
    LEGACY_FILE,
    LOCAL_FILE,
    OTHER_TOKEN,
    SERVER_MAP,
    User,
    fill,
    picture,
    real_group,
    real_user,
    secrets_of,
    token_in,
)
from interpreters import open_python
from module_runner import Outcome, python_for_all, run_module

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.problems import PROBLEMS
from cave_server import CaveServer

STACK = "minnie65_public"
STACKS = [{"name": STACK, "local_server": "https://minnie.microns-daf.com"}]
IS_ROOT = os.geteuid() == 0
HALVES = ["looked at by root", "by the user"]
one_half = pytest.mark.parametrize(
    "place", [pytest.param(HALVES[0], marks=pytest.mark.root) if IS_ROOT else HALVES[1]], indirect=True
)


@dataclass
class Place:
    """A user with a home, the server, and the controller's folder."""

    name: str
    home: Path
    cave: CaveServer
    folder: Path
    by_root: bool
    user: User | None
    """None: whoever runs the tests."""
    token: str = ""
    is_managed: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    extra_variables: dict[str, Any] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return secrets_of(self.home)

    @property
    def server_file(self) -> str:
        return f"{self.cave.url.partition('://')[2]}-cave-secret.json"

    def give_back(self) -> None:
        """All that is in the home belongs to the user."""
        if self.user is not None:
            self.user.owns(self.home)

    def write(self, name: str, content: object) -> Path:
        """Put a file into the secrets directory, as the user would."""
        fill(self.home, {name: content})
        self.give_back()
        return self.secrets / name

    def module(self, name: str, **options: Any) -> Outcome:
        arguments = {"server": self.cave.url, "datastacks": STACKS, **options}
        user = None if self.by_root else self.user
        return run_module(name, arguments, self.home, user=user)

    def look(self, **options: Any) -> dict[str, Any]:
        """Ask the module about the user, and return its answer."""
        expected = [{"user": self.name, "token": self.token}] if self.is_managed else None
        given = {"users": [self.name], "path": str(self.folder / "opt"), "expected": expected}
        done = self.module("saved_token_info", **{**given, **self.options, **options})
        assert done.ok, done.output
        assert done.result["changed"] is False
        for token in self.cave_tokens():
            assert token not in done.output
        return done.result

    def problems(self, **options: Any) -> list[dict[str, str]]:
        [user] = self.look(**options)["users"]
        return list(user["problems"])

    def cave_tokens(self) -> list[str]:
        return [self.token, OTHER_TOKEN, OLD]

    def run_remedy(self, remedy: str) -> None:
        """Run a remedy as it is printed: on the controller, or on the host, as root or as the user."""
        on_controller = remedy.startswith("ansible-playbook ")
        # Whoever may use sudo has it; the user's own commands are the user's.
        more: dict[str, Any] = {}
        if self.user is not None and not self.by_root and not on_controller and "sudo " not in remedy:
            more = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        if on_controller:
            self.write_inventory()
        home = self.folder if on_controller else self.home
        variables = environment(home, ANSIBLE_INVENTORY=str(self.folder / "hosts.json"))
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        done = subprocess.run(
            ["bash", "-c", remedy],
            env=variables,
            cwd=self.folder if on_controller else "/",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **more,
        )
        assert done.returncode == 0, f"{remedy}\n{done.stdout}{done.stderr}"

    def write_inventory(self) -> None:
        python = Path(open_python())
        if self.user is None:  # the workstation's Python is this one, with the home of the test
            python = self.folder / "python"
            home = shlex.quote(str(self.home))
            python.write_text(f'#!/bin/sh\nHOME={home} exec {shlex.quote(open_python())} "$@"\n')
            python.chmod(0o755)
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(python),
            "caveclient_become": False,
            "caveclient_server": self.cave.url,
            "caveclient_datastacks": STACKS,
            "caveclient_tokens": [{"user": self.name, "token": self.token}],
            "caveclient_path": str(self.folder / "opt"),
            "caveclient_jupyter_kernel": False,
            "caveclient_doctor": False,
            "caveclient_verify": "none",
            **self.extra_variables,
        }
        inventory = {"all": {"hosts": {"ws1": variables}}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))


OLD = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def _alice() -> Iterator[User | None]:
    """A real user where one can be made, with a folder that is theirs to enter."""
    if not IS_ROOT:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        yield stack.enter_context(real_user(stack.enter_context(real_group()), Path(folder)))


@pytest.fixture(params=[pytest.param(HALVES[0], marks=pytest.mark.root), HALVES[1]])
def place(request: pytest.FixtureRequest, cave: CaveServer, _alice: User | None, tmp_path: Path) -> Iterator[Place]:
    """A user whose files are well: what saved_token wrote, with the datastack in the server map."""
    by_root = request.param == HALVES[0]
    if _alice is not None and not by_root and python_for_all() is None:
        pytest.skip("no Python here that another user may run")
    name = _alice.name if _alice else getpass.getuser()
    home = _alice.home if _alice else tmp_path / "home"
    home.mkdir(exist_ok=True)
    controller = tmp_path / "controller"
    controller.mkdir()
    made = Place(name, home, cave, controller, by_root, _alice, cave.add_person("alice", [STACK]).token)
    saved = made.module("saved_token", user=name, token=made.token)
    assert saved.ok, saved.output
    assert made.problems() == []
    yield made
    if _alice is not None:
        for path in home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


# Every problem --------------------------------------------------------------------------------------------------------

Arrange = Callable[[Place], None]
CASES: dict[str, tuple[str, Arrange]] = {}
"""Name of the case -> the code that is to be found, and what makes it happen."""


def case(code: str, *, root: bool = False) -> Callable[[Arrange], Arrange]:
    def add(arrange: Arrange) -> Arrange:
        marks = [pytest.mark.root]
        CASES[arrange.__name__] = (code, arrange)
        if root:
            NEED_ROOT[arrange.__name__] = marks
        return arrange

    return add


NEED_ROOT: dict[str, list[pytest.MarkDecorator]] = {}


def put_below_home(place: Place, name: str, text: str) -> None:
    path = place.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    place.give_back()


@case("unexpected_token")
def a_colleagues_token(place: Place) -> None:
    bob = place.cave.add_person("bob", [STACK]).token
    saved = place.module("saved_token", user=place.name, token=bob)
    assert saved.ok, saved.output


@case("unexpected_token")
def no_token_at_all(place: Place) -> None:
    shutil.rmtree(place.home / ".cloudvolume")


@case("malformed")
def a_cut_file(place: Place) -> None:
    place.write(DEFAULT_FILE, '{"token": "')


@case("malformed")
def something_else_than_a_token(place: Place) -> None:
    place.write(place.server_file, {"token": "two words"})


@case("malformed")
def a_directory_in_the_place_of_a_file(place: Place) -> None:
    (place.secrets / LOCAL_FILE).unlink()
    (place.secrets / LOCAL_FILE).mkdir()
    place.give_back()


@case("malformed")
def a_cut_file_that_provisioning_leaves_alone(place: Place) -> None:
    place.write("elsewhere.example.org-cave-secret.json", "{")


@case("malformed")
def a_cut_server_map(place: Place) -> None:
    place.write(SERVER_MAP, "{")


@case("malformed")
def a_cut_file_of_somebody_who_is_not_provisioned(place: Place) -> None:
    place.is_managed = False
    place.write(DEFAULT_FILE, "")
    place.write(DEFAULT_FILE, "[]")


@case("malformed")
def a_file_in_the_place_of_the_directory(place: Place) -> None:
    place.is_managed = False
    shutil.rmtree(place.secrets)
    place.secrets.write_text("")
    place.give_back()


@case("bom")
def a_byte_order_mark(place: Place) -> None:
    place.write(DEFAULT_FILE, b"\xef\xbb\xbf" + json.dumps({"token": place.token}).encode())


@case("empty")
def an_empty_file(place: Place) -> None:
    place.write(place.server_file, "")


@case("unreadable")
def a_file_that_its_user_may_not_read(place: Place) -> None:
    (place.secrets / DEFAULT_FILE).chmod(0o200)


@case("unreadable")
def a_directory_that_its_user_may_not_enter(place: Place) -> None:
    place.is_managed = False
    place.secrets.chmod(0o600)


@case("stale")
def a_stale_file_of_the_local_server(place: Place) -> None:
    place.write(LOCAL_FILE, {"token": OLD})


@case("stale")
def a_stale_file_of_a_local_server_that_provisioning_leaves_alone(place: Place) -> None:
    known_only(place, {"prod.flywire-daf.com-cave-secret.json": {"token": OLD}})


@case("stale")
def a_stale_file_with_a_further_key(place: Place) -> None:
    known_only(place, {"prod.flywire-daf.com-cave-secret.json": {"token": OLD, "banc": OTHER_TOKEN}})


def known_only(place: Place, files: dict[str, object]) -> None:
    """The public server, no datastack named: local servers are known to the collection."""
    place.is_managed = False
    place.options = {"server": "https://global.daf-apis.com", "datastacks": []}
    shutil.rmtree(place.secrets)
    for name, content in {DEFAULT_FILE: {"token": place.token}, **files}.items():
        place.write(name, content)


@case("shadowed")
def another_token_behind_the_servers_own_file(place: Place) -> None:
    place.write(DEFAULT_FILE, {"token": OTHER_TOKEN})


@case("cloud_volume_dir_split")
def another_token_in_cloud_volume_dir(place: Place) -> None:
    (place.home / ".bashrc").write_text("export CLOUD_VOLUME_DIR=~/cv  # mine\n")
    (place.home / "cv" / "secrets").mkdir(parents=True, mode=0o700)
    (place.home / "cv" / "secrets" / DEFAULT_FILE).write_text(json.dumps({"token": OLD}))
    (place.home / "cv" / "secrets" / DEFAULT_FILE).chmod(0o600)
    place.give_back()


@case("cloud_volume_dir_split")
def an_empty_cloud_volume_dir(place: Place) -> None:
    (place.home / ".profile").write_text("umask 022\nexport CLOUD_VOLUME_DIR=$HOME/cv\n")
    place.give_back()


@case("cloud_volume_dir_split", root=True)
def a_cloud_volume_dir_of_somebody_else(place: Place) -> None:
    (place.home / ".bashrc").write_text(f"export CLOUD_VOLUME_DIR={place.home.parent}/shared\n")
    place.give_back()
    shared = place.home.parent / "shared" / "secrets"
    shared.mkdir(parents=True, exist_ok=True)
    (shared / DEFAULT_FILE).write_text(json.dumps({"token": OLD}))
    (shared / DEFAULT_FILE).chmod(0o644)


@case("unreadable", root=True)
def a_file_in_cloud_volume_dir_that_its_owner_keeps_from_others(place: Place) -> None:
    a_cloud_volume_dir_of_somebody_else(place)
    (place.home.parent / "shared" / "secrets" / DEFAULT_FILE).chmod(0o600)


@case("malformed", root=True)
def a_cut_file_in_somebody_elses_cloud_volume_dir(place: Place) -> None:
    a_cloud_volume_dir_of_somebody_else(place)
    shared = place.home.parent / "shared" / "secrets" / DEFAULT_FILE
    shared.write_text("{")
    shared.chmod(0o644)


@case("cloud_volume_dir_split", root=True)
def a_cloud_volume_dir_where_the_user_cannot_write(place: Place) -> None:
    (place.home / ".bashrc").write_text("export OTHER=1 CLOUD_VOLUME_DIR=/home/\n")
    place.give_back()


@case("cloud_volume_dir_unclear")
def a_cloud_volume_dir_that_a_command_makes(place: Place) -> None:
    (place.home / ".bashrc").write_text(f"if true; then\n  export CLOUD_VOLUME_DIR={place.home}/.cloudvolume\nfi\n")
    place.give_back()


@case("cloud_volume_dir_unclear")
def two_startup_files_that_say_different_things(place: Place) -> None:
    (place.home / ".profile").write_text("export CLOUD_VOLUME_DIR=/nowhere\n")
    (place.home / ".bashrc").write_text("export CLOUD_VOLUME_DIR=~/.cloudvolume\n")
    place.give_back()


@case("cloud_volume_dir_split", root=True)
def a_notebook_kernel_that_leads_where_the_user_cannot_write(place: Place) -> None:
    kernel = {"argv": ["python"], "env": {"CLOUD_VOLUME_DIR": "/home/", "LANG": "C"}}
    put_below_home(place, ".local/share/jupyter/kernels/mine/kernel.json", json.dumps(kernel, indent=1))


@case("cloud_volume_dir_unclear")
def a_variable_of_a_notebook_kernel(place: Place) -> None:
    kernel = {"env": {"CLOUD_VOLUME_DIR": "${HOME}/cv"}}
    put_below_home(place, ".local/share/jupyter/kernels/mine/kernel.json", json.dumps(kernel))


@case("cloud_volume_dir_unclear")
def a_startup_file_of_ipython(place: Place) -> None:
    text = "import os\nif True:\n    os.environ['CLOUD_VOLUME_DIR'] = os.path.expanduser('~/cv')\n"
    put_below_home(place, ".ipython/profile_default/startup/00-lab.py", text)


@case("cloud_volume_dir_unclear")
def a_conda_environment_that_differs_from_the_shell(place: Place) -> None:
    put_below_home(
        place, "miniforge3/envs/cave/etc/conda/activate.d/v.sh", "export CLOUD_VOLUME_DIR=~/.cloudvolume/x\n"
    )
    put_below_home(place, ".bashrc", "export CLOUD_VOLUME_DIR=~/.cloudvolume\n")


@case("env_token")
def a_token_in_a_notebook_kernel(place: Place) -> None:
    kernel = {"env": {"CAVE_TOKEN": OLD, "LANG": "C"}}
    put_below_home(place, ".local/share/jupyter/kernels/mine/kernel.json", json.dumps(kernel, indent=1))


@case("netrc_overrides_token")
def a_netrc_with_a_default_entry(place: Place) -> None:
    (place.home / ".netrc").write_text(
        "machine github.com login alice password default\ndefault login anonymous password x\n"
    )
    place.give_back()


@case("netrc_overrides_token")
def a_netrc_with_the_servers_entry(place: Place) -> None:
    host = place.cave.url.partition("://")[2].partition(":")[0]
    (place.home / ".netrc").write_text(
        f"machine {host}\n  login alice\n  password x\nmachine {host}.org login a password b\n"
    )
    place.give_back()


@case("netrc_overrides_token")
def a_netrc_in_latin_1(place: Place) -> None:
    (place.home / ".netrc").write_bytes(
        "machine ftp.example.org login alice password gr\u00fc\u00dfe\n".encode("latin-1")
    )
    place.give_back()


@case("netrc_overrides_token")
def a_netrc_that_a_startup_file_names(place: Place) -> None:
    put_below_home(place, ".config/lab.netrc", "default login anonymous password x\n")
    put_below_home(place, ".bashrc", 'if [ -n "$PS1" ]; then export NETRC="$HOME/.config/lab.netrc"; fi\n')


@case("stale")
def a_dead_token_where_cloud_files_alone_looks(place: Place) -> None:
    """cloud-files takes a server's own file before the one for all servers, wherever it is."""
    put_below_home(place, f"lab/secrets/{LOCAL_FILE}", json.dumps({"token": OLD}))
    (place.secrets / LOCAL_FILE).unlink()
    put_below_home(place, ".profile", "export CLOUD_FILES_DIR=~/lab\n")


@case("env_token")
def a_dead_token_in_renviron(place: Place) -> None:
    (place.home / ".Renviron").write_text(f'R_LIBS=~/R\nCHUNKEDGRAPH_SECRET="{OLD}"\n#CHUNKEDGRAPH_SECRET={OLD}\n')
    place.give_back()


@case("env_token")
def a_dead_token_among_other_variables(place: Place) -> None:
    (place.home / ".bashrc").write_text(f"export EDITOR=vi FLYWIRE_TOKEN={OLD}; alias ll='ls -l'\n")
    place.give_back()


@case("env_token_key")
def a_package_is_told_of_a_key_that_is_not_there(place: Place) -> None:
    banc = {"name": "brain_and_nerve_cord", "local_server": STACKS[0]["local_server"]}
    place.options["datastacks"] = [*STACKS, banc]
    place.cave.set_permissions("alice", [STACK, "brain_and_nerve_cord"])
    put_below_home(place, ".bashrc", "export BANC_AUTH_TOKEN_KEY=lab\n")


@case("ca_bundle")
def certificates_that_are_not_there(place: Place) -> None:
    put_below_home(place, ".bashrc", "export EDITOR=vi\nexport REQUESTS_CA_BUNDLE=~/lab-ca.pem\n")


@case("ca_bundle")
def certificates_that_are_none(place: Place) -> None:
    put_below_home(place, "lab-ca.pem", "-----BEGIN CERTIFICATE-----\n")
    put_below_home(place, ".config/environment.d/lab.conf", "SSL_CERT_FILE=${HOME}/lab-ca.pem\n")


@case("shadowed_key")
def a_new_key_in_the_file_for_all_servers(place: Place) -> None:
    place.write(DEFAULT_FILE, {"token": place.token, "banc": OTHER_TOKEN})


@case("legacy_name")
def only_the_file_of_old_releases(place: Place) -> None:
    shutil.rmtree(place.secrets)
    place.write(SERVER_MAP, {STACK: place.cave.url})
    place.write(LEGACY_FILE, {"token": place.token})


@case("legacy_name")
def another_token_in_the_file_of_old_releases(place: Place) -> None:
    place.write(LEGACY_FILE, {"token": OLD})


@case("poisoned_server_map")
def a_mistyped_server(place: Place) -> None:
    place.write(SERVER_MAP, {STACK: "https://gobal.daf-apis.com"})


@case("poisoned_server_map")
def a_known_datastack_on_the_wrong_server(place: Place) -> None:
    place.write(SERVER_MAP, {STACK: place.cave.url, "h01_c3_flat": "https://global.daf-apis.com"})


@case("poisoned_server_map")
def something_else_than_an_address(place: Place) -> None:
    place.write(SERVER_MAP, {STACK: place.cave.url, "labstack": OTHER_TOKEN})


@case("symlink")
def a_file_kept_elsewhere(place: Place) -> None:
    place.write(place.server_file, {"token": place.token, "banc": OTHER_TOKEN})
    path = place.write(DEFAULT_FILE, {"token": place.token, "banc": OTHER_TOKEN})
    (place.home / "dotfiles").mkdir()
    target = path.rename(place.home / "dotfiles" / "it's a secret.json")
    target.chmod(0o644)
    path.symlink_to(target)
    place.give_back()


@case("symlink")
def a_link_that_leads_nowhere(place: Place) -> None:
    (place.secrets / LEGACY_FILE).symlink_to("nowhere")
    place.give_back()


@case("symlink", root=True)
def a_directory_that_leads_to_somebody_elses(place: Place) -> None:
    place.is_managed = False
    shutil.rmtree(place.secrets)
    other = place.home.parent / "other"
    other.mkdir(exist_ok=True)
    place.secrets.symlink_to(other)


@case("wrong_owner", root=True)
def a_file_that_root_wrote(place: Place) -> None:
    os.chown(place.secrets / DEFAULT_FILE, 0, 0)


@case("wrong_owner", root=True)
def a_file_of_roots_that_has_another_name_elsewhere(place: Place) -> None:
    elsewhere = place.folder / "shadow"
    (place.secrets / DEFAULT_FILE).rename(elsewhere)
    os.chown(elsewhere, 0, 0)
    os.link(elsewhere, place.secrets / DEFAULT_FILE)


@case("wrong_owner", root=True)
def a_directory_that_root_made(place: Place) -> None:
    os.chown(place.secrets, 0, 0)
    place.is_managed = False


@case("loose_mode")
def a_file_for_all_to_read(place: Place) -> None:
    (place.secrets / DEFAULT_FILE).chmod(0o644)


@case("loose_mode")
def a_directory_for_all_to_enter(place: Place) -> None:
    place.secrets.chmod(0o755)


@case("loose_mode")
def a_directory_above_for_all_to_change(place: Place) -> None:
    place.secrets.parent.chmod(0o777)


@case("loose_mode", root=True)
def a_directory_that_is_the_teams(place: Place) -> None:
    """A link out of the home, to what belongs to the user and is used by others: its mode stays."""
    team = place.home.parent / "team"
    shutil.rmtree(team, ignore_errors=True)
    shutil.copytree(place.secrets, team)
    shutil.rmtree(place.secrets)
    place.secrets.symlink_to(team)
    place.give_back()
    if place.user is not None:
        place.user.owns(team)
    team.chmod(0o2775)


@case("loose_mode", root=True)
def a_directory_below_a_link_that_is_the_teams(place: Place) -> None:
    """The variable CLOUD_VOLUME_DIR, of which there is none, is not to blame."""
    team = place.home.parent / "team"
    shutil.rmtree(team, ignore_errors=True)
    shutil.copytree(place.secrets.parent, team)
    shutil.rmtree(place.secrets.parent)
    place.secrets.parent.symlink_to(team)
    place.give_back()
    if place.user is not None:
        place.user.owns(team)
    team.chmod(0o755)
    (team / "secrets").chmod(0o2770)


@pytest.mark.root
def test_a_directory_of_a_team_keeps_its_mode_when_the_remedy_is_run(place: Place) -> None:
    a_directory_that_is_the_teams(place)
    (problem,) = place.problems()
    place.run_remedy(problem["remedy"])
    team = place.home.parent / "team"
    assert stat.S_IMODE(team.stat().st_mode) == 0o2775
    assert {path.name for path in place.secrets.iterdir()} >= {DEFAULT_FILE, place.server_file}
    assert stat.S_IMODE(place.secrets.stat().st_mode) == 0o700
    assert place.problems() == []


@case("known_bad_caveclient")
def a_managed_caveclient_that_writes_secrets_files(place: Place) -> None:
    wheels = place.folder / "wheels"
    stub_wheels.wheel(wheels, "caveclient", "6.4.2", {"caveclient/__init__.py": "__version__ = '6.4.2'\n"})
    bad = place.folder / "opt" / "builds" / "old" / "lib" / "python3.11" / "site-packages"
    (bad / "caveclient-5.31.0.dist-info").mkdir(parents=True)
    (place.folder / "opt" / "current").symlink_to("builds/old")
    for path in (place.folder, *place.folder.parents):
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(0o755)
    place.extra_variables = {
        "caveclient_version": "5.31.0",
        "caveclient_find_links": [str(wheels)],
        "caveclient_offline": True,
    }


@case("known_bad_caveclient")
def a_caveclient_of_the_users_own(place: Place) -> None:
    wheels = place.home / "wheels"
    for version in ("6.3.0", "6.4.0"):
        stub_wheels.wheel(wheels, "caveclient", version, {"caveclient/__init__.py": ""})
    prefix = place.home / "miniconda3"
    python = python_for_all() or sys.executable
    subprocess.run([python, "-m", "venv", "--without-pip", str(prefix)], check=True)
    (prefix / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
    # The pip of the tests, which is enough of one.
    [site] = prefix.glob("lib/python3.*/site-packages")
    import pip

    shutil.copytree(Path(pip.__file__).parent, site / "pip")
    install = [str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", "caveclient==6.3.0"]
    subprocess.run(install, check=True, env={"PATH": os.environ["PATH"]})
    place.give_back()


def params() -> list[Any]:
    return [pytest.param(name, id=name, marks=NEED_ROOT.get(name, [])) for name in CASES]


def test_every_code_has_a_case() -> None:
    assert {code for code, _arrange in CASES.values()} == set(PROBLEMS)


@pytest.mark.parametrize("name", params())
def test_a_problem_is_found_alone_and_its_remedy_run_as_printed_clears_it(name: str, place: Place) -> None:
    code, arrange = CASES[name]
    arrange(place)
    before = picture(place.home)
    found = place.problems()
    assert [problem["code"] for problem in found] == [code], found
    assert picture(place.home) == before
    [problem] = found
    assert problem["path"].startswith((str(place.home.parent), str(place.folder / "opt")))
    assert "\n" not in problem["remedy"]
    if IS_ROOT and not place.by_root and problem["remedy"].startswith("ansible-playbook"):
        return  # the same command as in the other half
    place.run_remedy(problem["remedy"])
    assert place.problems() == []
    if place.is_managed:
        [user] = place.look(validate=True)["users"]
        assert user["access"]["verdict"] == "ok"
        assert user["agree"] is True


@one_half
def test_a_link_becomes_a_file_with_all_its_keys(place: Place) -> None:
    a_file_kept_elsewhere(place)
    place.run_remedy(place.problems()[0]["remedy"])
    path = place.secrets / DEFAULT_FILE
    assert not path.is_symlink()
    assert token_in(path, "banc") == OTHER_TOKEN


def without_the_authority(place: Place, cave_tls: CaveServer) -> Path:
    """Have the user's startup file name certificates that do not vouch for the server; return their file."""
    authority, bundle = place.folder / "ca.pem", place.home / "lab-ca.pem"
    authority.write_text(Path(str(cave_tls.ca)).read_text())
    shutil.rmtree(place.secrets)
    place.cave, place.token = cave_tls, cave_tls.add_person("alice", [STACK]).token
    place.options["ca_path"] = str(authority)
    assert place.module("saved_token", user=place.name, token=place.token, ca_path=str(authority)).ok
    bundle.write_text("# Sch\u00fctz's own\n" + Path(certifi.where()).read_text().rstrip())
    put_below_home(place, ".bashrc", "export REQUESTS_CA_BUNDLE=~/lab-ca.pem\n")
    return bundle


def test_certificates_without_the_servers_authority_are_told_and_the_remedy_adds_it(
    place: Place, cave_tls: CaveServer
) -> None:
    without_the_authority(place, cave_tls)
    [problem] = place.problems(validate=True)
    assert problem["code"] == "ca_bundle"
    assert f"lacks the authority that signed the certificate of {cave_tls.url}" in problem["message"]
    place.run_remedy(problem["remedy"])
    assert place.problems(validate=True) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("owner", "mode", "command"),
    [
        (0, 0o755, "sudo sed -i "),
        (0, 0o777, "sudo -e "),
        (65534, 0o755, "sudo -u nobody sed -i "),
        (65534, 0o777, "sudo -e "),
    ],
)
def test_nobody_is_told_to_edit_a_startup_file_that_others_can_replace(
    owner: int, mode: int, command: str, place: Place
) -> None:
    """When the command is run, a link to a file of whoever runs it may be there; an editor of sudo follows none."""
    folder = place.home.parent / "lab"
    folder.mkdir(exist_ok=True)
    sourced = folder / "cave.sh"
    sourced.write_text(f"export CLOUD_VOLUME_DIR={place.home}/$UNKNOWN\n")
    put_below_home(place, ".profile", f". {sourced}\n")
    os.chown(folder, owner, owner)
    os.chown(sourced, owner, owner)
    folder.chmod(mode)
    [problem] = place.problems()
    assert problem["code"] == "cloud_volume_dir_unclear"
    assert problem["remedy"].startswith(command)
    if "sed" in command:
        place.run_remedy(problem["remedy"])
        assert place.problems() == []


@pytest.mark.root
def test_root_is_told_to_write_to_no_certificates_that_the_user_can_replace(place: Place, cave_tls: CaveServer) -> None:
    """They are root's, and in the user's own folder: when the command is run, a link to /etc/sudoers may be there."""
    bundle = without_the_authority(place, cave_tls)
    os.chown(bundle, 0, 0)
    bundle.chmod(0o644)
    [problem] = place.problems(validate=True)
    assert bundle.name not in problem["remedy"]
    place.run_remedy(problem["remedy"])
    assert place.problems(validate=True) == []


# What is told ---------------------------------------------------------------------------------------------------------


def test_all_that_is_told_of_a_user_whose_files_are_well(place: Place) -> None:
    [user] = place.look(validate=True)["users"]
    mark = fingerprint(place.token)
    assert (user["user"], user["server"], user["fingerprint"]) == (place.name, place.cave.url, mark)
    assert user["agree"] is True
    assert {reader["reader"] for reader in user["readers"]} == {"caveclient", "cloud-volume", "cloud-files"}
    assert {reader["fingerprint"] for reader in user["readers"]} == {mark}
    assert user["expected"] == {"fingerprint": mark, "matches": True}
    assert user["access"]["verdict"] == "ok"
    assert user["access"]["person"]["email"].startswith("alice@")
    files = {Path(file["path"]).name: file for file in user["files"]}
    assert set(files) == {DEFAULT_FILE, place.server_file, LOCAL_FILE, SERVER_MAP}
    for name in (DEFAULT_FILE, place.server_file, LOCAL_FILE):
        assert (files[name]["mode"], files[name]["owner"], files[name]["problem"]) == ("0600", place.name, None)
        assert files[name]["fingerprints"] == {"token": mark}


@one_half
@pytest.mark.parametrize(
    ("arrange", "verdict"),
    [
        (a_cut_file, "ok"),  # caveclient takes the server's own file
        (an_empty_file, "malformed_file"),
        (something_else_than_a_token, "malformed_file"),
        (no_token_at_all, "no_token"),
    ],
)
def test_the_verdict_is_on_what_caveclient_sends(arrange: Arrange, verdict: str, place: Place) -> None:
    arrange(place)
    [user] = place.look(validate=True)["users"]
    assert user["access"]["verdict"] == verdict
    assert bool(user["access"].get("remedy")) is (verdict != "ok")


@one_half
def test_a_token_that_the_server_refuses_is_told(place: Place) -> None:
    new = place.cave.refresh("alice")
    [user] = place.look(validate=True, expected=[{"user": place.name, "token": new}])["users"]
    assert user["access"]["verdict"] == "invalid_token"
    assert user["access"]["url"] == f"{place.cave.url}/sticky_auth/settings/tokens"
    assert user["expected"] == {"fingerprint": fingerprint(new), "matches": False}
    assert [problem["code"] for problem in user["problems"]] == ["unexpected_token"]


@one_half
@pytest.mark.parametrize("further", [{}, {"banc": OTHER_TOKEN}])
def test_the_remedy_keeps_the_good_token_where_a_dead_one_is_sent(further: dict[str, str], place: Place) -> None:
    place.is_managed = False
    shutil.rmtree(place.secrets)
    place.write(DEFAULT_FILE, {"token": OLD, **further})
    place.write(LEGACY_FILE, {"token": place.token})
    [user] = place.look(validate=True)["users"]
    assert user["access"]["verdict"] == "invalid_token"
    [problem] = user["problems"]
    assert "The server accepts this token, and not the one in" in problem["message"]
    place.run_remedy(problem["remedy"])
    [user] = place.look(validate=True)["users"]
    assert (user["access"]["verdict"], user["fingerprint"]) == ("ok", fingerprint(place.token))


@one_half
def test_nobody_is_asked_unless_told(place: Place) -> None:
    place.cave.clear_requests()
    place.look()
    assert place.cave.requests() == []
    place.look(validate=True)
    assert [request["path"] for request in place.cave.requests()] == ["/auth/api/v1/user/cache"]


@one_half
def test_each_of_a_users_servers_is_an_entry_and_files_are_complained_about_once(place: Place) -> None:
    (place.secrets / DEFAULT_FILE).chmod(0o644)
    place.write("proofreading.zetta.ai-cave-secret.json", {"token": OTHER_TOKEN})
    expected = [
        {"user": place.name, "token": place.token},
        {"user": place.name, "server": "https://proofreading.zetta.ai", "token": OTHER_TOKEN},
    ]
    first, second = place.look(expected=expected)["users"]
    assert (first["server"], second["server"]) == (place.cave.url, "https://proofreading.zetta.ai")
    assert first["expected"]["matches"] is second["expected"]["matches"] is True
    assert [problem["code"] for problem in first["problems"]] == ["loose_mode"]
    assert second["problems"] == []


@one_half
def test_a_token_that_should_be_gone_is_a_problem(place: Place) -> None:
    entry = {"user": place.name, "state": "absent"}
    [user] = place.look(expected=[entry])["users"]
    assert user["expected"] == {"fingerprint": None, "matches": False}
    assert {problem["code"] for problem in user["problems"]} == {"unexpected_token"}
    assert place.module("saved_token", user=place.name, state="absent").ok
    [user] = place.look(expected=[entry])["users"]
    assert user["expected"] == {"fingerprint": None, "matches": True}
    assert user["problems"] == []


@pytest.mark.root
@one_half
def test_what_nobody_but_root_may_read_is_named_as_unread(place: Place) -> None:
    place.is_managed = False
    closed = place.write("elsewhere.example.org-cave-secret.json", {"token": OLD})
    closed.chmod(0o000)
    folder = place.home / ".cloudfiles" / "secrets"
    folder.mkdir(parents=True)
    place.give_back()
    folder.chmod(0o000)
    [user] = place.look()["users"]
    assert user["unread"] == [str(folder), str(closed)]


@one_half
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"server": "global.daf-apis.com"}, "Did you mean https://global.daf-apis.com?"),
        ({"datastacks": ["no such"]}, "is not the name of a datastack"),
        ({"expected": [{"user": "alice", "token": "YOUR_TOKEN_HERE"}]}, "placeholder"),
        ({"mode": "rw"}, "is not an octal number"),
        ({"secrets_dir": "somewhere"}, "is not an absolute path"),
    ],
)
def test_bad_options_are_refused_with_the_reason(options: dict[str, Any], says: str, place: Place) -> None:
    arguments = {"users": [place.name], **options}
    done = place.module("saved_token_info", **arguments)
    said = done.message or json.dumps(done.result["users"])
    assert says in said
    assert "Traceback" not in done.output


@one_half
def test_names_and_keys_of_a_users_making_do_no_harm(place: Place) -> None:
    place.write("x\x1b[31m-cave-secret.json", {"k\n\x1b[0m": OLD})
    place.write("$(touch pwned)-cave-secret.json", "[")
    problems = {problem["path"]: problem for problem in place.problems()}
    [path] = problems
    place.run_remedy(problems[path]["remedy"])
    assert place.problems() == []
    assert not [found for found in place.home.rglob("*") if found.name == "pwned"]


@pytest.mark.parametrize("form", ["list", "mapping"])
def test_as_a_task_it_takes_tokens_without_showing_them(form: str, tmp_path: Path, cave: CaveServer) -> None:
    token = cave.add_person("alice", [STACK]).token
    me = getpass.getuser()
    task = {
        "connectomics.cave.saved_token_info": {
            "server": cave.url,
            "users": [me],
            "expected": [{"user": me, "token": token}] if form == "list" else {me: token},
            "secrets_dir": str(tmp_path / "secrets"),
        }
    }
    done = run_tasks(tmp_path, [task], "-vvvvv", "--diff", ANSIBLE_DEBUG="1")
    assert done.ok
    assert done.results[0]["users"][0]["expected"] == {"fingerprint": fingerprint(token), "matches": False}
    (tmp_path / "playbook.yml").unlink()
    assert token not in done.output
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and token in path.read_text(errors="replace")]


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ("alice", "expected has the wrong form. Expected a list of mappings with the keys user, token"),
        ([OLD], "expected[1] has the wrong form"),
        ([{"user": OLD}], "expected[1].user looks like a token"),
        ([{"user": "alice", OLD: "token"}], "expected[1] looks like a token"),
    ],
)
def test_a_token_in_the_wrong_place_is_refused_and_not_shown(expected: object, says: str, tmp_path: Path) -> None:
    done = run_tasks(tmp_path, [{"connectomics.cave.saved_token_info": {"expected": expected}}], "-vvv")
    assert not done.ok
    assert says in " ".join(done.output.split())
    assert OLD not in done.output
