# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the services of a datastack answer: to anybody from this host, and to one person.

To reach them takes no token and one connection a server. Whether they serve a person is asked with the token, and
permissions are decided by what the auth server says of the names that the services go by. Nothing that is asked has a
side effect, and no redirect is followed.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any, Iterable, NamedTuple
from urllib.parse import quote

from ansible_collections.connectomics.cave.plugins.module_utils._cave.answers import (
    Account,
    account_of,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer, HttpError, request_each
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import (
    error_of,
    failure_verdict,
    mapped_dataset,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.side_by_side import side_by_side
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    clean_text,
    dataset_url,
    owed_by_parent,
    permission_verdict,
    service_blocked_verdict,
    service_down_verdict,
    tos_verdict,
    user_cache_url,
)


class _Service(NamedTuple):
    """What to ask a service, and what it answers when it works."""

    open: str
    """Path that needs no token."""
    namespace: str
    """Whose names it goes by when it asks the auth server for permissions."""
    path: str
    """Path that needs a token, with a place for the name; empty: nothing more is to be learned than by ``open``."""
    content: type
    """Of the answer with a token."""
    content_of_open: tuple[type, ...] = (str,)


SERVICES = {
    "materialize": _Service("/materialize/version", "datastack", "/materialize/api/v2/datastack/{}/versions", list),
    "chunkedgraph": _Service(
        "/segmentation/api/version", "pychunkedgraph", "/segmentation/api/v1/table/{}/oldest_timestamp", dict
    ),
    "l2cache": _Service("/l2cache/api/v1/table_mapping", "pychunkedgraph", "", dict, (dict,)),
    "skeleton": _Service(
        "/skeletoncache/api/version", "datastack", "/skeletoncache/api/v1/{}/precomputed/skeleton/info", dict
    ),
    "annotation": _Service(
        "/annotation/api/versions", "aligned_volume", "/annotation/api/v2/aligned_volume/{}/table", list, (list,)
    ),
}
"""Services by the names that caveclient gives them."""

_LOOPBACK = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)")
_NOT_REACHED = frozenset(("dns", "refused", "unreachable", "cut", "proxy", "timeout"))
"""Failures of HTTP that come from the way to the server, when all requests end so."""


class Stack(NamedTuple):
    """A datastack to look at: its auth server, and what its record says of it."""

    server: str
    datastack: str
    local_server: str
    table: str
    volume: str

    @classmethod
    def of(cls, verdict: Verdict) -> Stack:
        """Return it as the verdict on its record has it."""
        return cls(verdict.server, verdict.datastack, verdict.local_server, verdict.table, verdict.volume)

    def name_in(self, namespace: str) -> str:
        """Return its name in a namespace of the auth server."""
        return {"datastack": self.datastack, "pychunkedgraph": self.table}.get(namespace, self.volume)


class Asker(NamedTuple):
    """Who asks: a token that the auth server accepts, and what it permits."""

    token: str
    account: Account


class Limits(NamedTuple):
    """How long to ask a server, and whom to trust."""

    timeout: float
    ca_path: str | None


# Without a token -----------------------------------------------------------------------------------------------------


def reach(stacks: Iterable[Stack], names: Iterable[str], limits: Limits) -> dict[Stack, list[Verdict]]:
    """Return a verdict on each service of each datastack as far as it takes no token, each server asked once."""
    chosen = [name for name in SERVICES if name in names]
    stacks = list(dict.fromkeys(stacks))
    servers = [stack.local_server for stack in stacks if stack.local_server]
    found = side_by_side(servers, partial(_knock, chosen, limits))
    return {
        stack: judged(
            stack, {name: _open_verdict(stack, name, said) for name, said in found[stack.local_server].items()}
        )
        if stack.local_server
        else [_without_address(stack)]
        for stack in stacks
    }


def _without_address(stack: Stack) -> Verdict:
    reason = "has no address: the datastack's record names no local server"
    return service_down_verdict(stack.server, stack.datastack, "all", reason)


def _knock(names: list[str], limits: Limits, local_server: str) -> dict[str, Answer | HttpError]:
    return dict(zip(names, _get([(local_server + SERVICES[name].open, None) for name in names], limits)))


def _get(asked: list[tuple[str, str | None]], limits: Limits) -> list[Answer | HttpError]:
    try:
        return list(request_each(asked, timeout=limits.timeout, ca_path=limits.ca_path))
    except HttpError as error:
        return [error] * len(asked)


def _open_verdict(stack: Stack, name: str, said: Answer | HttpError) -> Verdict:
    if isinstance(said, HttpError):
        return _silent(stack, name, said)
    content = _content(said)
    if said.status == 200 and isinstance(content, SERVICES[name].content_of_open):
        works = _works(stack, name, content if isinstance(content, str) else "")
        if name == "l2cache" and isinstance(content, dict) and stack.table not in content:
            return works._replace(message=f"{stack.datastack} has no L2 cache on {stack.local_server}.")
        return works
    if name == "chunkedgraph" and said.status == 401 and error_of(said, "").error == "no_token":
        return _works(stack, name)  # it answers nobody without a token
    return _wrong_answer(stack, name, said, "")


