# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``verify -e caveclient_wait=30m``: one host asks again and again until CAVE works, or the time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_run import LIMIT, command, environment
from lab import STACK, Lab, recap, squeezed

from cave_server import CaveServer

HOSTS = ("ws1", "ws2", "ws3")
DOWN = f"materialize of {STACK} answers 503"


@pytest.fixture
def lab(tmp_path: Path, cave: CaveServer) -> Lab:
    """Three workstations with Alice's token."""
    lab = Lab(tmp_path, cave, HOSTS)
    lab.save(lab.token)
    cave.clear_requests()
    return lab


@pytest.mark.parametrize("callback", ["default", "connectomics.cave.lab"])
def test_waiting_ends_well_once_the_service_is_back(lab: Lab, callback: str) -> None:
    lab.cave.set_fault("/materialize", "status", status=503, times=2)
    run = lab.play("verify", settings={"ANSIBLE_STDOUT_CALLBACK": callback}, caveclient_wait="60")
    assert run.status == 0, run.output
    assert len(lab.cave.requests("/annotation/api/versions")) == 3
    assert "RETRYING" in run.output if callback == "default" else "again:" in run.output
    assert "Only ws1 was asked" in squeezed(run)
    assert "Left alone" not in run.output


def test_only_one_host_asks_while_it_waits(lab: Lab) -> None:
    run = lab.play("verify", caveclient_wait="30m")
    assert run.status == 0, run.output
    assert "ws2" not in recap(run.output)
    assert len(lab.cave.requests("/annotation/api/versions")) == 1


def test_what_still_does_not_answer_is_said_when_the_time_is_over(lab: Lab) -> None:
    lab.cave.set_fault("/materialize", "status", status=503)
    run = lab.play("verify", caveclient_wait="3s")
    assert run.status == 2, run.output
    assert DOWN in squeezed(run)
    assert len(lab.cave.requests("/annotation/api/versions")) > 1


def test_what_does_not_pass_by_itself_is_not_waited_for(lab: Lab) -> None:
    lab.save("0123456789abcdef0123456789abcdef")
    run = lab.play("verify", caveclient_wait="2h")
    assert run.status == 2, run.output
    assert "invalid_token" in run.output


@pytest.mark.parametrize("time", ["soon", "30min", "-5", "1.5h", ""])
def test_a_time_that_is_none_is_refused(lab: Lab, time: str) -> None:
    run = lab.play("verify", caveclient_wait=time)
    assert run.status == 2, run.output
    assert f"caveclient_wait is no time to wait: '{time}'. Write 30m, 2h, 90s" in squeezed(run)
    assert lab.cave.requests() == []


def test_an_interrupted_wait_says_where_it_was(lab: Lab) -> None:
    lab.cave.set_fault("/materialize", "status", status=503)
    process = subprocess.Popen(
        command("playbook", *lab.arguments("verify", caveclient_wait="30m")),
        cwd=lab.folder,
        env=environment(lab.folder, ANSIBLE_STDOUT_CALLBACK="connectomics.cave.lab", PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = ""
    while "again:" not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    # The worker that reported it sleeps by then: ansible-core hangs when one is ended in the middle of a report.
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=LIMIT)[0]
    assert process.returncode not in (0, 2)
    assert "Stopped in the task" in rest
