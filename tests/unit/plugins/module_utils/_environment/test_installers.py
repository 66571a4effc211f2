# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment.installers import (
    Installer,
    check_sources,
    choose_installer,
    find_uv,
    installer_environment,
    missing_tools,
    needs_no_index,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pip_config import (
    PipSettings,
    read_pip_settings,
)
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import clean_environment
from ansible_collections.connectomics.cave.plugins.module_utils._environment.pythons import Python, probe
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import (
    FromController,
    Request,
    Source,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LAB = "https://alice:s3cret@pypi.lab.example/simple"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def bare(tmp_path: Path, **more: object) -> Python:
    """Return a Python that has nothing beside itself."""
    facts = {
        "executable": sys.executable,
        "version": "3.11.2",
        "base": sys.executable,
        "has_venv": True,
        "lacks_distutils": False,
        "is_venv": False,
        "externally_managed": False,
        "has_pip": False,
        "pips": (),
        "site_packages": str(tmp_path),
        "prefix": str(tmp_path),
    }
    return Python(**{**facts, **more})  # type: ignore[arg-type]  # passed on


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A host's environment with an empty home and no programs of its own."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), "PIP_CONFIG_FILE": os.devnull}


# --- Installers ---


@pytest.mark.parametrize(
    ("kind", "uv", "pip", "missing"),
    [
        ("auto", True, True, []),
        ("auto", False, True, []),
        ("auto", True, False, []),
        ("auto", False, False, ["uv", "pip"]),
        ("uv", False, True, ["uv"]),
        ("pip", True, False, ["pip"]),
    ],
)
def test_only_what_is_lacking_is_to_be_brought(
    tmp_path: Path, environ: dict[str, str], kind: str, uv: bool, pip: bool, missing: list[str]
) -> None:
    if uv:
        program(tmp_path / "bin" / "uv", "")

    assert missing_tools(kind, bare(tmp_path, has_pip=pip), environ) == missing


def test_uv_is_found_where_its_own_installer_puts_it(tmp_path: Path, environ: dict[str, str]) -> None:
    assert find_uv(environ) == ""
    own = program(tmp_path / "home" / ".local" / "bin" / "uv", "")
    assert find_uv(environ) == str(own)


def test_uv_comes_before_pip_and_the_hosts_before_the_controllers(tmp_path: Path, environ: dict[str, str]) -> None:
    given = FromController(uv=str(program(tmp_path / "brought" / "uv", "echo uv 0.9.5 '(abc 2026)'")))
    pip = bare(tmp_path, pips=(str(pip_folder(tmp_path)),))

    assert choose_installer("auto", pip, given, environ, tmp_path, False) == Installer("uv", "0.9.5", (given.uv,))

    own = program(tmp_path / "bin" / "uv", "echo uv 0.8.0")
    assert choose_installer("auto", pip, given, environ, tmp_path, False) == Installer("uv", "0.8.0", (str(own),))


def pip_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dist-packages" / "pip"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text("print('pip 24.0 from here (python 3.11)')")
    return folder


def test_a_uv_that_does_not_run_gives_way_to_pip(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "bin" / "uv", "echo wrong libc >&2; exit 1")
    python = bare(tmp_path, pips=(str(pip_folder(tmp_path)),))

    installer = choose_installer("auto", python, FromController(), environ, tmp_path, False)

    assert installer.kind == "pip"
    assert installer.version == "24.0"
    with pytest.raises(CaveError, match=r"no uv that works: .*does not run here \(wrong libc\)") as caught:
        choose_installer("uv", python, FromController(), environ, tmp_path, False)
    assert caught.value.details["needs"] == ["uv"]


def test_pip_sees_nothing_of_what_is_installed_beside_it(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = pip_folder(tmp_path)
    (folder.parent / "beside.py").touch()
    (folder / "__main__.py").write_text(
        "import os, sys; sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))\n"
        "import importlib.util; print('pip', '1.0' if importlib.util.find_spec('beside') else '2.0')"
    )

    installer = choose_installer("pip", bare(tmp_path, pips=(str(folder),)), FromController(), environ, tmp_path, False)

    assert installer.version == "2.0"


def test_an_environment_is_filled_by_its_own_pip(tmp_path: Path) -> None:
    python = probe(sys.executable)
    assert python is not None
    if not python.has_pip:
        python = probe(str(python.base))
    assert python is not None

    installer = choose_installer("pip", python, FromController(), clean_environment(os.environ), tmp_path, True)

    assert installer.program == ("-m", "pip")


def test_a_host_with_nothing_says_what_would_help(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(CaveError, match=r"neither uv nor pip\. Install one here .*python3-venv") as caught:
        choose_installer("auto", bare(tmp_path), FromController(), environ, tmp_path, False)
    assert caught.value.details["needs"] == ["uv", "pip"]

    broken = FromController(uv=str(program(tmp_path / "brought" / "uv", "exit 1")))
    with pytest.raises(CaveError) as caught:
        choose_installer("auto", bare(tmp_path), broken, environ, tmp_path, False)
    assert caught.value.details["needs"] == ["pip"]


@pytest.mark.parametrize(
    ("kind", "version", "can"), [("uv", "0.1", True), ("pip", "22.2", True), ("pip", "20.3.4", False)]
)
def test_an_old_pip_cannot_say_what_it_would_do(kind: str, version: str, can: bool) -> None:
    assert Installer(kind, version, ()).can_preview is can


# --- Where packages come from ---


@pytest.fixture
def configured(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A host whose pip is configured."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror.lab.example/simple\nextra-index-url = https://more.lab.example/simple\n"
        "cert = /etc/ssl/lab.pem\n"
        f"find-links = {tmp_path} https://lab.example/wheels\n"
    )
    return {**environ, "PIP_CONFIG_FILE": str(file)}


def test_uv_looks_where_the_hosts_pip_looks(configured: dict[str, str], tmp_path: Path) -> None:
    found = installer_environment("uv", Source(), configured)

    assert found["UV_DEFAULT_INDEX"] == "https://mirror.lab.example/simple"
    assert found["UV_INDEX"] == "https://more.lab.example/simple"
    assert found["UV_FIND_LINKS"] == f"{tmp_path},https://lab.example/wheels"
    assert found["SSL_CERT_FILE"] == "/etc/ssl/lab.pem"


def test_an_index_of_uv_itself_outranks_that_of_pip(configured: dict[str, str]) -> None:
    found = installer_environment("uv", Source(), {**configured, "UV_DEFAULT_INDEX": "https://uv.lab.example/simple"})

    assert found["UV_DEFAULT_INDEX"] == "https://uv.lab.example/simple"
    assert "UV_INDEX" not in found


@pytest.mark.parametrize("kind", ["uv", "pip"])
def test_an_index_that_was_asked_for_is_the_only_one(configured: dict[str, str], kind: str) -> None:
    environ = {**configured, "PIP_EXTRA_INDEX_URL": "https://x.example", "UV_INDEX": "https://y.example"}
    found = installer_environment(kind, Source(index_url=LAB), environ)
    name = "UV_DEFAULT_INDEX" if kind == "uv" else "PIP_INDEX_URL"

    assert found[name] == LAB
    assert [key for key in ("UV_INDEX", "UV_EXTRA_INDEX_URL") if kind == "uv" and key in found] == []
    if kind == "pip":
        assert "PIP_EXTRA_INDEX_URL" not in found
        assert found["PIP_CONFIG_FILE"] == os.devnull
        assert found["PIP_CERT"] == "/etc/ssl/lab.pem"


def test_offline_uses_no_index_and_no_link_that_needs_a_network(configured: dict[str, str], tmp_path: Path) -> None:
    source = Source(find_links=("/srv/wheels",), offline=True)

    uv = installer_environment("uv", source, configured)
    assert uv["UV_FIND_LINKS"] == f"/srv/wheels,{tmp_path}"
    assert uv["UV_OFFLINE"] == "1"
    assert needs_no_index(source, uv, PipSettings())
    assert not {"UV_INDEX", "UV_DEFAULT_INDEX"} & set(uv)

    pip = installer_environment("pip", source, configured)
    assert pip["PIP_NO_INDEX"] == "1"
    assert pip["PIP_FIND_LINKS"] == str(tmp_path)
    assert pip["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_INDEX_URL" not in pip


def test_offline_without_a_folder_leaves_uv_its_cache(environ: dict[str, str]) -> None:
    found = installer_environment("uv", Source(offline=True), environ)

    assert found["UV_OFFLINE"] == "1"
    assert not needs_no_index(Source(offline=True), found, PipSettings())


def test_a_host_that_forbids_pip_the_index_forbids_it_uv_too(environ: dict[str, str]) -> None:
    forbidden = read_pip_settings({**environ, "PIP_NO_INDEX": "1"}, environ["HOME"])
    uv = installer_environment("uv", Source(), environ)

    assert needs_no_index(Source(), uv, forbidden)
    assert not needs_no_index(Source(index_url=LAB), uv, forbidden)
    assert not needs_no_index(Source(), uv, PipSettings())


def test_a_home_that_cannot_be_written_needs_no_cache(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UV_NO_CACHE" not in installer_environment("uv", Source(), environ)
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert installer_environment("uv", Source(), environ)["UV_NO_CACHE"] == "1"
    assert "UV_NO_CACHE" not in installer_environment("uv", Source(), {**environ, "UV_CACHE_DIR": "/srv/cache"})


def test_pip_tries_twice_since_it_says_nothing_of_a_first_failure(environ: dict[str, str]) -> None:
    assert installer_environment("pip", Source(), {**environ, "PIP_RETRIES": "0"})["PIP_RETRIES"] == "1"
    assert installer_environment("pip", Source(), {**environ, "PIP_RETRIES": "5"})["PIP_RETRIES"] == "5"


@pytest.mark.root
@pytest.mark.parametrize("spoilt", [".", "simple", "simple/numpy", "simple/numpy/numpy.whl", "linked.whl"])
@pytest.mark.parametrize(
    ("source", "request_", "variables"),
    [
        (Source(find_links=("{}",)), {}, {}),
        (Source(find_links=("file://{}",)), {}, {}),
        (Source(index_url="file://{}"), {}, {}),
        (Source(index_url="FILE:{}"), {}, {}),
        (Source(), {"packages": ("lab@file://{}#egg=lab",)}, {}),
        (Source(), {"packages": ("lab[x] @ git+file://{}@main ; python_version > '3'",)}, {}),
        (Source(), {"constraints": ("numpy @ {}",)}, {}),
        (Source(), {}, {"PIP_FIND_LINKS": "{}"}),
        (Source(), {}, {"PIP_EXTRA_INDEX_URL": "https://lab.example file://{}"}),
        (Source(), {}, {"UV_FIND_LINKS": "/srv/wheels,{}"}),
        (Source(), {}, {"UV_INDEX": "lab=file://{}"}),
        (Source(), {}, {"UV_DEFAULT_INDEX": "file://{}"}),
        (Source(), {}, {"UV_FIND_LINKS": ".{}"}),
    ],
    ids=str,
)
def test_root_installs_from_nothing_that_others_can_write(
    environ: dict[str, str],
    tmp_path: Path,
    source: Source,
    request_: dict[str, tuple[str, ...]],
    variables: dict[str, str],
    spoilt: str,
) -> None:
    folder, away = tmp_path / "wheels", tmp_path / "away.whl"
    (folder / "simple" / "numpy").mkdir(parents=True)
    (folder / "simple" / "numpy" / "numpy.whl").touch()
    away.touch()
    (folder / "linked.whl").symlink_to(away)
    source = Source(source.index_url.format(folder), tuple(link.format(folder) for link in source.find_links))
    asked = Request(**{name: tuple(item.format(folder) for item in items) for name, items in request_.items()})  # type: ignore[arg-type]  # both are tuples
    environ |= {name: value.format(folder) for name, value in variables.items()}
    check_sources(source, asked, environ)

    os.chown(folder / spoilt, 65534, 65534)
    with pytest.raises(CaveError, match="belongs to nobody"):
        check_sources(source, asked, environ)


@pytest.mark.root
@pytest.mark.parametrize("name", [".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml", "xdg/uv/uv.toml"])
def test_a_configuration_that_others_can_write_does_not_say_where_root_installs_from(
    environ: dict[str, str], name: str
) -> None:
    file = Path(environ["HOME"], name)
    file.parent.mkdir(parents=True)
    file.touch()
    environ["XDG_CONFIG_DIRS"] = f"/etc/xdg:{environ['HOME']}/xdg"
    check_sources(Source(), Request(), {**environ, "UV_CONFIG_FILE": os.devnull})
    del environ["PIP_CONFIG_FILE"]
    check_sources(Source(), Request(), environ)

    file.chmod(0o666)
    with pytest.raises(CaveError, match=f"{file} can be changed by everybody"):
        check_sources(Source(), Request(), environ)


@pytest.mark.root
@pytest.mark.parametrize(
    "setting",
    [
        'find-links = ["/srv/wheels", "{}"]',
        '[[index]]\nurl = "file://{}"',
        "[pip]\nindex-url = 'FILE:{}'",
        'cache-dir = "{}"',
    ],
)
def test_root_installs_from_nothing_that_uvs_configuration_names_and_others_can_write(
    environ: dict[str, str], tmp_path: Path, setting: str
) -> None:
    environ["UV_CONFIG_FILE"] = str(tmp_path / "uv.toml")
    (tmp_path / "there").mkdir()
    (tmp_path / "uv.toml").write_text(setting.format(tmp_path / "there") + "\n")
    check_sources(Source(), Request(), environ)

    os.chown(tmp_path / "there", 65534, 65534)
    with pytest.raises(CaveError, match=r"uv's configuration: .*/there belongs to nobody"):
        check_sources(Source(), Request(), environ)
    (tmp_path / "uv.toml").write_text("# " + setting.format(tmp_path / "there").replace("\n", "\n# ") + "\n")
    check_sources(Source(), Request(), environ)
