# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of single members in the text of a JSON object: every other byte stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.json_edit import (
    NotAnObject,
    members,
    remove_member,
    set_member,
)

# JSON as people and programs write it: any white space, any escapes, repeated keys, numbers of any size.
SPACE = st.text(alphabet=" \t\r\n", max_size=3)
ESCAPED = st.text(max_size=6).map(json.dumps) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
SURROGATES = st.sampled_from(['"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\/"'])
NUMBERS = st.sampled_from(["0", "-0", "1e999", "-1E-999", "9" * 400, "0.1000", "NaN", "Infinity", "-Infinity"])
SCALARS = ESCAPED | SURROGATES | NUMBERS | st.sampled_from(["true", "false", "null"])
KEYS = ESCAPED | st.sampled_from(['"token"', '"\\u0074oken"', '"other"'])


def _array(items: list[str], space: str) -> str:
    return f"[{space}" + f"{space},{space}".join(items) + f"{space}]"


def _object(pairs: list[tuple[str, str]], space: str) -> str:
    return f"{{{space}" + f"{space},{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs) + f"{space}}}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(_array, st.lists(inner, max_size=3), SPACE)
        | st.builds(_object, st.lists(st.tuples(KEYS, inner), max_size=3), SPACE)
    ),
    max_leaves=8,
)
OBJECTS = st.builds(
    lambda before, pairs, space, after: before + _object(pairs, space) + after,
    SPACE,
    st.lists(st.tuples(KEYS, VALUES), max_size=5),
    SPACE,
    SPACE,
)


def raw_members(text: str) -> list[tuple[str, str]]:
    """The members as they are spelt."""
    return [
        (text[item.key_start : item.value_start], text[item.value_start : item.value_end]) for item in members(text)
    ]


def load(text: str) -> Any:
    return json.loads(text, parse_constant=str, parse_float=str, parse_int=str)


@given(OBJECTS)
def test_members_are_those_that_a_json_reader_finds(text: str) -> None:
    assert {item.key: item.value for item in members(text)} == load(text)
    assert [item.key for item in members(text)] == [key for key, _value in json.loads(text, object_pairs_hook=list)]


@given(OBJECTS, st.text(max_size=8) | st.just("token"), st.text(max_size=20))
def test_setting_a_member_keeps_all_others_byte_for_byte(text: str, key: str, value: str) -> None:
    changed = set_member(text, key, value)
    assert load(changed) == {**load(text), key: value}
    names = [item.key for item in members(text)]
    kept = [raw for raw, name in zip(raw_members(text), names, strict=True) if name != key]
    found = [raw for raw, item in zip(raw_members(changed), members(changed), strict=True) if item.key != key]
    assert found == kept
    assert [item.key for item in members(changed)] == (names if key in names else [*names, key])
    assert set_member(changed, key, value) == changed


@given(OBJECTS, st.text(max_size=8) | st.just("token"))
def test_removing_a_member_keeps_all_others_byte_for_byte(text: str, key: str) -> None:
    changed = remove_member(text, key)
    kept = [raw for raw, item in zip(raw_members(text), members(text), strict=True) if item.key != key]
    assert raw_members(changed) == kept
    assert remove_member(changed, key) == changed
    if all(item.key != key for item in members(text)):
        assert changed == text


@given(OBJECTS, st.text(max_size=8), st.text(max_size=8))
def test_a_member_that_was_added_can_be_taken_out_again(text: str, key: str, value: str) -> None:
    if key not in load(text):
        assert load(remove_member(set_member(text, key, value), key)) == load(text)


@given(st.text(max_size=30) | st.text(alphabet='{}[]":,\\ue0ntrf1 -\n', max_size=30))
def test_whatever_is_refused_by_json_is_refused_here_and_nothing_else(text: str) -> None:
    try:
        value = load(text)
    except ValueError:
        with pytest.raises(json.JSONDecodeError):
            members(text)
        return
    if isinstance(value, dict):
        members(text)
    else:
        with pytest.raises(NotAnObject):
            members(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", '{"token": "x"}'),
        ("{ \n}\n", '{"token": "x"}\n'),
        ('{"a": 1}', '{"a": 1, "token": "x"}'),
        ('{\n  "a": 1\n}\n', '{\n  "a": 1,\n  "token": "x"\n}\n'),
        ('{\n\t"a": 1,\n\t"b": 2\n}', '{\n\t"a": 1,\n\t"b": 2,\n\t"token": "x"\n}'),
        ('{"token":"old","a":1}', '{"token":"x","a":1}'),
        ('{"token": {"deep": ["token"]}}', '{"token": "x"}'),
        ('{"\\u0074oken": "old"}', '{"\\u0074oken": "x"}'),
        ('{"token": "1", "token": "2"}', '{"token": "x", "token": "x"}'),
        ('{"a": {"token": "inner"}}', '{"a": {"token": "inner"}, "token": "x"}'),
        ('{"a": "}"}', '{"a": "}", "token": "x"}'),
    ],
)
def test_a_member_is_set_in_the_style_of_the_file(text: str, expected: str) -> None:
    assert set_member(text, "token", "x") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"token": "x"}', "{}"),
        ('{\n  "token": "x"\n}\n', "{\n  \n}\n"),
        ('{"token": "x", "a": 1}', '{"a": 1}'),
        ('{"a": 1, "token": "x"}', '{"a": 1}'),
        ('{\n  "a": 1,\n  "token": "x"\n}\n', '{\n  "a": 1\n}\n'),
        ('{"token": 1, "a": 2, "token": 3, "b": 4, "token": 5, "token": 6}', '{"a": 2, "b": 4}'),
        ('{"a": {"token": "inner"}}', '{"a": {"token": "inner"}}'),
    ],
)
def test_a_member_is_removed_with_its_comma(text: str, expected: str) -> None:
    assert remove_member(text, "token") == expected


@pytest.mark.parametrize("text", ['{"a":' + "[" * 60000, "[" * 60000, '{"a":' * 20000, "[" * 30000 + "]" * 30000])
def test_deep_nesting_is_refused_and_not_a_crash(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        members(text)


def test_a_number_that_the_readers_cannot_read_is_refused() -> None:
    assert members('{"a":' + "9" * 4300 + "}")[0].value == "9" * 4300
    with pytest.raises(json.JSONDecodeError, match="Number too long"):
        members('{"a":' + "9" * 4301 + "}")


def test_ten_thousand_repetitions_of_a_key_take_no_time() -> None:
    text = "{" + ",".join(['"token":1'] * 6000) + "}"
    assert remove_member(text, "token") == "{}"
    assert load(set_member(text, "token", "x")) == {"token": "x"}
