# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One variable of a YAML file changes, and nothing else does."""

from __future__ import annotations

import difflib
import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_edit import Scalar, remove, set_scalar
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import find, parse, vault_strings

CIPHERTEXT = "$ANSIBLE_VAULT;1.1;AES256\n6162636465\n3031323334\n"
NEW = Scalar(CIPHERTEXT, vaulted=True)
PLAIN = Scalar("0123456789abcdef", vaulted=False)


def edited(text: str, *path: str, scalar: Scalar = NEW) -> str:
    return set_scalar(parse(textwrap.dedent(text)), path, scalar)


def expected(text: str) -> str:
    return textwrap.dedent(text)


class _Loader(yaml.SafeLoader):
    """Reads what Ansible reads, with tagged strings as a pair of tag and text."""


def _tagged(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> tuple[str, str]:
    return node.tag, "".join(str(loader.construct_scalar(node)).split())


for _tag in ("!vault", "!unsafe"):
    _Loader.add_constructor(_tag, _tagged)


def loaded(text: str) -> dict[str, Any]:
    return yaml.load(text, Loader=_Loader) or {}  # noqa: S506 (a safe loader with two more tags)


# -- replacing ---------------------------------------------------------------------------------------------------------


def test_a_vault_string_is_replaced_with_the_indentation_and_comments_that_it_had() -> None:
    assert edited(
        """\
        # tokens of the lab
        first: 1   # one

        vault_cave_token_alice: !vault |  # alice's
                  $ANSIBLE_VAULT;1.1;AES256
                  3939

        # the last one
        last: [a,   b]
        """,
        "vault_cave_token_alice",
    ) == expected(
        """\
        # tokens of the lab
        first: 1   # one

        vault_cave_token_alice: !vault |  # alice's
                  $ANSIBLE_VAULT;1.1;AES256
                  6162636465
                  3031323334

        # the last one
        last: [a,   b]
        """
    )


def test_a_plain_value_becomes_a_vault_string_and_keeps_its_comment() -> None:
    assert edited("a: 'old'   # why\nb: 2\n", "a") == (
        "a: !vault |   # why\n  $ANSIBLE_VAULT;1.1;AES256\n  6162636465\n  3031323334\nb: 2\n"
    )


@pytest.mark.parametrize(
    "value", ["old", "'old'", '"old"', "old\n  folded over\n  lines", "|\n  old", ">-\n  old\n\n", ""]
)
def test_a_value_of_any_style_is_replaced_by_a_quoted_one(value: str) -> None:
    new = edited(f"a: 1\nb: {value}\nc: 3 # c\n", "b", scalar=PLAIN)
    assert loaded(new) == {"a": 1, "b": PLAIN.text, "c": 3}
    assert new.startswith("a: 1\nb: ")
    assert new.endswith("c: 3 # c\n")


def test_a_value_that_looks_like_a_number_is_written_as_a_string() -> None:
    new = edited("a: x\n", "a", scalar=Scalar("12345678901234567890123456789012", vaulted=False))
    assert loaded(new)["a"] == "12345678901234567890123456789012"


def test_a_value_that_looks_like_a_template_is_marked_unsafe() -> None:
    assert edited("a: x\n", "a", scalar=Scalar("{{ lookup('pipe', 'id') }}", vaulted=False)).startswith("a: !unsafe ")


def test_a_value_on_the_line_after_its_key_is_replaced_there() -> None:
    assert loaded(edited("a:  # see below\n  !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    39\nb: 2\n", "a"))["b"] == 2


def test_windows_line_ends_stay_windows_line_ends() -> None:
    new = edited("a: 1\r\nb: !vault |\r\n  $ANSIBLE_VAULT;1.1;AES256\r\n  39\r\nc: 3\r\n", "b")
    assert new.replace("\r\n", "").count("\n") == 0
    assert new.startswith("a: 1\r\nb: !vault |\r\n")
    assert new.endswith("3031323334\r\nc: 3\r\n")


def test_a_byte_order_mark_stays() -> None:
    assert edited("\ufeffa: 1\nb: 2\n", "b", scalar=PLAIN).startswith("\ufeffa: 1\n")


# -- adding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "---\n", "# only a comment\n", "--- # begins\n# and goes on\n", "# no newline at the end"]
)
def test_the_first_variable_of_a_file_comes_after_what_is_there(text: str) -> None:
    new = edited(text, "a")
    assert new.startswith(text)
    assert loaded(new) == {"a": ("!vault", "".join(CIPHERTEXT.split()))}


