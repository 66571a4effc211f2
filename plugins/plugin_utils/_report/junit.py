# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as JUnit XML, which CI systems read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree


def to_junit(report: Mapping[str, Any]) -> bytes:
    """Return JUnit XML as CI systems read it: a suite for each host, a case for each user.

    A user without access is a failure, a host that could not be asked an error, as is what is unfinished of the run
    itself: without a case for it, a run that did nothing would count as one without failures.
    """
    root = ElementTree.Element("testsuites", name=f"connectomics.cave.{report['title']}")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    suites = [(host["name"], host["time"], _cases_of_host(report, host)) for host in report["hosts"]]
    if report["unfinished"]:
        wrong = {"verdict": "unfinished", "message": " ".join(report["unfinished"]), "remedy": ""}
        suites.append((report["title"], report["time"] or "", [_junit_case(report, "run", "run", wrong, "error")]))
    for name, time, cases in suites:
        counts = {
            "tests": len(cases),
            "failures": sum(case.find("failure") is not None for case in cases),
            "errors": sum(case.find("error") is not None for case in cases),
        }
        suite = ElementTree.SubElement(root, "testsuite", name=name)
        suite.attrib.update({"timestamp": time.rstrip("Z")} if time else {})
        suite.attrib.update({key: str(value) for key, value in counts.items()})
        suite.extend(cases)
        totals = {key: totals[key] + counts[key] for key in totals}
    root.attrib.update({key: str(value) for key, value in totals.items()})
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _cases_of_host(report: Mapping[str, Any], host: Mapping[str, Any]) -> list[ElementTree.Element]:
    cases = []
    if host["problem"] or not host["users"]:
        cases.append(_junit_case(report, host["name"], "workstation", host["problem"], "error"))
    for user in host["users"]:
        name = f"{user['user']} at {user['server']}" if user["server"] else user["user"]
        wrong = user if user["state"] == "failed" else None
        cases.append(_junit_case(report, host["name"], name, wrong, "failure", user))
    return cases


def _junit_case(
    report: Mapping[str, Any],
    host: str,
    name: str,
    wrong: Mapping[str, Any] | None,
    kind: str,
    user: Mapping[str, Any] | None = None,
) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=f"{report['title']}.{host}", name=name, time="0")
    if wrong:
        element = ElementTree.SubElement(case, kind, type=wrong["verdict"], message=wrong["message"])
        element.text = "\n".join(text for text in (wrong["message"], wrong["remedy"], wrong.get("url")) if text)
    if user and user["problems"]:
        lines = [f"{item['code']}: {item['path']}: {item['message']} {item['remedy']}" for item in user["problems"]]
        ElementTree.SubElement(case, "system-out").text = "\n".join(lines)
    return case
