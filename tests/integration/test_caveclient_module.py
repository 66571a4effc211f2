# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module caveclient as ansible-playbook runs it, with real virtual environments, the real uv and the real pip.

Most tests install stub wheels from a folder; those that are marked `network` install the real caveclient.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import stub_wheels
from ansible_run import ROOT, Run, run_tasks
from bare_python import bare_python
from interpreters import find_interpreters, open_copy, open_python
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel

from ansible_collections.connectomics.cave.plugins.module_utils._systems import system_certificates

UV = Path(sys.executable).with_name("uv")
SYSTEM_PATH = "/usr/bin:/bin"
FURTHER_PATH = f"/usr/local/bin:{SYSTEM_PATH}"
INSTALLERS = ["uv", "pip"]
# What a run knows that a prediction cannot.
NOT_PREDICTED = ("build", "installer", "installer_output", "reasons", "invocation")
WATCH = """
import contextlib, os, sys
def watch(event, arguments, log=os.environ["WATCH_LOG"]):
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system", "socket.connect"):
        # What works for a user is not allowed to write here.
        with contextlib.suppress(PermissionError), open(log, "a") as file:
            print(event, *arguments[:1], file=file)
sys.addaudithook(watch)
"""


class Workstation:
    """A pretend workstation: this machine, with a folder for everything."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder = folder
        self.wheels = wheels
        self.path = folder / "opt" / "caveclient"
        self.current = self.path / "current"
        self.python = self.current / "bin" / "python"
        self.jupyter = folder / "jupyter"
        self.log = folder / "processes.log"
        self.interpreter = open_python()
        self.environment = {"PATH": f"{UV.parent}:{FURTHER_PATH}", "UV_CACHE_DIR": str(folder / "uv-cache")}
        self.environment["ANSIBLE_REMOTE_TMP"] = str(folder / "remote-tmp")

    def task(self, **options: Any) -> dict[str, Any]:
        """A task that installs from the folder of wheels, unless the options say something else."""
        given: dict[str, Any] = {
            "path": str(self.path),
            "jupyter_dir": str(self.jupyter),
            "find_links": [str(self.wheels)],
            "offline": True,
            **options,
        }
        if "interpreter" in given:
            del given["path"]
        return {"connectomics.cave.caveclient": {k: v for k, v in given.items() if v is not None}}

    def run(self, *arguments: str, tasks: int = 1, **options: Any) -> Run:
        """Run it once, or in check mode, for real, in check mode and for real again."""
        variables = {"ansible_python_interpreter": str(self.interpreter)}
        todo = [{**self.task(**options), "check_mode": number % 2 == 0} for number in range(tasks)]
        if tasks == 1:
            del todo[0]["check_mode"]
        return run_tasks(self.folder, todo, "--diff", *arguments, variables=variables, **self.environment)

    def __call__(self, *arguments: str, **options: Any) -> dict[str, Any]:
        done = self.run(*arguments, **options)
        assert done.ok, done.output
        assert "WARNING" not in done.output
        return done.results[0]

    def predicted(self, **options: Any) -> dict[str, Any]:
        """Run it in check mode and for real, twice: the prediction holds, and then there is nothing to do."""
        done = self.run(tasks=4, **options)
        assert done.ok, done.output
        said, result, *again = done.results
        assert facts(said) == facts(result)
        assert [(later["changed"], later["version"]) for later in again] == [(False, result["version"])] * 2
        return result

    def fails(self, *arguments: str, **options: Any) -> str:
        """Run it, and return what it says after failing on purpose."""
        done = self.run(*arguments, **options)
        assert done.status == 2, done.output
        assert "MODULE FAILURE" not in done.output
        assert "module_stderr" not in done.output
        return " ".join(done.output.split())

    def asks(self, code: str = "print(caveclient.__version__)", python: Path | None = None) -> str:
        """Run code after importing caveclient, as a scientist would."""
        done = subprocess.run(
            [python or self.python, "-c", f"import caveclient; {code}"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def builds(self) -> list[str]:
        return sorted(path.name for path in (self.path / "builds").iterdir())

    def watch(self) -> None:
        """From now on, write down each start of the module and each process or connection that it makes.

        Ansible gives the module to Python's standard input, so it is the Python without arguments.
        """
        (self.folder / "watch").mkdir(exist_ok=True)
        (self.folder / "watch" / "sitecustomize.py").write_text(WATCH)
        script = self.folder / "python-watched"
        script.write_text(
            f'#!/bin/sh\n[ $# -eq 0 ] || exec {self.interpreter} "$@"\n'
            f"echo run $$ >> {self.log}\nexport WATCH_LOG={self.log} PYTHONPATH={self.folder}/watch\n"
            f'exec {self.interpreter} "$@"\n'
        )
        script.chmod(0o755)
        self.interpreter = str(script)

    def watched(self) -> list[str]:
        """What was written down since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


