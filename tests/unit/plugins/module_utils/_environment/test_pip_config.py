# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment.pip_config import (
    PipSettings,
    as_uv_environment,
    has_own_uv_settings,
    host_of_index,
    local_path,
    read_pip_settings,
    require_neutral_uv,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

SETTINGS = """
[global]
index-url = https://pypi.lab.example/simple
extra-index-url =
    https://one.lab.example/simple
    https://two.lab.example/simple
cert = /etc/ssl/lab.pem
trusted_host = pypi.lab.example one.lab.example
[install]
find-links = /srv/wheels
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(SETTINGS)
    return tmp_path


def test_a_users_configuration_is_read(home: Path) -> None:
    settings = read_pip_settings({}, str(home))

    assert settings.index_url == "https://pypi.lab.example/simple"
    assert settings.extra_index_urls == ("https://one.lab.example/simple", "https://two.lab.example/simple")
    assert settings.find_links == ("/srv/wheels",)
    assert settings.cert == "/etc/ssl/lab.pem"
    assert settings.trusted_hosts == ("pypi.lab.example", "one.lab.example")


def test_variables_outrank_files_and_empty_ones_do_not_count(home: Path) -> None:
    environ = {"PIP_INDEX_URL": "https://other.example/simple", "PIP_CERT": "", "PIP_NO_INDEX": "true"}
    settings = read_pip_settings(environ, str(home))

    assert settings.index_url == "https://other.example/simple"
    assert settings.cert == "/etc/ssl/lab.pem"
    assert settings.no_index is True


def test_a_file_that_is_named_outranks_the_others(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.conf"
    own.write_text("[global]\nindex-url = https://own.example/simple\n")

    assert read_pip_settings({"PIP_CONFIG_FILE": str(own)}, str(home)).index_url == "https://own.example/simple"


def test_no_file_is_read_when_pip_would_read_none(home: Path) -> None:
    assert read_pip_settings({"PIP_CONFIG_FILE": "/dev/null"}, str(home)) == PipSettings()


@pytest.mark.parametrize("content", [b"", b"index-url = x", b"[global\n", b"\xff\xfe", b"[global]\na\n"])
def test_a_file_that_cannot_be_understood_counts_as_absent(home: Path, content: bytes) -> None:
    (home / ".config" / "pip" / "pip.conf").write_bytes(content)

    assert read_pip_settings({"XDG_CONFIG_DIRS": str(home)}, str(home)).cert != "/etc/ssl/lab.pem"


def test_pip_itself_sees_the_same_settings(home: Path) -> None:
    """The real pip, with this home, is the judge of what its files say."""
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PIP_CERT": "/etc/ssl/other.pem"}
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], env=environ, capture_output=True, text=True, check=True
    ).stdout
    settings = read_pip_settings(environ, str(home))

    assert f"global.index-url='{settings.index_url}'" in shown
    assert f"install.find-links='{settings.find_links[0]}'" in shown
    assert f":env:.cert='{settings.cert}'" in shown


def test_uv_is_told_what_pip_would_do(tmp_path: Path) -> None:
    settings = PipSettings(
        index_url="https://pypi.lab.example/simple",
        extra_index_urls=("https://one.lab.example/simple", "https://two.lab.example/simple"),
        find_links=(str(tmp_path), "https://lab.example/wheels"),
        trusted_hosts=("a", "b"),
        cert="/etc/ssl/lab.pem",
        client_cert="/etc/ssl/me.pem",
        proxy="http://proxy.lab.example:3128",
    )

    assert as_uv_environment(settings, {}) == {
        "UV_DEFAULT_INDEX": "https://pypi.lab.example/simple",
        "UV_INDEX": "https://one.lab.example/simple https://two.lab.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path},https://lab.example/wheels",
        "UV_INSECURE_HOST": "a b",
        "SSL_CERT_FILE": "/etc/ssl/lab.pem",
        "SSL_CLIENT_CERT": "/etc/ssl/me.pem",
        "ALL_PROXY": "http://proxy.lab.example:3128",
    }


def test_without_settings_uv_is_told_nothing() -> None:
    assert as_uv_environment(PipSettings(), {}) == {}


def test_what_the_environment_says_already_stays() -> None:
    environ = {"SSL_CERT_FILE": "/a", "SSL_CLIENT_CERT": "/b", "https_proxy": "http://c"}

    assert as_uv_environment(PipSettings(cert="/x", client_cert="/y", proxy="http://z"), environ) == {}


def test_folders_that_are_not_there_are_left_out_since_uv_stops_at_them(tmp_path: Path) -> None:
    settings = PipSettings(
        extra_index_urls=(f"file://{tmp_path}/gone", f"file://{tmp_path}"), find_links=(f"{tmp_path}/gone",)
    )

    assert as_uv_environment(settings, {}) == {
        "UV_INDEX": f"file://{tmp_path}",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"])
def test_an_index_that_was_set_for_uv_is_respected(tmp_path: Path, name: str) -> None:
    assert has_own_uv_settings({name: "https://uv.lab.example/simple"}, str(tmp_path))


def test_a_configuration_file_of_uv_is_respected(tmp_path: Path) -> None:
    assert not has_own_uv_settings({}, str(tmp_path))

    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").touch()
    assert has_own_uv_settings({}, str(tmp_path))


def test_the_file_that_is_named_is_the_only_one_that_uv_reads(tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").touch()
    assert has_own_uv_settings({"XDG_CONFIG_DIRS": f"/nowhere:{tmp_path}"}, str(tmp_path))
    assert not has_own_uv_settings({"XDG_CONFIG_DIRS": str(tmp_path), "UV_CONFIG_FILE": os.devnull}, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[pip]\ntarget = "/srv/x"\n', "target"),
        ("[pip]\n  'prefix'='/srv/x'\n", "prefix"),
        ('pip = { strict = true, target = "/srv/x" }\n', "target"),
        ("pip.require-hashes = true\n", "require-hashes"),
        ("[pip]\nno-deps=true\n", "no-deps"),
        ("[pip]\nno-deps = false\n# target = 'x'\nno-build-isolation-package = ['prefix']\n", ""),
        ('[[index]]\nurl = "https://lab.example/target=1"\n', ""),
    ],
)
def test_settings_of_uv_that_fill_no_environment_are_named(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "uv.toml"
    file.write_text(text)
    with pytest.raises(CaveError, match=f"{file} sets {name} in line") if name else contextlib.nullcontext():
        require_neutral_uv({"UV_CONFIG_FILE": str(file)}, str(tmp_path))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://alice:s3cret@pypi.lab.example:8443/simple", "pypi.lab.example:8443"),
        ("https://pypi.lab.example/simple", "pypi.lab.example"),
        ("https://alice:s3@cr/et@pypi.lab.example/simple", "pypi.lab.example"),
        ("file:///srv/index", None),
        ("", None),
    ],
)
def test_an_index_is_named_by_its_host_alone(url: str, host: str | None) -> None:
    assert host_of_index(url) == host


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/srv/wheels", "/srv/wheels"),
        ("file:///srv/my%20wheels", "/srv/my wheels"),
        ("file://localhost/srv/wheels?x#y", "/srv/wheels"),
        ("FILE:/srv/wheels", "/srv/wheels"),
        ("file://[/srv/wheels", "/srv/wheels"),
        ("file:///srv%00/wheels", "/srv"),
        ("https://lab.example/simple", ""),
        ("", ""),
    ],
)
def test_a_place_on_this_host_is_told_from_one_of_a_network(location: str, path: str) -> None:
    assert local_path(location) == path
