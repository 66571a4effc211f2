# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installing, switching and removing caveclient environments: what the module ``caveclient`` does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.connectomics.cave.plugins.module_utils._environment import builds as _builds
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installed as _installed
from ansible_collections.connectomics.cave.plugins.module_utils._environment import installers as _installers
from ansible_collections.connectomics.cave.plugins.module_utils._environment import kernel as _kernel
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installed import Request
from ansible_collections.connectomics.cave.plugins.module_utils._environment.installers import (
    Brought,
    Installer,
    Job,
    Python,
    Source,
)
from ansible_collections.connectomics.cave.plugins.module_utils._errors import CaveError


class Options(NamedTuple):
    """The module's options, checked."""

    request: Request
    path: str = "/opt/caveclient"
    interpreter: str = ""
    installer: str = "auto"
    source: Source = Source()
    links_are_here: bool = False
    """Whether folders in ``source.find_links`` are on this host; else they are on the controller."""
    keep: int = 1
    kernel: str | None = None
    """Display name of the Jupyter kernel; empty: there is to be none; None: leave it alone."""
    jupyter_dir: str = "/usr/local/share/jupyter"
    compile_all: bool = False
    timeout: float = 1800.0
    brought: Brought = Brought()


class Mode(NamedTuple):
    """How far a run may go."""

    check: bool = False
    """Predict, and change nothing."""
    plan: bool = False
    """Stop before an installation, and say what it needs; anything less is done."""
    tmpdir: str = ""
    """A directory for temporary files of this run."""


class View(NamedTuple):
    """An environment as it is, or would be."""

    packages: Mapping[str, str] = {}
    python_version: str = ""
    build: str = ""

    @property
    def version(self) -> str:
        """The version of its caveclient; empty without one."""
        return self.packages.get("caveclient", "")


class Plan(NamedTuple):
    """What a request amounts to."""

    reasons: tuple[str, ...] = ()
    """Why something has to be done; empty: nothing has."""
    install: bool = False
    switch_to: _builds.Build | None = None
    remove: tuple[Path, ...] = ()
    write_kernel: bool = False
    remove_kernel: bool = False


