# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service remembers of the auth server's word, and what it decides by it (middle_auth_client)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import AuthDownError, MissingPermissionError, NotFoundError, TermsOwedError, UnknownNameError

if TYPE_CHECKING:
    from .world import World

REASK_LIMIT = 20
REASK_WINDOW = 300.0
MAPPING_SECONDS = 300.0


class Memory:
    """The memory of one service's process.

    Args:
        world: the auth server.
        service: the service's name.
        cache_ttl: seconds for which a token is remembered.
    """

    def __init__(self, world: World, service: str, cache_ttl: float) -> None:
        self.cache_ttl = cache_ttl
        self.service = service
        self._world = world
        self._people: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._datasets: dict[tuple[str, str], tuple[float, str]] = {}
        self._asked: dict[str, int] = {}
        self._window = world.now()

    def who(self, token: str) -> dict[str, Any] | None:
        """Return what is known of a token's owner, or None: refused. Both are remembered from their first sight.

        While the auth server hiccups (``World.auth_hiccup``) its answer is taken for a refusal, as the real one does.

        Raises:
            AuthDownError: it isn't remembered and the auth server is down.
        """
        now = self._world.now()
        end, description = self._people.get(token, (now, None))
        if end > now:
            return description
        if self._world.auth_down:
            raise AuthDownError
        person = None if self._world.auth_hiccup else self._world.authenticate(token)
        status = self._world.auth_hiccup or (200 if person else 401)
        self._world.note_internal("/auth/api/v1/user/cache", token, status)
        description = self._world.describe(person) if person else None
        self._people[token] = (now + self.cache_ttl, description)
        return description

    def permit(self, token: str, description: dict[str, Any], namespace: str, name: str) -> None:
        """Let the owner of ``token``, whom `who` described, view what is called ``name`` in a namespace.

        Missing permission is looked up anew, a few times, so that what was just granted holds at once.

        Raises:
            UnknownNameError, TermsOwedError, MissingPermissionError, AuthDownError.
        """
        dataset = self.dataset(namespace, name)
        if not may_view(description, dataset):
            description = self._ask_again(token) or description
        if not may_view(description, dataset):
            for terms in description["missing_tos"]:
                if terms["dataset_name"] == dataset and may_view(description, dataset, owing=True):
                    raise TermsOwedError(terms)
            raise MissingPermissionError(dataset)

    def dataset(self, namespace: str, name: str) -> str:
        """Return the dataset that the auth server maps a name to, which is remembered.

        Raises:
            UnknownNameError: it maps it to none, or does not answer this service, whose own token is dead.
        """
        now = self._world.now()
        end, dataset = self._datasets.get((namespace, name), (now, ""))
        if end > now:
            return dataset
        if self._world.auth_down:
            raise AuthDownError
        found = self._world.dataset_of(namespace, name)
        if found is None or self._world.auth_hiccup or self.service in self._world.without_token:
            raise UnknownNameError(namespace, name)
        self._datasets[namespace, name] = (now + MAPPING_SECONDS, found)
        return found

    def _ask_again(self, token: str) -> dict[str, Any] | None:
        now = self._world.now()
        if now - self._window > REASK_WINDOW:
            self._asked.clear()
            self._window = now
        self._asked[token] = self._asked.get(token, 0) + 1
        if self._asked[token] > REASK_LIMIT:
            return None
        self._people.pop(token, None)
        return self.who(token)


class InfoService(Memory):
    """What the info service decides about a token."""

    def datastack(self, token: str, description: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a datastack's record. Raises what `permit` raises, or NotFoundError when there is no record."""
        self.permit(token, description, "datastack", name)
        record = self._world.datastacks[name].record
        if record is None:
            raise NotFoundError(name)
        return record

    def datastacks(self, description: dict[str, Any]) -> list[str]:
        """Return the names of the datastacks that a person could see, terms of service left aside."""
        if self.service in self._world.without_token:
            return []
        return [
            stack.name
            for stack in self._world.datastacks.values()
            if stack.record is not None and may_view(description, self.dataset("datastack", stack.name), owing=True)
        ]


def may_view(description: Mapping[str, Any], dataset: str, *, owing: bool = False) -> bool:
    """Say whether a person may see a dataset; `owing`: terms of service are left aside."""
    permissions: Mapping[str, list[str]] = description["permissions_v2_ignore_tos" if owing else "permissions_v2"]
    return "view" in permissions.get(dataset, [])
