# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fleet promises to the tests that stand on it."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_run import ROOT, ansible

from fleet import Fleet, FleetError, Host, running
from fleet._network import Network

from .conftest import MakeFleet

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
"""


def ssh(fleet: Fleet, host: Host, command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command on a host by SSH, as `lab`."""
    argv = ["ssh", "-F", str(fleet.ssh_config), "-o", "ConnectTimeout=3", host.name, command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)


def traces(folder: Path, network: Network) -> list[str]:
    """Return what there is of a fleet on this machine: files, devices, routes, rules, mounts and processes."""
    found = [str(path) for path in [folder] if path.exists()]
    for what in (["ip", "-o", "link"], ["ip", "route", "show", "table", "all"], ["iptables-save"]):
        lines = subprocess.run(what, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in lines if network.bridge in line or str(network.subnet) in line]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in (entry / "mountinfo").read_text():
                found.append(str(entry))
        except OSError:
            continue
    return found


@pytest.fixture
def server(fleet: Fleet) -> Iterator[int]:
    """The port of a server that accepts connections on the server address."""
    with socket.create_server((fleet.server_address, 0)) as listener:
        yield listener.getsockname()[1]


def reaches(host: Host, address: str, port: int) -> str:
    """Return an empty string when a host reaches a server, else the error."""
    result = host.run(["python3", "-c", CONNECT, address, str(port)], "alice", check=False)
    return result.stderr.strip().rpartition("\n")[2]


