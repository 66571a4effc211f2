# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a run, printed between its last result and Ansible's recap."""

from __future__ import annotations

DOCUMENTATION = r"""
name: print_report
short_description: Print the report of a run
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Prints the lines that M(connectomics.cave.fleet_report) left in the fact C(cave_report), and returns nothing. For
    the plays that follow, C(--limit) holds again if P(connectomics.cave.fleet_hosts#lookup) went beyond it.
  - In the condition of C(ansible.builtin.meta), it prints without a task, so no task's result comes between the report
    and Ansible's recap.
options:
  _terms:
    description: The lines.
    type: list
    elements: dict
    required: true
seealso:
  - module: connectomics.cave.fleet_report
"""

EXAMPLES = r"""
- name: Print the report
  ansible.builtin.meta: end_batch
  when: query('connectomics.cave.print_report', *cave_report.lines) is sequence
"""

RETURN = r"""
_raw:
  description: Nothing.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import lift_limit
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.printing import print_lines
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.text import Line


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[Mapping[str, str]], variables: Any = None, **kwargs: Any) -> list[str]:
        """Print the lines."""
        self.set_options(var_options=variables, direct=kwargs)
        lift_limit(variables["hostvars"]._inventory, lifted=False)
        try:
            lines = [Line(**line) for line in terms]
        except TypeError:
            raise AnsibleLookupError("print_report takes the lines that fleet_report left in cave_report.") from None
        print_lines(lines)
        return []