def test_a_new_variable_comes_last_with_the_comments_before_it_kept() -> None:
    assert edited("a: 1\n\n# the end\n", "b") == (
        "a: 1\n\n# the end\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162636465\n  3031323334\n"
    )


def test_a_new_variable_comes_before_the_mark_of_the_documents_end() -> None:
    assert edited("a: 1\n...\n", "b", scalar=PLAIN) == 'a: 1\nb: "0123456789abcdef"\n...\n'


def test_a_new_key_comes_last_in_its_mapping_before_the_comments_of_the_next_variable() -> None:
    assert edited(
        """\
        tokens:
            alice: x   # hers
            bob: |
                y

        # something else
        other: 1
        """,
        "tokens",
        "carol",
        scalar=PLAIN,
    ) == expected(
        """\
        tokens:
            alice: x   # hers
            bob: |
                y
            carol: "0123456789abcdef"

        # something else
        other: 1
        """
    )


@pytest.mark.parametrize(
    "text", ["tokens:\nother: 1\n", "tokens:  # none yet\n# next\nother: 1\n", "other: 1\ntokens: {}\n", "other: 1\n"]
)
def test_a_new_key_makes_the_mapping_that_it_needs(text: str) -> None:
    new = edited(text, "tokens", "jane.doe")
    assert loaded(new) == {"other": 1, "tokens": {"jane.doe": ("!vault", "".join(CIPHERTEXT.split()))}}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a": 1}',
        '{"a": {"b": [1, 2]},\n "c": "x",}\n',
        "{a: 1, tokens: {}}",
        "{a: 1, tokens: {x: y}}",
        "{a: 1, tokens: }",
    ],
)
@pytest.mark.parametrize("scalar", [NEW, PLAIN])
def test_a_file_in_braces_gets_the_variable_in_its_own_style(text: str, scalar: Scalar) -> None:
    before = loaded(text)
    after = loaded(edited(text, "tokens", "alice", scalar=scalar))
    assert after.pop("tokens").pop("alice")
    before.pop("tokens", None)
    assert after == before


@pytest.mark.parametrize("name", ["yes", "null", "1e5", "o'brien", "a: b", "- x", "ünïcode", "#x"])
def test_a_key_that_yaml_would_read_otherwise_is_quoted(name: str) -> None:
    assert loaded(edited("tokens:\n  alice: x\n", "tokens", name, scalar=PLAIN))["tokens"] == {
        "alice": "x",
        name: PLAIN.text,
    }


# -- removing ----------------------------------------------------------------------------------------------------------


def test_a_removed_variable_takes_its_lines_with_it_and_no_other() -> None:
    text = "# top\na: 1\n# of b\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  39\n\n# of c\nc: 3 # c\n"
    assert remove(parse(text), ("b",)) == "# top\na: 1\n# of b\n\n# of c\nc: 3 # c\n"


def test_the_last_key_that_is_removed_leaves_an_empty_mapping() -> None:
    new = remove(parse("tokens:\n  alice: x # hers\nother: 1\n"), ("tokens", "alice"))
    assert loaded(new) == {"tokens": {}, "other": 1}


def test_removing_what_is_not_there_changes_nothing() -> None:
    text = "a:   1\n"
    assert remove(parse(text), ("b",)) == text
    assert remove(parse(text), ("b", "c")) == text


