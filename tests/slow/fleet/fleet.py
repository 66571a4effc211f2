#!/usr/bin/env python
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, stop and mishandle a fleet from the command line: `python tests/slow/fleet/fleet.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth]) for depth in (1, 2)]

from fleet.cli import main  # noqa: E402 (the folders come first)

if __name__ == "__main__":
    sys.exit(main())
