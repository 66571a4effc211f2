# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person's tokens on the server: one is made once, whatever happens on the way; the right ones are revoked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import (
    EXPIRING,
    KEY,
    UNKNOWN,
    TokenApi,
    TokenKind,
    expiring_message,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    MOST_LISTED,
    Listing,
    Selection,
    ServerToken,
    clean_description,
    clean_fingerprint,
    describe,
    iso,
    listing_of,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

SERVER = "https://cave.example.org"
OWN = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
CREATED = "Sun, 22 Nov 2026 12:55:55 GMT"
MOMENT = 1795352155.0


def answer(status: int, content: Any = None, kind: str = "application/json") -> Answer:
    body = json.dumps(content).encode() if kind == "application/json" else str(content).encode()
    return Answer(status, {"content-type": kind, "date": "Sun, 22 Nov 2026 13:00:00 GMT"}, body, SERVER)


INVALID = answer(401, {"error": "invalid_token", "message": "Unauthorized - Token is Invalid or Expired"})


class Server:
    """The auth server's token endpoints in a few lines, with a hook that a test may put before each request."""

    def __init__(self) -> None:
        self.keys: dict[int, tuple[str, str]] = {1: (OWN, "first")}
        self.asked: list[str] = []
        self.before: Callable[[str, Server], Answer | None] = lambda _request, _server: None
        self.after: Callable[[str, Server], None] = lambda _request, _server: None
        self.next = 2

    def make(self, description: str) -> str:
        number, self.next = self.next, self.next + 1
        self.keys[number] = (f"{number:032x}", description)
        return self.keys[number][0]

    def send(self, method: str, url: str, token: str, **options: Any) -> Answer:
        request = f"{method} {url.removeprefix(SERVER + '/auth/api/v1/user/')}"
        self.asked.append(request)
        found = self.before(request, self) or self._answer(request, token, options.get("json_body"))
        self.after(request, self)
        return found

    def _answer(self, request: str, token: str, body: Any) -> Answer:
        if token not in [value for value, _description in self.keys.values()]:
            return INVALID
        if request == "GET cache":
            return answer(
                200, {"id": 3, "name": "Alice", "email": "a@example.org", "permissions_v2": {}, "missing_tos": []}
            )
        if request == "POST token":
            return answer(200, self.make(body["description"]))
        if request == "GET token":
            return answer(
                200,
                [
                    {
                        "id": number,
                        "token": value,
                        "description": text,
                        "created": CREATED,
                        "updated": CREATED,
                        "last_used": None,
                    }
                    for number, (value, text) in sorted(self.keys.items(), reverse=True)
                ],
            )
        number = int(request.rpartition("/")[2])
        if number not in self.keys:
            return answer(404, "Token doesn't exist", "text/html")
        del self.keys[number]
        return answer(200, "success")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def api(server: Server) -> TokenApi:
    return TokenApi(SERVER, OWN, send=server.send)


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Thu, 01 Jan 1969 00:00:00 GMT",
        "soon",
        5,
        None,
    ],
)
def test_a_date_that_no_token_has_is_none(date: object) -> None:
    entry = {"id": 1, "token": OWN, "description": "lab", "created": date, "updated": date, "last_used": date}
    listing = listing_of([entry], answer(200, [entry]))
    told = describe(listing.tokens[0], listing, OWN)
    assert (told["created"], told["last_used"], told["age"]) == (None, None, None)


# -- kinds -------------------------------------------------------------------------------------------------------------


def test_a_token_in_its_persons_list_is_a_key(server: Server, api: TokenApi) -> None:
    assert api.kind() == TokenKind(KEY, 1)
    server.make("another")
    server.asked.clear()
    assert api.kind() == TokenKind(KEY, 2)
    assert server.asked == ["GET token"]


def test_a_token_that_no_list_shows_expires(server: Server, api: TokenApi) -> None:
    server.before = lambda _request, _server: answer(200, [])
    assert api.kind() == TokenKind(EXPIRING, 0)
    message = expiring_message(SERVER, OWN)
    assert OWN not in message
    assert fingerprint(OWN) in message
    assert "/sticky_auth/settings/tokens" in message


@pytest.mark.parametrize("status", [404, 405])
def test_where_no_tokens_are_listed_the_kind_is_unknown(status: int, server: Server, api: TokenApi) -> None:
    server.before = lambda _request, _server: answer(status, "nothing here", "text/html")
    assert api.kind() == TokenKind(UNKNOWN, 0)


@pytest.mark.parametrize("given", [INVALID, answer(500), answer(200, {}), answer(200, [{"id": 1}])])
def test_an_answer_that_is_no_list_says_nothing_about_the_kind(given: Answer, server: Server, api: TokenApi) -> None:
    server.before = lambda _request, _server: given
    with pytest.raises(CaveError):
        api.kind()


