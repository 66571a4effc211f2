# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values of a wrong kind: what was expected is said, and no error of Python's own."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleFilterError, AnsibleLookupError

from ansible_collections.connectomics.cave.plugins.filter.found_tokens import found_tokens
from ansible_collections.connectomics.cave.plugins.lookup import print_report, rotated_token

WRONG: list[Any] = [None, "text", 5, {"a": 1}, {}, [["a"]], [None]]
SAYS = {rotated_token: "not a token that was sealed in this run", print_report: "the lines that fleet_report left"}


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("plugin", SAYS)
def test_a_value_of_a_wrong_kind_is_named(plugin: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.LookupModule, "set_options", lambda *_given, **_named: None)
    with pytest.raises(AnsibleLookupError, match=SAYS[plugin]):
        plugin.LookupModule().run([value], {"hostvars": MagicMock()})


@pytest.mark.parametrize("value", [*WRONG, "", [{"server": "https://cave.example.org", "files": [5]}]])
def test_found_tokens_names_what_it_takes(value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="takes the list users that saved_token_info returned"):
        found_tokens(value)
