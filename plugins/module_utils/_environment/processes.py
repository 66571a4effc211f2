# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting Python and installers: with which environment, for how long, and as whom."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.connectomics.cave.plugins.module_utils import _trust

_LAST_WORDS = 5.0
"""Seconds in which the output of a process that was killed has to end."""
_FURTHER_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
_MISLEADING = re.compile(
    r"PYTHON.*|VIRTUAL_ENV|CONDA_PREFIX|__PYVENV_LAUNCHER__"
    r"|PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|REQUIRE_VIRTUALENV|REQUIREMENT|CONSTRAINT|EDITABLE|DRY_RUN|REPORT|QUIET|LOG)"
    r"|UV_(SYSTEM_PYTHON|PYTHON.*|PROJECT.*|WORKING_DIR|CONSTRAINT|BUILD_CONSTRAINT|OVERRIDE|EXCLUDE|MANAGED_PYTHON|REQUIRE_HASHES"
    r"|BREAK_SYSTEM_PACKAGES|NO_BUILD_ISOLATION|COMPILE_BYTECODE|NO_EDITABLE|RESOLUTION|ENV_FILE)"
)
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  # where there is nothing better; a folder in it has a new name
_PLACES = re.compile(r"LD_.*|TMPDIR|TEMP|TMP|(PIP|UV)_(CACHE_DIR|CONFIG_FILE)|XDG_(\w+_HOME|CONFIG_DIRS)")
"""Variables that name places which installers take code or settings from, also by a relative path."""
_NO_PLACES = ("PATH", "SSH_AUTH_SOCK")
_PERSONAL = re.compile(r"(XDG|SSH|SUDO)_.*|(UV|PIP)_CACHE_DIR|(PIP|UV)_CONFIG_FILE|TMPDIR|KRB5CCNAME|MAIL")


class Outcome(NamedTuple):
    """How a process ended; ``returncode`` is None when it took too long and was ended."""

    returncode: int | None
    output: str
    error: str


def home_directory(environ: Mapping[str, str]) -> str:
    """Return a home directory that belongs to this process's user.

    sudo may leave the caller's HOME to root: a cache there would be written by root and planted by the caller.
    """
    home = environ.get("HOME", "")
    with contextlib.suppress(OSError):
        if home and Path(home).stat().st_uid == os.geteuid() and not _trust.changeable_by_others(home):
            return home
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for installers and for the environments that they fill.

    What would lead another Python's packages in, or the installation elsewhere, is left out; so is, for root, every
    variable that names a place which somebody else can write. Proxies, certificates, caches and indexes stay.
    """
    kept = {name: value for name, value in environ.items() if not _MISLEADING.fullmatch(name)}
    for name in [name for name in kept if name not in _NO_PLACES]:
        is_place = kept[name].startswith("/") or _PLACES.fullmatch(name)
        if kept[name] and is_place and not all(_is_out_of_reach(place, name) for place in kept[name].split(":")):
            del kept[name]
    folders = [*kept.get("PATH", "").split(":"), *_FURTHER_FOLDERS]
    kept["PATH"] = ":".join(dict.fromkeys(folder for folder in folders if _is_out_of_reach(folder)))
    kept.update(HOME=home_directory(environ), PYTHONNOUSERSITE="1", LC_ALL="C.UTF-8")
    return kept


def _is_out_of_reach(place: str, variable: str = "") -> bool:
    """Whether a place is named by an absolute path, and nobody else can write there where root is asking."""
    if not place.startswith("/"):
        return False
    if place == os.devnull:
        return True
    inside = []
    if variable.endswith("_CACHE_DIR"):  # a cache that was open to others once
        with contextlib.suppress(OSError):
            inside = [entry.path for entry in os.scandir(place) if entry.is_dir() or entry.is_symlink()]
    # A folder for temporary files may be open to all, as /tmp is.
    places = [os.path.join(place, "new")] if variable in ("TMPDIR", "TEMP", "TMP") else [place, *inside]
    return not any(_trust.changeable_by_others(path) for path in places)


def private_folder(prefix: str, base: str = "") -> str:
    """Make a folder for this account alone, below ``base`` or the system's folder, where nobody else can replace it."""
    places = [place for place in (base, tempfile.gettempdir(), *_TEMPORARY) if place]
    trusted = (place for place in places if not _trust.changeable_by_others(os.path.join(place, "new")))
    return tempfile.mkdtemp(prefix=prefix, dir=next(trusted, None))


def become(user: pwd.struct_passwd) -> None:
    """Make this process's environment variables those of a user that it has become."""
    for name in [name for name in os.environ if _PERSONAL.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)


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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # Whatever has left the process group may hold the pipes open for ever.
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, errors = process.communicate(timeout=_LAST_WORDS)
            return Outcome(None, output, errors)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
        return Outcome(None, "", "")
    return Outcome(process.returncode, output, errors)


def in_use(folder: Path) -> bool:
    """Return whether a process runs from a folder, as far as Linux tells this account."""
    below = os.fsencode(str(folder)) + b"/"
    for process in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not process.isdigit() or int(process) == os.getpid():
            continue
        for name in ("cmdline", "maps"):
            with contextlib.suppress(OSError), open(f"/proc/{process}/{name}", "rb") as file:
                if below in file.read():
                    return True
    return False
