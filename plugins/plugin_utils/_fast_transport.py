# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module on its way to a host: as one program on the standard input of the host's Python.

Ansible sends a module in an archive, together with its own ``module_utils``, and the host's Python compiles all of it
at every start: that is most of what a task costs there. A program of this kind holds the module with this collection's
``module_utils`` alone, as bytecode for hosts that have the controller's Python version, and as source for all others.
It is one of Ansible's "JSON args modules", so all the rest of the way is Ansible's own: interpreter, become,
environment, result. The arguments are checked here, by Ansible's own validator.
"""

from __future__ import annotations

import ast
import binascii
import fcntl
import importlib.util
import marshal
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ansible_collections.connectomics.cave.plugins.module_utils._masking import masked, secrets_among
from ansible_collections.connectomics.cave.plugins.module_utils._module import strings_out_of_place
from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import without_shown_tokens

COLLECTION = "connectomics.cave"
PACKAGE = f"ansible_collections.{COLLECTION}.plugins"
PLUGINS = Path(__file__).parent.parent
BASIC = "ansible.module_utils.basic"
OLDEST = (3, 8)
"""The Python that a managed host must have at least."""

LAUNCHER = '''\
#!/usr/bin/python
# {name}, made by {collection} for the standard input of a host's Python.
import sys

# Nothing is imported from the folder that the program happens to run in.
sys.path[:] = [path for path in sys.path if path not in ("", globals().get("__file__", "").rpartition("/")[0])]
if sys.version_info < {oldest!r}:
    print('{{"failed": true, "changed": false, "msg": "{too_old}"}}' % (sys.executable, sys.version.split()[0]))
    sys.exit(1)

import binascii, gc, marshal, zlib
from _frozen_importlib import ModuleSpec  # as importlib.machinery has it, and importlib.util the other, which
from _frozen_importlib_external import MAGIC_NUMBER  # import a third of what a start of Python takes

gc.disable()  # all is over before there is anything to collect


def unpacked(text):
    return marshal.loads(zlib.decompress(binascii.a2b_base64(text)))


class Sent:
    """Imports what was sent."""

    def __init__(self):
        self.files = {files!r}
        self.is_bytecode = MAGIC_NUMBER == {magic!r}
        self.codes = unpacked({bytecode!r}) if self.is_bytecode else self.sources()
        self.packages = {{name.rsplit(".", depth)[0] for name in self.codes for depth in range(1, name.count(".") + 1)}}

    def sources(self):
        return unpacked({sources!r})

    def find_spec(self, name, path=None, target=None):
        if name in self.codes or name in self.packages:
            return ModuleSpec(name, self, origin=self.files.get(name), is_package=name in self.packages)

    def create_module(self, spec):
        return None

    def get_source(self, name):
        return self.sources()[name]

    def exec_module(self, module):
        name = module.__name__
        if name in self.codes:
            module.__file__ = self.files[name]
            code = self.codes[name]
            if self.is_bytecode:
                code = marshal.loads(code)
            else:
                code = compile(code, self.files[name], "exec", dont_inherit=True)
            exec(code, module.__dict__)


sys.meta_path.insert(0, Sent())
basic = __import__("{basic}", fromlist=["basic"])
basic.arguments = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""
__import__("{name}", fromlist=["main"]).main()
'''
_TOO_OLD = "%s is Python %s. Python {}.{} or later is needed: set ansible_python_interpreter to one."


class HostAction(ActionBase):
    """Runs modules of this collection on a host, as programs, with their arguments on standard input.

    Without pipelining Ansible writes a module's arguments into a temporary file, on the controller and on the host. A
    token must not lie there, so pipelining is on for these modules wherever the connection knows it.
    """

    _shared_loader_obj: Any
    module: ModuleType
    """The module, imported with the action: Ansible's workers, one for each host, are copies made after that."""

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return module_style == "new" and bool(self._connection.has_pipelining) and not wrap_async

    def run_module(self, args: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the host, and return its result, or what is wrong with its arguments."""
        checked, complaint = check_arguments(self.module, without_shown_tokens(dict(args)))
        if complaint:
            return {"failed": True, "changed": False, "msg": complaint}
        loader: Any = self._shared_loader_obj
        name = full_name(self.module)

        def find(wanted: str, *more: Any, **options: Any) -> Any:
            if wanted != name:
                return loader.module_loader.find_plugin_with_context(wanted, *more, **options)
            path = str(program_file(name.rpartition(".")[2]))
            return SimpleNamespace(resolved=True, redirect_list=[], plugin_resolved_path=path)

        self._shared_loader_obj = _Instead(
            loader, module_loader=_Instead(loader.module_loader, find_plugin_with_context=find)
        )
        try:
            result: dict[str, Any] = self._execute_module(
                module_name=name, module_args=without_shown_tokens(checked), task_vars=task_vars
            )
        finally:
            self._shared_loader_obj = loader
        return result


class _Instead:
    """An object as it is, but for some of its attributes."""

    def __init__(self, whole: Any, **attributes: Any) -> None:
        self._whole = whole
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def full_name(module: ModuleType) -> str:
    """Return the name by which a task calls a module."""
    return f"{COLLECTION}.{module.__name__.rpartition('.')[2]}"


def check_arguments(module: ModuleType, args: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a module's arguments with defaults, each of its type, and what is wrong with them (empty: nothing).

    Args:
        module: the module.
        args: as the task has them.
    """
    wanted = module.ARGUMENTS
    spec = wanted["argument_spec"]
    # A path's ~ and variables are the host's, not those of the controller.
    here = {
        name: {**option, "type": "str"} if option.get("type") == "path" else option for name, option in spec.items()
    }
    result = ArgumentSpecValidator(**{**wanted, "argument_spec": here}).validate(dict(args))
    if not result.error_messages:
        return dict(result.validated_parameters), ""
    complaint = str(result.errors.msg)
    if isinstance(result.errors[0], UnsupportedError):
        complaint = f"Unsupported parameters for ({full_name(module)}) module: {complaint}"
    secrets = {*secrets_among(args, spec), *strings_out_of_place(args, spec)}
    return {}, str(masked(complaint, secrets))


def program_file(module: str) -> Path:
    """Return the file with a module's program, in the folder that Ansible removes when the run is over.

    It is made by the first of Ansible's workers that needs it, and the others wait.
    """
    folder = Path(constants.DEFAULT_LOCAL_TMP, COLLECTION)
    file = folder / f"{module}.py"
    if not file.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / f"{module}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                unfinished = file.with_suffix(".new")
                unfinished.write_text(program(module), encoding="ascii")
                unfinished.replace(file)
    return file


def program(module: str) -> str:
    """Return a module's program, in which Ansible puts the arguments in the marked place."""
    parts = list(_parts(f"{PACKAGE}.modules.{module}"))
    return LAUNCHER.format(
        name=f"{PACKAGE}.modules.{module}",
        collection=COLLECTION,
        oldest=OLDEST,
        too_old=_TOO_OLD.format(*OLDEST),
        files={part.name: part.file for part in parts},
        magic=importlib.util.MAGIC_NUMBER,
        bytecode=_packed(
            {part.name: marshal.dumps(compile(part.tree, part.file, "exec", dont_inherit=True)) for part in parts}
        ),
        sources=_packed({part.name: part.text for part in parts}),
        basic=BASIC,
    )


def _packed(value: Mapping[str, str | bytes]) -> bytes:
    # The fourth version of the format is one that every Python can read.
    return binascii.b2a_base64(zlib.compress(marshal.dumps(dict(value), 4)), newline=False)


class _Part(NamedTuple):
    """One of the files of a program: under which name it is imported, what tracebacks call it, and what is in it."""

    name: str
    file: str
    text: str
    tree: ast.Module


def _parts(module: str) -> Iterator[_Part]:
    """Yield a module, by its full name, and all that it imports of this collection, also later on."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            inside = "module_utils._basic" if name == BASIC else name.removeprefix(f"{PACKAGE}.")
            file = f"{inside.replace('.', '/')}.py"
            text = (PLUGINS / file).read_text(encoding="utf-8")
            tree = ast.parse(text)
            yield _Part(name, f"{PACKAGE.replace('.', '/')}/{file}", text, tree)
            waiting += _imports(tree)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if (PLUGINS / node.module.removeprefix(f"{PACKAGE}.").replace(".", "/")).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif node.module == BASIC or node.module.startswith(f"{PACKAGE}.module_utils."):
                yield node.module
