# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules ``server_token`` and ``server_token_info`` do, and the lookup of that name."""

from __future__ import annotations

import time
from typing import Any, Iterable, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import server_address
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_api import TokenApi
from ansible_collections.connectomics.cave.plugins.module_utils._cave.token_list import (
    Listing,
    Selection,
    clean_description,
    clean_fingerprint,
    describe,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.tokens import clean_token
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


def _api(params: Mapping[str, Any]) -> TokenApi:
    return TokenApi(
        server_address(params["server"]),
        clean_token(params["token"]),
        timeout=params["timeout"],
        retries=params["retries"],
        ca_path=params["ca_path"] or None,
    )


def run_info(params: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the module ``server_token_info`` is asked for; return its result. Raises CaveError."""
    api = _api(params)
    listing = api.listing()
    return {"changed": False, "tokens": [describe(token, listing, api.token) for token in listing.tokens]}


def run(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Do what the module ``server_token`` is asked for; return its result. Raises CaveError."""
    api = _api(params)
    if params["state"] == "present":
        return _present(api, clean_description(params["description"], api.token), check)
    chosen = Selection(
        params["id"],
        params["description"],
        None if params["fingerprint"] is None else clean_fingerprint(params["fingerprint"]),
    )
    listing, revoked = api.revoke(chosen, all_of_them=params["all"], force=params["force"], check=check)
    found = [describe(token, listing, api.token) for token in revoked]
    return {"changed": bool(found), "revoked": found, "diff": _diff(found, [])}


def _present(api: TokenApi, description: str, check: bool) -> dict[str, Any]:
    made = api.ensure(description, check=check)
    if made.token is None:
        found: dict[str, Any] = {"id": None, "description": description, "fingerprint": None, "created": None}
    else:
        shown = describe(made.token, Listing((made.token,), time.time()), api.token)
        found = {name: shown[name] for name in ("id", "description", "fingerprint", "created")}
    return {
        "changed": made.created,
        **found,
        "old_token_alive": made.old_token_alive,
        "diff": _diff([] if made.created else [found], [found]),
    }


def _diff(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    def text(tokens: Iterable[Mapping[str, Any]]) -> str:
        return "".join(f"token {item['fingerprint'] or '(new)'}: {item['description']}\n" for item in tokens)

    return {"before": text(before), "after": text(after)}


def values_of(descriptions: Iterable[str], params: Mapping[str, Any]) -> list[str]:
    """Return the tokens themselves that have these descriptions. Raises CaveError when there is none of one."""
    api = _api(params)
    values = []
    for description in descriptions:
        found = api.find(description)
        if found is None:
            raise CaveError(f"{api.server} has no token with the description {description!r} for this person.")
        values.append(found.value)
    return values
