# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of the module caveclient: brings what the host lacks for an installation."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._environment.doctor import digest
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.modules import caveclient
from ansible_collections.connectomics.cave.plugins.plugin_utils import _doctor_file, _host_tools
from ansible_collections.connectomics.cave.plugins.plugin_utils._action import HostAction, is_true
from ansible_collections.connectomics.cave.plugins.plugin_utils._build_once import Built, SharedBuild, hosts_seen
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import report_progress, tell
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import with_packages

display = Display()

_LARGE = 1 << 23
"""Bytes from which on a connection of its own costs less than compression."""
_PATIENCE = 300.0
"""Seconds for which a host waits for another one's build."""


class ActionModule(HostAction):
    """Runs the module; when it has to install something, brings what that needs and runs it again."""

    module = caveclient

    TRANSFERS_FILES = False  # not before it is known to be needed

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        given = {name: value for name, value in self._task.args.items() if name != "_controller"}
        if not given.get("interpreter"):  # an empty one is none, also beside a path
            given.pop("interpreter", None)
        try:
            arguments = with_packages(given)
        except CaveError as error:
            raise AnsibleActionFail(error.message) from error
        doctor = _doctor_file.build_for(arguments.get("doctor_defaults")) if arguments.get("doctor") else b""
        self._for_doctor = {"doctor_digest": digest(doctor)} if doctor else {}
        for name in ("version", "python"):
            if isinstance(arguments.get(name), float):
                raise AnsibleActionFail(
                    f"{name}: {arguments[name]} was read as a number, which loses digits (3.10 becomes 3.1). "
                    "Put it in quotes."
                )
        plan = shared = None
        builds_once = is_true(arguments.get("build_once")) and not self._task.check_mode
        try:
            try:
                answer = self._run_module({**arguments, "_controller": {"plan": True}}, task_vars)
                plan = answer.pop("plan", None)
                if plan and builds_once and not arguments.get("interpreter"):
                    shared = SharedBuild(plan["needs"]["host"], arguments)
            finally:
                # Only now: a host that counts as seen and does not yet ask for the build would not get one.
                if builds_once:
                    hosts_seen(self._task).add()
            if plan and not answer.get("failed"):
                answer = (
                    self._install_once(shared, plan, arguments, task_vars)
                    if shared
                    else self._install(plan, arguments, task_vars)
                )
            needed = answer.pop("doctor_needed", [])
            if not needed or answer.get("failed"):
                return answer
            brought = self._bring_doctor(doctor, arguments, task_vars)
            if brought.get("failed"):
                return brought
            if not brought["changed"]:  # another run has done it meanwhile
                reasons = [reason for reason in answer["reasons"] if reason not in needed]
                answer.update(reasons=reasons, changed=bool(reasons))
            return {**answer, "doctor": brought["doctor"]}
        finally:
            took_long = bool(plan) and not self._task.check_mode
            report_progress(self._task, task_vars.get("ansible_play_hosts") or (), took_long=took_long)

    def _install(self, plan: dict[str, Any], arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module again, with what its installation needs."""
        host = task_vars.get("inventory_hostname", "this host")
        if not self._task.check_mode:
            tell(f"{host}: going to {plan['doing']}")
        provided: dict[str, str] = {}
        needs = plan["needs"]
        self._ensure_tmp_path()
        try:
            while True:
                provided.update(self._provide(needs, arguments, host))
                answer = self._run_module({**arguments, "_controller": {"from_controller": provided}}, task_vars)
                lacking = [tool for tool in answer.get("needs", {}).get("tools", ()) if tool not in provided]
                if not answer.get("failed") or not lacking:
                    return answer
                # What the host has, or what was brought, turned out not to run there.
                display.vv(str(answer["msg"]), host=host)
                needs = {**answer["needs"], "tools": lacking, "wheels": False}
        except CaveError as error:
            raise AnsibleActionFail(error.message) from error

    def _install_once(
        self, shared: SharedBuild, plan: dict[str, Any], arguments: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Take the build of a host of the same kind, or install and let the others have what came of it.

        A host that cannot take it installs by itself, and so does one that has waited too long.
        """
        with shared.turn(min(_PATIENCE, float(arguments.get("timeout") or _PATIENCE))) as is_turn:
            if is_turn:
                answer: dict[str, Any] = {"failed": True}
                try:
                    answer = self._install(plan, arguments, task_vars)
                    if answer.get("failed"):
                        return answer
                    trouble = self._share(shared, arguments, task_vars)
                    text = f"Other hosts do not get this build: {trouble.rstrip('.')}."
                    return _with_warning(answer, text) if trouble else answer
                finally:
                    if answer.get("failed"):
                        shared.failed()
        built = shared.built()
        if not built:
            return self._install(plan, arguments, task_vars)
        taken = self._take(built, arguments, task_vars)
        if not taken.get("failed"):
            return {**taken, "taken_from": built.host} if taken.get("build") == built.name else taken
        try:
            answer = self._install(plan, arguments, task_vars)
        except AnsibleActionFail as error:
            answer = {"failed": True, "changed": False, "msg": error.message}
        text = f"The build of {built.host} was not taken: {str(taken['msg']).rstrip('.')}. Installed here instead."
        return _with_warning(answer, text)

    def _share(self, shared: SharedBuild, arguments: dict[str, Any], task_vars: dict[str, Any]) -> str:
        """Bring the build of this host here for those that want it; return what went wrong, or an empty string."""
        hosts = task_vars.get("ansible_play_hosts_all") or ()
        if not shared.is_wanted(len(hosts) - hosts_seen(self._task).count()):
            return ""
        shell = self._connection._shell
        try:
            self._ensure_tmp_path()
            remote = shell.join_path(shell.tmpdir, "build.archive")
            packed = self._run_module({**arguments, "_controller": {"pack": remote}}, task_vars)
            if packed.get("failed"):
                raise CaveError(packed["msg"])
            shared.keep(
                partial(self._fetch, remote), task_vars["inventory_hostname"], packed["build"], packed["digest"]
            )
        except (CaveError, AnsibleError, OSError) as error:
            shared.failed()
            return str(error)
        return ""

    def _take(self, built: Built, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module with the build of another host."""
        host = task_vars.get("inventory_hostname", "this host")
        tell(f"{host}: going to take the build of {built.host}")
        self._ensure_tmp_path()
        try:
            parcel = {"file": self._transfer(Path(built.file)), "digest": built.digest, "host": built.host}
            return self._run_module({**arguments, "_controller": {"parcel": parcel}}, task_vars)
        except AnsibleConnectionFailure:
            raise
        except (AnsibleError, OSError) as error:
            return {"failed": True, "msg": str(error)}

    def _run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        controller = {**arguments["_controller"], **self._for_doctor}
        answer = self.run_module({**arguments, "_controller": controller}, task_vars)
        shown = answer.get("invocation", {}).get("module_args", {})
        shown.pop("_controller", None)
        return answer

    def _provide(self, needs: dict[str, Any], arguments: dict[str, Any], host: str) -> dict[str, str]:
        """Put on the host what an installation needs, into the task's own temporary directory.

        Raises:
            CaveError: the controller does not have it.
        """
        provided = {}
        with tempfile.TemporaryDirectory(prefix="caveclient-", dir=constants.DEFAULT_LOCAL_TMP) as folder:
            if needs["tools"]:
                kind, file = _host_tools.find_tool(needs["tools"], needs["host"], Path(folder))
                display.vv(f"bringing {file.name} for the installation", host=host)
                provided[kind] = self._transfer(file, executable=kind == "uv")
            if needs["wheels"]:
                folders = [
                    self._find_folder(place) for place in _as_list(arguments["find_links"]) if "://" not in place
                ]
                archive = _host_tools.pack_wheels(folders, needs["host"], Path(folder, "wheels.tar"))
                display.vv(f"bringing the wheels of {', '.join(map(str, folders))}", host=host)
                provided["wheels"] = self._transfer(archive)
        return provided

    def _bring_doctor(self, content: bytes, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._ensure_tmp_path()
        with tempfile.TemporaryDirectory(prefix="caveclient-", dir=constants.DEFAULT_LOCAL_TMP) as folder:
            file = Path(folder, "cave-doctor")
            file.write_bytes(content)
            path = self._transfer(file)
        return self._run_module({**arguments, "_controller": {"doctor_file": path}}, task_vars)

    def _find_folder(self, place: str) -> Path:
        try:
            return Path(self._find_needle("files", str(Path(place).expanduser())))
        except AnsibleError as error:
            raise CaveError(
                f"find_links: {place} is not on the controller. For a folder on the host, set remote_src: true."
            ) from error

    def _ensure_tmp_path(self) -> None:
        """Make the task's temporary directory, which the module works in as well; the task's end removes it."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()

    def _as_it_is(self, move: Callable[[], object]) -> None:
        """Move a large file, over a connection that does not compress: the usual one, which does, is the way out.

        Ansible's default for SSH is -C. That takes seconds for what is packed already, and holds for all that shares a
        connection. Where only a connection that is there already lets somebody in, a new one fails.
        """
        arguments = str(self.get_connection_option("ssh_args") or "")
        plain = re.sub(r"(?<!\S)-C(?!\S)", "-o ControlPath=none", arguments)
        if plain != arguments:
            try:
                self._connection.set_option("ssh_args", plain)
                move()
                return
            except AnsibleError as error:
                display.vv(f"not moved without compression: {error}")
            finally:
                self._connection.set_option("ssh_args", arguments)
        move()

    def _fetch(self, remote: str, place: str) -> None:
        self._as_it_is(partial(self._connection.fetch_file, remote, place))

    def _transfer(self, file: Path, executable: bool = False) -> str:
        shell = self._connection._shell
        path: str = shell.join_path(shell.tmpdir, file.name)
        move = partial(self._transfer_file, str(file), path)
        if file.stat().st_size < _LARGE:
            move()
        else:
            self._as_it_is(move)
        self._fixup_perms2((shell.tmpdir, path), execute=executable)
        return path


def _with_warning(answer: dict[str, Any], text: str) -> dict[str, Any]:
    return {**answer, "warnings": [*answer.get("warnings", ()), text]}


def _as_list(value: Any) -> list[str]:
    """Return a list option as the module will see it: text is cut at its commas."""
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else str(value).split(",")
