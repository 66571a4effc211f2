# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the program of a store: what is secret goes in and out by its standard streams."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._masking import (
    PART_HIDDEN,
    looks_like_a_token,
    mask_token_like,
)

TIMEOUT = 120.0
"""Seconds, in which a person may have to type a passphrase."""
_SHOWN = 300


def run(
    words: Sequence[str],
    install: str,
    text: bytes = b"",
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> bytes:
    """Return what a program printed.

    Args:
        words: its command line, without anything secret.
        install: what to do when the program is missing.
        text: for its standard input.
        folder: to run it in.
        variables: its environment; None: that of this run.

    Raises:
        CaveError: it failed, or cannot be started.
    """
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, cwd=folder, env=variables, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise CaveError(f"{words[0]} is not installed here. {install}") from None
    except OSError as error:
        raise CaveError(f"{words[0]} cannot be started: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise CaveError(f"{words[0]} did not end in {TIMEOUT:g} seconds. Does it wait for a passphrase?") from None
    if done.returncode:
        said = harmless(done.stderr.decode("utf-8", "replace"))
        raise CaveError(f"{words[0]} says: {said or f'exit status {done.returncode}'}.")
    return done.stdout


def harmless(text: str) -> str:
    """Return the beginning of a program's message in one line, without anything that could be a token or a key."""
    words = [
        PART_HIDDEN if looks_like_a_token(word.strip(":,;.'\"")) else word for word in mask_token_like(text).split()
    ]
    line = " ".join(words)
    return (line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…").rstrip(".")
