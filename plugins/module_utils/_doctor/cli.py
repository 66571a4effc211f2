# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``cave-doctor``: why CAVE does not work for the person at the keyboard, and whose trouble it is."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import sys
import time
from typing import Any, Mapping, Sequence, TextIO

from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import (
    DEFAULT_SERVER,
    parse_datastacks,
    server_address,
)
from ansible_collections.connectomics.cave.plugins.module_utils._cave.verdicts import TRANSIENT, token_page
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import text, words
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.examine import Examination, Question, examine
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import looks_like_a_token

GUIDE = "https://connectomics.github.io/ansible-collection-cave/scientists.html"
_PAUSE = 60
"""Seconds between two tries of --wait."""
_INTERRUPTED = 130
_WRONG_USE = 2
_EPILOG = """\
exit status: 0 it works; 1 something is yours to do; 2 wrong use; 3 something is your
administrator's to do; 4 CAVE does not answer as it should: wait.
"cave-doctor token" asks for a token without showing it, proves it and saves it in all files."""


def main(arguments: Sequence[str], lab: Mapping[str, Any]) -> int:
    """Run the program; return its exit status.

    Args:
        arguments: of the command line.
        lab: ``version``, and what the lab provisions: ``server``, ``datastacks``, ``path``.
    """
    if sys.stdout is None or sys.stderr is None:  # closed ones
        nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a person's name, on a terminal of an old locale
    if any(map(looks_like_a_token, arguments)):
        _say("A token does not go on the command line, where others see it: run cave-doctor token", sys.stderr)
        return _WRONG_USE
    parser = _parser(lab)
    options = parser.parse_args(arguments)
    others = (options.json, options.offline, options.wait, options.ask_admin, options.fix)
    if "token" in options.datastacks and (any(others) or len(options.datastacks) > 1):
        parser.error('"token" saves a token, which the server has to accept: it goes with no other word than --server')
    try:
        server = server_address(options.server)
        if options.datastacks != ["token"]:
            parse_datastacks(options.datastacks, server)
    except CaveError as error:
        _say(error.message, sys.stderr)
        return _WRONG_USE
    try:
        question = Question(server, options.datastacks or list(lab.get("datastacks", [])), options.path)
        if options.datastacks == ["token"]:
            return _save(question._replace(datastacks=list(lab.get("datastacks", []))))
        return _examine(options, question, str(lab["version"]))
    except CaveError as error:
        _say(error.message, sys.stderr)
        return words.EXIT_STATUS[words.YOURS]
    except (KeyboardInterrupt, EOFError):
        _say("\nStopped.", sys.stderr)
        return _INTERRUPTED
    except _NotPrinted:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERRUPTED


def _parser(lab: Mapping[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cave-doctor", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("datastacks", nargs="*", metavar="DATASTACK", help="datastacks to check (default: the lab's); or: token")
    add("--server", default=lab.get("server") or DEFAULT_SERVER, help="address of the auth server (%(default)s)")
    add("--path", default=lab.get("path") or "/opt/caveclient", help="folder of the environments (%(default)s)")
    add("--json", action="store_true", help="print what was found as JSON")
    add("--offline", action="store_true", help="look at the files alone, ask no server")
    add("--wait", action="store_true", help="ask every minute until it works")
    add("--ask-admin", action="store_true", help="print a block without secrets for a mail to the administrator")
    add("--fix", action="store_true", help="offer to put your own files right, one by one")
    add("--version", action="version", version=str(lab["version"]))
    return parser


def _examine(options: argparse.Namespace, question: Question, version: str) -> int:
    progress = f"Asking {question.server} ..." if sys.stderr.isatty() and not (options.json or options.offline) else ""
    if progress:
        _say(progress, sys.stderr, end="\r")
    found = examine(question, options.offline)
    if progress:
        _say(" " * len(progress), sys.stderr, end="\r")
    while options.wait and _may_pass(found):
        waiting = f"{time.strftime('%H:%M')}  not yet: {found.access['message'] if found.access else ''}"
        _say(waiting, sys.stderr if options.json or options.ask_admin else None)  # what is kept holds the answer alone
        time.sleep(_PAUSE)
        found = examine(question, offline=False)
    if options.fix:
        # Imported only here, and below: it takes a third of the time of the whole answer.
        from ansible_collections.connectomics.cave.plugins.module_utils._doctor import repair

        if repair.fix(found, question, _agree, _say):
            found = examine(question, options.offline)
    if options.json:
        _say(json.dumps({**found.as_dict(), "version": version, "exit_status": text.exit_status(found)}, indent=2))
    elif options.ask_admin:
        _say(text.for_administrator(found, version))
    else:
        _say(text.as_text(found, version, _colours(), GUIDE))
    return text.exit_status(found)


class _NotPrinted(Exception):  # noqa: N818 (not an error: the end)
    """Nobody reads on, as behind "| head", or there is no room for what is printed."""


def _say(text: str, to: TextIO | None = None, end: str = "\n") -> None:
    to = to or sys.stdout
    try:
        to.write(f"{text}{end}")
        to.flush()
    except OSError as error:
        raise _NotPrinted from error


def _may_pass(found: Examination) -> bool:
    return found.access is not None and found.access["verdict"] in TRANSIENT | {"service_down"}


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _agree(what: str) -> bool:
    try:
        return input(f"{what} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _save(question: Question) -> int:
    from ansible_collections.connectomics.cave.plugins.module_utils._doctor import repair

    _say(f"Copy your token from {token_page(question.server)}.")
    saved = repair.save(getpass.getpass("Token (not shown): "), question)
    for file in saved["files"]:
        _say(f"{file['action']}: {file['path']} ({file['reason']})")
    _say(f"The server accepts the token {saved['fingerprint']}, and all of your programs send it.")
    return 0
