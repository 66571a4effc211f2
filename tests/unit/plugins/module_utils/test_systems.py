# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How systems differ, on faked facts and file trees: none of them is at hand but the one that runs the tests."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from homes import secrets_of

from ansible_collections.connectomics.cave.plugins.module_utils import _systems
from ansible_collections.connectomics.cave.plugins.module_utils._cave.servers import parse_datastacks
from ansible_collections.connectomics.cave.plugins.module_utils._environment import doctor, kernel
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.inspect import inspect
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.locations import Home
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.requests import Request
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.writer import save
from ansible_collections.connectomics.cave.plugins.module_utils._systems import MACOS, System, system_of, this_system

RELEASES = {
    "Debian 12": 'ID=debian\nVERSION_ID="12"\n',
    "Ubuntu 24.04": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "Ubuntu on WSL": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\n',
    "RHEL 8": 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n',
    "Rocky 8": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"\n',
    "Alma 9": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
    "CentOS Stream 10": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="10"\n',
    "Fedora 42": "ID=fedora\nVERSION_ID=42\n",
    "openSUSE Leap": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
    "Arch": "ID=arch\n",
    "nothing": "",
}
MAC = System(MACOS)


@pytest.mark.parametrize(
    ("release", "system", "python", "of_a_version", "pip"),
    [
        ("Debian 12", ("debian", 12), "apt-get install python3", "apt-get install python3.12", "python3-venv"),
        ("Ubuntu 24.04", ("debian", 24), "apt-get install python3", "apt-get install python3.12", "python3-venv"),
        ("Ubuntu on WSL", ("debian", 22), "apt-get install python3", "apt-get install python3.12", "python3-venv"),
        ("RHEL 8", ("el", 8), "dnf install python3.11", "dnf install python3.12", "dnf install python3-pip"),
        ("Rocky 8", ("el", 8), "dnf install python3.11", "dnf install python3.12", "dnf install python3-pip"),
        ("Alma 9", ("el", 9), "dnf install python3.11", "dnf install python3.12", "dnf install python3-pip"),
        ("CentOS Stream 10", ("el", 10), "dnf install python3", "dnf install python3.12", "dnf install python3-pip"),
        ("Fedora 42", ("fedora", 42), "dnf install python3", "dnf install python3.12", "dnf install python3-pip"),
        ("openSUSE Leap", ("suse", 15), "zypper install python311", "zypper install python312", "zypper install"),
        ("Arch", ("", 0), "Install python3 with", "Install python3.12 with", "Install pip with"),
        ("nothing", ("", 0), "Install python3 with", "Install python3.12 with", "Install pip with"),
    ],
)
def test_a_distribution_has_its_own_commands(
    release: str, system: tuple[str, int], python: str, of_a_version: str, pip: str
) -> None:
    found = system_of("linux", RELEASES[release])
    assert (found.family, found.major) == system
    assert found.install_python().removeprefix("sudo ").startswith(python)
    assert found.install_python("3.12.1").removeprefix("sudo ").startswith(of_a_version)
    assert pip in found.install_pip()
    assert (found.homes, found.first_user_id) == ("/home", 1000)


def test_the_python_3_9_of_el_8_has_a_name_of_its_own() -> None:
    assert system_of("linux", RELEASES["Rocky 8"]).install_python("3.9") == "sudo dnf install python39"


@pytest.mark.parametrize("release", ["", RELEASES["Debian 12"]])
def test_a_mac_has_nothing_of_linux(release: str) -> None:
    found = system_of("darwin", release)
    assert found == MAC
    said = [found.install_python(), found.install_python("3.11"), found.install_pip(), found.make_home("ann")]
    said += [
        found.add_to_group(),
        found.allow_changes("/x"),
        found.edit(),
        found.trust_authority(),
        found.check_clock(),
    ]
    linux = ("apt", "dnf", "usermod", "chattr", "--follow-symlinks", "timedatectl", "update-ca")
    assert not [text for text in said if any(word in text for word in linux)]
    assert (found.homes, found.first_user_id) == ("/Users", 501)
    assert found.jupyter_of("/Users/ann") == "/Users/ann/Library/Jupyter"


