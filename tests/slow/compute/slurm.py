# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A SLURM of two nodes: the real daemons, as processes of this machine that listen on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from token_stores import free_port

NODES = ("node1", "node2")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")
PATIENCE = 90
CONFIGURATION = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/linear
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=0
MpiDefault=none
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
ReturnToService=2
PartitionName=all Nodes=ALL Default=YES MaxTime=5 State=UP
"""


class Slurm:
    """Two nodes and a controller, which are down again after the block.

    Args:
        folder: for all that they write; is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Slurm:
        """Start the daemons, and wait until both nodes are there."""
        for name in ("state", *NODES):
            (self.folder / name).mkdir(parents=True)
        self._configure()
        socket_ = self.folder / "munge.socket"
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        with self._stack:
            self._start("munged", "--foreground", "--force", f"--socket={socket_}", *files)
            self._wait(socket_.exists, "munged")
            self._start("slurmctld", "-D", "-i")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            self._wait(lambda: self._ask("sinfo", "-N", "-h").count(" idle ") == len(NODES), "the nodes")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the daemons."""
        self._stack.close()

    def run(self, words: Sequence[str], node: str, folder: Path, variables: Mapping[str, str]) -> tuple[str, str]:
        """Submit a job and wait for its end; return its state and its log.

        Args:
            words: arguments of sbatch.
            node: where it is to run.
            folder: where it is submitted.
            variables: the environment of whoever submits it.
        """
        environ = {**variables, "SLURM_CONF": self._variables["SLURM_CONF"]}
        command = ["sbatch", "--parsable", f"--nodelist={node}", *words]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True, timeout=60)
        job = done.stdout.strip()
        state = ""

        def has_ended() -> bool:
            nonlocal state
            (state,) = re.findall(r"\bJobState=(\w+)", self._ask("scontrol", "show", "job", job))
            return state in ENDED

        self._wait(has_ended, f"job {job}")
        (log,) = folder.glob(f"*-{job}.log")
        return state, log.read_text()

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, port=free_port(), folder=self.folder)
        each = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=100"
        text += "".join(f"NodeName={node} Port={free_port()} {each}\n" for node in NODES)
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}-{command[-1]}.out".replace("/", "_")[-100:]).open("wb") as out:
            process = subprocess.Popen(command, env=self._variables, stdout=out, stderr=subprocess.STDOUT)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def _ask(self, *command: str) -> str:
        return subprocess.run(
            command, env=self._variables, capture_output=True, text=True, check=False, timeout=60
        ).stdout

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > deadline:
                said = "\n".join(path.read_text()[-1500:] for path in self.folder.glob("*.out"))
                raise TimeoutError(f"{what}: not there after {PATIENCE} s\n{said}")
            time.sleep(0.1)
