# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Change one variable in the text of a YAML file and leave every other byte of it as it is.

A parser says where the variable's value begins and ends; the text between is replaced. Comments, order, quotes and
blank lines of the rest are therefore kept, which no load-and-dump does. The result is parsed again and compared, so an
edit that would change anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.plugin_utils._vault.yaml_tree import (
    STRING,
    VAULT_TAGS,
    Document,
    VariablePath,
    entry_of,
    find,
    label,
    locate,
    parse,
)

_BLOCK_HEADER = re.compile(r"[|>][0-9+-]*(?P<comment>[ \t]+#[^\r\n]*)?[ \t]*\Z")
_COMMENT = re.compile(r"[ \t]+#[^\r\n]*")


class Scalar(NamedTuple):
    """A string to write: ``text``, and whether it is the ciphertext of a vault string."""

    text: str
    vaulted: bool


def set_scalar(document: Document, path: VariablePath, scalar: Scalar) -> str:
    """Return the text with the variable set to ``scalar``; a variable that isn't there yet is added at the end.

    Raises CaveError where the text cannot be changed without touching something else.
    """
    value, found = find(document, path), locate(document, path)
    if value is not None and found is not None:
        mapping = found[0]
        text = _replaced(document.text, mapping, value, scalar)
    elif document.root is None:
        text = _appended(document.text, len(document.text), 0, path, scalar)
    else:
        text = _inserted(document.text, document.root, path, scalar)
    _prove(document, text, path, scalar)
    return text


def remove(document: Document, path: VariablePath) -> str:
    """Return the text without the variable (or without that key of it)."""
    value, found = find(document, path), locate(document, path)
    if value is None or found is None:
        return document.text
    mapping, key, _value = found
    if mapping.flow_style:
        raise CaveError(f"the variable {label(path)} stands in a {{...}}; remove it there with 'ansible-vault edit'.")
    start = _line_start(document.text, key.start_mark.index)
    end = _end_of_entry(document.text, value)
    alone = len(mapping.value) == 1 and len(path) > 1
    rest = f"{' ' * key.start_mark.column}{{}}{_newline(document.text)}" if alone else ""
    text = document.text[:start] + rest + document.text[end:]
    _prove(document, text, path, None)
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def _newline(text: str) -> str:
    first = re.search(r"\r\n|\n", text)
    return first.group() if first else "\n"


def _quoted(text: str) -> str:
    """A double-quoted YAML string. Where Ansible would take the text for a template, it is told not to."""
    quoted = yaml.safe_dump(text, default_style='"', width=float("inf"), allow_unicode=True).strip()
    return f"!unsafe {quoted}" if re.search(r"\{[{%#]", text) else str(quoted)


def _key(name: str, flow: bool) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.@-]*", name) and _resolves_to_string(name)
    return name if plain and not flow else _quoted_key(name)


def _quoted_key(name: str) -> str:
    return str(yaml.safe_dump(name, default_style='"', width=float("inf"), allow_unicode=True).strip())


def _resolves_to_string(name: str) -> bool:
    node = yaml.compose(name, Loader=yaml.SafeLoader)
    return node is not None and bool(node.tag == STRING)


def _in_line(scalar: Scalar) -> str:
    return f"!vault {_quoted_key(scalar.text)}" if scalar.vaulted else _quoted(scalar.text)


def _block(scalar: Scalar, indent: int, comment: str, newline: str) -> str:
    lines = [f"!vault |{comment}", *(" " * indent + line for line in scalar.text.splitlines())]
    return newline.join(lines) + newline


def _line_start(text: str, index: int) -> int:
    return max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1


def _line_end(text: str, index: int) -> int:
    """Where the next line begins."""
    found = re.compile(r"\r\n|\n|\r").search(text, index)
    return found.end() if found else len(text)


def _deeper_than_comments(text: str, index: int, indent: int) -> int:
    """The indentation for a block of text above ``index``, so that the comments that follow don't become part of it."""
    for line in text[index:].splitlines():
        if line.strip() and not line.lstrip(" ").startswith("#"):
            break
        if line.strip():
            indent = max(indent, len(line) - len(line.lstrip(" ")) + 1)
    return indent


def _without_trailing_blank_lines(text: str, start: int, end: int) -> int:
    return min(end, _line_end(text, start + len(text[start:end].rstrip(" \t\r\n"))))


def _replaced(text: str, mapping: yaml.MappingNode, value: yaml.Node, scalar: Scalar) -> str:
    start, end = value.start_mark.index, value.end_mark.index
    gap = " " if start == end and text[start - 1 : start] == ":" else ""
    newline = _newline(text)
    indent = mapping.start_mark.column + 2
    if getattr(value, "style", None) in ("|", ">"):
        end = _without_trailing_blank_lines(text, start, end)
        header, *content = text[start:end].splitlines()
        found = _BLOCK_HEADER.search(header)
        comment = (found.group("comment") or "") if found else ""
        indent = next((len(line) - len(line.lstrip(" ")) for line in content if line.strip()), indent)
    elif mapping.flow_style or not scalar.vaulted:
        return text[:start] + gap + _in_line(scalar) + text[end:]
    else:
        after = _COMMENT.match(text, end)
        comment = after.group() if after else ""
        end = _line_end(text, end)
        indent = _deeper_than_comments(text, end, indent)
    new = _block(scalar, indent, comment, newline) if scalar.vaulted else _in_line(scalar) + comment + newline
    return text[:start] + gap + new + text[end:]