@pytest.mark.parametrize(
    ("given", "version"),
    [
        (answer(200, "neuroglance_auth -- version 2.30.3", "text/html"), (2, 30, 3)),
        (answer(200, "<html>Log in</html>", "text/html"), None),
        (answer(200, "neuroglance_auth -- version x", "text/html"), None),
        (answer(404, "neuroglance_auth -- version 2.30.3", "text/html"), None),
    ],
)
def test_the_version_of_the_auth_server(given: Answer, version: object) -> None:
    def send(_method: str, _url: str, token: str | None, **_options: Any) -> Answer:
        assert token is None
        return given

    assert TokenApi(SERVER, OWN, send=send).auth_version() == version


# -- making ------------------------------------------------------------------------------------------------------------


def test_a_description_is_compared_as_it_is(api: TokenApi) -> None:
    assert api.ensure("lab").created
    assert api.ensure("Lab").created
    assert api.ensure("lab 2").created


def test_of_several_with_one_description_every_run_takes_the_oldest(api: TokenApi, server: Server) -> None:
    server.make("lab")
    server.make("lab")
    assert api.ensure("lab").token == api.find("lab")
    assert api.ensure("lab").token.id == 2  # type: ignore[union-attr]  # there is one


def _makes_another(request: str, server: Server) -> None:
    """Make a token with the same description, as somebody else would at that moment."""
    if request == "POST token":
        server.make("lab")


def test_when_somebody_else_was_first_the_younger_token_is_given_up(api: TokenApi, server: Server) -> None:
    server.before = _makes_another
    made = api.ensure("lab")
    assert (made.created, made.token.id if made.token else 0) == (False, 2)
    assert sorted(server.keys) == [1, 2]


def test_when_somebody_else_was_second_the_older_token_stays(api: TokenApi, server: Server) -> None:
    server.after = _makes_another
    made = api.ensure("lab")
    assert (made.created, made.token.id if made.token else 0) == (True, 2)
    assert 2 in server.keys


def lost(kind: str) -> Callable[[str, Server], None]:
    def after(request: str, _server: Server) -> None:
        if request == "POST token":
            raise HttpError(kind, SERVER, "it broke")

    return after


@pytest.mark.parametrize("kind", ["cut", "timeout", "bad_answer", "too_large"])
def test_a_token_whose_answer_got_lost_is_found_by_its_description(api: TokenApi, server: Server, kind: str) -> None:
    server.after = lost(kind)
    assert api.ensure("lab").token.id == 2  # type: ignore[union-attr]  # there is one
    assert server.asked.count("POST token") == 1
    server.after = lambda _request, _server: None
    assert not api.ensure("lab").created
    assert sorted(server.keys) == [1, 2]


def test_what_came_of_a_request_without_an_answer_is_looked_up_though_the_time_is_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, left = [1000.0], []

    def send(method: str, url: str, token: str, **options: Any) -> Answer:
        left.append(options["timeout"])
        found = server.send(method, url, token, **options)
        if method in ("POST", "DELETE"):
            now[0] += 3
            raise HttpError("timeout", SERVER, "no complete answer within 3 s")
        return found

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made = TokenApi(SERVER, OWN, timeout=3, send=send).ensure("lab")
    assert made.token is not None
    TokenApi(SERVER, OWN, timeout=3, send=send).revoke(Selection(id=made.token.id))
    assert sorted(server.keys) == [1]
    assert all(seconds > 0 for seconds in left)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_error_that_made_no_token_is_told(api: TokenApi, server: Server, status: int) -> None:
    server.before = lambda request, _world: answer(status, "oops", "text/html") if request == "POST token" else None
    with pytest.raises(CaveError, match=f"status {status}.*No token was made that the server lists") as caught:
        api.ensure("lab")
    assert caught.value.details["access"]["verdict"] == "server_error"
    assert server.asked.count("POST token") == 1


def test_without_a_connection_nothing_is_in_doubt(api: TokenApi, server: Server) -> None:
    def before(request: str, _server: Server) -> None:
        if request == "POST token":
            raise HttpError("refused", SERVER, "connection refused")

    server.before = before
    with pytest.raises(CaveError) as caught:
        api.ensure("lab")
    assert caught.value.details["access"]["verdict"] == "unreachable"
    assert server.asked == ["GET token", "POST token"]