def _works(stack: Stack, name: str, version: str = "") -> Verdict:
    message = f"The service {name} of {stack.datastack} on {stack.local_server} answers."
    version = clean_text(version, limit=40)
    return Verdict("ok", message, "", stack.local_server, stack.datastack, service=name, version=version)


def _silent(stack: Stack, name: str, failure: HttpError) -> Verdict:
    if failure.kind in ("tls", "ca"):
        verdict = failure_verdict(failure, stack.local_server)
        return verdict._replace(datastack=stack.datastack, service=name, reason=clean_text(failure.reason))
    verdict = service_down_verdict(stack.local_server, stack.datastack, name, f"does not answer: {failure.reason}")
    return verdict._replace(blocked=clean_text(failure.reason)) if failure.kind in _NOT_REACHED else verdict


def _wrong_answer(stack: Stack, name: str, answer: Answer, token: str) -> Verdict:
    found = error_of(answer, token)
    down = partial(service_down_verdict, stack.local_server, stack.datastack, name, status=answer.status)
    if answer.status == 429 or found.message.startswith("429 "):
        return Verdict(
            "rate_limited",
            f"The service {name} of {stack.datastack} on {stack.local_server} has reached its rate limit for this "
            f"person: {found.message or 'status 429'}.",
            "Retry in a minute. The limit counts all hosts of the person together.",
            stack.local_server,
            stack.datastack,
            service=name,
            status=answer.status,
        )
    if answer.status == 404 and not answer.claims_json:
        return _works(stack, name)._replace(
            message=f"There is no service {name} for {stack.datastack} on {stack.local_server}.", status=404
        )
    if answer.status == 407:
        reason = "the proxy wants a user name and password"
        return down(f"is not reached: {reason}")._replace(blocked=reason)
    is_page = answer.content_type == "text/html"
    said = f" ({found.message})" if found.message else ""
    if 300 <= answer.status < 400:
        verdict = down(f"answers {answer.status} and sends programs elsewhere")
    elif answer.status == 200:
        verdict = down("answers with a web page" if is_page else "answers what it should not")
    else:
        verdict = down(f"answers {answer.status}{said}")
    # One service may do so by itself; where all do, a filter or the log-in page of the network is in their place.
    if _leads_elsewhere(answer, stack) or (is_page and answer.status in _OF_FILTERS):
        return verdict._replace(blocked=f"a web page that is not CAVE's comes in its place (status {answer.status})")
    return verdict


_OF_FILTERS = (200, 403, 451, 511)
"""Statuses with which networks answer by a page of their own."""


def _leads_elsewhere(answer: Answer, stack: Stack) -> bool:
    place = answer.headers.get("location", "")
    return 300 <= answer.status < 400 and "//" in place and f"//{host_of(stack.local_server)}/" not in f"{place}/"


def judged(stack: Stack, verdicts: dict[str, Verdict]) -> list[Verdict]:
    """Return the verdicts on a datastack's services with those joined that are one trouble of its local server."""
    found = list(verdicts.values())
    bad = [verdict for verdict in found if not verdict.ok]
    if len(found) > 1 and len(bad) == len(found):
        blocked = [verdict.blocked for verdict in bad if verdict.blocked]
        if len(blocked) == len(bad) and not all("no complete answer" in reason for reason in blocked):
            return [service_blocked_verdict(stack.local_server, stack.datastack, blocked[0])]
        if len({(verdict.verdict, verdict.status) for verdict in bad}) == 1:
            joined = bad[0]._replace(service="all")
            return [joined._replace(message=joined.message.replace(f"The service {bad[0].service}", "Every service"))]
    absent = [verdict for verdict in found if verdict.status == 404]
    if len(found) > 1 and len(absent) == len(found):
        message = f"{stack.local_server} has none of the services of {stack.datastack}: every one answers 404."
        remedy = "Check the local server's address in the datastack's record, and whether a proxy answers in its place."
        return [Verdict("not_a_cave_server", message, remedy, stack.local_server, stack.datastack, service="all")]
    return found


# With a token --------------------------------------------------------------------------------------------------------


def serve(asked: list[tuple[Asker, Stack, tuple[str, ...]]], limits: Limits) -> list[list[Verdict]]:
    """Return, in order, the verdicts on the services that each person wants of each datastack.

    Takes at most six requests with a token each: two for the datasets that the names belong to, four at the local
    server. The L2 cache takes one without.
    """
    found = side_by_side(range(len(asked)), lambda number: _serve_one(asked[number], limits))
    return [found[number] for number in range(len(asked))]


