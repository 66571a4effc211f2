# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a CAVE deployment knows and decides: people, keys, terms of service, datastacks, and what is remembered of them.

Plain Python without HTTP. `World` is the auth server; what the other services remember of it is in `memory.py`. It
follows middle_auth 2.30.3.
Times are seconds since the epoch.
"""

from __future__ import annotations

import email.utils
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import AlreadyExistsError, DatabaseError, LimitError, NotFoundError, SeveralKeysError
from .faults import Faults
from .memory import InfoService, Memory

LONGEST_DESCRIPTION = 120
"""Characters: the width of the auth server's column."""
LOGIN_SECONDS = 7 * 24 * 3600
LOG_LENGTH = 200_000
LIMIT_SECONDS = 60.0
LIMITS = {"fast_query": 2000, "exists": 100}
"""Questions a minute and person: of materialize's third API, and of the skeleton service's `exists`."""
VERSIONS = {
    "materialize": "5.26.4",
    "segmentation": "2.21.1",
    "l2cache": "1.3.1",
    "skeletoncache": "0.23.11",
    "annotation": "4.35.0",
    "schema": "5.26.3",
    "nglstate": "0.7.2",
}
"""The services besides auth and info, and their versions."""
LEVELS = {"none": 0, "view": 1, "edit": 2}


def fingerprint(token: str) -> str:
    """Return the first 8 hex digits of the token's SHA-256: a name for it that may be shown."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def date(seconds: float | None) -> str | None:
    """Return a moment as the auth server writes it, to the second: `Sun, 22 Nov 2026 12:55:55 GMT`."""
    return None if seconds is None else email.utils.formatdate(seconds, usegmt=True)


@dataclass
class Person:
    """A person or, with a parent, a service account."""

    id: int
    name: str
    email: str
    created: float
    admin: bool = False
    parent_id: int | None = None
    permissions: dict[str, list[str]] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)


@dataclass
class Key:
    """A token that is in its owner's list."""

    id: int
    user_id: int
    token: str
    description: str | None
    created: float
    updated: float
    last_used: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `GET user/token` lists it, with the token in clear."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "token": self.token,
            "description": self.description,
            "created": date(self.created),
            "updated": date(self.updated),
            "last_used": date(self.last_used),
        }


@dataclass
class Dataset:
    """What permissions are given for. `terms_id` names the terms of service that must be accepted first."""

    id: int
    name: str
    group: str
    terms_id: int | None = None


@dataclass
class Terms:
    """Terms of service."""

    id: int
    name: str
    text: str


@dataclass
class Datastack:
    """A datastack as the auth server maps it (`dataset`) and as the info service describes it (`record`, or None)."""

    name: str
    dataset: str
    record: dict[str, Any] | None

    @property
    def table(self) -> str:
        """The chunkedgraph's name for it: the last part of its segmentation source."""
        return str((self.record or {}).get("segmentation_source", "")).rpartition("/")[2]

    @property
    def volume(self) -> str:
        """The name of its aligned volume."""
        return str((self.record or {}).get("aligned_volume", {}).get("name", ""))


