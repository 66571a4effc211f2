# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens of a person on the auth server: list them, make one once, revoke some.

Everything goes through ``/auth/api/v1/user/token``. ``create_token`` does the same by a GET and is never asked, since a
question must not make a token.
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    account_of,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import failure_verdict, refusal_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.retries import request_with_retries
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    Listing,
    Selection,
    ServerToken,
    listing_of,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Person,
    Verdict,
    token_page,
    user_cache_url,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

_DOUBTFUL = frozenset(("cut", "timeout", "too_large", "bad_answer"))
"""Failures after which the server may have done what it was asked for."""

KEY = "key"
"""A token that lives until it is revoked."""
EXPIRING = "expiring"
"""A token that no list shows: that of a browser login, which ends by itself within a week."""
UNKNOWN = "unknown"
"""The server doesn't list tokens, so nobody can say."""
_AUTH_VERSION = re.compile(r"neuroglance_auth -- version (\d+)\.(\d+)\.(\d+)")

Send = Callable[..., Answer]
"""``request_with_retries``, or what stands in for it."""


class NotMadeError(CaveError):
    """A token that was asked for was certainly not made."""


class TokenKind(NamedTuple):
    """What sort of token it is (``KEY``, ``EXPIRING`` or ``UNKNOWN``), and how many keys its person has."""

    kind: str
    keys: int = 0


class Made(NamedTuple):
    """What came of ``ensure``: the token (None: it would be made), whether this call made it, and whether the token
    that made it is still accepted (None: not looked, as nothing was made)."""

    token: ServerToken | None
    created: bool
    old_token_alive: bool | None


