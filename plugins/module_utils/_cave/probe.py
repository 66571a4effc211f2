# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a token gives access, asked of the server itself."""

from __future__ import annotations

import time
from typing import Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    account_of,
    account_verdict,
    datastack_verdict,
    permitted_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError
from ansible_collections.connectomics.cave.plugins.module_utils._cave.retries import request_with_retries
from ansible_collections.connectomics.cave.plugins.module_utils._cave.side_by_side import AT_ONCE, side_by_side
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    dataset_url,
    datastack_url,
    owed_by_parent,
    user_cache_url,
    worst,
)
from ansible_collections.connectomics.cave.plugins.module_utils._masking import fingerprint

_ENOUGH = 3.0
"""Seconds in which a service that works has answered."""


class Question(NamedTuple):
    """A token to check: with which server, for which datastacks (names; none: only whether the token is known)."""

    server: str
    token: str
    datastacks: tuple[str, ...] = ()


class Access(NamedTuple):
    """The whole answer to a Question: the overall (worst) verdict, and one for each datastack.

    ``account`` is None when the auth server does not accept the token, or could not be asked.
    """

    overall: Verdict
    datastacks: tuple[Verdict, ...] = ()
    account: Account | None = None


class _Limits(NamedTuple):
    """How long and how often to ask; ``deadline`` is a time.monotonic()."""

    deadline: float
    retries: int
    ca_path: str | None


def _examine(question: Question, limits: _Limits, records: bool) -> Access:
    server, token, _names = question
    answer = _ask(user_cache_url(server), question, limits)
    account = account_of(answer, server, token) if isinstance(answer, Answer) else answer
    if isinstance(account, Verdict):
        return Access(account._replace(fingerprint=fingerprint(token)))
    found = (_on_datastack(name, account, question, limits, records) for name in question.datastacks)
    verdicts = tuple(owed_by_parent(verdict, account.person) for verdict in found)
    overall = worst(verdicts) or account_verdict(account, server)
    if overall.ok:
        overall = account_verdict(account, server)
        if verdicts:
            names = ", ".join(question.datastacks)
            overall = overall._replace(message=f"{overall.message[:-1]}, for {names}.")
    return Access(overall._replace(person=account.person, fingerprint=fingerprint(token)), verdicts, account)


def _on_datastack(name: str, account: Account, question: Question, limits: _Limits, records: bool) -> Verdict:
    known = permitted_verdict(account, question.server, name)
    if known is not None and not (known.ok and records):
        return known
    began = time.monotonic()
    verdict = _on_record(name, question, limits)
    if verdict.ok:
        return verdict
    from ansible_collections.connectomics.cave.plugins.module_utils._cave import refusals  # see answers

    # Of one who had no time left for its answer, nothing is known.
    had_time = "no complete answer" not in verdict.message or time.monotonic() - began >= _ENOUGH
    if verdict.verdict == "invalid_token":
        return refusals.refused_by_info_verdict(question.server, name)
    # A moment ago, the auth server answered under the same address, with the same authorities trusted.
    is_silent = verdict.verdict in ("unreachable", "not_a_cave_server", "tls_error")
    if is_silent and had_time and "proxy " not in verdict.message:
        return refusals.silent_info_verdict(verdict)
    if verdict.verdict != "unknown_datastack":
        return verdict
    mapping = None if known else _ask(dataset_url(question.server, "datastack", name), question, limits)
    mapping = None if isinstance(mapping, Verdict) else mapping
    return refusals.unknown_datastack_verdict(verdict, account, question.server, name, mapping)


def ask_record(
    server: str, datastack: str, token: str, *, timeout: float, retries: int = 0, ca_path: str | None = None
) -> Verdict:
    """Return what the info service says of a datastack's record, in one request: ``local_server`` is of interest.

    That says nothing about the token: the info service goes on accepting a dead one for up to 300 s.
    """
    limits = _Limits(time.monotonic() + timeout, retries, ca_path)
    return _on_record(datastack, Question(server, token), limits)


def _on_record(name: str, question: Question, limits: _Limits) -> Verdict:
    answer = _ask(datastack_url(question.server, name), question, limits)
    if isinstance(answer, Verdict):
        return answer._replace(datastack=name)
    return datastack_verdict(answer, question.server, name, question.token)


def _ask(url: str, question: Question, limits: _Limits) -> Answer | Verdict:
    try:
        return request_with_retries(
            "GET",
            url,
            question.token,
            timeout=max(0.0, limits.deadline - time.monotonic()),
            retries=limits.retries,
            ca_path=limits.ca_path,
        )
    except HttpError as failure:
        from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import failure_verdict

        return failure_verdict(failure, question.server)


def prove(
    questions: Iterable[Question],
    *,
    timeout: float = 30,
    retries: int = 2,
    ca_path: str | None = None,
    records: bool = False,
) -> dict[Question, Access]:
    """Return what the servers say about several tokens, asked side by side, each distinct Question once.

    In the common case that is one request a token: the auth server's ``user/cache`` tells whose it is, what it may see
    and which terms are owed, and refuses a replaced token at once. (The info service alone goes on accepting a dead
    token for up to 300 s.) Once a server could not be reached, those who still wait for their turn with that server
    get the same verdict without a wait of their own. Nothing is raised for what a server does.

    Args:
        questions: the tokens, clean.
        timeout: seconds for each Question, retries and pauses included.
        retries: further tries when the server is busy or can't be reached.
        ca_path: bundle of CA certificates to trust; None: the environment's or the system's.
        records: read the record of every datastack from the info service, not only where the permissions don't name
            the datastack; the verdicts of the datastacks then have its ``local_server``.
    """
    down: dict[str, Verdict] = {}

    def work(question: Question) -> Access:
        out_of_reach = down.get(question.server)
        if out_of_reach is not None:
            return Access(out_of_reach._replace(fingerprint=fingerprint(question.token)))
        access = _examine(question, _Limits(time.monotonic() + timeout, retries, ca_path), records)
        if access.overall.verdict in ("unreachable", "tls_error") and access.account is None:
            down[question.server] = access.overall
        return access

    return side_by_side(questions, work, AT_ONCE)
