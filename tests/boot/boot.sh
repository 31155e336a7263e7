#!/bin/sh
# boot.sh ROOT CGROUP: boots the Debian in ROOT with its systemd as PID 1, in namespaces of its own, with
# loopback for a network. All of it ends with that process.
set -eu
echo $$ > "$2/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --propagation private --uts --ipc --cgroup --net \
  sh -euc '
root=$0
hostname edgebox
ip link set lo up
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
for name in null zero full random urandom tty; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
# systemd hands credentials over by a mount that it propagates to services.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=journal
' "$1"
