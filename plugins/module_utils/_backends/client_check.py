# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access as the real caveclient finds it, run as each user."""

from __future__ import annotations

import os
import os.path
from functools import partial
from typing import Any, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends.findings import (
    Finding,
    Limits,
    by_netrc,
    leads_to,
    severity,
    with_notes,
)
from ansible_collections.connectomics.cave.plugins.module_utils._backends.services_check import Proof, proof_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client import Check, run_client
from ansible_collections.connectomics.cave.plugins.module_utils._cave.client_errors import ClientOutcome, client_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.refusals import refused_by_info_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import host_of
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import (
    Verdict,
    clean_text,
    client_error_verdict,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import (
    HostUser,
    Options,
    TokenQuery,
    verdict_without_asking,
)
from ansible_collections.connectomics.cave.plugins.module_utils._text import quoted

_GRACE = 5.0
"""Seconds that a process gets to end by itself before it is given up."""
_MOST_FOR_SECOND_LOOK = 5
"""Seconds for the auth server's word on what caveclient found."""
_NO_RECORD = ("unreachable", "not_a_cave_server", "tls_error", "server_error", "rate_limited")
"""Verdicts on an info service that gave caveclient no record: the network's trouble, the address', or CAVE's."""
_DOUBTFUL = ("ok", "invalid_token", "unknown_datastack", "missing_tos", *_NO_RECORD)
"""Verdicts on which the auth server's word counts as well."""


def check_client_options(query: TokenQuery, options: Options) -> None:
    if not query.datastacks:
        raise CaveError(
            "method: client needs a datastack: name one in datastacks. (Without one, caveclient up to 5.31 ignores the "
            "server and asks global.daf-apis.com.)"
        )
    if options.secrets_dir:
        raise CaveError("method: client has no use for secrets_dir: caveclient looks in ~/.cloudvolume/secrets alone.")


def client_python(params: Mapping[str, Any]) -> str:
    """Return the Python that runs caveclient. Raises CaveError when there is none."""
    python = str(params["interpreter"] or os.path.join(params["path"], "current", "bin", "python"))
    if not os.path.exists(python):
        what = "The interpreter does not exist" if params["interpreter"] else "caveclient is not installed on this host"
        remedy = "Install it: ansible-playbook connectomics.cave.provision"
        raise CaveError(f"{what}: there is no {quoted(python)}. {remedy}")
    return python


def by_client(users: list[HostUser], query: TokenQuery, limits: Limits, python: str, *, records: bool) -> list[Finding]:
    """Run the real caveclient as every user, as many at a time as there are processors."""
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
    findings = _after_second_look(findings, {user.name: user for user in users}, limits, records)
    return [_complete(finding, user, query) for finding, user in zip(findings, users)]


def _would_hang(user: HostUser, query: TokenQuery) -> bool:
    """Return whether caveclient would wait for ever: its secrets file is a FIFO or the like."""
    return user.trouble is not None or any(user.reading_for(name).problem == "not_a_file" for name in query.names)


def _client_finding(user: HostUser, outcome: Any, query: TokenQuery) -> Finding:
    trouble = user.trouble
    if isinstance(outcome, CaveError):
        trouble = client_error_verdict(outcome, query.server)
    if trouble is not None:
        return Finding(user.name, trouble)
    said = {item["datastack"]: item for item in outcome or []}
    verdicts = [_judge(user, name, said.get(name), query) for name in query.names]
    version = next((item["version"] for item in said.values() if item["version"]), "")
    return Finding(user.name, verdicts[0], tuple(verdicts), client_version=clean_text(version, limit=40))


def _judge(user: HostUser, datastack: str, said: dict[str, Any] | None, query: TokenQuery) -> Verdict:
    """Return the verdict on one datastack: what the real client says counts; the files say why."""
    used, sent = clean_text(user.server_of(datastack)), user.reading_for(datastack)
    without = verdict_without_asking(sent, used, user.name, query.key)
    verdict = without
    if said is not None:
        token = sent.token if isinstance(sent.token, str) else ""
        verdict = client_verdict(_outcome(used, said), used, datastack, token)
        host = host_of(used) if "//" in used else used
        if verdict.verdict == "client_error" and user.netrc.get(host):
            verdict = by_netrc(verdict, used, host, user.netrc[host])
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


def _after_second_look(
    findings: list[Finding], users: Mapping[str, HostUser], limits: Limits, records: bool
) -> list[Finding]:
    """Correct what caveclient cannot know, as it asks the info service alone.

    That goes on accepting a dead token for up to 300 s, knows no datastack while its own token is dead, and says of
    the network and the address nothing when it fails beside an auth server that works.
    """

    def question_of(finding: Finding, verdict: Verdict) -> Question | None:
        sent = users[finding.user or ""].reading_for(verdict.datastack)
        if verdict.verdict not in _DOUBTFUL or not isinstance(sent.token, str):
            return None
        return Question(verdict.server.rstrip("/"), sent.token, (verdict.datastack,))

    verdicts = [(finding, verdict) for finding in findings for verdict in finding.datastacks]
    patience = min(limits.timeout, _MOST_FOR_SECOND_LOOK)
    records = records or any(verdict.verdict in ("unknown_datastack", *_NO_RECORD) for _finding, verdict in verdicts)
    asked = [question for question in (question_of(*each) for each in verdicts) if question is not None]
    answers = prove(asked, timeout=patience, retries=0, ca_path=limits.ca_path, records=records)

    def corrected(finding: Finding, verdict: Verdict) -> Verdict:
        question = question_of(finding, verdict)
        if question is None:
            return verdict
        access = answers[question]
        proof = access.overall
        if proof.verdict == "invalid_token" and verdict.ok:
            message = f"{proof.message} caveclient still works: the info service remembers a token for up to 300 s."
            return proof._replace(message=message, datastack=verdict.datastack)
        if proof.verdict == "invalid_token" and verdict.verdict in _NO_RECORD:
            return proof._replace(datastack=verdict.datastack)
        if access.account is not None and verdict.verdict == "invalid_token":
            verdict = refused_by_info_verdict(verdict.server, verdict.datastack)
        elif access.datastacks and not verdict.ok and not access.datastacks[0].ok:
            verdict = access.datastacks[0]
        return verdict._replace(person=proof.person, fingerprint=proof.fingerprint)

    def proof_for(finding: Finding) -> Proof | None:
        asked = [question_of(finding, verdict) for verdict in finding.datastacks if verdict.ok]
        known = [question for question in asked if question is not None and answers[question].account is not None]
        if not known:
            return None
        stacks = [verdict for question in known for verdict in answers[question].datastacks]
        return proof_of(known[0].server, known[0].token, answers[known[0]].account, stacks)

    return [
        finding._replace(
            datastacks=tuple(corrected(finding, verdict) for verdict in finding.datastacks), proof=proof_for(finding)
        )
        for finding in findings
    ]


def _complete(finding: Finding, user: HostUser, query: TokenQuery) -> Finding:
    """Add the notes to a finding, and choose its overall verdict."""
    if not finding.datastacks:
        return finding
    verdicts = []
    for verdict in finding.datastacks:
        elsewhere = [] if leads_to(user.server_of(verdict.datastack), query.server) else [verdict.datastack]
        sent = user.readings[user.reading_for(verdict.datastack).host]
        verdicts.append(with_notes(verdict, user, sent, elsewhere, query.server))
    overall = min(verdicts, key=severity)
    sent = user.readings[user.reading_for(overall.datastack).host]
    if overall.ok:
        message = " ".join(dict.fromkeys(verdict.message for verdict in verdicts))
        overall = overall._replace(message=message, datastack="", local_server="")
    return finding._replace(overall=overall, datastacks=tuple(verdicts), sent=tuple(sent))
