# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``verify_access`` does: read what each user's host would send, and see whether it works."""

from __future__ import annotations

import os
import os.path
from functools import partial
from typing import Any, Iterable, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_errors import ClientOutcome, client_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    host_of,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    SEVERITY,
    Verdict,
    clean_text,
    client_error_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import (
    HostUser,
    Options,
    TokenQuery,
    read_users,
    verdict_without_asking,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.readers import Reading

_GRACE = 5.0
"""Seconds that a process gets to end by itself before it is given up."""
_MOST_FOR_SECOND_LOOK = 5
"""Seconds for the auth server's word on a token with which caveclient works."""
_NAMES_SHOWN = 8
_HOLDER_KEYS = {"user", "server", "datastacks", "key"}


class _Limits(NamedTuple):
    """How long and how often to ask, and whom to trust."""

    timeout: int
    retries: int
    ca_path: str | None


class _Finding(NamedTuple):
    """What was found for one user: the overall verdict, one for each datastack, and what the readers send."""

    user: str | None
    overall: Verdict
    datastacks: tuple[Verdict, ...] = ()
    sent: tuple[Reading, ...] = ()
    client_version: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return one user's part of the module's result. No token is in it."""
        result: dict[str, Any] = {"user": self.user, **self.overall.as_dict()}
        result["datastacks"] = [verdict.as_dict() for verdict in self.datastacks]
        if self.sent:
            result["path"] = self.sent[0].path
            result["fingerprint"] = self.sent[0].fingerprint
            result["readers"] = {f"{item.reader} {item.host}": item.fingerprint for item in self.sent}
        if self.client_version:
            result["client_version"] = self.client_version
        return result


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Check the access of every user that the parameters name.

    Returns:
        ``verdict`` (the worst) and ``users`` (one result each, those of one server together).

    Raises:
        CaveError: somebody's access doesn't work; ``details`` has all that is returned otherwise.
    """
    limits = _Limits(params["timeout"], params["retries"], params["ca_path"])
    if limits.timeout < 1:
        raise CaveError(f"timeout: {limits.timeout} is not a time in which anything can be asked. The usual one is 30.")
    if params["token"] is not None:
        query = _query({}, params)
        question = Question(query.server, clean_token(params["token"]), query.names)
        access = prove([question], records=True, **limits._asdict())[question]
        return _summary([_Finding(None, *access)])
    options = Options(params["secrets_dir"], params["cloud_volume_dir"])
    findings: list[_Finding] = []
    for query, names in _holders(params):
        if params["method"] == "client":
            _check_client_options(query, options)
        users = read_users(names, query, options, limits.timeout)
        if params["method"] == "client":
            python = params["interpreter"] or os.path.join(params["path"], "current", "bin", "python")
            findings += _by_client(users, query, limits, python)
        else:
            findings += _by_api(users, query, limits)
    return _summary(findings)


def _holders(params: Mapping[str, Any]) -> list[tuple[TokenQuery, list[str]]]:
    """Return whose token is checked for what: the users of each server, key and set of datastacks together."""
    holders: list[tuple[TokenQuery, list[str]]] = []
    for item in params["users"] or [_users.current_user().pw_name]:
        holder = {"user": item} if isinstance(item, str) else item
        if not isinstance(holder, dict) or not isinstance(holder.get("user"), str) or set(holder) - _HOLDER_KEYS:
            raise CaveError(
                "users: each is a user's name, or a mapping with user and, if need be, server, datastacks, key."
            )
        query = _query(holder, params)
        names = next((names for known, names in holders if known == query), None)
        if names is None:
            holders.append((query, [holder["user"]]))
        else:
            names.append(holder["user"])
    return holders


def _query(holder: Mapping[str, Any], params: Mapping[str, Any]) -> TokenQuery:
    usual = server_address(params["server"])
    server = server_address(holder.get("server") or usual)
    datastacks = holder.get("datastacks")
    if datastacks is None:
        datastacks = params["datastacks"] if server == usual else []
    key = holder.get("key") or params["key"]
    return TokenQuery(server, parse_datastacks(datastacks, server), key)


def _check_client_options(query: TokenQuery, options: Options) -> None:
    if not query.datastacks:
        raise CaveError(
            "method: client needs a datastack: name one in datastacks. (Without one, caveclient up to 5.31 ignores the "
            "server and asks global.daf-apis.com.)"
        )
    if options.secrets_dir:
        raise CaveError("method: client has no use for secrets_dir: caveclient looks in ~/.cloudvolume/secrets alone.")


# By API --------------------------------------------------------------------------------------------------------------


def _by_api(users: list[HostUser], query: TokenQuery, limits: _Limits) -> list[_Finding]:
    """Ask the server about the token of every user, each distinct token once, side by side."""
    found: dict[str, Access] = {}
    questions: dict[str, Question] = {}
    for user in users:
        verdict = user.trouble
        if verdict is None:
            sent = user.readings[host_of(query.server)][0]
            verdict = verdict_without_asking(sent, query.server, user.name, query.key)
            if verdict is None:
                questions[user.name] = Question(query.server, sent.token, query.names)
                continue
        found[user.name] = Access(verdict)
    answers = prove(questions.values(), records=True, **limits._asdict())
    found.update({name: answers[question] for name, question in questions.items()})
    return [_api_finding(user, found[user.name], query) for user in users]


def _api_finding(user: HostUser, access: Access, query: TokenQuery) -> _Finding:
    if user.trouble is not None:
        return _Finding(user.name, user.trouble)
    sent = user.readings[host_of(query.server)]
    elsewhere = [
        name for name in query.names if name in user.server_map and not _leads_to(user.server_map[name], query.server)
    ]
    overall = _with_notes(access.overall, user, sent, elsewhere, query.server)
    return _Finding(user.name, overall, access.datastacks, tuple(sent))


# By the real caveclient ----------------------------------------------------------------------------------------------


def _by_client(users: list[HostUser], query: TokenQuery, limits: _Limits, python: str) -> list[_Finding]:
    """Run the real caveclient as every user, as many at a time as there are processors."""
    # Imported only here: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.client import Check, run_client

    check = Check(python, query.names, query.key, limits.timeout, limits.ca_path)
    able = [user for user in users if user.account is not None and not _would_hang(user, query)]
    jobs = [
        _users.Job(user.account, partial(run_client, check, user.account)) for user in able if user.account is not None
    ]
    at_once = max(2, os.cpu_count() or 2)
    outcomes: list[Any] = []
    for start in range(0, len(jobs), at_once):
        outcomes += _users.run_each_as(jobs[start : start + at_once], limits.timeout + _GRACE)
    said = {user.name: outcome for user, outcome in zip(able, outcomes)}
    findings = [_client_finding(user, said.get(user.name), query) for user in users]
    findings = _without_dead_tokens(findings, {user.name: user for user in users}, limits)
    return [_complete(finding, user, query) for finding, user in zip(findings, users)]


def _would_hang(user: HostUser, query: TokenQuery) -> bool:
    """Tell whether caveclient is not to be run: its secrets file is a FIFO or the like, on which it waits for ever."""
    return user.trouble is not None or any(user.reading_for(name).problem == "not_a_file" for name in query.names)


def _client_finding(user: HostUser, outcome: Any, query: TokenQuery) -> _Finding:
    trouble = user.trouble
    if isinstance(outcome, CaveError):
        trouble = client_error_verdict(outcome, query.server)
    if trouble is not None:
        return _Finding(user.name, trouble)
    said = {item["datastack"]: item for item in outcome or []}
    verdicts = [_judge(user, name, said.get(name), query) for name in query.names]
    version = next((item["version"] for item in said.values() if item["version"]), "")
    return _Finding(user.name, verdicts[0], tuple(verdicts), client_version=clean_text(version, limit=40))


def _judge(user: HostUser, datastack: str, said: dict[str, Any] | None, query: TokenQuery) -> Verdict:
    """Return the verdict on one datastack: what the real client says counts; the files say why."""
    used, sent = clean_text(user.server_of(datastack)), user.reading_for(datastack)
    without = verdict_without_asking(sent, used, user.name, query.key)
    verdict = without
    if said is not None:
        token = sent.token if isinstance(sent.token, str) else ""
        verdict = client_verdict(_outcome(used, said), used, datastack, token)
        # Without a usable token the client may fail in a dozen ways, none of which names the file.
        if without is not None and not verdict.ok and verdict.verdict not in ("tls_error", "unreachable"):
            verdict = without
    if verdict is None:
        verdict = client_error_verdict(CaveError("caveclient was not run. Look at the other datastacks."), used)
    return verdict._replace(datastack=datastack, fingerprint=sent.fingerprint or "")


def _outcome(server: str, said: Mapping[str, Any]) -> ClientOutcome:
    answer = said["answer"]
    return ClientOutcome(
        server,
        tuple(said["names"]),
        said["text"],
        Answer(answer["status"], answer["headers"], answer["body"].encode("latin-1"), answer["url"])
        if answer
        else None,
        bool(answer and answer["redirected"]),
        clean_text(said.get("local_server", "")),
    )


def _without_dead_tokens(findings: list[_Finding], users: Mapping[str, HostUser], limits: _Limits) -> list[_Finding]:
    """Correct the verdict where caveclient works with a token that the auth server doesn't accept any more.

    caveclient asks the info service alone, which goes on accepting a dead token for up to 300 s.
    """

    def question_of(finding: _Finding, verdict: Verdict) -> Question:
        sent = users[finding.user or ""].reading_for(verdict.datastack)
        return Question(verdict.server.rstrip("/"), str(sent.token))

    working = [question_of(finding, verdict) for finding in findings for verdict in finding.datastacks if verdict.ok]
    patience = min(limits.timeout, _MOST_FOR_SECOND_LOOK)
    proofs = prove(working, timeout=patience, retries=0, ca_path=limits.ca_path)

    def corrected(finding: _Finding, verdict: Verdict) -> Verdict:
        access = proofs.get(question_of(finding, verdict)) if verdict.ok else None
        proof = access.overall if access else None
        if proof is None or proof.verdict != "invalid_token":
            return verdict._replace(person=proof.person) if proof else verdict
        message = f"{proof.message} caveclient still works: the info service remembers a token for up to 300 s."
        return proof._replace(message=message, datastack=verdict.datastack)

    return [
        finding._replace(datastacks=tuple(corrected(finding, verdict) for verdict in finding.datastacks))
        for finding in findings
    ]


def _complete(finding: _Finding, user: HostUser, query: TokenQuery) -> _Finding:
    """Add the notes to a finding, and choose its overall verdict."""
    if not finding.datastacks:
        return finding
    verdicts = []
    for verdict in finding.datastacks:
        elsewhere = [] if _leads_to(user.server_of(verdict.datastack), query.server) else [verdict.datastack]
        sent = user.readings[user.reading_for(verdict.datastack).host]
        verdicts.append(_with_notes(verdict, user, sent, elsewhere, query.server))
    overall = min(verdicts, key=_severity)
    sent = user.readings[user.reading_for(overall.datastack).host]
    if overall.ok:
        message = " ".join(dict.fromkeys(verdict.message for verdict in verdicts))
        overall = overall._replace(message=message, datastack="", local_server="")
    return finding._replace(overall=overall, datastacks=tuple(verdicts), sent=tuple(sent))


# Saying it -----------------------------------------------------------------------------------------------------------


def _severity(verdict: Verdict) -> int:
    return SEVERITY.index(verdict.verdict)


def _leads_to(address: str, server: str) -> bool:
    """Tell whether an address of the server map is that of a server."""
    return address.rstrip("/") == server


def _with_notes(
    verdict: Verdict, user: HostUser, sent: list[Reading], elsewhere: Iterable[str], server: str
) -> Verdict:
    """Add to a verdict what is wrong besides: readers with other tokens, datastacks that lead to another server."""
    notes, remedies = [verdict.message], [verdict.remedy] if verdict.remedy else []
    first, *others = sent
    differing = [item for item in others if first.token and item.token != first.token]
    if differing:
        notes.append(f"caveclient sends {first}, but {', '.join(_sends(item) for item in differing)}.")
        remedies.append("To make all of them send one token: connectomics.cave.saved_token.")
    for name in elsewhere:
        used = clean_text(user.server_of(name))
        why = "its server map says so" if name in user.server_map else "no server map of this user says otherwise"
        notes.append(f"Without a server address, caveclient asks {used} for {name}, not {server}: {why}.")
        remedies.append(f"To send it to {server}: connectomics.cave.saved_token with datastacks: [{name}].")
    return verdict._replace(message=" ".join(notes), remedy=" ".join(remedies))


def _sends(sent: Reading) -> str:
    return f"{sent.reader} sends {sent} to {sent.host}"


def _summary(findings: list[_Finding]) -> dict[str, Any]:
    overall = min((finding.overall for finding in findings), key=_severity)
    users = [finding.as_dict() for finding in findings]
    summary = {"changed": False, "verdict": overall.verdict, "users": users}
    if not overall.ok:
        raise CaveError(_complaint(findings), **summary)
    return summary


def _complaint(findings: list[_Finding]) -> str:
    """Name everybody whose access doesn't work, the reason and the remedy; the worst first, each reason once."""
    complaints: dict[tuple[int, str, str, str], list[str]] = {}
    for finding in findings:
        worst = finding.overall
        # The overall verdict is one of those on the datastacks, with more in it.
        others = [
            item for item in finding.datastacks if (item.verdict, item.datastack) != (worst.verdict, worst.datastack)
        ]
        for verdict in [worst, *others]:
            if not verdict.ok:
                reason = (_severity(verdict), verdict.verdict, verdict.message, verdict.remedy)
                complaints.setdefault(reason, []).append(finding.user or "")
    texts = []
    for (_rank, name, message, remedy), named in sorted(complaints.items(), key=lambda item: item[0][0]):
        users = [_users.shown(user) for user in dict.fromkeys(named) if user]
        more = f" and {len(users) - _NAMES_SHOWN} more" if len(users) > _NAMES_SHOWN else ""
        who = f"{', '.join(users[:_NAMES_SHOWN])}{more}: " if users else ""
        texts.append(f"{who}{name}. {message} What to do: {remedy}")
    locked_out = sum(not finding.overall.ok for finding in findings)
    count = f"CAVE access does not work for {locked_out} of {len(findings)} users. " if len(findings) > 1 else ""
    return count + " ".join(texts)