class _Environment:
    """What managed and existing environments have in common."""

    def __init__(self, options: Options, mode: Mode) -> None:
        self.options = options
        self.mode = mode
        self.environ = _installers.clean_environment(os.environ)
        self.deadline = time.monotonic() + options.timeout
        self.output = ""
        self.installed_with = ""

    # What differs

    place: Path
    """The environment's directory, as its users name it."""
    python: str
    """The Python that its users run."""

    def view(self) -> View:
        """Return the environment as it is."""
        raise NotImplementedError

    # Shared parts

    @property
    def kernel_file(self) -> Path:
        """The kernel's description."""
        return _kernel.kernel_file(self.options.jupyter_dir)

    def kernel_plan(self) -> Plan:
        """Return what is to be done about the kernel."""
        file, wanted = self.kernel_file, self.options.kernel
        if wanted and _kernel.read_kernel(file) != _kernel.kernel_content(self.python, wanted):
            return Plan(reasons=(f"the Jupyter kernel {wanted!r} is not described in {file}",), write_kernel=True)
        if wanted == "" and _kernel.belongs_to(file, self.python):
            return Plan(reasons=(f"the Jupyter kernel in {file} is not wanted",), remove_kernel=True)
        return Plan()

    def kernel_to_remove(self) -> Plan:
        """Return what is to be done about the kernel when the environment goes."""
        if _kernel.belongs_to(self.kernel_file, self.python):
            return Plan(reasons=(f"the Jupyter kernel in {self.kernel_file} belongs to it",), remove_kernel=True)
        return Plan()

    def apply_kernel(self, plan: Plan) -> None:
        """Write or remove the kernel's description."""
        if plan.write_kernel and self.options.kernel:
            _kernel.write_kernel(self.kernel_file, _kernel.kernel_content(self.python, self.options.kernel))
        if plan.remove_kernel:
            _kernel.remove_kernel(self.kernel_file)

    def has_kernel(self) -> bool:
        """Tell whether the kernel that is there starts this environment."""
        return _kernel.belongs_to(self.kernel_file, self.python)

    def remaining(self) -> float:
        """Return the seconds that are left of the time for the whole run."""
        return max(1.0, self.deadline - time.monotonic())

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Give a folder for this run alone."""
        folder = tempfile.mkdtemp(prefix="caveclient-", dir=self.mode.tmpdir or None)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def source(self, work: Path) -> Source:
        """Return where packages come from, with the wheels of the controller unpacked.

        Raises:
            CaveError: a folder is not here.
        """
        links = []
        for link in self.options.source.find_links:
            if "://" not in link and not self.options.links_are_here:
                continue
            if "://" not in link and not Path(link).exists():
                raise CaveError(
                    f"find_links: {link} is not on this host. For a folder on the controller, set remote_src: false."
                )
            links.append(link)
        if self.wants_wheels():
            if not self.options.brought.wheels:
                raise CaveError(
                    "find_links names a folder on the controller, and its wheels were not brought here: the module was "
                    "run without its action plugin. Set remote_src: true for a folder on this host."
                )
            wheels = work / "wheels"
            wheels.mkdir()
            _unpack(self.options.brought.wheels, wheels)
            links.append(str(wheels))
        return self.options.source._replace(find_links=tuple(links))

    def wants_wheels(self) -> bool:
        """Tell whether a folder of the controller is asked for."""
        return not self.options.links_are_here and any("://" not in link for link in self.options.source.find_links)

    def needs(self, python: Python) -> dict[str, Any]:
        """Return what an installation needs from the controller."""
        return {
            "tools": _installers.missing_tools(self.options.installer, python, self.environ),
            "wheels": self.wants_wheels(),
            "host": _installers.host_facts(python),
        }

    def doing(self, installer: str = "") -> str:
        """Return what an installation does, in words."""
        with_what = f" with {installer}" if installer else ""
        return f"install {self.options.request.named()} in {self.options.interpreter or self.options.path}{with_what}"

    def planned(self, python: Python, reasons: tuple[str, ...]) -> dict[str, Any]:
        """Return the answer of a run that stops before an installation."""
        return {"changed": True, "reasons": list(reasons), "plan": {"doing": self.doing(), "needs": self.needs(python)}}

    def preview(self, python: Python, fresh: bool) -> View:
        """Return the environment as an installation would leave it.

        Raises:
            CaveError: it could not be installed.
        """
        with self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=not fresh)
            before = {} if fresh else dict(self.view().packages)
            if not installer.can_preview:
                version = self.options.request.exact_version
                return View({**before, **({"caveclient": version} if version else {})}, python.version)
            job = self.job(installer, python.executable, self.source(work))
            outcome, found = _installers.preview(job, self.environ, work, fresh)
            if outcome.returncode != 0:
                raise self.failed(outcome, job)
            return View({**before, **found}, python.version)

    def find_installer(self, python: Python, work: Path, into_existing: bool) -> Installer:
        """Return an installer that runs here; see choose_installer."""
        wanted, brought = self.options.installer, self.options.brought
        try:
            return _installers.choose_installer(wanted, python, brought, self.environ, work, into_existing)
        except CaveError as error:
            needs = {**self.needs(python), "tools": error.details["needs"]}
            raise CaveError(error.message, needs=needs) from error

    def job(self, installer: Installer, python: str, source: Source) -> Job:
        """Return the job of installing what is asked for."""
        request = self.options.request
        return Job(
            installer,
            python,
            request.requirements,
            request.constraints,
            source,
            self.options.compile_all,
            self.remaining(),
        )

    def install(self, job: Job, work: Path, held: int) -> None:
        """Run the installer.

        Raises:
            CaveError: it failed.
        """
        outcome = _installers.install(job, self.environ, work, held=(held,))
        if outcome.returncode != 0:
            raise self.failed(outcome, job)
        self.installed_with = " ".join(job.installer[:2])
        self.output = _installers.mask_credentials(outcome.output + outcome.error)

    def failed(self, outcome: _installers.Outcome, job: Job) -> CaveError:
        """Return the error that a failed installer amounts to."""
        return _installers.explain(outcome, job.source, self.doing(job.installer.kind), self.options.timeout)

    def result(
        self, changed: bool, reasons: tuple[str, ...], before: View, after: View, kernels: tuple[bool, bool]
    ) -> dict[str, Any]:
        """Return what the module answers."""
        there = bool(after.version)
        return {
            "changed": changed,
            "reasons": list(reasons),
            "version": after.version,
            "previous_version": before.version,
            "python_version": after.python_version,
            "environment": str(self.place) if there else "",
            "python": self.python if there else "",
            "build": after.build,
            "packages": dict(sorted(after.packages.items())),
            "kernel": str(self.kernel_file) if kernels[1] else "",
            "installer": self.installed_with,
            "installer_output": self.output,
            "diff": {
                "before_header": str(self.place),
                "after_header": str(self.place),
                "before": _as_text(before, kernels[0], self.kernel_file),
                "after": _as_text(after, kernels[1], self.kernel_file),
            },
        }


class Managed(_Environment):
    """An environment that this module makes, with ``current`` pointing at its live build."""

    def __init__(self, options: Options, mode: Mode) -> None:
        super().__init__(options, mode)
        self.builds = _builds.Builds(options.path)
        self.place = self.builds.current
        self.python = str(self.builds.current / "bin" / "python")
        self.builds.check_place()

    def view(self) -> View:
        """Return the live build."""
        return self._view_of(self.builds.live())

    @staticmethod
    def _view_of(build: _builds.Build | None) -> View:
        if not build:
            return View()
        return View(_installed.installed_packages(build.site_packages), build.record["python"], build.path.name)

    # present

    def present(self) -> dict[str, Any]:
        """Make the live build one that holds what is asked for."""
        plan = self._plan()
        before, had_kernel = self.view(), self.has_kernel()
        has_kernel = bool(self.options.kernel) or (had_kernel and self.options.kernel is None)
        if not plan.reasons:
            return self.result(False, (), before, before, (had_kernel, has_kernel))
        after = before
        if plan.install and (self.mode.plan or self.mode.check):
            python = self._choose_python()
            if self.mode.plan:
                return self.planned(python, plan.reasons)
            after = self.preview(python, fresh=True)
        elif self.mode.check:
            after = self._view_of(plan.switch_to) if plan.switch_to else before
        else:
            with self.builds.locked(self.options.timeout) as lock:
                plan = self._plan()  # another run may have done it meanwhile
                before = self.view()
                self._apply(plan, lock)
                after = self.view()
        return self.result(bool(plan.reasons), plan.reasons, before, after, (had_kernel, has_kernel))

    def _plan(self) -> Plan:
        reasons = []
        live = self.builds.live()
        suitable = None
        shortfalls = self._shortfalls(live) if live else ["no build is live"]
        if shortfalls:
            # Only a build that certainly is what was asked for is taken from the shelf.
            others = [build for build in self.builds.complete() if build != live]
            suitable = next((build for build in others if not self._shortfalls(build)), None)
            reasons += shortfalls
        stays = suitable or live
        litter = [] if self.mode.check and self.builds.is_busy() else self.builds.litter()
        reasons += [f"{path} was left by a run that was interrupted" for path in litter]
        surplus = [] if shortfalls and not suitable else self._surplus(stays)
        reasons += [f"{path} is more than the {self.options.keep} kept" for path in surplus]
        kernel = self.kernel_plan()
        return Plan(
            reasons=(*reasons, *kernel.reasons),
            install=bool(shortfalls) and not suitable,
            switch_to=suitable,
            remove=(*litter, *surplus),
            write_kernel=kernel.write_kernel,
            remove_kernel=kernel.remove_kernel,
        )

    def _shortfalls(self, build: _builds.Build) -> list[str]:
        if not build.is_intact:
            return [f"the Python of {build.path} is gone ({build.record['base']})"]
        asked, has = self.options.request.python, build.record["python"]
        if asked and not _is_python(asked, build.record):
            return [f"its Python is {has}, {asked} is asked for"]
        if not self._python_suits(has):
            return [f"its Python is {has}, which is too old"]
        return _installed.reasons_to_install(
            self.options.request, build.record, build.site_packages, str(build.python), self.environ
        )

    def _python_suits(self, version: str) -> bool:
        # A build that is there was asked for; only a request for something newer makes its Python too old.
        exact = self.options.request.exact_version
        return not exact or _installers.installs_on(_installers.numbers(version)[:2], exact)

    def _surplus(self, live: _builds.Build | None) -> list[Path]:
        others = [build.path for build in self.builds.complete() if not live or build.path != live.path]
        return others[self.options.keep :]

    def _apply(self, plan: Plan, lock: int) -> None:
        for path in plan.remove:
            self.builds.remove(path)
        if plan.install:
            self.builds.switch(self._build(lock), asked_for=True)
        elif plan.switch_to:
            self.builds.switch(plan.switch_to, asked_for=True)
        self.apply_kernel(plan)
        if plan.install or plan.switch_to:
            # What was live may be surplus now, or have turned out to be no whole build.
            for path in [*self.builds.litter(), *self._surplus(self.builds.live())]:
                self.builds.remove(path)

    def _choose_python(self) -> Python:
        request = self.options.request
        return _installers.choose_python(request.python, request.exact_version)

    def _build(self, lock: int) -> _builds.Build:
        python = self._choose_python()
        place, work = self.builds.new_place()
        try:
            installer = self.find_installer(python, work, into_existing=False)
            source = self.source(work)
            made = _installers.make_environment(python, str(place), installer, self.environ)
            if made.returncode != 0:
                raise _installers.explain(made, source, f"make a virtual environment in {place}", self.remaining())
            own_python = str(place / "bin" / "python")
            self.install(self.job(installer, own_python, source), work, lock)
            site_packages = _installed.site_packages_of(place, python.version)
            request = self.options.request
            try:
                _installed.check_works(own_python, site_packages, request, self.environ, self.remaining(), held=(lock,))
            except CaveError as error:
                raise CaveError(error.message, **{"installer_output": self.output, **error.details}) from error
            packages = _installed.installed_packages(site_packages)
            record = _installed.make_record(request, python.version, python.base, self.installed_with, packages)
            return self.builds.finish(place, record)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    # rolled_back

    def rolled_back(self) -> dict[str, Any]:
        """Make the build live that was so before the one that was asked for last."""
        target = self._way_back()
        before, kernel = self.view(), self.has_kernel()
        if not target:
            return self.result(False, (), before, before, (kernel, kernel))
        reasons = (f"{target.path.name} was live before",)
        after = self._view_of(target)
        if not self.mode.check:
            with self.builds.locked(self.options.timeout):
                target = self._way_back()
                if target:
                    self.builds.switch(target, asked_for=False)
                after = self.view()
        return self.result(bool(target), reasons if target else (), before, after, (kernel, kernel))

    def _way_back(self) -> _builds.Build | None:
        """Return the build to go back to; None when that has been done already."""
        builds, live = self.builds.complete(), self.builds.live()
        if live and builds and live != builds[0]:
            return None
        earlier = next((build for build in builds if build != live and build.is_intact), None)
        if not earlier:
            raise CaveError(
                f"There is no earlier build below {self.builds.folder} to go back to. With keep: 1 or more, the next "
                "upgrade leaves one; for now, ask for the earlier version with state: present."
            )
        return earlier

    # absent

    def absent(self) -> dict[str, Any]:
        """Remove the environment with all its builds, and its kernel."""
        before, kernel = self.view(), self.kernel_to_remove()
        reasons = (*([f"{self.builds.path} is there"] if self.builds.is_ours() else []), *kernel.reasons)
        if reasons and not self.mode.check:
            self.apply_kernel(kernel)
            if self.builds.is_ours():
                with self.builds.locked(self.options.timeout):
                    self.builds.remove_all()
        return self.result(bool(reasons), reasons, before, View(), (kernel.remove_kernel, False))


class Existing(_Environment):
    """Somebody's environment, named by its Python, that caveclient is installed into."""

    def __init__(self, options: Options, mode: Mode) -> None:
        super().__init__(options, mode)
        self.python = options.interpreter
        path = Path(options.interpreter)
        if not path.is_absolute() or path.is_dir() or not os.access(path, os.X_OK):
            raise CaveError(
                f"interpreter: {path} is not a Python. Give the absolute path of the environment's Python, "
                "such as /opt/conda/envs/lab/bin/python."
            )
        self.place = path.parent.parent
        self.known = self._from_files()

    def _from_files(self) -> tuple[str, Path]:
        """Return the version of the environment's Python and its packages' folder; starts it only when it must."""
        version = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in (self.place / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
                key, _equals, value = line.partition("=")
                if key.strip() in ("version", "version_info"):
                    version = value.strip()
        folders = [path for path in self.place.glob("lib/python3.*/site-packages") if path.is_dir()]
        if version and _installed.site_packages_of(self.place, version) in folders:
            return version, _installed.site_packages_of(self.place, version)
        if (self.place / "conda-meta").is_dir() and len(folders) == 1:
            return folders[0].parent.name[len("python") :], folders[0]
        python = self.probe()
        return python.version, Path(python.site_packages)

    def probe(self) -> Python:
        """Ask the environment's Python what it is.

        Raises:
            CaveError: it does not run.
        """
        python = _installers.probe(self.python)
        if not python:
            raise CaveError(f"interpreter: {self.python} does not run, so it is not a Python of this host.")
        return python

    def view(self) -> View:
        """Return the environment as it is."""
        version, site_packages = self.known
        return View(_installed.installed_packages(site_packages), ".".join(version.split(".")[:2]))

    def _plan(self) -> Plan:
        record = _installed.read_record(self.place)
        reasons = _installed.reasons_to_install(self.options.request, record, self.known[1], self.python, self.environ)
        kernel = self.kernel_plan()
        return kernel._replace(reasons=(*reasons, *kernel.reasons), install=bool(reasons))

    def present(self) -> dict[str, Any]:
        """Install into the environment what is asked for and not there."""
        plan = self._plan()
        before, had_kernel = self.view(), self.has_kernel()
        has_kernel = bool(self.options.kernel) or (had_kernel and self.options.kernel is None)
        after = before
        if plan.install and (self.mode.plan or self.mode.check):
            python = self._checked_python()
            if self.mode.plan:
                return self.planned(python, plan.reasons)
            after = self.preview(python, fresh=False)._replace(python_version=before.python_version)
        elif plan.reasons and not self.mode.check:
            with self._locked() as lock:
                plan = self._plan()
                if plan.install:
                    self._install(lock)
                self.apply_kernel(plan)
            after = self.view()
        return self.result(bool(plan.reasons), plan.reasons, before, after, (had_kernel, has_kernel))

    def _checked_python(self) -> Python:
        python = self.probe()
        if python.externally_managed and not python.is_venv:
            raise CaveError(
                f"interpreter: {self.python} belongs to the operating system, which forbids installing into it "
                "(EXTERNALLY-MANAGED). Leave 'interpreter' out for an environment of its own below 'path', or give the "
                "Python of a virtual environment."
            )
        if not _installers.installs_on(python.release, self.options.request.exact_version):
            raise CaveError(
                f"interpreter: {self.python} is Python {python.version}; caveclient needs 3.9 or later (an older one "
                "would get caveclient 7.3.1 without a word). Use a newer environment, or ask for an exact version that "
                "is 7.3.1 or older."
            )
        return python

    def _install(self, lock: int) -> None:
        python = self._checked_python()
        request = self.options.request
        with self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=True)
            self.install(self.job(installer, self.python, self.source(work)), work, lock)
        _installed.check_works(self.python, self.known[1], request, self.environ, self.remaining(), held=(lock,))
        packages = _installed.installed_packages(self.known[1])
        record = _installed.make_record(request, python.version, python.base, self.installed_with, packages)
        _installed.write_record(self.place, record)

    def absent(self) -> dict[str, Any]:
        """Take caveclient out of the environment, and nothing else."""
        before, kernel = self.view(), self.kernel_to_remove()
        after = before._replace(packages={name: v for name, v in before.packages.items() if name != "caveclient"})
        reasons = (*(["caveclient is installed"] if before.version else []), *kernel.reasons)
        if before.version and self.mode.plan:
            python = self.probe()
            needs = self.needs(python)
            if needs["tools"]:
                doing = f"remove caveclient from {self.python}"
                return {
                    "changed": True,
                    "reasons": list(reasons),
                    "plan": {"doing": doing, "needs": {**needs, "wheels": False}},
                }
        if reasons and not self.mode.check:
            self.apply_kernel(kernel)
            if before.version:
                self._uninstall()
        return self.result(bool(reasons), reasons, before, after, (kernel.remove_kernel, False))

    def _uninstall(self) -> None:
        python = self.probe()
        with self._locked(), self.work_folder() as work:
            installer = self.find_installer(python, work, into_existing=True)
            outcome = _installers.uninstall(installer, self.python, self.environ, self.remaining())
            self.output = _installers.mask_credentials(outcome.output + outcome.error)
            if outcome.returncode != 0:
                doing = f"remove caveclient from {self.python} with {installer.kind}"
                raise _installers.explain(outcome, Source(), doing, self.options.timeout)
            (self.place / _installed.RECORD).unlink(missing_ok=True)
        self.installed_with = " ".join(installer[:2])

    def rolled_back(self) -> dict[str, Any]:
        """Say that there is nothing to go back to."""
        raise CaveError(
            f"state: rolled_back needs a managed environment (the option 'path'): of {self.python} no earlier build is "
            "kept. Ask for the earlier version with state: present."
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Keep another run away from the environment; the lock is on its folder, so nothing is left there."""
        descriptor = os.open(self.place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def options_of(params: Mapping[str, Any]) -> Options:
    """Check the module's parameters.

    Raises:
        CaveError: one of them is not what it should be.
    """
    for name in ("path", "interpreter", "python", "index_url", "jupyter_kernel", "jupyter_dir"):
        if not (params[name] or "").isprintable():
            raise CaveError(f"{name}: {params[name]!r} has control characters, or others that are not seen. Drop them.")
    for link in params["find_links"]:
        masked = _installers.mask_credentials(link)
        if masked != link:
            raise CaveError(
                f"find_links: a URL with user name and password is refused, since it would be seen in logs ({masked}). "
                "Put them into the ~/.netrc of the user that installs."
            )
    if params["keep"] < 0:
        raise CaveError(f"keep: {params['keep']} is less than 0.")
    if params["timeout"] < 1:
        raise CaveError(f"timeout: {params['timeout']} is not a time in seconds.")
    request = _installed.parse_request(
        params["version"],
        params["extras"],
        params["packages"],
        params["constraints"],
        params["python"],
        with_kernel=bool(params["jupyter_kernel"]),
    )
    return Options(
        request=request,
        path=os.path.normpath(params["path"]),
        interpreter=params["interpreter"] or "",
        installer=params["installer"],
        source=Source(params["index_url"] or "", tuple(params["find_links"]), params["offline"]),
        links_are_here=params["remote_src"],
        keep=params["keep"],
        kernel=params["jupyter_kernel"],
        jupyter_dir=params["jupyter_dir"],
        compile_all=params["compile"],
        timeout=params["timeout"],
        brought=Brought(**(params["_controller"] or {}).get("brought", {})),
    )


def run(options: Options, state: str, mode: Mode) -> dict[str, Any]:
    """Do what the module is asked for, and return its answer.

    Raises:
        CaveError: it cannot be done; what was live before still is.
    """
    # Scientists use what root installs, whatever root's umask is.
    umask = os.umask(0o022)
    try:
        environment = Existing(options, mode) if options.interpreter else Managed(options, mode)
        if state == "absent":
            return environment.absent()
        if state == "rolled_back":
            return environment.rolled_back()
        return environment.present()
    except OSError as error:
        where = error.filename or options.interpreter or options.path
        remedy = "Run the task with become: true, or choose another path." if isinstance(error, PermissionError) else ""
        raise CaveError((f"{where}: {error.strerror}. {remedy}").strip()) from error
    finally:
        os.umask(umask)


def _is_python(asked: str, record: Mapping[str, Any]) -> bool:
    if asked == record["request"]["python"]:
        return True
    if "/" in asked:
        return os.path.realpath(asked) == str(record["base"])
    return f"{record['python']}.".startswith(f"{asked}.")


def _unpack(archive: str, folder: Path) -> None:
    """Unpack the files of an archive into one folder, whatever paths it names."""
    import tarfile  # only here, since its import alone takes as long as a run that changes nothing

    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isfile() else None
            if content:
                with content, (folder / Path(member.name).name).open("wb") as file:
                    shutil.copyfileobj(content, file)


def _as_text(view: View, kernel: bool, kernel_file: Path) -> str:
    if not view.version:
        return ""
    others = [f"{name} {version}" for name, version in sorted(view.packages.items()) if name != "caveclient"]
    lines = [f"caveclient {view.version}", f"Python {view.python_version}"]
    if kernel:
        lines.append(f"Jupyter kernel {kernel_file}")
    return "\n".join([*lines, *others, ""])
