# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import signal

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._environment.installer_errors import explain, last_line
from ansible_collections.connectomics.cave.plugins.module_utils._environment.processes import Outcome
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import Source
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

LAB = "https://alice:s3cret@pypi.lab.example/simple"


UV = {
    "unreachable": (
        "error: Request failed after 3 retries in 7.2s\n"
        "  cause: Failed to fetch: https://pypi.lab.example/simple/caveclient/\n"
        "  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
        r"package index at pypi\.lab\.example cannot be reached from here\. .*offline: true",
    ),
    "no such version": (
        "error: No solution found when resolving dependencies\n"
        "  cause: Because there is no version of caveclient==99.1 and you require caveclient==99.1, we can conclude "
        "that your requirements are unsatisfiable.\n",
        "the package index has no such version of caveclient",
    ),
    "wrong python": (
        "error: No solution found\n"
        "  cause: Because the current Python version (3.8.18) does not satisfy Python>=3.9 and "
        "caveclient==8.2.1 depends on Python>=3.9, we can conclude that caveclient==8.2.1 cannot be used.\n",
        "no release for this Python.*option 'python'",
    ),
    "not in the folder": (
        "  cause: Because numpy was not found in the provided package locations and caveclient depends on numpy\n",
        "lacks a package that is needed",
    ),
    "disk": ("error: Failed to install\n  cause: No space left on device (os error 28)\n", "the disk is full"),
    "certificate": ("  cause: invalid peer certificate: UnknownIssuer\n", "is not trusted here.*cert.*pip.conf"),
    "credentials": (f"HTTP status client error (401 Unauthorized) for url ({LAB}/x/)\n", "refuses the credentials"),
}
PIP = {
    "unreachable": (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: Connection refused'\n"
        "ERROR: No matching distribution found for caveclient==8.2.1\n",
        "package index cannot be reached from here",
    ),
    "no such version": (
        "ERROR: Could not find a version that satisfies the requirement caveclient==99 (from versions: 8.2.0, 8.2.1)\n"
        "ERROR: No matching distribution found for caveclient==99\n",
        "has no such version of caveclient",
    ),
    "wrong python": (
        "ERROR: Ignored the following versions that require a different python version: 8.2.1 Requires-Python >=3.9\n"
        "ERROR: No matching distribution found for caveclient==8.2.1\n",
        "no release for this Python",
    ),
    "nothing there": (
        "ERROR: Could not find a version that satisfies the requirement caveclient (from versions: none)\n"
        "ERROR: No matching distribution found for caveclient\n",
        "has no caveclient at all, or does not answer",
    ),
    "disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "disk is full",
    ),
    "compiler": ("error: subprocess-exited-with-error\n", "its source could not be built"),
    "contradiction": ("ERROR: ResolutionImpossible: see https://pip.pypa.io\n", "contradicts itself"),
    "permission": ("PermissionError: [Errno 13] Permission denied: '/opt/x'\n", "become: true"),
}


@pytest.mark.parametrize(
    ("output", "message"),
    [pytest.param(*case, id=f"uv {name}") for name, case in UV.items()]
    + [pytest.param(*case, id=f"pip {name}") for name, case in PIP.items()],
)
def test_a_failure_says_cause_and_remedy_in_a_few_words(output: str, message: str) -> None:
    error = explain(Outcome(1, "", output), Source(), "install caveclient 8.2.1 with uv", 60)

    assert error.message.startswith("Could not install caveclient 8.2.1 with uv: ")
    with pytest.raises(CaveError, match=f"(?s){message}"):
        raise error
    assert len(error.message) < 700
    assert "s3cret" not in error.message + error.details["installer_output"]


def test_the_line_that_tells_is_quoted() -> None:
    error = explain(Outcome(1, "", UV["no such version"][0]), Source(), "install", 60)

    assert "Because there is no version of caveclient==99.1" in error.message


def test_the_folder_is_named_when_there_is_no_index() -> None:
    error = explain(Outcome(1, "", UV["no such version"][0]), Source(offline=True), "install", 60)

    assert "the folder of wheels has no such version" in error.message


def test_an_index_with_credentials_is_named_without_them() -> None:
    error = explain(Outcome(1, "", f"Could not fetch URL {LAB}/caveclient/"), Source(index_url=LAB), "install", 60)

    assert "the package index at pypi.lab.example cannot be reached" in error.message
    assert "s3cret" not in error.message + error.details["installer_output"]
    assert "alice" not in error.message + error.details["installer_output"]


def test_an_unknown_failure_is_quoted_as_it_is() -> None:
    error = explain(Outcome(2, "first\n", "something new\n\n"), Source(), "install", 60)

    assert error.message == "Could not install. It said: something new"
    assert explain(Outcome(2, "", ""), Source(), "install", 60).message.endswith("It said: nothing at all")


def test_a_timeout_and_a_kill_are_told_apart() -> None:
    assert "more than 60 seconds" in explain(Outcome(None, "", ""), Source(), "install", 60).message
    assert "lack of memory" in explain(Outcome(-signal.SIGKILL, "", ""), Source(), "install", 60).message


def test_a_long_line_is_cut_around_what_tells() -> None:
    output = "x" * 5000 + " No space left on device " + "y" * 5000
    error = explain(Outcome(1, "", output), Source(), "install", 60)

    assert "No space left on device" in error.message
    assert len(error.message) < 700


def test_only_the_end_of_a_long_output_is_returned() -> None:
    output = explain(Outcome(1, "", "x" * 100_000 + "the end"), Source(), "install", 60).details["installer_output"]

    assert len(output) == 20_000
    assert output.endswith("the end")


def test_the_last_line_that_says_something() -> None:
    assert last_line("a\n b \n\n") == "b"
    assert last_line("") == ""
    assert len(last_line("x" * 1000)) == 300