class World:
    """The auth server.

    Args:
        cache_ttl: for how many seconds the info service remembers a token.
        legacy: making a key kills the person's other keys, as older servers do.
        latency: seconds that every answer takes.
        auth_down_delay: seconds after which the info service gives up on an auth server that is down.
        clock: the time now.
    """

    def __init__(
        self,
        *,
        cache_ttl: float = 300.0,
        legacy: bool = False,
        latency: float = 0.0,
        auth_down_delay: float = 3.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.legacy = legacy
        self.latency = latency
        self.auth_down = False
        self.auth_down_delay = auth_down_delay
        self.faults = Faults()
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
        self._clock = clock
        self._ahead = 0.0
        self._people: dict[int, Person] = {}
        # A real server's first two accounts are its operator and the info service.
        self._next_person = 3
        self._next_key = 1
        self._keys: dict[int, Key] = {}
        # Which tokens open the door: the keys, those that are in no list, and logins with their end.
        self._owners: dict[str, int] = {}
        self._key_ids: dict[str, int] = {}
        self._logins: dict[str, float] = {}
        self.terms: dict[int, Terms] = {}
        self.datasets: dict[str, Dataset] = {}
        self.datastacks: dict[str, Datastack] = {}
        self.mapping: dict[tuple[str, str], str] = {}
        """(namespace, name) -> dataset, where it is not the datastack's."""
        self.auth_hiccup = 0
        """Status that the services get for their questions to the auth server; 0: its true answers."""
        self.without_token: set[str] = set()
        """Services whose own token is dead, so that the auth server doesn't tell them what a name means."""
        self.broken: set[str] = set()
        """Services whose store is down."""
        self.versions = dict(VERSIONS)
        self.limits = dict(LIMITS)
        self._counted: dict[tuple[int, str], tuple[float, int]] = {}
        self.info = InfoService(self, "info", cache_ttl)
        self.services = {name: Memory(self, name, cache_ttl) for name in VERSIONS}

    # Time

    def now(self) -> float:
        """Return the time of this world."""
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at once: caches and logins age, dates move."""
        self._ahead += seconds

    # People

    def add_person(
        self,
        name: str,
        *,
        permissions: Iterable[str] | Mapping[str, Iterable[str]] = (),
        accepted_tos: bool = True,
        admin: bool = False,
        token: str | None = None,
        description: str | None = None,
        with_key: bool = True,
        parent_id: int | None = None,
    ) -> Person:
        """Add a person who has one key (`with_key`), and has accepted all terms of service or none.

        Args:
            name: must be new.
            permissions: names of datasets to view, or a mapping of these to `view` and `edit`.
            token: the value of the key; 32 hex digits are made up if it isn't given.
            description: of the key.

        Raises:
            ValueError: the name is taken or a dataset doesn't exist.
        """
        if any(person.name == name for person in self._people.values()):
            raise ValueError(f"there is a person {name!r} already")
        person = Person(
            id=self._next_person,
            name=name,
            email=f"{name.lower()}@serviceaccount" if parent_id else f"{name}@example.org",
            created=self.now(),
            admin=admin,
            parent_id=parent_id,
            permissions=self._grants(permissions),
            accepted=set(self.terms) if accepted_tos else set(),
        )
        self._next_person += 1
        self._people[person.id] = person
        if with_key:
            self.make_key(person, description, token=token)
        return person

    def person(self, name: str) -> Person:
        """Return the person of this name, or raise ValueError."""
        for person in self._people.values():
            if person.name == name:
                return person
        raise ValueError(f"there is no person {name!r}")

    def people(self) -> list[Person]:
        """Return everybody who can log in."""
        return [person for person in self._people.values() if person.parent_id is None]

    def set_permissions(self, name: str, permissions: Iterable[str] | Mapping[str, Iterable[str]]) -> None:
        """Give a person these permissions and no others (as in `add_person`)."""
        self.person(name).permissions = self._grants(permissions)

    def _grants(self, permissions: Iterable[str] | Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
        if isinstance(permissions, str):
            raise ValueError("permissions are a list of datasets, or a mapping")
        grants = {
            dataset: list(permissions[dataset]) if isinstance(permissions, Mapping) else ["view"]
            for dataset in permissions
        }
        for dataset, allowed in grants.items():
            if dataset not in self.datasets:
                raise ValueError(f"there is no dataset {dataset!r}; there are {', '.join(self.datasets)}")
            if not allowed or not set(allowed) <= {"view", "edit"}:
                raise ValueError(f"permissions for {dataset!r} are view and edit, not {allowed!r}")
        return grants

    def accept_terms(self, person: Person, terms_id: int) -> None:
        """Let a person accept terms of service."""
        person.accepted.add(terms_id)

    def describe(self, person: Person) -> dict[str, Any]:
        """Return what `user/cache` tells."""
        accepted = self._people[person.parent_id].accepted if person.parent_id in self._people else person.accepted
        owed = []
        granted = {}
        for name, allowed in person.permissions.items():
            dataset = self.datasets[name]
            if dataset.terms_id is None or dataset.terms_id in accepted:
                granted[name] = list(allowed)
                continue
            terms = self.terms[dataset.terms_id]
            owed.append({"dataset_id": dataset.id, "dataset_name": name, "tos_id": terms.id, "tos_name": terms.name})
        return {
            "id": person.id,
            "parent_id": person.parent_id,
            "service_account": person.parent_id is not None,
            "name": person.name,
            "email": person.email,
            "admin": person.admin,
            "pi": "",
            "affiliations": [[]],
            "groups": ["default", *dict.fromkeys(self.datasets[name].group for name in person.permissions)],
            "permissions": {name: max(LEVELS[level] for level in allowed) for name, allowed in granted.items()},
            "permissions_v2": granted,
            "permissions_v2_ignore_tos": {name: list(allowed) for name, allowed in person.permissions.items()},
            "missing_tos": owed,
            "datasets_admin": [],
            "groups_admin": [],
        }

    def profile(self, person: Person, *, full: bool = True) -> dict[str, Any]:
        """Return what `user/me` tells; not `full`: what a new service account's maker sees of it."""
        profile = {
            "id": person.id,
            "service_account": person.parent_id is not None,
            "name": person.name,
            "created": date(person.created),
            "pi": "",
            "affiliations": [[]],
        }
        if full:
            profile |= {"gdpr_consent": False, "admin_datasets": [], "admin": person.admin, "email": person.email}
            parent = self._people.get(person.parent_id) if person.parent_id else None
            if parent:
                profile |= {"parent_id": parent.id, "parent": self.profile(parent, full=False)}
        return profile

    # Keys

    def make_key(self, person: Person, description: object = None, *, token: str | None = None) -> Key:
        """Make a key.

        Raises:
            DatabaseError: the description doesn't fit its column. The token is valid all the same, and in no list.
            ValueError: the `token` asked for exists.
        """
        if self.legacy:
            self._drop_all(person)
        token = token or secrets.token_hex(16)
        if token in self._owners:
            raise ValueError("this token exists already")
        self._owners[token] = person.id
        if description is not None and not isinstance(description, (str, int, float)):
            raise DatabaseError("can't adapt the description")
        text = None if description is None else str(description)
        if text is not None and len(text) > LONGEST_DESCRIPTION:
            raise DatabaseError("value too long for type character varying(120)")
        now = self.now()
        key = Key(self._next_key, person.id, token, text, created=now, updated=now)
        self._next_key += 1
        self._keys[key.id] = key
        self._key_ids[token] = key.id
        return key

    def keys(self, person: Person) -> list[Key]:
        """Return the keys of a person, newest id first."""
        return sorted((key for key in self._keys.values() if key.user_id == person.id), key=lambda key: -key.id)

    def hidden_tokens(self, person: Person) -> list[str]:
        """Return the tokens that open the door and are in no list, as a description that doesn't fit leaves them."""
        return [
            token
            for token, owner in self._owners.items()
            if owner == person.id and token not in self._key_ids and token not in self._logins
        ]

    def delete_key(self, person: Person, key_id: int) -> None:
        """Delete a key of this person; NotFoundError when there is none of this id."""
        key = self._keys.get(key_id)
        if key is None or key.user_id != person.id:
            raise NotFoundError("Token doesn't exist")
        self.revoke(key.token)

    def revoke(self, token: str) -> None:
        """Kill a token; ValueError when it isn't alive."""
        if token not in self._owners:
            raise ValueError(f"there is no token {fingerprint(token)}")
        del self._owners[token]
        self._logins.pop(token, None)
        key_id = self._key_ids.pop(token, None)
        if key_id is not None:
            del self._keys[key_id]

    def refresh(self, person: Person) -> Key:
        """Give a person's only key a new token: the old one is dead at once. Without a key, one is made.

        Raises:
            SeveralKeysError: there are several.
        """
        keys = self.keys(person)
        if len(keys) > 1:
            raise SeveralKeysError("Refresh token does not work for accounts with more than one API Key")
        if not keys:
            return self.make_key(person)
        (key,) = keys
        del self._owners[key.token], self._key_ids[key.token]
        key.token = secrets.token_hex(16)
        key.updated = self.now()
        self._owners[key.token] = person.id
        self._key_ids[key.token] = key.id
        return key

    def service_account(self, parent: Person, name: str) -> Person:
        """Make a service account, with its key."""
        try:
            return self.add_person(name, accepted_tos=False, parent_id=parent.id)
        except ValueError as error:
            raise AlreadyExistsError("Service Account with name already exists.") from error

    def token_of_service_account(self, account_id: int) -> str:
        """Return the token of a service account, or raise NotFoundError."""
        account = self._people.get(account_id)
        if account is None or account.parent_id is None:
            raise NotFoundError("Service account doesn't exist")
        return self.keys(account)[0].token

    def log_in(self, person: Person) -> str:
        """Return the token that a browser gets: valid for a week, and no key."""
        token = secrets.token_hex(16)
        self._owners[token] = person.id
        self._logins[token] = self.now() + LOGIN_SECONDS
        return token

    def owner(self, token: str) -> Person | None:
        """Return whose token this is, or None when it is not valid."""
        if token in self._logins and self._logins[token] < self.now():
            self.revoke(token)
        person_id = self._owners.get(token)
        return None if person_id is None else self._people[person_id]

    def seconds_left(self, token: str) -> int:
        """Return for how long a login is valid; -1: for ever, as a key is."""
        end = self._logins.get(token)
        return -1 if end is None else int(end - self.now())

    def is_key(self, token: str) -> bool:
        """Return whether a token is in its owner's list, so no login."""
        return token in self._key_ids

    def authenticate(self, token: str) -> Person | None:
        """Return whose token this is, and note that it was used: what every request to the auth server does."""
        person = self.owner(token)
        if person and token in self._key_ids:
            key = self._keys[self._key_ids[token]]
            key.last_used = key.updated = self.now()
        return person

    def _drop_all(self, person: Person) -> None:
        for token in [token for token, owner in self._owners.items() if owner == person.id]:
            if token not in self._logins:
                self.revoke(token)

    # Datastacks

    def add_terms(self, name: str, text: str = "Cite the paper. Don't redistribute the data.") -> int:
        """Add terms of service, accepted by nobody; return their id."""
        terms = Terms(max(self.terms, default=0) + 1, name, text)
        self.terms[terms.id] = terms
        return terms.id

    def add_datastack(
        self,
        name: str,
        *,
        local_server: str,
        dataset: str | None = None,
        terms: int | None = None,
        record: bool = True,
        **fields: Any,
    ) -> None:
        """Add a datastack.

        Args:
            dataset: what permissions are given for (default: the name); made when it is new.
            terms: id of the terms of service of a new dataset.
            record: False: the auth server knows it, the info service doesn't.
            fields: further fields of the record.
        """
        if terms is not None and terms not in self.terms:
            raise ValueError(f"there are no terms of service {terms}")
        dataset = dataset or name
        self._add_dataset(dataset, terms)
        described = _record(name, local_server, len(self.datastacks) + 1) | fields if record else None
        self.datastacks[name] = Datastack(name, dataset, described)

    def serve(self, url: str, *names: str) -> None:
        """Make a server the local server of these datastacks, or of all that have a record."""
        for name, stack in self.datastacks.items():
            if stack.record is not None and name in (names or self.datastacks):
                stack.record |= {
                    "local_server": url,
                    "segmentation_source": f"graphene://{url}/segmentation/table/{stack.table}",
                }

    def map_name(self, namespace: str, name: str, dataset: str) -> None:
        """Let a name in a service's namespace belong to a dataset, made when it is new, other than the datastack's."""
        self._add_dataset(dataset, None)
        self.mapping[namespace, name] = dataset

    def _add_dataset(self, dataset: str, terms: int | None) -> None:
        if dataset not in self.datasets:
            group = f"{dataset.split('_')[0].removesuffix('65')}-readers"
            self.datasets[dataset] = Dataset(len(self.datasets) + 1, dataset, group, terms)

    def dataset_of(self, namespace: str, name: str) -> str | None:
        """Return the dataset of a name in a service's namespace, which the auth server maps."""
        if (namespace, name) in self.mapping:
            return self.mapping[namespace, name]
        for stack in self.datastacks.values():
            known = {"datastack": stack.name, "pychunkedgraph": stack.table, "aligned_volume": stack.volume}
            if known.get(namespace) == name:
                return stack.dataset
        return None

    # What the other services share

    def note_internal(self, path: str, token: str, status: int) -> None:
        """Note in the log what a service asked the auth server."""
        self.log.append(
            {
                "method": "GET",
                "path": path,
                "fingerprint": fingerprint(token),
                "sent_in": "header",
                "client": "",
                "time": self.now(),
                "status": status,
                "internal": True,
            }
        )

    def count(self, person_id: int, endpoint: str) -> None:
        """Count a person's question; LimitError beyond the limit of the minute that runs."""
        most = self.limits[endpoint]
        begun, counted = self._counted.get((person_id, endpoint), (0.0, 0))
        if self.now() - begun >= LIMIT_SECONDS:
            begun, counted = self.now(), 0
        self._counted[person_id, endpoint] = (begun, counted + 1)
        if counted >= most:
            raise LimitError(f"{most} per 1 minute")


def _record(name: str, local_server: str, number: int) -> dict[str, Any]:
    volume = name.removesuffix("_public")
    return {
        "aligned_volume": {
            "id": number,
            "name": volume,
            "display_name": volume,
            "description": f"Pretend volume {volume}.",
            "image_source": f"precomputed://https://images.example.org/{volume}/em",
        },
        "segmentation_source": f"graphene://{local_server}/segmentation/table/{name}",
        "skeleton_source": None,
        "analysis_database": None,
        "viewer_site": "https://viewer.example.org/",
        "synapse_table": "synapses",
        "soma_table": None,
        "local_server": local_server,
        "description": f"Pretend datastack {name}.",
        "viewer_resolution_x": 4.0,
        "viewer_resolution_y": 4.0,
        "viewer_resolution_z": 40.0,
        "proofreading_status_table": None,
        "cell_identification_table": None,
        "proofreading_review_table": None,
    }


PUBLIC_DATASTACKS = (
    ("minnie65_public", "https://minnie.microns-daf.com", "MICrONS Terms"),
    ("minnie65_phase3_v1", "https://minnie.microns-daf.com", None),
    ("flywire_fafb_public", "https://prod.flywire-daf.com", "FlyWire Terms"),
    ("flywire_fafb_production", "https://prod.flywire-daf.com", "FlyWire Terms"),
    ("brain_and_nerve_cord", "https://cave.fanc-fly.com", None),
    ("fanc_production_mar2021", "https://cave.fanc-fly.com", None),
    ("h01_c3_flat", "https://local.brain-wire-test.org", None),
    ("v1dd_public", "https://api.em.brain.allentech.org", None),
    ("kronauer_ant", "https://data.proofreading.zetta.ai", None),
    ("prieto_godino_fly_larva", "https://data.proofreading.zetta.ai", None),
)
"""Name, local server, terms of service. In truth they are spread over four auth servers; one is enough here."""


def public_world(**options: Any) -> World:
    """Return a world with the public datastacks and nobody in it; options as for `World`."""
    world = World(**options)
    terms = {name: world.add_terms(name) for name in ("FlyWire Terms", "MICrONS Terms")}
    for name, local_server, owed in PUBLIC_DATASTACKS:
        world.add_datastack(name, local_server=local_server, terms=terms.get(owed or ""))
    return world
