# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""uv and pip: finding one that runs here, and having it install, preview or remove."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils import _trust
from ansible_collections.connectomics.cave.plugins.module_utils._environment import pip_config as _pip_config
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installer_errors import last_line
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import Outcome, run
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import (
    PROBE_TIMEOUT,
    Python,
    numbers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import (
    FromController,
    Request,
    Source,
    normal_name,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._systems import system_certificates, this_system

_UV_PLACES = ("UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL")
"""Variables of uv that name folders or indexes."""


class Installer(NamedTuple):
    """A program that installs packages, seen to run on this host."""

    kind: str
    """uv or pip."""
    version: str
    program: tuple[str, ...]
    """For uv, its path; for pip, what a Python needs as arguments to run it."""

    @property
    def can_preview(self) -> bool:
        """Whether it can say what it would install (pip: since 22.2)."""
        return self.kind == "uv" or numbers(self.version)[:2] >= (22, 2)


# --- Finding an installer ---


def find_uv(environ: Mapping[str, str]) -> str:
    """Return the path of the uv of this host; empty where it has none."""
    folders = [environ["PATH"], str(Path(environ["HOME"], ".local", "bin"))]
    found = shutil.which("uv", path=":".join(folder for folder in folders if folder)) or ""
    return "" if found and _trust.changeable_by_others(os.path.abspath(found)) else found


def missing_tools(kind: str, python: Python, environ: Mapping[str, str]) -> list[str]:
    """Return what would have to be brought to this host, best first, for ``kind`` (auto, uv or pip); empty: nothing."""
    if python.lacks_distutils and kind == "auto":
        kind = "pip"
    has_uv, has_pip = bool(find_uv(environ)), bool(python.has_pip or python.pips)
    if (kind != "pip" and has_uv) or (kind != "uv" and has_pip):
        return []
    return ["uv", "pip"] if kind == "auto" else [kind]


def host_facts(python: Python) -> dict[str, Any]:
    """Return what the controller has to know to choose programs, wheels or a build for this host."""
    version = _libc_version()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": version.partition(" ")[0] or ("musl" if any(Path("/lib").glob("ld-musl-*")) else ""),
        "python": python.version,
        "install_pip": this_system().install_pip(),
        "kind": [version, python.executable, python.base, os.geteuid()],
    }


def _libc_version() -> str:
    with contextlib.suppress(ValueError, OSError, AttributeError):  # another C library
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


def choose_installer(
    kind: str,
    python: Python,
    from_controller: FromController,
    environ: Mapping[str, str],
    workdir: Path,
    into_existing: bool,
    timeout: float = PROBE_TIMEOUT,
) -> Installer:
    """Return the first installer that runs: uv before pip, and what the host has before what was brought.

    Args:
        kind: auto, uv or pip.
        python: for pip, the Python that is to run it.
        from_controller: what the action plugin has put here.
        environ: the environment to run it in.
        workdir: a folder for links that are needed for the installation alone.
        into_existing: the environment is somebody's, and its own pip is to be used when it has one.
        timeout: seconds in which each has to say its version.

    Raises:
        CaveError: there is none; its detail ``needs`` says what would help.
    """
    reasons = []
    if python.lacks_distutils and kind == "auto":
        kind = "pip"
    if kind in ("auto", "uv"):
        for program in filter(None, (find_uv(environ), from_controller.uv)):
            outcome = run([program, "--version"], environ, timeout)
            if outcome.returncode == 0:
                return Installer("uv", _version_in(outcome.output), (program,))
            reasons.append(_why_not(program, outcome))
    if kind in ("auto", "pip"):
        for program_of_pip in _pips(python, from_controller, workdir, into_existing):
            outcome = run([python.executable, *program_of_pip, "--version"], environ, timeout)
            if outcome.returncode == 0:
                return Installer("pip", _version_in(outcome.output), program_of_pip)
            reasons.append(_why_not(program_of_pip[-1], outcome))
    found = "This host has neither uv nor pip" if kind == "auto" else f"This host has no {kind}"
    if reasons:
        found += " that works: " + "; ".join(reasons)
    remedy = f" Install one here ({this_system().install_pip()}), or uv on the controller."
    needs = [tool for tool in ("uv", "pip") if kind in ("auto", tool) and not getattr(from_controller, tool)]
    raise CaveError(found + "." + remedy, needs=needs)


def _why_not(program: str, outcome: Outcome) -> str:
    folder = _trust.no_programs_from(program) if outcome.returncode == 126 else ""
    if folder:
        return f"{program} cannot run from a file system that is mounted noexec (set ansible_remote_tmp to another)"
    return f"{program} does not run here ({last_line(outcome.error) or 'it says nothing'})"


def _pips(python: Python, from_controller: FromController, workdir: Path, into_existing: bool) -> list[tuple[str, ...]]:
    if into_existing and python.has_pip:
        return [("-m", "pip")]
    found: list[tuple[str, ...]] = []
    for number, place in enumerate(python.pips):
        if _trust.all_changeable_by_others(place):
            continue
        if place.endswith(".whl"):
            found.append(_wheel_of_pip(place, python))
        else:
            # Through a link in a folder of its own, pip sees nothing of what else is installed beside it.
            alone = workdir / f"pip-{number}"
            alone.mkdir()
            (alone / "pip").symlink_to(place)
            found.append((str(alone / "pip"),))
    return [*found, _wheel_of_pip(from_controller.pip, python)] if from_controller.pip else found


_PIP_WITHOUT_DISTUTILS = (
    "import runpy, sys, sysconfig; sysconfig._PIP_USE_SYSCONFIG = True; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
"""What makes pip take its paths from sysconfig, as it does by itself from Python 3.10 on."""


def _wheel_of_pip(wheel: str, python: Python) -> tuple[str, ...]:
    return ("-c", _PIP_WITHOUT_DISTUTILS, wheel) if python.lacks_distutils else (wheel + "/pip",)


def _version_in(text: str) -> str:
    match = re.search(r"\d+(\.\w+)+", text)
    return match.group() if match else ""


# --- Running it ---


class Job(NamedTuple):
    """What to install, and into what."""

    installer: Installer
    python: str
    """The environment's Python; for a preview of an environment that is not there yet, the one that would make it."""
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    source: Source
    compile_all: bool = False
    timeout: float = 1800.0


def installer_environment(kind: str, source: Source, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that makes uv or pip take packages from ``source``, and from what the host configures.

    Args:
        kind: uv or pip.
        source: what the user asked for; an index named there is the only one.
        environ: a cleaned environment.
    """
    settings = _pip_config.read_pip_settings(environ, environ["HOME"]).with_source(source)
    changed = {name: value for name, value in environ.items() if not name.startswith("PIP_")}
    if kind == "pip":
        changed.update(_pip_config.as_pip_environment(settings))
        changed.update(PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore")
        changed.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0")
        if "PIP_CACHE_DIR" in environ:
            changed["PIP_CACHE_DIR"] = environ["PIP_CACHE_DIR"]
        # After a first failure without another try, pip says that there is no such package.
        changed["PIP_RETRIES"] = {"": "2", "0": "1"}.get(changed.get("PIP_RETRIES", ""), changed.get("PIP_RETRIES", ""))
        return changed
    changed.update(UV_NO_PROGRESS="1", UV_PYTHON_DOWNLOADS="never", NO_COLOR="1")
    if _has_certificates():
        # By default uv trusts a list of its own, which lacks a lab's certificate authority.
        changed.update(UV_SYSTEM_CERTS="1", UV_NATIVE_TLS="1")
    configured = {}
    if not _pip_config.has_own_uv_settings(environ, environ["HOME"]):
        configured = _pip_config.as_uv_environment(settings, environ)
    if source.index_url or source.offline:
        for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX"):
            changed.pop(name, None)
    changed.update(configured)
    if source.index_url:
        changed["UV_DEFAULT_INDEX"] = source.index_url
    links = [link for link in changed.get("UV_FIND_LINKS", "").split(",") if link]
    if source.offline:
        links = [link for link in links if _pip_config.local_path(link)]
        changed["UV_OFFLINE"] = "1"
    changed["UV_FIND_LINKS"] = ",".join(
        [*source.find_links, *(link for link in links if link not in source.find_links)]
    )
    cached = environ.get("UV_CACHE_DIR") or environ.get("XDG_CACHE_HOME")
    if not cached and not os.access(environ["HOME"], os.W_OK):
        changed["UV_NO_CACHE"] = "1"
    return changed


def needs_no_index(source: Source, environ: Mapping[str, str], settings: _pip_config.PipSettings) -> bool:
    """Return whether uv has to be told to use no index at all; for pip, a variable says it.

    When offline without a folder of wheels, uv keeps to what its cache knows of an index.

    Args:
        source: what the user asked for.
        environ: as installer_environment returns it for uv.
        settings: of the host's pip.
    """
    if source.offline:
        return bool(environ.get("UV_FIND_LINKS"))
    if source.index_url or _pip_config.has_own_uv_settings(os.environ, environ["HOME"]):
        return False
    return settings.no_index


def _has_certificates() -> bool:
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return True
    return bool(system_certificates())


def check_sources(source: Source, request: Request, environ: Mapping[str, str]) -> None:
    """Make sure that nobody else can write what root takes packages from, on this host.

    Raises:
        CaveError: somebody can.
    """
    home = environ["HOME"]
    for files in (_pip_config.files_of_pip(environ, home), _pip_config.files_of_uv(environ, home)):
        for file in map(str, files):
            if file != os.devnull:
                _trust.check("the installer's configuration", file, "Let root alone write it.")
    settings = _pip_config.read_pip_settings(environ, environ["HOME"]).with_source(source)
    configured = (*settings.index_urls, *settings.find_links, *settings.constraints)
    of_uv = [place for name in _UV_PLACES for place in re.split(r"[\s,]+", environ.get(name, "")) if place]
    of_uv = [re.sub(r"^[\w-]+=", "", place) for place in of_uv]  # an index may have a name
    given = (*source.find_links, source.index_url)
    urls = re.findall(r"@\s*(?:\w+\+)?([^\s#]+)", "\n".join((*request.packages, *request.constraints)))
    urls += [url.rpartition("@")[0] for url in urls]  # git+file:///srv/repository@branch
    named = {"find_links": given, "packages": urls, "pip's configuration": configured, "uv's variables": of_uv}
    for what, links in named.items():
        for place in filter(None, map(_pip_config.local_path, links)):
            # Installers run in the root folder.
            path = os.path.join("/", os.path.expanduser(place))
            _trust.check(what, path, "Name one that root alone can write.", everything=True)
    for place, everything in _pip_config.places_of_uv(environ, home):
        path = os.path.join("/", os.path.expanduser(place))
        _trust.check("uv's configuration", path, "Name one that root alone can write.", everything)


def install(job: Job, environ: Mapping[str, str], workdir: Path, held: Sequence[int] = ()) -> Outcome:
    """Install, and return the outcome of the installer."""
    command, changed = _prepare(job, environ, workdir)
    if job.installer.kind == "uv":
        command += ["--compile-bytecode"] if job.compile_all else []
    else:
        command += ["--compile" if job.compile_all else "--no-compile"]
    return run(command, changed, job.timeout, held=held)


def preview(job: Job, environ: Mapping[str, str], workdir: Path, fresh: bool) -> tuple[Outcome, dict[str, str]]:
    """Say what an installation would bring, and install nothing.

    Args:
        job: the installation.
        environ: a cleaned environment.
        workdir: an existing folder for what is needed meanwhile.
        fresh: the environment is not there yet, so nothing is in it.

    Returns:
        The outcome of the installer, and the packages that it would install, with their versions.
    """
    command, changed = _prepare(job, environ, workdir)
    command.append("--dry-run")
    report = workdir / "report.json"
    if job.installer.kind == "uv":
        command += ["--target", str(workdir / "nothing")] if fresh else []
    else:
        command += ["--report", str(report), *(["--ignore-installed"] if fresh else [])]
    outcome = run(command, changed, job.timeout)
    if outcome.returncode != 0:
        return outcome, {}
    if job.installer.kind == "uv":
        found = dict(re.findall(r"^ \+ ([^\s=]+)==(\S+)", outcome.output + outcome.error, re.MULTILINE))
    else:
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
        found = {item["metadata"]["name"]: item["metadata"]["version"] for item in items}
    return outcome, {normal_name(name): version for name, version in found.items()}


def uninstall(installer: Installer, python: str, environ: Mapping[str, str], timeout: float) -> Outcome:
    """Take caveclient, and nothing else, out of an environment."""
    if installer.kind == "uv":
        command = [*installer.program, "pip", "uninstall", "--python", python, "caveclient"]
    else:
        command = [python, *installer.program, "uninstall", "--yes", "caveclient"]
    return run(command, installer_environment(installer.kind, Source(), environ), timeout)


def _prepare(job: Job, environ: Mapping[str, str], workdir: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that installs, and its environment."""
    settings = _pip_config.read_pip_settings(environ, environ["HOME"])
    changed = installer_environment(job.installer.kind, job.source, environ)
    requirements, constraints = workdir / "requirements.txt", workdir / "constraints.txt"
    configured = [f"-c {file}" for file in settings.constraints]
    for file, lines in ((requirements, job.requirements), (constraints, (*configured, *job.constraints))):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write("\n".join([*lines, ""]))
    if job.installer.kind == "uv":
        _pip_config.require_neutral_uv(environ, environ["HOME"])
        command = [*job.installer.program, "pip", "install", "--python", job.python]
        command += ["--no-index"] if needs_no_index(job.source, changed, settings) else []
    else:
        # Arguments, since a variable would be split at every space of a folder's name.
        command = [job.python, *job.installer.program, "install"]
        for link in job.source.find_links:
            command += ["--find-links", link]
    return [*command, "-r", str(requirements), "-c", str(constraints)], changed


def make_environment(
    python: Python, place: str, installer: Installer, environ: Mapping[str, str], timeout: float
) -> Outcome:
    """Make a virtual environment without pip: Python alone can, on a Debian without python3-venv too."""
    if python.has_venv:
        return run([python.executable, "-I", "-m", "venv", "--without-pip", place], environ, timeout)
    if installer.kind == "uv":
        return run([*installer.program, "venv", "--python", python.executable, place], environ, timeout)
    return Outcome(1, "", f"{python.executable} has no module venv")
