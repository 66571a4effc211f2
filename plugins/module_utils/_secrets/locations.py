# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's home: where the readers of that user look for secrets files."""

from __future__ import annotations

import contextlib
import glob
import os
import os.path
import pwd
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import readers as _readers
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.directory import Access
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_paths import (
    CLOUD_FILES_DIR,
    EnvPath,
    env_paths,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import (
    EnvToken,
    env_tokens,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import advice
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_commands import (
    CSH,
    FISH,
    FISH_VARIABLES,
    JSON,
    PAM,
    PLAIN,
    PYTHON,
    SHELL,
    UNIT,
    VARIABLE,
    R,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_files import setting, sourced_in

_CONDAS = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", "conda", ".conda")
_KERNELS = "share/jupyter/kernels/*/kernel.json"
_STARTUP_FILES = {
    # What some programs alone take their variables from comes first: the files of the shells outrank it.
    **{f"{conda}{env}/etc/conda/activate.d/*.sh": SHELL for conda in _CONDAS for env in ("", "/envs/*")},
    **{f"{conda}{env}/conda-meta/state": JSON for conda in _CONDAS for env in ("", "/envs/*")},
    f".local/{_KERNELS}": JSON,
    "Library/Jupyter/kernels/*/kernel.json": JSON,
    ".config/Code/User/settings.json": JSON,
    ".config/VSCodium/User/settings.json": JSON,
    ".vscode-server/data/Machine/settings.json": JSON,
    ".vscode-server/data/User/settings.json": JSON,
    "Library/Application Support/Code/User/settings.json": JSON,
    ".ipython/profile_default/startup/*.py": PYTHON,
    ".ipython/profile_default/ipython_config.py": PYTHON,
    ".jupyter/*_config.py": PYTHON,
    ".env": PLAIN,
    ".envrc": SHELL,
    ".config/systemd/user.conf": UNIT,
    ".config/systemd/user/*.service": UNIT,
    ".config/systemd/user/*.service.d/*.conf": UNIT,
    ".pam_environment": PLAIN,
    ".ssh/environment": PLAIN,
    ".config/environment.d/*.conf": PLAIN,
    ".profile": SHELL,
    ".bash_profile": SHELL,
    ".bash_login": SHELL,
    ".bashrc": SHELL,
    ".bash_aliases": SHELL,
    ".bashrc.d/*": SHELL,
    ".profile.d/*": SHELL,
    ".kshrc": SHELL,
    ".oh-my-zsh/custom/*.zsh": SHELL,
    ".zshenv": SHELL,
    ".zprofile": SHELL,
    ".zshrc": SHELL,
    ".zlogin": SHELL,
    ".config/zsh/.z*": SHELL,
    ".xprofile": SHELL,
    ".xsessionrc": SHELL,
    ".config/plasma-workspace/env/*.sh": SHELL,
    ".login": CSH,
    ".cshrc": CSH,
    ".tcshrc": CSH,
    ".config/fish/conf.d/*.fish": FISH,
    ".config/fish/config.fish": FISH,
    ".config/fish/fish_variables": FISH_VARIABLES,
    ".Renviron": PLAIN,
    ".Rprofile": R,
}
"""Files of a home that may set variables, and their languages."""
_CONDA_FOLDERS = ("*conda3", "*forge", "*forge3", "opt/*conda3", "Library/r-miniconda*", ".local/share/r-miniconda*")
_SITE_PACKAGES = (
    ".local/lib/python3.*/site-packages",
    "Library/Python/3.*/lib/python/site-packages",
    *(f"{conda}/lib/python3.*/site-packages" for conda in _CONDA_FOLDERS),
    *(f"{conda}/envs/*/lib/python3.*/site-packages" for conda in _CONDA_FOLDERS),
    ".conda/envs/*/lib/python3.*/site-packages",
    ".pyenv/versions/*/lib/python3.*/site-packages",
    ".virtualenvs/*/lib/python3.*/site-packages",
    ".venv/lib/python3.*/site-packages",
)
"""Where people's own Pythons keep caveclient, below their homes."""
_R_HOMES = ("/usr/lib/R", "/usr/lib64/R", "/usr/local/lib/R", "/Library/Frameworks/R.framework/Resources")
_SYSTEM_FILES = {
    f"/usr/{_KERNELS}": JSON,
    f"/usr/local/{_KERNELS}": JSON,
    "/etc/ipython/ipython_config.py": PYTHON,
    "/etc/jupyter/*_config.py": PYTHON,
    "/etc/systemd/system.conf": UNIT,
    "/etc/systemd/system.conf.d/*.conf": UNIT,
    "/etc/systemd/user.conf": UNIT,
    "/etc/systemd/user.conf.d/*.conf": UNIT,
    "/etc/environment": PLAIN,
    "/etc/security/pam_env.conf": PAM,
    "/usr/lib/environment.d/*.conf": PLAIN,
    "/etc/environment.d/*.conf": PLAIN,
    "/etc/profile": SHELL,
    "/etc/bashrc": SHELL,
    "/etc/bash.bashrc": SHELL,
    "/etc/zshenv": SHELL,
    "/etc/zprofile": SHELL,
    "/etc/zshrc": SHELL,
    "/etc/zsh/zshenv": SHELL,
    "/etc/zsh/zprofile": SHELL,
    "/etc/zsh/zshrc": SHELL,
    "/etc/csh.cshrc": CSH,
    "/etc/csh.login": CSH,
    "/etc/fish/conf.d/*.fish": FISH,
    "/etc/fish/config.fish": FISH,
    "/etc/profile.d/*.sh": SHELL,
    "/etc/profile.d/*.csh": CSH,
    "/etc/R/Renviron.site": PLAIN,
    "/etc/R/Rprofile.site": R,
    **{f"{home}/etc/Renviron.site": PLAIN for home in _R_HOMES},
    **{f"{home}/etc/Rprofile.site": R for home in _R_HOMES},
}
"""The same for everybody's: of Debian, of Enterprise Linux, of macOS, and of R where it is installed."""
_STARTUP_MAX_BYTES = 262144
_MOST_SOURCED = 20
_LONGEST_PATH = 4000
"""Bytes: with what comes below it, no more than systems take."""


class Doubt(NamedTuple):
    """A startup file of which it is not certain what it makes of CLOUD_VOLUME_DIR."""

    path: str
    line: int
    language: str
    other: str = ""
    """A file that sets it to something else; empty where this one cannot be resolved."""


class CloudVolumeDir(NamedTuple):
    """A user's CLOUD_VOLUME_DIR, as far as it can be known without running anything of the user's."""

    value: str
    """Empty: not set."""
    path: str = ""
    """The file that sets it, empty where no file does."""
    language: str = SHELL
    """Of that file."""
    doubts: tuple[Doubt, ...] = ()


class Home(NamedTuple):
    """The user whose files they are, and how the files should be."""

    name: str
    uid: int
    path: str
    secrets_dir: str = ""
    cloud_volume_dir: str | None = None
    """None: found out from the user's and the host's environment."""
    mode: int = 0o600
    group: int | None = None
    on_malformed: str = "fail"

    @classmethod
    def of(cls, user: pwd.struct_passwd, secrets_dir: str | None, cloud_volume_dir: str | None, **how: Any) -> Home:
        """Return the home of an account, with the places that a module's options name.

        Raises:
            CaveError: one of them is neither absolute nor below the home (``~/``).
        """
        usual = _in_home(secrets_dir or "", user.pw_dir, "secrets_dir")
        elsewhere = None if cloud_volume_dir is None else _in_home(cloud_volume_dir, user.pw_dir, "cloud_volume_dir")
        return cls(user.pw_name, user.pw_uid, user.pw_dir, usual, elsewhere, **how)

    @property
    def directory_access(self) -> Access:
        """Secrets directories are entered by whoever may read the files."""
        return Access(0o750, self.group) if self.mode & 0o040 else Access()

    @contextlib.contextmanager
    def advice(self) -> Iterator[None]:
        """Add to errors about what is denied what helps this user."""
        try:
            yield
        except CaveError as error:
            denied = error.details.pop("denied", "")
            if not denied:
                raise
            found = self.found_cloud_volume_dir()
            remedy = advice(denied, self.path, self.uid, found.value.rstrip("/") or found.value[:1], found.path)
            raise CaveError(f"{error.message} {remedy}", **error.details) from error

    def found_cloud_volume_dir(self) -> CloudVolumeDir:
        """Return the user's CLOUD_VOLUME_DIR; to be called in a process that is the user."""
        if self.cloud_volume_dir is not None:
            return CloudVolumeDir(self.cloud_volume_dir)
        return cloud_volume_dir(self.path, self.name, os.environ)

    def _cloud_files_dir(self) -> str:
        """Return the user's CLOUD_FILES_DIR: of the startup files, unless they do not count, else the task's."""
        named = paths_in_environment(self.path, self.name) if self.cloud_volume_dir is None else []
        values = [found.path for found in named if found.name == CLOUD_FILES_DIR]
        return values[-1] if values else os.environ.get(CLOUD_FILES_DIR, "")

    def places(self) -> _readers.Places:
        """Return where this user's readers look; to be called in a process that is the user."""
        elsewhere = self.found_cloud_volume_dir().value
        where = _readers.places(self.path, elsewhere, self._cloud_files_dir(), self.secrets_dir)
        if elsewhere and _is_same(where.cloud_volume[0], where.caveclient):
            # One directory under two names would be read and written twice.
            where = where._replace(
                cloud_volume=(where.caveclient, *where.cloud_volume[1:]),
                cloud_files=(where.caveclient, *where.cloud_files[1:]),
            )
        return where


def _is_same(one: str, other: str) -> bool:
    """Return whether two paths lead to one place; what cannot be followed, such as /proc/1/root, leads to none."""
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except OSError:
        return False


def _in_home(path: str, home: str, option: str) -> str:
    if path.startswith("~/"):
        path = home + path[1:]
    if path and (not path.startswith("/") or not path.isprintable()):
        raise CaveError(f"{option}: {path!r} is not an absolute path, nor one that begins with ~/.")
    return path.rstrip("/") or path


def cloud_volume_dir(home: str, user: str, environment: Mapping[str, str]) -> CloudVolumeDir:
    """Return the user's ``CLOUD_VOLUME_DIR`` as far as it can be known without running anything of theirs.

    The user's startup files win over the task's environment, and that over ``/etc``.
    """
    known = {"HOME": home, "USER": user, "LOGNAME": user, VARIABLE: ""}
    system = _settings("/", _SYSTEM_FILES, known)
    inherited = environment.get(VARIABLE, "")
    if inherited.startswith("/"):
        system = [(inherited, Doubt("", 0, SHELL))]
    if system:
        known[VARIABLE] = system[-1][0] or ""
    own = _settings(home, _STARTUP_FILES, known)
    found = own or system
    if not found:
        return CloudVolumeDir("")
    certain = [(value, where) for value, where in found if value is not None]
    doubts = [where for value, where in found if value is None]
    value, last = certain[-1] if certain else (known[VARIABLE], Doubt("", 0, SHELL))
    doubts += [where._replace(other=last.path) for other, where in certain if other != value]
    return CloudVolumeDir(value, last.path, last.language, tuple(doubts))


def _settings(folder: str, names: Mapping[str, str], known: Mapping[str, str]) -> list[tuple[str | None, Doubt]]:
    """Return what each startup file that concerns the variable sets it to; None where that is not certain."""
    found = []
    for path, language, is_certain, text in _startup_texts(folder, names, known["HOME"]):
        # /etc/environment is taken word for word.
        result = setting(text, language, {} if path == "/etc/environment" else known)
        if result is not None:
            value = result.value if is_certain else None
            if value and not (
                value.startswith("/") and value.isprintable() and len(os.fsencode(value)) < _LONGEST_PATH
            ):
                value = None
            kind = PLAIN if language in (R, FISH_VARIABLES, PAM, UNIT) else language
            found.append((value, Doubt(path, result.line, kind)))
    return found


def tokens_in_environment(home: str) -> list[EnvToken]:
    """Return the tokens that startup files of a user and of the host put into the environment.

    To be called in a process of the user: what that may not read sets nothing for it.
    """
    texts = [*_startup_texts(home, _STARTUP_FILES, home), *_startup_texts("/", _SYSTEM_FILES, home)]
    by_place: dict[tuple[int, int], tuple[str, str]] = {}
    for path, _language, _is_certain, text in texts:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            by_place.setdefault((status.st_dev, status.st_ino), (path, text))  # Debian's R has links to files in /etc
    return [found for path, text in by_place.values() for found in env_tokens(path, text)]


def paths_in_environment(home: str, user: str) -> list[EnvPath]:
    """Return the paths that startup files of the host and of a user put into the environment, the user's last.

    To be called in a process of the user.
    """
    texts = [*_startup_texts("/", _SYSTEM_FILES, home), *_startup_texts(home, _STARTUP_FILES, home)]
    return [found for path, _language, _is_certain, text in texts for found in env_paths(path, text, home, user)]


def _startup_texts(folder: str, names: Mapping[str, str], home: str) -> Iterator[tuple[str, str, bool, str]]:
    """Yield startup files and what they source: the path, its language, whether it is certain to be read, its text."""
    paths = {path: language for name, language in names.items() for path in _paths(folder, name)}
    files = [(path, language, True) for path, language in paths.items()]
    while files:
        path, language, is_certain = files.pop(0)
        text = _text_of(path)
        yield path, language, is_certain, text
        if language == SHELL and folder != "/":
            others = [(other, sure) for other, sure in sourced_in(text, home) if other not in paths][:_MOST_SOURCED]
            paths.update((other, language) for other, _sure in others)
            files[:0] = [(other, language, is_certain and sure) for other, sure in others]


def _paths(folder: str, name: str) -> list[str]:
    name = name.lstrip("/")
    if "*" not in name:
        return [os.path.join(folder, name)]
    above = os.path.join(folder, name.partition("*")[0].rpartition("/")[0])
    if not os.path.isdir(above):  # most are not there, and to look for them all takes time
        return []
    return sorted(glob.glob(os.path.join(glob.escape(folder), name)))


def _text_of(path: str) -> str:
    """Return the text of a startup file; empty where it cannot be read, or is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hold us up
    except OSError:
        return ""
    try:
        content = os.read(descriptor, _STARTUP_MAX_BYTES + 1)
    except OSError:
        content = b""
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "surrogateescape")


def installed_clients(home: str, managed: str) -> dict[str, str]:
    """Return the versions of caveclient in the managed environment and in the user's own Pythons."""
    patterns = [os.path.join(glob.escape(managed), "current", "lib", "python3.*", "site-packages")]
    patterns += [os.path.join(glob.escape(home), pattern) for pattern in _SITE_PACKAGES]
    found: dict[str, str] = {}
    seen = set()
    for pattern in patterns:
        # conda links lib/python3.1 to lib/python3.11: one installation, named after the folder itself.
        for path in sorted(glob.glob(os.path.join(pattern, "caveclient-*.dist-info")), key=len, reverse=True):
            place = os.path.realpath(path)
            if place not in seen:
                seen.add(place)
                found[os.path.dirname(path)] = os.path.basename(path)[len("caveclient-") : -len(".dist-info")]
    return found
