#!/usr/bin/env bash
# build_kernel.sh: makes the guest kernel unless that was done before; prints the path of its bzImage. Beside it stands
# modules/, NN-NAME.ko, to be loaded in that order.
#
# The kernel is Debian's own Linux 6.1 for clouds. Only cachefiles and EROFS are built, from the same version's source:
# Debian leaves the on-demand mode out. Kept outside the tree, under ${XDG_CACHE_HOME:-~/.cache}/hydrant/oracle.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

"$here/../../scripts/install-packages.sh" oracle >&2
headers=$(dpkg-query -W -f '${Depends}' linux-headers-cloud-amd64 | grep -o 'linux-headers-[^ ,]*')
image=${headers/headers/image}
version=$(dpkg-query -W -f '${Version}' "$headers")  # the newest source may be newer, by days
key=$( (echo "$version $headers"; cat "${BASH_SOURCE[0]}") | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hydrant/oracle
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9  # a second caller waits for the first one's kernel
if [ -e "$cache/$key/bzImage" ]; then
  echo "$cache/$key/bzImage"
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
build() {
  cd "$work"
  apt-get -q download "$image" "linux-source-6.1=$version"
  dpkg-deb -x "$image"*.deb image  # unpacked, never installed: this machine boots something else
  dpkg-deb -x linux-source-6.1*.deb source-package
  mkdir source out out/modules
  tar -xf source-package/usr/src/linux-source-6.1.tar.xz -C source --strip-components=1 --wildcards '*/fs/cachefiles' '*/fs/erofs' \
    '*/fs/internal.h'
  local wanted=(CACHEFILES_ONDEMAND EROFS_FS_ONDEMAND CACHEFILES_ERROR_INJECTION)
  for module in cachefiles erofs; do
    nice make -j"$(nproc)" -C "/usr/src/$headers" M="$work/source/fs/$module" CONFIG_CACHEFILES=m CONFIG_EROFS_FS=m \
      CONFIG_DEBUG_INFO_BTF_MODULES= $(printf "CONFIG_%s=y " "${wanted[@]}") \
      KCFLAGS="$(printf -- '-DCONFIG_%s=1 ' "${wanted[@]}")" modules
  done
  local number=10
  for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk brd netfs fscache \
    libcrc32c cachefiles erofs failover net_failover virtio_net; do
    local from
    from=$(find source image -name "$module.ko" | sort -r | head -n 1)  # ours first
    [ -n "$from" ] || continue  # built in
    strip -g -o "out/modules/$number-$module.ko" "$from"
    number=$((number + 1))
  done
  cp image/boot/vmlinuz-* out/bzImage
  rm -rf "${cache:?}/$key"
  mv out "$cache/$key"
}
echo "build_kernel: building cachefiles and EROFS of Linux $version, a minute or two, once" >&2
(build) > "$cache/build.log" 2>&1 9>&- || {
  tail -n 20 "$cache/build.log" >&2
  exit 1
}
echo "$cache/$key/bzImage"
