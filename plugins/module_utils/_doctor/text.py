# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An examination as a person reads it: lines of at most 80 columns, the answer last. Pure functions."""

from __future__ import annotations

import re
import textwrap
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import token_page
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import words
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.examine import Examination
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.words import Advice

OK, NOTE, WRONG = "ok", "note", "WRONG"
_COLUMNS = 80
_BEHIND = {"netrc_overrides_token": "client_error", "wrong_owner": "malformed_file"}
_COLOURS = {OK: "32", NOTE: "33", WRONG: "31"}


class Line(NamedTuple):
    """One finding: how it stands (``OK``, ``NOTE`` or ``WRONG``), what it is about, and what was found."""

    state: str
    about: str
    text: str


def findings(found: Examination) -> list[Line]:
    """Return what was found, in the order of a person's questions."""
    return [*_account(found), *_token(found), *_access(found), *_files(found), *_session(found)]


def advice(found: Examination) -> list[Advice]:
    """Return what to do, the most important first; empty when all is well."""
    page = token_page(found.server)
    verdicts = (
        [found.access, *found.access.get("datastacks", []), *found.access.get("services", [])] if found.access else []
    )
    problems = found.files.get("problems", [])
    # The problem that is behind a verdict says what to do.
    explained = {_BEHIND.get(problem["code"], "") for problem in problems}
    may_fix = any(words.is_fixable(problem) for problem in problems)
    asked = [
        words.on_verdict(verdict, page, may_fix)
        for verdict in verdicts
        if "verdict" in verdict and verdict["verdict"] not in explained
    ]
    works = (found.access or {}).get("verdict") == "ok"
    about_files = [words.on_problem(problem, works) for problem in problems]
    failed = [Advice(words.YOURS, str(found.files["msg"]))] if found.files.get("failed") else []
    unasked = [] if verdicts or about_files or failed or found.files.get("fingerprint") else [words.without_token(page)]
    return list(dict.fromkeys([*failed, *unasked, *filter(None, asked), *about_files]))


def exit_status(found: Examination) -> int:
    """Return the program's exit status: 0, or by whose trouble the most important thing is."""
    return next((words.EXIT_STATUS[item.whose] for item in advice(found)), 0)


def as_text(found: Examination, version: str, colours: bool, guide: str) -> str:
    """Return the whole answer.

    Args:
        found: what was found.
        version: of the program.
        colours: whether the terminal shows colours.
        guide: the address of the page for scientists.
    """
    lines = [f"cave-doctor {version} on {found.host} for {found.user}", ""]
    for line in findings(found):
        state = f"\x1b[{_COLOURS[line.state]}m{line.state:<5}\x1b[0m" if colours else f"{line.state:<5}"
        text = _with_tilde(f"{line.about}: {line.text}", found.home)
        first, *more = textwrap.wrap(text, _COLUMNS - 7, break_on_hyphens=False) or [""]
        lines += [f"{state}  {first}", *(f"{'':7}{rest}" for rest in more)]
    lines.append("")
    for item in advice(found):
        lines += textwrap.wrap(
            _with_tilde(f"{item.whose}: {item.text}", found.home),
            _COLUMNS,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    if len(lines) and lines[-1] == "":
        lines.append(
            "All is well." if found.access is not None else "All is well here; no server was asked (--offline)."
        )
    else:
        lines.append(f"More: {guide}")
    return "\n".join(lines)


def _with_tilde(text: str, home: str) -> str:
    """Return text with the paths below a home as people write them."""
    return re.sub(rf"(?<![\w./~-]){re.escape(home)}/", "~/", text) if home != "/" else text


def for_administrator(found: Examination, version: str) -> str:
    """Return a block to paste into a mail: what was found, without anything secret."""
    lines = [f"cave-doctor {version}: {found.user} on {found.host}, server {found.server}"]
    lines += [f"- {line.state}: {line.about}: {line.text}" for line in findings(found)]
    lines += [
        f"- file: {file['path']} {file['mode']} {file['owner']} "
        + ", ".join(f"{key}={value}" for key, value in file["fingerprints"].items())
        for file in found.files.get("files", [])
    ]
    lines += [f"- remedy: {problem['code']}: {problem['remedy']}" for problem in found.files.get("problems", [])]
    access = found.access or {}
    remedies = {
        f"- remedy: {part['verdict']}: {part['remedy']}" for part in [access, *_parts(access)] if part.get("remedy")
    }
    lines += sorted(remedies)
    return "\n".join(lines)


def _account(found: Examination) -> Iterator[Line]:
    person = (found.access or {}).get("person")
    if person:
        service = " (service account)" if person.get("service_account") else ""
        yield Line(OK, "You", f"{person['name']} <{person['email']}>{service} at {found.server}")
    elif found.access is None:
        yield Line(NOTE, "You", "no server was asked, so it is not known whose token it is")


def _token(found: Examination) -> Iterator[Line]:
    if found.files.get("failed"):
        yield Line(WRONG, "Secrets files", str(found.files["msg"]))
        return
    senders: dict[str, list[str]] = {}
    for reader in found.files.get("readers", []):
        senders.setdefault(reader["fingerprint"] or "no token", []).append(f"{reader['reader']} to {reader['host']}")
    for sent, named in senders.items():
        readers = ", ".join(dict.fromkeys(named))
        if sent == "no token":
            yield Line(WRONG, "Token", f"none is sent by {readers}")
        else:
            yield Line(OK if len(senders) == 1 else WRONG, f"Token {sent}", f"sent by {readers}")
    if (found.access or {}).get("token_kind") == "expiring":
        yield Line(NOTE, "Lifetime", "this token comes from a browser login and ends by itself within a week")


def _access(found: Examination) -> Iterator[Line]:
    if found.access is None:
        return
    overall = found.access
    wrong = [part for part in _parts(overall) if part["verdict"] != "ok"]
    if not wrong:
        state, code = (OK, "") if overall["verdict"] == "ok" else (WRONG, f" [{overall['verdict']}]")
        yield Line(state, "Access", f"{overall['message']}{code}")
    for part in wrong:
        service = part.get("service")
        about = "Services" if service == "all" else service or part.get("datastack") or "Access"
        yield Line(WRONG, str(about), f"{part['message']} [{part['verdict']}]")


def _parts(access: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the verdicts of which the overall one is the worst: on datastacks and their services."""
    return [*access.get("datastacks", []), *access.get("services", [])]


def _files(found: Examination) -> Iterator[Line]:
    for problem in found.files.get("problems", []):
        yield Line(WRONG, "Files", f"{problem['message']} [{problem['code']}]")


def _session(found: Examination) -> Iterator[Line]:
    for note in found.session:
        yield Line(NOTE, "This session", note)
