# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from requests.utils import get_netrc_auth

from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import replacing_netrc

HOSTS = ("cave.example.org", "cave.example.org:8443", "other.example.org")


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
@pytest.mark.parametrize(
    "content",
    [
        "default login anonymous password x",
        "machine cave.example.org login me password secret",
        "machine other.example.org login me password secret\n",
        "machine a.example.org\nlogin me\npassword secret\n\ndefault\nlogin a\npassword b\n",
        "# nothing\n",
        "",
        "machine\n",
        "what is this?",
        "\x00\xff",
        None,
    ],
)
def test_an_entry_counts_where_requests_takes_it(
    content: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {"NETRC": str(tmp_path / name)} if name == "elsewhere" else {}
    monkeypatch.delenv("NETRC", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    found = replacing_netrc(str(tmp_path), HOSTS, environment)

    def is_taken(host: str) -> bool:
        try:
            return get_netrc_auth(f"https://{host}/info/version") is not None
        except UnicodeDecodeError:  # then caveclient does not get so far as to send anything
            return False

    assert found == {host: str(tmp_path / name) for host in HOSTS if is_taken(host)}
