# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random labs and accidents, in which no rotation locks anybody out. More: nox -s attacks -- rotation-model."""

from __future__ import annotations

from rotation_labs import search_apart


def test_no_rotation_locks_anybody_out_loses_a_token_or_does_anything_twice() -> None:
    found = search_apart("rotation_labs", "2000", "1")
    assert found.returncode == 0, found.stderr


def test_no_token_that_is_taken_off_hosts_is_revoked_while_somebody_may_hold_it() -> None:
    found = search_apart("rotation_labs", "1000", "1", "departures")
    assert found.returncode == 0, found.stderr
