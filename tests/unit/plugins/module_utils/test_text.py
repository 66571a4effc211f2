# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of any bytes, as text that can be shown and as words of a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils import _text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/alice", "/home/alice"),
        ("/home/josé/日本", "/home/josé/日本"),
        ("/home/\udcff", "/home/\\xff"),
        ("\ud800", "\\ud800"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        ("one\ntwo\t.", "one\ntwo\t."),
    ],
)
def test_what_cannot_be_shown_is_escaped(text: str, shown: str) -> None:
    assert _text.readable({text: [text, (text,), 5, None]}) == {shown: [shown, [shown], 5, None]}


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_result_is_utf8(value: Any) -> None:
    shown = json.dumps(_text.readable(value), ensure_ascii=False).encode("utf-8")
    assert b"\x1b" not in shown


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_name_is_one_word_of_a_shell(raw: bytes) -> None:
    word = _text.quoted(os.fsdecode(raw))
    assert word.isprintable()
    if word.startswith("$'"):  # plain quoting is shlex's
        done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
        assert done.stdout == raw


SCRIPT = """
import json, os, pwd, sys
from ansible_collections.connectomics.cave.plugins.module_utils import _text
assert not _text.names_are_utf8(), sys.getfilesystemencoding()
name = os.fsdecode("jos\\u00e9".encode())
assert _text.system_name("jos\\u00e9") == name
print(json.dumps(_text.readable(["/home/" + name, f"jos\\u00e9 has {name}", _text.quoted("/home/" + name)])))
"""


def test_in_a_locale_without_utf8_names_are_shown_as_what_they_are() -> None:
    variables = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["/home/josé", "josé has josé", "'/home/josé'"]
