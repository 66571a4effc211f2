# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths in startup files."""

from __future__ import annotations

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.env_paths import env_paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("NETRC=/srv/netrc", "/srv/netrc"),
        ("export NETRC=~/n", "/home/alice/n"),
        ('export NETRC="$HOME/n"', "/home/alice/n"),
        ("  export A=1 NETRC='/srv/$USER/n'; b", "/srv/alice/n"),
        ("test -f x && NETRC=${HOME}/n", "/home/alice/n"),
        ("if a; then export NETRC=/scratch/${USER}/; fi", "/scratch/alice"),
        ("setenv NETRC /srv/n", "/srv/n"),
        ("set -gx NETRC $HOME/n", "/home/alice/n"),
        ('NETRC DEFAULT="@{HOME}/n"', "/home/alice/n"),
        ('Environment="NETRC=/srv/n" A=b', "/srv/n"),
        ('Sys.setenv(NETRC = "/srv/n")', "/srv/n"),
        ('os.environ["NETRC"] = "/srv/n"', "/srv/n"),
        ('os.environ.setdefault("NETRC", "/srv/n")', "/srv/n"),
        ('{"env": {"A": "b", "NETRC": "/srv/n", "C": "d"}}', "/srv/n"),
        ("A=b\nexport CLOUD_FILES_DIR=/srv/files\n", "/srv/files"),
        ("# export NETRC=/srv/n", None),
        ("true # NETRC=/srv/n", None),
        ("MY_NETRC=/srv/n", None),
        ("NETRC_FILE=/srv/n", None),
        ("curl --netrc-file ${NETRC:-/srv/n}", None),
        ("cp $NETRC /srv/n", None),
        ("export NETRC=", None),
        ("export NETRC=relative", None),
        ("export NETRC=$OTHER/n", None),
        ("export NETRC=$(make_netrc)", None),
        ("unset NETRC", None),
    ],
)
def test_a_path_is_found_where_a_line_gives_it_to_the_variable(text: str, path: str | None) -> None:
    found = [one.path for one in env_paths("/home/alice/.x", text, "/home/alice", "alice")]
    assert found == ([path] if path else [])


def test_the_variable_and_the_startup_file_are_named() -> None:
    text = "export CLOUD_FILES_DIR=/a\nexport NETRC=/b\n"
    found = list(env_paths("/etc/profile", text, "/home/alice", "alice"))
    assert found == [("CLOUD_FILES_DIR", "/a", "/etc/profile"), ("NETRC", "/b", "/etc/profile")]
