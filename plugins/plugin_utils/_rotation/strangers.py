# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep everybody from getting the token of somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.connectomics.cave.plugins.plugin_utils._rotation.model import (
    Blocker,
    Entry,
    Known,
    Rotation,
    Seen,
)


def without_strangers(rotations: Sequence[Rotation], known: Known) -> list[Rotation]:
    """Keep everybody from getting somebody else's token, as far as it is known whose they are.

    A host's old token says who it was before, as long as the server accepts it; else those of the same user on other
    hosts do. Where none is accepted any more, a token is suspicious whose person is another user already, who did not
    have the same token before.
    """
    seen, accounts = known.seen, known.accounts
    if known.request.other_person:
        return list(rotations)
    owners = [
        (rotation, entry, accounts[rotation.source].person)
        for rotation in rotations
        for entry in rotation.entries
        if accounts[rotation.source].accepted and not entry.absent
    ]
    before: dict[Entry, int] = {}
    held: dict[str, set[str]] = {}
    for _rotation, entry, _person in owners:
        found = seen.get(entry.host)
        if isinstance(found, Seen):
            number = found.persons.get((entry.user, entry.server))
            if number is not None:
                before[entry] = number
            held.setdefault(entry.user, set()).update(
                place.token for place in found.places if (place.user, place.key) == (entry.user, entry.key)
            )
    changed = {}
    for rotation in rotations:
        account = accounts[rotation.source]
        reasons: dict[Entry, str] = {}
        for item, entry, person in owners:
            if item is not rotation or rotation.idle:
                continue
            whose = f"The token for {entry.user} is that of {account.name} (id {person})"
            whose_before = {
                number for other, number in before.items() if (other.user, other.token) == (entry.user, entry.token)
            }
            whose_before = {before[entry]} if entry in before else whose_before
            if whose_before and person not in whose_before:
                ids = ", ".join(str(number) for number in sorted(whose_before))
                reasons[entry] = f"{whose}, and the one that {entry.host} has is of another person (id {ids})."
            elif not whose_before and held.get(entry.user) and rotation.new not in held[entry.user]:
                # Each server counts its people for itself.
                others = {
                    other.user
                    for other_item, other, number in owners
                    if (number, accounts[other_item.source].name) == (person, account.name)
                } - {entry.user}
                twin = next((user for user in sorted(others) if not held[entry.user] & held.get(user, set())), None)
                if twin is not None:
                    reasons[entry] = f"{whose}, who is {twin} on the hosts."
        reasons = {entry: f"{text} Put that person's own token into the vault." for entry, text in reasons.items()}
        changed[rotation.tokens] = rotation
        if reasons and len(reasons) == sum(not entry.absent for entry in rotation.entries):
            refusal = replace(rotation, action="refuse", reason=next(iter(reasons.values())), old=())
            changed[rotation.tokens] = refusal
        elif reasons and rotation.action == "make":
            reason = f"No token was made. {next(iter(reasons.values()))}"
            changed[rotation.tokens] = replace(rotation, action="refuse", reason=reason, old=())
        elif reasons:
            held_up = tuple(Blocker(entry.host, text) for entry, text in reasons.items())
            changed[rotation.tokens] = replace(rotation, withheld=reasons, blockers=(*rotation.blockers, *held_up))
    return list(changed.values())
