# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a request says who sends it."""

from __future__ import annotations

import pytest

from cave_server.credentials import TOKEN_NAME, BadAuthHeaderError, Credentials, read


@pytest.mark.parametrize(
    ("headers", "cookies", "query", "expected"),
    [
        ({}, {}, {}, Credentials("", None, False)),
        ({"Authorization": ""}, {}, {}, Credentials("", None, False)),
        ({"X-Requested-With": "x"}, {}, {}, Credentials("", None, True)),
        ({"Origin": "x"}, {}, {}, Credentials("", None, True)),
        ({"Authorization": "Bearer t"}, {}, {}, Credentials("t", "header", True)),
        ({"Authorization": "Bearer t more words"}, {}, {}, Credentials("t", "header", True)),
        ({"Authorization": "Bearer  t"}, {}, {}, Credentials("", "header", True)),
        ({"Authorization": "Bearer  t"}, {TOKEN_NAME: "c"}, {}, Credentials("", "header", True)),
        ({"Authorization": "Bearer t"}, {TOKEN_NAME: "c"}, {TOKEN_NAME: "q"}, Credentials("t", "header", True)),
        ({}, {TOKEN_NAME: "c"}, {TOKEN_NAME: "q"}, Credentials("q", "query", False)),
        ({}, {TOKEN_NAME: "c"}, {}, Credentials("c", "cookie", False)),
        ({"Origin": "x"}, {TOKEN_NAME: "c"}, {}, Credentials("c", "cookie", True)),
    ],
)
def test_the_header_beats_the_query_which_beats_the_cookie(
    headers: dict[str, str], cookies: dict[str, str], query: dict[str, str], expected: Credentials
) -> None:
    assert read(headers, cookies, query) == expected


@pytest.mark.parametrize("header", ["Bearer", "bearer t", "Token t", "t", " Bearer t"])
def test_any_other_header_is_bad(header: str) -> None:
    with pytest.raises(BadAuthHeaderError):
        read({"Authorization": header}, {TOKEN_NAME: "c"}, {})
