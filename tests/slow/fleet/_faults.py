# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be wrong with a host of a fleet: every fault is real, none is pretended by a test double.

A fault is a pair of functions: `inflict` returns a memo (plain JSON) which `heal` gets back, perhaps elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _network
from ._errors import FleetError

if TYPE_CHECKING:
    from ._host import Host

Memo = Any
NOBODY = "02:00:00:00:00:01"  # a hardware address that no device here has
SILENT_SHELL = "/usr/local/sbin/silent-shell"
SHIFTED_CLOCK = "/usr/local/lib/shifted-clock.so"


@dataclass(frozen=True)
class Fault:
    """One fault: how a host gets it, and how it gets rid of it."""

    inflict: Callable[..., Memo]
    heal: Callable[[Host, Memo], None]


def inflict_down(host: Host) -> Memo:
    """The host's cable is out: connections time out, or find no route."""
    _network.set_link(host.network.link(host.number), up=False)


def heal_down(host: Host, _memo: Memo) -> None:
    _network.set_link(host.network.link(host.number), up=True)
    _end_sessions(host)  # else what SSH kept open from before waits for TCP, which by now asks once a minute


def inflict_hang(host: Host, after: str = "connect") -> Memo:
    """The host accepts connections and then says nothing.

    Args:
        host: the host.
        after: "connect": its sshd is frozen, and the kernel alone answers; "login": SSH lets the user `lab` in, and
            no command ever ends, as with a home on a dead file server.
    """
    if after == "connect":
        # PID 1 first, so that no new process escapes.
        for pid in [host.pid, *host.processes()]:
            _signal(pid, signal.SIGSTOP)
        return after
    if after != "login":
        raise FleetError(f"a host hangs after 'connect' or after 'login', not after {after!r}")
    host.write_file(SILENT_SHELL, "#!/bin/sh\nexec sleep infinity\n")
    host.run(["chmod", "755", SILENT_SHELL])
    _set_shell(host, "lab", SILENT_SHELL)
    _end_sessions(host)
    return after


def heal_hang(host: Host, after: Memo) -> None:
    if after == "connect":
        for pid in host.processes():
            _signal(pid, signal.SIGCONT)
    else:
        _set_shell(host, "lab", "/bin/bash")
        _end_sessions(host)


def inflict_full_disk(host: Host, path: str = "/home") -> Memo:
    """A directory of the host, with all that is in it, is on a disk without a free block.

    What is written there meanwhile is gone when the host is healed.
    """
    script = """
        set -eu
        size=$(du --summarize --block-size=1K --apparent-size "$1" | cut -f1)
        entries=$(find "$1" | wc -l)
        mount -t tmpfs -o "mode=$(stat -c %a "$1"),size=$((size + 4 * entries + 256))k" full /mnt
        cp -a "$1/." /mnt
        mount --move /mnt "$1"
        cat /dev/zero > "$1/.filler" 2> /dev/null || :
        if echo x 2> /dev/null > "$1/.probe"; then echo 'still room' >&2; exit 1; fi
        rm "$1/.probe"
    """
    host.run(["sh", "-c", script, "sh", path])
    return path


def heal_full_disk(host: Host, path: Memo) -> None:
    host.run(["umount", "--lazy", path])


def inflict_read_only(host: Host, path: str = "/home") -> Memo:
    """A directory of the host, with all that is in it, is on a file system that is mounted read-only."""
    host.run(["sh", "-c", 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', "sh", path])
    return path


def heal_read_only(host: Host, path: Memo) -> None:
    host.run(["umount", "--lazy", path])


def inflict_no_python(host: Host) -> Memo:
    """The host has no Python."""
    host.run(["sh", "-c", "for it in /usr/bin/python3*; do mv $it $it.away; done"])


def heal_no_python(host: Host, _memo: Memo) -> None:
    host.run(["sh", "-c", "for it in /usr/bin/python3*.away; do mv $it ${it%.away}; done"])


def inflict_wrong_clock(host: Host, days: str = "-3650") -> Memo:
    """All that starts on the host from now on sees a wrong wall clock, so that no certificate is valid.

    The kernel has time namespaces for the time since boot alone, and libfaketime ends in the sandbox of sshd: so a
    small library that every program loads shifts the wall clock. Times of files stay right.

    Args:
        host: the host.
        days: by which the clock is ahead: "-3650" is ten years ago.
    """
    host.root(SHIFTED_CLOCK).write_bytes(_shifted_clock(int(days)))
    host.run(["chmod", "755", SHIFTED_CLOCK])
    host.root("/etc/ld.so.preload").write_text(f"{SHIFTED_CLOCK}\n")
    _end_sessions(host)


def heal_wrong_clock(host: Host, _memo: Memo) -> None:
    host.root("/etc/ld.so.preload").unlink()
    _end_sessions(host)


def inflict_cut_off(host: Host, how: str = "drop") -> Memo:
    """The host does not reach the server address of the fleet; SSH to the host works.

    Args:
        host: the host.
        how: "drop": packets vanish as in a firewall, connections time out; "reject": no route, at once.
    """
    if how == "drop":
        host.ip("neigh", "replace", host.network.server, "lladdr", NOBODY, "nud", "permanent", "dev", "eth0")
    elif how == "reject":
        host.ip("route", "add", "unreachable", host.network.server)
    else:
        raise FleetError(f"a host is cut off by 'drop' or by 'reject', not by {how!r}")
    return how


def heal_cut_off(host: Host, how: Memo) -> None:
    if how == "drop":
        host.ip("neigh", "del", host.network.server, "dev", "eth0")
    else:
        host.ip("route", "del", "unreachable", host.network.server)


FAULTS = {
    "down": Fault(inflict_down, heal_down),
    "hang": Fault(inflict_hang, heal_hang),
    "full_disk": Fault(inflict_full_disk, heal_full_disk),
    "read_only": Fault(inflict_read_only, heal_read_only),
    "no_python": Fault(inflict_no_python, heal_no_python),
    "wrong_clock": Fault(inflict_wrong_clock, heal_wrong_clock),
    "cut_off": Fault(inflict_cut_off, heal_cut_off),
}


def _shifted_clock(days: int) -> bytes:
    """Return the library that shifts the wall clock, for this machine's processor."""
    source = Path(__file__).with_name("shifted_clock.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "shifted-clock.so"
        options = ["-O2", "-shared", "-fPIC", "-nostdlib", f"-DOFFSET={days * 86400}L"]
        command = ["cc", *options, "-o", str(library), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise FleetError("a wrong clock takes a C compiler: apt-get install gcc libc6-dev") from error
        except subprocess.CalledProcessError as error:
            raise FleetError(f"{source} cannot be compiled: {error.stderr}") from error
        return library.read_bytes()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _set_shell(host: Host, user: str, shell: str) -> None:
    host.run(["usermod", "--shell", shell, user])


def _end_sessions(host: Host) -> None:
    """End all but PID 1: a connection that a controller kept open would still have the old shell."""
    for pid in host.processes():
        if pid != host.pid:
            _signal(pid, signal.SIGKILL)
