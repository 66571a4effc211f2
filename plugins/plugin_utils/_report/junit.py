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

    A user without access is a failure, a host that could not be asked an error.
    """
    root = ElementTree.Element("testsuites", name=f"connectomics.cave.{report['title']}")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for host in report["hosts"]:
        cases = []
        if host["problem"] or not host["users"]:
            cases.append(_junit_case(report, host["name"], "workstation", host["problem"], "error"))
        for user in host["users"]:
            name = f"{user['user']} at {user['server']}" if user["server"] else user["user"]
            cases.append(
                _junit_case(report, host["name"], name, user if user["state"] == "failed" else None, "failure", user)
            )
        counts = {
            "tests": len(cases),
            "failures": sum(case.find("failure") is not None for case in cases),
            "errors": sum(case.find("error") is not None for case in cases),
        }
        suite = ElementTree.SubElement(root, "testsuite", name=host["name"], timestamp=host["time"].rstrip("Z"))
        suite.attrib.update({key: str(value) for key, value in counts.items()})
        suite.extend(cases)
        totals = {key: totals[key] + counts[key] for key in totals}
    root.attrib.update({key: str(value) for key, value in totals.items()})
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


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
