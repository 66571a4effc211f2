# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start and stop a fleet from the command line: `nox -s hosts -- --help`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from images.rootfs import RootfsError

from fleet._errors import FleetError
from fleet._fleet import GROUP, PYTHONS, UMASKS, USERS, Fleet, running


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (FleetError, RootfsError) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    return 0


def up(options: argparse.Namespace) -> None:
    """Bring a fleet up, and say how to reach it."""
    fleet = Fleet(
        options.hosts,
        name=options.name,
        pythons=options.pythons,
        users=options.users,
        group=options.group,
        umasks=options.umasks,
    )
    start = time.monotonic()
    fleet.up()
    if options.index:
        fleet.connect_to_index(*(fleet.hosts if options.index == ["all"] else options.index))
    print(f"{len(fleet)} hosts are up after {time.monotonic() - start:.1f} s: {', '.join(_span(fleet))}")
    print(f"  ansible -i {fleet.inventory} all --become -m ansible.builtin.ping")
    print(f"  ssh -F {fleet.ssh_config} {next(iter(fleet)).name}")
    print(f"  servers for the hosts listen on {fleet.server_address}")


def down(options: argparse.Namespace) -> None:
    """Take a fleet down, or all."""
    for name in running() if options.all else [options.name]:
        Fleet(name=name).down()
        print(f"{name} is down")


def status(_options: argparse.Namespace) -> None:
    """Say which fleets are up, and what is wrong with their hosts."""
    for name in running():
        fleet = Fleet.attach(name)
        print(f"{name}: {len(fleet)} hosts in {fleet.network.subnet}: {', '.join(_span(fleet))}")
        for host in fleet:
            if host.faults or not host.alive:
                print(f"  {host.name}: {', '.join(host.faults) if host.alive else 'ended'}")
    if not running():
        print("no fleet is up")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet", description="Real SSH hosts on this machine, for tests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str | None) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=(text or "").splitlines()[0], description=text, formatter_class=argparse.RawTextHelpFormatter
        )
        added.set_defaults(run=function)
        added.add_argument("--name", default="default", help="of the fleet (default: %(default)s)")
        return added

    add = command("up", up, up.__doc__)
    add.add_argument("--hosts", type=int, default=3, metavar="N", help="how many (default: %(default)s)")
    for option, default, text in (
        ("pythons", PYTHONS, "dealt out to the hosts in turn"),
        ("users", USERS, "of every host, besides lab"),
        ("umasks", UMASKS, "dealt out to the hosts in turn"),
        ("index", (), "hosts that reach this machine's package index, or all"),
    ):
        add.add_argument(
            f"--{option}", type=_list, default=default, metavar="A,B", help=f"{text} ({','.join(default)})"
        )
    add.add_argument("--group", default=GROUP, help="of the users (default: %(default)s)")

    take = command("down", down, down.__doc__)
    take.add_argument("--all", action="store_true", help="every fleet of this machine")

    command("status", status, status.__doc__)

    return parser


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _span(fleet: Fleet) -> list[str]:
    names = list(fleet.hosts)
    return names if len(names) < 4 else [names[0], "...", names[-1]]


if __name__ == "__main__":
    sys.exit(main())
