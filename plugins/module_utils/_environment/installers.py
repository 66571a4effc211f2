# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""uv and pip: finding them, running them, and saying in a sentence why they failed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils._environment import pip_config as _pip_config
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

OLDEST_PYTHON = (3, 9)
"""The oldest Python of a current caveclient."""
NEWEST_FOR_OLDER_PYTHON = (7, 3, 1)
"""The newest caveclient that installs on an older Python: an index gives it there without a word."""
_OUTPUT_KEPT = 20000
"""Characters of an installer's output that are returned: its end, which says what went wrong."""
_PROBE_PATIENCE = 60.0
_FURTHER_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")


class Outcome(NamedTuple):
    """How a process ended; ``returncode`` is None when it took too long and was ended."""

    returncode: int | None
    output: str
    error: str


class Python(NamedTuple):
    """A Python of this host."""

    executable: str
    version: str
    """As in 3.11.2."""
    base: str
    """The program behind it, with links resolved."""
    has_venv: bool
    lacks_distutils: bool
    """A Python before 3.10 from whose distribution distutils was split off, as Debian did: uv refuses it."""
    is_venv: bool
    externally_managed: bool
    has_pip: bool
    pips: tuple[str, ...]
    """Folders and wheels below which a pip is found that an environment without one can run."""
    site_packages: str

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of the version."""
        return numbers(self.version)[:2]


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


class Brought(NamedTuple):
    """What the action plugin has put on the host for one run; paths, or empty."""

    uv: str = ""
    pip: str = ""
    wheels: str = ""


class Source(NamedTuple):
    """Where packages come from."""

    index_url: str = ""
    find_links: tuple[str, ...] = ()
    offline: bool = False


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (8, 2, 1) for 8.2.1rc1."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


# --- Processes ---


def home_directory(environ: Mapping[str, str]) -> str:
    """Return a home directory that belongs to this process's user.

    sudo may leave the caller's HOME to root: a cache there would be written by root and planted by the caller.
    """
    home = environ.get("HOME", "")
    with contextlib.suppress(OSError):
        if home and Path(home).stat().st_uid == os.geteuid():
            return home
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


_MISLEADING = re.compile(
    r"PYTHON.*|VIRTUAL_ENV|CONDA_PREFIX|__PYVENV_LAUNCHER__"
    r"|PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|REQUIRE_VIRTUALENV|REQUIREMENT|CONSTRAINT|EDITABLE|DRY_RUN|REPORT|QUIET|LOG)"
    r"|UV_(SYSTEM_PYTHON|PYTHON.*|PROJECT.*|WORKING_DIR|CONSTRAINT|OVERRIDE|EXCLUDE|MANAGED_PYTHON|REQUIRE_HASHES"
    r"|BREAK_SYSTEM_PACKAGES|NO_BUILD_ISOLATION|COMPILE_BYTECODE|NO_EDITABLE|RESOLUTION|ENV_FILE)"
)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for installers and for the environments that they fill.

    What would lead another Python's packages in, or the installation elsewhere, is left out; proxies, certificates,
    caches and indexes stay.
    """
    kept = {name: value for name, value in environ.items() if not _MISLEADING.fullmatch(name)}
    folders = [folder for folder in kept.get("PATH", "").split(":") if folder]
    kept["PATH"] = ":".join([*folders, *(folder for folder in _FURTHER_FOLDERS if folder not in folders)])
    kept.update(HOME=home_directory(environ), PYTHONNOUSERSITE="1", LC_ALL="C.UTF-8")
    return kept


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout: float,
    text: str = "",
    held: Sequence[int] = (),
) -> Outcome:
    """Run a program in the root folder, away from any file that it might take for its configuration.

    Args:
        command: the program and its arguments.
        environ: all of its environment.
        timeout: seconds after which it is ended, with all that it started.
        text: its standard input.
        held: descriptors that it keeps open: a lock stays locked for as long as it lives, even when we are killed.
    """
    try:
        # run_command of AnsibleModule has no time limit, and there is no module here.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # see above
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(environ),
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(held),
        )
    except OSError as error:
        return Outcome(126, "", f"{command[0]}: {error.strerror}")
    try:
        output, errors = process.communicate(text, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return Outcome(None, output, errors)
    return Outcome(process.returncode, output, errors)


# --- Pythons ---

_PROBE = r"""
import glob, json, os, sys, sysconfig
from importlib.util import find_spec
def folder(name):
    spec = find_spec(name)
    return os.path.dirname(spec.origin) if spec and spec.origin else ""
ensurepip, pip, wheels = folder("ensurepip"), folder("pip"), sysconfig.get_config_var("WHEEL_PKG_DIR")
places = [ensurepip and os.path.join(ensurepip, "_bundled"), wheels]
places += ["/usr/share/python-wheels"] if sys.base_prefix == "/usr" else []  # of Debian, for its own Python
found = [wheel for place in places if place
         for wheel in sorted(glob.glob(os.path.join(place, "pip-*.whl")), reverse=True)]
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "base": os.path.realpath(sys.executable),
    "has_venv": bool(find_spec("venv")),
    "lacks_distutils": sys.version_info < (3, 10) and not find_spec("distutils.command"),
    "is_venv": sys.prefix != sys.base_prefix,
    "externally_managed": os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")),
    "has_pip": bool(pip),
    "pips": ([pip] if pip else []) + found,
    "site_packages": sysconfig.get_path("purelib"),
}))
"""


def probe(executable: str) -> Python | None:
    """Ask a Python what it is; None when it does not run."""
    outcome = run([executable, "-I", "-c", _PROBE], clean_environment(os.environ), _PROBE_PATIENCE)
    try:
        answer = json.loads(outcome.output)
        return Python(executable=executable, pips=tuple(answer.pop("pips")), **answer)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def installs_on(python: tuple[int, ...], exact_version: str) -> bool:
    """Tell whether a caveclient that was meant installs on a Python (its first two numbers).

    An old release on an old Python is only what was meant when it was asked for by its exact version.
    """
    return python >= OLDEST_PYTHON or bool(exact_version and numbers(exact_version)[:3] <= NEWEST_FOR_OLDER_PYTHON)


def choose_python(wanted: str, exact_version: str) -> Python:
    """Return the Python to make an environment with.

    Args:
        wanted: a path, a version such as 3.11, or empty: the one that runs this, or else the newest of the host.
        exact_version: the caveclient that was asked for, where an exact one was.

    Raises:
        CaveError: there is no such Python here, or it is too old.
    """
    if "/" in wanted:
        python = probe(wanted)
        if not python:
            raise CaveError(f"python: {wanted} is not a Python that runs on this host.")
    elif wanted:
        names = [f"python{'.'.join(wanted.split('.')[:2])}", "python3", sys.executable]
        python = _first_python(names, lambda python: (python.version + ".").startswith(wanted + "."))
        if not python:
            raise CaveError(
                f"This host has no Python {wanted} on its PATH. Install it (on Debian and Ubuntu: apt-get install "
                f"python{wanted}), or give the path of one with the option 'python'."
            )
    else:
        own = sys.version_info[:2]
        names = [sys.executable] if installs_on(own, exact_version) else _newest_first()
        python = _first_python(names, lambda python: installs_on(python.release, exact_version))
        if not python:
            raise _too_old(
                f"this host's Python is {own[0]}.{own[1]}, and it has no newer one on its PATH", exact_version
            )
    if not installs_on(python.release, exact_version):
        raise _too_old(f"{python.executable} is Python {python.version}", exact_version)
    return python


def _newest_first() -> list[str]:
    return [f"python3.{minor}" for minor in range(40, OLDEST_PYTHON[1] - 1, -1)]


def _first_python(names: Iterable[str], suits: Any) -> Python | None:
    path = clean_environment(os.environ)["PATH"]
    for name in names:
        executable = shutil.which(name, path=path)
        python = probe(executable) if executable else None
        if python and suits(python):
            return python
    return None


def _too_old(found: str, exact_version: str) -> CaveError:
    if exact_version:
        reason = f"caveclient {exact_version} needs Python 3.9 or later"
    else:
        reason = "caveclient needs Python 3.9 or later (an older one would get caveclient 7.3.1 without a word)"
    return CaveError(
        f"{reason}; {found}. Install a newer Python and name it with the option 'python', or ask for an exact version "
        "that is 7.3.1 or older."
    )


# --- Finding an installer ---


def find_uv(environ: Mapping[str, str]) -> str:
    """Return the path of the uv of this host; empty where it has none."""
    folders = [environ["PATH"], str(Path(environ["HOME"], ".local", "bin"))]
    return shutil.which("uv", path=":".join(folders)) or ""


def missing_tools(kind: str, python: Python, environ: Mapping[str, str]) -> list[str]:
    """Return what would have to be brought to this host, best first, for ``kind`` (auto, uv or pip); empty: nothing."""
    if python.lacks_distutils and kind == "auto":
        kind = "pip"
    has_uv, has_pip = bool(find_uv(environ)), bool(python.has_pip or python.pips)
    if (kind != "pip" and has_uv) or (kind != "uv" and has_pip):
        return []
    return ["uv", "pip"] if kind == "auto" else [kind]


def host_facts(python: Python) -> dict[str, str]:
    """Return what the controller has to know to choose programs and wheels for this host."""
    libc = platform.libc_ver()[0]
    if not libc and any(Path("/lib").glob("ld-musl-*")):
        libc = "musl"
    return {"system": platform.system(), "machine": platform.machine(), "libc": libc, "python": python.version}


def choose_installer(
    kind: str, python: Python, brought: Brought, environ: Mapping[str, str], workdir: Path, into_existing: bool
) -> Installer:
    """Return the first installer that runs: uv before pip, and what the host has before what was brought.

    Args:
        kind: auto, uv or pip.
        python: for pip, the Python that is to run it.
        brought: what the action plugin has put here.
        environ: the environment to run it in.
        workdir: a folder for links that are needed for the installation alone.
        into_existing: the environment is somebody's, and its own pip is to be used when it has one.

    Raises:
        CaveError: there is none; its detail ``needs`` says what would help.
    """
    reasons = []
    if python.lacks_distutils and kind == "auto":
        kind = "pip"
    if kind in ("auto", "uv"):
        for program in filter(None, (find_uv(environ), brought.uv)):
            outcome = run([program, "--version"], environ, _PROBE_PATIENCE)
            if outcome.returncode == 0:
                return Installer("uv", _version_in(outcome.output), (program,))
            reasons.append(f"{program} does not run here ({last_line(outcome.error) or 'it says nothing'})")
    if kind in ("auto", "pip"):
        for program_of_pip in _pips(python, brought, workdir, into_existing):
            outcome = run([python.executable, *program_of_pip, "--version"], environ, _PROBE_PATIENCE)
            if outcome.returncode == 0:
                return Installer("pip", _version_in(outcome.output), program_of_pip)
            reasons.append(f"{program_of_pip[-1]} does not run here ({last_line(outcome.error)})")
    found = "This host has neither uv nor pip" if kind == "auto" else f"This host has no {kind}"
    if reasons:
        found += " that works: " + "; ".join(reasons)
    remedy = " Install one here (on Debian and Ubuntu: apt-get install python3-venv), or uv on the controller."
    needs = [tool for tool in ("uv", "pip") if kind in ("auto", tool) and not getattr(brought, tool)]
    raise CaveError(found + "." + remedy, needs=needs)


def _pips(python: Python, brought: Brought, workdir: Path, into_existing: bool) -> list[tuple[str, ...]]:
    if into_existing and python.has_pip:
        return [("-m", "pip")]
    found: list[tuple[str, ...]] = []
    for number, place in enumerate(python.pips):
        if place.endswith(".whl"):
            found.append(_wheel_of_pip(place, python))
        else:
            # Through a link in a folder of its own, pip sees nothing of what else is installed beside it.
            alone = workdir / f"pip-{number}"
            alone.mkdir()
            (alone / "pip").symlink_to(place)
            found.append((str(alone / "pip"),))
    return [*found, _wheel_of_pip(brought.pip, python)] if brought.pip else found


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
    changed = dict(environ)
    settings = _pip_config.read_pip_settings(environ, environ["HOME"])
    if kind == "pip":
        changed.update(PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore")
        changed.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_RETRIES=environ.get("PIP_RETRIES", "2"))
        if changed["PIP_RETRIES"] == "0":
            changed["PIP_RETRIES"] = "1"  # of a first failure pip says nothing, and then that there is no such package
        if source.index_url or source.offline:
            # Nothing but this removes an extra index that a configuration file names.
            changed["PIP_CONFIG_FILE"] = os.devnull
            for name in ("PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_INDEX_URL", "PIP_FIND_LINKS"):
                changed.pop(name, None)
            further = {
                "PIP_CERT": settings.cert,
                "PIP_CLIENT_CERT": settings.client_cert,
                "PIP_PROXY": settings.proxy,
                "PIP_TRUSTED_HOST": " ".join(settings.trusted_hosts),
                "PIP_FIND_LINKS": " ".join(_local(settings.find_links) if source.offline else settings.find_links),
                "PIP_NO_INDEX": "1" if source.offline else "",
                "PIP_INDEX_URL": "" if source.offline else source.index_url,
            }
            changed.update((name, value) for name, value in further.items() if value)
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
            configured.pop(name, None)
            changed.pop(name, None)
    changed.update(configured)
    if source.index_url:
        changed["UV_DEFAULT_INDEX"] = source.index_url
    links = [link for link in changed.get("UV_FIND_LINKS", "").split(",") if link]
    if source.offline:
        links = _local(links)
        changed["UV_OFFLINE"] = "1"
    changed["UV_FIND_LINKS"] = ",".join(
        [*source.find_links, *(link for link in links if link not in source.find_links)]
    )
    if (
        not os.access(environ["HOME"], os.W_OK)
        and not environ.get("UV_CACHE_DIR")
        and not environ.get("XDG_CACHE_HOME")
    ):
        changed["UV_NO_CACHE"] = "1"
    return changed


def needs_no_index(source: Source, environ: Mapping[str, str]) -> bool:
    """Tell whether uv has to be told to use no index at all; for pip, a variable says it.

    When offline without a folder of wheels, uv keeps to what its cache knows of an index.

    Args:
        source: what the user asked for.
        environ: as installer_environment returns it for uv.
    """
    if source.offline:
        return bool(environ.get("UV_FIND_LINKS"))
    if source.index_url or _pip_config.has_own_uv_settings(os.environ, environ["HOME"]):
        return False
    return _pip_config.read_pip_settings(environ, environ["HOME"]).no_index


def _local(links: Iterable[str]) -> list[str]:
    return [link for link in links if "://" not in link or link.startswith("file://")]


def _has_certificates() -> bool:
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return True
    bundles = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    return any(Path(bundle).is_file() for bundle in bundles)


def install(job: Job, environ: Mapping[str, str], workdir: Path, held: Sequence[int] = ()) -> Outcome:
    """Install; returns the outcome of the installer, whatever it is."""
    environ = installer_environment(job.installer.kind, job.source, environ)
    command = _command(job, environ, workdir)
    if job.installer.kind == "uv":
        command += ["--compile-bytecode"] if job.compile_all else []
    else:
        command += ["--compile" if job.compile_all else "--no-compile"]
    return run(command, environ, job.timeout, held=held)


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
    environ = installer_environment(job.installer.kind, job.source, environ)
    command = [*_command(job, environ, workdir), "--dry-run"]
    report = workdir / "report.json"
    if job.installer.kind == "uv":
        command += ["--target", str(workdir / "nothing")] if fresh else []
    else:
        command += ["--report", str(report), *(["--ignore-installed"] if fresh else [])]
    outcome = run(command, environ, job.timeout)
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


def _command(job: Job, environ: Mapping[str, str], workdir: Path) -> list[str]:
    requirements, constraints = workdir / "requirements.txt", workdir / "constraints.txt"
    requirements.write_text("\n".join([*job.requirements, ""]), encoding="utf-8")
    constraints.write_text("\n".join([*job.constraints, ""]), encoding="utf-8")
    if job.installer.kind == "uv":
        command = [*job.installer.program, "pip", "install", "--python", job.python]
        command += ["--no-index"] if needs_no_index(job.source, environ) else []
    else:
        # Arguments, since a variable would be split at every space of a folder's name.
        command = [job.python, *job.installer.program, "install"]
        for link in job.source.find_links:
            command += ["--find-links", link]
    return [*command, "-r", str(requirements), "-c", str(constraints)]


def make_environment(python: Python, place: str, installer: Installer, environ: Mapping[str, str]) -> Outcome:
    """Make a virtual environment without pip: Python alone can, on a Debian without python3-venv too."""
    if python.has_venv:
        return run([python.executable, "-I", "-m", "venv", "--without-pip", place], environ, _PROBE_PATIENCE * 5)
    if installer.kind == "uv":
        return run([*installer.program, "venv", "--python", python.executable, place], environ, _PROBE_PATIENCE * 5)
    return Outcome(1, "", f"{python.executable} has no module venv")


# --- Saying why ---


def normal_name(name: str) -> str:
    """Return the name of a package as all tools compare it (https://packaging.python.org/specifications/name-normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def mask_credentials(text: str) -> str:
    """Return a text with user name and password taken out of every URL in it."""
    return re.sub(r"(\w://)[^/\s@'\"]+@", r"\1********@", text)


def last_line(text: str) -> str:
    """Return the last line that is not empty, masked, and short enough for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return mask_credentials(lines[-1])[:300] if lines else ""


_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|os error 28|Errno 28|Disk quota exceeded|os error 122|Errno 122",
        "the disk is full",
        "Free some space (a build takes about 0.5 GB, the download as much again).",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|invalid peer certificate|UnknownIssuer"
        r"|SSLCertVerificationError",
        "the certificate of {index} is not trusted here",
        "Add the certificate authority to this host's store, or name its file as 'cert' in /etc/pip.conf.",
    ),
    (
        r"\b(401 Unauthorized|403 Forbidden|401 Client Error|403 Client Error|407 Proxy)",
        "{index} (or the proxy before it) refuses the credentials",
        "Correct the user name and password in index_url, in /etc/pip.conf or in the proxy's address.",
    ),
    (
        r"NewConnectionError|Max retries exceeded|ConnectTimeout|ReadTimeout|Connection refused|Network is unreachable"
        r"|Name or service not known|Temporary failure in name resolution|dns error|tcp connect error|Failed to fetch"
        r"|error sending request|operation timed out|No route to host|Connection reset|ProxyError|Could not fetch URL",
        "{index} cannot be reached from here",
        "Check the network, the proxy and index_url; without a way to an index, give a folder of wheels with "
        "find_links and offline: true.",
    ),
    (
        r"Network connectivity is disabled|network was disabled",
        "offline is set, and not all that is needed is on this host",
        "Add what is missing to the folder that find_links names (pip download caveclient), or set offline: false.",
    ),
    (
        r"current Python version \(.*\) does not satisfy|requires a different Python|Requires-Python",
        "the packages that were asked for have no release for this Python",
        "Choose another Python with the option 'python', or another version.",
    ),
    (
        r"no wheels with a matching|has no wheels|no wheels are (usable|available)|not a supported wheel",
        "there is no wheel for this Python or this kind of machine",
        "Choose another Python with the option 'python' (3.9 to 3.13 have all wheels), or another version.",
    ),
    (
        r"Failed to build|metadata-generation-failed|subprocess-exited-with-error|Failed building|build backend",
        "a package had no wheel for this Python, and its source could not be built",
        "Choose another Python with the option 'python' (3.9 to 3.13 have all wheels), or install a compiler.",
    ),
    (
        r"externally[- ]managed",
        "this Python belongs to the operating system",
        "Use a managed environment (the option 'path'), or give the Python of a virtual environment.",
    ),
    (
        r"requirement caveclient\S* \(from versions: none\)",
        "{source} has no caveclient at all, or does not answer",
        "Check index_url, find_links, the proxy and the network.",
    ),
    (
        r"there is no version of caveclient|No matching distribution found for caveclient\b"
        r"|only caveclient.* (is|are) available",
        "{source} has no such version of caveclient",
        "Correct the version; a folder of wheels has to hold it.",
    ),
    (
        r"was not found in the (package registry|provided package locations)|No matching distribution found"
        r"|no versions? of",
        "{source} lacks a package that is needed",
        "Correct its name and version, or add its wheel to the folder that find_links names.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies|No solution found",
        "what was asked for contradicts itself",
        "Loosen version, packages or constraints.",
    ),
    (r"Permission denied|os error 13|Errno 13", "a file may not be written", "Run the task with become: true."),
    (r"Read-only file system|os error 30|Errno 30", "the file system is mounted read-only", "Choose another path."),
)


