# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All hiding of secrets: among the arguments of a task by its argument spec, and in text by what looks like one."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Callable, Collection, Iterable, Mapping, Optional, Sequence

HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
PART_HIDDEN = "********"

_HEX_TOKEN = re.compile(r"[0-9a-fA-F]{32,}")
_TOKENS_IN_TEXT = (
    _HEX_TOKEN,  # what middle_auth makes
    re.compile(r"[A-Za-z0-9+/_-]{42,43}={1,2}"),  # 32 bytes in base64
    re.compile(r"(?<=\bBearer )[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE),
    re.compile(r"(?<=token=)[A-Za-z0-9._~+/=%-]{16,}", re.IGNORECASE),
)
_WORDS = re.compile(r"[\s,;'\"{}\[\]()]+|(?<=\w)=(?=\w)|(?<=\w):(?=\s)")
# Not a part of a path, of a name or of a longer number; a word that ends may be followed by a dot.
_TOKEN = re.compile(r"(?<![\w./+~-])(?:[0-9A-Fa-f]{32}|eyJ[\w-]+\.[\w-]+\.[\w-]*)(?![\w/-]|\.\w)")
_RANDOM = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_SYMBOLS = re.compile(r"[^A-Za-z0-9]")
_KINDS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
# Shorter strings are no tokens, and to hide them would make messages unreadable.
_MAY_BE_A_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{8,}=*")
_LONGEST_MISTAKE = 16  # characters of a mistyped number or choice that is quoted in an error
_SECRET_KEYS = frozenset(("token", "tokens", "password", "secret"))
# A name, a colon and no port: then everything up to the last @ may be the password.
_CREDENTIALS = re.compile(r"(\w://)(?:[^/\s:@]*:(?!\d*(?:[/\s?#'\"]|$))\S*|[^/\s]*)@")
_OF_ADDRESSES = ("server", "servers", "datastacks", "local_servers", "tokens", "expected", "users")
"""Options with addresses that no user name belongs in."""
_OF_PACKAGES = ("find_links", "packages", "constraints", "version", "extras", "python", "path", "interpreter")
"""Options that an installer gets, or in whose place such an address was typed."""
_SURROGATE = re.compile("[\ud800-\udfff]")

_ANYTHING: Mapping[str, Any] = {"type": "raw"}

Option = Optional[Mapping[str, Any]]
"""An option of an argument spec; None: the spec has no place for the value."""
Visit = Callable[[Any, Option, str], Any]


# Text -----------------------------------------------------------------------------------------------------------------


def fingerprint(token: str) -> str:
    """Return the first 8 hex digits of the token's SHA-256: enough to compare two tokens, too little to use one."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def mask(text: str, tokens: Iterable[str]) -> str:
    """Return ``text`` with every one of ``tokens`` replaced by its fingerprint in angle brackets."""
    for token in sorted({token for token in tokens if token and token in text}, key=len, reverse=True):
        text = text.replace(token, f"<token {fingerprint(token)}>")
    return text


def mask_token_like(text: str) -> str:
    """Return ``text`` with everything that looks like a token replaced by its fingerprint in angle brackets."""
    for pattern in _TOKENS_IN_TEXT:
        text = pattern.sub(lambda match: f"<token {fingerprint(match.group())}>", text)
    return text


def is_hex_token(text: str) -> bool:
    """Return whether ``mask_token_like`` finds a token by itself."""
    return bool(_HEX_TOKEN.fullmatch(text))


def mask_credentials(text: str, urls: Iterable[str] = ()) -> str:
    """Return ``text`` without the user name and password of every URL in it, also where these hold ``@`` or ``/``.

    Args:
        text: what a tool printed.
        urls: addresses that were given to it. What stands in them before the last ``@`` is hidden also where a tool
            writes it in another way.
    """
    for url in urls:
        for secret in _credentials(url):
            text = text.replace(secret, PART_HIDDEN)
    return _CREDENTIALS.sub(rf"\1{PART_HIDDEN}@", text)


def _credentials(url: str) -> list[str]:
    """Return what is secret in a URL in all its spellings, the longest first."""
    from urllib.parse import quote, unquote  # only here, since few modules deal with such URLs

    rest = url.partition("://")[2]
    authority = rest.partition("/")[0]
    # A slash in a password ends the authority too early; what would then be a host has a port that is no number.
    host_has_port = re.fullmatch(r"(\[[^]]*\]|[^:@]*)(:\d*)?", authority)
    if "@" not in rest or ("@" not in authority and host_has_port):
        return []
    whole = (authority if "@" in authority else rest).rpartition("@")[0]
    user, _colon, password = whole.partition(":")
    found = {whole}
    for secret in (password, user if len(user) >= 8 or not password else ""):
        if len(secret) >= 3:
            found |= {secret, unquote(secret), quote(secret, safe=""), quote(unquote(secret), safe="")}
    return sorted(found, key=len, reverse=True)


def looks_like_a_token(text: str) -> bool:
    """Return whether one of the words of ``text`` is so much like a token that it is not shown.

    32 hex digits, a JWT, or 40 and more random characters. A path, a URL and a long name are none.
    """
    return bool(_TOKEN.search(text)) or any(map(_is_random, _WORDS.split(text)))


def _is_random(word: str) -> bool:
    if not _RANDOM.fullmatch(word) or (word[0] in "/~." and word[-1] != "="):
        return False
    # Of random base64, two in three characters are of another kind than the one before; of words, few are.
    return len(_KINDS.findall(_SYMBOLS.sub("", word))) >= 0.3 * len(word)


# Arguments ------------------------------------------------------------------------------------------------------------


def walk(params: Mapping[str, Any], spec: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
    """Return a copy of a task's or module's arguments in which ``visit`` has replaced every value that is not a list.

    Args:
        params: the arguments.
        spec: the ``argument_spec``.
        visit: gets a value, its option (None: the spec has no place for it) and where it stands.
    """
    known = {"type": "dict", "options": spec}
    told = {name: value for name, value in params.items() if not str(name).startswith("_ansible_")}
    walked: dict[str, Any] = _walk(told, known, "", visit)
    return walked


def _walk(value: Any, option: Option, where: str, visit: Visit) -> Any:
    if isinstance(value, Mapping):
        options = (option or {}).get("options") or {}
        copy = {}
        for key, inner in value.items():
            is_known = key in options
            place = f"{where}.{key}".strip(".") if is_known else where
            # A key may be a token as well, and so may the name of an option.
            name = key if is_known or not isinstance(key, str) else visit(key, _ANYTHING, where)
            copy[name] = _walk(inner, _option_inside(option, key), place, visit)
        return copy
    if isinstance(value, (list, tuple)):
        if option is not None and not option.get("no_log"):
            is_list = option.get("type") in ("list", "raw")
            option = {**option, "type": option.get("elements", "raw")} if is_list else None
        return [_walk(item, option, f"{where}[{number}]", visit) for number, item in enumerate(value, 1)]
    if value is None or isinstance(value, bool):
        return value
    if option is not None and option.get("options") and not option.get("no_log"):
        option = None
    return visit(value, option, where)


def _option_inside(option: Option, key: object) -> Option:
    """Return the option for the value of ``key`` in a mapping that stands where ``option`` does."""
    if option is None or option.get("no_log"):
        return option
    if option.get("options"):
        return option["options"].get(key) if option.get("type") == "dict" else None
    is_open = option.get("type") in ("dict", "raw") and str(key).lower() not in _SECRET_KEYS
    return _ANYTHING if is_open else None


def secrets_among(params: Mapping[str, Any], spec: Mapping[str, Any]) -> set[str]:
    """Return what stands in the options that an argument spec marks with ``no_log``."""
    return _collect(params, spec, lambda text, option: [text] if option is not None and option.get("no_log") else [])


def strings_out_of_place(params: Mapping[str, Any], spec: Mapping[str, Any]) -> set[str]:
    """Return the strings that may be tokens among arguments for which the argument spec has no place."""

    def parts(text: str, option: Option) -> Sequence[str]:
        # Parts of strings too, for AnsibleModule makes a mapping of a string that looks like one.
        if option is None or (len(text) > _LONGEST_MISTAKE and _is_mistaken(text, option)):
            return _MAY_BE_A_TOKEN.findall(text)
        return ()

    return _collect(params, spec, parts)


def _is_mistaken(text: str, option: Mapping[str, Any]) -> bool:
    if option.get("choices"):
        return text not in option["choices"]
    return option.get("type") in ("int", "float", "bool")


def _collect(
    params: Mapping[str, Any], spec: Mapping[str, Any], parts: Callable[[str, Option], Iterable[str]]
) -> set[str]:
    found: set[str] = set()

    def visit(value: Any, option: Option, _where: str) -> None:
        if isinstance(value, (str, int, float)) and value != "":
            found.update(parts(str(value), option))

    walk(params, spec, visit)
    return found


def shown_arguments(
    params: Mapping[str, Any], spec: Mapping[str, Any], hide: Callable[[Any], Any] = lambda _value: PART_HIDDEN
) -> dict[str, Any]:
    """Return arguments with everything hidden that is ``no_log``, is not in the argument spec or looks like a token.

    Args:
        params: the arguments.
        spec: the ``argument_spec``.
        hide: returns what stands in the place of a value that is not shown.
    """

    def visit(value: Any, option: Option, _where: str) -> Any:
        is_plain = isinstance(value, (str, int, float)) and option is not None and not option.get("no_log")
        is_open = is_plain and not looks_like_a_token(str(value)) and not _CREDENTIALS.search(str(value))
        return value if is_open else hide(value)

    return walk(params, spec, visit)


def misplaced_secret(params: Mapping[str, Any], spec: Mapping[str, Any], known: Collection[str] = ()) -> str:
    """Return what is wrong with the place of a value among arguments, without the value; empty when nothing is.

    A token in an option that is not for tokens is refused before anything logs or prints it. What is wrong with an
    unknown option is Ansible's to say.

    Args:
        params: the arguments.
        spec: the ``argument_spec``.
        known: names of hosts, which may look like tokens.
    """
    complaints = []

    def visit(value: Any, option: Option, where: str) -> None:
        top = re.split(r"[.\[]", where)[0]
        place = where or "The name of an option"
        if isinstance(value, str) and _SURROGATE.search(value):
            complaints.append(f"{place} holds a character that is not valid Unicode (half of a surrogate pair).")
        elif option is None:
            if top in spec:
                complaints.append(f"{place} has the wrong form. {_expectation(spec[top])}")
        elif option.get("no_log") or (isinstance(value, str) and value in known):
            return
        elif isinstance(value, (str, int, float)) and looks_like_a_token(str(value)):
            complaints.append(f"{place} looks like a token. Is the token in the wrong place?")
        elif isinstance(value, str) and top in _OF_ADDRESSES and _CREDENTIALS.search(value):
            complaints.append(f"{place} has a user name or password in a URL. Give the address without them.")
        elif isinstance(value, str) and top in _OF_PACKAGES and _CREDENTIALS.search(value):
            remedy = "Put them into the ~/.netrc of the user that installs, or the whole address into index_url."
            complaints.append(f"{place} has a user name or password in a URL, and would be seen in logs. {remedy}")
        elif "." in where and option.get("type") == "str" and not isinstance(value, str):
            complaints.append(f"{place} is not a string. Put it in quotes.")

    walk(params, spec, visit)
    return complaints[0] if complaints else ""


def _expectation(option: Mapping[str, Any]) -> str:
    if option.get("options"):
        kind = "a list of mappings" if option["type"] == "list" else "a mapping"
        return f"Expected {kind} with the keys {', '.join(option['options'])}."
    if "raw" in (option.get("elements"), option["type"]):
        return "A token has no place there. For caveclient_tokens, use the filter connectomics.cave.token_holders."
    kind = {"list": "a list of strings", "str": "a string", "path": "a path"}.get(option["type"], option["type"])
    return f"Expected {kind}."


# Results --------------------------------------------------------------------------------------------------------------


def masked(value: Any, secrets: Collection[str]) -> Any:
    """Return a value in which no string is or holds one of ``secrets``."""
    return _masked(value, sorted(secrets, key=len, reverse=True)) if secrets else value


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _masked(inner, secrets) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(inner, secrets) for inner in value]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    text = str(value)
    if text in secrets:
        return HIDDEN
    for secret in secrets:
        text = text.replace(secret, PART_HIDDEN)
    return value if text == str(value) else text
