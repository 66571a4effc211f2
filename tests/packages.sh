#!/bin/sh
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Installs the packages of packages.txt that this Debian or Ubuntu machine lacks. Needs root.

set -eu

missing=
while read -r package _; do
    case $package in
        '' | '#'*) continue ;;
    esac
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done < "$(dirname "$0")/packages.txt"

if [ -z "$missing" ]; then
    exit 0
fi
echo "Installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
# shellcheck disable=SC2086  # a list of names
apt-get install --quiet=2 --yes --no-install-recommends $missing > /dev/null
