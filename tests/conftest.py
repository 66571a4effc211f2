# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".tree"

# Modules and playbooks run as processes of their own: what pyproject.toml tells pytest, the environment tells them.
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(TREE)
os.environ["PYTHONPATH"] = os.pathsep.join([str(TREE), str(ROOT / "tests")])
