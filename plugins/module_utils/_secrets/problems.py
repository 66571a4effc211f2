# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a user's secrets files, and the command that puts it right: pure functions of what was found.

A remedy is one line for a shell. It begins with ``ansible-playbook`` where it runs on the controller, else it runs on
the host.
"""

from __future__ import annotations

import os.path
import re
import stat
from typing import Any, Iterable

from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import Place, TokenQuery, UserFiles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading, in_words
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.remedies import (
    PROVISION,
    Problem,
    as_user,
    beside,
    discard,
    own_copy,
    own_home,
    remove,
    unset_cloud_volume_dir,
    upgrade,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.server_map import server_map_problems
from ansible_collections.connectomics.cave.plugins.module_utils._text import quoted

PROBLEMS = {
    "unexpected_token": "the token that is sent is not the one that was expected",
    "malformed": "a secrets file that no program can read",
    "bom": "a secrets file that begins with a byte order mark",
    "empty": "a secrets file with nothing in it",
    "unreadable": "something that the user's own programs may not read",
    "stale": "a program sends another token than the rest, from a file that was left behind",
    "shadowed": "a file holds another token than the one that is sent, because a file before it is taken",
    "cloud_volume_dir_split": "CLOUD_VOLUME_DIR leads cloud-volume and cloud-files to another token than caveclient's",
    "cloud_volume_dir_unclear": "a startup file of which it is not certain what it sets CLOUD_VOLUME_DIR to",
    "netrc_overrides_token": "a netrc file has a name and password that programs send in the place of the token",
    "env_token": "a startup file puts a token into the environment, from where it comes back when it is dead",
    "ca_bundle": "a startup file names CA certificates with which programs do not reach the server",
    "env_token_key": "a startup file names a key for the token of a package, under which another one is, or none",
    "shadowed_key": "a key that programs do not find, because a file without it is taken before the one that has it",
    "legacy_name": "a token in chunkedgraph-secret.json, which only some programs still take",
    "poisoned_server_map": "a datastack that caveclient would look for on a wrong server",
    "symlink": "a symbolic link in the place of a secrets file or its directory",
    "wrong_owner": "a secrets file or its directory that belongs to somebody else",
    "loose_mode": "a secrets file or its directory that others may read or change",
    "known_bad_caveclient": "a caveclient that rewrites secrets files whenever it is used",
}
"""Every code of a problem, and what it means; the most harmful first."""

_REPLACE = f"{PROVISION} -e caveclient_on_malformed=replace"
FIRST_BAD_CAVECLIENT = (5, 27)
FIRST_GOOD_CAVECLIENT = (6, 4)


def token_problems(files: UserFiles, query: TokenQuery, readings: list[Reading]) -> list[Problem]:
    """Return what is wrong with what is sent to one server.

    Args:
        files: the user's.
        query: the server, its datastacks and the token that should be there.
        readings: what each reader sends, caveclient first.
    """
    problems = [
        *_undue(files, query, readings),
        *_unexpected(files, query, readings[0]),
        *_disagreeing(files, query, readings),
        *_left_behind(files, query, readings),
        *_shadowed_keys(files, query, readings[0]),
        *_of_startup_files(files, query, readings[0]),
    ]
    return [problem for number, problem in enumerate(problems) if problem.path not in _paths(problems[:number])]


def file_problems(files: UserFiles, queries: list[TokenQuery]) -> list[Problem]:
    """Return what is wrong with the user's files and programs, whatever server they are for."""
    return [
        *_of_startup_files(files, queries, None),
        *_broken_files(files, queries),
        *server_map_problems(files, queries),
        *_misplaced(files),
        *_installed(files),
    ]


def _of_startup_files(files: UserFiles, asked: Any, reading: Reading | None) -> Iterable[Problem]:
    """Return what is wrong with startup files: for one query with its reading, or for all queries."""
    if not (files.netrc or files.env_tokens or files.env_keys or files.ca_bundles or files.cloud_volume_dir.doubts):
        return ()
    # Few homes have anything of the kind.
    from ansible_collections.connectomics.cave.plugins.module_utils._secrets import startup_problems as _startup

    if reading is None:
        return _startup.startup_problems_of_user(files, asked)
    return _startup.startup_problems_of_token(files, asked, reading)


