#!/usr/bin/env bash
# make_demo_image.sh DIR: makes DIR/oci, an OCI layout with the image demo:latest, out of real Debian package
# installations and nothing else: no container engine, no network but the configured Debian mirror. Needs root. Kept: a
# second call returns at once.
#
#   1 Debian minbase   2 python3   3 numpy   4 pandas   5 an application, and what it removes of the layers below
set -euo pipefail
[ $# = 1 ] || { echo "usage: make_demo_image.sh DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ ! -e "$out/complete" ] || exit 0

# In a mount namespace of its own no overlay outlives this script.
if [ "${DEMO_IMAGE_INSIDE:-}" != yes ]; then
  DEMO_IMAGE_INSIDE=yes exec unshare --mount --propagation private "$0" "$out"
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
work=$out/work
rm -rf "$work" "$out/oci"
mkdir -p "$work/debs/partial" "$work/merged" "$work/overlay-work"
trap 'umount -R "$work/merged" 2> /dev/null || true; rm -rf "$work"' EXIT
log=$out/build.log
quietly() { "$@" >> "$log" 2>&1 || { tail -n 20 "$log" >&2; echo "make_demo_image: failed: $*" >&2; exit 1; }; }
: > "$log"

slim=(path-exclude=/usr/share/doc/\* path-exclude=/usr/share/man/\* path-exclude=/usr/share/locale/\*
  path-exclude=/usr/share/info/\* path-exclude=/usr/include/\* path-exclude=/usr/lib/gcc/\* path-exclude=\*.a)

sources=/etc/apt/sources.list
[ ! -s /etc/apt/sources.list.d/debian.sources ] || sources=/etc/apt/sources.list.d/debian.sources
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
ls /var/lib/apt/lists/*_Packages* > /dev/null 2>&1 || quietly apt-get -q -o DPkg::Lock::Timeout=300 update

echo "demo image: installing Debian minbase"
mkdir "$work/layer1"
quietly mmdebstrap --variant=minbase --mode=root --format=directory "${slim[@]/#/--dpkgopt=}" "$suite" "$work/layer1" "$sources"
# The image says nothing of the machine it was made on.
rm -rf "$work"/layer1/etc/apt/sources.list* "$work"/layer1/var/lib/apt/lists/* "$work/layer1/etc/hostname" \
  "$work"/layer1/var/cache/apt/* "$work"/layer1/var/log/{apt,dpkg.log,bootstrap.log}
: > "$work/layer1/etc/resolv.conf"

# on_top N COMMAND…: runs COMMAND with layer N over the ones below, mounted at $work/merged.
on_top() {
  local n=$1 lower="" i
  shift
  for ((i = 1; i < n; i++)); do lower=$work/layer$i${lower:+:$lower}; done
  mkdir "$work/layer$n"
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/layer$n,workdir=$work/overlay-work" "$work/merged"
  mount -t proc proc "$work/merged/proc"
  "$@"
  umount "$work/merged/proc" "$work/merged"
}

# This machine's apt resolves, downloads and orders; dpkg works on the image and runs the packages' scripts inside it.
install_packages() {
  local dpkg_options=("--root=$work/merged" --force-unsafe-io "${slim[@]/#/--}")
  quietly apt-get -q -y -o Dir::State::status="$work/merged/var/lib/dpkg/status" \
    -o Dir::State::extended_states="$work/extended_states" -o Dir::Cache::archives="$work/debs" \
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Debug::NoLocking=true \
    "${dpkg_options[@]/#/-oDPkg::Options::=}" install "$@"
  rm -rf "$work"/merged/var/log/{dpkg.log,alternatives.log} "$work"/merged/var/lib/dpkg/*-old
}

application() {
  local top=$work/merged
  mkdir -p "$top/app/static"
  /usr/bin/python3 - "$top/app" <<'PY'
import random, sys
generator = random.Random(7)
with open(sys.argv[1] + "/model.bin", "wb") as file:
    for _ in range(32):
        file.write(generator.randbytes(1 << 20))
for number in range(300):
    with open(f"{sys.argv[1]}/static/page{number:03}.html", "w") as file:
        file.write(f"<p>page {number}</p>\n" * generator.randint(10, 400))
with open(sys.argv[1] + "/main.py", "w") as file:
    file.write("import numpy\na = numpy.arange(12.0).reshape(3, 4)\nprint('ready', numpy.linalg.norm(a @ a.T))\n")
PY
  ln "$top/app/main.py" "$top/app/again.py"
  ln "$top/app/model.bin" "$top/app/model-latest.bin"
  rm -rf "$top"/usr/share/perl5 "$top"/usr/lib/python3/dist-packages/pandas/tests
  rm -rf "$top/usr/share/zoneinfo" && mkdir "$top/usr/share/zoneinfo" && : > "$top/usr/share/zoneinfo/UTC"
}

echo "demo image: installing python3, numpy, pandas"
on_top 2 install_packages python3
on_top 3 install_packages python3-numpy
on_top 4 install_packages python3-pandas
on_top 5 application

echo "demo image: packing the layers"
/usr/bin/python3 - "$here/../tests/support" "$work" "$out/oci" <<'PY'
import os, pathlib, stat, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import oci

def to_oci(top):
    """Overlay marks removals by device nodes and attributes, OCI by names."""
    for folder, _, names in os.walk(top):
        folder = pathlib.Path(folder)
        if folder != top and "trusted.overlay.opaque" in os.listxattr(folder):
            (folder / ".wh..wh..opq").touch()
        for name in names:
            status = os.lstat(folder / name)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                (folder / name).unlink()
                (folder / (".wh." + name)).touch()

image = oci.Image(sys.argv[3])
image.command = ["python3", "/app/main.py"]
for number in range(1, 6):
    top = pathlib.Path(sys.argv[2]) / f"layer{number}"
    to_oci(top)
    image.add_layer(oci.tar_directory(top, "--xattrs-exclude=trusted.*", "--sort=none"))
image.finish()
PY
rm -f "$log"
touch "$out/complete"
