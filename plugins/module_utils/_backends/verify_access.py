# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module ``verify_access`` does: read what each user's host would send, and see whether it works."""

from __future__ import annotations

import os
import os.path
from typing import Any, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends.findings import (
    Finding,
    Limits,
    by_netrc,
    leads_to,
    severity,
    summary,
    with_notes,
)
from ansible_collections.connectomics.cave.plugins.module_utils._backends.services_check import (
    Looked,
    Wanted,
    look_at_services,
    proof_in,
    services_wanted,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.local_servers import (
    LocalServers,
    told_by,
    with_local_servers,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.probe import Access, Question, prove
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    Datastack,
    host_of,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict, client_error_verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, require_limits
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import (
    HostUser,
    Options,
    TokenQuery,
    read_users,
    verdict_without_asking,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import by_key

_HOLDER_KEYS = {"user", "server", "datastacks", "key", "keys"}


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Check the access of every user that the parameters name.

    Returns:
        ``verdict`` (the worst) and ``users`` (one result each, those of one server together).

    Raises:
        CaveError: somebody's access doesn't work; ``details`` has all that is returned otherwise.
    """
    limits = Limits(params["timeout"], params["retries"], params["ca_path"])
    require_limits(limits.timeout, limits.retries)  # here as well: not only the module calls this
    wanted = services_wanted(params["services"])
    if params["token"] is not None:
        query = _query({}, params)
        question = Question(query.server, clean_token(params["token"]), query.names)
        access = prove([question], records=True, **limits._asdict())[question]
        finding = Finding(None, access.overall, access.datastacks, proof=proof_in(access, question.token))
        return summary(_with_services([finding], wanted, limits, params))
    if params["users"] == []:
        return {"changed": False, "verdict": "ok", "users": [], "msg": "users is empty: nobody was asked."}
    options = Options(params["secrets_dir"], params["cloud_volume_dir"])
    holders = _holders(params)
    if params["method"] == "api":
        findings = _by_api(holders, options, limits)
    else:
        findings = _by_client(holders, options, limits, params, records=bool(wanted))
    return summary(_with_services(findings, wanted, limits, params))


def _with_services(
    findings: list[Finding], wanted: Wanted | None, limits: Limits, params: Mapping[str, Any]
) -> list[Finding]:
    """Add what the services of the datastacks say, and make the worst of it the overall verdict."""
    if wanted is None:
        return findings
    from ansible_collections.connectomics.cave.plugins.module_utils._cave.services import Limits as ServiceLimits

    environment = os.path.join(params["path"], "current")
    proofs = [finding.proof for finding in findings if finding.proof is not None]
    looks = iter(look_at_services(proofs, wanted, ServiceLimits(limits.timeout, limits.ca_path), environment))
    return [finding if finding.proof is None else _with_look(finding, next(looks)) for finding in findings]


def _with_look(finding: Finding, looked: Looked) -> Finding:
    overall = min([finding.overall, *looked.services], key=severity)
    if overall is not finding.overall:
        known = finding.overall  # whose server is the auth server: users are told apart by it
        overall = overall._replace(server=known.server, person=known.person, fingerprint=known.fingerprint)
    elif looked.token_kind and looked.token_kind not in ("key", "unknown") and finding.proof is not None:
        from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import expiring_message

        note = expiring_message(finding.proof.server, finding.proof.token)
        overall = overall._replace(message=f"{overall.message} {note}")
    return finding._replace(overall=overall, looked=looked)


def _holders(params: Mapping[str, Any]) -> list[tuple[TokenQuery, list[str]]]:
    """Return whose token is checked for what: the users of each server, key and set of datastacks together."""
    holders: list[tuple[TokenQuery, list[str]]] = []
    given: list[dict[str, Any]] = []
    for item in params["users"] or [_users.current_user().pw_name]:
        holder = {"user": item} if isinstance(item, str) else item
        if not isinstance(holder, dict) or not isinstance(holder.get("user"), str) or set(holder) - _HOLDER_KEYS:
            raise CaveError(
                "users: each is a user's name, or a mapping with user and, if need be, server, datastacks, key or keys."
            )
        given.append(holder)
    for holder in by_key(given):
        query = _query(holder, params)
        names = next((names for known, names in holders if known == query), None)
        if names is None:
            holders.append((query, [holder["user"]]))
        elif holder["user"] not in names:
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


def _by_client(
    holders: list[tuple[TokenQuery, list[str]]],
    options: Options,
    limits: Limits,
    params: Mapping[str, Any],
    *,
    records: bool,
) -> list[Finding]:
    # Imported only here: it takes longer than all the rest of the module.
    from ansible_collections.connectomics.cave.plugins.module_utils._backends import client_check

    for query, _names in holders:
        client_check.check_client_options(query, options)
    try:
        python = client_check.client_python(params)
    except CaveError as error:
        return [Finding(name, client_error_verdict(error, query.server)) for query, names in holders for name in names]
    findings: list[Finding] = []
    for (query, _names), users in zip(holders, read_users(holders, options, limits.timeout)):
        findings += client_check.by_client(users, query, limits, python, records=records)
    return findings


# By API --------------------------------------------------------------------------------------------------------------


def _by_api(holders: list[tuple[TokenQuery, list[str]]], options: Options, limits: Limits) -> list[Finding]:
    """Ask the servers about the token of every user, each distinct token once, side by side."""
    groups = read_users(holders, options, limits.timeout)
    verdicts: dict[tuple[int, str], Verdict] = {}
    questions: dict[tuple[int, str], Question] = {}
    for number, ((query, _names), users) in enumerate(zip(holders, groups)):
        for user in users:
            verdict = user.trouble
            if verdict is None:
                sent = user.readings[host_of(query.server)][0]
                verdict = verdict_without_asking(sent, query.server, user.name, query.key)
                if verdict is None:
                    questions[number, user.name] = Question(query.server, str(sent.token), query.names)
                    continue
            verdicts[number, user.name] = verdict
    answers = prove(questions.values(), records=True, **limits._asdict())
    learned = told_by(answers.items())
    completed = [(_with_records(query, learned), names) for query, names in holders]
    if completed != holders:  # more files are known to be read
        groups = read_users(completed, options, limits.timeout)
    findings = []
    for number, ((query, _names), users) in enumerate(zip(completed, groups)):
        for user in users:
            place = (number, user.name)
            access = answers[questions[place]] if place in questions else Access(verdicts[place])
            findings.append(_api_finding(user, access, query))
    return findings


def _with_records(query: TokenQuery, learned: LocalServers) -> TokenQuery:
    """Return a question with the local servers that the records name, also where others are named for them.

    A datastack may have moved, or its ``local_server`` be mistyped: its programs go by the record.
    """
    stacks = with_local_servers(query.server, query.datastacks, learned)
    told = learned.get(query.server, {})
    moved = [Datastack(name, told[name]) for name, known in stacks if told.get(name, known) != known]
    return query._replace(datastacks=[*stacks, *moved])


def _api_finding(user: HostUser, access: Access, query: TokenQuery) -> Finding:
    if user.trouble is not None:
        return Finding(user.name, user.trouble)
    sent = user.readings[host_of(query.server)]
    elsewhere = [
        name
        for name in dict.fromkeys(query.names)
        if name in user.server_map and not leads_to(user.server_map[name], query.server)
    ]
    overall = with_notes(access.overall, user, sent, elsewhere, query.server)
    wrong = {reading.host for reading in sent if reading.token != sent[0].token}
    known = dict(query.datastacks[::-1])
    moved = [stack for stack in query.datastacks if host_of(stack.local_server) in wrong and stack not in known.items()]
    if moved:
        names = ", ".join(f"{stack.name}: {stack.local_server}" for stack in moved)
        remedy = f"{overall.remedy} First correct the local_server that is named for it; the record has {names}."
        overall = overall._replace(remedy=remedy.strip())
    netrc = next(((host, user.netrc[host]) for host in query.own_hosts if host in user.netrc), None)
    if overall.ok and netrc:
        overall = by_netrc(overall, query.server, *netrc)
    proof = proof_in(access, str(sent[0].token))
    return Finding(user.name, overall, access.datastacks, tuple(sent), proof=proof)
