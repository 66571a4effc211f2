# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3.connection import port_by_scheme
from urllib3.util import parse_url

from ansible_collections.connectomics.cave.plugins.module_utils._cave.proxies import ProxyError, proxy_for, proxy_of

HOSTS = (
    *("cave.example.org", "CAVE.example.org", "example.org", "notexample.org", "global.daf-apis.com"),
    *("minnie.microns-daf.com", "10.1.2.3", "127.0.0.1", "[::1]", "localhost"),
)
URLS = st.builds(
    lambda scheme, host, port: f"{scheme}://{host}{port}/info/version",
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":443", ":8080"]),
)
SPELLINGS = ("", "proxy", "//proxy:3128", "proxy:3128", "10.0.0.1:8", "http://proxy", "http://proxy:3128/")
PROXIES = st.sampled_from((*SPELLINGS, "http://a:b%40@10.0.0.1:8"))
EXCEPTED = (
    *("*", "example.org", ".example.org", "daf-apis.com", "cave.example.org:8080", "minnie.microns-daf.com:443"),
    *("example.org:443", ".example.org:8080", "*.example.org", "EXAMPLE.ORG", "::1", "[::1]", "::/0", ".", ""),
    *("10.0.0.0/8", "10.1.2.3/32", "127.0.0.1", "127.0.0.0/33", "x/y", "localhost", "10.1"),
)
EXCEPTIONS = st.lists(st.sampled_from(EXCEPTED), max_size=3).flatmap(
    lambda items: st.sampled_from([", ", ",", " "]).map(lambda between: between.join(items))
)
VARIABLES = st.sampled_from(["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"])


def of_requests(url: str) -> str | None:
    """Return what requests takes for a proxy."""
    named = select_proxy(url, get_environ_proxies(url))
    if not named:
        return None
    proxy = parse_url(prepend_scheme_if_needed(named, "http"))  # type: ignore[no-untyped-call]
    if not proxy.host:  # then it raises InvalidProxyURL
        return None
    return f"{proxy.host}:{proxy.port or port_by_scheme[proxy.scheme or 'http']}"


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@given(
    URLS,
    st.dictionaries(VARIABLES, PROXIES, max_size=3),
    st.dictionaries(st.sampled_from(["no_proxy", "NO_PROXY"]), EXCEPTIONS),
)
def test_the_proxy_is_the_one_that_requests_takes(
    url: str, environment: dict[str, str], exceptions: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_environment(monkeypatch, **environment, **exceptions)
        assert proxy_for(url) == of_requests(url)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5h://someone:secret@proxy:1080", "socks5h://proxy:1080 speaks SOCKS"),
        ("socks://proxy", "socks://proxy speaks SOCKS"),
        ("https://proxy:3128", "https://proxy:3128 is named with https://"),
        ("proxy:3128", "proxy:3128 has no http://"),
        ("someone:secret@proxy:3128", "the proxy proxy:3128 has no http://"),
        ("someone:secret@secret@proxy", "the proxy proxy has no http://"),
        ("pac+http://wpad/proxy", "pac\\+http://wpad is a file for automatic configuration"),
        ("http://someone:secret@wpad:8080/WPAD.DAT", "http://wpad:8080 is a file for automatic configuration"),
        ("ftp://proxy", "ftp://proxy is no HTTP proxy"),
        ("http://", "not of the form"),
        ("http://127.0.0.1:port", "not of the form"),
        ("http://[::1", "not of the form"),
        ("http://proxy:0", "not of the form"),
    ],
)
def test_a_proxy_that_cannot_be_used_says_why(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, all_proxy=value)
    with pytest.raises(ProxyError, match=said) as caught:
        proxy_of("https://cave.example.org/")
    assert "secret" not in str(caught.value)