def test_when_the_old_token_died_and_the_answer_got_lost_the_page_is_named(api: TokenApi, server: Server) -> None:
    def after(request: str, world: Server) -> None:
        if request == "POST token":
            del world.keys[1]
            raise HttpError("cut", SERVER, "it broke")

    server.after = after
    with pytest.raises(CaveError, match=r"not known whether the token was made.*/sticky_auth/settings/tokens"):
        api.ensure("lab")


@pytest.mark.parametrize("status", [404, 405])
def test_an_older_server_is_recognised(api: TokenApi, server: Server, status: int) -> None:
    server.before = lambda request, _world: answer(status, "no", "text/html") if request == "POST token" else None
    with pytest.raises(CaveError, match=r"cannot make tokens for programs.*/sticky_auth/settings/tokens"):
        api.ensure("lab")
    server.before = lambda request, _world: answer(status, "no", "text/html") if request == "GET token" else None
    with pytest.raises(CaveError, match="cannot list tokens"):
        api.ensure("lab")


def test_a_made_token_that_is_in_no_list_is_told(api: TokenApi, server: Server) -> None:
    def after(request: str, world: Server) -> None:
        if request == "POST token":
            world.keys[2] = (world.keys[2][0], "something else")

    server.after = after
    with pytest.raises(CaveError, match="does not list it with the description"):
        api.ensure("lab")


@pytest.mark.parametrize("content", ["", "two words", "x" * 5000, 5, None, ["a"], {"token": "a"}])
def test_what_is_no_token_is_not_taken_for_one(api: TokenApi, server: Server, content: object) -> None:
    server.before = lambda request, _world: answer(200, content) if request == "POST token" else None
    with pytest.raises(CaveError) as caught:
        api.ensure("lab")
    assert caught.value.details["access"]["verdict"] == "not_a_cave_server"


@pytest.mark.parametrize(
    "refusal",
    [
        INVALID,
        answer(302, "", "text/html"),
        answer(200, "<html>log in</html>", "text/html"),
        answer(429, "slow", "text/html"),
    ],
)
@pytest.mark.parametrize("request_", ["GET token", "POST token"])
def test_a_refusal_is_told_as_a_verdict(api: TokenApi, server: Server, refusal: Answer, request_: str) -> None:
    server.before = lambda request, _world: refusal if request == request_ else None
    with pytest.raises(CaveError) as caught:
        api.ensure("lab")
    assert caught.value.details["access"]["verdict"] in ("invalid_token", "not_a_cave_server", "rate_limited")
    assert OWN not in str(caught.value) + repr(caught.value.details)
    assert sorted(server.keys) == [1]


@pytest.mark.parametrize(
    "content", [[1], [{}], [{"id": True, "token": "a"}], [{"id": 1, "token": 5}], {"a": 1}, "x", None]
)
def test_a_list_of_another_form_is_refused(api: TokenApi, server: Server, content: object) -> None:
    server.before = lambda request, _world: answer(200, content) if request == "GET token" else None
    with pytest.raises(CaveError):
        api.listing()


# -- revoking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection", [Selection(id=2), Selection(description="lab"), Selection(fingerprint=fingerprint(f"{2:032x}"))]
)
def test_a_token_is_revoked_proven_and_stays_revoked(api: TokenApi, server: Server, selection: Selection) -> None:
    server.make("lab")
    assert [token.id for token in api.revoke(selection, check=True)[1]] == [2]
    assert sorted(server.keys) == [1, 2]
    assert [token.id for token in api.revoke(selection)[1]] == [2]
    assert sorted(server.keys) == [1]
    assert server.asked[-2:] == ["DELETE token/2", "GET cache"]
    assert api.revoke(selection)[1] == []


def test_several_are_revoked_only_when_that_is_said_the_own_one_last(api: TokenApi, server: Server) -> None:
    server.keys[1] = (OWN, "lab")
    server.make("lab")
    with pytest.raises(CaveError, match=r"2 tokens with the description 'lab' .ids 2, 1."):
        api.revoke(Selection(description="lab"))
    api.revoke(Selection(description="lab"), all_of_them=True, force=True)
    assert server.keys == {}
    assert [request for request in server.asked if request.startswith("DELETE")] == ["DELETE token/2", "DELETE token/1"]


@pytest.mark.parametrize("lost_answer", [True, False])
def test_whether_a_token_is_gone_is_proven_and_not_believed(api: TokenApi, server: Server, lost_answer: bool) -> None:
    server.make("lab")

    def broken(request: str, world: Server) -> Answer | None:
        if not request.startswith("DELETE"):
            return None
        if lost_answer:
            del world.keys[2]
            raise HttpError("cut", SERVER, "it broke")
        return answer(200, "success")

    server.before = broken
    if lost_answer:
        assert [token.id for token in api.revoke(Selection(id=2))[1]] == [2]
    else:
        with pytest.raises(CaveError, match=r"says that the token .* is revoked, and still accepts it"):
            api.revoke(Selection(id=2))


