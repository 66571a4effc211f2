# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a process ended that was started here, in words."""

from __future__ import annotations

import signal

AFTER_A_SIGNAL = "Look up what ended it in the host's log (journalctl -k), then run this again."
"""The remedy where a signal has ended a process: it is the host's doing, or a crash, and no exit of its own."""
_CAUSES = {
    "SIGKILL": "probably for lack of memory",
    "SIGXCPU": "the limit on processor time is too low",
    "SIGILL": "the processor lacks an instruction that a package uses",
    "SIGSYS": "the host forbids a system call",
    "SIGSEGV": "it crashed",
    "SIGBUS": "it crashed",
    "SIGABRT": "it crashed",
}


def how(status: int) -> str:
    """Return how a process with a return code of ``subprocess`` ended."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # one of the numbered signals for real time
        name = f"signal {-status}"
    cause = _CAUSES.get(name)
    return f"was ended by {name}" + (f" ({cause})" if cause else "")
