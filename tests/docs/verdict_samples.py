# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each verdict says, said by the code itself: for the guide, which has to say the same."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from unittest.mock import patch

from cave_answers import MISSING_TOS, SERVER, STACK, TOKEN

from ansible_collections.connectomics.cave.plugins.module_utils._cave import answers as _answers
from ansible_collections.connectomics.cave.plugins.module_utils._cave import client_fit as _client_fit
from ansible_collections.connectomics.cave.plugins.module_utils._cave import failures as _failures
from ansible_collections.connectomics.cave.plugins.module_utils._cave import http as _http
from ansible_collections.connectomics.cave.plugins.module_utils._cave import refusals as _refusals
from ansible_collections.connectomics.cave.plugins.module_utils._cave import verdicts as _verdicts
from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer
from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import VARIABLES
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import Verdict
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LOCAL = "https://minnie.microns-daf.com"
URL = f"{SERVER}/auth/api/v1/user/cache"
SECRETS = "/home/alice/.cloudvolume/secrets"
PERSON = {"id": 3, "name": "Alice", "email": "alice@example.org", "permissions_v2": {STACK: ["view"]}}


def answer(status: int, content: object, **headers: str) -> Answer:
    """Return an answer with JSON in it, or with text."""
    if isinstance(content, str):
        return Answer(status, {"content-type": "text/html", **headers}, content.encode(), URL)
    return Answer(status, {"content-type": "application/json", **headers}, json.dumps(content).encode(), URL)


def to_token(status: int, content: object, **headers: str) -> Verdict:
    """Return the verdict on an answer of the auth server."""
    account = _answers.account_of(answer(status, content, **headers), SERVER, TOKEN)
    if isinstance(account, Verdict):
        return account
    verdict = _answers.account_verdict(account, SERVER)
    return verdict._replace(message=f"{verdict.message[:-1]}, for {STACK}.")


def to_datastack(status: int, content: object, **headers: str) -> Verdict:
    """Return the verdict on an answer of the info service."""
    return _answers.datastack_verdict(answer(status, content, **headers), SERVER, STACK, TOKEN)


def to_failure(error: BaseException) -> Verdict:
    """Return the verdict on a request that ended in an exception."""
    with patch.dict(os.environ):
        for name in VARIABLES:
            os.environ.pop(name, None)
        failure = _failures.failure(error, URL, "read", 30, _http.MAX_BYTES, None)
    return _refusals.failure_verdict(failure, SERVER)


def untrusted(reason: str) -> ssl.SSLCertVerificationError:
    """Return what OpenSSL says of a certificate."""
    error = ssl.SSLCertVerificationError(1, reason)
    error.verify_message = reason
    return error


def too_old() -> Verdict:
    """Return the verdict on a service that is too old for the installed caveclient."""
    told = Verdict("ok", "", server=LOCAL, service="materialize", version="5.12.0")
    verdict = _client_fit.too_old(LOCAL, STACK, told, "8.2.1")
    assert verdict is not None
    return verdict


def unfit() -> Verdict:
    """Return the verdict on an environment with a package that caveclient does not go with."""
    packages = {"caveclient": "8.2.1", "pandas": "3.0.0"}
    verdict = _client_fit.unfit_packages(packages, LOCAL, STACK, "/opt/caveclient/current")
    assert verdict is not None
    return verdict


def samples() -> list[Verdict]:
    """Return verdicts as the code makes them, at least one of each kind."""
    unknown = {"error": "invalid_table_id", "message": "Invalid table_id for service"}
    forbidden = {"error": "missing_permission", "data": {"auth_dataset": STACK, "required_permission": "view"}}
    return [
        to_token(200, PERSON),
        _verdicts.no_token_verdict(SERVER, "alice", "there is no secrets file for it"),
        _verdicts.no_token_verdict(SERVER, "alice", f"{SECRETS}/cave-secret.json has none under 'token'"),
        to_token(401, {"error": "no_token"}),
        _verdicts.malformed_file_verdict(SERVER, f"{SECRETS}/cave-secret.json", "it is empty"),
        to_token(401, {"error": "invalid_token"}),
        to_datastack(403, MISSING_TOS),
        _verdicts.owed_by_parent(
            to_datastack(403, MISSING_TOS),
            _verdicts.Person(9, "robot", "robot@serviceaccount", service_account=True, parent=3),
        ),
        to_datastack(403, forbidden),
        _verdicts.permission_verdict(SERVER, STACK, "minnie65_graph", services="chunkedgraph, l2cache"),
        to_datastack(400, unknown),
        to_datastack(404, {"message": "Not found"}),
        to_token(302, "", location="https://login.example.org/"),
        to_token(200, "<html>"),
        to_failure(socket.gaierror(-2, "Name or service not known")),
        to_failure(ConnectionRefusedError()),
        to_failure(http.client.IncompleteRead(b"")),
        to_token(407, ""),
        to_failure(untrusted("unable to get local issuer certificate")),
        to_failure(untrusted("certificate has expired")),
        _verdicts.service_blocked_verdict(LOCAL, STACK, "connection refused"),
        _verdicts.service_blocked_verdict(LOCAL, STACK, "the proxy wants a user name and password"),
        _verdicts.service_down_verdict(LOCAL, STACK, "materialize", "answers 503", 503),
        _verdicts.service_down_verdict(LOCAL, STACK, "all", "answers 502", 502),
        too_old(),
        unfit(),
        to_token(429, "", **{"retry-after": "20"}),
        to_token(503, {"message": "Service Unavailable"}),
        to_token(200, "{", **{"content-type": "application/json"}),
        _refusals.silent_info_verdict(to_datastack(200, "<html>")),
        _refusals.refused_by_info_verdict(SERVER, STACK),
        _verdicts.netrc_verdict(SERVER, "/home/alice/.netrc", "global.daf-apis.com"),
        _verdicts.client_error_verdict(
            CaveError("This host has no user 'alice'. Create the account first, or correct the name."), SERVER
        ),
    ]