def test_this_system_is_one_that_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert this_system().kind == platform.system()
    monkeypatch.setattr(_systems, "_RELEASE", str(tmp_path / "none"))
    assert this_system().family == ""


@pytest.mark.parametrize(
    "place",
    [
        "opt/anaconda3/envs/cave",
        "anaconda3",
        "miniforge3/envs/cave",
        "Library/r-miniconda-arm64/envs/r-reticulate",
        ".local/share/r-miniconda/envs/r-reticulate",
        ".pyenv/versions/3.12.1",
        "Library/Python/3.9",
    ],
)
def test_a_caveclient_is_found_where_people_have_python(place: str, tmp_path: Path) -> None:
    lib = "lib/python" if place.startswith("Library/Python") else "lib/python3.12"
    site = tmp_path / place / lib / "site-packages"
    (site / "caveclient-5.30.0.dist-info").mkdir(parents=True)
    found = inspect(Home("me", os.geteuid(), str(tmp_path)), by_root=False, managed="/opt/caveclient")
    assert found.installed == {str(site): "5.30.0"}


# SELinux --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def relabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A host with SELinux: returns what was labelled anew, as far as it was there."""
    log = tmp_path / "restorecon.log"
    program = tmp_path / "restorecon"
    program.write_text(f'#!/bin/sh\nshift\nfor path; do test -e "$path" && echo "$path" >> {log}; done\nexit 1\n')
    program.chmod(0o755)
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(_systems, "_RESTORECON", ("/nowhere/restorecon", str(program)))
    monkeypatch.setattr(_systems, "_SELINUX", str(tmp_path / "enforce"))
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_directories_that_are_made_in_a_home_get_their_labels(
    relabelled: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOUD_VOLUME_DIR", raising=False)
    server = "https://cave.example.org"
    request = Request(server, parse_datastacks([], server), "token", "0123456789abcdef0123456789abcdef")
    me = Home("me", os.geteuid(), str(tmp_path / "home"), cloud_volume_dir="")
    Path(me.path).mkdir()
    save(me, [request], "update", check_mode=True)
    assert relabelled() == []
    save(me, [request], "update", check_mode=False)
    assert relabelled() == [str(secrets_of(tmp_path / "home").parent)]
    save(me, [request._replace(token="fedcba9876543210fedcba9876543210")], "update", check_mode=False)
    assert len(relabelled()) == 1


def test_the_kernel_and_cave_doctor_get_their_labels(relabelled: Callable[[], list[str]], tmp_path: Path) -> None:
    kernel.write_kernel(kernel.kernel_file(str(tmp_path / "jupyter")), {"argv": []})
    (tmp_path / "doctor").write_bytes(b"module_utils/_doctor/cli.py")
    (tmp_path / "bin").mkdir(mode=0o755)
    doctor._replace(str(tmp_path / "bin" / "cave-doctor"), b"#!", 0o755)
    assert relabelled() == [f"{tmp_path}/jupyter/kernels/cave", f"{tmp_path}/bin/cave-doctor"]


@pytest.mark.parametrize("missing", ["enforce", "restorecon"])
def test_without_selinux_or_its_tools_nothing_is_run(
    missing: str, relabelled: Callable[[], list[str]], tmp_path: Path
) -> None:
    (tmp_path / missing).unlink()
    _systems.restore_labels(str(tmp_path))
    assert relabelled() == []


@pytest.mark.skipif(sys.platform != "linux", reason="what root can write there is Linux's")
def test_the_tools_of_selinux_are_looked_for_where_only_root_can_write() -> None:
    assert all(path.startswith(("/usr/sbin/", "/sbin/")) for path in _systems._RESTORECON)
