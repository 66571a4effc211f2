# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What startup files set CLOUD_VOLUME_DIR to: certain, or said to be unclear, and never wrong."""

from __future__ import annotations

import os
import pwd
import re
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_files import setting
from ansible_collections.connectomics.cave.plugins.module_utils._secrets.startup_texts import (
    CSH,
    ELVISH,
    FISH,
    NUSHELL,
    PLAIN,
    POWERSHELL,
    SHELL,
    XONSH,
    R,
)

KNOWN = {"HOME": "/home/alice", "USER": "alice", "LOGNAME": "alice", "CLOUD_VOLUME_DIR": ""}
ME = {**KNOWN, "USER": pwd.getpwuid(os.geteuid()).pw_name}
LEFT_ALONE, UNCLEAR, TAKEN_AWAY = "left alone", "unclear", ""


def value(text: str, language: str, known: dict[str, str] | None = None) -> str:
    found = setting(text, language, known or KNOWN)
    return LEFT_ALONE if found is None else UNCLEAR if found.value is None else found.value


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("  export CLOUD_VOLUME_DIR='/data/my cv'  # mine", "/data/my cv"),
        ('CLOUD_VOLUME_DIR="/data/cv"; export CLOUD_VOLUME_DIR', "/data/cv"),
        ("export OTHER=1 CLOUD_VOLUME_DIR=/data/cv MORE=2", "/data/cv"),
        ("declare -x CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("typeset -gx CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("set -a\nCLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        ("export CLOUD_VOLUME_DIR=$HOME/cv", "/home/alice/cv"),
        ('export CLOUD_VOLUME_DIR="${HOME}/cv"', "/home/alice/cv"),
        ("export CLOUD_VOLUME_DIR=~/cv", "/home/alice/cv"),
        ("export CLOUD_VOLUME_DIR=/scratch/$USER/cv", "/scratch/alice/cv"),
        ("export CLOUD_VOLUME_DIR=/scratch/${LOGNAME}", "/scratch/alice"),
        ("export CLOUD_VOLUME_DIR=/scratch/$(whoami)/cv", "/scratch/alice/cv"),
        ("export CLOUD_VOLUME_DIR=${CLOUD_VOLUME_DIR:-/data/$USER}", "/data/alice"),
        ("export CLOUD_VOLUME_DIR=${HOME:-/data}/cv", "/home/alice/cv"),
        ("S=/scratch/$USER\nexport CLOUD_VOLUME_DIR=$S/cv", "/scratch/alice/cv"),
        ("export CLOUD_VOLUME_DIR=/a\nexport CLOUD_VOLUME_DIR=/b", "/b"),
        ("export CLOUD_VOLUME_DIR=/a \\\n  OTHER=1", "/a"),
        ("if x; then\n  export CLOUD_VOLUME_DIR=/a\nfi\nexport CLOUD_VOLUME_DIR=/b", "/b"),
        ("case $- in *i*) ;; *) return;; esac\nexport CLOUD_VOLUME_DIR=/a", "/a"),
        ('[ -z "$PS1" ] && return\nexport CLOUD_VOLUME_DIR=/a', "/a"),
        ("f() {\n  local x=1\n}\nexport CLOUD_VOLUME_DIR=/a", "/a"),
        ("function f {\n  true\n}\nexport CLOUD_VOLUME_DIR=/a", "/a"),
        ("export CLOUD_VOLUME_DIR=/a; unset CLOUD_VOLUME_DIR", TAKEN_AWAY),
        ("return\nexport CLOUD_VOLUME_DIR=/a", LEFT_ALONE),
        ("# export CLOUD_VOLUME_DIR=/data/cv", LEFT_ALONE),
        ("echo CLOUD_VOLUME_DIR=/data/cv", LEFT_ALONE),
        ("CLOUD_VOLUME_DIR=/data/cv python x.py", LEFT_ALONE),
        ("alias cv='CLOUD_VOLUME_DIR=/data/cv python'", LEFT_ALONE),
        ('export PATH=$CLOUD_VOLUME_DIR/bin:$PATH; mkdir -p "$CLOUD_VOLUME_DIR"', LEFT_ALONE),
        ("CLOUD_VOLUME_DIR=/data/cv", UNCLEAR),  # not exported
        ("CLOUD_VOLUME_DIR = /data/cv", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/scratch/$SLURM_JOB_ID", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=${SCRATCH:-/tmp}/cv", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=$(touch /tmp/ran)/x", UNCLEAR),
        ('export CLOUD_VOLUME_DIR="`touch /tmp/ran`"', UNCLEAR),
        ("export CLOUD_VOLUME_DIR=$'/data/\\x41'", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/data/{a,b}", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=~bob/cv", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/a\\ b", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=$HOME:h/cv", UNCLEAR),  # zsh takes the head of the path
        ("if [ -d /scratch ]; then export CLOUD_VOLUME_DIR=/scratch; fi", UNCLEAR),
        ("[ -d /scratch ] && export CLOUD_VOLUME_DIR=/scratch", UNCLEAR),
        ("f() { export CLOUD_VOLUME_DIR=/a; }", UNCLEAR),
        ("if x; then S=/a; fi; export CLOUD_VOLUME_DIR=$S/cv", UNCLEAR),
        ("eval 'export CLOUD_VOLUME_DIR=/a'", UNCLEAR),
        ("read CLOUD_VOLUME_DIR < file", UNCLEAR),
        ("printf -v CLOUD_VOLUME_DIR %s /a", UNCLEAR),
        (": ${CLOUD_VOLUME_DIR:=/a}", UNCLEAR),
        ("mkdir -p ${CLOUD_VOLUME_DIR:=/a}; export CLOUD_VOLUME_DIR", UNCLEAR),
        ("CLOUD_VOLUME_DIR=(/a); export CLOUD_VOLUME_DIR", UNCLEAR),
        ("cat << END\nexport CLOUD_VOLUME_DIR=/a\nEND", UNCLEAR),
        ("echo $'it\\'s'\nexport CLOUD_VOLUME_DIR=/a", "/a"),
        ("echo 'open\nexport CLOUD_VOLUME_DIR=/a", LEFT_ALONE),  # an error in every shell, but nothing is set
        ("true | export CLOUD_VOLUME_DIR=/a", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/a && true &", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/a && mkdir -p /a", "/a"),
        ("S=/s\nread S < file\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\nprintf -v S /t\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\nfor S in /t; do :; done\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\neval 'S=/t'\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\n. /etc/lab.sh\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\n[ -f /etc/lab.sh ] && . /etc/lab.sh\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        (". /etc/lab.sh\nexport CLOUD_VOLUME_DIR=/scratch/$USER", "/scratch/alice"),
        ("V=CLOUD_VOLUME_DIR\nexport $V=/a", UNCLEAR),
        ("export CLOUD_VOLUME_DIR=/a\nV='CLOUD_VOLUME_DIR'\nunset $V", UNCLEAR),
        ("S=/s\ndeclare -l S=/T\nexport CLOUD_VOLUME_DIR=$S", UNCLEAR),
        ("S=/s\nS=/t true\necho S\nexport CLOUD_VOLUME_DIR=$S", "/s"),
    ],
)
def test_shells(line: str, expected: str) -> None:
    assert value(f"umask 022\n{line}\n", SHELL) == expected


@pytest.mark.parametrize(
    ("language", "line", "expected"),
    [
        (FISH, "set -gx CLOUD_VOLUME_DIR /data/cv", "/data/cv"),
        (FISH, "set --global --export CLOUD_VOLUME_DIR $HOME/cv", "/home/alice/cv"),
        (FISH, "set -Ux CLOUD_VOLUME_DIR '/data/my cv'", "/data/my cv"),
        (FISH, 'set -x CLOUD_VOLUME_DIR "/scratch/$USER"', "/scratch/alice"),
        (FISH, "export CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        (FISH, "set -e CLOUD_VOLUME_DIR", TAKEN_AWAY),
        (FISH, "set -q CLOUD_VOLUME_DIR", LEFT_ALONE),
        (FISH, "echo $CLOUD_VOLUME_DIR", LEFT_ALONE),
        (FISH, "set -q CLOUD_VOLUME_DIR; or set -gx CLOUD_VOLUME_DIR /a", UNCLEAR),
        (FISH, "if true\n  set -gx CLOUD_VOLUME_DIR /a\nend", UNCLEAR),
        (FISH, "if true\n  echo\nend\nset -gx CLOUD_VOLUME_DIR /a", "/a"),
        (FISH, "set -gx CLOUD_VOLUME_DIR (pwd)/cv", UNCLEAR),
        (FISH, "set -gx CLOUD_VOLUME_DIR {$HOME}/cv", UNCLEAR),
        (FISH, "set -g CLOUD_VOLUME_DIR /a", UNCLEAR),
        (FISH, "set --local --export CLOUD_VOLUME_DIR /a", UNCLEAR),
        (FISH, "set S /a; set -gx CLOUD_VOLUME_DIR $S/cv", UNCLEAR),
        (R, "invisible(Sys.setenv(CLOUD_VOLUME_DIR = '/data/cv'))", "/data/cv"),
        (R, "if (interactive()) Sys.setenv(CLOUD_VOLUME_DIR = '/data')", UNCLEAR),
        (R, "if (interactive()) {\n  Sys.setenv(CLOUD_VOLUME_DIR = '/data')\n}", UNCLEAR),
        (CSH, "setenv CLOUD_VOLUME_DIR /data/cv", "/data/cv"),
        (CSH, "setenv CLOUD_VOLUME_DIR ~/cv", "/home/alice/cv"),
        (CSH, "setenv CLOUD_VOLUME_DIR /scratch/$user/cv", "/scratch/alice/cv"),
        (CSH, 'setenv CLOUD_VOLUME_DIR "$home/cv"', "/home/alice/cv"),
        (CSH, "unsetenv CLOUD_VOLUME_DIR", TAKEN_AWAY),
        (CSH, "if (! $?CLOUD_VOLUME_DIR) setenv CLOUD_VOLUME_DIR /a", UNCLEAR),
        (CSH, "if ($?prompt) then\n  setenv CLOUD_VOLUME_DIR /a\nendif", UNCLEAR),
        (CSH, "if ($?prompt) then\n  echo\nendif\nsetenv CLOUD_VOLUME_DIR /a", "/a"),
        (CSH, "setenv CLOUD_VOLUME_DIR `pwd`", UNCLEAR),
        (CSH, "setenv CLOUD_VOLUME_DIR $HOME:h/cv", UNCLEAR),
        (CSH, "set CLOUD_VOLUME_DIR = /data/cv", UNCLEAR),
        (CSH, "setenv CLOUD_VOLUME_DIR /data#1", UNCLEAR),
        (CSH, "exit\nsetenv CLOUD_VOLUME_DIR /data", LEFT_ALONE),
        (FISH, "return\nset -gx CLOUD_VOLUME_DIR /data", LEFT_ALONE),
        (FISH, "set -gx CLOUD_VOLUME_DIR \\x2fdata\\x2fcv", UNCLEAR),
        (NUSHELL, '$env.CLOUD_VOLUME_DIR = "/data/cv"', "/data/cv"),
        (NUSHELL, "$env.CLOUD_VOLUME_DIR = '/data/my cv'  # mine", "/data/my cv"),
        (NUSHELL, '$env.CLOUD_VOLUME_DIR = "\\u{2f}data"', UNCLEAR),
        (NUSHELL, '$env.CLOUD_VOLUME_DIR = $"($env.HOME)/cv"', UNCLEAR),
        (NUSHELL, '$env.CLOUD_VOLUME_DIR = "/data" + "/cv"', UNCLEAR),
        (NUSHELL, 'if true {\n  $env.CLOUD_VOLUME_DIR = "/data"\n}', UNCLEAR),
        (NUSHELL, 'load-env {CLOUD_VOLUME_DIR: "/data"}', UNCLEAR),
        (NUSHELL, "hide-env CLOUD_VOLUME_DIR", UNCLEAR),
        (NUSHELL, '# $env.CLOUD_VOLUME_DIR = "/data/cv"', LEFT_ALONE),
        (XONSH, "$CLOUD_VOLUME_DIR = '/data/cv'", "/data/cv"),
        (XONSH, "$CLOUD_VOLUME_DIR = f'{$HOME}/cv'", UNCLEAR),
        (XONSH, "$CLOUD_VOLUME_DIR = $HOME + '/cv'", UNCLEAR),
        (XONSH, "if True:\n    $CLOUD_VOLUME_DIR = '/data'", UNCLEAR),
        (XONSH, "del $CLOUD_VOLUME_DIR", UNCLEAR),
        (XONSH, "$CLOUD_VOLUME_DIR = ''", UNCLEAR),
        (POWERSHELL, '$env:CLOUD_VOLUME_DIR = "/data/cv"', "/data/cv"),
        (POWERSHELL, "$Env:CLOUD_VOLUME_DIR='/data/my cv';", "/data/my cv"),
        (POWERSHELL, '[Environment]::SetEnvironmentVariable("CLOUD_VOLUME_DIR", "/data/cv")', "/data/cv"),
        (POWERSHELL, '[Environment]::SetEnvironmentVariable("CLOUD_VOLUME_DIR", "/data/cv", "User")', UNCLEAR),
        (POWERSHELL, '$env:CLOUD_VOLUME_DIR = "$HOME/cv"', UNCLEAR),
        (POWERSHELL, '$env:CLOUD_VOLUME_DIR = "/data`tcv"', UNCLEAR),
        (POWERSHELL, 'if ($true) {\n  $env:CLOUD_VOLUME_DIR = "/data"\n}', UNCLEAR),
        (POWERSHELL, "Set-Item Env:CLOUD_VOLUME_DIR /data", UNCLEAR),
        (ELVISH, "set-env CLOUD_VOLUME_DIR /data/cv", "/data/cv"),
        (ELVISH, "set E:CLOUD_VOLUME_DIR = '/data/cv'", "/data/cv"),
        (ELVISH, "set-env CLOUD_VOLUME_DIR ~/cv", UNCLEAR),
        (ELVISH, "set-env CLOUD_VOLUME_DIR /data/$E:USER", UNCLEAR),
        (ELVISH, "unset-env CLOUD_VOLUME_DIR", UNCLEAR),
        (PLAIN, "CLOUD_VOLUME_DIR=/data/cv", "/data/cv"),
        (PLAIN, 'CLOUD_VOLUME_DIR="/data/my cv"', "/data/my cv"),
        (PLAIN, "CLOUD_VOLUME_DIR=${HOME}/cv", "/home/alice/cv"),
        (PLAIN, "CLOUD_VOLUME_DIR=/scratch/$USER", "/scratch/alice"),
        (PLAIN, "CLOUD_VOLUME_DIR=${NOWHERE:-/a}", UNCLEAR),
        (PLAIN, "CLOUD_VOLUME_DIR=~/cv", UNCLEAR),
        (PLAIN, "CLOUD_VOLUME_DIR DEFAULT=/data", UNCLEAR),
        (PLAIN, "CLOUD_VOLUME_DIR=/data/@{PAM_USER}", UNCLEAR),
        (PLAIN, "# CLOUD_VOLUME_DIR=/data", LEFT_ALONE),
        (PLAIN, "OTHER=$CLOUD_VOLUME_DIR", LEFT_ALONE),
    ],
)
def test_other_languages(language: str, line: str, expected: str) -> None:
    assert value(f"{line}\n", language) == expected


def test_the_line_is_told() -> None:
    found = setting("umask 022\n\n# mine\nexport CLOUD_VOLUME_DIR=$(pwd)\n", SHELL, KNOWN)
    assert found == (None, 4)


WORDS = """
/a  /b\\ c  $HOME  ${HOME}  $USER  ~  ~/x  /  x  $NOWHERE  ${NOWHERE:-/d}  ${HOME:-/d}  $(whoami)  '  "  \\  '/q $HOME'
*  #  "/q $HOME"  {a,b}  $CLOUD_VOLUME_DIR  ${CLOUD_VOLUME_DIR:-/e}  $S
"""
OTHER_COMMANDS = """
export CLOUD_VOLUME_DIR  unset CLOUD_VOLUME_DIR  set -a  set +a  return  unset S  true  false  # it's  if true; then  fi
else  case x in x)
;; esac  f() {  }  (  )  f  {  then  mkdir -p ${CLOUD_VOLUME_DIR:=/m}  : ${CLOUD_VOLUME_DIR:=/m}  cat << END
END  echo $'it\\'s'  `  '  CLOUD_VOLUME_DIR=/y  export CLOUD_VOLUME_DIR=/z
"""
words = st.sampled_from([" ", *(word for word in re.split(r"  |\n", WORDS) if word)])
values = st.lists(words, max_size=3).map("".join)
commands = st.one_of(
    values.map("export CLOUD_VOLUME_DIR={}".format),
    values.map("CLOUD_VOLUME_DIR={}".format),
    values.map("declare -x CLOUD_VOLUME_DIR={}".format),
    values.map("export S={} CLOUD_VOLUME_DIR=/x/$S".format),
    values.map("S={}".format),
    values.map("echo CLOUD_VOLUME_DIR={}".format),
    values.map("CLOUD_VOLUME_DIR={} true".format),
    values.map("CLOUD_VOLUME_DIR={} eval :".format),
    values.map("CLOUD_VOLUME_DIR+={}".format),
    st.sampled_from([command for command in re.split(r"  |\n", OTHER_COMMANDS) if command]),
)
scripts = st.lists(
    st.tuples(commands, st.sampled_from(["\n", "; ", " && ", " || ", " | ", " & ", "\n\n", " \\\n"])), max_size=5
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts.map(lambda parts: "".join(command + end for command, end in parts)))
@example("CLOUD_VOLUME_DIR=/x eval :\n")
@example("export S= CLOUD_VOLUME_DIR=/x/$S S=/a\nexport CLOUD_VOLUME_DIR=/x/$S\n")
@example("export S= CLOUD_VOLUME_DIR=/x/$S\nexport CLOUD_VOLUME_DIR=/a$CLOUD_VOLUME_DIR\n")
def test_what_is_said_of_a_script_is_what_bash_makes_of_it(script: str) -> None:
    said = value(script, SHELL, ME)
    if said == UNCLEAR:
        return
    if subprocess.run(["bash", "-n", "-c", script], capture_output=True, check=False).returncode:
        return  # what a shell does with half of a file is its own affair
    done = subprocess.run(
        ["bash", "--norc", "-c", "source /dev/stdin > /dev/null 2>&1; printenv CLOUD_VOLUME_DIR"],
        input=script,
        env={"PATH": "/usr/bin:/bin", **{name: known for name, known in ME.items() if known}},
        cwd="/proc/self/fdinfo",  # where nothing can be made
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (done.stdout.rstrip("\n") or TAKEN_AWAY) == (TAKEN_AWAY if said == LEFT_ALONE else said)


@given(
    st.text(alphabet="CLOUD_VOLUME_DIR=/$\"'`\\(){}<>;&|#~ \n\tax") | st.text(),
    st.sampled_from([SHELL, FISH, CSH, PLAIN, NUSHELL, XONSH, POWERSHELL, ELVISH]),
)
def test_no_text_breaks_the_reader(text: str, language: str) -> None:
    setting(f"{text}CLOUD_VOLUME_DIR{text}", language, KNOWN)
