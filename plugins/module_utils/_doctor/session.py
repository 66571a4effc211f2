# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs in this session from the rest of the computer, and changes what CAVE's programs do."""

from __future__ import annotations

import os
import os.path
from typing import Iterator, Mapping
from urllib.parse import urlsplit

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import clean_text
from ansible_collections.connectomics.cave.plugins.module_utils._masking import looks_like_a_token
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_tokens import NAMES
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import TOKEN_KEYS

_GENERATIONS = 4
"""A kernel, the shell that it starts for a line with !, and the program."""
_LONGEST = 65536
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def notes(environment: Mapping[str, str], home: str, kernel: str = "", managed: str = "") -> list[str]:
    """Return a sentence for each thing in the environment that changes the answer. No value of a token is in it.

    Args:
        environment: the variables of this session.
        home: the home directory that the system knows for this account.
        kernel: the Python of the notebook's kernel that this was started from; empty: none.
        managed: the folder of the lab's environment; empty: there is none.
    """
    found = list(_notes(environment, home))
    own = os.path.dirname(os.path.dirname(kernel))
    if kernel and managed and os.path.realpath(own) != os.path.realpath(managed):
        found.append(
            f"This notebook's kernel runs {kernel}, not the lab's environment in {managed}: its own packages count. "
            "Choose the kernel CAVE for the lab's."
        )
    return found


def kernel_python(process: int) -> str:
    """Return the Python of the notebook's kernel that is among the ancestors of a process; empty without one."""
    for _generation in range(_GENERATIONS):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                words = file.read(_LONGEST).split(b"\0")
            with open(f"/proc/{process}/stat", "rb") as file:
                parent = int(file.read(_LONGEST).rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
        if any(b"ipykernel" in word for word in words[1:]):
            return os.fsdecode(words[0])
        process = parent
    return ""


def _notes(environment: Mapping[str, str], home: str) -> Iterator[str]:
    here = environment.get("HOME", "")
    if here and here.rstrip("/") != home.rstrip("/"):
        yield f"HOME is {clean_text(here)}, not {home}: programs of this session look for the token there."
    folder = environment.get("CLOUD_VOLUME_DIR")
    if folder:
        yield f"CLOUD_VOLUME_DIR is {clean_text(folder)}: cloud-volume and cloud-files look there; caveclient does not."
    for name in sorted(filter(NAMES.fullmatch, environment)):
        value = environment[name]
        if name in TOKEN_KEYS and value and not looks_like_a_token(value):
            package, usual = TOKEN_KEYS[name]
            yield f"{name} is {clean_text(value, limit=60)}: the package {package} takes that key, not {usual}."
        elif value:
            yield f"{name} holds a token: programs such as natverse take it before the secrets files."
    for name in _PROXIES:
        if environment.get(name):
            yield f"{name} sends requests through {_without_password(environment[name])}."
    for name in _CERTIFICATES:
        if environment.get(name):
            yield f"{name} is {clean_text(environment[name])}: certificates are checked with it."
    if environment.get("PYTHONPATH"):
        yield "PYTHONPATH is set: Python may load another caveclient or numpy than the environment's own."


def _without_password(address: str) -> str:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return clean_text(f"{parts.scheme}://{parts.hostname or '?'}{port}")