def on_read_only_mounts(files: UserFiles, problems: Iterable[Problem]) -> list[Problem]:
    """Return problems with the remedies that are left where nothing can be changed.

    What Kubernetes links in a volume that it fills from a Secret is no problem at all.
    """
    found = []
    for problem in problems:
        place = next(
            (path for path in files.read_only if os.path.dirname(problem.path) == path or problem.path == path), ""
        )
        is_volume = files.read_only.get(place, False)
        if place and is_volume and problem.code != "symlink":
            message = f"{problem.message} {place} is a volume that Kubernetes fills from a Secret: change the Secret."
            found.append(problem._replace(message=message, remedy="kubectl edit secret"))
        elif place and not is_volume:
            message = f"{problem.message} {place} is mounted read-only."
            found.append(problem._replace(message=message, remedy=f"sudo mount -o remount,rw {quoted(place)}"))
        elif not place:
            found.append(problem)
    return found


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems once each, the most harmful first."""
    codes = list(PROBLEMS)
    return sorted(dict.fromkeys(problems), key=lambda problem: codes.index(problem.code))


def _paths(problems: Iterable[Problem]) -> set[str]:
    return {problem.path for problem in problems}


# What is sent ---------------------------------------------------------------------------------------------------------


def _undue(files: UserFiles, query: TokenQuery, readings: list[Reading]) -> Iterable[Problem]:
    """Look for tokens that should be gone."""
    for reading in readings if query.is_absent else ():
        if reading.path and reading.token is not None and not _is_claimed(files, query, reading.token):
            message = f"{reading.reader} sends {in_words(reading.token)} to {reading.host}; none should be there."
            remedy = PROVISION if _is_written(reading.path, files, query) else remove(reading.path, files, query.key)
            yield Problem("unexpected_token", reading.path, message, remedy)


def _unexpected(files: UserFiles, query: TokenQuery, reading: Reading) -> Iterable[Problem]:
    """Compare with what was expected. A file that cannot be read is a problem of its own."""
    path = reading.path or os.path.join(files.where.caveclient, _files.DEFAULT_FILE)
    if reading.problem:
        return
    if reading.token is not None and not _is_sound(reading.token):
        message = f"{path} has something under {query.key!r} that cannot be a token."
        yield Problem("malformed", path, message, PROVISION)
    elif query.expected and reading.token != query.expected:
        message = (
            f"caveclient sends {in_words(reading.token)} to {query.server}; expected is {fingerprint(query.expected)}."
        )
        yield Problem("unexpected_token", path, message, PROVISION)


def _disagreeing(files: UserFiles, query: TokenQuery, readings: list[Reading]) -> Iterable[Problem]:
    """Look for programs that send another token than they should, one problem for each file."""
    current = readings[0].token
    wanted = query.expected or current
    # What caveclient sends and should not is a problem that has been told, whoever else sends it.
    settled = (wanted, current) if current is not None else (wanted,)
    by_path: dict[str, list[Reading]] = {}
    for reading in readings[1:]:
        if not reading.path or reading.problem or reading.token in settled:
            continue
        # Of a local server that nobody named, it isn't known whether the token for another server does harm there.
        if reading.host in query.own_hosts or not _is_claimed(files, query, reading.token):
            by_path.setdefault(reading.path, []).append(reading)
    elsewhere = files.where.cloud_volume[0]
    split = elsewhere != files.where.caveclient
    for path, others in by_path.items():
        who = " and ".join(dict.fromkeys(f"{other.reader} (to {other.host})" for other in others))
        verb = "sends" if len(others) == 1 else "send"
        message = f"{who} {verb} {in_words(others[0].token)} from {path}, and caveclient {in_words(current)}."
        remedy = PROVISION if _is_written(path, files, query) else discard(path, files)
        if split and os.path.dirname(path) == elsewhere:
            if files.owner_there:
                remedy = unset_cloud_volume_dir(files)
            place = os.path.dirname(elsewhere)
            yield Problem("cloud_volume_dir_split", path, f"CLOUD_VOLUME_DIR is {place}: {message}", remedy)
        elif others[0].token is not None:
            yield Problem("stale", path, message, remedy)
    tokenless = [reading for reading in readings[1:] if reading.path is None and not reading.problem]
    if split and tokenless and wanted is not None and not by_path:
        place, found = os.path.dirname(elsewhere), files.cloud_volume_dir
        if files.owner_there:
            message = (
                f"CLOUD_VOLUME_DIR is {place}, which belongs to {files.owner_there}: {tokenless[0].reader} finds no "
                f"token there. Change it in {found.path or 'the file that sets it'}."
            )
            yield Problem("cloud_volume_dir_split", found.path or elsewhere, message, unset_cloud_volume_dir(files))
        else:
            message = f"CLOUD_VOLUME_DIR is {place}, and {tokenless[0].reader} finds no token there."
            yield Problem("cloud_volume_dir_split", elsewhere, message, PROVISION)


def _left_behind(files: UserFiles, query: TokenQuery, readings: list[Reading]) -> Iterable[Problem]:
    """Look for other tokens in the files for all servers, where they wait to be taken one day."""
    taken = {reading.path for reading in readings if reading.path}
    current = readings[0].token
    wanted = query.expected or current
    for name in (_files.LEGACY_FILE, _files.DEFAULT_FILE):
        path = os.path.join(files.where.caveclient, name)
        entry = files.listing.get(path)
        token = entry.get(query.key) if entry is not None else None
        if token is None or (token == wanted and path not in taken):
            continue
        if name == _files.LEGACY_FILE:
            remedy = PROVISION if path in taken else discard(path, files)
            yield Problem(
                "legacy_name", path, f"{path} holds {in_words(token)}; only some programs take that file.", remedy
            )
        elif path not in taken and token != current and not _is_claimed(files, query, token):
            taken_before = f"{readings[0].path} is taken before it" if readings[0].path else "no program takes it"
            yield Problem("shadowed", path, f"{path} holds {in_words(token)}, but {taken_before}.", PROVISION)


def _is_claimed(files: UserFiles, query: TokenQuery, token: object) -> bool:
    """Return whether a token is that of some other server, which its server file proves."""
    holders = {
        _files.canonical(path)
        for path, entry in files.listing.items()
        if _files.is_server_file(os.path.basename(path)) and entry.get(query.key) == token
    }
    return bool(holders) and not holders & query.family


def _is_written(path: str, files: UserFiles, query: TokenQuery) -> bool:
    """Return whether provisioning writes a file: it is one of the set, in one of the two directories."""
    names = {_files.DEFAULT_FILE, *map(_files.server_file, query.own_hosts)}
    return os.path.basename(path) in names and os.path.dirname(path) in (
        files.where.caveclient,
        files.where.cloud_volume[0],
    )


def _shadowed_keys(files: UserFiles, query: TokenQuery, reading: Reading) -> Iterable[Problem]:
    """Look for further keys that people keep in the file for all servers, and that a server's own file hides."""
    own, everybodys = reading.path or "", os.path.join(files.where.caveclient, _files.DEFAULT_FILE)
    if query.is_absent or not _files.is_server_file(os.path.basename(own)):
        return
    texts = {path: entry.text for path, entry in files.listing.items() if entry.text is not None}
    keys = [key for key in _files.hidden_keys(texts, own, query.family) if key != query.key]
    if keys:
        names = ", ".join(map(repr, keys))
        message = f"{everybodys} has {names}, but {own} is taken before it and does not have the same."
        taken, there = _files.values(texts[own]), _files.values(texts[everybodys])
        is_copy = not set(taken) - set(there) and taken.get(query.key) == there.get(query.key)
        yield Problem("shadowed_key", everybodys, message, discard(own, files) if is_copy else PROVISION)


