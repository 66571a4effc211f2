# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from requests.utils import get_netrc_auth

from ansible_collections.connectomics.cave.plugins.module_utils._cave.netrc_entries import NetrcFile, replacing_netrc

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
        "machine other.example.org login me password gr\xfc\xdfe",
        "\xef\xbb\xbfdefault login a password b\n",
        "default login a password b\r\n",
        "machine CAVE.example.org login a password b\n",
        "machine cave.example.org. login a password b\n",
        "macdef init\ncd /pub\n\nmachine cave.example.org login a password b\n",
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

    def taken(host: str) -> list[NetrcFile]:
        try:
            is_sent = get_netrc_auth(f"https://{host}/info/version") is not None
        except UnicodeDecodeError:  # then caveclient does not get so far as to send anything
            return [NetrcFile(str(tmp_path / name), is_text=False)]
        return [NetrcFile(str(tmp_path / name))] if is_sent else []

    assert found == {host: netrc for host in HOSTS for netrc in taken(host)}


def test_the_first_file_that_is_there_counts_whatever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").mkdir()
    (tmp_path / "_netrc").write_text("default login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    assert get_netrc_auth(f"https://{HOSTS[0]}/info/version") is None
    assert replacing_netrc(str(tmp_path), HOSTS, {}) == {}
