# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installers import (
    Brought,
    Installer,
    Outcome,
    Python,
    Source,
    choose_installer,
    choose_python,
    clean_environment,
    explain,
    find_uv,
    home_directory,
    installer_environment,
    installs_on,
    last_line,
    mask_credentials,
    missing_tools,
    needs_no_index,
    normal_name,
    numbers,
    probe,
    run,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LAB = "https://alice:s3cret@pypi.lab.example/simple"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def bare(tmp_path: Path, **more: object) -> Python:
    """Return a Python that has nothing beside itself."""
    facts = {
        "executable": sys.executable,
        "version": "3.11.2",
        "base": sys.executable,
        "has_venv": True,
        "lacks_distutils": False,
        "is_venv": False,
        "externally_managed": False,
        "has_pip": False,
        "pips": (),
        "site_packages": str(tmp_path),
    }
    return Python(**{**facts, **more})  # type: ignore[arg-type]  # passed on


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A host's environment with an empty home and no programs of its own."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), "PIP_CONFIG_FILE": os.devnull}


# --- Processes ---


def test_the_home_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    assert home_directory({"HOME": str(tmp_path)}) == str(tmp_path)
    assert home_directory({"HOME": str(tmp_path / "gone")}) != str(tmp_path / "gone")
    assert home_directory({}) == home_directory({"HOME": "/nowhere"})


@pytest.mark.root
def test_the_home_that_sudo_left_is_not_used_by_root(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)

    assert home_directory({"HOME": str(tmp_path)}) == home_directory({})


def test_what_leads_other_packages_in_is_left_out(tmp_path: Path) -> None:
    misleading = [
        "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CONDA_PREFIX",
        "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_CONSTRAINT", "UV_SYSTEM_PYTHON",
        "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_CONSTRAINT",
    ]  # fmt: skip
    kept = {"PIP_INDEX_URL": "a", "UV_INDEX": "b", "https_proxy": "c", "SSL_CERT_FILE": "d", "UV_CACHE_DIR": "e"}

    cleaned = clean_environment({**dict.fromkeys(misleading, "x"), **kept, "HOME": str(tmp_path)})

    assert cleaned.items() >= kept.items()
    assert not set(misleading) & set(cleaned)
    assert cleaned["PYTHONNOUSERSITE"] == "1"


def test_programs_are_found_although_sudo_strips_the_path() -> None:
    assert clean_environment({})["PATH"].split(":") == ["/usr/local/bin", "/usr/bin", "/bin"]
    assert clean_environment({"PATH": "/opt/bin:/usr/bin"})["PATH"] == "/opt/bin:/usr/bin:/usr/local/bin:/bin"


def test_a_process_runs_in_the_root_folder_with_its_environment_alone() -> None:
    outcome = run(
        ["/bin/sh", "-c", "pwd; echo $ONLY$HOME; cat; echo oops >&2; exit 3"], {"ONLY": "this"}, 10, text="in\n"
    )

    assert outcome == Outcome(3, "/\nthis\nin\n", "oops\n")


def test_a_process_that_takes_too_long_is_ended_with_its_children() -> None:
    started = time.monotonic()
    outcome = run(["/bin/sh", "-c", "sleep 61.7 & sleep 60"], {"PATH": os.environ["PATH"]}, 0.3)

    assert outcome.returncode is None
    assert time.monotonic() - started < 10
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 61.7" not in listed


def test_a_program_that_is_not_there_is_an_outcome_like_any_other() -> None:
    outcome = run(["/nowhere/uv"], {}, 1)

    assert outcome.returncode == 126
    assert "/nowhere/uv" in outcome.error


# --- Pythons ---


def test_a_python_says_what_it_is() -> None:
    python = probe(sys.executable)

    assert python is not None
    assert python.version == ".".join(map(str, sys.version_info[:3]))
    assert python.release == sys.version_info[:2]
    assert python.base == os.path.realpath(sys.executable)
    assert python.has_venv


@pytest.mark.parametrize("script", ["exit 1", "echo hello", "echo '[]'", "echo '{}'"])
def test_what_is_no_python_is_none(tmp_path: Path, script: str) -> None:
    assert probe(str(program(tmp_path / "python", script))) is None


