# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services over HTTP: which request means what to the world, and how the answers are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web

from . import pages, wire
from .credentials import TOKEN_NAME, BadAuthHeaderError, Credentials, read
from .errors import (
    AlreadyExistsError,
    AuthDownError,
    DatabaseError,
    MissingPermissionError,
    NotFoundError,
    SeveralKeysError,
    TermsOwedError,
    UnknownNameError,
)
from .faults import INSTEAD
from .world import Person, World, fingerprint

AUTH_VERSION = "neuroglance_auth -- version 2.30.3"
LEGACY_AUTH_VERSION = "neuroglance_auth -- version 2.9.0"
"""Of a server on which making a token kills the old one: older than the one that was measured."""
INFO_VERSION = "4.3.3"
NOT_FOUND = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling and "
    "try again."
)
NOT_ALLOWED = "The method is not allowed for the requested URL."
BROKEN = (
    "The server encountered an internal error and was unable to complete your request. Either the server is "
    "overloaded or there is an error in the application."
)


@dataclass
class Site:
    """What is served, and at which address; the world can be exchanged for a fresh one."""

    world: World
    url: str = ""

    @property
    def authorize(self) -> str:
        """The address of the login page. The real one says https whatever it is reached by."""
        return f"{self.url}/sticky_auth/api/v1/authorize"


SITE = web.AppKey("site", Site)


@dataclass
class Asked:
    """A request whose token is good: the token, and what the service knows of its owner."""

    request: web.Request
    world: World
    site: Site
    token: str
    credentials: Credentials


