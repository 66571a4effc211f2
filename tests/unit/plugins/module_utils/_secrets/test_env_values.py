# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values of further variables in startup files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_values import env_values
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    CSH,
    ELVISH,
    FISH,
    JSON,
    NUSHELL,
    PAM,
    PLAIN,
    POWERSHELL,
    PYTHON,
    SHELL,
    UNIT,
    XONSH,
    R,
)

LANGUAGES = (SHELL, FISH, CSH, PLAIN, R, PAM, JSON, PYTHON, UNIT, NUSHELL, XONSH, POWERSHELL, ELVISH)


def paths(language: str, text: str) -> list[str]:
    return [found.path for found in env_values("/home/alice/.x", language, text, "/home/alice", "alice") if found.path]


@pytest.mark.parametrize(
    ("language", "text", "path"),
    [
        (PLAIN, "NETRC=/srv/netrc", "/srv/netrc"),
        (SHELL, "export NETRC=~/n", "/home/alice/n"),
        (SHELL, 'export NETRC="$HOME/n"', "/home/alice/n"),
        (SHELL, 'export NETRC="$HOME"/n', "/home/alice/n"),
        (SHELL, "export NETRC=$'/srv/\\x6e'", "/srv/n"),
        (SHELL, "export NETRC=/srv/my\\ files/n", "/srv/my files/n"),
        (SHELL, 'export "NETRC=/srv/my files/n"', "/srv/my files/n"),
        (SHELL, "  export A=1 NETRC='/srv/$USER/n'; b", "/srv/alice/n"),
        (SHELL, "test -f x && NETRC=${HOME}/n", "/home/alice/n"),
        (SHELL, "if a; then export NETRC=/scratch/${USER}/; fi", "/scratch/alice"),
        (CSH, "setenv NETRC /srv/n", "/srv/n"),
        (CSH, 'setenv NETRC "/srv/my files/n"', "/srv/my files/n"),
        (FISH, "set -gx NETRC $HOME/n", "/home/alice/n"),
        (FISH, "set -gx NETRC \\x2fsrv\\057n", "/srv/n"),
        (FISH, "set -gx NETRC \\u002fsrv/n", "/srv/n"),
        (FISH, "set -gx NETRC ~/'my files'/n", "/home/alice/my files/n"),
        (PAM, 'NETRC DEFAULT="@{HOME}/n"', "/home/alice/n"),
        (UNIT, 'Environment="NETRC=/srv/n" A=b', "/srv/n"),
        (UNIT, 'Environment="NETRC=/srv/n" "A=b"', "/srv/n"),
        (R, 'Sys.setenv(NETRC = "/srv/n")', "/srv/n"),
        (PYTHON, 'os.environ["NETRC"] = "/srv/n"', "/srv/n"),
        (PYTHON, 'os.environ.setdefault("NETRC", "/srv/n")', "/srv/n"),
        (JSON, '{"env": {"A": "b", "NETRC": "/srv/n", "C": "d"}}', "/srv/n"),
        (JSON, '{"env": {"NETRC": "\\u002fsrv/n"}}', "/srv/n"),
        (NUSHELL, '$env.NETRC = "/srv/n"', "/srv/n"),
        (NUSHELL, 'load-env {NETRC: "/srv/n", A: 1}', "/srv/n"),
        (XONSH, "$NETRC = '/srv/n'", "/srv/n"),
        (XONSH, "if x:\n    $NETRC = '/srv/n'", "/srv/n"),
        (POWERSHELL, '$env:NETRC = "$env:HOME/n"', "/home/alice/n"),
        (POWERSHELL, '[Environment]::SetEnvironmentVariable("NETRC", "/srv/n")', "/srv/n"),
        (ELVISH, "set-env NETRC /srv/n", "/srv/n"),
        (SHELL, "A=b\nexport CLOUD_FILES_DIR=/srv/files\n", "/srv/files"),
        (SHELL, "# export NETRC=/srv/n", None),
        (SHELL, "true # NETRC=/srv/n", None),
        (SHELL, "MY_NETRC=/srv/n", None),
        (SHELL, "NETRC_FILE=/srv/n", None),
        (SHELL, "curl --netrc-file ${NETRC:-/srv/n}", None),
        (SHELL, "cp $NETRC /srv/n", None),
        (SHELL, "[ $NETRC = /srv/n ]", None),
        (PYTHON, 'x = os.environ.get("NETRC", "/srv/n")', None),
        (SHELL, "export NETRC=", None),
        (SHELL, "export NETRC=relative", None),
        (SHELL, "export NETRC=$OTHER/n", None),
        (SHELL, "export NETRC=$(make_netrc)", None),
        (SHELL, "export NETRC=`make_netrc`", None),
        (SHELL, f"export NETRC=/{'n' * 5000}", None),
        (FISH, "set -gx NETRC /srv/\\x00", None),
        (SHELL, "unset NETRC", None),
        (SHELL, "unset NETRC /srv/n", None),
        (SHELL, "echo NETRC /srv/n", None),
    ],
)
def test_a_path_is_found_where_a_line_gives_it_to_the_variable(language: str, text: str, path: str | None) -> None:
    assert paths(language, text) == ([path] if path else [])


