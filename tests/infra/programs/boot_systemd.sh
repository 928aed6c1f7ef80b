#!/bin/sh
# Starts systemd as the first process of namespaces of its own, as root, over the files of this machine.
# Usage: boot_systemd.sh FOLDER CGROUP. FOLDER/etc is laid over a copy of /etc, FOLDER/opt becomes /opt, and the folders
# ROOT and PYTHON (in the environment) are /opt/checkout and /opt/python. /var, /srv and /run are empty. CGROUP is a name. Of the units in FOLDER/units only, so that no
# service of this machine starts. Nothing outside is changed, except for the control group CGROUP, which stays.
set -eu
folder=$1
group=$2
# the second version of control groups only: of the first, systemd would make groups in all hierarchies of this machine
hierarchy=/sys/fs/cgroup
[ -e "$hierarchy/cgroup.procs" ] || hierarchy=/sys/fs/cgroup/unified
mkdir "$hierarchy/$group"
echo $$ >"$hierarchy/$group/cgroup.procs"
export folder
exec unshare --pid --fork --kill-child --mount --ipc --uts --cgroup --mount-proc --propagation private sh -euc '
    mkdir -p "$folder/new"
    mount -t tmpfs tmpfs "$folder/new"
    mkdir "$folder/new/etc" "$folder/new/opt"
    cp -a /etc/. "$folder/new/etc"
    rm -rf "$folder/new/etc/systemd/system"
    cp -r "$folder/etc/." "$folder/new/etc"
    cp -r "$folder/opt/." "$folder/new/opt"
    cat "$folder/passwd" >>"$folder/new/etc/passwd"
    cat "$folder/group" >>"$folder/new/etc/group"
    mkdir "$folder/new/opt/checkout" "$folder/new/opt/python"
    mount --rbind "$ROOT" "$folder/new/opt/checkout"
    mount --rbind "$PYTHON" "$folder/new/opt/python"
    mount --bind "$folder/new/etc" /etc
    mount --rbind "$folder/new/opt" /opt
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /srv
    mount --bind "$folder/var" /var
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount --make-rshared / # as systemd expects of a container
    exec env -i container=docker PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin SYSTEMD_UNIT_PATH=/etc/systemd/system \
        /lib/systemd/systemd --system --unit=idle.target --show-status=no --log-target=console --log-level=notice
'
