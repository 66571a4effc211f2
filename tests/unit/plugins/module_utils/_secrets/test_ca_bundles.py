# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CA certificates that startup files name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.ca_bundles import bundles
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import EnvValue


def flaws(path: str, variable: str = "REQUESTS_CA_BUNDLE", *, is_certain: bool = True) -> list[str]:
    named = [EnvValue(variable, path, "/home/a/.bashrc", 1, is_certain)]
    return [flaw for _named, flaw in bundles(named) if flaw]


def test_what_is_no_file_of_certificates_is_told_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
    os.mkfifo(tmp_path / "pipe")
    assert flaws(certifi.where()) == []
    assert flaws(str(tmp_path / "missing.pem")) == ["does not exist"]
    assert flaws(str(tmp_path / "missing.pem"), is_certain=False) == []
    assert flaws(str(broken)) == ["holds no certificates"]
    assert flaws(str(tmp_path / "pipe")) == ["is not a regular file"]
    assert flaws(str(tmp_path)) == []
    assert flaws(str(tmp_path), "SSL_CERT_FILE") == ["is a directory, where a file was expected"]


@pytest.mark.parametrize("name", ["ssl", "base64"])
def test_nothing_is_imported_that_a_user_may_not_be_able_to_read(name: str) -> None:
    module = bundles.__module__
    program = f"import sys, {module}; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
