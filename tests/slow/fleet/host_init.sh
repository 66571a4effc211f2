#!/bin/sh
# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Turns an empty set of namespaces into one host of the fleet and becomes its sshd: PID 1.
#
# Arguments: FOLDER LOWER NAME ADDRESS/PREFIX UMASK
#   FOLDER  of this host: upper, work and root are in it
#   LOWER   the shared layers below, topmost first, separated by colons
# Standard output says "ready" once the namespaces can be given a link; a line on standard input says that they
# have it. When the controller dies before that, the input ends and so does this host.

set -eu
folder=$1 lower=$2 name=$3 address=$4 mask=$5

echo ready
mount -t overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" fleet "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,size=16m shm dev/shm
echo "$name" > proc/sys/kernel/hostname
read -r _
ip -batch - << BATCH
link set lo up
link set eth0 addrgenmode none
addr add $address dev eth0
link set eth0 up
BATCH

# The new root is put over the old one, which is then detached: nothing of the machine stays reachable.
pivot_root . .
cd /
umount -l .
umask "$mask"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/sbin/sshd -D -e < /dev/null > /dev/null