class TokenApi:
    """A person's tokens on a server, for the one who holds ``token``.

    Args:
        server: canonical address of the auth server.
        token: authenticates. It has to be alive.
        timeout: seconds for everything that is done through this object, retries included; and up to five more to
            find out what came of a request that was not answered in that time.
        retries: further tries when the server is busy or can't be reached.
        ca_path: bundle of CA certificates to trust; None: the environment's or the system's.
        send: takes the place of ``request_with_retries`` in tests.
    """

    def __init__(
        self,
        server: str,
        token: str,
        *,
        timeout: float = 30,
        retries: int = 2,
        ca_path: str | None = None,
        send: Send = request_with_retries,
    ) -> None:
        self.server = server
        self.token = token
        self._deadline = time.monotonic() + timeout
        self._to_look_up = min(timeout, 5.0)
        self._retries = retries
        self._ca_path = ca_path
        self._request = send

    # Questions

    def listing(self) -> Listing:
        """Return all tokens of the person. Raises CaveError."""
        return self._listing(self.token)

    def _listing(self, token: str) -> Listing:
        answer = self._ask("GET", self._url(), token)
        if answer.status in (404, 405):
            raise CaveError(
                f"{self.server} cannot list tokens (status {answer.status}): it is an older server, or its address is "
                f"wrong. Make and revoke tokens on its page: {token_page(self.server)}",
                unsupported=True,
            )
        content = _json(answer)
        if answer.status != 200 or not isinstance(content, list):
            raise _refusal(refusal_verdict(answer, self.server, token, "a list of tokens, as JSON"))
        try:
            return listing_of(content, answer)
        except ValueError as error:
            remedy = "Is it a CAVE server? Please report it if it is."
            raise _refusal(Verdict("not_a_cave_server", f"{self.server} {error}.", remedy, self.server)) from None

    def owner(self, token: str | None = None) -> Person | Verdict:
        """Return whose token it is, or the verdict of a server that refuses it. Raises CaveError for all else."""
        token = token or self.token
        account = account_of(self._ask("GET", user_cache_url(self.server), token), self.server, token)
        if isinstance(account, Account):
            return account.person
        if account.verdict != "invalid_token":
            raise _refusal(account)
        return account

    def kind(self) -> TokenKind:
        """Return what sort of token authenticates here, by one request: is it in its person's own list?

        The list shows all tokens of the person in clear. They are compared here, and dropped.

        Raises:
            CaveError: the server refuses the token, or can't be asked.
        """
        try:
            values = [token.value for token in self.listing().tokens]
        except CaveError as error:
            if error.details.get("unsupported"):
                return TokenKind(UNKNOWN)
            raise
        return TokenKind(KEY if self.token in values else EXPIRING, len(values))

    def auth_version(self) -> tuple[int, int, int] | None:
        """Return the version of the auth server (middle_auth), which it tells to all; None when it is of another kind.

        Raises:
            CaveError: it can't be asked.
        """
        answer = self._ask("GET", f"{self.server}/auth/version", None)
        found = _AUTH_VERSION.search(answer.body[:200].decode("utf-8", "replace")) if answer.status == 200 else None
        return (int(found[1]), int(found[2]), int(found[3])) if found else None

    def alive(self, token: str | None = None) -> bool:
        """Return whether the auth server accepts a token. Raises CaveError when it cannot be found out."""
        return isinstance(self.owner(token), Person)

    # Changes

    def ensure(
        self,
        description: str,
        *,
        same: Callable[[str], bool] | None = None,
        keep: Callable[[str], None] = lambda _value: None,
        check: bool = False,
    ) -> Made:
        """Make a token with this description, unless there is one.

        Two who do it at the same time end up with the same token: the one of the lower id wins, and the other one is
        revoked by whoever made it. So does a run that follows one that was cut off.

        Args:
            description: as of ``clean_description``.
            same: tells which descriptions count as the same; None: that one alone.
            keep: gets the value of the token to use, before anything else is done, and once more if another one is to
                be used after all. Where a new token kills the old one, a value that is lost cannot be had again.
            check: only say what would be done.

        Raises:
            CaveError: it could not be made, or it is not known whether it was. The next call finds it, if it was.
        """
        same = same or description.__eq__
        found = _oldest(token for token in self.listing().tokens if same(token.description))
        if check:
            return Made(found, found is None, None)
        if found is not None:
            keep(found.value)
            return Made(found, False, None)
        value = self._make(description)
        keep(value)
        listed = [token for token in self._listing(value).tokens if same(token.description)]
        own = next((token for token in listed if token.value == value), None)
        if own is None:
            raise CaveError(
                f"{self.server} made the token {fingerprint(value)}, but does not list it with the description that "
                f"was asked for. Look at {token_page(self.server)}, and revoke it there."
            )
        winner = _oldest(listed) or own
        if winner is not own:
            keep(winner.value)
            self._delete(own, value)
        return Made(winner, winner is own, self.alive())

    def find(self, description: str) -> ServerToken | None:
        """Return the token with this description; of several the oldest, which is the one that every run takes."""
        return _oldest(token for token in self.listing().tokens if token.description == description)

    def _make(self, description: str) -> str:
        # Sent again by request_with_retries only when the server has certainly not acted.
        try:
            answer = self._ask("POST", self._url(), self.token, json_body={"description": description})
            if answer.status in (404, 405):
                raise CaveError(
                    f"{self.server} cannot make tokens for programs (status {answer.status}): it is an older server. "
                    f"Make one on {token_page(self.server)}, put it into the vault, and roll that one out.",
                    unsupported=True,
                )
            if answer.status == 200 and _is_token(_json(answer)):
                return str(_json(answer))
            verdict = refusal_verdict(answer, self.server, self.token, "a token, as JSON")
            doubtful = answer.status == 200 or answer.status >= 500
        except HttpError as failure:
            verdict, doubtful = failure_verdict(failure, self.server), failure.kind in _DOUBTFUL
        if doubtful:
            return self._made_after_all(description, verdict)
        raise _not_made(verdict)

    def _made_after_all(self, description: str, verdict: Verdict) -> str:
        """Return the token that was made although the answer was lost."""
        self._take_time_to_look_up()
        try:
            found = self.find(description)
        except CaveError as error:
            raise CaveError(
                f"{verdict.message} So it is not known whether the token was made: look for {description!r} on "
                f"{token_page(self.server)}. It cannot be looked up from here: {error.message}",
                **error.details,
            ) from None
        if found is None:
            verdict = verdict._replace(message=f"{verdict.message} No token was made that the server lists.")
            raise _not_made(verdict)
        return found.value

    def revoke(
        self, selection: Selection, *, all_of_them: bool = False, force: bool = False, check: bool = False
    ) -> tuple[Listing, list[ServerToken]]:
        """Revoke the selected tokens, and prove that the auth server refuses them.

        Args:
            selection: which.
            all_of_them: also when it means several.
            force: also the token that authenticates.
            check: only say what would be done.

        Returns:
            All tokens as they were before, and those of them that were meant.

        Raises:
            CaveError: several are selected, or the one that authenticates; or it did not work.
        """
        try:
            listing = self.listing()
        except CaveError as error:
            # Others who hold the token may have revoked it, a moment ago as well: then nothing is left to do.
            verdict = error.details.get("access", {}).get("verdict")
            if verdict == "invalid_token" and selection.fingerprint == fingerprint(self.token):
                return Listing((), time.time()), []
            raise
        meant = [token for token in listing.tokens if selection.matches(token)]
        if len(meant) > 1 and not all_of_them:
            ids = ", ".join(str(token.id) for token in meant)
            raise CaveError(
                f"{self.server} has {len(meant)} tokens with the {selection} (ids {ids}). "
                "Name one by its id, or set all: true to revoke all of them."
            )
        own = next((token for token in meant if token.value == self.token), None)
        if own is not None and not force:
            raise CaveError(
                f"The token with the {selection} is the one that authenticates here ({own.fingerprint}). "
                "Authenticate with another one, or set force: true."
            )
        # The one that authenticates goes last, or it could not revoke the others.
        meant.sort(key=lambda token: token.value == self.token)
        if not check:
            for token in meant:
                self._delete(token, self.token)
        return listing, meant

    def _delete(self, token: ServerToken, by: str) -> None:
        """Delete a token and prove it. A 404 means that somebody else has done it."""
        trouble = None
        try:
            answer = self._ask("DELETE", f"{self._url()}/{token.id:d}", by)
            if answer.status not in (200, 404):
                trouble = refusal_verdict(answer, self.server, by, "that the token is deleted")
        except HttpError as failure:
            trouble = failure_verdict(failure, self.server)
            self._take_time_to_look_up()
        # The proof decides, whatever the answer was: it may have got lost after the work was done.
        if self.alive(token.value):
            if trouble is not None:
                raise _refusal(trouble)
            raise CaveError(
                f"{self.server} says that the token {token.fingerprint} (id {token.id}) is revoked, and still accepts "
                f"it. Look at {token_page(self.server)}, and revoke it there."
            )

    # The wire

    def _take_time_to_look_up(self) -> None:
        self._deadline = max(self._deadline, time.monotonic() + self._to_look_up)

    def _url(self) -> str:
        return f"{self.server}/auth/api/v1/user/token"

    def _ask(self, method: str, url: str, token: str | None, **options: Any) -> Answer:
        try:
            return self._request(
                method,
                url,
                token,
                timeout=max(0.0, self._deadline - time.monotonic()),
                retries=self._retries,
                ca_path=self._ca_path,
                **options,
            )
        except HttpError as failure:
            if method != "GET":
                raise
            raise _refusal(failure_verdict(failure, self.server)) from None


def expiring_message(server: str, token: str) -> str:
    """Return what to tell people about a token that ends by itself."""
    return (
        f"The token {fingerprint(token)} is in no list of {server}: it comes from a browser's login, and ends by "
        f"itself within a week. Make one that stays on {token_page(server)} (Create new token), and use that."
    )


def _not_made(verdict: Verdict) -> NotMadeError:
    return NotMadeError(f"{verdict.message} {verdict.remedy}".strip(), access=verdict.as_dict())


def _refusal(verdict: Verdict) -> CaveError:
    return CaveError(f"{verdict.message} {verdict.remedy}".strip(), access=verdict.as_dict())


def _oldest(tokens: Iterable[ServerToken]) -> ServerToken | None:
    return min(tokens, key=lambda token: token.id, default=None)


def _json(answer: Answer) -> Any:
    try:
        return answer.json() if answer.claims_json else None
    except ValueError:
        return None


def _is_token(value: object) -> bool:
    try:
        return isinstance(value, str) and clean_token(value) == value
    except CaveError:
        return False
