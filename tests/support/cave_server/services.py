# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a datastack over HTTP: each knows tokens and names by its own memory, and fails in its own way.

MaterializationEngine 5.26.4, PyChunkedGraph 2.21.1 (segmentation and meshing), PCGL2Cache 1.3.1, SkeletonService
0.23.11, AnnotationEngine 4.35.0, EMAnnotationSchemas 5.26.3, NeuroglancerJsonServer 0.7.2.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .app import SITE, Asked, Handler, broken, guarded, jsonify, plain, refused, restful
from .errors import AuthDownError, LimitError, MissingPermissionError, TermsOwedError, UnknownNameError
from .world import World

Answer = Callable[[Asked], Awaitable[web.Response] | web.Response]


# How each of them breaks


def restx_error(message: str) -> web.Response:
    """Answer as materialize and annotation do to any exception, whatever status it was raised with."""
    return restful({"code": 500, "message": message, "traceback": ["Traceback (most recent call last):"]}, 500)


def graph_error(message: str, status: int = 500) -> web.Response:
    """Answer as the chunkedgraph and the L2 cache do to any exception."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime())
    told = {"timestamp": moment, "duration": 0.01, "code": status, "message": message, "traceback": ["Traceback"]}
    return jsonify(told, status)


def page_error(_message: str) -> web.Response:
    """Answer as a service without a handler of its own."""
    return broken()


def old_refusal(
    status: int,
    error: str,
    _message: str,
    _data: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Refuse as a service with an old middle_auth_client does: in words, not in JSON."""
    text = {"no_token": "Unauthorized", "invalid_token": "Invalid/Expired Token"}.get(error, "Invalid Request")
    return plain(text, status, headers)


ERRORS: dict[str, Callable[[str], web.Response]] = {
    "materialize": restx_error,
    "annotation": restx_error,
    "segmentation": graph_error,
    "l2cache": graph_error,
}


def _break(service: str, message: str) -> web.Response:
    return ERRORS.get(service, page_error)(message)


# Who may ask what


def served(
    service: str, namespace: str = "", *, store: bool = False, limit: str = "", old: bool = False
) -> Callable[[Answer], Handler]:
    """Let a request through as a service does.

    Args:
        service: whose memory of tokens and names counts.
        namespace: of the name in the path that the person must be allowed to view; empty: any good token will do.
        store: whether the answer comes from the service's store.
        limit: how often a person may ask: a name of ``World.limits``.
        old: refuse in words.
    """

    async def down(_world: World) -> web.Response:
        return _break(service, "HTTPConnectionPool: Max retries exceeded with url: /auth/api/v1/user/cache")

    def decorate(answer: Answer) -> Handler:
        async def answerer(asked: Asked, description: dict[str, Any]) -> web.Response:
            try:
                if namespace:
                    name = asked.request.match_info["name"]
                    asked.world.services[service].permit(asked.token, description, namespace, name)
                if limit:
                    asked.world.count(description["id"], limit)
            except (UnknownNameError, TermsOwedError, MissingPermissionError) as error:
                return refused(asked, error)
            except LimitError as error:
                if service == "materialize":
                    return restx_error(f"429 Too Many Requests: {error}")
                return restful({"message": str(error)}, 429)
            except AuthDownError:
                return await down(asked.world)
            if store and service in asked.world.broken:
                return _break(service, "503 failed to connect to the store")
            answered = answer(asked)
            return answered if isinstance(answered, web.Response) else await answered

        options: dict[str, Any] = {"refuse": old_refusal} if old else {}
        known = guarded(lambda world, token: world.services[service].who(token), when_down=down, **options)
        return known(answerer)

    return decorate


def version(service: str) -> Handler:
    """Tell a service's version to all."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return jsonify(request.app[SITE].world.versions[service])

    return answer


def told(value: Any) -> Handler:
    """Tell the same to all."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return jsonify(value)

    return answer


# The answers


async def l2_root(request: web.Request) -> web.StreamResponse:
    """Tell the L2 cache's version to all."""
    return plain(f"PCGL2Cache v{request.app[SITE].world.versions['l2cache']}")


async def l2_tables(request: web.Request) -> web.StreamResponse:
    """Tell all which tables have a cache."""
    stacks = request.app[SITE].world.datastacks.values()
    tables = [stack.table for stack in stacks if stack.record and stack.name not in WITHOUT_L2_CACHE]
    return jsonify({table: {"cv_path": f"gs://l2cache/{table}", "l2cache_id": f"l2cache_{table}"} for table in tables})


WITHOUT_L2_CACHE = ("flywire_fafb_public",)


async def auth_info(request: web.Request) -> web.StreamResponse:
    """Tell all where to log in."""
    site = request.app[SITE]
    return jsonify({"login_url": f"{site.url}/sticky_auth", "supported_datastacks": list(site.world.datastacks)})