@pytest.mark.parametrize(
    ("python", "version", "fits"),
    [
        ((3, 9), "", True),
        ((3, 13), "8.2.1", True),
        ((3, 8), "", False),
        ((3, 8), "8.2.1", False),
        ((3, 8), "7.3.2", False),
        ((3, 8), "7.3.1", True),
        ((3, 8), "5.4.0", True),
    ],
)
def test_an_old_python_gets_an_old_release_only_when_that_was_asked_for(
    python: tuple[int, int], version: str, fits: bool
) -> None:
    assert installs_on(python, version) is fits


def fake_pythons(monkeypatch: pytest.MonkeyPatch, folder: Path, *versions: str) -> None:
    """Put Pythons that only say which they are on the PATH, and nothing else."""
    for version in versions:
        program(folder / f"python{version.rpartition('.')[0]}", "")
    monkeypatch.setattr(_installers, "_FURTHER_FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))
    found = {f"python{version.rpartition('.')[0]}": version for version in versions}
    monkeypatch.setattr(
        _installers,
        "probe",
        lambda path: bare(folder, executable=path, version=found.get(Path(path).name, "3.11.7")),
    )


def test_the_python_that_runs_the_module_is_taken_when_none_is_named() -> None:
    assert choose_python("", "").executable == sys.executable


def test_an_old_python_looks_for_the_newest_on_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18", "3.9.2", "3.12.1")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    assert choose_python("", "").version == "3.12.1"


def test_an_old_python_without_a_newer_one_is_refused_and_the_silent_release_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    with pytest.raises(CaveError, match=r"without a word\); this host's Python is 3\.8, and it has no newer one"):
        choose_python("", "")
    with pytest.raises(CaveError, match=r"caveclient 8\.2\.1 needs Python 3\.9 or later"):
        choose_python("", "8.2.1")


def test_an_old_python_serves_an_old_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.12.1")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))

    assert choose_python("", "7.3.1").executable == sys.executable


def test_a_python_is_found_by_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.9.2", "3.12.1")

    assert choose_python("3.12", "").version == "3.12.1"
    assert choose_python("3.12.1", "").version == "3.12.1"
    with pytest.raises(CaveError, match=r"no Python 3\.1 on its PATH"):
        choose_python("3.1", "")
    with pytest.raises(CaveError, match=r"apt-get install python3\.12\.4"):
        choose_python("3.12.4", "")


def test_an_old_python_that_was_named_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pythons(monkeypatch, tmp_path, "3.8.18")

    with pytest.raises(CaveError, match=r"python3\.8 is Python 3\.8\.18"):
        choose_python("3.8", "")
    assert choose_python("3.8", "5.4.0").version == "3.8.18"


def test_a_path_that_is_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaveError, match="is not a Python that runs on this host"):
        choose_python(str(tmp_path / "python3"), "")


# --- Installers ---


@pytest.mark.parametrize(
    ("kind", "uv", "pip", "missing"),
    [
        ("auto", True, True, []),
        ("auto", False, True, []),
        ("auto", True, False, []),
        ("auto", False, False, ["uv", "pip"]),
        ("uv", False, True, ["uv"]),
        ("pip", True, False, ["pip"]),
    ],
)
def test_only_what_is_lacking_is_to_be_brought(
    tmp_path: Path, environ: dict[str, str], kind: str, uv: bool, pip: bool, missing: list[str]
) -> None:
    if uv:
        program(tmp_path / "bin" / "uv", "")

    assert missing_tools(kind, bare(tmp_path, has_pip=pip), environ) == missing


def test_uv_is_found_where_its_own_installer_puts_it(tmp_path: Path, environ: dict[str, str]) -> None:
    assert find_uv(environ) == ""
    own = program(tmp_path / "home" / ".local" / "bin" / "uv", "")
    assert find_uv(environ) == str(own)


def test_uv_comes_before_pip_and_the_hosts_before_the_controllers(tmp_path: Path, environ: dict[str, str]) -> None:
    brought = Brought(uv=str(program(tmp_path / "brought" / "uv", "echo uv 0.9.5 '(abc 2026)'")))
    pip = bare(tmp_path, pips=(str(pip_folder(tmp_path)),))

    assert choose_installer("auto", pip, brought, environ, tmp_path, False) == Installer("uv", "0.9.5", (brought.uv,))

    own = program(tmp_path / "bin" / "uv", "echo uv 0.8.0")
    assert choose_installer("auto", pip, brought, environ, tmp_path, False) == Installer("uv", "0.8.0", (str(own),))


def pip_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dist-packages" / "pip"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text("print('pip 24.0 from here (python 3.11)')")
    return folder


