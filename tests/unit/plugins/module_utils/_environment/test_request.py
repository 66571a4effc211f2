# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from module_runner import arguments_of

from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import (
    Request,
    name_of,
    normal_name,
    parse_options,
    parse_request,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


def request(version: str = "", *, kernel: bool = False, python: str = "", **lists: list[str]) -> Request:
    """Return a request as the module would make it."""
    words = {"extras": [], "packages": [], "constraints": [], **lists}
    return parse_request(version, words["extras"], words["packages"], words["constraints"], python, kernel)


@pytest.mark.parametrize(
    ("typed", "requirement"),
    [
        ("", "caveclient"),
        ("8.2.1", "caveclient==8.2.1"),
        ("==8.2.1", "caveclient==8.2.1"),
        (" 8.2.1 ", "caveclient==8.2.1"),
        ("8.3.0rc1", "caveclient==8.3.0rc1"),
        (">=8,<9", "caveclient>=8,<9"),
        (">= 8, < 9", "caveclient>=8,<9"),
        ("==8.*", "caveclient==8.*"),
        ("~=8.2", "caveclient~=8.2"),
        ("!=8.2.0", "caveclient!=8.2.0"),
    ],
)
def test_a_version_becomes_the_requirement_that_installers_know(typed: str, requirement: str) -> None:
    assert request(typed).requirement == requirement


@pytest.mark.parametrize(
    "typed", ["latest", "v8.2.1", ">8 <9", "8.2.1; rm -rf /", "8.2.1\n--index-url x", "-r x", "8.2.1 --pre", "=8", ">="]
)
def test_what_is_no_version_is_refused_with_an_example_of_one(typed: str) -> None:
    with pytest.raises(CaveError, match=r"neither a version \(8\.2\.1\) nor a specifier"):
        request(typed)


@pytest.mark.parametrize("extra", ["", "cv]", "a b", "-x", "cv,other"])
def test_what_is_no_extra_is_refused(extra: str) -> None:
    with pytest.raises(CaveError, match="is not the name of an extra"):
        request(extras=[extra])


@pytest.mark.parametrize("option", ["packages", "constraints"])
@pytest.mark.parametrize(
    "item",
    [
        "",
        "--index-url=https://evil.example",
        "-e .",
        "-r /etc/passwd",
        "a\n--pre",
        "numpy\r-x",
        "numpy==2 --hash=sha256:0",
        "numpy --pre",
        "./wheel.whl",
        "numpy==${SECRET}",
        "numpy # comment",
        "numpy\\",
    ],
)
def test_an_option_of_the_installer_is_no_requirement(option: str, item: str) -> None:
    with pytest.raises(CaveError, match="is not a requirement such as"):
        request(**{option: [item]})  # type: ignore[arg-type]  # wrong on purpose


def test_credentials_in_a_requirement_are_refused_and_not_repeated() -> None:
    with pytest.raises(CaveError) as caught:
        request(packages=["em-tools @ git+https://alice:s3cret@git.lab.example/em-tools"])

    assert "s3cret" not in caught.value.message
    assert "alice" not in caught.value.message
    assert "netrc" in caught.value.message


def test_caveclient_is_not_asked_for_twice() -> None:
    with pytest.raises(CaveError, match="'version' and 'extras'"):
        request(packages=["CaveClient[cv]==8.2.1"])


def test_order_case_and_repetition_of_what_is_asked_for_do_not_matter() -> None:
    assert request(extras=["CV", "cv"], packages=["b", "a", "b"]) == request(extras=["cv"], packages=["a ", "b"])


def test_a_kernel_brings_ipykernel_unless_the_user_says_which() -> None:
    assert "ipykernel" in request(kernel=True).packages
    assert request(kernel=True, packages=["ipykernel<7"]).packages == ("ipykernel<7",)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("matplotlib>=3.8", "matplotlib"), ("Scikit_Learn", "scikit-learn"), ("x[y]@ https://z", "x"), (">=3", "")],
)
def test_the_name_of_a_requirement(requirement: str, name: str) -> None:
    assert name_of(requirement) == name


def test_a_request_is_named_for_people() -> None:
    assert request("").named() == "the newest caveclient"
    assert request("8.2.1").named() == "caveclient 8.2.1"


@pytest.mark.parametrize(
    "typed", ["3.11", "python3.11", "Python 3.11", "cpython3.11", "python-3.11", "cpython@3.11", " 3.11 "]
)
def test_a_version_of_python_is_understood_as_people_write_it(typed: str) -> None:
    assert request(python=typed).python == "3.11"
    assert request(python="python3").python == "3"
    assert request(python="/usr/bin/python3.11").python == "/usr/bin/python3.11"


@pytest.mark.parametrize("typed", ["python", "pypy3", "3.11-dev", "py311", "3.11.2.1", "newest", "bin/python", "~/p"])
def test_what_is_neither_a_path_nor_a_version_of_python_is_refused(typed: str) -> None:
    with pytest.raises(CaveError, match=r"neither the absolute path of a Python nor a version \(3\.12\)"):
        request(python=typed)


def test_what_yaml_makes_of_an_unquoted_version_is_named() -> None:
    with pytest.raises(CaveError, match=r"For 3\.10, put the version in quotes: python: '3\.10'"):
        request(python="3.1")


def test_names_of_packages_are_compared_as_all_tools_do() -> None:
    assert normal_name("Jupyter_Client.x--y") == "jupyter-client-x-y"


@pytest.mark.parametrize("address", ["alice:s3cret@pypi.lab.example/simple", "//alice:s3cret@pypi", "pypi.lab.example"])
def test_an_index_without_a_scheme_is_refused_without_its_password(address: str) -> None:
    """It would be taken for a path, and what installers say of it holds the password."""
    with pytest.raises(CaveError, match="index_url: found an address without https:// in front") as caught:
        parse_options(arguments_of("caveclient", index_url=address))
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("address", ["https://alice:s3cret@pypi.lab.example/simple", "/srv/simple", "file:/srv/simple"])
def test_an_index_is_an_address_or_a_folder(address: str) -> None:
    assert parse_options(arguments_of("caveclient", index_url=address)).source.index_url == address
