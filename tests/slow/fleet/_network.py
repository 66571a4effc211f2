# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One bridge a fleet, one pair of virtual Ethernet devices a host, all set up by one `ip -batch`."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterable

from ._errors import FleetError

FIRST_HOST = 11
SUBNETS = ipaddress.IPv4Network("10.77.0.0/16")
FORWARDING = "net.ipv4.ip_forward"


class Network:
    """The addresses and devices of one fleet.

    Attributes:
        subnet: the network of the fleet.
        gateway: the address of this machine on it: where SSH comes from.
        server: a second address of this machine, for servers that the hosts ask (so that a host can be cut off from
            the server while SSH goes on working).
    """

    def __init__(self, subnet: ipaddress.IPv4Network) -> None:
        self.subnet = subnet
        self.gateway = str(subnet[1])
        self.server = str(subnet[2])
        self.bridge = f"cave{int(subnet.network_address) >> 8:06x}"

    def address(self, number: int) -> str:
        """Return the address of a host, by its number from 1."""
        return str(self.subnet[FIRST_HOST + number - 1])

    def link(self, number: int) -> str:
        """Return this machine's end of the cable to a host, by its number from 1."""
        return f"{self.bridge}.{number}"

    def up(self, owner: str) -> None:
        """Make the bridge; packets to hosts that are not there stay on this machine.

        Args:
            owner: the fleet, which a person who lists network devices may want to know.
        """
        _batch(
            [
                f"link add {self.bridge} type bridge stp_state 0 forward_delay 0",
                f"link set {self.bridge} addrgenmode none alias connectomics-cave-fleet-{owner}",
                f"addr add {self.gateway}/{self.subnet.prefixlen} dev {self.bridge}",
                f"addr add {self.server}/{self.subnet.prefixlen} dev {self.bridge}",
                f"link set {self.bridge} up",
                f"route replace blackhole {self.subnet} metric 9999",
            ]
        )

    def plug_in(self, hosts: Iterable[tuple[int, int]]) -> None:
        """Give hosts their cable: pairs of a host's number and a process in its network namespace."""
        _batch(
            f"link add {self.link(number)} up master {self.bridge} type veth peer name eth0 netns {pid}"
            for number, pid in hosts
        )

    def down(self) -> None:
        """Take the bridge and all cables away; what is gone already is no error."""
        links = [link["ifname"] for link in _links() if link.get("master") == self.bridge]
        if any(link["ifname"] == self.bridge for link in _links()):
            links.append(self.bridge)
        # A cable goes by itself when the host at its other end does, at any time: hence --force.
        _batch((f"link del {link}" for link in links), force=True)
        _batch([f"route del blackhole {self.subnet} metric 9999"], force=True)
        left = [link["ifname"] for link in _links() if link["ifname"].startswith(self.bridge)]
        if left:
            raise FleetError(f"network devices that cannot be removed: {', '.join(left)}")

    def masquerade(self, on: bool) -> None:
        """Let the hosts reach what this machine reaches, in this machine's name; or stop that."""
        for chain, *rule in (
            ("POSTROUTING", "-t", "nat", "-s", str(self.subnet), "!", "-d", str(self.subnet), "-j", "MASQUERADE"),
            ("FORWARD", "-i", self.bridge, "-j", "ACCEPT"),
            ("FORWARD", "-o", self.bridge, "-j", "ACCEPT"),
        ):
            there = _try("iptables", "-w", "-C", chain, *rule)
            if on and not there:
                _run("iptables", "-w", "-I", chain, *rule)
            elif there and not on:
                _run("iptables", "-w", "-D", chain, *rule)


def is_free(subnet: ipaddress.IPv4Network) -> bool:
    """Return whether no route of this machine, and so no fleet either, leads into a subnet."""
    used = [ipaddress.ip_network(route["dst"]) for route in _routes() if route["dst"] != "default"]
    return not any(subnet.overlaps(other) for other in used)


def free_subnet(hosts: int) -> ipaddress.IPv4Network:
    """Return the first subnet that is large enough and that no fleet and no route of this machine uses.

    Raises:
        FleetError: there is none.
    """
    prefix = 24
    while 2 ** (32 - prefix) < FIRST_HOST + hosts + 1:
        prefix -= 1
    for subnet in SUBNETS.subnets(new_prefix=prefix):
        if is_free(subnet):
            return subnet
    raise FleetError(f"no free subnet for {hosts} hosts in {SUBNETS}: take fleets down (nox -s hosts -- down --all)")


def forwarding(value: str | None = None) -> str:
    """Return whether this machine forwards packets ("0" or "1"); set it when a value is given."""
    if value is not None:
        _run("sysctl", "-q", "-w", f"{FORWARDING}={value}")
    return _run("sysctl", "-n", FORWARDING).strip()


def set_link(device: str, *, up: bool) -> None:
    """Switch a network device of this machine on or off."""
    _run("ip", "link", "set", device, "up" if up else "down")


def _links() -> list[dict[str, str]]:
    return list(json.loads(_run("ip", "-json", "link", "show") or "[]"))


def _routes() -> list[dict[str, str]]:
    return list(json.loads(_run("ip", "-json", "-4", "route", "show") or "[]"))


def _batch(lines: Iterable[str], *, force: bool = False) -> None:
    """Run `ip` commands one after the other (at the same time they get into each other's way)."""
    command = ["ip", *(["-force"] if force else []), "-batch", "-"]
    result = subprocess.run(command, input="\n".join([*lines, ""]), capture_output=True, text=True, check=False)
    if result.returncode != 0 and not force:
        raise FleetError(f"ip: {result.stderr.strip()}")


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise FleetError(f"{' '.join(command)}: {result.stderr.strip() or result.returncode}")
    return result.stdout


def _try(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