def test_a_uv_that_does_not_run_gives_way_to_pip(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "bin" / "uv", "echo wrong libc >&2; exit 1")
    python = bare(tmp_path, pips=(str(pip_folder(tmp_path)),))

    installer = choose_installer("auto", python, Brought(), environ, tmp_path, False)

    assert installer.kind == "pip"
    assert installer.version == "24.0"
    with pytest.raises(CaveError, match=r"no uv that works: .*does not run here \(wrong libc\)") as caught:
        choose_installer("uv", python, Brought(), environ, tmp_path, False)
    assert caught.value.details["needs"] == ["uv"]


def test_pip_sees_nothing_of_what_is_installed_beside_it(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = pip_folder(tmp_path)
    (folder.parent / "beside.py").touch()
    (folder / "__main__.py").write_text(
        "import os, sys; sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))\n"
        "import importlib.util; print('pip', '1.0' if importlib.util.find_spec('beside') else '2.0')"
    )

    installer = choose_installer("pip", bare(tmp_path, pips=(str(folder),)), Brought(), environ, tmp_path, False)

    assert installer.version == "2.0"


def test_an_environment_is_filled_by_its_own_pip(tmp_path: Path) -> None:
    python = probe(sys.executable)
    assert python is not None
    if not python.has_pip:
        python = probe(str(python.base))
    assert python is not None

    installer = choose_installer("pip", python, Brought(), clean_environment(os.environ), tmp_path, True)

    assert installer.program == ("-m", "pip")


def test_a_host_with_nothing_says_what_would_help(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(CaveError, match=r"neither uv nor pip\. Install one here .*python3-venv") as caught:
        choose_installer("auto", bare(tmp_path), Brought(), environ, tmp_path, False)
    assert caught.value.details["needs"] == ["uv", "pip"]

    broken = Brought(uv=str(program(tmp_path / "brought" / "uv", "exit 1")))
    with pytest.raises(CaveError) as caught:
        choose_installer("auto", bare(tmp_path), broken, environ, tmp_path, False)
    assert caught.value.details["needs"] == ["pip"]


@pytest.mark.parametrize(
    ("kind", "version", "can"), [("uv", "0.1", True), ("pip", "22.2", True), ("pip", "20.3.4", False)]
)
def test_an_old_pip_cannot_say_what_it_would_do(kind: str, version: str, can: bool) -> None:
    assert Installer(kind, version, ()).can_preview is can


# --- Where packages come from ---


@pytest.fixture
def configured(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A host whose pip is configured."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror.lab.example/simple\nextra-index-url = https://more.lab.example/simple\n"
        "cert = /etc/ssl/lab.pem\n"
        f"find-links = {tmp_path} https://lab.example/wheels\n"
    )
    return {**environ, "PIP_CONFIG_FILE": str(file)}


def test_uv_looks_where_the_hosts_pip_looks(configured: dict[str, str], tmp_path: Path) -> None:
    found = installer_environment("uv", Source(), configured)

    assert found["UV_DEFAULT_INDEX"] == "https://mirror.lab.example/simple"
    assert found["UV_INDEX"] == "https://more.lab.example/simple"
    assert found["UV_FIND_LINKS"] == f"{tmp_path},https://lab.example/wheels"
    assert found["SSL_CERT_FILE"] == "/etc/ssl/lab.pem"


def test_an_index_of_uv_itself_outranks_that_of_pip(configured: dict[str, str]) -> None:
    found = installer_environment("uv", Source(), {**configured, "UV_DEFAULT_INDEX": "https://uv.lab.example/simple"})

    assert found["UV_DEFAULT_INDEX"] == "https://uv.lab.example/simple"
    assert "UV_INDEX" not in found


@pytest.mark.parametrize("kind", ["uv", "pip"])
def test_an_index_that_was_asked_for_is_the_only_one(configured: dict[str, str], kind: str) -> None:
    environ = {**configured, "PIP_EXTRA_INDEX_URL": "https://x.example", "UV_INDEX": "https://y.example"}
    found = installer_environment(kind, Source(index_url=LAB), environ)
    name = "UV_DEFAULT_INDEX" if kind == "uv" else "PIP_INDEX_URL"

    assert found[name] == LAB
    assert [key for key in ("UV_INDEX", "UV_EXTRA_INDEX_URL") if kind == "uv" and key in found] == []
    if kind == "pip":
        assert "PIP_EXTRA_INDEX_URL" not in found
        assert found["PIP_CONFIG_FILE"] == os.devnull
        assert found["PIP_CERT"] == "/etc/ssl/lab.pem"


def test_offline_uses_no_index_and_no_link_that_needs_a_network(configured: dict[str, str], tmp_path: Path) -> None:
    source = Source(find_links=("/srv/wheels",), offline=True)

    uv = installer_environment("uv", source, configured)
    assert uv["UV_FIND_LINKS"] == f"/srv/wheels,{tmp_path}"
    assert uv["UV_OFFLINE"] == "1"
    assert needs_no_index(source, uv)
    assert not {"UV_INDEX", "UV_DEFAULT_INDEX"} & set(uv)

    pip = installer_environment("pip", source, configured)
    assert pip["PIP_NO_INDEX"] == "1"
    assert pip["PIP_FIND_LINKS"] == str(tmp_path)
    assert pip["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_INDEX_URL" not in pip


def test_offline_without_a_folder_leaves_uv_its_cache(environ: dict[str, str]) -> None:
    found = installer_environment("uv", Source(offline=True), environ)

    assert found["UV_OFFLINE"] == "1"
    assert not needs_no_index(Source(offline=True), found)


def test_a_host_that_forbids_pip_the_index_forbids_it_uv_too(environ: dict[str, str]) -> None:
    forbidden = {**environ, "PIP_NO_INDEX": "1"}

    assert needs_no_index(Source(), installer_environment("uv", Source(), forbidden))
    assert not needs_no_index(Source(index_url=LAB), installer_environment("uv", Source(index_url=LAB), forbidden))
    assert not needs_no_index(Source(), installer_environment("uv", Source(), environ))


def test_a_home_that_cannot_be_written_needs_no_cache(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UV_NO_CACHE" not in installer_environment("uv", Source(), environ)
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert installer_environment("uv", Source(), environ)["UV_NO_CACHE"] == "1"
    assert "UV_NO_CACHE" not in installer_environment("uv", Source(), {**environ, "UV_CACHE_DIR": "/srv/cache"})


def test_pip_tries_twice_since_it_says_nothing_of_a_first_failure(environ: dict[str, str]) -> None:
    assert installer_environment("pip", Source(), {**environ, "PIP_RETRIES": "0"})["PIP_RETRIES"] == "1"
    assert installer_environment("pip", Source(), {**environ, "PIP_RETRIES": "5"})["PIP_RETRIES"] == "5"


# --- Saying why ---

UV = {
    "unreachable": (
        "error: Request failed after 3 retries in 7.2s\n"
        "  cause: Failed to fetch: https://pypi.lab.example/simple/caveclient/\n"
        "  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
        r"package index at pypi\.lab\.example cannot be reached from here\. .*offline: true",
    ),
    "no such version": (
        "error: No solution found when resolving dependencies\n"
        "  cause: Because there is no version of caveclient==99.1 and you require caveclient==99.1, we can conclude "
        "that your requirements are unsatisfiable.\n",
        "the package index has no such version of caveclient",
    ),
    "wrong python": (
        "error: No solution found\n"
        "  cause: Because the current Python version (3.8.18) does not satisfy Python>=3.9 and "
        "caveclient==8.2.1 depends on Python>=3.9, we can conclude that caveclient==8.2.1 cannot be used.\n",
        "no release for this Python.*option 'python'",
    ),
    "not in the folder": (
        "  cause: Because numpy was not found in the provided package locations and caveclient depends on numpy\n",
        "lacks a package that is needed",
    ),
    "disk": ("error: Failed to install\n  cause: No space left on device (os error 28)\n", "the disk is full"),
    "certificate": ("  cause: invalid peer certificate: UnknownIssuer\n", "is not trusted here.*cert.*pip.conf"),
    "credentials": (f"HTTP status client error (401 Unauthorized) for url ({LAB}/x/)\n", "refuses the credentials"),
}
PIP = {
    "unreachable": (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: Connection refused'\n"
        "ERROR: No matching distribution found for caveclient==8.2.1\n",
        "package index cannot be reached from here",
    ),
    "no such version": (
        "ERROR: Could not find a version that satisfies the requirement caveclient==99 (from versions: 8.2.0, 8.2.1)\n"
        "ERROR: No matching distribution found for caveclient==99\n",
        "has no such version of caveclient",
    ),
    "wrong python": (
        "ERROR: Ignored the following versions that require a different python version: 8.2.1 Requires-Python >=3.9\n"
        "ERROR: No matching distribution found for caveclient==8.2.1\n",
        "no release for this Python",
    ),
    "nothing there": (
        "ERROR: Could not find a version that satisfies the requirement caveclient (from versions: none)\n"
        "ERROR: No matching distribution found for caveclient\n",
        "has no caveclient at all, or does not answer",
    ),
    "disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "disk is full",
    ),
    "compiler": ("error: subprocess-exited-with-error\n", "its source could not be built"),
    "contradiction": ("ERROR: ResolutionImpossible: see https://pip.pypa.io\n", "contradicts itself"),
    "permission": ("PermissionError: [Errno 13] Permission denied: '/opt/x'\n", "become: true"),
}


@pytest.mark.parametrize(
    ("output", "message"),
    [pytest.param(*case, id=f"uv {name}") for name, case in UV.items()]
    + [pytest.param(*case, id=f"pip {name}") for name, case in PIP.items()],
)
def test_a_failure_says_cause_and_remedy_in_a_few_words(output: str, message: str) -> None:
    error = explain(Outcome(1, "", output), Source(), "install caveclient 8.2.1 with uv", 60)

    assert error.message.startswith("Could not install caveclient 8.2.1 with uv: ")
    with pytest.raises(CaveError, match=f"(?s){message}"):
        raise error
    assert len(error.message) < 700
    assert "s3cret" not in error.message + error.details["installer_output"]


def test_the_line_that_tells_is_quoted() -> None:
    error = explain(Outcome(1, "", UV["no such version"][0]), Source(), "install", 60)

    assert "Because there is no version of caveclient==99.1" in error.message


def test_the_folder_is_named_when_there_is_no_index() -> None:
    error = explain(Outcome(1, "", UV["no such version"][0]), Source(offline=True), "install", 60)

    assert "the folder of wheels has no such version" in error.message


def test_an_index_with_credentials_is_named_without_them() -> None:
    error = explain(Outcome(1, "", f"Could not fetch URL {LAB}/caveclient/"), Source(index_url=LAB), "install", 60)

    assert "the package index at pypi.lab.example cannot be reached" in error.message
    assert "s3cret" not in error.message + error.details["installer_output"]
    assert "alice" not in error.message + error.details["installer_output"]


def test_an_unknown_failure_is_quoted_as_it_is() -> None:
    error = explain(Outcome(2, "first\n", "something new\n\n"), Source(), "install", 60)

    assert error.message == "Could not install. It said: something new"
    assert explain(Outcome(2, "", ""), Source(), "install", 60).message.endswith("It said: nothing at all")


def test_a_timeout_and_a_kill_are_told_apart() -> None:
    assert "more than 60 seconds" in explain(Outcome(None, "", ""), Source(), "install", 60).message
    assert "lack of memory" in explain(Outcome(-signal.SIGKILL, "", ""), Source(), "install", 60).message


def test_a_long_line_is_cut_around_what_tells() -> None:
    output = "x" * 5000 + " No space left on device " + "y" * 5000
    error = explain(Outcome(1, "", output), Source(), "install", 60)

    assert "No space left on device" in error.message
    assert len(error.message) < 700


def test_only_the_end_of_a_long_output_is_returned() -> None:
    output = explain(Outcome(1, "", "x" * 100_000 + "the end"), Source(), "install", 60).details["installer_output"]

    assert len(output) == 20_000
    assert output.endswith("the end")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"Looking in indexes: {LAB}", "Looking in indexes: https://********@pypi.lab.example/simple"),
        ("https://token@lab.example/x", "https://********@lab.example/x"),
        ("git+ssh://git@lab.example/x", "git+ssh://********@lab.example/x"),
        ("https://lab.example/a@b", "https://lab.example/a@b"),
        ("mail me@lab.example", "mail me@lab.example"),
    ],
)
def test_credentials_are_masked_in_urls(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


def test_the_last_line_that_says_something() -> None:
    assert last_line("a\n b \n\n") == "b"
    assert last_line("") == ""
    assert len(last_line("x" * 1000)) == 300


@pytest.mark.parametrize(("version", "found"), [("8.2.1", (8, 2, 1)), ("8.3.0rc1", (8, 3, 0)), ("", ()), ("x1", ())])
def test_the_numbers_of_a_version(version: str, found: tuple[int, ...]) -> None:
    assert numbers(version) == found


def test_names_of_packages_are_compared_as_all_tools_do() -> None:
    assert normal_name("Jupyter_Client.x--y") == "jupyter-client-x-y"
