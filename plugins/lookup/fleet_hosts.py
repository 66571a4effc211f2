# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts that a playbook of this collection works on."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_hosts
short_description: Get the hosts that a playbook works on
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Returns the hosts that match a pattern. Without one, all hosts of the inventory, or those that have
    C(caveclient_tokens).
  - Hosts that the present play leaves out, because of C(--limit) for example, are not among them.
options:
  _terms:
    description: Patterns, as C(hosts) of a play takes them. Empty ones do not count.
    type: list
    elements: str
  with_tokens:
    description: Whether, without a pattern, a host without C(caveclient_tokens) is left out.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say which hosts have tokens
  ansible.builtin.debug:
    msg: "{{ query('connectomics.cave.fleet_hosts', with_tokens=true) }}"
"""

RETURN = r"""
_raw:
  description: Names of hosts.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

_VAULT_WORDS = ("vault", "decrypt")


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the hosts."""
        self.set_options(var_options=variables, direct=kwargs)
        variables = variables or {}
        patterns = [str(term) for term in terms if term]
        hosts: list[str] = [str(host) for host in variables["groups"]["all"]]
        if patterns:
            named = lookup_loader.get("ansible.builtin.inventory_hostnames", self._loader, self._templar)
            hosts = named.run(patterns, variables)
        elif self.get_option("with_tokens"):
            hosts = [host for host in hosts if _is_given(self._variables(variables["hostvars"], host))]
        there = set(variables.get("ansible_play_hosts_all", hosts))
        return [host for host in hosts if host in there]

    @staticmethod
    def _variables(hostvars: Any, host: str) -> Mapping[str, Any]:
        """Return the variables of a host as they stand; nothing is decrypted that is encrypted by itself."""
        try:
            found: Mapping[str, Any] = hostvars.raw_get(host)
        except AnsibleError as error:
            if not any(word in str(error).lower() for word in _VAULT_WORDS):
                raise
            raise AnsibleError(
                f"The variables of {host} are in a vault that does not open: {error} "
                "Give its password: --ask-vault-pass, or vault_password_file in ansible.cfg."
            ) from error
        return found


def _is_given(variables: Mapping[str, Any]) -> bool:
    tokens = variables.get("caveclient_tokens")
    # A template or an encrypted string stands for a list that is read later.
    return bool(tokens) if isinstance(tokens, (list, tuple)) else tokens is not None