def _end_of_entry(text: str, node: Any) -> int:
    """Where the line after an entry of a block mapping begins, comments below the entry excluded."""
    if getattr(node, "shared", False):
        raise CaveError(
            f"line {node.start_mark.line + 1} has an anchor or an alias (& or *), so it cannot be told where the "
            "variable ends. Write the value out."
        )
    if isinstance(node, yaml.ScalarNode):
        if node.style in ("|", ">"):
            return _without_trailing_blank_lines(text, node.start_mark.index, node.end_mark.index)
        return _line_end(text, node.end_mark.index)
    if node.flow_style or not node.value:
        return _line_end(text, node.end_mark.index)
    last = node.value[-1]
    return _end_of_entry(text, last[1] if isinstance(last, tuple) else last)


def _appended(text: str, position: int, indent: int, path: VariablePath, scalar: Scalar) -> str:
    """The text with an entry as lines of its own at ``position``, which is the beginning of a line or the end."""
    newline = _newline(text)
    before, after = text[:position], text[position:]
    if before and not before.endswith(("\n", "\r")):
        before += newline
    for name in path[:-1]:
        before += f"{' ' * indent}{_key(name, False)}:{newline}"
        indent += 2
    before += f"{' ' * indent}{_key(path[-1], False)}: "
    if not scalar.vaulted:
        return before + _in_line(scalar) + newline + after
    return before + _block(scalar, _deeper_than_comments(after, 0, indent + 2), "", newline) + after


def _inserted(text: str, root: yaml.MappingNode, path: VariablePath, scalar: Scalar) -> str:
    """The text with an entry more in a mapping that is there."""
    outer = entry_of(root, path[0], (path[0],)) if len(path) > 1 else None
    if outer is None:
        if root.flow_style:
            return _inserted_in_line(text, root, path, scalar)
        return _appended(text, root.end_mark.index, root.start_mark.column, path, scalar)
    mapping = outer[1]
    if isinstance(mapping, yaml.MappingNode):
        if mapping.flow_style:
            return _inserted_in_line(text, mapping, path[1:], scalar)
        return _appended(text, _end_of_entry(text, mapping), mapping.start_mark.column, path[1:], scalar)
    if root.flow_style:
        start, end = mapping.start_mark.index, mapping.end_mark.index
        return f"{text[:start]} {{{_key(path[1], True)}: {_in_line(scalar)}}}{text[end:]}"
    return _appended(text, _end_of_entry(text, mapping), root.start_mark.column + 2, path[1:], scalar)


def _inserted_in_line(text: str, mapping: yaml.MappingNode, path: VariablePath, scalar: Scalar) -> str:
    entry = f"{_key(path[-1], True)}: {_in_line(scalar)}"
    if len(path) > 1:
        entry = f"{_key(path[0], True)}: {{{entry}}}"
    if not mapping.value:
        position = mapping.end_mark.index - 1
        return text[:position] + entry + text[position:]
    last = mapping.value[-1][1]
    if getattr(last, "shared", False):
        raise CaveError("the last value in the {...} has an anchor or an alias (& or *). Write the value out.")
    position = last.end_mark.index
    return f"{text[:position]}, {entry}{text[position:]}"


# ---------------------------------------------------------------------------------------------------------------------
# Proving


def _prove(before: Document, text: str, path: VariablePath, scalar: Scalar | None) -> None:
    """Raise CaveError unless ``text`` differs from ``before`` in this variable alone."""
    advice = (
        f"this file cannot be changed safely at {label(path)}. Set the variable with 'ansible-vault edit' this once."
    )
    try:
        after = parse(text)
        value = find(after, path)
    except CaveError as error:
        raise CaveError(f"{advice} (After the change, {error.message})") from None
    if (value is None) != (scalar is None):
        raise CaveError(advice)
    if value is not None and scalar is not None:
        expected = _vault_text(scalar.text) if scalar.vaulted else scalar.text
        found = _vault_text(value.value) if value.tag in VAULT_TAGS else value.value
        if found != expected or (value.tag in VAULT_TAGS) != scalar.vaulted:
            raise CaveError(advice)
    if not _same_others(before.root, after.root, path):
        raise CaveError(advice)


def _vault_text(ciphertext: str) -> str:
    """Ciphertext without its line breaks: how they fall has no meaning."""
    return "".join(ciphertext.split())


def _same_others(before: yaml.Node | None, after: yaml.Node | None, path: VariablePath) -> bool:
    """Whether two mappings are the same, in the same order, apart from the entry at ``path``."""
    name, *deeper = path
    inside: list[yaml.Node | None] = []

    def others(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
        entries, target = [], None
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == STRING and key.value == name:
                target = value
            else:
                entries.append((key, value))
        inside.append(target)
        return entries

    old, new = others(before), others(after)
    same = _equality()
    if len(old) != len(new) or not all(
        same(key, other_key) and same(value, other) for (key, value), (other_key, other) in zip(old, new, strict=True)
    ):
        return False
    return not deeper or _same_others(inside[0], inside[1], tuple(deeper))


def _equality() -> Callable[[yaml.Node, yaml.Node], bool]:
    """Structural equality of two trees; what was compared once (a cycle, a much shared node) isn't compared again."""
    compared: set[tuple[int, int]] = set()

    def same(one: yaml.Node, other: yaml.Node) -> bool:
        if (id(one), id(other)) in compared:
            return True
        compared.add((id(one), id(other)))
        if type(one) is not type(other) or one.tag != other.tag:
            return False
        if isinstance(one, yaml.ScalarNode):
            if one.tag in VAULT_TAGS:
                return _vault_text(one.value) == _vault_text(other.value)
            return bool(one.value == other.value)
        if len(one.value) != len(other.value):
            return False
        for mine, its in zip(one.value, other.value, strict=True):
            pairs = zip(mine, its, strict=True) if isinstance(mine, tuple) else [(mine, its)]
            if not all(same(a, b) for a, b in pairs):
                return False
        return True

    return same
