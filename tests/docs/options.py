# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the values in an example are ones that the documented options take."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator


def is_template(value: object) -> bool:
    """Return whether a value is known only when a playbook runs."""
    return "{{" in json.dumps(value, default=str)


def spec_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the argument spec that a module's (or role's) documented options amount to."""
    kept = ("type", "elements", "choices", "required", "aliases")
    return {
        name: {key: option[key] for key in kept if key in option}
        | ({"options": spec_of(inner)} if (inner := option.get("suboptions") or option.get("options")) else {})
        for name, option in options.items()
    }


def complaints(options: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Return what is wrong with values for options; those that are templates count as given."""
    known = spec_of(options)
    unknown = [f"{name} is no option" for name in given if name not in known]
    plain = {name: value for name, value in given.items() if name in known and not is_template(value)}
    spec = {name: option if name in plain else {} for name, option in known.items()}
    missing = [name for name, option in known.items() if option.get("required") and name not in given]
    return [
        *unknown,
        *(f"{name} is missing" for name in missing),
        *ArgumentSpecValidator(spec).validate(plain).error_messages,
    ]
