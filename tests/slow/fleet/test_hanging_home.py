# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A home that never answers, over a real SSH connection: its user is named in time, and everybody else served."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from account_host import take_and_keep
from lab import Lab

from cave_server import CaveServer
from fleet import Fleet, Host

pytestmark = [pytest.mark.root, pytest.mark.slow]


def _mount(pid: int, place: str) -> None:
    """Be the file system that hangs, in the mount namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.setns(namespace, 0x00020000) or libc.mount(b"hangs", place.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), f"cannot mount on {place}")
    take_and_keep(device)


@contextmanager
def hanging(host: Host, place: str) -> Iterator[None]:
    process = multiprocessing.get_context("fork").Process(target=_mount, args=(host.pid, place), daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + 10
        while f" {place} fuse" not in Path(f"/proc/{host.pid}/mounts").read_text():
            assert process.is_alive(), "the file system was not mounted"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.kill()


def test_a_home_that_never_answers_is_named_in_time_and_everybody_else_is_served(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if reasons := Fleet.missing():
        pytest.skip(f"no fleet on this machine: {'; '.join(reasons)}")
    people = ("alice", "bob")
    with (
        Fleet(1, name="pytest-hang", users=people) as fleet,
        CaveServer(address=fleet.server_address) as cave,
    ):
        lab = Lab.of_fleet(fleet, cave, tmp_path_factory.mktemp("lab"), people)
        assert lab.play("provision", "--tags", "token").ok
        [host] = fleet
        with hanging(host, "/home/bob/.cloudvolume"):
            for playbook, arguments in (("audit", ()), ("verify", ("-e", "caveclient_timeout=10"))):
                begin = time.monotonic()
                done = lab.play(playbook, *arguments, caveclient_report="reports")
                assert time.monotonic() - begin < 110, playbook
                assert done.status == 2, done.output
                users = {user["user"]: user for user in lab.reported()[host.name]["users"]}
                assert users["alice"]["verdict"] == "ok"
                assert "did not answer within" in users["bob"]["message"]