def facts(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in NOT_PREDICTED}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = stub_wheels.lab(tmp_path_factory.mktemp("wheels"), "8.0.0", "8.1.0", "8.2.0")
    stub_wheels.caveclient(folder, "8.1.9", "raise ImportError('libarrow.so.9: no such file')")
    return folder


@pytest.fixture
def workstation(tmp_path: Path, wheels: Path) -> Workstation:
    return Workstation(tmp_path, wheels)


# --- A managed environment ---


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_installation_upgrade_downgrade_and_way_back_go_as_predicted(
    workstation: Workstation, installer: str
) -> None:
    first = workstation.predicted(version="8.1.0", installer=installer, jupyter_kernel="CAVE")
    assert first["changed"]
    assert (first["previous_version"], first["version"]) == ("", "8.1.0")
    assert first["installer"].startswith(f"{installer} ")
    assert first["kernel"] == str(workstation.jupyter / "kernels" / "cave" / "kernel.json")
    assert workstation.asks() == "8.1.0"

    upgraded = workstation.predicted(version=">=8.2", installer=installer, jupyter_kernel="CAVE")
    assert (upgraded["previous_version"], upgraded["version"]) == ("8.1.0", "8.2.0")
    assert "-caveclient 8.2.0\n+caveclient 8.1.0\n" in workstation.run("--check", version="8.1.0").output
    assert workstation.asks() == "8.2.0"

    downgraded = workstation.predicted(version="8.0.0", installer=installer, jupyter_kernel="CAVE")
    assert (downgraded["previous_version"], downgraded["version"]) == ("8.2.0", "8.0.0")
    assert workstation.asks() == "8.0.0"
    assert len(workstation.builds()) == 2

    back = workstation.predicted(state="rolled_back")
    assert (back["previous_version"], back["version"]) == ("8.0.0", "8.2.0")
    assert workstation.asks() == "8.2.0"

    gone = workstation.predicted(state="absent")
    assert (gone["previous_version"], gone["version"]) == ("8.2.0", "")
    assert not workstation.path.exists()
    assert not Path(first["kernel"]).exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_extras_packages_and_constraints_are_installed(workstation: Workstation, installer: str) -> None:
    result = workstation.predicted(
        extras=["cv"], packages=["matplotlib>=3.8"], constraints=["numpy<2"], installer=installer
    )

    assert {"cloud-volume", "matplotlib", "numpy"} <= set(result["packages"])
    assert result["packages"]["numpy"] == "1.26.4"
    assert workstation.asks("import cloudvolume, matplotlib; print('yes')") == "yes"


def test_an_unchanged_host_costs_one_module_run_and_no_process(workstation: Workstation) -> None:
    options = {
        "version": ">=8,<9",
        "extras": ["cv"],
        "packages": ["matplotlib"],
        "constraints": ["numpy<3"],
        "jupyter_kernel": "CAVE",
    }
    workstation.watch()
    assert workstation(**options)["changed"]
    assert len(workstation.watched()) > 3

    assert [result["changed"] for result in workstation.run(tasks=2, **options).results] == [False, False]
    assert [line.split()[0] for line in workstation.watched()] == ["run", "run"]