async def without_slash(request: web.Request) -> web.StreamResponse:
    """Send a client on, to the same place and a slash, by plain http whatever it came by."""
    return web.Response(status=308, headers={"Location": f"http://{request.host}{request.path}/"})


@served("materialize", "datastack", store=True)
def materialized(_asked: Asked) -> web.Response:
    """List the versions of a datastack."""
    return restful([1, 2])


@served("materialize", "datastack", store=True, limit="fast_query")
def materialized_v3(_asked: Asked) -> web.Response:
    """List the versions of a datastack, so many times a minute."""
    return restful([1, 2])


@served("segmentation")
def graph_version(asked: Asked) -> web.Response:
    """Tell the version."""
    return jsonify(asked.world.versions["segmentation"])


@served("segmentation")
def graph_versions(_asked: Asked) -> web.Response:
    """Tell which API versions there are."""
    return jsonify([0, 1])


@served("segmentation")
def meshing(asked: Asked) -> web.Response:
    """Tell the version."""
    return plain(f"PyChunkedGraph Meshing v{asked.world.versions['segmentation']}")


@served("segmentation", "pychunkedgraph", store=True)
def oldest(_asked: Asked) -> web.Response:
    """Tell when the graph begins."""
    return jsonify({"iso": "2020-01-02 03:04:05.678000+00:00"})


@served("segmentation", "pychunkedgraph")
def graph_info(_asked: Asked) -> web.Response:
    """Describe the graph as cloud-volume wants it."""
    return jsonify(
        {
            "app": {"supported_api_versions": [0, 1]},
            "data_type": "uint64",
            "graph": {"chunk_size": [256, 256, 512], "n_layers": 9},
            "num_channels": 1,
            "scales": [],
            "sharded_mesh": True,
            "type": "segmentation",
            "verify_mesh": False,
        }
    )


@served("l2cache", "pychunkedgraph")
async def l2_attributes(asked: Asked) -> web.Response:
    """Answer about no nodes."""
    table = asked.request.match_info["name"]
    if any(stack.table == table and stack.name in WITHOUT_L2_CACHE for stack in asked.world.datastacks.values()):
        return graph_error(f"Dataset {table} does not have an L2 Cache.")
    return jsonify({})


@served("skeletoncache", "datastack")
def skeleton_info(_asked: Asked) -> web.Response:
    """Describe the skeletons."""
    return jsonify({"@type": "neuroglancer_skeletons", "transform": [1.0] * 12, "vertex_attributes": []})


@served("skeletoncache", "datastack", store=True, limit="exists")
def skeleton_exists(_asked: Asked) -> web.Response:
    """Say whether there is a skeleton."""
    return jsonify(False)


@served("annotation", "aligned_volume", store=True)
def annotation_tables(_asked: Asked) -> web.Response:
    """List the tables."""
    return restful(["synapses", "nuclei"])


@served("nglstate", old=True)
def state_version(asked: Asked) -> web.Response:
    """Tell the version."""
    return jsonify(asked.world.versions["nglstate"])


def with_services(app: web.Application) -> web.Application:
    """Add the services to the auth server and the info service."""
    router = app.router
    gets: dict[str, Handler] = {
        "/auth_info": auth_info,
        "/materialize/version": version("materialize"),
        "/materialize/api/versions": told([2, 3]),
        "/materialize/api/v2/datastack/{name}/versions": materialized,
        "/materialize/api/v3/datastack/{name}/versions": materialized_v3,
        "/segmentation/api/version": graph_version,
        "/segmentation/api/versions": graph_versions,
        "/segmentation/api/v1/table/{name}/oldest_timestamp": oldest,
        "/segmentation/table/{name}/info": graph_info,
        "/meshing/api/v1/": meshing,
        "/l2cache/": l2_root,
        "/l2cache/api/v1/table_mapping": l2_tables,
        "/skeletoncache/health": told("healthy"),
        "/skeletoncache/api/version": version("skeletoncache"),
        "/skeletoncache/api/versions": told([-1, 0, 1, 2, 3, 4]),
        "/skeletoncache/api/v1/{name}/precomputed/skeleton/info": skeleton_info,
        "/annotation/api/versions": told([2]),
        "/annotation/api/v2/aligned_volume/{name}/table": annotation_tables,
        "/schema/versions": told([2]),
        "/schema/views/version": version("schema"),
        "/nglstate/api/v1/version": state_version,
        **dict.fromkeys(("/segmentation", "/l2cache", "/materialize"), without_slash),
    }
    for path, handler in gets.items():
        router.add_get(path, handler)
    router.add_post("/l2cache/api/v1/table/{name}/attributes", l2_attributes)
    router.add_post("/skeletoncache/api/v1/{name}/precomputed/skeleton/exists", skeleton_exists)
    return app
