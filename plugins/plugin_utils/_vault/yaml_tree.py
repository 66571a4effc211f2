# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the text of a file of variables as a tree that says where each value stands in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError

VAULT_TAGS = ("!vault", "!vault-encrypted")
"""The tags that Ansible knows for an encrypted string."""
STRING = "tag:yaml.org,2002:str"

_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_EMPTY_FILE_ADVICE = "A file of variables is a mapping: lines of the form 'name: value'."

VariablePath = tuple[str, ...]
"""The name of a variable, or the name and a key of the mapping that the variable holds."""


class Document(NamedTuple):
    """The text of a YAML file with its tree; ``root`` is None when the file has no content yet."""

    text: str
    root: yaml.MappingNode | None


class _Composer(yaml.SafeLoader):
    """Composes the tree without making objects of it (so unknown tags are fine), and marks what anchors share."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # a gap in its stubs
        shared = isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None
        node: Any = super().compose_node(parent, index)
        if shared:
            node.shared = True
        return node


def label(path: VariablePath) -> str:
    """How messages name a variable."""
    return path[0] if len(path) == 1 else f"{path[0]}[{path[1]}]"


def parse(text: str) -> Document:
    """Read the text of a file of variables.

    Raises CaveError when it isn't YAML, or not a mapping. The message never shows a part of the text, since that may
    come out of an encrypted file.
    """
    loader = None
    try:
        loader = _Composer(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        if error.context == "expected a single document in the stream":
            raise CaveError(
                "it has more than one YAML document (---). Keep variables in a file of their own."
            ) from None
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CaveError(f"it is not valid YAML{where}. Fix it with 'ansible-vault edit' or an editor first.") from None
    except (yaml.YAMLError, RecursionError):
        raise CaveError("it is not valid YAML. Fix it with 'ansible-vault edit' or an editor first.") from None
    finally:
        if loader is not None:
            loader.dispose()
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL and not root.value):
        return Document(text, None)
    if not isinstance(root, yaml.MappingNode):
        raise CaveError(f"its content is not a mapping. {_EMPTY_FILE_ADVICE}")
    return Document(text, root)


def find(document: Document, path: VariablePath) -> yaml.ScalarNode | None:
    """Return the node of a variable's value, None when there is no such variable (or key of it).

    Raises CaveError when the value is no string that can be replaced alone.
    """
    found = locate(document, path)
    if found is None:
        return None
    _mapping, _key, value = found
    if not isinstance(value, yaml.ScalarNode):
        raise CaveError(
            f"the variable {label(path)} is a {_kind(value)}, not a string."
            + (" Name the key of it that holds the token." if isinstance(value, yaml.MappingNode) else "")
        )
    return value


def scalars(document: Document) -> list[VariablePath]:
    """Return the variables that hold a single value, and the keys of those that hold a mapping of such."""
    found: list[VariablePath] = []
    for key, value in document.root.value if document.root is not None else ():
        if key.tag != STRING:
            continue
        if isinstance(value, yaml.ScalarNode):
            found.append((key.value,))
        elif isinstance(value, yaml.MappingNode):
            inner = [(name, item) for name, item in value.value if name.tag == STRING]
            found += [(key.value, name.value) for name, item in inner if isinstance(item, yaml.ScalarNode)]
    return found


def leaves(document: Document) -> list[yaml.ScalarNode]:
    """Return every single value at whatever depth, and every key, each once, in the order in which they stand there."""
    found: dict[int, yaml.ScalarNode] = {}
    seen: set[int] = set()

    def collect(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.ScalarNode):
            found.setdefault(id(node), node)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))
            for item in node.value:
                for child in item if isinstance(item, tuple) else (item,):
                    collect(child)

    collect(document.root)
    return list(found.values())


def vault_strings(document: Document) -> list[str]:
    """Return all vault strings of a file (ciphertext), in the order in which they stand in it."""
    return [node.value for node in leaves(document) if node.tag in VAULT_TAGS]


def locate(document: Document, path: VariablePath) -> tuple[yaml.MappingNode, yaml.Node, yaml.Node] | None:
    """The mapping that holds the variable, its key and its value."""
    if document.root is None:
        return None
    name, *keys = path
    entry = entry_of(document.root, name, (name,))
    if entry is None or not keys:
        return None if entry is None else (document.root, *entry)
    mapping = entry[1]
    if _is_empty(mapping):
        return None
    if not isinstance(mapping, yaml.MappingNode):
        raise CaveError(f"the variable {name} is a {_kind(mapping)}, not a mapping of keys to tokens.")
    inner = entry_of(mapping, keys[0], path)
    return None if inner is None else (mapping, *inner)


def entry_of(mapping: yaml.MappingNode, name: str, path: VariablePath) -> tuple[yaml.Node, yaml.Node] | None:
    if any(key.tag == _MERGE for key, _value in mapping.value):
        raise CaveError(
            f"the mapping that holds {label(path)} has a merge key (<<), which may set it too. "
            "Write the merged variables out, or keep this variable in a file of its own."
        )
    entries = [(key, value) for key, value in mapping.value if key.tag == STRING and key.value == name]
    if not entries:
        return None
    if len(entries) > 1:
        lines = " and ".join(str(key.start_mark.line + 1) for key, _value in entries)
        raise CaveError(f"{label(path)} is set more than once, in lines {lines}. Leave one of them.")
    key, value = entries[0]
    if getattr(key, "shared", False) or getattr(value, "shared", False):
        raise CaveError(
            f"{label(path)} in line {key.start_mark.line + 1} has an anchor or an alias (& or *), so a change would "
            "reach further than this variable. Write the value out."
        )
    return key, value


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL and not node.value


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "mapping"
    if isinstance(node, yaml.SequenceNode):
        return "list"
    return "vault string" if node.tag in VAULT_TAGS else "single value"
