# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the services of a CAVE server answer, word for word."""

from __future__ import annotations

import json

from ansible_collections.connectomics.cave.plugins.module_utils._cave.http import Answer

SERVER = "https://global.daf-apis.com"
STACK = "minnie65_public"
TOKEN = "0123456789abcdef0123456789abcdef"  # of nobody
FORM = f"{SERVER}/sticky_auth/api/v1/tos/2/accept"
HTML = "text/html; charset=utf-8"
INVALID = {"error": "invalid_token", "message": "Unauthorized - Token is Invalid or Expired"}
MISSING_TOS = {
    "error": "missing_tos",
    "message": "Need to accept Terms of Service to access resource.",
    "data": {"tos_form_url": FORM, "tos_id": 2, "tos_name": "MICrONS Terms"},
}
MISSING_PERMISSION = {
    "error": "missing_permission",
    "message": "Missing permission: view for dataset minnie65_public",
    "data": {"auth_dataset": "minnie65", "required_permission": "view"},
}
UNKNOWN = {
    "error": "invalid_table_id",
    "message": "Invalid table_id for service",
    "data": {"resource_namespace": "datastack", "table_id": "nosuchstack"},
}


def answer(status: int, content: object, content_type: str = "application/json", **headers: str) -> Answer:
    """Return an answer: bytes as they are, anything else as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Answer(status, {"content-type": content_type, **headers}, body, SERVER)


def page(status: int, text: bytes = b"<html>Log in</html>", **headers: str) -> Answer:
    """Return a web page."""
    return answer(status, text, HTML, **headers)
