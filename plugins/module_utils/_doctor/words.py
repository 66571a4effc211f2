# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose trouble a verdict or a problem is, and what the person at the keyboard can do about it: pure functions."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

YOURS, ADMINISTRATORS, CAVES = "Yours", "Your administrator's", "CAVE's"
EXIT_STATUS = {YOURS: 1, ADMINISTRATORS: 3, CAVES: 4}
"""The program's exit status by whose trouble it is; 0 where all is well, 2 for wrong use of the program."""

_WHOSE = {
    "no_token": YOURS,
    "malformed_file": YOURS,
    "invalid_token": YOURS,
    "netrc_overrides_token": YOURS,
    "missing_tos": YOURS,
    "missing_permission": YOURS,
    "unknown_datastack": YOURS,
    "not_a_cave_server": ADMINISTRATORS,
    "unreachable": ADMINISTRATORS,
    "tls_error": ADMINISTRATORS,
    "service_blocked": ADMINISTRATORS,
    "incompatible_client": ADMINISTRATORS,
    "client_error": ADMINISTRATORS,
    "rate_limited": CAVES,
    "server_error": CAVES,
    "service_down": CAVES,
}
_SAVE_ONE = "copy the token from {page} and run: cave-doctor token"
_ADVICE = {
    "no_token": _SAVE_ONE,
    "invalid_token": _SAVE_ONE,
    "malformed_file": "run: cave-doctor --fix",
    "missing_tos": "log in and accept the terms of service: {url}",
    "unknown_datastack": "check the name; cave-doctor NAME tries another one.",
    "rate_limited": "wait a minute, then try again (cave-doctor --wait tries until it works).",
    "server_error": "nothing to do but wait (cave-doctor --wait tries until it works).",
    "service_down": "nothing to do but wait (cave-doctor --wait tries until it works).",
}
_FOR_THE_ADMINISTRATOR = "ansible-playbook "


class Advice(NamedTuple):
    """Whose trouble it is, and what to do."""

    whose: str
    text: str


def on_verdict(verdict: Mapping[str, Any], token_page: str) -> Advice | None:
    """Return what to do about a verdict (as ``Verdict.as_dict`` has it); None where access works.

    Args:
        verdict: what was found.
        token_page: the address of the page on which the server shows a person's tokens.
    """
    code = verdict["verdict"]
    if code == "ok":
        return None
    whose = _WHOSE.get(code, ADMINISTRATORS)
    text = _ADVICE.get(code, "").format(page=token_page, url=verdict.get("url") or verdict.get("server", ""))
    if not text:
        text = str(verdict.get("remedy") or verdict["message"])
    return Advice(whose, text)


def on_problem(problem: Mapping[str, str]) -> Advice:
    """Return what to do about a problem of the user's files (as ``saved_token_info`` returns it)."""
    remedy = problem["remedy"]
    if remedy.startswith(_FOR_THE_ADMINISTRATOR) or is_fixable(problem):
        return Advice(YOURS, "run: cave-doctor --fix")
    if remedy.startswith("sudo "):
        return Advice(ADMINISTRATORS, f"ask them to run: {remedy}")
    return Advice(YOURS, f"run: {remedy}")


def is_fixable(problem: Mapping[str, str]) -> bool:
    """Return whether the person may run the remedy themselves: it is a command that needs no other account."""
    remedy = problem["remedy"]
    return bool(remedy) and not remedy.startswith((_FOR_THE_ADMINISTRATOR, "sudo ", "unset "))


def needs_saving(problem: Mapping[str, str]) -> bool:
    """Return whether the remedy is to save the token anew, which the administrator does by provisioning."""
    return problem["remedy"].startswith(_FOR_THE_ADMINISTRATOR) and "--tags token" in problem["remedy"]