def explain(outcome: Outcome, source: Source, doing: str, seconds: float) -> CaveError:
    """Turn the failure of an installer into what a person needs: cause, what the tool itself says, remedy.

    Args:
        outcome: how it ended.
        source: where packages were to come from.
        doing: what was attempted, as in "install caveclient 8.2.1 with uv".
        seconds: the time it was given.
    """
    output = mask_credentials(outcome.output + outcome.error)
    details = {"installer_output": output[-_OUTPUT_KEPT:]}
    if outcome.returncode is None:
        cause = f"it took more than {seconds:.0f} seconds"
        return CaveError(f"Could not {doing}: {cause}. Check the network, or raise the timeout.", **details)
    if outcome.returncode == -signal.SIGKILL:
        cause = "it was killed, probably for lack of memory"
        return CaveError(f"Could not {doing}: {cause}. Free some memory and run this again.", **details)
    for pattern, cause, remedy in _CAUSES:
        match = re.search(pattern, output, re.IGNORECASE)
        if match:
            said = _line_around(output, match.start())
            where = {"index": _index_named_in(output, source), "source": _source_of(source)}
            return CaveError(f"Could not {doing}: {cause.format(**where)}. {remedy} It said: {said}", **details)
    return CaveError(f"Could not {doing}. It said: {last_line(output) or 'nothing at all'}", **details)


def _line_around(text: str, position: int) -> str:
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    line = text[start : end if end >= 0 else len(text)].strip()
    if len(line) <= 300:
        return line
    middle = position - start
    return "…" + line[max(0, middle - 100) : middle + 200].strip() + "…"


def _index_named_in(output: str, source: Source) -> str:
    if source.index_url:
        host = _pip_config.host_of_index(source.index_url)
    else:
        found = re.search(
            r"(?:Failed to fetch|for url|error sending request for url)\W+https?://([^/\s`'\")]+)", output
        )
        host = found.group(1).rpartition("@")[2] if found else None
    return f"the package index at {host}" if host else "the package index"


def _source_of(source: Source) -> str:
    if source.offline:
        return "the folder of wheels"
    return _index_named_in("", source)
