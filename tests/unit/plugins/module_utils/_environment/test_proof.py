# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest
import stub_wheels

from ansible_collections.connectomics.cave.plugins.module_utils._environment.proof import check_imports
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Request, parse_request
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


def request(version: str = "", *, kernel: bool = False, python: str = "", **lists: list[str]) -> Request:
    """Return a request as the module would make it."""
    words = {"extras": [], "packages": [], "constraints": [], **lists}
    return parse_request(version, words["extras"], words["packages"], words["constraints"], python, kernel)


@pytest.fixture
def python(tmp_path: Path) -> tuple[str, Path]:
    """An environment's Python that has packaging and stubs, and the folder of its packages."""
    site_packages = tmp_path / "site-packages"
    for wheel in sorted(stub_wheels.lab(tmp_path / "wheels", "8.2.1").glob("*.whl")):
        if not wheel.name.startswith(("numpy-1", "matplotlib", "cloud_volume")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site_packages)
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\nexec {sys.executable} -S -c "
        f'"import sys; sys.path.insert(0, {str(site_packages)!r}); exec(sys.argv.pop())" "$@"\n'
    )
    script.chmod(0o755)
    return str(script), site_packages


def test_an_environment_that_imports_caveclient_works(python: tuple[str, Path]) -> None:
    asked = request("", extras=["cv"], kernel=True)

    assert check_imports(python[0], python[1], asked, dict(os.environ), 20) == "8.2.1"


def test_an_extra_that_caveclient_does_not_have_is_named_with_those_that_it_has(python: tuple[str, Path]) -> None:
    with pytest.raises(CaveError, match=r"caveclient 8\.2\.1 has no extra 'vc'; it has: cv"):
        check_imports(python[0], python[1], request(extras=["vc"]), dict(os.environ), 20)


def test_an_environment_without_caveclient_does_not_work(python: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CaveError, match="caveclient is not in"):
        check_imports(python[0], tmp_path / "empty", request(), dict(os.environ), 20)


def test_an_import_that_fails_says_why(python: tuple[str, Path]) -> None:
    (python[1] / "caveclient" / "__init__.py").write_text("raise ImportError('numpy is broken')")

    with pytest.raises(CaveError, match="cannot be imported: ImportError: numpy is broken"):
        check_imports(python[0], python[1], request(), dict(os.environ), 20)


def test_an_import_that_a_signal_ends_says_which(python: tuple[str, Path]) -> None:
    (python[1] / "caveclient" / "__init__.py").write_text("import os; os.kill(os.getpid(), 9)")

    with pytest.raises(CaveError, match=r"was ended by SIGKILL .*\. Look up what ended it"):
        check_imports(python[0], python[1], request(), dict(os.environ), 20)


def test_an_import_that_hangs_is_ended(python: tuple[str, Path]) -> None:
    (python[1] / "caveclient" / "__init__.py").write_text("import time; time.sleep(60)")

    with pytest.raises(CaveError, match="took more than 1 seconds"):
        check_imports(python[0], python[1], request(), dict(os.environ), 1)
