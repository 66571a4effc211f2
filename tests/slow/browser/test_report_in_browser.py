# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from report_samples import HOSTILE, fleet, ok, owes_terms, refused, report_of, result, unreachable

from ansible_collections.connectomics.cave.plugins.plugin_utils._report.html import to_html

WIDTHS = {"phone": 390, "desktop": 1280}
STATES = ["failed", "pending", "warning", "ok"]

Opener = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opener]:
    """A function that opens a report's page, without scripts unless asked; at the end it must have nothing to say."""
    contexts, said = [], []

    def opener(
        report: dict[str, Any], width: int = WIDTHS["desktop"], scheme: Any = "light", script: bool = True
    ) -> Page:
        path = tmp_path / "report.html"
        path.write_bytes(to_html(report))
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield opener
    for context in contexts:
        context.close()
    assert said == [], "the page printed an error, or asked for something from elsewhere"


def sideways(page: Page) -> list[str]:
    """Return the elements that reach beyond the window's right edge."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(e => e.getClientRects().length && !e.closest('.unseen, .who, thead')
                         && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map(e => e.outerHTML.slice(0, 120))"""
    )
    wider = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    scrolling = page.evaluate(
        """[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1
            && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).length"""
    )
    return found + (["the page scrolls"] if wider else []) + (["something in it scrolls"] if scrolling else [])


def shown(page: Page) -> dict[str, int]:
    """Return how many hosts of each state are visible."""
    visible: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('tbody[data-state]')]
            .filter(e => e.getClientRects().length).map(e => e.dataset.state)"""
    )
    return {state: visible.count(state) for state in STATES}


def check_accessible(page: Page) -> None:
    """Fail on any of axe's findings."""
    # Contrast takes axe minutes on 20,000 elements. Rows are all of one make: it looks at the first, of every state.
    rest = {"exclude": [[".fleet tbody:nth-of-type(n+40)"], [".tokens tbody tr:nth-of-type(n+20)"]]}
    contrast = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
    others = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}}
    for results in (Axe().run(page, options=others), Axe().run(page, context=rest, options=contrast)):
        assert results.violations_count == 0, results.generate_report()


def everything(hosts: int) -> dict[str, Any]:
    """Return a report with ``hosts`` hosts, all states, and notes."""
    users = 3 if hosts < 10 else 84
    return report_of(fleet(hosts, users), notes=["The old token 81b0e7aa was not revoked: not every host is done."])


