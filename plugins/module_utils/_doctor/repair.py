# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person may put right without an administrator: their own files, by the engine that ``saved_token`` uses."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any, Callable, Mapping

from ansible_collections.connectomics.cave.plugins.module_utils import _users
from ansible_collections.connectomics.cave.plugins.module_utils._backends import saved_token
from ansible_collections.connectomics.cave.plugins.module_utils._doctor import words
from ansible_collections.connectomics.cave.plugins.module_utils._doctor.examine import Examination, Question, token_sent

_PATIENCE = 600
"""Seconds for one command of a remedy: pip may be at work."""


def save(token: str, question: Question) -> Mapping[str, Any]:
    """Prove a token and save it in all secrets files of this person; return the result for the user.

    Raises:
        CaveError: the server refuses the token, or a file cannot be written. Then the old files stay.
    """
    entry: dict[str, Any] = {"user": _users.current_user().pw_name, "token": token}
    params: dict[str, Any] = {
        "tokens": [entry],
        "token": None,
        "user": None,
        "server": question.server,
        "datastacks": question.datastacks,
        "key": "token",
        "state": "present",
        "person": None,
        "validate": True,
        "stale": "update",
        "secrets_dir": None,
        "cloud_volume_dir": os.environ.get("CLOUD_VOLUME_DIR") or None,
        "mode": "0600",
        "group": None,
        "on_malformed": "replace",
        "timeout": question.timeout,
        "retries": 1,
        "ca_path": None,
    }
    saved: Mapping[str, Any] = saved_token.run(params, check_mode=False)["users"][0]
    return saved


def fix(found: Examination, question: Question, agree: Callable[[str], bool], tell: Callable[[str], None]) -> int:
    """Offer every remedy that this person may run; return how many were run.

    Args:
        found: what is wrong.
        question: the server and its datastacks.
        agree: asks the person; only a yes runs a remedy.
        tell: shows a line.

    Raises:
        CaveError: the token could not be saved anew.
    """
    done = 0
    problems = found.files.get("problems", [])
    if any(map(words.needs_saving, problems)) and (found.access or {}).get("verdict") == "ok":
        token = token_sent(found.user, question)
        if token and agree(f"Save the token {found.files['fingerprint']}, which the server accepts, in all files?"):
            saved = save(token, question)
            for file in saved["files"]:
                tell(f"  {file['action']}: {file['path']} ({file['reason']})")
            done += 1
    for problem in filter(words.is_fixable, problems):
        tell(f"{problem['message']}")
        if agree(f"Run: {problem['remedy']}"):
            failed = _run(problem["remedy"])
            tell(f"  failed: {failed}" if failed else "  done")
            done += not failed
    return done


def _run(remedy: str) -> str:
    """Run a remedy; return why it failed, empty where it did not."""
    shell = shutil.which("bash") or "/bin/sh"  # odd names are written as bash knows them
    try:
        # A program of its own has no run_command, which is a module's.
        ran = subprocess.run(  # pylint: disable=ansible-bad-function  # see above
            [shell, "-c", remedy],
            timeout=_PATIENCE,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it had not ended after {_PATIENCE} s, and was stopped. Run it by hand."
    return "" if ran.returncode == 0 else ran.stderr.strip()[:200] or f"it ended with {ran.returncode}"
