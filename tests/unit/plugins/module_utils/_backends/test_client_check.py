# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.connectomics.cave.plugins.module_utils._backends.client_check import client_python
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


@pytest.mark.parametrize("name", ["/nowhere/\nok: [ws1] => {}", "/nowhere/\x1b[2K", "/nowhere/a b"])
def test_the_path_of_an_interpreter_that_is_not_there_stays_in_one_line_and_is_harmless(name: str) -> None:
    with pytest.raises(CaveError) as error:
        client_python({"interpreter": name, "path": "/opt/caveclient"})
    assert "does not exist: there is no" in error.value.message
    assert error.value.message.isprintable()
