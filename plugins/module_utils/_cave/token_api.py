# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tokens of a person on the auth server: list them, make one once, revoke some.

Everything goes through ``/auth/api/v1/user/token``. ``create_token`` does the same by a GET and is never asked, since a
question must not make a token.
"""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from typing import Any, Callable, Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    account_of,
    failure_verdict,
    refusal_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import (
    Answer,
    HttpError,
    request_with_retries,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token, fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Person,
    Verdict,
    clean_text,
    token_page,
    user_cache_url,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LONGEST_DESCRIPTION = 120
"""Characters. A longer one gives 500 and leaves a token behind that no list shows (middle_auth 2.30.3)."""
MOST_LISTED = 1000
"""Tokens. Nobody has as many; what is done with each of them takes time for each of the others."""

_FINGERPRINT = re.compile(r"[0-9a-f]{8}")

_DOUBTFUL = frozenset(("cut", "timeout", "too_large", "bad_answer"))
"""Failures after which the server may have done what it was asked for."""

Send = Callable[..., Answer]
"""``request_with_retries``, or what stands in for it."""


class ServerToken(NamedTuple):
    """A token as its server lists it. Moments are seconds since the epoch; ``value`` is the token itself."""

    id: int
    description: str
    created: float | None
    updated: float | None
    last_used: float | None
    value: str

    def __repr__(self) -> str:
        """Return it without the value, since tracebacks and logs show this."""
        return f"<token {self.id} {self.fingerprint}>"

    @property
    def fingerprint(self) -> str:
        """The name of the token wherever it is shown."""
        return fingerprint(self.value)


class Listing(NamedTuple):
    """All tokens of a person, newest first, and the moment of the server's clock at which they were so."""

    tokens: tuple[ServerToken, ...]
    now: float


class Made(NamedTuple):
    """What came of ``ensure``: the token (None: it would be made), whether this call made it, and whether the token
    that made it is still accepted (None: not looked, as nothing was made)."""

    token: ServerToken | None
    created: bool
    old_token_alive: bool | None


class Selection(NamedTuple):
    """Which tokens are meant, by one of these."""

    id: int | None = None
    description: str | None = None
    fingerprint: str | None = None

    def matches(self, token: ServerToken) -> bool:
        """Whether a token is one of those meant."""
        if self.id is not None:
            return token.id == self.id
        if self.description is not None:
            return token.description == self.description
        return token.fingerprint == self.fingerprint

    def __str__(self) -> str:
        """Return it as messages name it."""
        name, value = next((name, value) for name, value in self._asdict().items() if value is not None)
        return f"{name} {value!r}"


def clean_description(description: str, token: str = "") -> str:
    """Return a description that the server takes.

    Raises:
        CaveError: it is empty, too long, or has characters that make it hard to find again; or it holds ``token``.
    """
    if not description.strip():
        raise CaveError("The description is empty. Give the token a name to find it by, such as 'lab, spring 2026'.")
    if token and token in description:
        raise CaveError("The description holds the token itself. It is shown to everybody: give a name in its place.")
    if len(description) > LONGEST_DESCRIPTION:
        raise CaveError(
            f"The description has {len(description)} characters; servers take {LONGEST_DESCRIPTION} at most, and "
            "make a token that no list shows when it is longer. Shorten it."
        )
    if description != description.strip() or not description.isprintable():
        raise CaveError("The description begins or ends with white space, or has control characters. Drop these.")
    return description


def clean_fingerprint(value: str) -> str:
    """Return a fingerprint, or raise CaveError."""
    text = value.strip().lower()
    if not _FINGERPRINT.fullmatch(text):
        raise CaveError("The fingerprint is not 8 hex digits, as the first ones of the token's SHA-256 are.")
    return text


