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
  - Fails, and says what to do, if a file of variables beside the inventory is encrypted as a whole and does not open.
    Ansible reads such a file before any task, needed or not. Also fails if such a file is no YAML, or ansible-core is
    older than this collection supports.
  - Makes an interrupted run say what that means.
  - Hosts that the current play leaves out, for example because of C(--limit), are not included unless O(beyond_limit)
    is set.
options:
  _terms:
    description:
      - Patterns, as C(hosts) of a play takes them. Empty ones are ignored.
      - No host is returned when one of them names, also behind C(!), what is no host or group of the inventory.
    type: list
    elements: str
  with_tokens:
    description: Whether, without a pattern, a host without C(caveclient_tokens) is left out.
    type: bool
    default: false
  forget:
    description:
      - Whether what earlier playbooks of this collection found in the same run is forgotten, also of hosts that have
        failed since. This has an effect in the C(hosts) of a play.
    type: bool
    default: false
  noted:
    description:
      - For the C(hosts) of a play, the name (with dots) of a variable of C(localhost) in which an earlier play has
        noted names of hosts. They are returned as patterns that match these hosts alone, whatever characters are in the
        names.
      - Where there is no such variable (C(--list-hosts), C(--start-at-task)), the patterns are returned as they are.
    type: str
  beyond_limit:
    description:
      - Whether hosts are included that C(--limit) leaves out. If this is in the C(hosts) of a play, the play works on
        them. Then C(--limit) does not hold until a play uses this lookup without O(beyond_limit).
    type: bool
    default: false
  unproven:
    description:
      - Whether a host is left out when there is nothing left to verify on it after the role C(caveclient) has saved
        tokens. Nor is a host returned on which that failed.
    type: bool
    default: false
  settings:
    description:
      - Variables that a playbook reads once for all hosts, without C(caveclient_) in front.
      - No host is returned when one of them is wrong for the first of the hosts. The report says what is wrong.
    type: list
    elements: str
    default: []
  share_tokens:
    description:
      - Whether tokens in C(caveclient_tokens) that several of the hosts have are decrypted now. In the C(hosts) of a
        play, that is once for all of its tasks, as these run in copies of the process that reads it.
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
  description: Names of hosts; with O(noted), patterns.
  type: list
  elements: str
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleLookupError, AnsibleTemplateError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    forget_results,
    host_pattern,
    lift_limit,
    open_shared_tokens,
    set_by_play,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import (
    explain_interruption,
    require_core,
    require_whole_run,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._report.scope import HERE, unknown_names
from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import settings_of_run

_SUFFIXES = ("", ".yml", ".yaml", ".json")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: list[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the hosts."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return self._hosts(terms, variables or {})
        except AnsibleTemplateError:
            raise
        except AnsibleError as error:
            # Until 2.19, ansible-core calls any other error of a lookup an unhandled exception.
            raise AnsibleLookupError(error.message) from None

    def _hosts(self, terms: list[Any], variables: Mapping[str, Any]) -> list[str]:
        require_core()
        require_whole_run()
        explain_interruption()
        items = [item for term in terms for item in (term if isinstance(term, (list, tuple)) else [term])]
        # In a play, Ansible makes up this machine for each of its names; here, it has one.
        patterns = [
            "localhost" if item in HERE and item not in variables["groups"]["all"] else str(item)
            for item in items
            if item
        ]
        hostvars: Any = variables.get("hostvars")  # there are none when hosts or tasks are listed
        noted, beyond = self.get_option("noted"), self.get_option("beyond_limit")
        if hostvars is not None:
            lift_limit(hostvars._inventory, lifted=False)
            if self.get_option("forget"):
                forget_results(hostvars)
        if noted is None:
            self._require_readable(variables)
            hosts: list[str] = list(map(str, variables["groups"]["all"]))
            if patterns:
                named = lookup_loader.get("ansible.builtin.inventory_hostnames", self._loader, self._templar)
                hosts = named.run(patterns, variables)
                if any(unknown_names(pattern, variables["groups"]) for pattern in patterns):
                    hosts = []  # the report says which one
            elif self.get_option("with_tokens"):
                of_play = set_by_play(variables)
                hosts = [host for host in hosts if _is_given({**hostvars.raw_get(host), **of_play})]
        else:
            found = _noted(hostvars, noted)
            if found is None:
                return patterns
            hosts = list(map(str, found))
        if self.get_option("unproven"):
            hosts = [host for host in hosts if not _is_proven(hostvars.raw_get(host))]
        if noted is None and not beyond:
            there = set(variables.get("ansible_play_hosts_all", hosts))
            hosts = [host for host in hosts if host in there]
        settings = self.get_option("settings")
        if settings and hostvars is not None:
            first = hosts[0] if hosts else str(variables["inventory_hostname"])
            hosts = [] if settings_of_run(settings, variables, first, self._templar.template)[1] else hosts
        if self.get_option("share_tokens"):
            open_shared_tokens(map(hostvars.raw_get, hosts))
        if hosts and beyond:
            lift_limit(hostvars._inventory, lifted=True)
        return hosts if noted is None else [host_pattern(host) for host in hosts]

    def _require_readable(self, variables: Mapping[str, Any]) -> None:
        """Fail when a file of variables cannot be read."""
        for path in _variable_files(variables.get("ansible_inventory_sources") or (), variables["groups"]):
            if _begins_like_a_vault(path):
                self._open(path)
            else:
                _require_yaml(path)

    def _open(self, path: Path) -> None:
        """Fail when a file that is encrypted as a whole does not open."""
        try:
            self._loader.load_from_file(str(path))
        except AnsibleError:
            reason = "the password is not the right one" if self._loader._vault.secrets else "no password was given"
            raise AnsibleError(
                f"{path} is a vault that does not open: {reason}. Add --ask-vault-pass, or set vault_password_file in "
                "ansible.cfg. Ansible reads this file for every playbook; where single values are encrypted "
                "(ansible-vault encrypt_string), the audit needs no password."
            ) from None  # Ansible would print the cause below it, in many rows


def _noted(hostvars: Any, name: str) -> list[str] | None:
    """Return the hosts that an earlier play has noted; None where none has."""
    found: Any = {} if hostvars is None else hostvars.raw_get("localhost")
    for part in name.split("."):
        found = (found or {}).get(part)
    return None if found is None else list(found)


def _variable_files(sources: Any, groups: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files beside the inventory from which Ansible reads the variables of a group or host."""
    beside = {
        source if source.is_dir() else source.parent for source in map(Path, map(str, sources)) if source.exists()
    }
    for folder in sorted(beside):
        for place, names in (("group_vars", groups), ("host_vars", groups.get("all", ()))):
            there = {f"{name}{suffix}" for name in names for suffix in _SUFFIXES}
            for path in sorted((folder / place).glob("**/*")):
                first, *below = path.relative_to(folder / place).parts
                hidden = path.name.startswith(".") or path.name.endswith("~")
                if first in there and not hidden and path.is_file() and (not below or path.suffix in _SUFFIXES):
                    yield path


def _begins_like_a_vault(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False  # Ansible says so itself


def _require_yaml(path: Path) -> None:
    """Fail when a file is no YAML, with the place: Ansible leaves out which file it is."""
    try:
        for _event in yaml.parse(path.read_bytes(), Loader=_Loader):
            pass
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise AnsibleError(f"{path}{line} is no YAML: {error.problem}. Correct it, then run again.") from None
    except (OSError, yaml.YAMLError):
        return  # Ansible says so itself


def _is_given(variables: Mapping[str, Any]) -> bool:
    tokens = variables.get("caveclient_tokens")
    # A template or an encrypted string stands for a list that is read later.
    return bool(tokens) if isinstance(tokens, (list, tuple)) else tokens is not None


def _is_proven(variables: Mapping[str, Any]) -> bool:
    """Return whether nothing is left to verify, which the role itself decides where a variable is a template."""
    verify = variables.get("caveclient_verify", "api")
    users = (variables.get("__caveclient_saved") or {}).get("users")
    # An entry may say by itself that its token is saved without asking the server.
    proven = users is not None and all("access" in item or not item.get("fingerprint") for item in users)
    return bool(variables.get("ansible_failed_result")) or verify == "none" or (verify == "api" and proven)