def _serve_one(asked: tuple[Asker, Stack, tuple[str, ...]], limits: Limits) -> list[Verdict]:
    asker, stack, wanted = asked
    if not stack.local_server:
        return [_without_address(stack)]
    if _is_downgrade(stack):
        reason = (
            "is named with http:// in the datastack's record: the token would go there unencrypted, and was not sent"
        )
        return [service_down_verdict(stack.local_server, stack.datastack, "all", reason)]
    names = [name for name in SERVICES if name in wanted]
    deadline = time.monotonic() + limits.timeout
    verdicts = _permissions(asker, stack, names, limits)
    open_names = [name for name in names if name not in verdicts]
    questions = [_question(asker, stack, name) for name in open_names]
    left = limits._replace(timeout=max(1.0, deadline - time.monotonic()))
    for name, said in zip(open_names, _get(questions, left)):
        verdicts[name] = _personal_verdict(asker, stack, name, said)
    if any(verdict.refused for verdict in verdicts.values()):
        verdicts = _after_second_look(asker, stack, verdicts, left)
    found = {name: owed_by_parent(verdicts[name], asker.account.person) for name in names}
    return [verdict._replace(with_token=True) for verdict in judged(stack, found)]


def _is_downgrade(stack: Stack) -> bool:
    """Return whether a token that the auth server gets by TLS would go over the network without."""
    is_plain = stack.server.startswith("https:") and stack.local_server.startswith("http:")
    return is_plain and not _LOOPBACK.match(stack.local_server)


def _question(asker: Asker, stack: Stack, name: str) -> tuple[str, str | None]:
    service = SERVICES[name]
    if not service.path:
        return stack.local_server + service.open, None
    return stack.local_server + service.path.format(quote(stack.name_in(service.namespace), safe="")), asker.token


def _permissions(asker: Asker, stack: Stack, names: list[str], limits: Limits) -> dict[str, Verdict]:
    """Return the verdicts on the services that the person may not use; who has the record may view the datastack."""
    wanted = dict.fromkeys(SERVICES[name].namespace for name in names)
    namespaces = [namespace for namespace in wanted if namespace != "datastack" and stack.name_in(namespace)]
    urls = [dataset_url(stack.server, namespace, stack.name_in(namespace)) for namespace in namespaces]
    verdicts: dict[str, Verdict] = {}
    for namespace, said in zip(namespaces, _get([(url, asker.token) for url in urls], limits)):
        dataset = mapped_dataset(said) if isinstance(said, Answer) else None
        if dataset is None or asker.account.can_view(dataset):
            continue  # what is not known is for the service to say
        owed = asker.account.owed_for(dataset)
        wanting = [name for name in names if SERVICES[name].namespace == namespace]
        if owed:
            verdict = tos_verdict(stack.server, stack.datastack, owed.get("tos_id"), owed.get("tos_name"))
        else:
            verdict = permission_verdict(stack.server, stack.datastack, dataset, services=", ".join(wanting))
        verdicts.update((name, verdict._replace(service=name)) for name in wanting)
    return verdicts


def _personal_verdict(asker: Asker, stack: Stack, name: str, said: Answer | HttpError) -> Verdict:
    service = SERVICES[name]
    if not service.path:
        return _open_verdict(stack, name, said)
    if isinstance(said, HttpError):
        return _silent(stack, name, said)
    content = _content(said)
    if said.status == 200 and isinstance(content, service.content):
        if name == "materialize" and not content:
            reason = "has no valid version to query"
            return service_down_verdict(stack.local_server, stack.datastack, name, reason, 200)
        return _works(stack, name)
    found = error_of(said, asker.token)
    down = partial(service_down_verdict, stack.local_server, stack.datastack, name, status=said.status)
    if found.error == "missing_permission":
        dataset = found.data.get("auth_dataset")
        return permission_verdict(stack.server, stack.datastack, dataset, services=name)._replace(service=name)
    if found.error == "missing_tos":
        data = found.data
        verdict = tos_verdict(stack.server, stack.datastack, data.get("tos_id"), data.get("tos_name"))
        return verdict._replace(service=name)
    if found.error == "invalid_table_id":
        return down("says that it does not know the datastack, which the auth server knows: its own token may be dead")
    if said.status == 401 and found.error in ("invalid_token", "no_token"):
        reason = "refuses a token that the auth server accepts, as for five minutes after a hiccup between the two"
        return down(reason)._replace(refused=True)
    return _wrong_answer(stack, name, said, asker.token)


def _after_second_look(asker: Asker, stack: Stack, verdicts: dict[str, Verdict], limits: Limits) -> dict[str, Verdict]:
    """Ask the auth server about a token that a service refuses: only its word makes a token dead."""
    (said,) = _get([(user_cache_url(stack.server), asker.token)], limits)
    account = account_of(said, stack.server, asker.token) if isinstance(said, Answer) else None
    if not isinstance(account, Verdict) or account.verdict != "invalid_token":
        return verdicts
    dead = account._replace(datastack=stack.datastack)
    return {name: dead._replace(service=name) if verdict.refused else verdict for name, verdict in verdicts.items()}


def _content(answer: Answer) -> Any:
    try:
        return answer.json() if answer.claims_json else None
    except ValueError:
        return None
