# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import caveclient_environments
import pytest
from homes import open_way
from hypothesis import HealthCheck, settings

from ansible_collections.connectomics.cave.plugins.module_utils._cave.trust import VARIABLES
from cave_server import CaveServer

# The same examples in every run, however busy the machine is. The attacks draw new ones (tests/slow/torture).
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".tree"
FOLDERS = ("tests", "tests/support", "tests/slow", "extra")  # as in pyproject.toml

# Modules and playbooks run as processes of their own: what pyproject.toml tells pytest, the environment tells them.
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(TREE)
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, [TREE, *(ROOT / path for path in FOLDERS)]))

# Debian 13 gives people 002, which is a finding; a test that is about another one sets it.
os.umask(0o022)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary folders apart from those of other runs, which close theirs to all other accounts."""
    if os.geteuid() == 0 and config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="cave-tests-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """An empty folder that every account of the machine can enter: users start what is installed on a host."""
    return open_way(tmp_path)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment leads away from servers of this machine, or says what to trust."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in VARIABLES:
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where nobody is root."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def _cave_process() -> Iterator[CaveServer]:
    with CaveServer() as server:
        yield server


@pytest.fixture(scope="session")
def _cave_tls_process() -> Iterator[CaveServer]:
    with CaveServer(tls=True) as server:
        yield server


@pytest.fixture
def cave(_cave_process: CaveServer) -> CaveServer:
    """A stand-in CAVE server over plain HTTP, with the public datastacks and nobody in it."""
    _cave_process.reset()
    return _cave_process


@pytest.fixture
def cave_tls(_cave_tls_process: CaveServer) -> CaveServer:
    """The same over TLS; `cave_tls.ca` is the bundle that trusts it."""
    _cave_tls_process.reset()
    return _cave_tls_process


@pytest.fixture(scope="session")
def caveclient_python() -> Callable[..., Path]:
    """`caveclient_python("8.2.1", "cv", packages=("cloud-files",))` returns a Python that has them, built once."""
    return caveclient_environments.caveclient_python
