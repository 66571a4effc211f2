# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which file each CAVE program takes, as a pure function of a listing of files.

Source: caveclient 5.4.0 to 8.2.1 (``auth.py``), cloud-volume 12.15.2 and cloud-files 6.4.3 (``secrets.py``).
"""

from __future__ import annotations

import os.path
from typing import Any, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.files import (
    DEFAULT_FILE,
    LEGACY_FILE,
    Entry,
    server_file,
)

Listing = Mapping[str, Entry]
"""Absolute path -> what stands there. A path that is not in it does not exist."""


class Places(NamedTuple):
    """The directories in which the readers of one user look."""

    caveclient: str
    """``~/.cloudvolume/secrets``; no variable but HOME moves it."""
    cloud_volume: tuple[str, ...]
    cloud_files: tuple[str, ...]


class Reading(NamedTuple):
    """What one reader would send to one server."""

    reader: str
    host: str
    path: str | None
    """The file that it takes; None where it finds none."""
    token: Any
    """The value in the file, a string or not; None without one."""
    problem: str | None = None
    """Why it fails on that file (a code of ``files.PROBLEMS``)."""
    detail: str = ""
    """The problem in words, to follow the file's name."""

    @property
    def fingerprint(self) -> str | None:
        """The token's fingerprint, None without a token."""
        return fingerprint(self.token) if isinstance(self.token, str) and self.token else None

    def __str__(self) -> str:
        """Say what is sent, without the token."""
        if self.problem:
            return f"nothing ({self.path} {self.detail})"
        return f"the token {self.fingerprint}" if self.fingerprint else "no token"


def in_words(token: object) -> str:
    """Return how a message names what is under the key of a token: by its fingerprint."""
    if token is None or token == "":
        return "no token"
    return f"the token {fingerprint(token)}" if isinstance(token, str) else "something that is no token"


def places(home: str, cloud_volume_dir: str = "", cloud_files_dir: str = "", secrets_dir: str = "") -> Places:
    """Return where the readers look for a user.

    Args:
        home: the user's home directory.
        cloud_volume_dir: the user's ``CLOUD_VOLUME_DIR``, empty where it is not set.
        cloud_files_dir: the user's ``CLOUD_FILES_DIR``, empty where it is not set.
        secrets_dir: a place of the user's own choice that takes the part of ``~/.cloudvolume/secrets``.
    """
    usual = secrets_dir or os.path.join(home, ".cloudvolume", "secrets")
    preferred = os.path.join(cloud_volume_dir, "secrets") if cloud_volume_dir else usual
    files_dir = os.path.join(cloud_files_dir or os.path.join(home, ".cloudfiles"), "secrets")
    return Places(
        caveclient=usual,
        cloud_volume=(preferred, os.path.join(home, ".neuroglancer", "secrets"), "/secrets"),
        cloud_files=(preferred, "/", files_dir),
    )


def read_by_caveclient(listing: Listing, where: Places, host: str, key: str = "token") -> Reading:
    """Return what caveclient (4.4 or later) sends to the auth server ``host``."""
    path = os.path.join(where.caveclient, server_file(host))
    if path not in listing or not listing[path].is_file:
        path = os.path.join(where.caveclient, DEFAULT_FILE)
    for candidate in (path, os.path.join(where.caveclient, LEGACY_FILE)):
        entry = listing.get(candidate)
        if entry is not None and (entry.problem or entry.get(key) is not None):
            return Reading("caveclient", host, candidate, entry.get(key), entry.problem, entry.detail)
    return Reading("caveclient", host, path if path in listing else None, None)


def read_by_cloud_volume(listing: Listing, where: Places, host: str) -> Reading:
    """Return what cloud-volume sends to the local server ``host``."""
    names = (server_file(host), DEFAULT_FILE, LEGACY_FILE)
    return _first_existing("cloud-volume", listing, where.cloud_volume, names, host)


def read_by_cloud_files(listing: Listing, where: Places, host: str) -> Reading:
    """Return what cloud-files sends to the server ``host``."""
    return _first_existing("cloud-files", listing, where.cloud_files, (server_file(host), DEFAULT_FILE), host)


def read_by_all(
    listing: Listing, where: Places, host: str, local_hosts: list[str], key: str = "token"
) -> list[Reading]:
    """Return what each reader sends to each server that it talks to.

    caveclient talks to the auth server, cloud-volume to the local servers, cloud-files to both. cloud-volume and
    cloud-files know the key ``token`` alone, so under another key only caveclient reads.
    """
    readings = [read_by_caveclient(listing, where, host, key)]
    if key == "token":
        readings += [read_by_cloud_volume(listing, where, other) for other in dict.fromkeys(local_hosts or [host])]
        readings += [read_by_cloud_files(listing, where, other) for other in dict.fromkeys([*local_hosts, host])]
    return readings


def _first_existing(
    reader: str, listing: Listing, directories: tuple[str, ...], names: tuple[str, ...], host: str
) -> Reading:
    for name in names:
        for directory in directories:
            path = os.path.join(directory, name)
            entry = listing.get(path)
            if entry is not None:
                return Reading(reader, host, path, entry.get("token"), entry.problem, entry.detail)
    return Reading(reader, host, None, None)
