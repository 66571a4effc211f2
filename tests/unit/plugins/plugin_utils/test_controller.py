# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plugins need of Ansible: tokens of several hosts are decrypted once; hosts are named, and the limit lifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    forces_terminal,
    host_pattern,
    lift_limit,
    open_shared_tokens,
)


class EncryptedString:
    """Stands for Ansible's type of that name, which is told by it."""

    def __init__(self, opens: bool = True) -> None:
        self.opens = opens
        self.asked = 0

    def __str__(self) -> str:
        """Count, and decrypt."""
        self.asked += 1
        if not self.opens:
            raise AnsibleError("no password")
        return "token"


def hosts(*tokens: Any, **variables: Any) -> list[dict[str, Any]]:
    """Return the variables of hosts with these tokens of Alice."""
    return [{"caveclient_tokens": [{"user": "alice", "token": token}], **variables} for token in tokens]


def test_a_token_of_several_hosts_is_decrypted_once() -> None:
    token = EncryptedString()
    open_shared_tokens(hosts(token, token, token))
    assert token.asked == 1


@pytest.mark.parametrize("template", ["{{ vault_alice }}", "{{ everybodys['alice'] }}", "{{ one }}"])
def test_a_token_that_templates_name_is_found(template: str) -> None:
    token = EncryptedString()
    variables = {
        "vault_alice": token,
        "everybodys": {"alice": token},
        "one": "{{ two }}",
        "two": "{{ one ~ vault_alice }}",
    }
    open_shared_tokens(hosts(template, template, **variables))
    assert token.asked == 1


def test_a_list_of_tokens_that_is_a_template_is_followed() -> None:
    token = EncryptedString()
    variables = {"caveclient_tokens": "{{ lab_tokens }}", "lab_tokens": [{"user": "alice", "token": token}]}
    open_shared_tokens([variables, variables])
    assert token.asked == 1


def test_what_one_host_alone_has_is_left_to_its_own_process() -> None:
    tokens = [EncryptedString(), EncryptedString()]
    open_shared_tokens(hosts(*tokens))
    assert [token.asked for token in tokens] == [0, 0]


def test_secrets_that_are_no_tokens_are_left_alone() -> None:
    other = EncryptedString()
    open_shared_tokens(hosts("{{ vault_alice }}", "plain", vault_root_password=other) * 2)
    assert other.asked == 0


def test_a_token_that_does_not_open_is_left_to_the_task_to_say_so() -> None:
    closed, other = EncryptedString(opens=False), EncryptedString()
    open_shared_tokens(hosts(closed, closed, other, other))
    assert (closed.asked, other.asked) == (1, 1)


# Hosts ----------------------------------------------------------------------------------------------------------------


def inventory_of(*names: str) -> InventoryManager:
    """An inventory with hosts, all of them in the group ``lab``."""
    inventory = InventoryManager(DataLoader(), parse=False)
    inventory.add_group("lab")
    for name in names:
        inventory.add_host(name, "lab")
    return inventory


def found(inventory: InventoryManager, *patterns: str) -> list[str]:
    """The hosts of a play."""
    return [host.name for host in inventory.get_hosts(list(patterns))]


@given(
    st.text(
        st.one_of(st.characters(categories=["L", "N"]), st.sampled_from(" .,:;!&~@*?[](){}|$^\\+-_/#'\"")), min_size=1
    )
)
def test_a_pattern_matches_the_host_of_that_name_alone(name: str) -> None:
    assert found(inventory_of("ws1", name, f"{name}x", f"x{name}"), host_pattern(name)) == [name]


def test_hosts_outside_of_the_limit_are_there_while_it_is_lifted_and_no_longer() -> None:
    inventory = inventory_of("ws1", "ws2", "ws3")
    inventory.subset("ws1,ws3")
    lift_limit(inventory, lifted=False)
    assert found(inventory, "lab") == ["ws1", "ws3"]
    for _twice in range(2):  # Ansible fills in the hosts of a play more than once
        lift_limit(inventory, lifted=True)
        assert found(inventory, "ws2", "localhost") == ["ws2", "localhost"]
    for _twice in range(2):
        lift_limit(inventory, lifted=False)
        assert found(inventory, "lab") == ["ws1", "ws3"]


@pytest.mark.parametrize(
    ("text", "told", "forced"),
    [
        ("Host *\n  RequestTTY force\n", "requesttty force", True),
        ("host *\n\trequesttty=force\n", "requesttty force", True),
        ("Host *\n  RequestTTY force\n", "requesttty auto", False),  # of another host
        ("Include other\n", "requesttty force", True),
        ("# RequestTTY force\n", "requesttty force", False),  # SSH is not asked where no file speaks of it
    ],
)
def test_ssh_is_asked_about_a_terminal_where_a_file_speaks_of_one(
    tmp_path: Path, text: str, told: str, forced: bool
) -> None:
    (tmp_path / "config").write_text(text)
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\n[ \"$1\" = -G ] || exit 1\nprintf 'user alice\\n{told}\\nport 22\\n'\n")
    ssh.chmod(0o755)
    assert forces_terminal(str(ssh), f"-F {tmp_path}/config", "ws1") is forced


def test_options_that_are_no_words_and_a_missing_ssh_force_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("RequestTTY force\n")
    assert forces_terminal("ssh", "-o 'ControlPath", "ws1") is False
    assert forces_terminal(str(tmp_path / "nowhere"), f"-F {tmp_path}/config", "ws1") is False


def test_a_number_without_an_account_has_no_ssh_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1_234_567_890)
    assert forces_terminal("ssh", "", "ws1") is False