def test_any_version_will_do_and_a_met_specifier_builds_nothing(workstation: Workstation) -> None:
    build = workstation(version="8.1.0")["build"]

    for version in ("", ">=8", "==8.*", "8.1"):
        result = workstation(version=version)
        assert (result["changed"], result["build"]) == (False, build), version


def test_everybody_can_use_what_root_installs_with_a_strict_umask(workstation: Workstation) -> None:
    umask = os.umask(0o077)
    try:
        workstation(packages=["matplotlib"], jupyter_kernel="CAVE")
    finally:
        os.umask(umask)

    for path in [workstation.path, *workstation.path.rglob("*"), *workstation.jupyter.rglob("*")]:
        if not path.is_symlink() and path.name != ".lock":
            mode = path.stat().st_mode
            assert mode & (0o555 if path.is_dir() else 0o444) == (0o555 if path.is_dir() else 0o444), path
            assert not mode & 0o022, path


def test_a_version_that_does_not_exist_is_said_in_a_sentence(workstation: Workstation) -> None:
    workstation(version="8.1.0")

    for installer in INSTALLERS:
        for arguments in ([], ["--check"]):
            said = workstation.fails(*arguments, version="99.1", installer=installer)
            assert (
                f"Could not install caveclient 99.1 in {workstation.path} with {installer}: the folder of wheels"
                in said
            )
            assert "has no such version of caveclient" in said
    assert workstation.asks() == "8.1.0"
    assert len(workstation.builds()) == 1


def test_caveclient_that_cannot_be_imported_leaves_the_old_one_live(workstation: Workstation) -> None:
    workstation(version="8.1.0")

    said = workstation.fails(version="8.1.9")

    assert "caveclient 8.1.9 is installed but cannot be imported: ImportError: libarrow.so.9: no such file" in said
    assert workstation.asks() == "8.1.0"
    assert len(workstation.builds()) == 1


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_index_that_is_unreachable_is_named_and_the_old_one_lives(workstation: Workstation, installer: str) -> None:
    workstation(version="8.1.0")
    workstation.environment |= {"UV_HTTP_RETRIES": "0", "PIP_RETRIES": "0"}

    said = workstation.fails(
        "-vvvv",
        version="8.2.0",
        installer=installer,
        index_url="http://alice:s3cret@127.0.0.1:1/simple",
        find_links=None,
        offline=None,
    )

    assert "the package index at 127.0.0.1:1 cannot be reached from here" in said
    assert "s3cret" not in said
    assert workstation.asks() == "8.1.0"
    assert len(workstation.builds()) == 1


def test_no_way_leads_back_to_a_build_that_was_taken_apart(workstation: Workstation) -> None:
    first = workstation(version="8.0.0")["build"]
    workstation(version="8.2.0")
    shutil.rmtree(workstation.path / "builds" / first / "lib")

    for check in ([], ["--check"]):
        assert "There is no earlier build" in workstation.fails(*check, state="rolled_back")
    assert workstation.asks() == "8.2.0"


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("gone/caveclient", "gone is a link that leads to no directory"),  # as to a disk that is not mounted
        ("gone", "gone is a link that leads to no directory"),
        ("file/lab/caveclient", "file is a file; expected a directory"),
        ("a:b", "holds a colon"),
    ],
)
def test_where_nothing_can_be_installed_is_said_at_once_and_predicted(
    workstation: Workstation, place: str, complaint: str
) -> None:
    (workstation.folder / "gone").symlink_to("nowhere")
    (workstation.folder / "file").touch()

    for check in ([], ["--check"]):
        assert complaint in workstation.fails(*check, path=str(workstation.folder / place))


