#!/bin/bash
# device_init.sh: init of the guest in which hydrant-fetchd serves the kernel. /data has what it serves; what the kernel
# showed goes to /dev/vdb as a tar, what went wrong to the console.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /proc /dev /cache /state /out /m
mount -t proc proc /proc
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
for module in /modules/*.ko; do insmod "$module"; done
mount -t ext4 -o user_xattr /dev/vda /cache
mkfifo /lines
exec 4<>/lines 3<>/dev/cachefiles  # this shell holds the device, as systemd does

daemon() {
  cd / || exit
  LISTEN_PID=$BASHPID LISTEN_FDS=1 LISTEN_FDNAMES=cachefiles exec hydrant-fetchd --device /dev/cachefiles \
    --root /state --cache-dir /cache --workers 4 "$@"
}
start() {
  daemon "$@" > /lines 2>> /out/log 4>&- &
  fetchd=$!
}
mount_next() {  # DIR: as the next line of the daemon says
  local line
  read -r -t 300 line <&4 || { echo "! no line for $1"; tail -n 20 /out/log; }
  echo "$line" >> /out/commands
  mkdir -p "$1"
  eval "${line/ DIR/ $1}" || echo "! $1: cannot be mounted by: $line"
}
listing() {  # DIR
  (cd "$1" && find . -printf '%P\t%y\t%m\t%U:%G\t%n\t%l\n' | LC_ALL=C sort)
}
sums() {  # DIR
  (cd "$1" && find . -type f -exec sha256sum -z {} + | LC_ALL=C sort -z -k 2)
}
# Reads files in order; where the reader first waits in the kernel the daemon dies, and another one goes on.
sums_over_a_death() {  # FILES
  sha256sum -z "$@" &
  local reader=$! stat
  while read -r stat 2> /dev/null < "/proc/$reader/stat" && [[ ${stat##*) } != D* ]]; do :; done
  [[ ${stat##*) } == D* ]] && echo "killed while a reader waited" >> /out/log
  kill -KILL "$fetchd"
  wait "$fetchd" 2> /dev/null
  start
  wait "$reader"
}

names=(app many everything single)
start --serve app=file:/data/app.erofs --serve oci:/data/many --serve oci:/data/everything --serve file:/data/single
for name in "${names[@]}"; do mount_next "/m/$name"; done

kill -STOP "$fetchd"  # so that the first reader waits for sure
cd /m/app
sums_over_a_death ./* > /out/app.sums
cd /m/many
mapfile -d '' -t files < <(find . -type f -print0 | LC_ALL=C sort -z)
quarter=$((${#files[@]} / 4 + 1))
for part in 0 1 2 3; do sums_over_a_death "${files[@]:part * quarter:quarter}"; done > /out/many.sums
cd /
for name in everything single; do sums "/m/$name" > "/out/$name.sums"; done
for name in "${names[@]}"; do listing "/m/$name" > "/out/$name.listing"; done

# The sources are gone: what was read is the kernel's, and stays so over an end of the cache.
rm -rf /data
for name in "${names[@]}"; do umount "/m/$name"; done
kill "$fetchd"
wait "$fetchd" || echo "! the daemon ended with $?"
exec 3>&-
until exec 3<>/dev/cachefiles; do :; done 2> /dev/null
rm -f /state/run/fetchd.pid
start
until [ -e /state/run/fetchd.pid ]; do :; done
mkdir -p /m/again
eval "$(sed -n '2s| DIR| /m/again|p' /out/commands)" || echo "! the image cannot be mounted again"
sums /m/again > /out/again.sums

tar -cf /dev/vdb -C /out .
sync
echo '! end'
echo b > /proc/sysrq-trigger
