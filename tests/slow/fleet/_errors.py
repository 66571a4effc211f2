# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fleet raises."""

from __future__ import annotations


class FleetError(Exception):
    """The fleet, or a command on one of its hosts, failed; the message says what, where and what to do."""
