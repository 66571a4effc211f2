# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands in a startup file: what each consists of, and whether it is certain to run."""

from __future__ import annotations

import re
from typing import Iterator, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    CSH,
    FISH,
    PLAIN,
    SHELL,
    VARIABLE,
)


class Command(NamedTuple):
    """A simple command: its words as they are written, whether it is certain to run, and what ends it."""

    words: list[str]
    line: int
    is_certain: bool
    separator: str = ""


_OPENING = {
    SHELL: {"if", "case", "for", "while", "until", "select", "{"},
    FISH: {"if", "for", "while", "switch", "function", "begin"},
    CSH: {"foreach", "while", "switch", "then"},
    PLAIN: set(),
}
_CLOSING = {SHELL: {"fi", "esac", "done", "}"}, FISH: {"end"}, CSH: {"endif", "end", "endsw"}, PLAIN: set()}
_CONDITIONAL = {SHELL: {"!", "then", "else", "elif", "do"}, FISH: {"and", "or", "not", "else"}, CSH: {"if", "else"}}
_LEXEME = re.compile(
    r"""(?P<space>[ \t]+|\\\n|\#[^\n]*)|(?P<line>\n)|(?P<redirection><<|[<>])|(?P<operator>&&|\|\||;;|[;&|()])
      |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
"""What a command begins with, and what stands between words: a ``#`` there begins a comment."""


def _simple_commands(text: str, language: str) -> Iterator[Command]:
    """Yield the simple commands of a text. One that cannot be split up is a command that is not certain."""
    if language == PLAIN:
        for number, content in enumerate(text.split("\n"), 1):
            if content.strip() and not content.lstrip().startswith("#"):
                yield Command([content.strip()], number, is_certain=True)
        return
    words: list[str] = []
    blocks = brackets = position = 0
    line, before = 1, ""

    def command(separator: str) -> Iterator[Command]:
        """Yield what the words so far are, up to a separator."""
        nonlocal blocks, before
        if words:
            first = words[0]
            blocks = max(0, blocks - (first in _CLOSING[language]))
            opens = first in _OPENING[language] or (first == "function" and "{" in words)
            is_joined = before in ("&&", "||", "|", "(", ")") or separator in ("|", "&", "(")
            in_block = blocks or brackets or opens or first in _CONDITIONAL.get(language, ())
            yield Command(list(words), line, not in_block and not is_joined, separator)
            blocks += opens
            words.clear()
        before = separator

    while position < len(text):
        match = _LEXEME.match(text, position)
        if match is None:  # its last alternative takes any character
            return
        kind, lexeme = match.lastgroup, match.group()
        if kind == "other":
            stop = _end_of_word(text, position, language)
            if stop < 0:  # a quotation that does not end: what follows is in doubt
                words.append(text[position:])
                yield from command("(")
                return
            words.append(text[position:stop])
            position = stop
        else:
            position = match.end()
        if kind == "operator":
            words += ["("] if lexeme == "(" else []
            yield from command(lexeme)
            brackets = max(0, brackets + (lexeme == "(") - (lexeme == ")"))
        elif kind == "line":
            yield from command("")
        elif kind == "redirection":
            words.append(lexeme)
            if lexeme == "<<" and VARIABLE in text[position:]:  # its end is not looked for
                words.append(f"{VARIABLE}=")
                yield from command("(")
                return
        line = text.count("\n", 0, position) + 1
    yield from command("")


def commands_in(text: str, language: str) -> list[Command]:
    """Return the simple commands of a text; what goes on in the background (``a && b &``) is not certain."""
    commands = list(_simple_commands(text, language))
    in_background = False
    for number in range(len(commands) - 1, -1, -1):
        in_background = commands[number].separator in (("&", "&&", "||", "|") if in_background else ("&",))
        if in_background:
            commands[number] = commands[number]._replace(is_certain=False)
    return commands


def _end_of_word(text: str, position: int, language: str) -> int:
    """Return where the word that begins at a position ends; -1 where a quotation or substitution in it does not."""
    while position < len(text) and text[position] not in " \t\n;&|()<>":
        character = text[position]
        if character == "\\":
            position += 2
        elif text.startswith("$'", position) or (character == "'" and language == FISH):
            position = _closing(text, position + 1 + (character == "$"), "'", escapes=True)
        elif character == "'":
            position = _closing(text, position + 1, "'")
        elif character == '"':
            position = closing_double(text, position + 1)
        elif character == "`":
            position = _closing(text, position + 1, "`")
        elif text.startswith(("$(", "${"), position):
            position = _closing_bracket(text, position + 1)
        else:
            position += 1
        if position < 0:
            return -1
    return min(position, len(text))


def _closing(text: str, position: int, mark: str, *, escapes: bool = False) -> int:
    """Return the place behind the next mark; -1 where there is none."""
    while position < len(text):
        if escapes and text[position] == "\\":
            position += 1
        elif text[position] == mark:
            return position + 1
        position += 1
    return -1


def closing_double(text: str, position: int) -> int:
    """Return the place behind the double quotation mark that closes; -1 where there is none."""
    while 0 <= position < len(text):
        if text[position] == '"':
            return position + 1
        if text[position] == "`":
            position = _closing(text, position + 1, "`", escapes=True)
        elif text.startswith(("$(", "${"), position):
            position = _closing_bracket(text, position + 1)
        else:
            position += 1 + (text[position] == "\\")
    return -1


def _closing_bracket(text: str, position: int) -> int:
    """Return where a substitution ends whose bracket opens at a position."""
    depth = 0
    opening, closing = ("(", ")") if text[position] == "(" else ("{", "}")
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character in "'\"`":
            position = _closing(text, position + 1, character)
            if position < 0:
                return -1
            continue
        depth += (character == opening) - (character == closing)
        position += 1
        if depth == 0:
            return position
    return -1
