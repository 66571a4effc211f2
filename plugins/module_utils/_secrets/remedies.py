# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands that put a user's files right: functions of what was found, and of whose the startup files are.

Commands that follow links run as the user (sudo -u), so that no link of the user's misleads root.
"""

from __future__ import annotations

import os.path
import pwd
import re
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import EnvToken
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.environment import Doubt
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import Place, UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.obstacles import owner_of, real_path
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    CSH,
    FISH,
    JSON,
    PYTHON,
    SHELL,
    XONSH,
)
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system
from ansible_collections.connectomics.cave.plugins.module_utils._text import quoted

if TYPE_CHECKING:
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue

_TAKE_AWAY = {
    SHELL: "unset CLOUD_VOLUME_DIR",
    FISH: "set -e CLOUD_VOLUME_DIR",
    CSH: "unsetenv CLOUD_VOLUME_DIR",
}


_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]+")
PROVISION = "ansible-playbook connectomics.cave.provision --tags token"


class Problem(NamedTuple):
    """One thing that is wrong: a code of ``PROBLEMS``, where, what, and the command to run."""

    code: str
    path: str
    message: str
    remedy: str


def as_user(files: UserFiles, command: str) -> str:
    """Return a command to be run as the user; who has no account is named by the user id."""
    name = f"#{files.uid}" if files.user == str(files.uid) else files.user
    return f"sudo -u {quoted(name)} {command}" if files.by_root else command


def _account_of(uid: int) -> str:
    """Return how sudo is told of an account."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def beside(files: UserFiles, path: str, command: str) -> str:
    """Return a command that changes the directory of ``path``: to be run as the user where it is the user's."""
    mine = {place.path for place in files.places if place.kind != "file" and place.uid == files.uid}
    entry = files.listing.get(path)
    is_own = path.startswith(os.path.join(files.home, "")) and entry is not None and entry.uid == files.uid
    return as_user(files, command) if is_own or os.path.dirname(path) in {files.home, *mine} else f"sudo {command}"


def own_copy(files: UserFiles, place: Place) -> str:
    """Return the command that puts a directory of the user's own in the place of a link out of the home."""
    word = quoted(place.path)
    below = "" if place.kind == "directory" else "/secrets"
    script = (
        f"d=$(readlink -f {word}) && rm {word} && mkdir -p -m 700 {word}{below} && "
        f'{{ for f in "$d"{below}/*.json; do [ -O "$f" ] && cp -p "$f" {word}{below}; done; true; }}'
    )
    return beside(files, place.path, f"sh -c {quoted(script)}")


def in_startup_file(files: UserFiles, path: str, command: str) -> str:
    """Return a command that changes a startup file, as its owner. Where others can replace it, it is edited by hand.

    They could put a link there, to a file that is the owner's; ``sudo -e`` follows none.
    """
    from ansible_collections.connectomics.cave.plugins.module_utils._trust import changeable

    owner = owner_of(real_path(path))
    if _is_own(files, path) or owner == files.uid:
        return as_user(files, command)
    if changeable(path, (0, owner)):
        return f"sudo -e {quoted(path)}"
    return f"sudo -u {quoted(_account_of(owner))} {command}" if owner else f"sudo {command}"


def _is_own(files: UserFiles, path: str) -> bool:
    return path.startswith(os.path.join(files.home, ""))


def discard(path: str, files: UserFiles) -> str:
    """Return the command that takes a file out of the readers' way. It is kept: its token may be the good one."""
    word = quoted(path)
    return beside(files, path, f"mv {word} {word}.unused")


def remove(path: str, files: UserFiles, key: str) -> str:
    """Return the command that removes a file whose token should be gone; one with further keys is kept."""
    entry = files.listing.get(path)
    further = entry is not None and entry.text is not None and set(_files.values(entry.text)) - {key}
    return discard(path, files) if further else beside(files, path, f"rm {quoted(path)}")


def unset_cloud_volume_dir(files: UserFiles) -> str:
    """Return the command that takes the variable away, by a last line that leaves all others as they are."""
    found = files.cloud_volume_dir
    if not found.path:
        return "unset CLOUD_VOLUME_DIR"
    if not _is_own(files, found.path) or found.language not in _TAKE_AWAY:
        return _comment_out(files, found.path, found.language)
    line = _TAKE_AWAY[found.language]
    return as_user(files, f"sh -c {quoted(f'echo {line} >> {quoted(found.path)}')}")


def _comment_out(files: UserFiles, path: str, language: str) -> str:
    nothing = ": #" if language in _TAKE_AWAY else "#"  # in a shell, a command has to stay where one was
    script = f"s/^[^#]*CLOUD_VOLUME_DIR/{nothing} &/"
    if language in (JSON, PYTHON, XONSH):  # where nothing may be missing, the variable gets a name that no program has
        script = "s/CLOUD_VOLUME_DIR/CLOUD_VOLUME_UNUSED/g"
    return _edited(files, path, f"-e '{script}'")


