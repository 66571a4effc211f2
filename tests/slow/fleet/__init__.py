# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of real SSH hosts on one machine, without a container engine: see the README beside this file."""

from ._errors import FleetError
from ._faults import FAULTS
from ._fleet import PYTHONS, USERS, Fleet, running
from ._host import Host

__all__ = ["FAULTS", "PYTHONS", "USERS", "Fleet", "FleetError", "Host", "running"]