def test_all_variables_of_a_line_are_found_with_the_startup_file_and_the_line() -> None:
    text = "true\nexport CLOUD_FILES_DIR=/a NETRC=/b BANC_AUTH_TOKEN_KEY=mine\nexport FANC_AUTH_TOKEN_KEY=$(mine)\n"
    found = list(env_values("/etc/profile", SHELL, text, "/home/alice", "alice"))
    assert [one[:4] for one in found] == [
        ("CLOUD_FILES_DIR", "/a", "/etc/profile", 2),
        ("NETRC", "/b", "/etc/profile", 2),
        ("BANC_AUTH_TOKEN_KEY", "mine", "/etc/profile", 2),
        ("FANC_AUTH_TOKEN_KEY", None, "/etc/profile", 3),
    ]


@given(
    st.text(alphabet="NETRC=/$\"'`\\(){}<>;&|#~,:@[] \n\tx0u") | st.text(),
    st.text(alphabet="=/$\"'`\\(){}<>;&|#~,:@[] \n\tx0u"),
    st.sampled_from(LANGUAGES),
)
def test_no_text_breaks_the_reader_and_every_path_is_one(before: str, after: str, language: str) -> None:
    for path in paths(language, f"{before}NETRC{after}"):
        assert path.startswith("/")
        assert path.isprintable()


@pytest.mark.parametrize(
    ("language", "text", "is_certain"),
    [
        (SHELL, "export SSL_CERT_FILE=/x.pem", True),
        (SHELL, "export A=b SSL_CERT_FILE=/x.pem", True),
        (SHELL, "[ -f /x.pem ] && export SSL_CERT_FILE=/x.pem", False),
        (SHELL, "  export SSL_CERT_FILE=/x.pem", False),
        (SHELL, "if [[ -f /x.pem ]]; then export SSL_CERT_FILE=/x.pem; fi", False),
        (FISH, "test -f /x.pem; and set -gx SSL_CERT_FILE /x.pem", False),
        (JSON, '  {"env": {"SSL_CERT_FILE": "/x.pem"}}', True),
        (PYTHON, 'os.environ["SSL_CERT_FILE"] = "/x.pem"', True),
        (UNIT, 'Environment="SSL_CERT_FILE=/x.pem"', True),
    ],
)
def test_what_a_line_gives_under_a_condition_is_not_certain(language: str, text: str, is_certain: bool) -> None:
    (found,) = env_values("/home/alice/.x", language, text, "/home/alice", "alice")
    assert (found.path, found.is_certain) == ("/x.pem", is_certain)
