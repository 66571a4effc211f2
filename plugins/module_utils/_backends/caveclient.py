# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module caveclient does: an environment, and the Jupyter kernel that offers it, each by the right account."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils import _trust, _users
from ansible_collections.connectomics.cave.plugins.module_utils._environment import doctor as _doctor
from ansible_collections.connectomics.cave.plugins.module_utils._environment import kernel as _kernel
from ansible_collections.connectomics.cave.plugins.module_utils._environment import processes as _processes
from ansible_collections.connectomics.cave.plugins.module_utils._environment import proof as _proof
from ansible_collections.connectomics.cave.plugins.module_utils._environment.builds import Builds
from ansible_collections.connectomics.cave.plugins.module_utils._environment.environment import Answer, Contents
from ansible_collections.connectomics.cave.plugins.module_utils._environment.existing import Existing
from ansible_collections.connectomics.cave.plugins.module_utils._environment.managed import Managed
from ansible_collections.connectomics.cave.plugins.module_utils._environment.request import (
    FromController,
    Mode,
    Options,
    parse_options,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.ca_bundles import flaw_of_bundle
from ansible_collections.connectomics.cave.plugins.module_utils._systems import this_system

_GRACE = 30.0
"""Seconds that a process which works for a user has besides the task's own time, to say why that was not enough."""
_KERNEL_TIMEOUT = 60.0


class _Kernel(NamedTuple):
    """What was done about the kernel, or would be."""

    reasons: tuple[str, ...] = ()
    before: bool = False
    """Whether there was a kernel that starts the environment."""
    after: bool = False


def run(params: Mapping[str, Any], check_mode: bool, tmpdir: str) -> dict[str, Any]:
    """Do what the module is asked for, and return its answer.

    Raises:
        CaveError: it cannot be done; what was live before still is.
    """
    options = parse_options(params)
    controller = params["_controller"] or {}
    with _explained(*_environment_of(options)):
        if controller.get("doctor_file"):
            return _install_doctor(options, controller["doctor_file"])
        if controller.get("pack"):
            return _pack(options, controller["pack"])
        mode = Mode(check_mode, bool(controller.get("plan")), tmpdir)
        return _run(options, params["state"], mode, controller.get("doctor_digest", ""))


def _run(options: Options, state: str, mode: Mode, doctor_digest: str) -> dict[str, Any]:
    owner = _owner(options)
    wanted = options.kernel if state == "present" else "" if state == "absent" else None
    python = options.interpreter or os.path.join(options.path, "current", "bin", "python")
    kernel_of = _kernel_account(options, wanted, owner)
    if state != "absent":
        _doctor_reasons(options, state, doctor_digest, check=True)  # what is in its way is told before anything is done
    answer = _work(options, state, mode, owner)
    if answer.needs:
        plan = {"doing": answer.description, "needs": answer.needs}
        return {"changed": True, "reasons": list(answer.reasons), "plan": plan}
    kernel = kernel_of(python, wanted, True)
    if kernel.reasons and not mode.check:
        with _alone(options) if wanted else contextlib.nullcontext():  # another run may have done it meanwhile
            kernel = kernel_of(python, wanted, False)
    doctor = _doctor_reasons(options, state, doctor_digest, mode.check)
    result = _result(options, python, answer, kernel, [*answer.reasons, *kernel.reasons, *doctor])
    return {**result, "doctor_needed": doctor if state == "present" and not mode.check else []}


def _result(options: Options, python: str, answer: Answer, kernel: _Kernel, reasons: list[str]) -> dict[str, Any]:
    there = bool(answer.after.version)
    place = os.path.dirname(os.path.dirname(python))
    file = str(_kernel.kernel_file(options.jupyter_dir))
    return {
        "changed": bool(reasons),
        "reasons": reasons,
        "version": answer.after.version,
        "previous_version": answer.before.version,
        "python_version": answer.after.python_version,
        "environment": place if there else "",
        "python": python if there else "",
        "build": answer.after.build,
        "packages": dict(sorted(answer.after.packages.items())),
        "kernel": file if kernel.after else "",
        "doctor": options.doctor if options.doctor and _doctor.is_there(options.doctor) else "",
        "installer": answer.installed_with,
        "installer_output": answer.output,
        "diff": {
            "before_header": place,
            "after_header": place,
            "before": _as_text(answer.before, file if kernel.before else ""),
            "after": _as_text(answer.after, file if kernel.after else ""),
        },
    }


def _as_text(contents: Contents, kernel_file: str) -> str:
    if not contents.version:
        return ""
    others = [f"{name} {version}" for name, version in sorted(contents.packages.items()) if name != "caveclient"]
    lines = [f"caveclient {contents.version}", f"Python {contents.python_version}"]
    if kernel_file:
        lines.append(f"Jupyter kernel {kernel_file}")
    return "\n".join([*lines, *others, ""])


# --- The environment ---


def _owner(options: Options) -> pwd.struct_passwd | None:
    """Return the user to whom the environment belongs; None: this process's own account works on it.

    Raises:
        CaveError: several can change it.
    """
    if not options.interpreter.startswith("/"):
        return None
    remedy = (
        "Root runs nothing that others can change, and does a user's work as that user: use an environment that root "
        "or one user alone can write, or leave 'interpreter' out for one below 'path'."
    )
    owner = _trust.account_for("interpreter", options.interpreter, remedy)
    if owner is None and os.geteuid() == 0:
        changeable = _trust.python_changeable(options.interpreter, (0,))
        if changeable:
            raise CaveError(f"interpreter: {changeable}, so root does not run {options.interpreter}. {remedy}")
    return owner


def _work(options: Options, state: str, mode: Mode, owner: pwd.struct_passwd | None) -> Answer:
    """Do to the environment what is asked for, as its owner."""
    if owner is None:
        return _do(options, state, mode)
    # Now: a process that has become a user may not be able to read what Ansible runs for root.
    import configparser  # noqa: F401
    import tarfile  # noqa: F401

    with _handed_over(options.from_controller, owner) as theirs:
        asked = options._replace(from_controller=theirs)

        def work() -> list[Any]:
            _processes.become(owner)
            return _do(asked, state, mode._replace(tmpdir="")).as_json()

        return Answer.from_json(_users.run_as(owner, work, options.timeout + _GRACE))


def _do(options: Options, state: str, mode: Mode) -> Answer:
    with _explained(*_environment_of(options)):
        if state == "absent" and os.path.isabs(options.interpreter) and not os.path.lexists(options.interpreter):
            return Answer()
        environment = Existing(options, mode) if options.interpreter else Managed(options, mode)
        if state == "absent":
            return environment.absent()
        if state == "rolled_back":
            return environment.rolled_back()
        return environment.present()


def _environment_of(options: Options) -> tuple[str, str]:
    """Return where the environment is, and which option says so."""
    return (options.interpreter, "interpreter") if options.interpreter else (options.path, "path")


@contextlib.contextmanager
def _explained(place: str, option: str = "") -> Iterator[None]:
    """Say what the system refuses, and let everybody use what is made meanwhile, whatever root's umask is.

    Args:
        place: the path of what is worked on.
        option: which one names it, for the remedy.
    """
    umask = os.umask(0o022)
    try:
        yield
    except OSError as error:
        remedy = ""
        if isinstance(error, PermissionError):
            role_variable = {"doctor": "doctor_path"}.get(option, option)
            other = f"{option} (of the role: caveclient_{role_variable})" if option else "path"
            remedy = f"Run the task with become: true, or choose another {other}."
        # A file that is made beside another one, and then takes its place, has a name that says nothing.
        named = error.filename if os.path.isabs(str(error.filename or "")) else place
        raise CaveError(f"{named}: {error.strerror}. {remedy}".strip()) from error
    finally:
        os.umask(umask)


def _pack(options: Options, file: str) -> dict[str, Any]:
    with _explained(file):
        environment = Managed(options, Mode())
        digest = environment.pack(file)
        return {"changed": False, "build": environment.contents().build, "digest": digest}


@contextlib.contextmanager
def _handed_over(given: FromController, owner: pwd.struct_passwd) -> Iterator[FromController]:
    """Copy what the controller has brought to where a user can read it."""
    folder = _processes.private_folder("caveclient-")
    try:
        copies = {}
        for tool, source in given._asdict().items():
            if source:
                copies[tool] = os.path.join(folder, os.path.basename(source))
                shutil.copyfile(source, copies[tool])
                os.chmod(copies[tool], 0o700)
                os.chown(copies[tool], owner.pw_uid, owner.pw_gid)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        yield given._replace(**copies)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- cave-doctor ---


def _doctor_reasons(options: Options, state: str, wanted: str, check: bool) -> list[str]:
    """Return why the program has to change; it is removed here, and installed once the controller has brought it."""
    path = options.doctor
    if not path:
        return []
    with _explained(path, "doctor"):
        if state == "absent":
            if not _doctor.is_there(path):
                return []
            if not check:
                _doctor.remove(path)
            return [f"cave-doctor in {path} is not wanted"]
        _doctor.check_place(path)
        _proof.check_open("doctor", os.path.dirname(path))
    reasons = [] if _doctor.is_current(path, wanted) else [f"{path} is not the cave-doctor of this collection"]
    environment = _with_doctor(options)
    if environment and not _doctor.is_in(environment, wanted):
        reasons.append(f"{environment} has not the cave-doctor of this collection")
    return reasons


def _with_doctor(options: Options) -> str:
    """Return the folder of the managed environment, which has the program as well; empty where there is none."""
    environment = "" if options.interpreter else os.path.join(options.path, "current")
    return environment if os.path.isdir(environment) else ""


def _install_doctor(options: Options, source: str) -> dict[str, Any]:
    wanted = _doctor.digest(Path(source).read_bytes())
    with _alone(options), _explained(options.doctor, "doctor"):
        needed = _doctor_reasons(options, "present", wanted, check=False)
        if needed:
            _doctor.install(options.doctor, source)
        environment = _with_doctor(options) if needed else ""
        if environment:
            _doctor.install_in(environment, source)
    return {"changed": bool(needed), "doctor": options.doctor}


@contextlib.contextmanager
def _alone(options: Options) -> Iterator[None]:
    """Keep out other runs for the same managed environment, so that what two do at the same time is said of one."""
    if options.interpreter or not os.path.isdir(options.path):
        yield
        return
    with Builds(options.path).locked(options.timeout):
        yield


# --- The kernel ---


def _kernel_account(
    options: Options, wanted: str | None, owner: pwd.struct_passwd | None
) -> Callable[[str, str | None, bool], _Kernel]:
    """Return what looks at the kernel, and writes or removes it, as the account to which the Jupyter folder belongs.

    Raises:
        CaveError: a kernel is asked for, and several accounts can change the folder, or it would start a user's code
            for others.
    """
    file = _kernel.kernel_file(options.jupyter_dir)
    remedy = "Choose a folder that root or one user alone can write, such as /usr/local/share/jupyter."
    try:
        account = _trust.account_for("jupyter_dir", str(file.parent), remedy)
    except CaveError:
        if wanted:
            raise
        return lambda _python, _wanted, _check: _Kernel()  # none that root made
    if wanted and owner and (account is None or account.pw_uid != owner.pw_uid):
        raise CaveError(
            f"jupyter_kernel: {options.interpreter} belongs to {owner.pw_name}, and a kernel in {options.jupyter_dir} "
            f"would run code of {owner.pw_name} for everybody. Set jupyter_kernel to '' (of the role: "
            f"caveclient_jupyter_kernel: false), or jupyter_dir to {this_system().jupyter_of(owner.pw_dir)}."
        )

    if wanted and options.ca_path and (flaw := flaw_of_bundle(options.ca_path)):
        raise CaveError(f"ca_path: {options.ca_path} {flaw} on this host. Name a file of CA certificates (PEM).")
    if wanted and account is None:
        _proof.check_directory("jupyter_dir", file.parent)
        _proof.check_open("jupyter_dir", str(file.parent))
        _check_for_users(options)

    def work(python: str, name: str | None, check: bool) -> _Kernel:
        def of_account() -> list[Any]:
            return list(_update_kernel(file, python, name, options.ca_path, check))

        if account is None:
            return _update_kernel(file, python, name, options.ca_path, check)
        reasons, before, after = _users.run_as(account, of_account, _KERNEL_TIMEOUT)
        return _Kernel(tuple(reasons), before, after)

    return work


def _check_for_users(options: Options) -> None:
    """Make sure that users can start and read what the kernel names.

    Raises:
        CaveError: they cannot.
    """
    for part in _trust.parts_of_python(options.interpreter) if options.interpreter else ():
        _proof.check_open("jupyter_kernel", part)
    if options.ca_path:
        closed = _trust.closed_to_others(options.ca_path) if os.geteuid() == 0 else ""
        if closed:
            raise CaveError(
                f"ca_path: notebooks cannot read {options.ca_path}: {closed}. Name a file that everybody can read."
            )


def _update_kernel(file: Path, python: str, wanted: str | None, ca_path: str, check: bool) -> _Kernel:
    """Write or remove the kernel's description, unless ``wanted`` is None or it is as it has to be."""
    with _explained(str(file), "jupyter_dir"):
        before = _kernel.belongs_to(file, python)
        if wanted:
            content = _kernel.kernel_content(python, wanted, ca_path)
            if _kernel.read_kernel(file) == content:
                return _Kernel((), before, True)
            if not check:
                _kernel.write_kernel(file, content)
            return _Kernel((f"the Jupyter kernel {wanted!r} is not described in {file}",), before, True)
        if wanted is None or not before:
            return _Kernel((), before, before)
        if not check:
            _kernel.remove_kernel(file)
        return _Kernel((f"the Jupyter kernel in {file} is not wanted",), before, False)