def iso(moment: float | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the second."""
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(token: ServerToken, listing: Listing, current: str) -> dict[str, Any]:
    """Return what may be shown of a token; ``current`` is the value of the one that authenticates."""
    values = [item.value for item in listing.tokens]

    def age(moment: float | None) -> int | None:
        return None if moment is None else max(0, int(listing.now - moment))

    return {
        "id": token.id,
        "description": clean_text(token.description, values, LONGEST_DESCRIPTION),
        "created": iso(token.created),
        "updated": iso(token.updated),
        "last_used": iso(token.last_used),
        "age": age(token.created),
        "unused_for": age(token.last_used),
        "fingerprint": token.fingerprint,
        "current": token.value == current,
    }


class TokenApi:
    """A person's tokens on a server, for the one who holds ``token``.

    Args:
        server: canonical address of the auth server.
        token: authenticates. It has to be alive.
        timeout: seconds for everything that is done through this object, retries included.
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
        if len(content) > MOST_LISTED:
            raise _strange_list(self.server, f"lists {len(content)} tokens, and nobody has more than {MOST_LISTED}")
        return Listing(tuple(_token(item, self.server) for item in content), _now(answer))

    def owner(self, token: str | None = None) -> Person | Verdict:
        """Return whose token it is, or the verdict of a server that refuses it. Raises CaveError for all else."""
        token = token or self.token
        account = account_of(self._ask("GET", user_cache_url(self.server), token), self.server, token)
        if isinstance(account, Account):
            return account.person
        if account.verdict != "invalid_token":
            raise _refusal(account)
        return account

    def alive(self, token: str | None = None) -> bool:
        """Tell whether the auth server accepts a token. Raises CaveError when it cannot be found out."""
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
        raise _refusal(verdict)

    def _made_after_all(self, description: str, verdict: Verdict) -> str:
        """Return the token that was made although the answer was lost."""
        try:
            found = self.find(description)
        except CaveError as error:
            raise CaveError(
                f"{verdict.message} So it is not known whether the token was made, and it cannot be looked up either: "
                f"{error.message} Look at {token_page(self.server)}.",
                **error.details,
            ) from None
        if found is None:
            raise _refusal(verdict._replace(message=f"{verdict.message} No token was made that the server lists."))
        return found.value

    def revoke(
        self, selection: Selection, *, all_of_them: bool = False, force: bool = False, check: bool = False
    ) -> tuple[Listing, list[ServerToken]]:
        """Revoke the tokens that are meant, and prove that the auth server refuses them.

        Args:
            selection: which.
            all_of_them: also when it means several.
            force: also the token that authenticates.
            check: only say what would be done.

        Returns:
            All tokens as they were before, and those of them that were meant.

        Raises:
            CaveError: several are meant, or the one that authenticates; or it did not work.
        """
        try:
            listing = self.listing()
        except CaveError as error:
            # Others who hold the token may have revoked it, a moment ago as well: then it is as it should be.
            verdict = error.details.get("access", {}).get("verdict")
            if verdict == "invalid_token" and selection.fingerprint == fingerprint(self.token):
                return Listing((), time.time()), []
            raise
        meant = [token for token in listing.tokens if selection.matches(token)]
        if len(meant) > 1 and not all_of_them:
            ids = ", ".join(str(token.id) for token in meant)
            raise CaveError(
                f"{self.server} has {len(meant)} tokens with the {selection} (ids {ids}). "
                "Name one by its id, or say that all of them are meant."
            )
        own = next((token for token in meant if token.value == self.token), None)
        if own is not None and not force:
            raise CaveError(
                f"The token with the {selection} is the one that authenticates here ({own.fingerprint}). "
                "Authenticate with another one, or say that it is meant (force)."
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
        # The proof decides, whatever the answer was: it may have got lost after the work was done.
        if self.alive(token.value):
            if trouble is not None:
                raise _refusal(trouble)
            raise CaveError(
                f"{self.server} says that the token {token.fingerprint} (id {token.id}) is revoked, and still accepts "
                f"it. Look at {token_page(self.server)}, and revoke it there."
            )

    # The wire

    def _url(self) -> str:
        return f"{self.server}/auth/api/v1/user/token"

    def _ask(self, method: str, url: str, token: str, **options: Any) -> Answer:
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


def _refusal(verdict: Verdict) -> CaveError:
    return CaveError(f"{verdict.message} {verdict.remedy}".strip(), access=verdict.as_dict())


def _strange_list(server: str, reason: str) -> CaveError:
    remedy = "Is it a CAVE server? Please report it if it is."
    return _refusal(Verdict("not_a_cave_server", f"{server} {reason}.", remedy, server))


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


def _now(answer: Answer) -> float:
    """The server's clock, so that ages are right on a machine whose own is wrong."""
    moment = _moment(answer.headers.get("date"))
    return time.time() if moment is None else moment


def _moment(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _token(item: object, server: str) -> ServerToken:
    record = item if isinstance(item, dict) else {}
    number, value, description = record.get("id"), record.get("token"), record.get("description")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(value, str) or not value:
        reason = "lists tokens in a form that this collection does not know: no id and token in an entry"
        raise _strange_list(server, reason)
    created, updated, last_used = (_moment(record.get(name)) for name in ("created", "updated", "last_used"))
    return ServerToken(number, description if isinstance(description, str) else "", created, updated, last_used, value)