Found = TypeVar("Found")
Answerer = Callable[[Asked, Found], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# Answers


def jsonify(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer JSON as Flask writes it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
    return _json(text, status, headers)


def restful(value: Any, status: int = 200) -> web.Response:
    """Answer JSON as the info service's framework writes it."""
    return _json(json.dumps(value) + "\n", status, None)


def _json(text: str, status: int, headers: dict[str, str] | None) -> web.Response:
    all_headers = {"Content-Type": "application/json"} | (headers or {})
    return web.Response(body=text.encode(), status=status, reason=_reason(status), headers=all_headers)


def _reason(status: int) -> str:
    """Return Flask's spelling of a status, which shows up in caveclient's messages."""
    return HTTPStatus(status).phrase.upper()


def plain(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer text, which Flask calls HTML."""
    return web.Response(
        text=text,
        status=status,
        reason=_reason(status),
        content_type="text/html",
        charset="utf-8",
        headers=headers,
    )


def api_error(
    status: int, error: str, message: str, data: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    """Answer a refusal in middle_auth's form."""
    value: dict[str, Any] = {"error": error, "message": message}
    if data is not None:
        value["data"] = data
    return jsonify(value, status, headers)


def redirect(location: str) -> web.Response:
    """Send a browser elsewhere."""
    body = (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n<p>You should be "
        f'redirected automatically to the target URL: <a href="{location}">{location}</a>. If not, click the link.\n'
    )
    return plain(body, 302, {"Location": location})


def broken() -> web.Response:
    """Answer as a service whose code raised."""
    return plain(pages.error("500 Internal Server Error", BROKEN), 500)


async def auth_is_down(world: World) -> web.Response:
    """Answer for a service that waits for the auth server in vain."""
    await asyncio.sleep(world.auth_down_delay)
    return plain(pages.gateway("502 Bad Gateway"), 502)


# Who is asking


def guarded(
    look_up: Callable[[World, str], Found | None],
    *,
    when_down: Callable[[World], Awaitable[web.Response]] = auth_is_down,
    refuse: Callable[..., web.Response] = api_error,
) -> Callable[[Answerer[Found]], Handler]:
    """Let a request through when its token is good.

    Args:
        look_up: how the service knows a token.
        when_down: its answer when it has to ask an auth server that is down.
        refuse: how it writes a refusal; `api_error`, or what older services write.
    """

    def decorate(answerer: Answerer[Found]) -> Handler:
        async def guard(request: web.Request) -> web.StreamResponse:
            site = request.app[SITE]
            realm = f'Bearer realm="{site.authorize}"'
            try:
                credentials = read(request.headers, request.cookies, request.query)
            except BadAuthHeaderError:
                detail = ', error="invalid_request", error_description="Header must begin with \'Bearer\'"'
                text = "Authorization header must begin with 'Bearer'"
                return refuse(400, "bad_auth_header", text, headers={"WWW-Authenticate": realm + detail})
            if credentials.programmatic and not credentials.token:
                text = "Unauthorized - No Token Provided"
                return refuse(401, "no_token", text, headers={"WWW-Authenticate": realm})
            if credentials.sent_in == "query" and not credentials.programmatic:
                return _into_cookie(site, request, credentials.token)
            try:
                found = look_up(site.world, credentials.token) if credentials.token else None
                if found is not None:
                    return await answerer(Asked(request, site.world, site, credentials.token, credentials), found)
            except AuthDownError:
                return await when_down(site.world)
            if not credentials.programmatic:
                return redirect(f"{site.authorize}?redirect={quote(site.url + request.path_qs)}")
            detail = ', error="invalid_token", error_description="Invalid/Expired Token"'
            text = "Unauthorized - Token is Invalid or Expired"
            return refuse(401, "invalid_token", text, headers={"WWW-Authenticate": realm + detail})

        return guard

    return decorate


def _into_cookie(site: Site, request: web.Request, token: str) -> web.Response:
    query = request.url.without_query_params(TOKEN_NAME, "token", "middle_auth_url").raw_query_string
    response = redirect(site.url + request.rel_url.raw_path + (f"?{query}" if query else ""))
    _set_cookie(site, response, token)
    return response


def _set_cookie(site: Site, response: web.Response, token: str) -> None:
    response.set_cookie(TOKEN_NAME, token, secure=site.url.startswith("https:"), httponly=True)


auth_required = guarded(World.authenticate)
info_required = guarded(lambda world, token: world.info.who(token))


def admin_required(answerer: Answerer[Person]) -> Handler:
    """Let a superadmin through."""

    @auth_required
    async def guard(asked: Asked, person: Person) -> web.Response:
        if not person.admin:
            return plain("Requires superadmin privilege.", 403)
        return await answerer(asked, person)

    return guard


# The auth server


async def auth_version(request: web.Request) -> web.StreamResponse:
    """Tell the version."""
    return plain(LEGACY_AUTH_VERSION if request.app[SITE].world.legacy else AUTH_VERSION)


@auth_required
async def user_cache(asked: Asked, person: Person) -> web.Response:
    """Tell all about the owner of the token."""
    return jsonify(asked.world.describe(person))


@auth_required
async def user_me(asked: Asked, person: Person) -> web.Response:
    """Tell who the owner of the token is."""
    return jsonify(asked.world.profile(person))


@auth_required
async def user_missing(asked: Asked, person: Person) -> web.Response:
    """Tell which terms of service are owed."""
    return jsonify(asked.world.describe(person)["missing_tos"])


@auth_required
async def list_tokens(asked: Asked, person: Person) -> web.Response:
    """List the keys, in clear."""
    return jsonify([key.as_dict() for key in asked.world.keys(person)])


@auth_required
async def create_token(asked: Asked, person: Person) -> web.Response:
    """Make a key."""
    data = await _json_body(asked.request) or {}
    if not isinstance(data, dict):
        return broken()
    try:
        return jsonify(asked.world.make_key(person, data.get("description")).token)
    except DatabaseError:
        return broken()


@auth_required
async def delete_token(asked: Asked, person: Person) -> web.Response:
    """Delete a key."""
    try:
        asked.world.delete_key(person, int(asked.request.match_info["id"]))
    except NotFoundError as error:
        return plain(str(error), 404)
    return jsonify("success")


@auth_required
async def refresh_token(asked: Asked, person: Person) -> web.Response:
    """Exchange the only key."""
    try:
        return jsonify(asked.world.refresh(person).token)
    except SeveralKeysError as error:
        return plain(str(error), 400)


@auth_required
async def token_ttl(asked: Asked, person: Person) -> web.Response:
    """Tell for how long a token is valid."""
    token = asked.request.match_info["key"]
    if asked.world.owner(token) is not person:
        return api_error(404, "invalid_token", "Token does not exist or is not asociated with your account.")
    return jsonify(asked.world.seconds_left(token))


@auth_required
async def log_out(asked: Asked, _person: Person) -> web.Response:
    """End a login."""
    if asked.world.is_key(asked.token):
        return plain("Can't logout an API Key.", 422)
    asked.world.revoke(asked.token)
    return jsonify("success")


@admin_required
async def create_service_account(asked: Asked, person: Person) -> web.Response:
    """Make a service account."""
    data = await _json_body(asked.request) or {}
    if "name" not in data:
        return plain("Missing fields: name.", 400)
    try:
        account = asked.world.service_account(person, data["name"])
    except AlreadyExistsError as error:
        return plain(str(error), 422)
    return jsonify(asked.world.profile(account, full=False))


@admin_required
async def service_account_token(asked: Asked, _person: Person) -> web.Response:
    """Tell the token of a service account."""
    try:
        return jsonify(asked.world.token_of_service_account(int(asked.request.match_info["id"])))
    except NotFoundError as error:
        return plain(str(error), 404)


async def authorize(request: web.Request) -> web.StreamResponse:
    """Show the login page; the real one sends the browser to Google's."""
    site = request.app[SITE]
    if request.headers.get("X-Requested-With"):
        return plain(site.authorize)
    return plain(pages.login(site.world.people()))


async def log_in(request: web.Request) -> web.StreamResponse:
    """Log in and go back to where the person came from."""
    site = request.app[SITE]
    form = await request.post()
    for person in site.world.people():
        if person.email == form.get("email"):
            break
    else:
        return plain(pages.login(site.world.people()))
    token = site.world.log_in(person)
    back = request.query.get("redirect", f"{site.url}/sticky_auth/settings/tokens")
    response = redirect(
        f"{back}{'&' if '?' in back else '?'}{TOKEN_NAME}={token}"
        f"&middle_auth_url={quote(site.url.partition('//')[2], safe='')}/sticky_auth&token={token}"
    )
    _set_cookie(site, response, token)
    return response


@auth_required
async def tokens_page(asked: Asked, person: Person) -> web.Response:
    """Show the keys in a browser."""
    return plain(pages.tokens(person, asked.world.keys(person)))


@auth_required
async def terms_page(asked: Asked, person: Person) -> web.Response:
    """Show terms of service (GET), accept them (POST)."""
    terms = asked.world.terms.get(int(asked.request.match_info["id"]))
    if terms is None:
        return plain("Terms of Service does not exist", 404)
    title = f"{terms.name}'s Terms of Service"
    if terms.id in person.accepted:
        return plain(pages.message(title, "You have already accepted the Terms of Service"))
    if asked.request.method != "POST":
        return plain(pages.terms(terms))
    asked.world.accept_terms(person, terms.id)
    if "redirect" in asked.request.query:
        return redirect(asked.request.query["redirect"])
    return broken()  # and recorded all the same


async def _json_body(request: web.Request) -> Any:
    """Return the JSON that a request carries, or None where it isn't called JSON or isn't any."""
    if request.content_type != "application/json":
        return None
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def refused(asked: Asked, error: UnknownNameError | TermsOwedError | MissingPermissionError) -> web.Response:
    """Answer as middle_auth_client does for somebody who may not see what was asked for."""
    if isinstance(error, UnknownNameError):
        data = {"table_id": error.name, "resource_namespace": error.namespace}
        return api_error(400, "invalid_table_id", "Invalid table_id for service", data)
    if isinstance(error, TermsOwedError):
        url = f"{asked.site.url}/sticky_auth/api/v1/tos/{error.terms['tos_id']}/accept"
        if not asked.credentials.programmatic:
            return redirect(f"{url}?redirect={quote(asked.site.url + asked.request.path_qs)}")
        data = {"tos_id": error.terms["tos_id"], "tos_name": error.terms["tos_name"], "tos_form_url": url}
        return api_error(403, "missing_tos", "Need to accept Terms of Service to access resource.", data)
    data = {"required_permission": "view", "auth_dataset": error.dataset}
    return api_error(403, "missing_permission", f"Missing permission: view for dataset {error.dataset}", data)


@auth_required
async def dataset_of_name(asked: Asked, _person: Person) -> web.Response:
    """Tell to which dataset a service's table, volume or datastack belongs."""
    found = asked.world.dataset_of(asked.request.match_info["namespace"], asked.request.match_info["name"])
    return plain("No dataset for given service and table names", 404) if found is None else jsonify(found)


# The info service


async def info_version(_request: web.Request) -> web.StreamResponse:
    """Tell the version."""
    return jsonify(INFO_VERSION)


async def info_versions(_request: web.Request) -> web.StreamResponse:
    """Tell which API versions there are."""
    return jsonify([2])


@info_required
async def datastacks(asked: Asked, description: dict[str, Any]) -> web.Response:
    """List the datastacks."""
    return restful(asked.world.info.datastacks(description))


@info_required
async def datastack(asked: Asked, description: dict[str, Any]) -> web.Response:
    """Describe a datastack."""
    name = asked.request.match_info["name"]
    try:
        return restful(asked.world.info.datastack(asked.token, description, name))
    except (UnknownNameError, TermsOwedError, MissingPermissionError) as error:
        return refused(asked, error)
    except NotFoundError:
        return restful({"message": NOT_FOUND}, 404)


# Everything together


@web.middleware
async def front(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log every request, and let faults and delays at it."""
    world = request.app[SITE].world
    token, sent_in = _token_of(request)
    entry: dict[str, Any] = {
        "method": request.method,
        "path": _without_token(request.path),
        "fingerprint": token,
        "sent_in": sent_in,
        "client": request.remote,
        "time": world.now(),
        "status": None,
        "internal": False,
    }
    world.log.append(entry)
    delay, fault = world.faults.take(request.method, request.path, token, request.remote)
    if delay or world.latency:
        await asyncio.sleep(delay + world.latency)
    if fault and fault.kind in INSTEAD:
        response = await wire.answer(request, fault)
    elif world.auth_down and request.path.startswith(("/auth/", "/sticky_auth/")):
        response = plain(pages.gateway("502 Bad Gateway"), 502)
    else:
        response = await handler(request)
        if fault:
            response = await wire.spoil(request, fault, response)
    if isinstance(response, wire.AlreadySent):
        return response
    entry["status"] = response.status
    if not response.prepared:
        response.headers["Date"] = formatdate(world.now(), usegmt=True)
    return response


def _token_of(request: web.Request) -> tuple[str | None, str | None]:
    try:
        credentials = read(request.headers, request.cookies, request.query)
    except BadAuthHeaderError:
        return None, None
    return (fingerprint(credentials.token) if credentials.token else None), credentials.sent_in


def _without_token(path: str) -> str:
    return "/".join(["TOKEN" if part and path.endswith(f"/{part}/ttl") else part for part in path.split("/")])


@web.middleware
async def routing_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer as Flask where no route matches."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return plain(pages.error("404 Not Found", NOT_FOUND), 404)
    except web.HTTPMethodNotAllowed as error:
        allowed = {"Allow": ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))}
        if request.method == "OPTIONS":
            return plain("", 200, allowed)
        if request.path.startswith("/info/api/v2/"):
            return _json(json.dumps({"message": NOT_ALLOWED}) + "\n", 405, allowed)
        if request.path.startswith(("/materialize/api/", "/annotation/api/v2/")):
            return restful({"code": 500, "message": f"405 Method Not Allowed: {NOT_ALLOWED}", "traceback": []}, 500)
        return plain(pages.error("405 Method Not Allowed", NOT_ALLOWED), 405, allowed)


def application(site: Site) -> web.Application:
    """Return the auth server and the info service as one application."""
    app = web.Application(middlewares=[front, routing_errors])
    app[SITE] = site
    router = app.router
    for prefix in ("/auth", "/sticky_auth"):
        api = f"{prefix}/api/v1"
        router.add_get(f"{prefix}/version", auth_version)
        router.add_get(f"{api}/create_token", create_token)
        router.add_get(f"{api}/refresh_token", refresh_token)
        router.add_get(f"{api}/user/cache", user_cache)
        router.add_get(f"{api}/user/me", user_me)
        router.add_get(f"{api}/user/missing", user_missing)
        router.add_get(f"{api}/user/token", list_tokens)
        router.add_post(f"{api}/user/token", create_token)
        router.add_delete(api + r"/user/token/{id:\d+}", delete_token)
        router.add_get(api + "/user/token/{key}/ttl", token_ttl)
        router.add_get(f"{api}/logout", log_out)
        router.add_post(f"{api}/service_account", create_service_account)
        router.add_get(api + r"/service_account/{id:\d+}/token", service_account_token)
        router.add_get(api + "/service/{namespace}/table/{name}/dataset", dataset_of_name)
    sticky = "/sticky_auth/api/v1"
    router.add_get(f"{sticky}/authorize", authorize)
    router.add_post(f"{sticky}/authorize", log_in)
    router.add_get("/sticky_auth/settings/tokens", tokens_page)
    router.add_get(sticky + r"/tos/{id:\d+}/accept", terms_page)
    router.add_post(sticky + r"/tos/{id:\d+}/accept", terms_page)
    router.add_get("/info/version", info_version)
    router.add_get("/info/api/versions", info_versions)
    router.add_get("/info/api/v2/datastacks", datastacks)
    router.add_get("/info/api/v2/datastack/full/{name}", datastack)
    return app
