# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the pictures of the README from a real run: 30 pretend workstations, five of them with a problem.

    PYTHONPATH=.tree:tests:tests/support:tests/slow python docs/pictures.py

It needs Chromium.
"""

from __future__ import annotations

import getpass
import html
import re
import shutil
import sys
import tempfile
from pathlib import Path

from ansible_run import COLUMNS
from integration.test_lab_callback import broken_fleet, typed
from playwright.sync_api import sync_playwright

from cave_server import CaveServer

PICTURES = Path(__file__).resolve().parent / "pictures"
SERVER = "https://cave.example.org"
COLOURS = {"31": "#ff8080", "33": "#e5c07b", "32": "#98c379", "35": "#c0a0ff"}
LINE, WIDTH = 17, 8.05  # of a character, in pixels


def terminal(text: str) -> str:
    """Return what a terminal showed as an SVG."""
    lines = text.strip("\n").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        spans, colour = [], ""
        for part in re.split(r"(\x1b\[[0-9;]*m)", line):
            if part.startswith("\x1b"):
                colour = COLOURS.get(part[2:-1].partition(";")[2], "")
            elif part:
                fill = f' fill="{colour}"' if colour else ""
                spans.append(f"<tspan{fill}>{html.escape(part)}</tspan>")
        rows.append(f'<text x="12" y="{8 + LINE * number}" xml:space="preserve">{"".join(spans)}</text>')
    width, height = round(COLUMNS * WIDTH) + 24, LINE * len(lines) + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="The end of a run in a terminal" font-family="ui-monospace, Menlo, Consolas, monospace" '
        f'font-size="13" fill="#e6e6e6">\n<rect width="100%" height="100%" rx="6" fill="#1d2127"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def public(text: str, server: str) -> str:
    """Return text with names that say more to a reader: of the server, and of the user who ran this."""
    return re.sub(rf"(?<!:)\b{getpass.getuser()}\b", "alice", text.replace(server, SERVER))


def main() -> None:
    """Run the playbook, and write the pictures."""
    PICTURES.mkdir(exist_ok=True)
    with CaveServer() as cave, tempfile.TemporaryDirectory() as folder:
        lab = broken_fleet(Path(folder) / "lab", cave)
        lab.write_inventory()
        words = ["-i", "hosts.yml", "--vault-password-file", "password", "connectomics.cave.verify"]
        _status, printed = typed(lab, *words, "-e", "caveclient_report=reports")
        shown = public(printed, cave.url).replace("-i hosts.yml --vault-password-file password", "-i hosts.yml")
        prompt = "$ ansible-playbook -i hosts.yml connectomics.cave.verify -e caveclient_report=reports\n"
        (PICTURES / "terminal.svg").write_text(terminal(prompt + shown), encoding="utf-8")
        page_file = lab.folder / "reports" / "report.html"
        page_file.write_text(public(page_file.read_text(), cave.url))
        with sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            page.goto(page_file.as_uri())
            page.screenshot(path=PICTURES / "report.png")
            browser.close()
    sys.stdout.write(f"{PICTURES}\n")


if __name__ == "__main__":
    main()