@pytest.mark.parametrize("hosts", [3, 30, 300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", list(WIDTHS))
def test_the_page_fits_the_screen_and_is_accessible(opened: Opener, device: str, scheme: str, hosts: int) -> None:
    page = opened(everything(hosts), WIDTHS[device], scheme)
    assert sideways(page) == []
    for number, summary in enumerate(page.locator("summary:visible").all()[:6]):
        if number % 2:
            summary.click()
    assert sideways(page) == []
    check_accessible(page)


def test_a_wide_matrix_and_long_names_fit_a_phone(opened: Opener) -> None:
    people = [f"a.very.long.account.name.of.person.{number}@research.example.org" for number in range(8)]
    host = "h" * 250
    results = {host + str(number): [result(*(refused(user) for user in people))] for number in range(3)}
    for width in (320, 360, 760, 1280):
        page = opened(report_of(results), width)
        assert sideways(page) == [], width


@pytest.mark.parametrize(("hosts", "script"), [(3, True), (30, True), (300, False)])
def test_the_filter_shows_what_it_says_without_a_script(opened: Opener, hosts: int, script: bool) -> None:
    report = everything(hosts)
    counts = {state: report["counts"]["hosts"][state] for state in STATES}
    page = opened(report, script=script)
    assert shown(page) == {**counts, "ok": 0}  # what is wrong comes first
    page.get_by_role("radio", name="everything").check()
    assert shown(page) == counts
    for state in STATES:
        if counts[state]:
            page.get_by_role("radio", name=f"{state} ({counts[state]})", exact=True).check()
            assert shown(page) == {other: counts[other] if other == state else 0 for other in STATES}
    page.get_by_role("radio", name="everything").check()
    assert shown(page) == counts


def test_the_filter_and_the_details_work_by_keyboard(opened: Opener) -> None:
    page = opened(everything(30))
    page.locator("#show-wrong").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#show-all").is_checked()
    assert shown(page)["ok"] > 0
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    details = page.locator("tbody:visible details").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None


def test_a_screen_reader_finds_the_tables_on_a_phone(opened: Opener) -> None:
    page = opened(report_of({"ws1": [result(ok("alice"), refused("bob"))]}), WIDTHS["phone"])
    table = page.get_by_role("table", name="Workstations, and what each user on them can do")
    assert table.get_by_role("rowheader", name="ws1").is_visible()
    assert table.get_by_role("columnheader", name="alice").count() == 1
    assert page.get_by_role("heading", name="What is wrong").is_visible()
    assert page.get_by_role("group", name="Show").get_by_role("radio").count() == 3


def test_hostile_text_is_shown_and_does_nothing(opened: Opener) -> None:
    entry = refused(HOSTILE, message=HOSTILE, remedy=HOSTILE)
    page = opened(report_of({HOSTILE: [result(entry)], "ws2": [{"failed": True, "msg": HOSTILE}]}, notes=[HOSTILE]))
    assert "owned" not in page.title()
    assert page.locator("script").count() == 1  # the page's own
    assert page.get_by_text("<script>document.title='owned'</script>").count() >= 5


def test_should_markup_ever_get_through_the_page_runs_no_script(browser: Browser, tmp_path: Path) -> None:
    text = to_html(report_of({"ws1": [result(ok("alice"))]})).decode()
    attack = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    path = tmp_path / "report.html"
    path.write_text(text.replace("<main>", f"<main>{attack}"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    requests: list[str] = []
    page.on("requestfinished", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert "owned" not in page.title()
    assert requests == [path.as_uri()]
    context.close()


def test_links_lead_to_the_pages_that_help(opened: Opener) -> None:
    page = opened(report_of({"ws1": [result(owes_terms("carol"))]}))
    link = page.locator(".card p a")
    assert link.count() == 1
    assert link.get_attribute("href") == "https://global.daf-apis.com/sticky_auth/api/v1/tos/2/accept"
    assert set((link.get_attribute("rel") or "").split()) == {"noopener", "noreferrer"}


def test_print_has_what_is_wrong_with_its_links_and_no_controls(opened: Opener) -> None:
    page = opened(everything(30), scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("fieldset").is_hidden()
    assert page.locator(".card").first.is_visible()
    assert page.locator("tbody[data-state]").count() == 30
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".card p a").first.inner_text() == page.locator(".card p a").first.get_attribute("href")


def test_all_well_says_so(opened: Opener) -> None:
    page = opened(report_of({"ws1": [result(ok("alice"))]}))
    assert page.locator(".headline").inner_text() == "Everything works: 1 workstation ok; 1 user"
    assert page.get_by_role("heading", level=2).count() == 0
    check_accessible(page)


def made(hosts: int) -> dict[str, Any]:
    """Return a report that says how its run was made."""
    run = {
        "command": "ansible-playbook -i hosts.yml connectomics.cave.verify",
        "again": "ansible-playbook -i hosts.yml connectomics.cave.verify --limit @reports/pending",
        "inventory": ["hosts.yml"],
        "seconds": 250.2,
        "versions": {"connectomics.cave": "0.1.0", "ansible-core": "2.19.4"},
    }
    return {**everything(hosts), "run": run}


def test_the_next_command_can_be_copied_with_a_script_and_selected_without(opened: Opener) -> None:
    page = opened(made(30))
    assert "took 4 min 10 s" in page.locator("header").inner_text()
    button = page.get_by_role("button", name="Copy").first
    button.click()
    page.get_by_role("button", name="Copied").wait_for()
    selected = page.evaluate("getSelection().toString()")
    assert selected == "ansible-playbook -i hosts.yml connectomics.cave.verify --limit @reports/pending"
    check_accessible(page)
    still = opened(made(30), script=False)
    assert still.get_by_role("button").count() == 0
    assert still.locator("#again").is_visible()


def test_a_large_fleet_can_be_searched_by_keyboard_and_a_small_one_needs_it_not(opened: Opener) -> None:
    page = opened(made(30))
    page.get_by_role("searchbox", name="Search workstations and users").focus()
    page.keyboard.type("ws007")  # which is fine, and what is wrong is preselected
    assert page.locator(".fleet tbody:visible").count() == 0
    assert page.get_by_role("status").inner_text() == "0 shown, 1 more under \u201ceverything\u201d"
    page.locator("#show-all").check()
    assert page.locator(".fleet tbody:visible").count() == 1
    assert page.get_by_role("status").inner_text() == "1 shown"
    check_accessible(page)
    assert opened(made(3)).get_by_role("searchbox").count() == 0
    assert opened(made(30), script=False).get_by_role("searchbox").count() == 0


def test_a_fleet_that_is_switched_off_has_a_page_too(opened: Opener) -> None:
    page = opened(report_of({f"ws{number}": [unreachable(f"ws{number}")] for number in range(5)}), WIDTHS["phone"])
    assert page.locator(".headline").inner_text() == "0 workstations ok, 5 pending; 0 users"
    assert sideways(page) == []
    check_accessible(page)