class TestHosts:
    def test_ansible_reaches_every_python_by_ssh_and_becomes_root(self, fleet: Fleet, tmp_path: Path) -> None:
        run = ansible(
            tmp_path,
            "adhoc",
            "-i",
            str(fleet.inventory),
            "all",
            "--become",
            "-m",
            "ansible.builtin.command",
            "-a",
            "id",
        )
        assert run.ok, run.output
        assert run.output.count("uid=0(root)") == 3

    def test_every_host_has_the_python_that_it_is_said_to_have(self, fleet: Fleet) -> None:
        found = [
            host.run(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout for host in fleet
        ]
        assert [version.strip() for version in found] == ["3.9", "3.11", "3.13"]
        assert [host.python for host in fleet] == ["3.9", "3.11", "3.13"]

    @pytest.mark.parametrize("module", ["pip", "ensurepip", "packaging", "setuptools"])
    def test_hosts_have_nothing_of_python_but_python(self, fleet: Fleet, module: str) -> None:
        for host in fleet:
            result = host.run(["python3", "-c", f"import {module}"], check=False)
            assert "No module named" in result.stderr

    def test_users_share_a_group_that_is_named_after_none_of_them(self, fleet: Fleet) -> None:
        for host in fleet:
            for user in ("alice", "bob", "carol"):
                assert host.run(["id", "-gn"], user).stdout == "neuro\n"
                assert host.run(["sh", "-c", 'echo "$HOME $PWD"'], user).stdout == f"/home/{user} /home/{user}\n"

    def test_umasks_hold_in_every_way_onto_a_host(self, make_fleet: MakeFleet) -> None:
        fleet = make_fleet(6, umasks=("022", "077"))
        assert [host.umask for host in fleet] == ["022", "077"] * 3
        for host in fleet:
            assert host.run(["sh", "-c", "umask"], "alice").stdout == f"0{host.umask}\n"
            assert ssh(fleet, host, "umask").stdout == f"0{host.umask}\n"
            assert ssh(fleet, host, "sudo sh -c umask").stdout == f"0{host.umask}\n"
            assert ssh(fleet, host, "sudo -u alice sh -c umask").stdout == f"0{host.umask}\n"

    def test_a_command_that_fails_says_where_as_whom_and_why(self, fleet: Fleet) -> None:
        with pytest.raises(FleetError, match=r"ws001: alice: cat -- /etc/shadow ended with 1: .*Permission denied"):
            fleet["ws001"].read_file("/etc/shadow", "alice")

    def test_files_that_a_user_writes_belong_to_that_user(self, fleet: Fleet) -> None:
        for host in fleet:
            host.write_file("note", "x\n", "alice")
            assert host.run(["stat", "-c", "%U %G", "note"], "alice").stdout == "alice neuro\n"
            assert host.read_file("/home/alice/note", "alice") == "x\n"
            host.run(["rm", "note"], "alice")

    def test_hosts_see_neither_each_other_s_processes_nor_this_machine_s(self, fleet: Fleet) -> None:
        for host in fleet:
            seen = host.run(["sh", "-c", "echo /proc/[0-9]*"]).stdout.split()
            assert len(seen) < 5
            assert host.read_file("/proc/1/comm") == "sshd\n"
            assert host.run(["hostname"]).stdout == f"{host.name}\n"

    def test_cpu_time_that_a_host_spends_is_counted(self, fleet: Fleet) -> None:
        host = fleet["ws001"]
        before = host.cpu_seconds()
        ssh(fleet, host, "python3 -c 'import time\nwhile time.process_time() < 0.6: pass'")
        assert 0.5 <= host.cpu_seconds() - before < 2

    def test_hosts_reach_this_machine_and_nothing_else(self, fleet: Fleet, server: int) -> None:
        for host in fleet:
            assert reaches(host, fleet.server_address, server) == ""
            assert "Network is unreachable" in reaches(host, "192.0.2.1", 443)

    @pytest.mark.network
    def test_a_host_that_is_told_so_reaches_the_package_index(self, make_fleet: MakeFleet) -> None:
        before = subprocess.run(["sysctl", "-n", "net.ipv4.ip_forward"], capture_output=True, text=True, check=True)
        fleet = make_fleet(2)
        fleet.connect_to_index("ws001")
        code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        index = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        fetch = ["python3", "-c", f"import urllib.request; urllib.request.urlopen('{index}/six/', timeout=30)"]
        fleet["ws001"].run(fetch, "alice")
        with pytest.raises(FleetError, match="URLError"):
            fleet["ws002"].run(fetch, "alice")
        fleet.down()
        after = subprocess.run(["sysctl", "-n", "net.ipv4.ip_forward"], capture_output=True, text=True, check=True)
        assert after.stdout == before.stdout


class TestFaults:
    def test_a_host_that_is_down_cannot_be_reached_and_comes_back(self, fleet: Fleet) -> None:
        host = fleet["ws001"]
        host.inflict("down")
        result = ssh(fleet, host, "true")
        assert result.returncode == 255
        assert "timed out" in result.stderr or "No route to host" in result.stderr
        host.heal("down")
        assert ssh(fleet, host, "true").returncode == 0

    def test_a_host_that_hangs_after_connect_accepts_and_is_silent(self, fleet: Fleet) -> None:
        host = fleet["ws002"]
        host.inflict("hang")
        with socket.create_connection((host.address, 22), timeout=2) as connection:
            connection.settimeout(1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        host.heal()
        assert ssh(fleet, host, "true").returncode == 0

    def test_a_host_that_hangs_after_login_lets_in_and_never_answers(self, fleet: Fleet) -> None:
        host = fleet["ws003"]
        host.inflict("hang", after="login")
        with pytest.raises(subprocess.TimeoutExpired):
            ssh(fleet, host, "true", timeout=3)
        assert (
            "session opened for user lab" in (host.folder / "sshd.log").read_text()
            or "Starting session" in (host.folder / "sshd.log").read_text()
        )
        host.heal()
        assert ssh(fleet, host, "echo here").stdout == "here\n"

    def test_a_full_disk_takes_no_byte_and_shows_what_was_there(self, fleet: Fleet) -> None:
        for host in fleet:
            host.write_file("before", "old\n", "alice")
            host.inflict("full_disk")
            with pytest.raises(FleetError, match="No space left on device"):
                host.run(["python3", "-c", "with open('new', 'w') as file: file.write('x')"], "alice")
            assert host.read_file("before", "alice") == "old\n"
            assert host.run(["stat", "-c", "%a", "."], "alice").stdout == ("755\n" if host.umask == "022" else "700\n")
            host.heal()
            host.write_file("new", "x\n", "alice")
            host.run(["rm", "before", "new"], "alice")

    def test_a_read_only_home_can_be_read_and_not_written(self, fleet: Fleet) -> None:
        for host in fleet:
            host.inflict("read_only", path="/home/alice")
            with pytest.raises(FleetError, match="Read-only file system"):
                host.write_file("new", "x\n", "alice")
            host.write_file("new", "x\n", "bob")
            host.heal()
            host.write_file("new", "x\n", "alice")

    def test_a_malformed_secrets_file_gives_way_to_the_old_content(self, fleet: Fleet) -> None:
        host, path = fleet["ws001"], ".cloudvolume/secrets/cave-secret.json"
        host.run(["mkdir", "-p", ".cloudvolume/secrets"], "bob")
        host.write_file(path, '{"token": "0123"}\n', "bob")
        host.inflict("malformed", user="bob")
        with pytest.raises(ValueError, match="Unterminated string"):
            json.loads(host.read_file(path, "bob"))
        host.heal()
        assert host.read_file(path, "bob") == '{"token": "0123"}\n'
        host.run(["rm", "-r", ".cloudvolume"], "bob")

    def test_a_secrets_file_that_was_mended_meanwhile_is_left_alone(self, fleet: Fleet) -> None:
        host, path = fleet["ws001"], ".cloudvolume/secrets/cave-secret.json"
        host.inflict("malformed", user="carol")
        host.write_file(path, '{"token": "new"}\n', "carol")
        host.heal()
        assert host.read_file(path, "carol") == '{"token": "new"}\n'

    def test_a_host_without_python_says_so_and_gets_it_back(self, fleet: Fleet) -> None:
        for host in fleet:
            host.inflict("no_python")
            assert "python3: No such file" in ssh(fleet, host, "/usr/bin/python3 -V").stderr
            host.heal()
            assert ssh(fleet, host, "/usr/bin/python3 -V").stdout.startswith(f"Python {host.python}.")

    def test_a_wrong_clock_is_wrong_for_everybody_and_timeouts_stay_right(self, fleet: Fleet) -> None:
        ask = "import threading, time; print(int(time.time())); threading.Event().wait(0.5); print(time.monotonic())"
        for host in fleet:
            host.inflict("wrong_clock", days="-3650")
            began = time.monotonic()
            for shown in (
                ssh(fleet, host, f"python3 -c '{ask}'").stdout,
                ssh(fleet, host, f"sudo python3 -c '{ask}'").stdout,
                host.run(["python3", "-c", ask], "alice").stdout,
            ):
                wall, monotonic = shown.split()
                assert int(wall) == pytest.approx(time.time() - 3650 * 86400, abs=30)
                assert float(monotonic) == pytest.approx(time.monotonic(), abs=30)
            assert time.monotonic() - began > 1.5
            host.heal()
            assert int(ssh(fleet, host, "date +%s").stdout) == pytest.approx(time.time(), abs=30)

    @pytest.mark.parametrize(("how", "error"), [("drop", "timed out"), ("reject", "No route to host")])
    def test_a_host_that_is_cut_off_reaches_no_server_while_ssh_works(
        self, fleet: Fleet, server: int, how: str, error: str
    ) -> None:
        host = fleet["ws002"]
        assert reaches(host, fleet.server_address, server) == ""
        host.inflict("cut_off", how=how)
        assert error in reaches(host, fleet.server_address, server)
        assert ssh(fleet, host, "true").returncode == 0
        host.heal()
        assert reaches(host, fleet.server_address, server) == ""

    def test_faults_are_known_to_other_processes(self, fleet: Fleet) -> None:
        fleet["ws001"].inflict("no_python")
        other = Fleet.attach(fleet.name)
        assert other["ws001"].faults == ["no_python"]
        other["ws001"].heal()
        assert fleet["ws001"].faults == []

    def test_an_unknown_fault_names_those_that_exist(self, fleet: Fleet) -> None:
        with pytest.raises(FleetError, match=r"no fault 'fire': choose from down, hang"):
            fleet["ws001"].inflict("fire")

    def test_the_same_fault_twice_is_refused(self, fleet: Fleet) -> None:
        fleet["ws001"].inflict("down")
        with pytest.raises(FleetError, match="has the fault down already"):
            fleet["ws001"].inflict("down")

    def test_healing_what_a_host_does_not_have_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(FleetError, match="does not have the fault 'down', but: none"):
            fleet["ws001"].heal("down")


class TestLife:
    def test_thirty_hosts_are_up_within_seconds(self, make_fleet: MakeFleet) -> None:
        start = time.monotonic()
        fleet = make_fleet(30)
        assert len(fleet) == 30
        assert time.monotonic() - start < 10  # about one second on an idle machine

    def test_nothing_is_left_when_a_fleet_is_down(self, make_fleet: MakeFleet) -> None:
        fleet = make_fleet(3)
        fleet.connect_to_index("ws001")
        for host, fault in zip(fleet, ("down", "hang", "full_disk"), strict=True):
            host.inflict(fault)
        network = fleet.network
        assert len(traces(fleet.folder, network)) > 10
        fleet.down()
        assert traces(fleet.folder, network) == []

    def test_packets_to_hosts_that_are_gone_stay_on_this_machine(self, make_fleet: MakeFleet) -> None:
        fleet = make_fleet(1)
        routes = subprocess.run(
            ["ip", "route", "show", "type", "blackhole"], capture_output=True, text=True, check=True
        )
        assert f"blackhole {fleet.network.subnet}" in routes.stdout

    @pytest.mark.parametrize("moment", ["starting", "up"])
    def test_the_next_fleet_removes_what_a_killed_process_left(
        self, make_fleet: MakeFleet, tmp_path: Path, moment: str
    ) -> None:
        name = f"pytest-{os.getpid()}-killed"
        block = f"with Fleet(12, name={name!r}): print('up', flush=True); time.sleep(60)"
        code = f"import time; from fleet import Fleet\n{block}"
        log = tmp_path / "log"
        with log.open("w") as output:
            victim = subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, cwd=ROOT / "tests")
            folder = Fleet(name=name).folder
            sign = folder / "ssh_config" if moment == "starting" else log
            while not (sign.exists() and sign.stat().st_size):
                assert victim.poll() is None, log.read_text()
                time.sleep(0.01)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        network = Network(ipaddress.IPv4Network(json.loads((folder / "state.json").read_text())["subnet"]))
        assert traces(folder, network)
        make_fleet(1).down()
        assert traces(folder, network) == []

    def test_a_name_in_use_by_a_living_process_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(FleetError, match=rf"{fleet.name} is in use by process {os.getpid()}"):
            Fleet(1, name=fleet.name).up()
        assert fleet["ws001"].alive

    def test_a_subnet_in_use_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(FleetError, match="is in use on this machine"):
            Fleet(1, name=f"pytest-{os.getpid()}-other", subnet=str(fleet.network.subnet)).up()

    @pytest.mark.parametrize(
        ("subnet", "hosts", "error"),
        [
            ("10.77.0.0/40", 3, "no IPv4 network"),
            ("10.77.0.1/24", 3, "no IPv4 network"),
            ("203.1.113.0/24", 3, "no private network"),
            ("10.77.0.0/30", 3, "of the size /16 to /24"),
            ("10.77.0.0/24", 250, "no room for 250 hosts"),
        ],
    )
    def test_a_subnet_that_cannot_be_is_refused(self, subnet: str, hosts: int, error: str) -> None:
        with pytest.raises(FleetError, match=error):
            Fleet(hosts, subnet=subnet)

    @pytest.mark.parametrize(
        "arguments", [{"hosts": 0}, {"users": ["Alice; rm"]}, {"name": "../x"}, {"umasks": ["22"]}, {"group": ""}]
    )
    def test_what_no_fleet_can_have_is_refused(self, arguments: dict[str, object]) -> None:
        with pytest.raises(FleetError):
            Fleet(**arguments)  # type: ignore[arg-type]  # wrong on purpose

    def test_the_processes_of_others_are_left_alone(self, make_fleet: MakeFleet) -> None:
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "sleep", "60"]
        with subprocess.Popen(command) as stranger:
            make_fleet(1).down()
            assert stranger.poll() is None
            stranger.kill()

    def test_the_command_line_starts_mishandles_heals_and_stops(self) -> None:
        name = f"pytest-{os.getpid()}-cli"

        def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
            command, *rest = arguments
            argv = [sys.executable, "-m", "fleet", command, "--name", name, *rest]
            return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)

        up = fleet("up", "--hosts", "2", "--pythons", "3.11", "--users", "dora", "--umasks", "077")
        try:
            assert up.returncode == 0, up.stderr
            assert "2 hosts are up" in up.stdout
            assert fleet("run", "--user", "dora", "ws001", "id", "-gn").stdout == "neuro\n"
            assert fleet("inflict", "read_only", "ws002", "--option", "path=/home/dora").returncode == 0
            assert "ws002: read_only" in fleet("status").stdout
            assert fleet("heal").returncode == 0
            assert "ws002: " not in fleet("status").stdout
            wrong = fleet("inflict", "down", "ws009")
            assert wrong.returncode == 1
            assert wrong.stderr.startswith(f"fleet: the fleet {name} has no host 'ws009'")
        finally:
            down = fleet("down")
        assert down.returncode == 0, down.stderr
        assert name not in running()
