# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines of a report on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from ansible import constants
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import Line

_COLOURS = {
    "failed": constants.COLOR_ERROR,
    "pending": constants.COLOR_UNREACHABLE,
    "warning": constants.COLOR_WARN,
    "ok": constants.COLOR_OK,
}


def print_lines(lines: Iterable[Line]) -> None:
    """Print a report. A callback that prints JSON owns the standard output: there it goes to standard error."""
    display = Display()
    stderr = "json" in str(constants.DEFAULT_STDOUT_CALLBACK)
    display.display("", stderr=stderr)
    for line in lines:
        display.display(line.text, color=_COLOURS.get(line.state), stderr=stderr)
    display.display("", stderr=stderr)
