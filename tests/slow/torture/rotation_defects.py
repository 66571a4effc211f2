# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Defects to put into what a rotation decides: random labs have to find each of them.

python -m torture.rotation_defects NAME STEPS SEED
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import rotation_labs

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation import decide, holders


class Defect(NamedTuple):
    """A text of ``_rotation/decide.py`` or ``holders.py``, and what to put in its place."""

    found: str
    instead: str


DEFECTS = {
    "forget hosts that are off and have a newer token of the person by the variables": Defect(
        "if any(item.token in tokens for item in lists[entry] or ())", "if not tokens"
    ),
    "revoke while a file that may not be written has it": Defect(
        '    found += [Blocker("", place) for token in sorted(old) for place in inventory.fixed.get(token, ())]\n', ""
    ),
    "take hosts for done that were not proven": Defect(
        "        and not _has(found, entry, rotation.new)\n", "        and False\n"
    ),
    "revoke though a host is off": Defect(
        "        elif host in suspects:\n            found.append(Blocker(host, what))\n", ""
    ),
    "revoke though an account cannot be looked at": Defect(
        "        if entry.host == host and entry.user in found.failed\n    ]\n    return",
        "        if False\n    ]\n    return",
    ),
    "revoke while the vault still has it": Defect(
        "    if not request.own_store:\n        found += [",
        "    if not request.own_store and False:\n        found += [",
    ),
    "ignore hosts outside of the limit": Defect(
        "        if host in request.give_up:\n            continue\n        if isinstance(what, Seen):",
        "        if host in request.give_up or host not in request.hosts:\n            continue\n"
        "        if isinstance(what, Seen):",
    ),
    "forget other keys": Defect(
        "for item in found.places if item.token in old]",
        'for item in found.places if item.token in old and item.key == "token"]',
    ),
    "forget other accounts": Defect(
        "for item in found.places if item.token in old]",
        "for item in found.places if item.token in old and item.user in rotation.users]",
    ),
    "revoke for each entry: believe what the first account of a host has": Defect(
        "    if holding:\n        return holding\n    without = [",
        "    if holding[:0]:\n        return holding\n    without = [",
    ),
    "make before looking for a place to keep it": Defect(
        "        refusal = _store_refusal(rotation, inventory, request)\n", '        refusal = ""\n'
    ),
    "make though no host could get it": Defect(" or _nobody_gets_it(rotation, known)", ""),
    "make though no account of a host that is on could get it": Defect(
        "not all(blocker.reason for", "not all(known.seen.get(blocker.host) == blocker.reason for"
    ),
    "make though none of those that get it first could save it": Defect(
        "meant.canaries if known.accounts[meant.source].two_live else meant.hosts",
        "() if known.accounts[meant.source].two_live else meant.hosts",
    ),
    "make where a holder is outside of the run": Defect("    if outside:\n", "    if False:\n"),
    "make where a holder is off, on a server that kills the old one": Defect(
        '    if not gone:\n        return ""\n', '    if True:\n        return ""\n'
    ),
    "do not ask whether two tokens can live": Defect("    if account.two_live:\n", "    if True:\n"),
    "make another one where one was made and not stored": Defect("    if made is not None:\n", "    if False:\n"),
    "make another one when the old one is still alive": Defect("    if before and same:\n", "    if False:\n"),
    "forget that the rotation of this name is over": Defect(
        "if same and (earlier or request.name or account.now", "if same and (earlier or account.now"
    ),
    "take the entries of a half-written vault for two tokens": Defect(
        "                older[token] = replaced\n", "                pass\n"
    ),
    "rotate people who were not named": Defect(
        "        if in_run and (not request.users or any(entry.user in request.users for entry in wanted)):\n",
        "        if in_run:\n",
    ),
    "let a cutover go through the steps of an overlap": Defect(
        '    if request.strategy == "cutover":\n        old =', '    if request.strategy == "never":\n        old ='
    ),
    "forget what a rotation of another name replaced, and could not revoke": Defect(
        "(*earlier, *before, own)))", "(*earlier, own)))"
    ),
    "forget it where the new token was made and not stored": Defect(
        "(*earlier, *before, own, *between)", "(*earlier, own, *between)"
    ),
    "forget what the token before the last one replaced": Defect("        last = before\n", "        break\n"),
    "revoke what was to be kept": Defect(
        '    if request.revoke == "never":\n        rotation = replace(rotation, old=())\n', ""
    ),
}


DEPARTURES = {
    "revoke what accounts that lose a newer token may have": Defect(
        "for entry in kin(rotation, known) if entry not in mine)",
        "for entry in kin(rotation, known) if entry not in gone)",
    ),
    "forget the person's other tokens when one is taken off": Defect(
        "replace(rotation, kin=tuple(entry for entry in kin(rotation, known) if entry not in mine))", "rotation"
    ),
}
"""Those of taking tokens off hosts, and revoking them."""


def put_in(name: str) -> None:
    """Put a defect into what rotations decide, in this process."""
    defect = {**DEFECTS, **DEPARTURES}[name]
    modules = {module: Path(module.__file__ or "").read_text(encoding="utf-8") for module in (decide, holders)}
    [module] = [module for module, source in modules.items() if defect.found in source]
    source = modules[module]
    if source.count(defect.found) != 1:
        raise ValueError(f"{name}: the text of the defect is there more than once")
    exec(compile(source.replace(defect.found, defect.instead), str(module.__file__), "exec"), module.__dict__)  # noqa: S102 (that is how a module is run)


if __name__ == "__main__":
    put_in(sys.argv[1])
    labs = rotation_labs.Departures if sys.argv[1] in DEPARTURES else rotation_labs.Rotations
    try:
        rotation_labs.search(int(sys.argv[2]), int(sys.argv[3]), shrink=False, labs=labs)
    finally:
        print(rotation_labs.Rotations.taken, "steps")
