# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a token gives access, asked of the server itself."""

from __future__ import annotations

import threading
import time
from typing import Iterable, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import (
    Answer,
    HttpError,
    request_with_retries,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import fingerprint
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Account,
    Verdict,
    account_of,
    account_verdict,
    datastack_url,
    datastack_verdict,
    failure_verdict,
    permitted_verdict,
    user_cache_url,
    worst,
)

AT_ONCE = 16
"""Tokens that are checked at the same time from one host."""


class Question(NamedTuple):
    """A token to check: with which server, for which datastacks (names; none: only whether the token is known)."""

    server: str
    token: str
    datastacks: tuple[str, ...] = ()


class Access(NamedTuple):
    """The whole answer to a Question: the overall (worst) verdict, and one for each datastack."""

    overall: Verdict
    datastacks: tuple[Verdict, ...] = ()


class _Limits(NamedTuple):
    """How long and how often to ask; ``deadline`` is a time.monotonic()."""

    deadline: float
    retries: int
    ca_path: str | None


def prove_token(
    server: str,
    token: str,
    datastacks: Iterable[str] = (),
    *,
    timeout: float = 30,
    retries: int = 2,
    ca_path: str | None = None,
) -> Verdict:
    """Return whether a token gives access to a server and to the datastacks named, in one request in the common case.

    The auth server's ``user/cache`` tells whose token it is, what it may see and which terms are owed, and refuses a
    replaced token at once. The info service is asked only about a datastack that the permissions don't name.

    Args:
        server: canonical address of the auth server.
        token: a clean token.
        datastacks: names of datastacks.
        timeout: seconds in total, retries and pauses included.
        retries: further tries when the server is busy or can't be reached.
        ca_path: bundle of CA certificates to trust; None: the environment's or the system's.

    Returns:
        The worst verdict, with the person and the token's fingerprint. It never raises for what a server does.
    """
    return examine(
        Question(server, token, tuple(datastacks)), timeout=timeout, retries=retries, ca_path=ca_path
    ).overall


def check_access(
    server: str,
    token: str,
    datastacks: Iterable[str] = (),
    *,
    timeout: float = 30,
    retries: int = 2,
    ca_path: str | None = None,
) -> Access:
    """Like ``prove_token``, but asks the info service about every datastack as well, and returns every verdict.

    Both are asked because the info service alone goes on accepting a dead token for up to 300 s. The verdicts of the
    datastacks have the ``local_server`` of their records.
    """
    question = Question(server, token, tuple(datastacks))
    return examine(question, timeout=timeout, retries=retries, ca_path=ca_path, ask_info_service=True)


def examine(
    question: Question,
    *,
    timeout: float = 30,
    retries: int = 2,
    ca_path: str | None = None,
    ask_info_service: bool = False,
) -> Access:
    """Answer one Question. With ``ask_info_service`` every datastack's record is read, not only where it decides."""
    limits = _Limits(time.monotonic() + timeout, retries, ca_path)
    server, token, _names = question
    answer = _ask(user_cache_url(server), question, limits)
    account = account_of(answer, server, token) if isinstance(answer, Answer) else answer
    if isinstance(account, Verdict):
        return Access(account._replace(fingerprint=fingerprint(token)))
    verdicts = tuple(_on_datastack(name, account, question, limits, ask_info_service) for name in question.datastacks)
    overall = worst(verdicts) or account_verdict(account, server)
    if overall.ok:
        overall = account_verdict(account, server)
        if verdicts:
            names = ", ".join(question.datastacks)
            overall = overall._replace(message=f"{overall.message[:-1]}, for {names}.")
    return Access(overall._replace(person=account.person, fingerprint=fingerprint(token)), verdicts)


def _on_datastack(name: str, account: Account, question: Question, limits: _Limits, ask_info_service: bool) -> Verdict:
    known = permitted_verdict(account, question.server, name)
    if known is not None and not (known.ok and ask_info_service):
        return known
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
        return failure_verdict(failure, question.server)


def examine_all(
    questions: Iterable[Question],
    *,
    timeout: float = 30,
    retries: int = 2,
    ca_path: str | None = None,
    ask_info_service: bool = False,
) -> dict[Question, Access]:
    """Answer several Questions side by side, each distinct one once. ``timeout`` is that of each of them.

    Once a server could not be reached, those who still wait for their turn with that server aren't made to wait for
    its timeout too: they get the same verdict.
    """
    waiting = list(dict.fromkeys(questions))[::-1]
    answers: dict[Question, Access] = {}
    down: dict[str, Verdict] = {}
    problems: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting or problems:
                    return
                question = waiting.pop()
                out_of_reach = down.get(question.server)
            try:
                if out_of_reach is not None:
                    access = Access(out_of_reach._replace(fingerprint=fingerprint(question.token)))
                else:
                    access = examine(
                        question, timeout=timeout, retries=retries, ca_path=ca_path, ask_info_service=ask_info_service
                    )
            except BaseException as error:  # noqa: BLE001 (raised again below, by the caller)
                with lock:
                    problems.append(error)
                return
            with lock:
                answers[question] = access
                if access.overall.verdict in ("unreachable", "tls_error") and not access.overall.person:
                    down[question.server] = access.overall

    # Not a ThreadPoolExecutor: the interpreter waits for its threads when it ends.
    threads = [threading.Thread(target=work, name="cave-check", daemon=True) for _question in waiting[:AT_ONCE]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return answers


def prove_all(
    questions: Iterable[Question], *, timeout: float = 30, retries: int = 2, ca_path: str | None = None
) -> dict[Question, Verdict]:
    """Prove several tokens side by side, each distinct Question once: what ``prove_token`` says of each."""
    answers = examine_all(questions, timeout=timeout, retries=retries, ca_path=ca_path)
    return {question: access.overall for question, access in answers.items()}
