# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the new token of a rotation, or take the one that an earlier run made, and store it before anybody uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import token_page
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import VaultFiles
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.lineage import description, replaces
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import Rotation
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.sealed import remember
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.state import State


def with_new_token(state: State, rotation: Rotation, vault: VaultFiles) -> Rotation:
    """Return a rotation with its new token, which is kept then; in check mode, as it was. Raises CaveError."""
    api = state.api(rotation.source)
    kept = state.request.revoke == "never"
    text = description(state.request.name, rotation.source, kept)
    old = [state.values[token] for token in rotation.tokens]
    given = dict.fromkeys((*rotation.tokens, *(item.token for item in rotation.old)))
    stale = [state.values[token] for token in given if token != rotation.new and token in state.values]
    if state.settings.check:
        where = ", ".join(f"{'.'.join(name)} in {path}" for token in old for path, name in vault.writable(token))
        if rotation.action == "make":
            state.tell(rotation, f"A new token would be made to replace {rotation.source}.")
        if where and not state.request.own_store:
            state.tell(rotation, f"It would be kept as {where}.")
        return rotation
    places: list[dict[str, str]] = []
    so_far: list[str] = []

    def keep(value: str) -> None:
        if not state.request.own_store:
            try:
                # What this run has stored before gives way to the token of another run that made one, too.
                places[:] = vault.store([*stale, *so_far], value)
            except CaveError as error:
                raise lost(api.server, text, error.message) from None
        so_far.append(value)

    if rotation.action == "make":
        if not state.request.own_store and not vault.still_holds(stale):
            raise CaveError("No token was made: the variables have changed since this run began. Run again.")
        try:
            made = api.ensure(text, same=lambda found: replaces(found) == rotation.source, keep=keep)
        except CaveError as error:
            if not so_far:
                raise
            if not places:
                raise lost(api.server, text, error.message) from None
            raise CaveError(
                f"The token {fingerprint(so_far[-1])} was made to replace {rotation.source}, and is kept as "
                f"{_named(places)}. No host has it yet: {error.message} "
                "Run the same command again: it continues there.",
                stored=True,
            ) from None
        if made.token is None:
            raise CaveError("No token was made.")
        value, number = made.token.value, made.token.fingerprint
        rotation = replace(rotation, new=number)
        state.tell(rotation, f"The token {number} was made to replace {rotation.source} ({text!r} on the token page).")
        if made.old_token_alive is False:
            left = tuple(item for item in rotation.old if item.token != rotation.source)
            rotation = replace(rotation, old=left, canaries=())
            state.dead.add(rotation.source)
            state.tell(rotation, "The server has killed the old one, so the hosts get the new one at once.")
    else:
        found = next((item for item in api.listing().tokens if item.fingerprint == rotation.new), None)
        if found is None:
            raise CaveError(f"The server does not list the token {rotation.new} any more. Run it again.")
        value, old_ones = found.value, ", ".join(item.token for item in rotation.old)
        state.tell(rotation, f"{rotation.reason} The token {rotation.new} replaces {old_ones}.")
        keep(value)
    # Not before: of two runs that make one at the same time, the other one may have stored it.
    if not (state.request.own_store or places or rotation.new in rotation.tokens):
        why = "somebody has put another one into the place of the old one in the meantime."
        raise lost(api.server, text, why)
    state.values[rotation.new] = value
    state.servers[rotation.new] = api.server
    for token in stale:
        remember(token, value)
    if state.request.own_store and stale:
        state.unstored.add(rotation.tokens)
    elif places:
        state.tell(rotation, f"It is kept as {_named(places)}.")
    return rotation


def lost(server: str, text: str, why: str) -> CaveError:
    """Return what to raise when a token was made and is not stored."""
    return CaveError(
        f"A token was made and could not be stored: {why} It is on the token page, {token_page(server)}, as {text!r}. "
        "The next run takes it from there."
    )


def _named(places: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(f"{item['name']} in {item['path']}" for item in places)
