# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a startup file sets CLOUD_VOLUME_DIR to, read and never run: a pure function of the file's text.

The answer is a value that is certain, or that it cannot be known without running the file. Whatever is not understood
in a command that concerns the variable makes the answer unclear.
"""

from __future__ import annotations

import itertools
import re
from typing import Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_commands import (
    Command,
    closing_double,
    commands_in,
)
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    CSH,
    ELVISH,
    FISH,
    FISH_VARIABLES,
    JSON,
    NUSHELL,
    PAM,
    PLAIN,
    POWERSHELL,
    PYTHON,
    SHELL,
    UNIT,
    VARIABLE,
    XONSH,
    R,
)

_MOST_CHARACTERS = 262_144


class Setting(NamedTuple):
    """What a file does to the variable."""

    value: str | None
    """None: it cannot be known. Empty: the variable is taken away."""
    line: int
    """Number of the line that decides."""


class _Unclear(Exception):  # noqa: N818 (not an error: an answer)
    """What a word becomes is not certain."""


def setting(text: str, language: str, known: Mapping[str, str]) -> Setting | None:
    """Return what a startup file sets the variable to; None where it leaves it alone.

    Args:
        text: of the file.
        language: of the file.
        known: the variables whose values are certain, such as HOME and USER.
    """
    if VARIABLE not in text:
        return None
    if len(text) > _MOST_CHARACTERS:
        return Setting(None, 1)
    if language in _LITERAL:
        return _literal(text, _LITERAL[language])
    reader = _Reader(language, known)
    for command in commands_in(text, language):
        if language != PLAIN and command.is_certain and command.words[0] in ("return", "exit"):
            break
        reader.take(command)
    return reader.result()


_END = r"[ \t]*(?:#[^\n]*)?$"
"""A pattern: the rest of a line in which nothing follows."""
_LITERAL = {
    R: re.compile(
        rf"""^(?:invisible\()?Sys\.setenv\([^#\n]*?\b{VARIABLE}\s*=\s*(["'])(?P<value>[^"'\\\n]*)\1""", re.MULTILINE
    ),
    FISH_VARIABLES: re.compile(
        rf"^SETUVAR (?:--\w+ )*--export (?:--\w+ )*{VARIABLE}:(?P<value>[^\\\n]*)$", re.MULTILINE
    ),
    PAM: re.compile(rf"""^[ \t]*{VARIABLE}[ \t]+DEFAULT=("?)(?P<value>[^"\s@$\\]*)\1[ \t]*$""", re.MULTILINE),
    JSON: re.compile(rf"""^(?![ \t]*//)[^\n]*?"{VARIABLE}"\s*:\s*"(?P<value>[^"\\$%\n]*)\"""", re.MULTILINE),
    PYTHON: re.compile(
        rf"""^(?:import os;[ \t]*)?os\.environ(\[|\.setdefault\()(["']){VARIABLE}\2(\][ \t]*=|,)[ \t]*"""
        r"""(["'])(?P<value>[^"'\\\n]*)\4\)?[ \t]*$""",
        re.MULTILINE,
    ),
    UNIT: re.compile(
        rf"""^[ \t]*(Default)?Environment=(.*[ \t])?(["']?){VARIABLE}=(?P<value>[^"'\s%$\\]*)\3([ \t].*)?$""",
        re.MULTILINE,
    ),
    # What is not indented runs in any case.
    NUSHELL: re.compile(rf"""^\$env\.{VARIABLE}[ \t]*=[ \t]*(["'])(?P<value>[^"'\\\n]*)\1{_END}""", re.MULTILINE),
    XONSH: re.compile(rf"""^\${VARIABLE}[ \t]*=[ \t]*(["'])(?P<value>[^"'\\$\n]*)\1{_END}""", re.MULTILINE),
    POWERSHELL: re.compile(
        rf"""^(?:\$(?i:env):{VARIABLE}[ \t]*="""
        rf"""|\[(?:System\.)?Environment\]::SetEnvironmentVariable\((["']){VARIABLE}\1,)"""
        rf"""[ \t]*(["'])(?P<value>[^"'`$\n]*)\2\)?;?{_END}""",
        re.MULTILINE,
    ),
    ELVISH: re.compile(
        rf"""^(?:set-env[ \t]+{VARIABLE}[ \t]|set[ \t]+E:{VARIABLE}[ \t]+=)[ \t]*(["']?)(?P<value>[\w/.-]*)\1{_END}""",
        re.MULTILINE,
    ),
}


_COMMENTS = ("#", "//", ";")


def _literal(text: str, assignment: re.Pattern[str]) -> Setting | None:
    """Return what the last literal assignment says, where nothing else in the file is about the variable."""
    lines = [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if VARIABLE in line and not line.lstrip().startswith(_COMMENTS)
    ]
    matches = list(assignment.finditer(text))
    if not lines:
        return None
    # Empty: the programs take the current folder.
    return Setting(matches[-1]["value"] or None if len(matches) == len(lines) else None, lines[-1])


# From commands to the value -------------------------------------------------------------------------------------------

_EXPORTERS = ("export", "declare", "typeset", "readonly", "local")
_SPECIAL = (*_EXPORTERS, "eval", ".", "source", "exec", "set", "unset", "trap", "return", "exit", ":")
"""Commands for which a variable set in front of them may stay."""
_HARMLESS = ("echo", "printf", "env", "test", "[", "[[", "mkdir", "ls", "cd", "alias", "return", "exit")
_RUNNING_OTHERS = (".", "source", "eval")
"""Commands that may set any variable."""
_STEADY = {"HOME", "USER", "LOGNAME", VARIABLE}
"""Variables that no file is expected to set by the way, and the one whose settings are followed by themselves."""
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=(.*)", re.DOTALL)
_NAMED = re.compile(r"""["']?([A-Za-z_][A-Za-z0-9_]*)(?:\+?=|["']?$)""")


class _Reader:
    """Follows the commands of a file one by one."""

    def __init__(self, language: str, known: Mapping[str, str]) -> None:
        self.language = language
        self.values: dict[str, str | None] = dict(known)
        """Variables whose value is known; None: set, and it is not known to what."""
        self.exported = language == PLAIN
        self.all_exported = False
        self.found: Setting | None = None

    def result(self) -> Setting | None:
        if self.found is not None and self.found.value and not self.exported:
            return Setting(None, self.found.line)  # programs do not see it, unless something else exports it
        return self.found

    def take(self, command: Command) -> None:
        words = command.words
        concerns = any(_may_set(word) for word in words)
        if self.language == SHELL and words[0] == "set" and len(words) > 1 and "a" in words[1]:
            self.all_exported = command.is_certain and words[1].startswith("-")
        if words[0] in _RUNNING_OTHERS:
            self.values.update(dict.fromkeys(set(self.values) - _STEADY))
        if any(_names_it(word) for word in words):
            self._set(None, command.line)
        if not command.is_certain:
            self._doubt(words)
            if concerns and not _is_harmless(words):
                self._set(None, command.line)
            return
        try:
            self._run(words, command.line, concerns)
        except _Unclear:
            self._set(None, command.line)

    def _doubt(self, words: list[str]) -> None:
        """Forget what a command would set that may or may not run, or whose words are only names to us: ``read S``."""
        for word in words:
            match = _NAMED.match(word)
            if match:
                self.values[match.group(1)] = None

    def _run(self, words: list[str], line: int, concerns: bool) -> None:
        if self.language == FISH and words[0] == "set":
            self._fish_set(words[1:], line)
        elif self.language == CSH and words[0] in ("setenv", "unsetenv"):
            self._set_environment(words, line)
        elif self.language in (SHELL, PLAIN) and all(_ASSIGNMENT.match(word) for word in words):
            for word in words:
                self._assign(*self._assigned(word), line)
        elif self.language in (SHELL, FISH) and words[0] in _EXPORTERS:
            self._declare(words, line)
        elif self.language == SHELL and words[0] == "unset":
            if VARIABLE in words[1:]:
                self._set("", line)
                self.exported = False
            elif concerns:
                raise _Unclear
            for word in words[1:]:
                self.values[word] = None
        elif concerns and not _is_harmless(words) and not (self.language == SHELL and _is_for_one_command(words)):
            raise _Unclear
        elif not _is_harmless(words):
            rest = list(itertools.dropwhile(_ASSIGNMENT.match, words))
            self._doubt(words if not rest or rest[0] in _SPECIAL else rest)

    def _set(self, value: str | None, line: int) -> None:
        self.values[VARIABLE] = value
        self.found = Setting(value, line)

    def _assign(self, name: str, value: str | None, line: int) -> None:
        if name != VARIABLE:
            self.values[name] = value
            return
        self.exported = self.exported or self.all_exported
        self._set(value or None, line)  # empty: the programs take the current folder

    def _assigned(self, word: str) -> tuple[str, str | None]:
        """Return the name in an assignment, and the value that it gets; None where that is not certain."""
        match = _ASSIGNMENT.match(word)
        if match is None:
            if _may_set(word):
                raise _Unclear
            return "", None
        name, is_more, raw = match.groups()
        try:
            value = self._expanded(raw)
        except _Unclear:
            return name, None
        before = self.values.get(name) if is_more else ""
        return name, None if before is None else before + value

    def _declare(self, words: list[str], line: int) -> None:
        options = [word for word in words[1:] if word.startswith("-")]
        exports = words[0] == "export" or any("x" in option for option in options)
        if any(option not in ("-x", "-gx", "-xg", "--") for option in options):
            self._doubt(words)
            if any(map(_may_set, words)):
                raise _Unclear
            return
        # All values are made before the first is assigned.
        assigned = [self._assigned(word) for word in words[1:] if word != VARIABLE and word not in options]
        if exports and (VARIABLE in words or VARIABLE in dict(assigned)):
            self.exported = True
        for name, value in assigned:
            self._assign(name, value, line)

    def _fish_set(self, words: list[str], line: int) -> None:
        options = [word for word in words if word.startswith("-")]
        rest = words[len(options) :]
        if rest[:1] != [VARIABLE]:
            if any(map(_may_set, words)):
                raise _Unclear
            self.values.update(dict.fromkeys(rest[:1]))
            return
        long = {option for option in options if option.startswith("--")}
        short = set("".join(option[1:] for option in options if option not in long))
        if "q" in short or "--query" in long:
            return
        if "e" in short or "--erase" in long:
            self._set("", line)
            return
        self.exported = "x" in short or "--export" in long
        if len(rest) != 2 or short - set("gxU") or long - {"--global", "--universal", "--export"}:
            raise _Unclear
        self._set(self._expanded(rest[1]) or None, line)

    def _set_environment(self, words: list[str], line: int) -> None:
        if words[1:2] != [VARIABLE]:
            if len(words) > 1:
                self.values[words[1]] = None
            return
        self.exported = True
        if words[0] == "unsetenv":
            self._set("", line)
        elif len(words) == 3:
            self._set(self._expanded(words[2]) or None, line)
        else:
            raise _Unclear

    # Words ------------------------------------------------------------------------------------------------------------

    def _expanded(self, raw: str) -> str:
        """Return what a word becomes.

        Raises:
            _Unclear: that is not certain.
        """
        if self.language == PLAIN and len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"":
            if raw[0] == "'" and not set(raw[1:-1]) & set("'\\$"):
                return raw[1:-1]
            raw = raw[1:-1]
        if raw == "~" or raw.startswith("~/"):
            if self.language == PLAIN:
                raise _Unclear
            return self._parts(raw[1:], start=self._value("HOME"))
        return self._parts(raw)

    def _parts(self, raw: str, start: str = "") -> str:
        result, position = start, 0
        while position < len(raw):
            character = raw[position]
            if character == "'" and self.language != PLAIN:
                stop = raw.find("'", position + 1)
                inner = raw[position + 1 : stop]
                if stop < 0 or (self.language != SHELL and "\\" in inner):
                    raise _Unclear
                result, position = result + inner, stop + 1
            elif character == '"' and self.language != PLAIN:
                stop = closing_double(raw, position + 1)
                if stop < 0:
                    raise _Unclear
                result, position = result + self._inner(raw[position + 1 : stop - 1], quoted=True), stop
            else:
                stop = next((at for at in range(position, len(raw)) if raw[at] in "'\""), len(raw))
                stop = len(raw) if self.language == PLAIN else stop
                result, position = result + self._inner(raw[position:stop], quoted=False), stop
        return result

    def _inner(self, raw: str, quoted: bool) -> str:
        """Return what a piece without quotation marks becomes."""
        doubtful = "\\`" + ("@" if self.language == PLAIN else "" if quoted else "~*?[]{}()<>;&|")
        doubtful += "#" if self.language == CSH and not quoted else ""  # a comment, also within a word
        result, position = "", 0
        while position < len(raw):
            match = _REFERENCE.match(raw, position)
            if match:
                value = self._reference(match)
                if match["name"] and self.language in (SHELL, CSH) and _MODIFIER.match(raw, match.end()):
                    raise _Unclear  # the head of a path in csh and zsh, and itself in others
                if not quoted and re.search(r"[\s*?\[\]]", value):
                    raise _Unclear  # some shells split it up
                result, position = result + value, match.end()
            elif raw[position] == "$" or raw[position] in doubtful:
                raise _Unclear
            else:
                result, position = result + raw[position], position + 1
        return result

    def _reference(self, match: re.Match[str]) -> str:
        name = match.group("name") or match.group("braced")
        if name is None:  # $(whoami)
            return self._value("USER")
        if self.language == CSH:
            name = {"user": "USER", "home": "HOME"}.get(name, name)
        default = match.group("default")
        if default is not None:
            if self.language in (FISH, CSH):
                raise _Unclear
            return self._value(name) or self._parts(default)
        return self._value(name)

    def _value(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            raise _Unclear
        return value


_MODIFIER = re.compile(r":[A-Za-z&]")
_ITS_NAME = re.compile(rf"""[A-Za-z_][A-Za-z0-9_]*=["']?{VARIABLE}["']?""")
_SETS_BY_THE_WAY = re.compile(rf"\$\{{{VARIABLE}:?=")
_REFERENCE = re.compile(
    r"""\$(?P<name>[A-Za-z_][A-Za-z0-9_]*) (?!\[)
      | \$\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[A-Za-z0-9_/.$~-]*))?\}
      | \$\((whoami|id\ -un|id\ -nu)\) | `(whoami|id\ -un|id\ -nu)`""",
    re.VERBOSE,
)


def _is_harmless(words: list[str]) -> bool:
    """Return whether a command leaves variables alone, whatever its words are."""
    return words[0] in _HARMLESS and "-v" not in words and not any(_SETS_BY_THE_WAY.search(word) for word in words)


def _is_for_one_command(words: list[str]) -> bool:
    """Return whether words set variables for the command behind them alone."""
    rest = list(itertools.dropwhile(_ASSIGNMENT.match, words))
    return bool(rest) and rest[0] not in _SPECIAL and not any(map(_may_set, rest))


def _may_set(word: str) -> bool:
    """Return whether a word may set the variable, other than by reading it."""
    rest = word.replace(f"${VARIABLE}", "").replace(f"${{{VARIABLE}}}", "")
    return VARIABLE in rest


def _names_it(word: str) -> bool:
    """Return whether another variable gets the name of this one, through which it may be set: ``export $V=/a``."""
    return bool(_ITS_NAME.fullmatch(word))
