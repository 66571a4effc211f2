# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which store a run has, and which of its tokens were read from where, so that a new one can take their place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleLookupError

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._similar import did_you_mean
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import tokens_read
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.aws import SecretsManager
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.google import SecretManager
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.openbao import OpenBao
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.password_store import PasswordStore
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.sops import Sops
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.store import Name, Store

STORES: Mapping[str, Callable[[Mapping[str, Any], str], Store]] = {
    "openbao": OpenBao,
    "sops": Sops,
    "pass": PasswordStore,
    "aws": SecretsManager,
    "google": SecretManager,
}
"""The stores, by the ``type`` that ``caveclient_store`` names."""


class UnreadableSecretError(AnsibleLookupError):
    """A token cannot be read from its store. The message is for a person, and has nothing secret."""


class Place(NamedTuple):
    """Where a token is: the store's settings (as JSON), what names it there, and where relative paths begin."""

    store: str
    name: str
    folder: str

    def __repr__(self) -> str:
        """Return it without the settings, in which there may be a password."""
        return f"<{self.name}>"

    def open(self) -> tuple[Store, Name]:
        """Return the store, and what names the token there. Raises CaveError."""
        settings = json.loads(self.store)
        kind = settings.pop("type", None)
        if kind not in STORES:
            raise CaveError(
                f"caveclient_store is of the type {kind!r}.{did_you_mean(str(kind), STORES)} Expected: one of "
                f"{', '.join(STORES)}, or a mapping with that as its type."
            )
        store = STORES[str(kind)](settings, self.folder)
        return store, store.name(self.name)


def place_of(store: Any, name: str, folder: str) -> Place:
    """Return a place. Raises CaveError when no store is given, or something that is none."""
    if not store:
        raise CaveError(
            f"caveclient_store is not set, so nobody knows where {name} is. Set it for all hosts, to one of "
            f"{', '.join(STORES)}."
        )
    settings = store if isinstance(store, Mapping) else {"type": store}
    plain = {str(key): "".join(value) if isinstance(value, str) else value for key, value in settings.items()}
    if not all(value is None or isinstance(value, (str, int, float)) for value in plain.values()):
        raise CaveError("caveclient_store has a list or a mapping inside. Expected: options that are text or numbers.")
    return Place(json.dumps(plain, sort_keys=True), name, folder)


def folder_of(variables: Mapping[str, Any], otherwise: str) -> str:
    """Return the folder in which relative paths begin: the inventory's, also for localhost, which is in none."""
    sources = [Path(str(source)).absolute() for source in variables.get("ansible_inventory_sources") or ()]
    beside = [str(source if source.is_dir() else source.parent) for source in sources if source.exists()]
    return str(Path(str(variables.get("inventory_dir") or next(iter(beside), otherwise))).absolute())


_read: dict[tuple[int, Place], str] = {}
"""What this process has read. A process of a run lives for one task, but for the first one, whose copies they are."""
_afresh: set[int] = set()
"""The processes that do not take what another one has read."""


def read_afresh() -> None:
    """Let this process ask stores for what others have read as well: it has to know what is there now."""
    _afresh.add(os.getpid())


def read_token(place: Place) -> str:
    """Return the token of a place. A store is asked for it once a run. Raises CaveError."""
    mine = (os.getpid(), place)
    if mine not in _read:
        _read[mine] = tokens_read.once(json.dumps(place), partial(_ask_for, place), afresh=os.getpid() in _afresh)
    return _read[mine]


def _ask_for(place: Place) -> str:
    store, name = place.open()
    token = store.read(name)
    if token is None:
        raise CaveError(
            f"{store.where(name)} cannot be read: there is no such secret. Correct the name, or put the token there: "
            f"ansible-playbook connectomics.cave.enroll -e caveclient_enroll_secret={place.name}"
        )
    return token


def write_token(place: Place, token: str, instead_of: Collection[str] | None = None) -> None:
    """Put a token into a place, where the rest of the run finds it; see ``Store.write``. Raises CaveError."""
    store, name = place.open()
    store.write(name, token, instead_of)
    tokens_read.once(json.dumps(place), lambda: token, afresh=True)


def places_read() -> tuple[tuple[Place, str], ...]:
    """Return the places that this process has read, each with the fingerprint of the token there."""
    return tuple((place, fingerprint(token)) for (process, place), token in _read.items() if process == os.getpid())


@contextmanager
def holding_another(places: Iterable[Place], token: str) -> Iterator[None]:
    """Let this process read another token from some places, to see what follows them."""
    read = dict(_read)
    _read.update({(os.getpid(), place): token for place in places})
    try:
        yield
    finally:
        _read.clear()
        _read.update(read)


def told_by_store(error: BaseException | None) -> str:
    """Return what a store said when a template could not be filled in; an empty string when no store was the cause."""
    while error is not None and not isinstance(error, UnreadableSecretError):
        error = error.__cause__ or getattr(error, "orig_exc", None) or error.__context__
    return "" if error is None else str(error)
