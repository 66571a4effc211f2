# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the tokens of a rotation are kept: in files of variables, and in the stores that the variables read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint
from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.inventory import VaultFiles
from ansible_collections.connectomics.cave.plugins.plugin_utils._stores.places import Place, write_token
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import VariablePath


class KeptTokens(VaultFiles):
    """The files with variables of a run, and the secrets of stores.

    A place of a store counts for the token that was there when the run began, and for no other one: what is wrong with
    one person's secret is nobody else's trouble.

    Args:
        stored: the places in stores that the variables read, each with the fingerprint of the token there.
        check: whether nothing may be tried that leaves a trace in a store.
        files: the arguments of ``VaultFiles``.
    """

    def __init__(self, stored: Iterable[tuple[Place, str]], check: bool, *files: Any) -> None:
        super().__init__(*files)
        self._check = check
        self._places: dict[str, list[Place]] = {}
        for place, token in stored:
            self._places.setdefault(token, []).append(place)

    def writable(self, token: str) -> list[tuple[str, VariablePath]]:
        """Return the places that hold a token and may be written."""
        return [*super().writable(token), *(_labels(place) for place in self._holding(token))]

    def fixed(self, token: str) -> list[str]:
        """Return the places that hold a token, and cannot be changed, each with the reason."""
        return [*super().fixed(token), *(text for _place, text in self._looked_at(token) if text)]

    def store(self, old: Iterable[str], new: str) -> list[dict[str, str]]:
        """Put ``new`` into all places of the tokens ``old``, read it back from there, and return these places."""
        old = list(old)
        places = [place for token in old for place in self._places.get(fingerprint(token), ())]
        for place in places:
            write_token(place, new, instead_of=old)
        found = [_labels(place) for place in places] or [
            _labels(place) for place in self._places.get(fingerprint(new), ())
        ]
        return [*super().store(old, new), *({"path": path, "name": ".".join(name)} for path, name in found)]

    def _holding(self, token: str) -> list[Place]:
        """Return the places in stores that hold a token now, and may be written."""
        return [place for place, text in self._looked_at(token) if not text]

    def _looked_at(self, token: str) -> list[tuple[Place, str]]:
        """Return the places in stores that hold a token now, each with what is wrong with it."""
        places = self._places.get(fingerprint(token), ())
        found = [(place, self._look_at(place, token)) for place in places]
        return [(place, text) for place, text in found if text is not None]

    def _look_at(self, place: Place, token: str) -> str | None:
        """Return why a place of a token cannot be written, if it cannot; None where another token is by now."""
        try:
            store, name = place.open()
            if store.read(name) != token:
                return None
            store.require_writable(name, self._check)
        except CaveError as error:
            return error.message
        return ""


def _labels(place: Place) -> tuple[str, VariablePath]:
    store, name = place.open()
    return store.label, (str(name),)