def good_token_kept(problem: Problem, files: UserFiles, query: TokenQuery, reading: Reading) -> Problem:
    """Return a problem with another token's file as it is when the server accepts that token, and not the one sent."""
    winner = reading.path or ""
    entry = files.listing.get(winner)
    message = f"{problem.message} The server accepts this token, and not the one in {winner}."
    if entry is not None and entry.text and set(_files.values(entry.text)) <= {query.key}:
        command = f"install -m {files.mode:o} {quoted(problem.path)} {quoted(winner)}"
        return problem._replace(message=message, remedy=as_user(files, command))
    return problem._replace(message=message, remedy=discard(winner, files))


# Files ----------------------------------------------------------------------------------------------------------------


def _broken_files(files: UserFiles, queries: list[TokenQuery]) -> Iterable[Problem]:
    links = {place.path for place in files.places if place.is_link}
    foreign = {place.path for place in files.places if place.uid != files.uid}
    for path, entry in sorted(files.listing.items()):
        if not entry.problem or path in links or (entry.problem == "unreadable" and path in foreign):
            continue
        word = quoted(path)
        code = entry.problem if entry.problem in ("bom", "empty", "unreadable") else "malformed"
        if files.owner_there and os.path.dirname(path) == files.where.cloud_volume[0]:  # others may use it as it is
            yield Problem(code, path, f"{path} {entry.detail}.", unset_cloud_volume_dir(files))
            continue
        if code == "unreadable":
            yield Problem("unreadable", path, f"{path} {entry.detail}.", beside(files, path, f"chmod 600 {word}"))
            continue
        managed = [one for one in queries if one.is_managed and not one.is_absent]
        is_map = os.path.basename(path) == _files.SERVER_MAP
        if any(one.datastacks if is_map else _is_written(path, files, one) for one in managed):
            remedy = _REPLACE
        else:
            remedy = beside(files, path, f"mv {word} {word}.malformed")
        yield Problem(code, path, f"{path} {entry.detail}.", remedy)


