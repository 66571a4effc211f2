# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose trouble a verdict or a problem is, and what the person at the keyboard can do about it: pure functions."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

YOURS, ADMINISTRATORS, CAVES = "Yours", "Your administrator's", "CAVE's"
EXIT_STATUS = {YOURS: 1, ADMINISTRATORS: 3, CAVES: 4}
"""The program's exit status by whose trouble it is; 0 where all is well, 2 for wrong use of the program."""

_SEND = "send them what this prints: cave-doctor --ask-admin"
_WAIT = "nothing to do but wait (cave-doctor --wait tries until it works)."
_SAVE_ONE = "copy the token from {page} and run: cave-doctor token"
_ADVICE = {
    "no_token": (YOURS, _SAVE_ONE),
    "malformed_file": (YOURS, "run: cave-doctor --fix"),
    "invalid_token": (YOURS, _SAVE_ONE),
    "missing_tos": (YOURS, "log in and accept the terms of service: {url}"),
    "missing_permission": (YOURS, ""),
    "unknown_datastack": (YOURS, "check the name; cave-doctor NAME tries another one."),
    "not_a_cave_server": (
        ADMINISTRATORS,
        f"something else answers in its place. Open a web page: the network may want you to log in. If not, {_SEND}",
    ),
    "unreachable": (ADMINISTRATORS, f"check that this computer is online; if it is, {_SEND}"),
    "tls_error": (ADMINISTRATORS, f"this computer does not trust what answers: {_SEND}"),
    "service_blocked": (ADMINISTRATORS, f"a firewall may be in the way: {_SEND}"),
    "service_down": (CAVES, _WAIT),
    "incompatible_client": (ADMINISTRATORS, f"the installed programs do not fit: {_SEND}"),
    "rate_limited": (CAVES, "wait a minute, then try again (cave-doctor --wait tries until it works)."),
    "server_error": (CAVES, _WAIT),
    "client_error": (ADMINISTRATORS, _SEND),
}
"""Whose trouble each verdict is, and what to do; empty: as the verdict's remedy says, which is for persons then."""
_FOR_THE_ADMINISTRATOR = ("ansible-playbook ", "sudo ", "kubectl ")
_BY_SAVING = "ansible-playbook connectomics.cave.provision --tags token"


class Advice(NamedTuple):
    """Whose trouble it is, and what to do."""

    whose: str
    text: str


def on_verdict(verdict: Mapping[str, Any], token_page: str, may_fix: bool = True) -> Advice | None:
    """Return what to do about a verdict (as ``Verdict.as_dict`` has it); None where access works.

    Args:
        verdict: what was found.
        token_page: the address of the page on which the server shows a person's tokens.
        may_fix: whether the person may run the remedy of one of the problems with the files.
    """
    code = verdict["verdict"]
    if code == "ok":
        return None
    if code == "malformed_file" and not may_fix:
        return without_token(token_page)
    whose, text = _ADVICE.get(code, (ADMINISTRATORS, _SEND))
    said = text.format(page=token_page, url=verdict.get("url") or verdict.get("server", ""))
    return Advice(whose, said or str(verdict.get("remedy") or verdict["message"]))


def without_token(token_page: str) -> Advice:
    """Return what to do where there is no token, or none that is of use."""
    return Advice(YOURS, _SAVE_ONE.format(page=token_page))


def on_problem(problem: Mapping[str, str], works: bool) -> Advice:
    """Return what to do about a problem of the user's files.

    Args:
        problem: as ``saved_token_info`` returns it.
        works: whether the server accepts the token that is sent.
    """
    remedy = problem["remedy"]
    if needs_saving(problem) and not works:
        return Advice(YOURS, "run: cave-doctor token")
    if needs_saving(problem) or is_fixable(problem):
        return Advice(YOURS, "run: cave-doctor --fix")
    if remedy.startswith(_FOR_THE_ADMINISTRATOR):
        return Advice(ADMINISTRATORS, _SEND)
    return Advice(YOURS, f"run: {remedy}")


def is_fixable(problem: Mapping[str, str]) -> bool:
    """Return whether the person may run the remedy themselves: it is a command that needs no other account."""
    remedy = problem["remedy"]
    return bool(remedy) and not needs_saving(problem) and not remedy.startswith((*_FOR_THE_ADMINISTRATOR, "unset "))


def needs_saving(problem: Mapping[str, str]) -> bool:
    """Return whether the remedy is to save the token anew.

    That is what provisioning does; and what copies a file in place is not left half done when the engine does it.
    """
    return problem["remedy"].startswith((_BY_SAVING, "install "))