def test_a_directory_in_the_way_of_the_kernel_is_predicted(workstation: Workstation) -> None:
    (workstation.jupyter / "kernels" / "cave" / "kernel.json").mkdir(parents=True)
    for check in ([], ["--check"]):
        complaint = workstation.fails(*check, jupyter_kernel="CAVE")
        assert "kernel.json is a directory, where a file was expected" in complaint


def test_a_number_for_a_version_is_refused_before_it_loses_a_digit(workstation: Workstation) -> None:
    assert "version: 8.1 was read as a number" in workstation.fails(version=8.10)
    assert "python: 3.1 was read as a number" in workstation.fails(python=3.10)


def test_a_running_program_stays_with_the_version_that_it_started_with(workstation: Workstation) -> None:
    workstation(version="8.1.0")
    code = "import caveclient; print('ready', flush=True); input(); from caveclient import late; print(late.VERSION)"
    notebook = subprocess.Popen(
        [workstation.python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert notebook.stdout
    assert notebook.stdout.readline() == "ready\n"

    workstation(version="8.2.0")

    assert notebook.communicate("\n", timeout=20)[0] == "8.1.0\n"
    assert workstation.asks("from caveclient import late; print(late.VERSION)") == "8.2.0"


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_extra_that_does_not_exist_is_predicted_on_a_new_host(workstation: Workstation, installer: str) -> None:
    for arguments in ([], ["--check"]):
        said = workstation.fails(*arguments, version="8.1.0", extras=["vc"], installer=installer)
        assert "caveclient 8.1.0 has no extra 'vc'" in said
    assert not workstation.current.exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_settings_of_pip_that_put_packages_elsewhere_do_not_count_and_constraints_do(
    workstation: Workstation, tmp_path: Path, installer: str
) -> None:
    (tmp_path / "lab.txt").write_text("numpy<2\n")
    (tmp_path / "pip.conf").write_text(
        f"[global]\nconstraint = {tmp_path}/lab.txt\nno-index = true\nfind-links = {workstation.wheels}\n"
        f"[install]\ntarget = {tmp_path}/target\nrequire-hashes = true\nuser = true\n"
    )
    workstation.environment["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")

    options = {"find_links": None, "offline": None, "installer": installer}
    result = workstation.predicted(packages=["matplotlib"], **options)
    assert result["packages"]["numpy"] == "1.26.4"
    assert not (tmp_path / "target").exists()

    (tmp_path / "lab.txt").unlink()
    assert "'constraint' in pip's configuration names cannot be read" in workstation.fails(version="8.1.0", **options)


@pytest.mark.parametrize("setting", ["target", "prefix"])
def test_a_setting_of_uv_that_puts_packages_elsewhere_is_named_before_they_are(
    workstation: Workstation, tmp_path: Path, setting: str
) -> None:
    """uv has nothing to overrule it, unlike pip."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "uv.toml").write_text(f'[pip]\n{setting} = "{elsewhere}"\n')
    workstation.environment["UV_CONFIG_FILE"] = str(tmp_path / "uv.toml")
    for arguments in ([], ["--check"]):
        said = workstation.fails(*arguments, installer="uv")
        assert f"uv.toml sets {setting} in line 2" in said
    assert not elsewhere.exists()
    assert not workstation.current.exists()


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    """A file system from which no program runs."""
    folder = tmp_path / "noexec"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=0755", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
def test_a_path_from_which_no_program_runs_is_named(workstation: Workstation, noexec: Path) -> None:
    for arguments in ([], ["--check"]):
        said = workstation.fails(*arguments, path=str(noexec / "caveclient"))
        assert f"path: {noexec} is on a file system that is mounted noexec" in said


@pytest.mark.root
def test_a_folder_of_ansibles_from_which_no_program_runs_is_named(
    workstation: Workstation, noexec: Path, tmp_path: Path
) -> None:
    workstation.interpreter = str(bare_python(tmp_path / "bare"))
    workstation.environment |= {"PATH": SYSTEM_PATH, "ANSIBLE_REMOTE_TMP": str(noexec)}

    said = workstation.fails(installer="uv")

    assert "/uv cannot run from a file system that is mounted noexec (set ansible_remote_tmp to another)" in said


def test_the_kernel_sees_what_was_proven_whatever_the_notebook_server_says(
    workstation: Workstation, tmp_path: Path
) -> None:
    (tmp_path / "module" / "numpy").mkdir(parents=True)
    (tmp_path / "module" / "numpy" / "__init__.py").write_text("raise ImportError('an old one')")
    bundles: list[str | None] = []
    for ca_path in (None, certifi.where()):
        result = workstation(packages=["numpy"], jupyter_kernel="CAVE", ca_path=ca_path)
        kernel = json.loads(Path(result["kernel"]).read_text())
        started = subprocess.run(
            kernel["argv"],
            env={"PYTHONPATH": str(tmp_path / "module"), **kernel["env"]},
            capture_output=True,
            text=True,
            check=True,
        )
        numpy, bundle = json.loads(started.stdout)
        assert numpy.startswith(str(workstation.path))
        bundles.append(bundle)

    assert bundles == [system_certificates(), certifi.where()]


# --- Interrupted ---


# --- What a host may lack ---


no_uv_here = pytest.mark.skipif(
    shutil.which("uv", path=FURTHER_PATH) is not None, reason="this machine has a uv that cannot be hidden"
)


@no_uv_here
@pytest.mark.parametrize("installer", ["auto", "pip"])
def test_a_host_with_nothing_but_python_is_served_by_the_controller(
    workstation: Workstation, tmp_path: Path, installer: str
) -> None:
    workstation.interpreter = str(bare_python(tmp_path / "bare"))
    workstation.environment["PATH"] = SYSTEM_PATH

    result = workstation.predicted(extras=["cv"], installer=installer)

    assert result["installer"].startswith("uv " if installer == "auto" else "pip ")
    assert workstation.asks("import cloudvolume; print('yes')") == "yes"
    assert not list(Path(workstation.interpreter).parents[1].glob("lib/*/site-packages/*"))
    assert list((tmp_path / "remote-tmp").iterdir()) == [], "what was brought is gone"


def test_a_folder_on_the_host_is_used_where_it_is(workstation: Workstation) -> None:
    assert workstation(remote_src=True)["version"] == "8.2.0"
    assert "find_links: /nowhere is not on this host" in workstation.fails(
        version="8.1.0", remote_src=True, find_links=["/nowhere"]
    )


def test_a_folder_that_the_controller_does_not_have_is_named(workstation: Workstation) -> None:
    assert "find_links: /nowhere is not on the controller" in workstation.fails(find_links=["/nowhere"])


def test_a_host_whose_own_python_is_too_old_uses_a_newer_one(workstation: Workstation, tmp_path: Path) -> None:
    pythons = find_interpreters()
    if "3.8" not in pythons:
        pytest.skip("this machine has no Python 3.8")
    newest = max(pythons, key=lambda version: int(version.split(".")[1]))
    programs = open_copy(pythons[newest], tmp_path / "newest").parent
    workstation.interpreter = str(pythons["3.8"])
    workstation.environment["PATH"] = f"{UV.parent}:{programs}:{SYSTEM_PATH}"

    result = workstation.predicted()

    assert result["python_version"].startswith(f"{newest}.")
    assert workstation.asks() == "8.2.0"

    (programs / f"python{newest}").unlink()
    said = workstation.fails(python="3.8", version="8.1.0")
    assert "caveclient 8.1.0 needs Python 3.9 or later" in said


# --- Somebody's environment ---


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    return tmp_path / "env" / "bin" / "python"


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_existing_environment_is_filled_upgraded_and_emptied(
    workstation: Workstation, existing: Path, installer: str
) -> None:
    options = {"interpreter": str(existing), "installer": installer}

    first = workstation.predicted(version="8.1.0", packages=["matplotlib", "numpy<2"], **options)
    assert first["packages"]["numpy"] == "1.26.4"
    assert workstation.asks(python=existing) == "8.1.0"

    second = workstation.predicted(version=">=8.2", **options)
    assert (second["previous_version"], second["version"]) == ("8.1.0", "8.2.0")
    assert second["packages"]["numpy"] == "1.26.4", "a package that fits is not touched"

    gone = workstation.predicted(state="absent", **options)
    assert "caveclient" not in gone["packages"]
    assert {"matplotlib", "numpy", "packaging"} <= set(gone["packages"])


@pytest.mark.parametrize("installer", ["uv", "auto"])
def test_the_environment_of_a_uv_project_which_has_no_pip_is_filled_and_emptied(
    workstation: Workstation, tmp_path: Path, installer: str
) -> None:
    subprocess.run([UV, "venv", "--quiet", "--offline", "--python", sys.executable, tmp_path / "project"], check=True)
    python = tmp_path / "project" / "bin" / "python"
    options = {"interpreter": str(python), "installer": installer}

    workstation.predicted(version="8.1.0", **options)
    assert workstation.asks(python=python) == "8.1.0"
    assert "caveclient" not in workstation.predicted(state="absent", **options)["packages"]


def test_an_existing_environment_that_fits_needs_no_process(workstation: Workstation, tmp_path: Path) -> None:
    subprocess.run([open_python(), "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    options = {"interpreter": python, "version": "8.2.0", "packages": ["matplotlib"], "jupyter_kernel": "CAVE"}
    workstation.watch()
    workstation(**options)
    workstation.watched()

    assert not workstation(**options)["changed"]
    assert [line.split()[0] for line in workstation.watched()] == ["run"]


def test_an_installation_by_hand_is_seen(workstation: Workstation, existing: Path) -> None:
    arguments = ["--quiet", "--no-index", "--find-links", str(workstation.wheels)]
    subprocess.run([str(existing), "-m", "pip", "install", *arguments, "caveclient==8.1.0"], check=True)

    assert not workstation(interpreter=str(existing), version=">=8,<8.2")["changed"]
    assert workstation(interpreter=str(existing), version=">=8.2")["version"] == "8.2.0"


def test_a_python_of_the_operating_system_is_left_alone(workstation: Workstation, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "system", externally_managed=True)

    for arguments in ([], ["--check"]):
        said = workstation.fails(*arguments, interpreter=str(python))
        assert "belongs to the operating system, which forbids installing into it (EXTERNALLY-MANAGED)" in said
    assert not list(python.parents[1].glob("lib/*/site-packages/*"))


# --- The real one ---


@pytest.mark.network
@pytest.mark.slow
def test_the_real_caveclient_serves_a_notebook_by_the_kernel_that_was_installed(
    workstation: Workstation, monkeypatch: pytest.MonkeyPatch
) -> None:
    workstation.environment["UV_CACHE_DIR"] = str(ROOT / ".cache" / "uv")
    options = {"find_links": None, "offline": None, "installer": "uv", "jupyter_kernel": "CAVE"}

    result = workstation(version="8.2.1", **options)
    assert result["packages"]["caveclient"] == "8.2.1"
    assert not workstation(version=">=8", **options)["changed"]

    monkeypatch.setenv("JUPYTER_PATH", str(workstation.jupyter))
    monkeypatch.setenv("IPYTHONDIR", str(workstation.folder / "ipython"))
    specs = KernelSpecManager().get_all_specs()
    assert specs["cave"]["spec"]["display_name"] == "CAVE"
    manager, client = start_new_kernel(kernel_name="cave", startup_timeout=120)
    try:
        said: list[str] = []
        reply = client.execute_interactive(
            "import sys, caveclient; print(caveclient.__version__, sys.prefix)",
            timeout=120,
            output_hook=lambda message: said.append(message["content"].get("text", "")),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    assert "".join(said).split() == ["8.2.1", str(workstation.path / "builds" / result["build"])]