def _misplaced(files: UserFiles) -> Iterable[Problem]:
    for place in files.places:
        word = quoted(place.path)
        if place.kind != "file":
            yield from _wrong_directory(files, place)
        elif place.is_link and place.is_sound:
            command = f'install -m {files.mode:o} "$(readlink -f {word})" {word}'
            yield Problem("symlink", place.path, f"{place.path} is a symbolic link.", as_user(files, command))
        elif place.is_link:
            message = f"{place.path} is a symbolic link that leads to no secrets file."
            yield Problem("symlink", place.path, message, beside(files, place.path, f"rm {word}"))
        elif place.uid != files.uid:
            yield _foreign(files, place)
        else:
            entry = files.listing.get(place.path)
            is_secret = os.path.basename(place.path) != _files.SERVER_MAP and (entry is None or entry.is_file)
            if place.mode & 0o077 & ~files.mode and is_secret:
                yield _loose(files, place, f"chmod {files.mode:o} {word}")
            elif place.has_list and is_secret:
                yield _loose(files, place, f"setfacl -b {word}")


def _wrong_directory(files: UserFiles, place: Place) -> Iterable[Problem]:
    word = quoted(place.path)
    if place.uid != files.uid and place.path != files.where.caveclient and place.kind == "directory":
        return  # CLOUD_VOLUME_DIR may be the lab's, on purpose
    if place.is_link and (place.uid != files.uid or not place.is_sound):
        message = f"{place.path} leads to what is not a directory of {files.user}'s, or opens to nobody."
        yield Problem("symlink", place.path, message, beside(files, place.path, f"rm {word}"))
    elif place.kind == "obstacle":
        message = f"{place.path} is not a directory, where one was expected."
        yield Problem("malformed", place.path, message, as_user(files, f"mv {word} {word}.malformed"))
    elif place.uid != files.uid:
        yield _foreign(files, place)
    elif place.is_outside and place.is_link and place.mode & (0o022 if place.kind == "parent" else 0o077):
        yield _loose(files, place)._replace(remedy=own_copy(files, place))  # others may use it as it is
    elif place.is_outside:
        if place.mode & 0o022 and not place.mode & stat.S_ISVTX:
            above = [other for other in files.places if other.is_link and other.path == os.path.dirname(place.path)]
            yield _loose(files, place)._replace(
                remedy=own_copy(files, above[0]) if above else unset_cloud_volume_dir(files)
            )
    elif place.kind == "parent" and place.mode & 0o022:
        yield _loose(files, place, f"chmod go-w {word}")
    elif place.kind == "directory" and place.mode & 0o077 & ~_directory_mode(files):
        yield _loose(files, place, f"chmod {_directory_mode(files):o} {word}")
    elif place.kind == "directory" and place.has_list:
        yield _loose(files, place, f"setfacl -b {word}")
    elif not place.is_sound:
        message = f"{place.path} has mode {place.mode:04o}, so that programs find no secrets file in it."
        yield Problem("unreadable", place.path, message, as_user(files, f"chmod u+rwx {word}"))


def _directory_mode(files: UserFiles) -> int:
    return 0o750 if files.mode & 0o040 else 0o700


def _foreign(files: UserFiles, place: Place) -> Problem:
    message = f"{place.path} belongs to user id {place.uid}, not to {files.user}."
    if place.uid == files.home_uid != 0:
        message = f"{message} The home {files.home} is theirs as well: {files.user} needs another one."
        return Problem("wrong_owner", place.path, message, own_home(files))
    if place.has_further_names:  # in another folder it may be anything of theirs
        return Problem("wrong_owner", place.path, f"{message} It has further names.", discard(place.path, files))
    command = f"sudo chown -h {quoted(files.user)} {quoted(place.path)}"  # -h: it may have become a link
    return Problem("wrong_owner", place.path, message, command)


def _loose(files: UserFiles, place: Place, command: str = "") -> Problem:
    how = " and an access control list" if place.has_list else ""
    message = f"{place.path} has mode {place.mode:04o}{how}, which lets others in."
    return Problem("loose_mode", place.path, message, as_user(files, command))


# Programs -------------------------------------------------------------------------------------------------------------


def _installed(files: UserFiles) -> Iterable[Problem]:
    for directory, version in sorted(files.installed.items()):
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if FIRST_BAD_CAVECLIENT <= number < FIRST_GOOD_CAVECLIENT:
            message = f"caveclient {version} in {directory} writes secrets files that others can read, at every use."
            yield Problem("known_bad_caveclient", directory, message, upgrade(files, directory))


# Words ----------------------------------------------------------------------------------------------------------------


def _is_sound(token: object) -> bool:
    try:
        return clean_token(token) == token
    except CaveError:
        return False