def take_from_environment(files: UserFiles, found: EnvToken) -> str:
    """Return the command that takes a token out of a startup file; a line with more than that becomes a comment."""
    script = f"/^[[:alpha:][:space:].(-]*{found.name}[^;&|]*$/d" if found.is_alone else f"s/^[^#]*{found.name}/# &/"
    if found.is_item:  # of JSON or Python, where nothing may be missing
        script = f"s/({found.name}[\"'][]]*[[:space:]]*[:=,][[:space:]]*)([\"'])[^\"']*([\"'])/\\1\\2\\3/"
        return _edited(files, found.path, f"-E -e {quoted(script)}")
    return _edited(files, found.path, f"-e {quoted(script)}")


def name_other_key(files: UserFiles, found: EnvValue, key: str) -> str:
    """Return the command that lets a variable name another key; where that is not to be typed, its line goes."""
    script = f"s/^[^#]*{found.name}/# &/"
    if _PLAIN_KEY.fullmatch(found.value or "") and _PLAIN_KEY.fullmatch(key):
        value = str(found.value).replace(".", "[.]")
        script = f"s/^([^#]*{found.name}[^#]*[^[:alnum:]_.-]){value}($|[^[:alnum:]_.-])/\\1{key}\\2/"
    return _edited(files, found.startup_file, f"-E -e {quoted(script)}")


def name_no_bundle(files: UserFiles, found: EnvValue) -> str:
    """Return the command that renames a variable to what no program knows; in no language does anything go missing."""
    script = f"s/(^|[^[:alnum:]_]){found.name}/\\1UNUSED_{found.name}/g"
    return _edited(files, found.startup_file, f"-E -e {quoted(script)}")


def own_home(files: UserFiles) -> str:
    """Return the command that gives a user another home than that of somebody else, which stays as it is."""
    command = this_system().make_home(quoted(files.user))
    return command if command.startswith("sudo ") else f"sudo {command} NEW_HOME {quoted(files.user)}"


def add_authorities(files: UserFiles, path: str, trusted: str, *, is_own: bool) -> str:
    """Return the command that adds a file of CA certificates to another one.

    Args:
        files: the user's.
        path: of the file to add to, which is the user's own, or which root alone can replace.
        trusted: the file to add.
        is_own: whether it is the user's.
    """
    script = f"{{ echo; cat {quoted(trusted)}; }} >> {quoted(path)}"  # the last line may have no end
    command = f"sh -c {quoted(script)}"
    return as_user(files, command) if is_own else f"sudo {command}"


def _edited(files: UserFiles, path: str, script: str) -> str:
    return in_startup_file(files, path, f"{this_system().edit()} {script} {quoted(path)}")


def rename_netrc_entry(files: UserFiles, path: str, name: str) -> str:
    """Return the command that gives a netrc file's entry for a host, or for all, a name that no server has."""
    machine = f"s/(machine[[:space:]]+{name.replace('.', '[.]')})([[:space:]]|$)/\\1.unused\\2/"
    default = "s/(^[[:space:]]*|[[:space:]])default([[:space:]]+login|[[:space:]]*$)/\\1machine default.unused\\2/"
    command = f"{this_system().edit()} -E -e {quoted(machine)} -e {quoted(default)} {quoted(path)}"
    return _of_netrc(files, path, command)


def recode_netrc(files: UserFiles, path: str) -> str:
    """Return the command that writes a netrc file anew as UTF-8; it keeps its mode and whatever else is in it."""
    word = quoted(path)
    script = f'text=$(iconv -f ISO-8859-1 -t UTF-8 {word}) && printf "%s\\n" "$text" > {word}'
    return _of_netrc(files, path, f"sh -c {quoted(script)}")


def _of_netrc(files: UserFiles, path: str, command: str) -> str:
    return as_user(files, command) if path not in files.named_netrc else in_startup_file(files, path, command)


def decide(files: UserFiles, doubt: Doubt) -> str:
    """Return the command that makes it certain what a startup file sets, by a last line of its own."""
    path = quoted(doubt.path)
    if not _is_own(files, doubt.path) or doubt.language not in _TAKE_AWAY:
        return _comment_out(files, doubt.path, doubt.language)
    value = files.cloud_volume_dir.value
    if doubt.language == SHELL:
        shell = "zsh" if os.path.basename(doubt.path).startswith(".z") else "bash"
        current = f"'{value}'" if doubt.other and "'" not in value else '"${CLOUD_VOLUME_DIR:-$HOME/.cloudvolume}"'
        script = f'printf "\\nexport CLOUD_VOLUME_DIR=%q\\n" {current} >> {path}'
        return as_user(files, f"env HOME={quoted(files.home)} {shell} -ic {quoted(script)}")
    return as_user(files, f"sh -c {quoted(f'echo {_TAKE_AWAY[doubt.language]} >> {path}')}")


def upgrade(files: UserFiles, site_packages: str) -> str:
    """Return the command that brings a caveclient that leaves the files alone."""
    if site_packages.startswith(files.managed + "/"):
        return "ansible-playbook connectomics.cave.provision --tags install -e 'caveclient_version=>=6.4'"
    prefix, _lib, version = os.path.dirname(site_packages).rpartition("/lib/")
    if prefix.endswith("/.local"):
        # Debian's pip refuses users' packages unless told; older ones know no option for it, but ignore the variable.
        command = f"env PIP_BREAK_SYSTEM_PACKAGES=1 {version} -m pip install --user --upgrade 'caveclient>=6.4'"
    else:
        command = f"{quoted(prefix)}/bin/python -m pip install --upgrade 'caveclient>=6.4'"
    return as_user(files, command)
