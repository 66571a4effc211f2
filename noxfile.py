# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sessions that every Ansible collection has, by antsibull-nox: see antsibull-nox.toml. `make test` runs them."""

from __future__ import annotations

import antsibull_nox
import nox

nox.options.default_venv_backend = "uv|virtualenv"

antsibull_nox.load_antsibull_nox_toml()

if __name__ == "__main__":
    nox.main()
