# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a user's startup files and netrc file, which decide what programs send: pure functions."""

from __future__ import annotations

from typing import Iterable, Iterator

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import DEFAULT_SERVER, host_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text
from ansible_collections.connectomics.cave.plugins.module_utils._masking import looks_like_a_token
from ansible_collections.connectomics.cave.plugins.module_utils._secrets import files as _files
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import CHUNKEDGRAPH_SECRET
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import TOKEN_KEYS, EnvValue
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import (
    TokenQuery,
    UserFiles,
    host_named,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import (
    Reading,
    in_words,
    read_by_caveclient,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.remedies import (
    Problem,
    decide,
    name_no_bundle,
    name_other_key,
    recode_netrc,
    rename_netrc_entry,
    take_from_environment,
)


def startup_problems_of_token(files: UserFiles, query: TokenQuery, reading: Reading) -> Iterator[Problem]:
    """Yield what replaces the token that is sent to one server, or will do so one day.

    Args:
        files: the user's.
        query: the server, and the token that should be sent.
        reading: what caveclient sends.
    """
    yield from _replaced_by_netrc(files)
    yield from _in_environment(files, query, reading)


def startup_problems_of_user(files: UserFiles, queries: list[TokenQuery]) -> Iterator[Problem]:
    """Yield what is wrong whatever server it is about: what cannot be known, and keys that lead to other tokens."""
    yield from _undecided(files)
    yield from _keys_in_environment(files, queries)
    if files.listing or any(query.is_managed for query in queries):  # else it has nothing to do with CAVE
        yield from _unusable_bundles(files)


def _replaced_by_netrc(files: UserFiles) -> Iterable[Problem]:
    for host, (path, is_text) in files.netrc.items():
        name = host.rpartition(":")[0] or host
        what = (
            f"has an entry for {name}: programs send its name and password to {host} in the place of the token."
            if is_text
            else "is not UTF-8 text: caveclient and other programs that use requests fail on it (UnicodeDecodeError)."
        )
        named = f" {files.named_netrc[path]} names it with NETRC." if path in files.named_netrc else ""
        remedy = rename_netrc_entry(files, path, name) if is_text else recode_netrc(files, path)
        yield Problem("netrc_overrides_token", path, f"{path} {what}{named}", remedy)
        return  # one entry, one problem


def _in_environment(files: UserFiles, query: TokenQuery, reading: Reading) -> Iterable[Problem]:
    """Look for tokens in startup files. One that a rotation made dead comes back into the secrets files from there."""
    current = query.expected or reading.token
    for found in files.env_tokens:
        known = [query.expected, reading.token, *(entry.get(query.key) for entry in files.listing.values())]
        if query.key != "token" and found.token not in known:
            continue  # told with the usual key
        same = "which caveclient sends as well: the next rotation leaves it behind"
        other = f"and caveclient sends {in_words(current)}"
        is_natverse = found.name == CHUNKEDGRAPH_SECRET
        taken = "R's natverse takes it from there" if is_natverse else "Programs that know the variable send it"
        message = (
            f"{found.path} sets {found.name} in line {found.line} to {in_words(found.token)}, "
            f"{same if found.token == current else other}. {taken}{', and saves it again' if is_natverse else ''}."
        )
        yield Problem("env_token", found.path, message, take_from_environment(files, found))


def _keys_in_environment(files: UserFiles, queries: list[TokenQuery]) -> Iterable[Problem]:
    """Look for variables that make a package look for its token where there is none, or one of another time."""
    for found in files.env_keys:
        package, datastack = TOKEN_KEYS[found.name]
        named = next((query.server for query in queries if datastack in query.names), "")
        host = host_named(named or files.server_map().get(datastack) or DEFAULT_SERVER)
        due = {
            query.key: query.expected or read_by_caveclient(files.listing, files.where, host, query.key).token
            for query in queries
            if not query.is_absent and _is_same(host_of(query.server), host)
        }
        keys = [key for key in (datastack, *due) if due.get(key)]
        if not keys or found.value == "" or looks_like_a_token(found.value or ""):
            continue  # without a value the usual key counts; a token is told as one
        where = f"{found.startup_file} sets {found.name} in line {found.line}"
        if found.value is None:
            message = f"{where}, and only running it tells to what: a key for the token of the package {package}."
        else:
            taken = read_by_caveclient(files.listing, files.where, host, found.value)
            if taken.token in due.values():
                continue
            message = (
                f"{where} to {clean_text(repr(found.value), limit=80)}: there the package {package} looks for the "
                f"token, and finds {in_words(taken.token)}. It should be {in_words(due[keys[0]])}."
            )
        yield Problem("env_token_key", found.startup_file, message, name_other_key(files, found, keys[0]))


def _unusable_bundles(files: UserFiles) -> Iterable[Problem]:
    """Look for CA certificates that are no use: programs fail on them (SSLError), whatever this collection trusts."""
    for found, flaw in files.ca_bundles:
        if flaw:
            message = (
                f"{named_bundle(found)}, which {flaw}: programs that are started with it reach no server by https."
            )
            yield Problem("ca_bundle", found.startup_file, message, name_no_bundle(files, found))


def named_bundle(found: EnvValue) -> str:
    """Return how messages name CA certificates, with what names them."""
    return f"{found.startup_file} sets {found.name} in line {found.line} to {clean_text(found.path)}"


def _is_same(one: str, other: str) -> bool:
    """Return whether two hosts are one, however they are typed."""
    return _files.canonical(_files.server_file(one)) == _files.canonical(_files.server_file(other))


def _undecided(files: UserFiles) -> Iterable[Problem]:
    """Look for startup files of which it is not certain what they make of CLOUD_VOLUME_DIR."""
    for doubt in files.cloud_volume_dir.doubts:
        if doubt.other:
            message = (
                f"{doubt.path} sets CLOUD_VOLUME_DIR in line {doubt.line}, and {doubt.other} sets it to something else."
            )
        else:
            message = (
                f"{doubt.path} sets CLOUD_VOLUME_DIR in line {doubt.line}, and only running it tells to what. "
                "So it is not known where cloud-volume and cloud-files look."
            )
        yield Problem("cloud_volume_dir_unclear", doubt.path, message, decide(files, doubt))
