#!/usr/bin/python

# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The documentation of an action plugin: all of the work is done on the controller, in plugins/action/fleet_report.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Report what a run found on every host
version_added: 0.1.0
author: connectomics.cave contributors (@connectomics)
description:
  - Collects what the modules of this collection registered on the hosts of a play, and says what is wrong, what to do
    about it, and how many hosts are ok, in a few lines at the end of the run.
  - With O(dest), writes the same as JSON for programs and as a page for people; with O(junit), for CI systems.
  - Keeps a list of unfinished hosts, for C(--limit @FILE).
  - Fails when somebody has no access, or when nothing was done at all, so that the exit status of C(ansible-playbook)
    says it too.
  - Works on the controller alone. The report holds fingerprints of tokens, never tokens.
options:
  run:
    description:
      - What C(plays/begin.yml) recorded in C(__caveclient_run) on C(localhost), instead of O(title), O(hosts) and
        O(results); see the notes.
    type: dict
  title:
    description:
      - The name of the playbook, for the report's heading.
      - Required unless O(run) or O(merge) is given.
    type: str
  hosts:
    description:
      - The hosts to report on.
      - By default all hosts of the play, even those that failed or could not be reached.
    type: list
    elements: str
  results:
    description:
      - The names of the variables that the hosts' tasks registered, in the order of the tasks.
      - A variable that is missing or empty on a host is a task that it did not reach. A host with none of them is
        pending.
      - For a host whose tasks failed inside a block, C(ansible_failed_result) can be named, too.
    type: list
    elements: str
    default:
      - __caveclient_result
  refused:
    description: Why the request was refused and nothing was done. No host is reported on then.
    type: str
  found:
    description:
      - Results of hosts instead of what their tasks registered, as a list for each host.
      - A host that is in it and not among O(hosts) is reported on as well.
    type: dict
    default: {}
  merge:
    description:
      - Reports of earlier runs to merge, instead of reporting on this run. Each is the path of a C(report.json) on the
        controller, or of its folder.
      - A host in several of them is taken from the latest. What is unfinished of a run stays so until a later one has
        repeated it for the hosts that were not done.
    type: list
    elements: path
  notes:
    description: Sentences about the run as a whole, to print and write with the report.
    type: list
    elements: str
    default: []
  unfinished:
    description:
      - Sentences on what else keeps the run from succeeding, such as a token still to be revoked. Any of them makes the
        run fail.
    type: list
    elements: str
    default: []
  dest:
    description:
      - A folder on the controller for C(report.json) and C(report.html), made with mode 0700 when it doesn't exist.
      - The files have mode 0600. They replace those of an earlier run. Each run also keeps its own in a folder named by
        date; the link C(latest) points at the newest.
      - If they cannot be written, the report is still printed, and the run fails.
      - The shape of C(report.json) is described by the JSON schema C(plugins/plugin_utils/_report/report.schema.json).
    type: path
  junit:
    description:
      - A file on the controller for the report as JUnit XML, which CI systems show.
      - A suite for each host, a case for each user. A user without access is a failure, a host that could not be asked
        is an error.
    type: path
  pending:
    description:
      - A file on the controller for the names of the hosts that failed or are pending, one a line.
        C(ansible-playbook --limit @FILE) takes it.
      - A host already listed that this run left out stays listed. The file is removed when no host is left.
      - A host that the playbook C(rotate) has left stays in it until C(rotate) is done with it; a file of the same name
        with C(.rotate) added lists these.
      - The default is the file C(pending) in O(dest).
    type: path
  fail:
    description:
      - Whether the task fails when a host failed or is pending, or something else is unfinished.
      - Without it, the fact C(cave_report) says which hosts should fail and why.
    type: bool
    default: true
  print_later:
    description:
      - Whether the lines are left in the fact C(cave_report), for the lookup P(connectomics.cave.print_report#lookup).
        That one can come after the hosts have failed, so that Ansible's recap follows the report.
    type: bool
    default: false
  pending_ok:
    description: Whether hosts that could not be asked, for example because they are off, are no reason to fail.
    type: bool
    default: false
  strict:
    description: Whether a host where access works but something is wrong with the files is a reason to fail.
    type: bool
    default: false
  require_users:
    description: Whether a report without any user is a failure, as for a check that checks nothing.
    type: bool
    default: false
attributes:
  action:
    description: Part of it runs on the controller.
    support: full
  bypass_host_loop:
    description: Runs once for the play, not once for each host. It does not work with the C(free) strategy.
    support: full
  check_mode:
    description: Prints the report, which is a prediction then, and writes no file.
    support: full
  diff_mode:
    description: A report is news, not a state that could differ.
    support: none
  platform:
    description: The systems on which it runs.
    support: full
    platforms: posix
notes:
  - Ansible ends a run early when every host of a play failed. Put the hosts' tasks into a block with a rescue section,
    and set C(ignore_unreachable) on that play, so the report always comes; see the example.
  - As a task that runs once, it fails for the first host of its play, and Ansible's recap then blames that one. The
    playbooks of this collection instead begin with C(plays/begin.yml) and end with C(plays/report.yml).
    These choose the hosts, report from C(localhost), and then let each host that is not done fail by itself. They read
    C(__caveclient_title), C(__caveclient_results) (the registered variables, in order), C(__caveclient_with_tokens)
    (leave hosts without tokens alone), C(__caveclient_settings) (variables without C(caveclient_) in front that are
    refused before anything is done if they are wrong), C(__caveclient_tags) (the tags that the playbook has); and
    C(__caveclient_notes), C(__caveclient_unfinished), C(__caveclient_require_users), C(__caveclient_found) and
    C(__caveclient_pending) for the options of these names. C(verify.yml) shows how.
  - The lines are printed as they are, whatever the callback for the results. When that callback prints JSON, they go to
    standard error.
seealso:
  - module: connectomics.cave.verify_access
  - module: connectomics.cave.saved_token
  - module: connectomics.cave.saved_token_info
"""

EXAMPLES = r"""
- name: Verify every user's access
  hosts: workstations
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - name: Verify the host
      block:
        - name: Ask CAVE as every user
          connectomics.cave.verify_access:
            users: [alice, bob]
            datastacks: [minnie65_public]
          register: access
      rescue:
        - name: Keep the host in the run, for the report
          ansible.builtin.meta: noop

- name: Report what works and what is wrong
  hosts: workstations
  gather_facts: false
  tasks:
    - name: Report
      connectomics.cave.fleet_report:
        title: access
        results: [access, ansible_failed_result]
        dest: reports
        junit: reports/junit.xml
      run_once: true
      delegate_to: localhost

- name: Merge the reports of three runners
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Merge the reports
      connectomics.cave.fleet_report:
        merge: [reports/1, reports/2, reports/3]
        dest: reports/all
"""

RETURN = r"""
msg:
  description: The line of counts; when the task fails, the hosts that are not done and what to do.
  returned: always
  type: str
  sample: 27 workstations ok, 2 failed, 1 pending; 84 users
counts:
  description: How many hosts and users are in which state, and how often each verdict was given.
  returned: success
  type: dict
  sample:
    hosts: {total: 30, failed: 2, pending: 1, warning: 0, ok: 27, changed: 27, unchanged: 0}
    users: {total: 84, failed: 2, pending: 0, warning: 0, ok: 82}
    verdicts: {invalid_token: 2, ok: 82}
failed_hosts:
  description: The hosts on which somebody has no access or a task failed.
  returned: success
  type: list
  elements: str
  sample: [ws07, ws12]
pending_hosts:
  description: The hosts that could not be asked.
  returned: success
  type: list
  elements: str
  sample: [ws22]
files:
  description: The paths of the files that were written, or in check mode would be.
  returned: success
  type: dict
  sample: {json: reports/report.json, html: reports/report.html, junit: reports/junit.xml, pending: reports/pending}
"""
