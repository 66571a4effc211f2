# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base classes of the action plugins: nothing secret among a task's arguments is shown, and none lies in a file."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError, unexpected
from ansible_collections.connectomics.cave.plugins.module_utils._masking import (
    PART_HIDDEN,
    masked,
    misplaced_secret,
    secrets_among,
    shown_arguments,
    strings_out_of_place,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import (
    forces_terminal,
    given,
    is_encrypted,
    is_omitted,
    plain_string,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._fleet_run import (
    report_progress,
    require_core,
    wait_for_turn,
)
from ansible_collections.connectomics.cave.plugins.plugin_utils._local_servers import with_local_servers
from ansible_collections.connectomics.cave.plugins.plugin_utils._profiles import with_profiles
from ansible_collections.connectomics.cave.plugins.plugin_utils._variables import unknown_variables, wrong_variables

display = Display()

COLLECTION = "connectomics.cave"
_TERMINAL_ASKED_FOR = re.compile(
    r"(?:^|\s)-[46AaCfGgKkMNnqsTtVvXxYy]*t(?=\s|$)|(?i:requesttty\s*[= ]\s*[\"']?(yes|true|force))"
)
_WANTS_TERMINAL = re.compile(r"must have a tty|a terminal is required|a tty is required", re.IGNORECASE)
_KEPT = "_connectomics_cave_arguments"
_ALLOW = "caveclient_allow_remote_files: true"


class CaveAction(ActionBase):
    """Shows no token but in what ``run`` returns on purpose, and refuses one that is in the wrong place.

    Ansible hands a task's arguments to every callback plugin once the task is over, and some of these send them to a
    log server or a database. And it prints the message of an unexpected error, which may quote a token.
    """

    spec: ClassVar[Mapping[str, Any]] = {}
    """The argument spec. From it follows which arguments are shown."""
    quotes: ClassVar[frozenset[str]] = frozenset()
    """Options whose text may quote anything, as it is cleaned before it is printed or written."""
    _is_guarded = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "run" in cls.__dict__:
            cls.run = _guarded(cls.run)

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the task's arguments in the form that the argument spec wants."""
        return args

    def with_settings(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's arguments with what two of its variables add to them. What is given already stays.

        ``__caveclient_options`` is a mapping of options. ``__caveclient_variables`` is a list of options of which each
        is the variable ``caveclient_OPTION``, where that is set. Ansible would compile a template for each of them,
        and that on every host.
        """
        found: dict[str, Any] = {}
        if "__caveclient_options" in task_vars:
            options = self._templar.template(task_vars["__caveclient_options"])
            found = {name: value for name, value in options.items() if name in self.spec and not is_omitted(value)}
        for name in task_vars.get("__caveclient_variables") or ():
            value = given(functools.partial(self._templar.template, task_vars.get(f"caveclient_{name}")))
            if value is not None:
                found[name] = value
        return {name: self._as_list(name, value) for name, value in {**found, **args}.items()}

    def _wrong_variables(self, task_vars: Mapping[str, Any]) -> str:
        """Return what is wrong with the variables that the task takes, or with those that its play wants checked.

        ``__caveclient_check_variables`` is a list of names without ``caveclient_`` in front, or true for all variables
        of the role, which a host's first task checks.
        """
        check = task_vars.get("__caveclient_check_variables") or ()
        if check is True and not task_vars.get("__caveclient_installed"):
            return wrong_variables(task_vars, self._templar.template)
        taken = task_vars.get("__caveclient_variables") or ()
        names = [
            name for name in taken if task_vars.get(f"caveclient_{name}") is not None
        ]  # null: as if it was not set
        names += () if check is True else check
        return wrong_variables(task_vars, self._templar.template, names) if names else ""

    def _as_list(self, name: str, value: Any) -> Any:
        """Return an option's value, as a list where text stands for one: ``-e x="alice, bob"``."""
        option = self.spec.get(name, {})
        if not isinstance(value, str) or option.get("type") != "list" or option.get("elements") == "dict":
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    def complaint(self, task_vars: Mapping[str, Any]) -> str:
        """Return what is wrong with the place of a value among the task's arguments, without the value."""
        hosts = (task_vars.get("groups") or {}).get("all") or ()
        given = {name: value for name, value in self._task.args.items() if name not in self.quotes}
        return misplaced_secret(self.arguments(given), self.spec, frozenset(hosts))

    def setting(self, name: str, task_vars: Mapping[str, Any], default: bool) -> bool:
        """Return a switch that is an option of the task or, for all of them, the variable ``caveclient_NAME``."""
        value = self._task.args.get(name)
        if value is None:
            value = given(functools.partial(self._templar.template, task_vars.get(f"caveclient_{name}")))
        try:
            return default if value is None else boolean(value)
        except TypeError:
            raise AnsibleActionFail(f"caveclient_{name} is neither true nor false.") from None


def _guarded(run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return the ``run`` of an action plugin with its arguments checked before it, and hidden after it."""

    @functools.wraps(run)
    def guarding(self: Any, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._is_guarded:  # one that was guarded calls that of its base class
            return run(self, tmp, task_vars)
        self._is_guarded = True
        kept = given = _given(self._task)
        variables = task_vars or {}
        try:
            require_core()
            message = self._wrong_variables(variables)
            if not message:
                self._task.args = given = self.with_settings(given, variables)
                message = self.complaint(variables)
            _warn_of_typing_errors(variables)
            if not message:
                return run(self, tmp, task_vars)
        except AnsibleError as error:
            if isinstance(error.obj, Mapping):
                error.obj = None  # the arguments, which Ansible prints where it knows no line that they come from
            secrets = secrets_among(given, self.spec) | strings_out_of_place(given, self.spec)
            message = str(masked(str(error), secrets))
            if message == str(error):
                raise
        except Exception as error:  # noqa: BLE001 (see above)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                message = f"This controller, not the host, cannot write a file: {os.strerror(error.errno)}."
            else:
                message = unexpected(error)
        finally:
            self._task.args = shown_arguments(given, self.spec)
            self._task.__dict__[_KEPT] = self._task.args, kept
            self._is_guarded = False
        return {"failed": True, "changed": False, "msg": message}

    return guarding


def _given(task: Any) -> dict[str, Any]:
    """Return the arguments that a task was given: with retries it is run again, by another plugin, with those shown."""
    shown, given = task.__dict__.get(_KEPT, (None, task.args))
    arguments: dict[str, Any] = given if task.args is shown else task.args
    return arguments


class _Unshown(str):
    """A string that is itself everywhere but in the representation of what holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{PART_HIDDEN}'"


def unshown(args: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's arguments such that printing them shows no token, and nothing that could be one.

    With ANSIBLE_DEBUG, Ansible prints a module's arguments before the module has had a chance to mask any, and after
    it has refused them because one is misspelt.
    """

    def hide(value: Any) -> Any:
        return _Unshown(plain_string(value, "The token")) if isinstance(value, str) or is_encrypted(value) else value

    return shown_arguments(args, spec, hide)


def _warn_of_typing_errors(task_vars: Mapping[str, Any]) -> None:
    """Name the variables that are likely to be misspelt, unless the report of a playbook of this collection does so."""
    sentences = unknown_variables(task_vars)
    if sentences and "__caveclient_run" not in task_vars.get("hostvars", {}).get("localhost", {}):
        for sentence in sentences:
            display.warning(sentence)


class StockAction(CaveAction):
    """Knows no way to a host but Ansible's."""

    def fast_module(self, args: dict[str, Any], task_vars: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the arguments of what may be run in the place of the module, or None."""
        del args, task_vars
        return None


class HostAction(StockAction):
    """Runs a module of this collection on a host.

    Without pipelining Ansible writes a module with its arguments into a file, on the controller and on the host. A
    token does not lie there unless somebody has allowed it.
    """

    # The fast way. Without this line, and without that file, modules take Ansible's own way, which is slower.
    from ansible_collections.connectomics.cave.plugins.plugin_utils._fast_transport import fast_module  # type: ignore[misc]  # a method

    _reason = ""
    """What keeps tokens from being sent, as the host has told."""
    module: ModuleType
    """The module, imported with the action: Ansible's workers, one for each host, are copies made after that."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if hasattr(cls, "module"):
            cls.spec = cls.module.ARGUMENTS["argument_spec"]

    @property
    def is_mitogen(self) -> bool:
        """Whether Mitogen runs the module, which has a way of its own without files."""
        kinds = (*type(self).__mro__, *type(self._connection).__mro__)
        return any(kind.__module__.partition(".")[0] == "ansible_mitogen" for kind in kinds)

    def run_module(self, args: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the host, and return its result, or what keeps a token from being sent there."""
        variables = task_vars or {}
        sent = unshown(args, self.spec)
        if not self.is_mitogen:
            self._prefer_pipelining(variables)
        refusal = self._refusal(sent, variables)
        if refusal:
            return refusal
        try:
            result = self._send(sent, variables)
            said = " ".join(str(result.get(name, "")) for name in ("msg", "module_stderr", "module_stdout"))
            if not result.get("failed") or "module_stdout" not in result or not _WANTS_TERMINAL.search(said):
                return result
        except AnsibleError as error:
            if not _WANTS_TERMINAL.search(str(error)):
                raise
        # Ansible gives sudo the terminal that it wants when it does not pipeline.
        self._connection.set_option("pipelining", False)
        self._reason = "sudo wants a terminal (requiretty)"
        return self._refusal(sent, variables) or self._send(sent, variables)

    def _send(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        name = f"{COLLECTION}.{self.module.__name__.rpartition('.')[2]}"
        is_async = bool(self._task.async_val) and not self._connection.has_native_async
        fast = self.fast_module(args, variables)
        if fast is not None:
            name, args = fast[0], unshown(fast[1], self.spec)
        result: dict[str, Any] = self._execute_module(
            module_name=name, module_args=args, task_vars=variables, wrap_async=is_async
        )
        if result.get("failed"):  # what is no Python may show what it was sent: all that came is in the result
            return dict(masked(result, secrets_among(args, self.spec)))
        return result

    def _prefer_pipelining(self, variables: Mapping[str, Any]) -> None:
        """Ask Ansible for pipelining where nobody has said anything about it and nothing is known to forbid it."""
        connection, become = self._connection, self._connection.become
        if connection.transport == "ssh":
            self._want_no_terminal()
        origin = self._pipelining_origin(variables)
        if origin and (getattr(become, "require_tty", False) or self._asks_for_terminal()):
            connection.set_option("pipelining", False)  # ansible-core before 2.19 would hang
        elif origin == "default" and not (become and become.name != "sudo" and become.expect_prompt()):
            connection.set_option("pipelining", True)
            if not self._is_pipelining_enabled("new"):
                connection.set_option("pipelining", False)

    def _asks_for_terminal(self) -> bool:
        """Return whether the SSH options ask for a terminal, which ansible-core looks at since 2.19."""
        return bool(_TERMINAL_ASKED_FOR.search(" ".join(self._ssh_options())))

    def _ssh_options(self) -> list[str]:
        return [str(self.get_connection_option(f"ssh_{kind}args") or "") for kind in ("", "common_", "extra_")]

    def _want_no_terminal(self) -> None:
        """Have SSH want no terminal where one of its files has one for all that is run: Ansible's own modules hang."""
        options, name = self._ssh_options(), self.get_connection_option("ssh_executable")
        if forces_terminal(str(name), " ".join(options), str(self.get_connection_option("host"))):
            self._connection.set_option("ssh_extra_args", f"{options[-1]} -o RequestTTY=no")

    def _pipelining_origin(self, variables: Mapping[str, Any]) -> str:
        """Return where the connection's setting comes from; empty where it has none."""
        try:
            _value, origin = self._connection.get_option_and_origin(
                "pipelining", hostvars=self._own_variables(variables)
            )
        except (KeyError, AttributeError):
            return ""
        return str(origin)

    def _own_variables(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the variables that people set. ansible-core 2.17 puts its settings of connections among all others."""
        if hasattr(self._connection, "_origins"):
            return variables
        host, play = self._task.delegate_to or variables["inventory_hostname"], self._task._parent._play
        known = variables["hostvars"]
        raw = known.raw_get(host) if host in known else {}
        return {**raw, **(play.get_vars() if play else {}), **self._task.get_vars()}

    def _refusal(self, args: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of a task whose token would lie in a file; empty where it would not, or may."""
        message = self.why_no_token(variables) if self._holds_secret(args) else ""
        return {"failed": True, "changed": False, "msg": message} if message else {}

    def why_no_token(self, variables: Mapping[str, Any]) -> str:
        """Return why a token cannot be sent to the host in the way that the last task took; empty where it can."""
        is_async = bool(self._task.async_val)
        if not is_async and (self.is_mitogen or (not self._reason and self._is_pipelining_enabled("new"))):
            return ""
        cause, remedy = self._cause(variables)
        if not is_async and self.setting("allow_remote_files", variables, default=False):
            display.warning(
                f"Tokens lie in temporary files on hosts (and on this controller) while their tasks run, as "
                f"caveclient_allow_remote_files allows: {cause}."
            )
            return ""
        allow = "" if is_async else f" Or accept it: {_ALLOW}"
        return f"The token would lie in a temporary file on the host: {cause}. {remedy}{allow}"

    def _holds_secret(self, args: Mapping[str, Any]) -> bool:
        """Return whether the arguments hold more of a secret than the address of a package index without a password."""
        secrets = secrets_among(args, self.spec) | strings_out_of_place(args, self.spec)
        return any("@" in secret or "://" not in secret for secret in secrets)

    def _cause(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Return why there is no pipelining, and what to change."""
        connection, become = self._connection, self._connection.become
        if self._task.async_val:
            return "async is set", f"{self._task.action} takes seconds: take async out of the task."
        if self._reason:
            return self._reason, "Remove requiretty from the host's sudoers for this account."
        if constants.DEFAULT_KEEP_REMOTE_FILES:
            return "ANSIBLE_KEEP_REMOTE_FILES is set, and would keep it there", "Unset it."
        if not connection.has_pipelining:
            return f"the connection {connection.transport} has no pipelining", "Use another one, such as ssh."
        has_no = become and (getattr(become, "require_tty", False) or not getattr(become, "pipelining", True))
        if become and (become.name == "su" or has_no):
            return f"become_method {become.name} has no pipelining", "Use another one, such as sudo."
        if self._asks_for_terminal():
            return "the SSH options ask for a terminal (-t or RequestTTY)", "Take that out of them."
        origin = self._pipelining_origin(variables)
        where = "" if origin in ("", "default", "Direct") else f" ({origin})"
        return f"pipelining is off{where}", "Set ansible_pipelining: true."


class TokenAction(HostAction):
    """Runs a module that may have to wait for its turn to ask the server."""

    _supports_async = True
    entries: ClassVar[str] = ""
    """The option with what is asked for each user; empty for a module that looks at no secrets files."""

    def asks(self, args: Mapping[str, Any]) -> bool:  # noqa: ARG002 (for those who override it)
        """Return whether the local servers of datastacks may be asked for, with the tokens of the arguments."""
        return False

    def requests(self, args: dict[str, Any]) -> int:  # noqa: ARG002 (for those who override it)
        """Return how many requests the host is going to send to the server, as far as the arguments tell."""
        return 0

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module."""
        result = super().run(tmp, task_vars)
        try:
            args = with_profiles(self.arguments(self._task.args), self.entries)
        except CaveError as error:
            return {**result, "failed": True, "changed": False, "msg": error.message}
        return {**result, **self.run_on_host(args, task_vars)}

    def run_on_host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module when it is this host's turn to ask the server."""
        rate = args.get("rate") or 0
        try:
            wait_for_turn(self.requests(args), float(rate))
        except (TypeError, ValueError):
            return {"failed": True, "changed": False, "msg": "rate must be a number of requests a second, such as 0.5."}
        try:
            run = functools.partial(self.run_module, task_vars=task_vars)
            return with_local_servers(args, self.entries, self.asks(args), run) if self.entries else run(args)
        finally:
            report_progress(self._task, (task_vars or {}).get("ansible_play_hosts") or ())


def is_true(value: Any) -> bool:
    """Return whether a task's argument means yes; what means neither is the module's to refuse."""
    return value is True or str(value).strip().lower() in ("yes", "on", "1", "true", "t", "y")


def length(value: Any) -> int:
    """Return how many a list option holds; 1 when that is not given as a list."""
    return len(value) if isinstance(value, (list, tuple)) else 1


def tokens_to_prove(args: Mapping[str, Any]) -> int:
    """Return how many tokens saved_token asks the server about with these arguments."""
    entries: Any = args.get("tokens")
    default = args.get("validate", True)
    if not isinstance(entries, (list, tuple)):
        return int(is_true(default))
    found = [entry for entry in entries if isinstance(entry, Mapping)]
    return sum(is_true(default if entry.get("validate") is None else entry["validate"]) for entry in found)
