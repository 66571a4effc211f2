# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in CAVE server: the auth and info services as the real ones answer, with faults that a test can switch on.

`CaveServer` starts and drives it; README.md tells more.
"""

from __future__ import annotations

from .client import CaveServer, Person

__all__ = ["CaveServer", "Person"]
