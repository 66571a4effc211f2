# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation site in a real browser: its pages, and what its search finds first."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_run import ROOT
from playwright.sync_api import Browser, Page

SITE = ROOT / ".cache" / "docs" / "html"
FIRST = {
    "401": "scientists",
    "403": "scientists",
    "503": "scientists",
    "UNAUTHORIZED": "scientists",
    "dead token": "rotate",
    "leaked": "rotate",
    "uninstall": "provision",
    "JupyterHub": "shared_hosts",
}
"""What a person searches for, and the guide that answers it."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and prints nothing about it."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is that of the base class)
        """Print nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with contextlib.closing(browser.new_page()) as page:
        yield page


@pytest.mark.parametrize("words", FIRST)
def test_the_search_finds_the_guide_that_answers_it_first(page: Page, site: str, words: str) -> None:
    page.goto(f"{site}/search.html?q={words.replace(' ', '+')}")
    page.wait_for_function("/finished|did not match/.test(document.querySelector('p.search-summary')?.innerText)")
    found = page.locator("ul.search > li > a").first.get_attribute("href") or ""
    assert Path(found.partition("#")[0].partition("?")[0]).stem == FIRST[words], found


def test_every_page_opens_without_an_error(page: Page, site: str) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > len(FIRST)
    for path in pages:
        answer = page.goto(f"{site}/{path.relative_to(SITE)}", wait_until="networkidle")
        assert answer is not None
        assert answer.ok, path
        assert page.title(), path
    assert said == []
