# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet: its life from up to down, and its files for SSH and Ansible."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import ipaddress
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from images import rootfs

from . import _index, _network, _processes
from ._errors import FleetError
from ._host import Host
from ._layer import ADMIN, Accounts, write_layer
from ._network import Network

PYTHONS = ("3.9", "3.11", "3.13")
USERS = ("alice", "bob", "carol")
GROUP = "neuro"
UMASKS = ("022", "077")
FORWARDING_NOTE = "forwarding"  # what this machine did with packets for others before the fleet needed it
INIT = Path(__file__).with_name("host_init.sh")
TOOLS = {
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
SSH_CONFIG = """\
Host *
  BatchMode yes
  GlobalKnownHostsFile /dev/null
  HostKeyAlias fleet
  IdentitiesOnly yes
  IdentityFile {folder}/id_ed25519
  StrictHostKeyChecking yes
  User {user}
  UserKnownHostsFile {folder}/known_hosts
"""


class Fleet:
    """Real SSH hosts, each with an sshd as its PID 1, in namespaces of this machine.

    As a context manager it is up inside the block, and belongs to this process: should the process be killed, the next
    fleet that comes up anywhere on the machine takes the remains away. A fleet that is brought up by `up()` alone
    stays until `down()`, also beyond the end of this process.

    Args:
        hosts: how many.
        name: one fleet of a name at a time; one that is up already (and belongs to no living process) is replaced.
        pythons: the Python versions, dealt out to the hosts in turn.
        users: the scientists on every host, besides `lab`, who may use sudo.
        group: the scientists' primary group.
        umasks: dealt out to the hosts in turn.
        layers: folders with files that every host has besides, topmost first; they must not change meanwhile.

    Attributes:
        folder: all files of the fleet.
        hosts: the hosts, by name; empty while it is down.
        inventory: the path of the Ansible inventory.
        ssh_config: the path of the SSH configuration: `ssh -F ... ws001`.
        network: its addresses.
    """

    def __init__(
        self,
        hosts: int = 3,
        *,
        name: str = "default",
        pythons: Sequence[str] = PYTHONS,
        users: Sequence[str] = USERS,
        group: str = GROUP,
        umasks: Sequence[str] = UMASKS,
        layers: Sequence[Path] = (),
    ) -> None:
        if hosts < 1:
            raise FleetError(f"a fleet has at least one host, not {hosts}")
        for word in (name, group, *users):
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", word):
                raise FleetError(f"{word!r} is no name for a fleet, user or group: lower-case letters, digits, hyphens")
        for umask in umasks:
            if not re.fullmatch(r"0[0-7]{2}", umask):
                raise FleetError(f"{umask!r} is no umask such as 022")
        self.name = name
        self.count = hosts
        self.releases = [rootfs.release_of(python) for python in pythons]
        self.layers = tuple(layers)
        self.accounts = [Accounts(tuple(users), group, umask) for umask in umasks]
        self.layers = tuple(layers)
        self.hosts: dict[str, Host] = {}
        self.folder = _fleets() / name
        self.inventory = self.folder / "inventory.yml"
        self.ssh_config = self.folder / "ssh_config"
        self._network: Network | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def missing() -> list[str]:
        """Return what keeps this machine from having a fleet, in words; empty when nothing does."""
        reasons = [] if os.geteuid() == 0 else ["root is needed for namespaces, mounts and bridges"]
        packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
        if packages:
            reasons.append(f"not installed: {' '.join(packages)} (Debian packages)")
        if "overlay" not in Path("/proc/filesystems").read_text():
            reasons.append("the kernel has no overlay file system (modprobe overlay)")
        return reasons

    @property
    def network(self) -> Network:
        """The addresses of the fleet.

        Raises:
            FleetError: it is down.
        """
        if self._network is None:
            raise FleetError(f"the fleet {self.name} is down")
        return self._network

    @property
    def gateway(self) -> str:
        """This machine's address on the fleet's network, from which SSH comes."""
        return self.network.gateway

    @property
    def server_address(self) -> str:
        """This machine's address for servers that the hosts ask: the stand-in CAVE server goes here."""
        return self.network.server

    def __getitem__(self, name: str) -> Host:
        if name not in self.hosts:
            raise FleetError(
                f"the fleet {self.name} has no host {name!r}, but: {', '.join(self.hosts) or 'none: it is down'}"
            )
        return self.hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    def __len__(self) -> int:
        return len(self.hosts)

    def __enter__(self) -> Fleet:
        self.up(owned=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self, *, owned: bool = False) -> None:
        """Bring all hosts up; returns when every sshd listens.

        Args:
            owned: whether the fleet ends with this process.

        Raises:
            FleetError: something is missing, a host did not come up (then all are down again), or the name or the
                subnet is taken by another fleet.
            images.rootfs.RootfsError: a root file system cannot be built.
        """
        reasons = self.missing()
        if reasons:
            raise FleetError("; ".join(reasons))
        lowers = [rootfs.provide(release) for release in self.releases]
        with _lock():
            _sweep()
            if self.folder.exists():
                _require_free(_read_state(self.folder))
                _remove(self.folder)
            self._network = Network(_network.free_subnet(self.count))
            self.folder.mkdir(parents=True)
            self._write_state(owned)
            self._network.up(self.name)
        try:
            self._write_ssh()
            self._start([lowers[number % len(lowers)] for number in range(self.count)])
            self._write_state(owned)
            self._write_inventory()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End all hosts and remove every trace of the fleet; a fleet that is down already stays so."""
        with _lock():
            _remove(self.folder)
        for child in self._children:
            child.wait()
        self._children = []
        self._network = None
        self.hosts = {}

    @classmethod
    def attach(cls, name: str = "default") -> Fleet:
        """Return a fleet that another process brought up.

        Raises:
            FleetError: there is none of this name.
        """
        fleet = cls(name=name)
        state = _read_state(fleet.folder)
        if not state.get("hosts"):
            raise FleetError(f"the fleet {name} is down; up are: {', '.join(running()) or 'none'}")
        fleet._network = Network(ipaddress.IPv4Network(state["subnet"]))
        fleet.hosts = {
            entry["name"]: Host(**entry, folder=_host_folder(fleet.folder, entry["name"]), network=fleet._network)
            for entry in state["hosts"]
        }
        fleet.count = len(fleet.hosts)
        return fleet

    def connect_to_index(self, *names: str) -> None:
        """Let hosts reach the package index of this machine; no host does so unless told.

        Args:
            names: of the hosts.

        Raises:
            FleetError: the fleet has no such host, or this machine cannot forward packets.
        """
        if not shutil.which("iptables"):
            raise FleetError("hosts reach an index through iptables: apt-get install iptables")
        hosts = [self[name] for name in names]
        note = self.folder / FORWARDING_NOTE
        with _lock():
            if not note.exists():
                note.write_text(_network.forwarding())
                self.network.masquerade(on=True)
                _network.forwarding("1")
        for host in hosts:
            _index.connect(host)

    def _start(self, lowers: Sequence[rootfs.Rootfs]) -> None:
        addresses = self._addresses()
        names = list(addresses)
        for place, (name, lower) in enumerate(zip(names, lowers, strict=True)):
            accounts = self.accounts[place % len(self.accounts)]
            layer = self.folder / "layers" / f"{lower.release}-{accounts.umask}"
            if not layer.exists():
                write_layer(layer, lower.path, addresses, accounts, self.folder)
            below = ":".join(map(str, [layer, *self.layers, lower.path]))
            self._children.append(self._spawn(name, addresses[name], below, accounts.umask))
        pids = [_first_process(child, name) for child, name in zip(self._children, names, strict=True)]
        self.network.plug_in(enumerate(pids, start=1))
        for child in self._children:
            with contextlib.suppress(BrokenPipeError), child.stdin or contextlib.nullcontext() as pipe:
                if pipe:
                    pipe.write(b"plugged in\n")
        for place, (name, lower, pid) in enumerate(zip(names, lowers, pids, strict=True)):
            self.hosts[name] = Host(
                name=name,
                number=place + 1,
                address=self.network.address(place + 1),
                release=lower.release,
                python=lower.python,
                umask=self.accounts[place % len(self.accounts)].umask,
                pid=pid,
                started=_processes.start_time(pid) or 0,
                folder=_host_folder(self.folder, name),
                network=self.network,
            )
        for host in self:
            _wait_for_sshd(host)

    def _spawn(self, name: str, address: str, lower: str, umask: str) -> subprocess.Popen[bytes]:
        folder = _host_folder(self.folder, name)
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        with (folder / "sshd.log").open("wb") as log:
            return subprocess.Popen(
                [
                    *("unshare", "--fork", "--mount", "--pid", "--uts", "--ipc", "--net"),
                    *("sh", str(INIT), str(folder), lower, name, f"{address}/{self.network.subnet.prefixlen}", umask),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _addresses(self) -> dict[str, str]:
        return {f"ws{number:03}": self.network.address(number) for number in range(1, self.count + 1)}

    def _write_ssh(self) -> None:
        for file in ("id_ed25519", "host_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet", "-f", str(self.folder / file)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"fleet {key}")
        stanzas = [f"Host {name}\n  HostName {address}\n" for name, address in self._addresses().items()]
        self.ssh_config.write_text("\n".join([*stanzas, SSH_CONFIG.format(folder=self.folder, user=ADMIN)]))

    def _write_inventory(self) -> None:
        inventory: dict[str, Any] = {
            "all": {
                "vars": {
                    "ansible_user": ADMIN,
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "ansible_ssh_common_args": f"-F {self.ssh_config}",
                    "fleet_users": list(self.accounts[0].users),
                    "fleet_server_address": self.server_address,
                },
                "hosts": {host.name: {"ansible_host": host.address} for host in self},
                "children": {},
            }
        }
        for host in self:
            group = inventory["all"]["children"].setdefault(f"python{host.python.replace('.', '')}", {"hosts": {}})
            group["hosts"][host.name] = {}
        self.inventory.write_text(yaml.safe_dump(inventory, sort_keys=False))

    def _write_state(self, owned: bool) -> None:
        own = {"pid": os.getpid(), "started": _processes.start_time(os.getpid())}
        hosts = []
        for host in self:
            fields = {field.name: getattr(host, field.name) for field in dataclasses.fields(host)}
            hosts.append({key: value for key, value in fields.items() if key not in {"folder", "network"}})
        state = {
            "name": self.name,
            "subnet": str(self.network.subnet),
            "owner": own if owned else None,
            "users": list(self.accounts[0].users),
            "hosts": hosts,
        }
        (self.folder / "state.json").write_text(json.dumps(state, indent=1))


def running() -> list[str]:
    """Return the names of the fleets that are up."""
    return sorted(path.parent.name for path in _fleets().glob("*/state.json") if _read_state(path.parent).get("hosts"))


def _fleets() -> Path:
    return rootfs.cache_folder() / "fleets"


def _host_folder(fleet: Path, name: str) -> Path:
    return fleet / "hosts" / name


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError):
        return {}  # killed before it was written


def _is_owned(state: dict[str, Any]) -> bool:
    owner = state.get("owner")
    return bool(owner and _processes.is_alive(owner["pid"], owner["started"]))


def _require_free(state: dict[str, Any]) -> None:
    if _is_owned(state):
        raise FleetError(f"the fleet {state['name']} is in use by process {state['owner']['pid']}: choose another name")


def _sweep() -> None:
    """Remove what fleets left behind whose process was killed."""
    for folder in [path.parent for path in _fleets().glob("*/state.json")]:
        state = _read_state(folder)
        if state.get("owner") and not _is_owned(state):
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a fleet by what is there, whatever state a killed run left it in."""
    state = _read_state(folder)
    network = Network(ipaddress.IPv4Network(state["subnet"])) if "subnet" in state else None
    pids = _processes.mounting(folder)
    if network and pids:
        # Cables that were pulled are plugged in again, so that SSH clients hear the end of their connections.
        for host in state["hosts"]:
            if (folder / "hosts" / host["name"] / "faults/down.json").exists():
                with contextlib.suppress(FleetError):
                    _network.set_link(network.link(host["number"]), up=True)
    # The others are the `unshare` of each host: they see their host end, and then end themselves.
    _processes.kill(_processes.in_hosts(pids))
    _processes.wait_for_end(pids)
    if network:
        note = folder / FORWARDING_NOTE
        if note.exists():
            network.masquerade(on=False)
            before = note.read_text()
            note.unlink()
            if not list(_fleets().glob(f"*/{FORWARDING_NOTE}")):
                _network.forwarding(before)
        network.down()
    if folder.exists():
        shutil.rmtree(folder)


def _first_process(child: subprocess.Popen[bytes], name: str) -> int:
    """Return the id of the first process in the PID namespace that `unshare` has made.

    Raises:
        FleetError: it ended before it was ready.
    """
    assert child.stdout
    with child.stdout as pipe:
        if pipe.readline() != b"ready\n":
            raise FleetError(f"{name}: unshare failed: are namespaces allowed on this machine?")
    return int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text())


def _wait_for_sshd(host: Host, timeout: float = 20) -> None:
    """Wait until the sshd of a host listens: read from the kernel, a connection would count as a failed login.

    Raises:
        FleetError: it ended, or did not listen in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError):
            table = Path(f"/proc/{host.pid}/net/tcp").read_text()
            if re.search(r": 00000000:0016 00000000:0000 0A ", table):
                return
        if not host.alive or time.monotonic() > deadline:
            log = (host.folder / "sshd.log").read_text(errors="replace").strip()
            raise FleetError(f"{host.name} did not come up: {log or 'no message'}")
        time.sleep(0.005)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Let one process of this machine at a time make or remove fleets."""
    _fleets().mkdir(parents=True, exist_ok=True)
    with (_fleets() / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
