# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control API: what a test may do to the world, as calls in JSON on a port of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from .app import Site
from .faults import Fault
from .world import Person, public_world


class Control:
    """What can be called by name. Arguments and results are JSON; a refused call raises ValueError."""

    def __init__(self, site: Site, options: Mapping[str, Any], listen: Callable[[bool], Awaitable[None]]) -> None:
        self._site = site
        self._options = dict(options)
        self._listen = listen

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method by its name."""
        method = None if name.startswith("_") or name == "call" else getattr(self, name, None)
        if method is None:
            raise ValueError(f"there is no call {name!r}")
        result = method(**arguments)
        return await result if inspect.isawaitable(result) else result

    async def reset(self, **options: Any) -> None:
        """Start afresh: a new world with the options that the server was started with, overridden by these."""
        self._site.world = public_world(**(self._options | options))
        self._site.world.serve(self._site.url)
        await self._listen(True)

    def configure(self, **options: Any) -> None:
        """Change options of the world as it is."""
        world = self._site.world
        for name, value in options.items():
            if name == "cache_ttl":
                for service in (world.info, *world.services.values()):
                    service.cache_ttl = value
            elif name in ("legacy", "latency", "auth_down", "auth_down_delay", "auth_hiccup"):
                setattr(world, name, value)
            elif name in ("without_token", "broken"):
                setattr(world, name, set(value))
            elif name in ("versions", "limits"):
                getattr(world, name).update(value)
            else:
                raise ValueError(f"there is no option {name!r}")

    async def listen(self, on: bool) -> None:
        """Close the door (connections are refused), or open it again."""
        await self._listen(on)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._site.world.advance(seconds)

    def add_person(self, **arguments: Any) -> dict[str, Any]:
        """Add a person, as `World.add_person`."""
        return self._describe(self._site.world.add_person(**arguments))

    def person(self, name: str) -> dict[str, Any]:
        """Describe a person; the token is that of the newest key."""
        return self._describe(self._site.world.person(name))

    def _describe(self, person: Person) -> dict[str, Any]:
        keys = self._site.world.keys(person)
        token = keys[0].token if keys else None
        return {"name": person.name, "id": person.id, "email": person.email, "token": token}

    def make_token(self, name: str, description: str | None = None, token: str | None = None) -> str:
        """Make a key."""
        world = self._site.world
        return world.make_key(world.person(name), description, token=token).token

    def tokens(self, name: str) -> list[dict[str, Any]]:
        """List a person's keys, as `GET user/token`."""
        world = self._site.world
        return [key.as_dict() for key in world.keys(world.person(name))]

    def hidden_tokens(self, name: str) -> list[str]:
        """List a person's tokens that are in no list."""
        world = self._site.world
        return world.hidden_tokens(world.person(name))

    def refresh(self, name: str) -> str:
        """Exchange a person's key."""
        world = self._site.world
        return world.refresh(world.person(name)).token

    def revoke(self, token: str) -> None:
        """Kill a token."""
        self._site.world.revoke(token)

    def log_in(self, name: str) -> str:
        """Return the token that the person's browser would get."""
        world = self._site.world
        return world.log_in(world.person(name))

    def accept_tos(self, name: str, terms: int | None = None) -> None:
        """Accept terms of service, or all there are."""
        world = self._site.world
        for terms_id in world.terms if terms is None else [terms]:
            world.accept_terms(world.person(name), terms_id)

    def add_terms(self, name: str) -> int:
        """Add terms of service."""
        return self._site.world.add_terms(name)

    def set_permissions(self, name: str, permissions: list[str] | dict[str, list[str]]) -> None:
        """Give a person these permissions."""
        self._site.world.set_permissions(name, permissions)

    def add_datastack(self, **arguments: Any) -> None:
        """Add a datastack, as `World.add_datastack`."""
        self._site.world.add_datastack(**{"local_server": self._site.url} | arguments)

    def serve(self, name: str, url: str | None = None) -> None:
        """Make this server, or another one, a datastack's local server."""
        if name not in self._site.world.datastacks:
            raise ValueError(f"there is no datastack {name!r}")
        self._site.world.serve(url or self._site.url, name)

    def map_name(self, namespace: str, name: str, dataset: str) -> None:
        """Map a name to a dataset, as `World.map_name`."""
        self._site.world.map_name(namespace, name, dataset)

    def set_fault(self, **arguments: Any) -> None:
        """Switch a fault on, as `faults.Fault`."""
        self._site.world.faults.add(Fault(**arguments))

    def clear_faults(self) -> None:
        """Switch all faults off."""
        self._site.world.faults.clear()

    def requests(self, prefix: str = "", internal: bool = False) -> list[dict[str, Any]]:
        """List the requests whose path begins with `prefix`; `internal`: also those of the info service itself."""
        log: Iterable[dict[str, Any]] = self._site.world.log
        return [entry for entry in log if entry["path"].startswith(prefix) and (internal or not entry["internal"])]

    def clear_requests(self) -> None:
        """Forget the requests."""
        self._site.world.log.clear()


def control_application(control: Control, key: str) -> web.Application:
    """Return the control API; callers show the key."""

    async def call(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != key:
            return web.json_response({"error": "wrong key"}, status=403)
        asked = await request.json()
        try:
            result = await control.call(asked["call"], asked["arguments"])
        except (ValueError, TypeError) as error:
            return web.json_response({"error": f"{asked['call']}: {error}"}, status=400)
        return web.json_response({"result": result})

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/", call)
    return app
