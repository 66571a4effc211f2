# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a user's secrets files, and the command that mends it: pure functions of what was found."""

from __future__ import annotations

import os.path
import re
import shlex
from typing import Iterable, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _readers, _secrets
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._servers import (
    KNOWN_LOCAL_SERVERS,
    Datastack,
    host_of,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._tokens import clean_token, fingerprint

PROBLEMS = {
    "shadowed": "a file holds another token than the one that is sent, because a file before it is taken",
    "stale": "a program sends another token than the rest, from a file that was left behind",
    "malformed": "a secrets file that no program can read",
    "bom": "a secrets file that begins with a byte order mark",
    "empty": "a secrets file with nothing in it",
    "unreadable": "something that the user's own programs may not read",
    "loose_mode": "a secrets file or its directory that others may read or change",
    "wrong_owner": "a secrets file or its directory that belongs to somebody else",
    "legacy_name": "a token in chunkedgraph-secret.json, which only some programs still take",
    "poisoned_server_map": "a datastack that caveclient would look for on a wrong server",
    "symlink": "a secrets file that is a symbolic link",
    "cloud_volume_dir_split": "CLOUD_VOLUME_DIR leads cloud-volume and cloud-files to another token than caveclient's",
    "known_bad_caveclient": "a caveclient that rewrites secrets files whenever it is used",
    "unexpected_token": "the token that is sent is not the one that was expected",
}
"""Every code of a problem, and what it means."""

_PROVISION = "ansible-playbook connectomics.cave.provision --tags token"
_ADDRESS_SCHEME = re.compile(r"https?://")
FIRST_BAD_CAVECLIENT = (5, 27)
FIRST_GOOD_CAVECLIENT = (6, 4)


class Problem(NamedTuple):
    """One thing that is wrong: a code of ``PROBLEMS``, where, what, and the command to run."""

    code: str
    path: str
    message: str
    remedy: str


class Place(NamedTuple):
    """A directory or file as ``lstat`` has it."""

    path: str
    mode: int
    uid: int
    is_link: bool
    is_directory: bool


class Found(NamedTuple):
    """All that was found for one user."""

    user: str
    uid: int
    where: _readers.Places
    listing: Mapping[str, _secrets.Entry]
    """As the readers see it."""
    places: list[Place]
    """The directories of secrets files and what is in them, as they stand."""
    installed: Mapping[str, str]
    """Site-packages directory -> version of the caveclient in it."""
    managed: str
    """The folder of the managed environments."""


class Asked(NamedTuple):
    """What the question is about."""

    server: str
    datastacks: list[Datastack]
    key: str
    expected: str | None

    @property
    def local_hosts(self) -> list[str]:
        """Hosts of the local servers of the named datastacks, or of all that are known when none is named."""
        addresses = [stack.local_server for stack in self.datastacks if stack.local_server]
        if not self.datastacks:
            addresses = list(KNOWN_LOCAL_SERVERS.get(self.server, {}).values())
        return list(dict.fromkeys(host_of(address) for address in addresses))


def find_problems(found: Found, asked: Asked, readings: list[_readers.Reading]) -> list[Problem]:
    """Return everything that is wrong, the most harmful first.

    Args:
        found: the user's files.
        asked: the server and its datastacks.
        readings: what each reader sends, caveclient first.
    """
    problems = [
        *_broken_files(found),
        *_other_tokens(found, asked, readings),
        *_server_map(found, asked),
        *_places(found),
        *_installed(found),
    ]
    return list(dict.fromkeys(problems))


def _broken_files(found: Found) -> Iterable[Problem]:
    for path, entry in sorted(found.listing.items()):
        name = os.path.basename(path)
        if not (_secrets.is_secrets_file(name) or name == _secrets.SERVER_MAP):
            continue
        quoted, owner = shlex.quote(path), shlex.quote(found.user)
        if entry.problem == "unreadable":
            yield Problem(
                "unreadable",
                path,
                f"{path} {entry.detail}.",
                f"chown {owner} {quoted} && chmod 600 {quoted}",
            )
        elif entry.problem:
            code = entry.problem if entry.problem in ("bom", "empty") else "malformed"
            remedy = f"mv {quoted} {quoted}.malformed"
            if name != _secrets.SERVER_MAP:
                remedy += f", then: {_PROVISION}"
            yield Problem(code, path, f"{path} {entry.detail}.", remedy)


def _other_tokens(found: Found, asked: Asked, readings: list[_readers.Reading]) -> Iterable[Problem]:
    current = readings[0].token
    if asked.expected and current != asked.expected:
        sent = f"the token {_name(current)}" if current else "no token"
        yield Problem(
            "unexpected_token",
            readings[0].path or os.path.join(found.where.caveclient, _secrets.DEFAULT_FILE),
            f"caveclient sends {sent} to {asked.server}; expected is {fingerprint(asked.expected)}.",
            _PROVISION,
        )
    wanted = asked.expected or current
    if isinstance(current, str) and not _is_sound(current):
        yield Problem(
            "malformed",
            readings[0].path or "",
            f"{readings[0].path} has something under {asked.key!r} that cannot be a token.",
            _PROVISION,
        )
    taken = {reading.path for reading in readings if reading.path}
    split = found.where.cloud_volume[0] != found.where.caveclient
    for reading in readings[1:]:
        if reading.problem or reading.token == wanted or (reading.token is None and current is None):
            continue
        sent = f"the token {_name(reading.token)}" if reading.token else "no token"
        place = reading.path or reading.host
        message = f"{reading.reader} sends {sent} to {reading.host} ({place}), and caveclient {_name(current)}."
        if split and (reading.path is None or os.path.dirname(reading.path) != found.where.caveclient):
            elsewhere = os.path.dirname(found.where.cloud_volume[0])
            yield Problem("cloud_volume_dir_split", place, f"CLOUD_VOLUME_DIR is {elsewhere}: {message}", _PROVISION)
        elif reading.token is not None:
            yield Problem("stale", place, message, _PROVISION)
    for path, entry in sorted(found.listing.items()):
        directory, name = os.path.split(path)
        if directory != found.where.caveclient or not _secrets.is_secrets_file(name) or entry.problem:
            continue
        token = entry.get(asked.key)
        if name == _secrets.LEGACY_FILE and token is not None and (path in taken or token != wanted):
            remedy = _PROVISION if path in taken else f"rm {shlex.quote(path)}"
            yield Problem("legacy_name", path, f"{path} holds the token {_name(token)}; some programs take it.", remedy)
        elif path not in taken and token is not None and token != wanted and _concerns(name, asked, found, token):
            yield Problem(
                "shadowed",
                path,
                f"{path} holds the token {_name(token)}, but {readings[0].path or 'no file'} is taken before it.",
                _PROVISION,
            )


def _concerns(name: str, asked: Asked, found: Found, token: object) -> bool:
    """Tell whether a file that no reader takes has to do with this server.

    A server's own file does not, and cave-secret.json does not when another server's own file has the same token.
    """
    if name != _secrets.DEFAULT_FILE:
        return False
    own = {_secrets.server_file(host_of(asked.server)), *map(_secrets.server_file, asked.local_hosts)}
    return not any(
        os.path.basename(path) not in own
        and _secrets.is_server_file(os.path.basename(path))
        and entry.get(asked.key) == token
        for path, entry in found.listing.items()
    )


def _server_map(found: Found, asked: Asked) -> Iterable[Problem]:
    path = os.path.join(found.where.caveclient, _secrets.SERVER_MAP)
    entry = found.listing.get(path)
    if entry is None or entry.text is None:
        return
    named = {stack.name: asked.server for stack in asked.datastacks}
    known = {stack: server for server, stacks in KNOWN_LOCAL_SERVERS.items() for stack in stacks}
    for stack, address in _secrets.values(entry.text).items():
        right = named.get(stack) or known.get(stack)
        if address == right:
            continue
        if right is None and _is_address(address):
            continue  # a server of the lab's own, which is not asked about
        shown = address if isinstance(address, str) and _ADDRESS_SCHEME.match(address) else "something else"
        message = f"caveclient would look for {stack} on {shown}"
        message += f"; it is on {right}." if right else ", which is not the address of a server."
        remedy = _PROVISION if stack in named else f"rm {shlex.quote(path)}"
        yield Problem("poisoned_server_map", path, message, remedy)


def _places(found: Found) -> Iterable[Problem]:
    for place in found.places:
        quoted = shlex.quote(place.path)
        if place.is_link:
            if not place.is_directory:
                target = found.listing.get(place.path)
                remedy = f'cp --remove-destination "$(readlink -f {quoted})" {quoted}' if target else f"rm {quoted}"
                yield Problem("symlink", place.path, f"{place.path} is a symbolic link.", remedy)
            continue
        if place.uid != found.uid:
            message = f"{place.path} belongs to user id {place.uid}, not to {found.user}."
            yield Problem("wrong_owner", place.path, message, f"chown {shlex.quote(found.user)} {quoted}")
        is_map = os.path.basename(place.path) == _secrets.SERVER_MAP
        if place.mode & 0o077 and not is_map:
            right = "700" if place.is_directory else "600"
            message = f"{place.path} has mode {place.mode:04o}, which lets others in."
            yield Problem("loose_mode", place.path, message, f"chmod {right} {quoted}")


def _installed(found: Found) -> Iterable[Problem]:
    for directory, version in sorted(found.installed.items()):
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if FIRST_BAD_CAVECLIENT <= number < FIRST_GOOD_CAVECLIENT:
            message = (
                f"caveclient {version} in {directory} writes secrets files that others can read, at every use."
            )
            if directory.startswith(found.managed + "/"):
                remedy = "ansible-playbook connectomics.cave.provision --tags install -e 'caveclient_version=>=6.4'"
            else:
                remedy = f"{shlex.quote(_python_of(directory))} -m pip install --upgrade 'caveclient>=6.4'"
            yield Problem("known_bad_caveclient", directory, message, remedy)


def _python_of(site_packages: str) -> str:
    """Return the Python that a site-packages directory belongs to; the one on PATH for packages of a user."""
    prefix, _lib, version = os.path.dirname(site_packages).rpartition("/lib/")
    return version if prefix.endswith("/.local") else f"{prefix}/bin/python"


def _name(token: object) -> str:
    return fingerprint(token) if isinstance(token, str) and token else "none"


def _is_sound(token: str) -> bool:
    try:
        return clean_token(token) == token
    except CaveError:
        return False


def _is_address(value: object) -> bool:
    try:
        return server_address(value) == value
    except CaveError:
        return False