# -- refusing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("a: &x 1\nb: *x\n", ("a",), "anchor"),
        ("a: &x 1\nb: *x\n", ("b",), "alias"),
        ("a: &x {k: v}\nb: *x\n", ("b", "k"), "alias"),
        ("a: &x {k: v}\nb: {<<: *x}\n", ("b", "k"), "merge key"),
        ("a: &x {k: v}\n<<: *x\n", ("k",), "merge key"),
        ("x: &x 1\nt:\n  a: 1\n  b: *x\n", ("t", "new"), "alias"),
        ("x: &x 1\nt: {a: 1, b: *x}\n", ("t", "new"), "alias"),
        ("a: 1\nb: 2\na: 3\n", ("a",), "lines 1 and 3"),
        ("t:\n  a: 1\n  a: 3\n", ("t", "a"), "lines 2 and 3"),
        ("a: {b: c}\n", ("a",), "is a mapping"),
        ("a: [b, c]\n", ("a",), "is a list"),
        ("a: b\n", ("a", "c"), "is a single value, not a mapping"),
        ("a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  39\n", ("a", "c"), "is a vault string, not a mapping"),
        ("- a\n- b\n", ("a",), "not a mapping"),
        ("just text\n", ("a",), "not a mapping"),
        ("a: [1, 2\nb: 3\n", ("a",), "not valid YAML in line 2"),
        ("a: 1\n---\nb: 2\n", ("a",), "more than one YAML document"),
        ("a:\n\t- b\n", ("a",), "not valid YAML"),
        ("a: \x00\n", ("a",), "not valid YAML"),
        ("[" * 5000, ("a",), "not valid YAML"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused_with_the_reason(text: str, path: tuple[str, ...], says: str) -> None:
    with pytest.raises(CaveError) as caught:
        set_scalar(parse(text), path, NEW)
    assert says in caught.value.message


def test_a_syntax_error_does_not_show_the_text_around_it() -> None:
    with pytest.raises(CaveError) as caught:
        parse("token: 'c0ffee00c0ffee00\nb: [\n")
    assert "c0ffee" not in str(caught.value)


def test_anchors_elsewhere_in_the_file_are_no_obstacle() -> None:
    text = "base: &b {k: 1}\ntoken: old\nuse:\n  <<: *b\nloop: &l [*l]\n"
    assert edited(text, "token", scalar=PLAIN) == text.replace("old", '"0123456789abcdef"')


def test_all_vault_strings_of_a_file_are_found() -> None:
    text = "a: !vault one\nb: {c: !vault two}\nd: [!vault three, four]\ne: !vault-encrypted five\n"
    assert vault_strings(parse(text)) == ["one", "two", "three", "five"]


# -- property ----------------------------------------------------------------------------------------------------------

_word = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
_comment = st.sampled_from(["", "  # a remark", " # 'quoted' \"remark\": [x", "\t# after a tab"])
_between = st.lists(st.sampled_from(["", "# between", "   ", "  # indented remark", "#"]), max_size=2)
_inline = st.sampled_from(
    [
        "1",
        "plain words",
        "'single '' quoted'",
        '"double \\" # quoted"',
        "[a, {b: c}]",
        "{a: 'x', b: [1]}",
        "~",
        "",
        "!unsafe '{{ x }}'",
    ]
)
_lines = st.lists(st.sampled_from(["text", "  deeper", "", "# no comment", "key: value"]), min_size=1, max_size=3)


@st.composite
def _block_value(draw: st.DrawFn, indent: int) -> list[str]:
    """A literal or vault value: the rest of the first line, and the lines below it."""
    margin = " " * (indent + draw(st.sampled_from([1, 2, 4, 10])))
    if draw(st.booleans()):
        body = ["$ANSIBLE_VAULT;1.1;AES256", "3031", "3233"]
        header = "!vault |"
    else:
        body = ["first", *draw(_lines)]
        header = draw(st.sampled_from(["|", "|-", "|+", ">", ">-"]))
    return [header + draw(_comment).replace("\t", " "), *(margin + line if line else "" for line in body)]


@st.composite
def _entry(draw: st.DrawFn, name: str, indent: int, depth: int) -> list[str]:
    kind = draw(st.sampled_from(["inline", "block", "mapping", "list"] if depth else ["inline", "block"]))
    pad = " " * indent
    if kind == "inline":
        return [f"{pad}{name}: {draw(_inline)}{draw(_comment)}"]
    if kind == "block":
        first, *rest = draw(_block_value(indent))
        return [f"{pad}{name}: {first}", *rest]
    if kind == "list":
        return [f"{pad}{name}:{draw(_comment)}", f"{pad}  - a{draw(_comment)}", f"{pad}  - 'b'"]
    names = draw(st.lists(_word, min_size=1, max_size=3, unique=True))
    lines = [f"{pad}{name}:{draw(_comment)}"]
    for inner in names:
        lines += draw(_between)
        lines += draw(_entry(inner, indent + 2, depth - 1))
    return lines


@st.composite
def _files(draw: st.DrawFn) -> tuple[str, list[str]]:
    names = draw(st.lists(_word, min_size=1, max_size=5, unique=True))
    lines = draw(st.sampled_from([[], ["---"], ["# a file", "---"]]))
    for name in names:
        lines = lines + draw(_between) + draw(_entry(name, 0, 1))
    lines += draw(_between)
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return newline.join(lines) + draw(st.sampled_from(["", newline])), names


def _changed_lines(before: str, after: str) -> list[str]:
    """The lines of ``before`` that are no more in ``after``, by the smallest difference."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    gone: list[str] = []
    for kind, start, end, _new_start, _new_end in matcher.get_opcodes():
        if kind in ("replace", "delete"):
            gone += before.splitlines()[start:end]
    return gone


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_files(), st.data())
def test_whatever_the_file_looks_like_only_the_variable_changes_or_it_is_refused(
    file: tuple[str, list[str]], data: st.DataObject
) -> None:
    text, names = file
    try:
        before = loaded(text)
    except yaml.YAMLError:
        assume(False)
        return
    scalar = data.draw(st.sampled_from([NEW, PLAIN]))
    path: tuple[str, ...] = (data.draw(st.sampled_from([*names, "added"])),)
    if data.draw(st.booleans()):
        inside = before.get(path[0])
        path += (data.draw(st.sampled_from([*(inside if isinstance(inside, dict) else ()), "added_key"])),)
    try:
        after_text = set_scalar(parse(text), path, scalar)
    except CaveError as error:
        event("refused")
        # The one refusal of a wellformed file that could be written: its last line has no end, and is part of a text.
        if "cannot be changed safely" in error.message:
            assert not text.endswith("\n")
        return
    event("changed")
    after = loaded(after_text)

    target_before, target_after = before, after
    for name in path[:-1]:
        assert list(target_before) == [n for n in target_after if n in target_before]
        target_before, target_after = target_before.get(name) or {}, target_after[name]
    value = target_after.pop(path[-1])
    assert value == (("!vault", "".join(CIPHERTEXT.split())) if scalar.vaulted else scalar.text)
    old = target_before.pop(path[-1], None) if target_before else None
    if len(path) == 2 and not target_after:
        before.pop(path[0], None)
        after.pop(path[0])
    assert after == before

    again = set_scalar(parse(after_text), path, scalar)
    assert loaded(again) == loaded(after_text)
    if old is None:
        assert _changed_lines(text, after_text) in ([], [text.splitlines()[-1]]) or "{" in text or path[0] in names
    node = find(parse(after_text), path)
    assert node is not None
    for comment in (line for line in text.splitlines() if line.lstrip().startswith(("# between", "# a file"))):
        assert comment in after_text.splitlines()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_files(), st.data())
def test_setting_and_removing_a_new_variable_gives_the_file_back(
    file: tuple[str, list[str]], data: st.DataObject
) -> None:
    text, _names = file
    try:
        loaded(text)
        there_and_back = remove(
            parse(set_scalar(parse(text), ("added",), data.draw(st.sampled_from([NEW, PLAIN])))), ("added",)
        )
    except (yaml.YAMLError, CaveError):
        assume(False)
        return
    assert there_and_back.rstrip("\r\n") == text.rstrip("\r\n")
    assert there_and_back.startswith(text)
