# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fast way to a host: a module as one program, which leaves most of ``ansible.module_utils`` behind.

Ansible sends a module in an archive, with as much of ``ansible.module_utils`` as it imports, and the host's Python
compiles all of it at every start: that is most of what a task costs there. A program of this kind holds the module and
this collection's ``module_utils`` alone, with ``_basic.py`` in the place of ``ansible.module_utils.basic``. To Ansible
it is a "JSON args module"; all the rest is Ansible's own affair.

This is an optimisation. It is taken where Ansible itself pipelines, and where nothing else looks into a module on its
way; everywhere else a module goes as any other does. ``caveclient_fast: false`` turns it off.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.loader import module_loader
from ansible.release import __version__

from ansible_collections.connectomics.cave.plugins.plugin_utils._controller import made_once

COLLECTION = "connectomics.cave"
PACKAGE = f"ansible_collections.{COLLECTION}.plugins"
PLUGINS = Path(__file__).parent.parent
BASIC = "ansible.module_utils.basic"
_IMPORT = re.compile(rf"^ *from ({BASIC}|{PACKAGE}\.module_utils[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
TESTED = ("2.17", "2.18", "2.19", "2.20", "2.21")  # versions of ansible-core

LAUNCHER = '''\
#!/usr/bin/python
# {module}, made for the standard input of a host's Python.
import sys

if sys.version_info < (3, 8):
    print('{{"failed": true, "msg": "{too_old}"}}' % (sys.executable, sys.version.split()[0]))
    sys.exit(1)
sys.path[:] = [path for path in sys.path if path]  # nothing is imported from the folder that this runs in

import binascii, gc, json, zlib
from _frozen_importlib import ModuleSpec  # importlib.machinery takes a third of what a start of Python takes

gc.disable()  # all is over before there is anything to collect


class Sent:
    sources = json.loads(zlib.decompress(binascii.a2b_base64({sources!r})))
    packages = {{name.rsplit(".", depth)[0] for name in sources for depth in range(1, name.count(".") + 1)}}

    def find_spec(self, name, path=None, target=None):
        if name in self.sources or name in self.packages:
            return ModuleSpec(name, self, is_package=name in self.packages)

    def create_module(self, spec):
        return None

    def get_source(self, name):
        return self.sources[name]

    def exec_module(self, module):
        if module.__name__ in self.sources:
            # No file can have this name: none that lies there is taken for the source.
            module.__file__ = "/dev/null/{{}}.py".format(module.__name__.replace(".", "/"))
            code = compile(self.sources[module.__name__], module.__file__, "exec", dont_inherit=True)
            exec(code, module.__dict__)


sys.meta_path.insert(0, Sent())
basic = __import__("{basic}", fromlist=["basic"])
basic.name = "{name}"
basic.arguments = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""
__import__("{module}", fromlist=["main"]).main()
'''


def fast_module(self: Any, args: dict[str, Any], task_vars: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of the module's program and its arguments, or None where Ansible's own way is to be taken.

    A method of ``HostAction``.
    """
    checked = checked_arguments(self.module.ARGUMENTS, args) if may_be_taken(self, task_vars) else None
    return None if checked is None else (known_program(self.module.__name__.rpartition(".")[2]), checked)


def may_be_taken(action: Any, task_vars: Mapping[str, Any]) -> bool:
    """Return whether Ansible pipelines, and whether nothing else has to do with the module on its way."""
    names = [*os.environ, *map(str, task_vars)]
    return (
        ".".join(__version__.split(".")[:2]) in TESTED
        and action.setting("fast", task_vars, default=True)
        and not action._task.async_val
        and not action.is_mitogen  # which must not be asked about pipelining
        and action._is_pipelining_enabled("new")
        # Debuggers and Ansible's measuring of coverage.
        and not any(name.upper().startswith(("_ANSIBLE_ANSIBALLZ_", "_ANSIBLE_COVERAGE_")) for name in names)
        and not constants.config.get_config_value("PYTHON_MODULE_RLIMIT_NOFILE", variables=task_vars)
    )


def checked_arguments(wanted: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a task's arguments as ``ARGUMENTS`` of a module want them; None when there is anything to say of them."""
    # A path's ~ and variables are the host's, not those of the controller.
    spec = {
        name: {**option, "type": "str"} if option.get("type") == "path" else option
        for name, option in wanted["argument_spec"].items()
    }
    result = ArgumentSpecValidator(**{**wanted, "argument_spec": spec}).validate(dict(args))
    complaints = result.error_messages or result._warnings or result._deprecations
    return None if complaints else dict(result.validated_parameters)


def known_program(module: str) -> str:
    """Return the name by which Ansible finds a module's program, in the folder that it removes when the run is over.

    No file of a playbook or of the current folder has that name, which holds a digest.
    """

    def make() -> tuple[str, bytes]:
        text = program(module).encode("ascii")
        return f"connectomics_cave_{module}_{hashlib.sha256(text).hexdigest()[:16]}.py", text

    path = made_once(module, make)
    module_loader.add_directory(str(path.parent))
    return f"ansible.legacy.{path.stem}"  # a role may look in its own collection alone


def program(module: str) -> str:
    """Return a module's program, in which Ansible puts the arguments in the marked place."""
    sources = json.dumps(dict(sources_of(f"{PACKAGE}.modules.{module}")))
    return LAUNCHER.format(
        module=f"{PACKAGE}.modules.{module}",
        name=f"{COLLECTION}.{module}",
        sources=binascii.b2a_base64(zlib.compress(sources.encode("ascii")), newline=False),
        basic=BASIC,
        too_old="%s is Python %s. Python 3.8 or later is needed: set ansible_python_interpreter to one.",
    )


def sources_of(module: str) -> Iterator[tuple[str, str]]:
    """Yield the full name and the source of a module, and of all that it imports of this collection, also later on."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            inside = "module_utils._basic" if name == BASIC else name.removeprefix(f"{PACKAGE}.")
            source = (PLUGINS / f"{inside.replace('.', '/')}.py").read_text(encoding="utf-8")
            yield name, source
            waiting += _imports(source)


def _imports(source: str) -> Iterator[str]:
    for name, aliases in _IMPORT.findall(source):
        if (PLUGINS / name.removeprefix(f"{PACKAGE}.").replace(".", "/")).is_dir():
            yield from (f"{name}.{alias.split()[0]}" for alias in aliases.strip("()").split(",") if alias.strip())
        else:
            yield name