def test_a_shared_token_that_another_host_revokes_at_the_same_time_is_no_failure(api: TokenApi, server: Server) -> None:
    mine = Selection(fingerprint=fingerprint(OWN))
    asked_alone = []
    server.before = lambda request, _world: asked_alone.append(request)
    api.revoke(mine, force=True, check=True)
    for moment in range(len(asked_alone) + 2):
        server.keys, server.asked = {1: (OWN, "first")}, []

        def elsewhere(_request: str, world: Server, moment: int = moment) -> None:
            if len(world.asked) > moment:
                world.keys.clear()

        server.before = elsewhere
        api.revoke(mine, force=True)
        assert server.keys == {}
    server.before = lambda _request, _world: INVALID
    with pytest.raises(CaveError, match="does not accept the token"):
        api.revoke(Selection(id=1), force=True)


def test_a_token_that_somebody_else_revoked_meanwhile_is_no_failure(api: TokenApi, server: Server) -> None:
    server.make("lab")
    server.before = lambda request, world: world.keys.pop(2) and None if request.startswith("DELETE") else None
    assert [token.id for token in api.revoke(Selection(id=2))[1]] == [2]


# -- what is said about a token ----------------------------------------------------------------------------------------


def test_a_token_is_described_without_its_value() -> None:
    token = ServerToken(5, f"mine {OWN}\x1b[31m", MOMENT, MOMENT, None, OWN)
    shown = describe(token, Listing((token,), MOMENT + 60), OWN)
    assert shown == {
        "id": 5,
        "description": f"mine <token {fingerprint(OWN)}>",
        "created": "2026-11-22T12:55:55Z",
        "updated": "2026-11-22T12:55:55Z",
        "last_used": None,
        "age": 60,
        "unused_for": None,
        "fingerprint": fingerprint(OWN),
        "current": True,
    }
    assert OWN not in repr(token) + repr(shown)


def test_moments_are_read_as_the_server_writes_them(api: TokenApi) -> None:
    listing = api.listing()
    assert listing.tokens[0].created == MOMENT
    assert listing.now == MOMENT + 245
    assert iso(None) is None


def test_the_tokens_of_a_very_busy_person_are_described_in_no_time(api: TokenApi, server: Server) -> None:
    records = [{"id": number, "token": f"{number:032x}", "description": "x" * 500} for number in range(MOST_LISTED)]
    server.before = lambda _request, _world: answer(200, records)
    started = time.process_time()
    listing = api.listing()
    assert len([describe(token, listing, OWN) for token in listing.tokens]) == MOST_LISTED
    assert time.process_time() - started < 2


def test_more_tokens_than_anybody_has_are_refused(api: TokenApi, server: Server) -> None:
    records = [{"id": number, "token": f"{number:032x}"} for number in range(MOST_LISTED + 1)]
    server.before = lambda _request, _world: answer(200, records)
    with pytest.raises(CaveError, match="lists 1001 tokens, and nobody has more than 1000") as caught:
        api.listing()
    assert caught.value.details["access"]["verdict"] == "not_a_cave_server"


@pytest.mark.parametrize("text", ["yesterday", "", 5, None, "Sun, 99 Nov 2026 12:55:55 GMT"])
def test_a_moment_that_cannot_be_read_is_not_known(api: TokenApi, server: Server, text: object) -> None:
    record = {"id": 1, "token": OWN, "description": None, "created": text, "updated": text, "last_used": text}
    server.before = lambda _request, _world: answer(200, [record])
    assert api.listing().tokens == (ServerToken(1, "", None, None, None, OWN),)


@pytest.mark.parametrize("text", ["", "  ", "x" * 121, " lab", "lab\n", "a\x00b", "a\u202eb", f"my {OWN}"])
def test_a_description_that_the_server_or_a_person_could_not_take_is_refused(text: str) -> None:
    with pytest.raises(CaveError) as caught:
        clean_description(text, OWN)
    assert OWN not in caught.value.message


@pytest.mark.parametrize("text", ["x" * 120, "Lab, Frühjahr 2026", "{'a': 1}", "<b>", 'o\'brien "x"'])
def test_any_other_description_is_taken_as_it_is(text: str) -> None:
    assert clean_description(text, OWN) == text


@pytest.mark.parametrize("text", ["", "3fa9c2d", "3fa9c2d1a", "xyzxyzxy", OWN])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    assert clean_fingerprint(" 3FA9C2D1 ") == "3fa9c2d1"
    with pytest.raises(CaveError) as caught:
        clean_fingerprint(text)
    assert OWN not in caught.value.message
